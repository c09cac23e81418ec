"""Folders and files of cases that exist, or one message; nothing heavy is imported."""

from pathlib import Path

from pretext3d.errors import UserError

__all__ = ["existing_folder", "existing_table"]


def existing_folder(given: str | Path) -> Path:
    """The folder as a path, or a `UserError` that reports what was found instead."""
    if not isinstance(given, str | Path) or not str(given):
        raise UserError(f"dataset_dir: found {given!r}, expected the path of a folder")
    folder = Path(given).expanduser()
    if folder.is_file():
        raise UserError(
            f"dataset_dir: {given} is a file, expected a folder (a dataset.json goes under datalist)"
        )
    if not folder.is_dir():
        near = next((p for p in folder.absolute().parents if p.is_dir()), Path("/"))
        raise UserError(f"dataset_dir: {given} does not exist (the nearest folder that does is {near})")
    return folder


def existing_table(key: str, path: str, column: str) -> Path:
    """The CSV file of cases and a fact about each, or a `UserError`.

    Args:
        key: Name of the configuration key that holds the path, for messages.
        path: Path of the file.
        column: Heading of the facts.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"{key}: {path} not found; expected a CSV file with the columns id and {column}")
    return file
