"""Versions, devices and folders, for a report of a bug: nothing of your data, and no name of yours.

It also works where a package cannot be imported, and says why.
"""

import argparse
import getpass
import importlib.metadata
import os
import platform
import re
from collections.abc import Sequence
from pathlib import Path

from pretext3d.commands.bundles import bundles_at_hand
from pretext3d.commands.parser import command_parser
from pretext3d.errors import one_line
from pretext3d.extras import EXTRAS
from pretext3d.messages import say
from pretext3d.version import __version__

__all__ = ["PACKAGES"]

# what the package depends on, as in shared/pyproject.toml; its extras; the server that bundles are for
PACKAGES = (
    "torch", "monai", "pytorch-ignite", "torchmetrics", "numpy", "scipy", "scikit-image", "scikit-learn",
    "einops", "safetensors", "filelock", "fire", "pyyaml", "ruamel.yaml", "tqdm", "nibabel", "pynrrd",
    "pillow", "tensorboard", "matplotlib", "pandas", "shtab",
    *(package for packages in EXTRAS.values() for package in packages), "monailabel",
)  # fmt: skip
# what changes a run's speed
VARIABLES = ("OMP_NUM_THREADS", "THP_MEM_ALLOC_ENABLE", "CUDA_VISIBLE_DEVICES")
LARGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")  # of Linux
EXAMPLES = """examples:
  pretext3d env
  pretext3d env > env.txt
"""


def without_names(text: str, home: str, user: str) -> str:
    """A text without the user's home folder and name.

    Args:
        text: Text, such as a path.
        home: Path of the home folder.
        user: Name of the user.

    Examples:
        >>> without_names("/people/ann/x in /old/ann/y, not annex", "/people/ann", "ann")
        '~/x in /old/<user>/y, not annex'
    """
    for path in {home, str(Path(home).resolve())} - {"/"}:
        text = text.replace(path + "/", "~/")
    return "/".join("<user>" if part == user else part for part in text.split("/"))


def version_of(package: str) -> str:
    """The installed version of a package; `not installed` without it."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def place_of_package(package: Path) -> str:
    """How this package came here: as a wheel, in a checkout, inside a bundle.

    Args:
        package: Folder of the package.
    """
    if (package / "bundles").is_dir():
        return "a wheel"
    if (package.parent / "configs").is_dir():
        return f"the bundle {package.parent.name}"
    return "a checkout" if (package.parent / "pyproject.toml").is_file() else "unknown"


def large_pages(file: Path = LARGE_PAGES) -> list[tuple[str, str]]:
    """Whether the kernel gives large pages of memory to those who ask for them, as torch does; [] if unknown.

    Args:
        file: The kernel's setting, with the chosen word in brackets.
    """
    found = re.search(r"\[(\w+)\]", file.read_text()) if file.is_file() else None
    return [("large pages of memory", found[1])] if found else []


def devices() -> list[tuple[str, str]]:
    """What torch computes on; why it cannot be imported, where that is so."""
    try:
        import torch
        from monai.config.deviceconfig import get_gpu_info

        from pretext3d.training.precision import use_bfloat16

        kind = torch.backends.cpu.get_cpu_capability()
        found = [("CPU", f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, {kind}")]
        for name in ("cpu", *(["cuda:0"] if torch.cuda.is_available() else [])):
            auto = use_bfloat16("auto", torch.device(name))
            found.append((f"precision auto on {name}", "bf16" if auto else "fp32"))
        gpus = {key: value for key, value in get_gpu_info().items() if value is not None}
        return found + [(key, str(value)) for key, value in gpus.items()]
    except Exception as error:  # whatever a broken installation raises
        return [("torch and MONAI", f"cannot be used: {type(error).__name__}: {one_line(error)}")]


def report() -> list[tuple[str, list[tuple[str, str]]]]:
    """The sections of the report: a title, and entries of a name and a text."""
    package = Path(__file__).resolve().parents[1]
    cache = os.environ.get("PRETEXT3D_CACHE", "~/.cache/pretext3d")
    bundles = bundles_at_hand()
    folders = [
        ("package", str(package)),
        ("bundles", f"{next(iter(bundles.values())).parent}: {', '.join(bundles)}" if bundles else "none"),
        ("cache", cache),
    ]
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
    system = [
        ("pretext3d", f"{__version__}, from {place_of_package(package)}"),
        ("Python", platform.python_version()),
        ("system", platform.platform()),
        ("memory", f"{memory / 2**30:.1f} GiB"),
    ]
    set_here = [(name, os.environ[name]) for name in VARIABLES if name in os.environ]
    return [
        ("", system),
        ("devices", devices() + large_pages() + set_here),
        ("packages", [(name, version_of(name)) for name in PACKAGES]),
        ("folders", folders),
    ]


def make_parser() -> argparse.ArgumentParser:
    """The command's options: none."""
    return command_parser("env", __doc__, EXAMPLES)


def main(words: Sequence[str]) -> int:
    """The command: print the report."""
    make_parser().parse_args(words)
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = ""
    for title, entries in report():
        if title:
            say(f"{title}:")
        for name, text in entries:
            say(without_names(f"{'  ' * bool(title)}{name}: {text}", str(Path.home()), user))
    return 0
