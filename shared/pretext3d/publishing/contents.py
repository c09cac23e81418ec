"""What a bundle may contain: packing, verifying and unpacking check file names by the same rules.

A bundle's folder comes first in Python's search path when it runs: a file that is not expected there could
take the place of any package. Hence a list of what is allowed, not of what is forbidden.
"""

import re
import unicodedata
from pathlib import Path, PurePosixPath

from pretext3d.errors import UserError

__all__ = ["MAX_FILE_BYTES", "bad_name", "check_size", "leftover", "package_files", "same_name"]

MAX_FILE_BYTES = 25 * 10**6  # limit of a file in MONAI's model zoo
MAX_NAME_BYTES = 255  # bytes of a name, folders included
TOP_FILES = {
    "LICENSE", "README.md", "requirements.txt", "large_files.yml", "large_files.yaml", "large_files.json"
}  # fmt: skip
PACKAGE = "pretext3d"
TOP_FOLDERS = {"configs", "docs", "models", "scripts", PACKAGE}
UNWANTED_FOLDERS = {"__pycache__", "runs", "mlruns", "previews"}
# files of a run, an editor, a system; files that Python or a system would run
UNWANTED_SUFFIXES = {
    ".pyc", ".pyo", ".pth", ".tmp", ".part", ".log", ".swp", ".orig", ".rej", ".bak", ".exe", ".dll", ".com",
    ".bat", ".cmd", ".msi", ".scr", ".ps1", ".lnk", ".so", ".pyd", ".dylib",
}  # fmt: skip
UNWANTED_NAMES = {"thumbs.db", "desktop.ini", "model_previous.pt"}
_CHECKPOINT = re.compile(r"epoch_\d+\.pt", re.ASCII)
_DEVICE = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9\u00b9\u00b2\u00b3])", re.IGNORECASE)


def bad_name(name: str) -> str:
    """Why a name, with its folders, does not denote the same file on every system; '' if it does.

    Args:
        name: Name as in a zip, parts separated by `/`.

    Examples:
        >>> bad_name("configs/train.yaml"), bad_name("models/aux.pt")
        ('', "a device's name on Windows")
    """
    if any(unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") for letter in name):
        return "a name with a control or format character"
    if any(letter in '\\:<>"|?*' for letter in name):
        return "a name with a backslash, colon or another character that no Windows name has"
    if len(name.encode()) > MAX_NAME_BYTES:
        return f"a name of {len(name.encode())} bytes, expected {MAX_NAME_BYTES} at most"
    for part in name.split("/"):
        if part not in (".", "..") and part != part.rstrip(". "):
            return "a name that ends with a dot or space"
        if _DEVICE.fullmatch(part.split(".")[0].rstrip(" ")):
            return "a device's name on Windows"
    return ""


def leftover(name: str, folder: bool = False) -> str:
    """Why a file or folder does not belong in a bundle; '' for one that does.

    Args:
        name: Name within the bundle, parts separated by `/`.
        folder: Whether the name is that of a folder.

    Examples:
        >>> leftover("configs/train.yaml"), leftover("docs/.cache")
        ('', 'hidden')
    """
    path = PurePosixPath(name)
    top, file = path.parts[0], path.name.casefold()
    if any(part.startswith(".") for part in path.parts):
        return "hidden"
    if top not in (TOP_FOLDERS if folder or len(path.parts) > 1 else TOP_FILES):
        return f"expected {', '.join(sorted(TOP_FOLDERS))} and {', '.join(sorted(TOP_FILES))} alone"
    if UNWANTED_FOLDERS & {part.casefold() for part in path.parts}:
        return "left over from Python or a run"
    if folder:
        return ""
    if (
        PurePosixPath(file).suffix in UNWANTED_SUFFIXES
        or file in UNWANTED_NAMES
        or file.endswith("~")
        or _CHECKPOINT.fullmatch(file)
    ):
        return "left over from a run, an editor or a system, or a program"
    if top == PACKAGE and path.suffix != ".py":
        return "not a Python file of the package"
    return ""


def package_files(package: Path) -> list[Path]:
    """The files of the package that a bundle carries inside it: its modules, and no bundle that came with it.

    Args:
        package: Folder of the package.
    """
    return [
        path
        for path in sorted(package.rglob("*.py"))
        if not leftover(path.relative_to(package.parent).as_posix())
    ]


def same_name(name: str) -> str:
    """A name in the form that is equal for names of one file on systems that ignore case, and on macOS.

    Examples:
        >>> same_name("Docs/README.md")
        'docs/readme.md'
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def check_size(path: Path, size: int | None = None) -> None:
    """Refuse a file that is too large for the model zoo.

    Args:
        path: Path of the file.
        size: Number of bytes that it will have; None = those that it has.

    Raises:
        UserError: more than 25 MB.
    """
    size = path.stat().st_size if size is None else size
    if size > MAX_FILE_BYTES:
        raise UserError(f"{path}: found {size:,} bytes, expected {MAX_FILE_BYTES:,} at most")
