"""What may be in a bundle: packing, verifying and unpacking ask the same questions of a file's name.

A bundle's folder comes first in Python's search path when it runs: a file that is not expected there could
take the place of any package. So it is a list of what may be there, and not of what may not.
"""

import re
import unicodedata
from pathlib import Path, PurePosixPath

from pretext3d.errors import UserError

__all__ = ["MAX_FILE_BYTES", "bad_name", "check_size", "leftover", "same_name"]

MAX_FILE_BYTES = 25 * 10**6  # bytes of a file in MONAI's model zoo
MAX_NAME_BYTES = 255  # bytes of a name, folders included
TOP_FILES = {
    "LICENSE", "README.md", "requirements.txt", "large_files.yml", "large_files.yaml", "large_files.json"
}  # fmt: skip
PACKAGE = "pretext3d"
TOP_FOLDERS = {"configs", "docs", "models", "scripts", PACKAGE}
UNWANTED_FOLDERS = {"__pycache__", "runs", "mlruns", "previews"}
# of a run, an editor, a system; what Python or a system would run
UNWANTED_SUFFIXES = {
    ".pyc", ".pyo", ".pth", ".tmp", ".part", ".log", ".swp", ".orig", ".rej", ".bak", ".exe", ".dll", ".com",
    ".bat", ".cmd", ".msi", ".scr", ".ps1", ".lnk", ".so", ".pyd", ".dylib",
}  # fmt: skip
UNWANTED_NAMES = {"thumbs.db", "desktop.ini", "model_previous.pt"}
_CHECKPOINT = re.compile(r"epoch_\d+\.pt", re.ASCII)
_DEVICE = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9\u00b9\u00b2\u00b3])", re.IGNORECASE)


def bad_name(name: str) -> str:
    """What keeps a name, with its folders, from being the same file on every system; '' for nothing.

    Args:
        name: as in a zip, parts apart by `/`.
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
    """What a file or folder is that no bundle holds; '' for one that may be there.

    Args:
        name: within the bundle, parts apart by `/`.
        folder: it is one.
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


def same_name(name: str) -> str:
    """What names have in common that are one file on some systems: those that ignore case, and macOS."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def check_size(path: Path) -> None:
    """Refuse a file that the model zoo would not take.

    Raises:
        UserError: more than 25 MB.
    """
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise UserError(f"{path}: found {size:,} bytes, expected {MAX_FILE_BYTES:,} at most")
