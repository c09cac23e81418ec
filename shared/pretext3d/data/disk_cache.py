"""Arrays that are computed once and kept on disk, for all workers, runs and processes of a machine."""

import contextlib
import logging
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pretext3d.errors import UserError
from pretext3d.files import locked, remove_old_drafts, replacing

__all__ = ["kept_array"]

logger = logging.getLogger(__name__)


def kept_array(path: Path, compute: Callable[[], NDArray[Any]]) -> NDArray[Any]:
    """The array in the file `path` (.npz), computed and kept there if the file is missing or damaged.

    Processes that request the same file at the same time wait for the first, which computes it, and read
    the result; if it is killed, the next one computes. A file is written under another name and renamed, so a
    partial file is never visible. Non-negative integers are kept, and returned, in the smallest type that
    holds them.

    Args:
        path: Path of the file.
        compute: Function that returns the array.

    Raises:
        UserError: If the folder cannot be written.
    """
    array = _read(path)
    if array is None:
        with contextlib.ExitStack() as stack:
            with _blaming_the_cache(path.parent):
                path.parent.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(path.with_suffix(".lock")))
            array = _read(path)
            if array is None:
                array = _smallest(compute())
                with _blaming_the_cache(path.parent):
                    _write(path, array)
    return array


@contextlib.contextmanager
def _blaming_the_cache(folder: Path) -> Iterator[None]:
    """Report an `OSError` as a fault of the folder; errors of the computation are raised outside of this."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cache_dir: {folder} cannot be written: {error}") from error


def _read(path: Path) -> NDArray[Any] | None:
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            array: NDArray[Any] = file["array"]
            return array
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        logger.warning("%s is damaged and computed again: %s", path, error)
        return None


def _write(path: Path, array: NDArray[Any]) -> None:
    remove_old_drafts(path.parent, "*.tmp")
    # an open file: NumPy adds .npz to a name
    with replacing(path, sync=True) as draft, draft.open("wb") as file:
        np.savez_compressed(file, array=array)


def _smallest(array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype.kind in "iu" and array.size and array.min() >= 0:
        return array.astype(np.min_scalar_type(int(array.max())))
    return array
