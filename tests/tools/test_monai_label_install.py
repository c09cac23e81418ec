"""tools/monai_label/install.sh: it replaces what it has made itself, and nothing else."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "monai_label" / "install.sh"
MARKER = "made_by_pretext3d.txt"


def install(folder: Path, path: str = "/usr/bin:/bin") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(SCRIPT), str(folder)], env={"PATH": path}, capture_output=True, text=True, check=False,
        timeout=60,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["pyvenv.cfg", "notes.txt"])
def test_what_others_have_made_stays(tmp_path: Path, name: str) -> None:
    """Another virtual environment too."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / name).write_text("weeks of work")
    done = install(tmp_path / "mine")
    assert done.returncode == 1
    assert "found something that this script has not made" in done.stderr
    assert (tmp_path / "mine" / name).read_text() == "weeks of work"
    (tmp_path / "file").touch()
    assert install(tmp_path / "file").returncode == 1


def test_its_own_is_made_anew(tmp_path: Path) -> None:
    """With a Python that only reports what it was asked for: nothing is installed."""
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / "python3"
    asked = 'if [ "$2" = venv ]; then touch "$3/pyvenv.cfg"; exit 7; fi'
    python.write_text(f'#!/bin/bash\n{asked}\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    folder, path = tmp_path / "environment", f"{tmp_path / 'bin'}:/usr/bin:/bin"
    for _ in range(2):  # again after an installation that broke off, too
        assert install(folder, path).returncode == 7
        assert sorted(one.name for one in folder.iterdir()) == [MARKER, "pyvenv.cfg"]
        (folder / "lib").mkdir()
        (folder / "lib" / "old.py").touch()
