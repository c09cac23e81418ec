"""A virtual environment in which nothing can be imported but what a wheel declares, made without an index.

The packages are links to those of the running environment: the wheel's requirements, theirs, and so on.
"""

import importlib.metadata
import re
import subprocess
import sys
import venv
import zipfile
from collections import defaultdict
from importlib.metadata import Distribution
from pathlib import Path

from packaging.requirements import Requirement

__all__ = ["CleanEnvironment"]


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def needed(requirements: list[str], installed: dict[str, Distribution]) -> set[str]:
    """The installed distributions that requirements name, with what these need themselves."""
    found: set[tuple[str, str]] = set()
    waiting = [(line, "") for line in requirements]
    while waiting:
        line, extra = waiting.pop()
        requirement = Requirement(line)
        name = canonical(requirement.name)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        assert name in installed, f"{line}: not installed"
        for one in {"", *requirement.extras}:
            if (name, one) not in found:
                found.add((name, one))
                waiting += [(more, one) for more in installed[name].requires or ()]
    return {name for name, _ in found}


class CleanEnvironment:
    """An environment with a wheel and what it declares.

    Args:
        folder: Folder of the environment.
        wheel: Path of the wheel.
    """

    def __init__(self, folder: Path, wheel: Path) -> None:
        venv.create(folder, symlinks=True)
        self.bin = folder / "bin"
        (self.site,) = folder.glob("lib/python*/site-packages")
        installed = {canonical(one.name): one for one in importlib.metadata.distributions()}
        with zipfile.ZipFile(wheel) as archive:
            (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
            text = archive.read(metadata).decode()
        requirements = re.findall(r"^Requires-Dist: (.+)$", text, re.MULTILINE)
        self.link(needed(requirements, installed), installed)
        self.pip("install", "--quiet", "--no-deps", "--no-index", str(wheel))

    def link(self, names: set[str], installed: dict[str, Distribution]) -> None:
        """Link the files of distributions, folders as a whole where no other distribution has files there."""
        owners: dict[str, set[str]] = defaultdict(set)
        for name, one in installed.items():
            for file in one.files or ():
                owners[file.parts[0]].add(name)
        for name in names:
            for file in installed[name].files or ():
                if file.parts[0] in ("..", "__pycache__"):
                    continue
                alone = owners[file.parts[0]] <= names
                inner = Path(file.parts[0]) if alone else Path(*file.parts)
                target = self.site / inner
                if not target.is_symlink():
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.symlink_to(Path(str(installed[name].locate_file(inner))))

    def pip(self, *words: str) -> None:
        """Run the pip of the running environment for this one."""
        command = [sys.executable, "-m", "pip", "--python", str(self.bin / "python"), *words]
        subprocess.run(command, check=True)

    def run(self, *words: str, cwd: Path, **variables: str) -> str:
        """Run a program of this environment; what it prints.

        Args:
            words: Command line.
            cwd: Current folder.
            variables: Environment variables in addition to HOME.
        """
        done = subprocess.run(
            [str(self.bin / words[0]), *words[1:]],
            cwd=cwd,
            env={"HOME": str(cwd), "OMP_NUM_THREADS": "1", "PATH": str(self.bin), **variables},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout + done.stderr
