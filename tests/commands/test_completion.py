"""`pretext3d completion`: what bash completes by it; the scripts of other shells have the same names."""

import shutil
import subprocess
from pathlib import Path

import pytest
from pretext3d.__main__ import COMMANDS, main
from pretext3d.commands.bundles import bundles_at_hand


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_bash(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Commands, options, the bundles' names, keys of the configurations, and folders."""
    assert main(["completion", "bash"]) == 0
    script = tmp_path / "pretext3d"
    script.write_text(capsys.readouterr().out)
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans.csv").touch()
    expected = {
        "pretext3d ''": [*COMMANDS],
        "pretext3d pre": ["preview"],
        "pretext3d preview --bun": ["--bundle"],
        "pretext3d preview --bundle ''": [*bundles_at_hand()],
        "pretext3d bundles --copy rub": ["rubiks_cube"],
        "pretext3d run --dataset_d": ["--dataset_dir"],
        "pretext3d run --profile ''": ["paper", "laptop", "laptop_transformer"],
        "pretext3d run --dataset_dir sc": ["scans"],
        "pretext3d compare --recip": ["--recipe"],
    }
    lines = [
        f"COMP_WORDS=({line}); COMP_CWORD=$((${{#COMP_WORDS[@]}}-1)); "
        '_shtab_pretext3d; echo "${COMPREPLY[*]}"'
        for line in expected
    ]
    code = "\n".join([f"source {script}", *lines])
    done = subprocess.run(
        ["bash", "--norc", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    found = [sorted(line.split()) for line in done.stdout.splitlines()]
    assert found == [sorted(names) for names in expected.values()]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(name in script for name in [*COMMANDS, *bundles_at_hand(), "max_epochs"])


def test_another_shell(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["completion", "cmd"])
    assert "invalid choice: 'cmd' (choose from" in capsys.readouterr().err
