"""Cases by fingerprints, by which a checkpoint's record knows those that it has seen.

A copy of an image in another place, under any name, has the same one, and it reveals no path.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pretext3d.data.reader import files_of_volume
from pretext3d.data.subjects import volume_of

__all__ = ["among", "fingerprints", "trained_on"]

Case = dict[str, Any]

BLOCKS, BLOCK_BYTES = 64, 4096  # blocks of a case's files from which its fingerprint is computed


def fingerprints(cases: Sequence[Case]) -> list[str]:
    """One text per case, the same for a copy of its images in another place, under any name.

    A hash of the sizes of the image files and of 64 blocks of 4 KB spread evenly over them. Checkpoints keep
    the fingerprints of the cases they were trained on: a path would reveal details of the machine.
    """
    known: dict[str, str] = {}  # slices of one volume share its files
    for case in cases:
        if str(case["image"]) not in known:
            known[str(case["image"])] = _fingerprint(case)
    return [known[str(case["image"])] for case in cases]


def _fingerprint(case: Case) -> str:
    images = [Path(path) for path in ([case["image"]] if isinstance(case["image"], str) else case["image"])]
    digest = hashlib.sha256()
    for image in images:
        series = image.is_dir()  # a DICOM series: the order of its slices' names does not matter
        found = image.iterdir() if series else map(Path, files_of_volume(str(image)))
        files = [file for file in found if file.is_file() and not (series and file.name.startswith("."))]
        blocks = max(2, BLOCKS // max(1, len(files)))
        for part in sorted(_blocks_digest(file, blocks) for file in files):
            digest.update(part)
    return digest.hexdigest()[:16]


def _blocks_digest(path: Path, blocks: int) -> bytes:
    """SHA-256 of a file's size and of `blocks` blocks, or of all its bytes if it is no longer than these."""
    size = path.stat().st_size
    digest = hashlib.sha256(size.to_bytes(8, "little"))
    with path.open("rb") as file:
        if size <= blocks * BLOCK_BYTES:
            digest.update(file.read())
            return digest.digest()
        for n in range(blocks):
            file.seek((size - BLOCK_BYTES) * n // (blocks - 1))
            digest.update(file.read(BLOCK_BYTES))
    return digest.digest()


def trained_on(cases: Sequence[Case], record: Mapping[str, Any]) -> list[str]:
    """The ids of those cases that a checkpoint, by its record, was trained on; of slices, their volumes'."""
    return among(cases, (record.get("data") or {}).get("train"))


def among(cases: Sequence[Case], known: Sequence[str] | None) -> list[str]:
    """The ids of the cases, of slices those of their volumes, whose fingerprint is among some."""
    if not known:
        return []
    listed = set(known)
    pairs = zip(cases, fingerprints(cases), strict=True)
    return list(dict.fromkeys(volume_of(case) for case, text in pairs if text in listed))
