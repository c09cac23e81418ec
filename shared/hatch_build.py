"""Build hook: the bundles travel with the package, without their weights.

In a wheel they are `pretext3d/bundles/<name>`, in a source distribution `bundles/<name>`, from which a wheel
can be built in turn. Nothing is copied into the repository, whose bundles an editable installation uses. Of a
checkout only the files that git tracks are taken.
"""

import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PARTS = ("LICENSE", "configs/*.yaml", "configs/*.json", "configs/*.conf", "docs/*.md", "docs/*.png")


def tracked_files(folder: Path) -> set[Path]:
    """The files in a folder that git tracks; none where it is in no checkout.

    Args:
        folder: Folder of the repository.
    """
    command = ["git", "-C", str(folder), "ls-files", "-z"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):  # git is not installed; no checkout
        return set()
    return {folder / name for name in listed.split("\0") if name}


def bundle_files(root: Path) -> dict[str, Path]:
    """The files of the bundles by `name/file`, those of the repository or of an unpacked source distribution.

    Files in a checkout that git does not track, such as a bundle that is being made, are left out.

    Args:
        root: Folder of this project.

    Raises:
        FileNotFoundError: there are none: this folder was taken out of the repository.
    """
    places = (root / "bundles", root.parent / "bundles")
    folder = next((one for one in places if any(one.glob("*/configs/metadata.json"))), None)
    if folder is None:
        raise FileNotFoundError(
            f"found no bundles in {' or '.join(map(str, places))}, expected the repository's"
        )
    found = sorted(path for part in PARTS for path in folder.glob(f"*/{part}"))
    tracked = tracked_files(folder) if folder == places[1] else set()
    found = [path for path in found if path in tracked] if tracked else found
    return {path.relative_to(folder).as_posix(): path for path in found}


class BundlesHook(BuildHookInterface[Any]):
    """Adds the bundles' files to what is built."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before a build; `version` is `editable` for an editable installation."""
        if version == "editable":
            return
        folder = "pretext3d/bundles" if self.target_name == "wheel" else "bundles"
        files = bundle_files(Path(self.root))
        build_data["force_include"] |= {str(path): f"{folder}/{name}" for name, path in files.items()}
