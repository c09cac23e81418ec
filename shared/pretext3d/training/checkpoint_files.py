"""Where the checkpoints of a run are; no file is opened, and nothing heavy is imported."""

import re
from pathlib import Path

from pretext3d.errors import UserError

__all__ = ["epoch_files", "epoch_of", "resolve_pretrained"]

EPOCH_FILE = re.compile(r"epoch_(\d+)\.pt")


def epoch_of(path: Path) -> int:
    """The epoch in the name of a checkpoint.

    Examples:
        >>> epoch_of(Path("checkpoints/epoch_0012.pt"))
        12
    """
    return int(path.stem.removeprefix("epoch_"))


def epoch_files(folder: Path) -> list[Path]:
    """The epoch checkpoints in a folder, oldest first."""
    return sorted((p for p in folder.glob("epoch_*.pt") if EPOCH_FILE.fullmatch(p.name)), key=epoch_of)


def resolve_pretrained(path: str | Path, weights: str = "best", key: str = "pretrained") -> Path:
    """Find the checkpoint from its path, or from the folder of a run, of its checkpoints or of a bundle.

    In a folder the first of these files is taken: best.pt, final.pt, the newest epoch_XXXX.pt, model.pt; with
    `weights` final: final.pt, the newest epoch_XXXX.pt, best.pt, model.pt. They are looked for in
    `checkpoints`, then in `models`, then in the folder itself; model.safetensors where there is no model.pt.

    Args:
        path: Path of a file or folder.
        weights: Checkpoint to take from a folder: best or final.
        key: Name of the path in messages; of output_dir, the run itself is evaluated.

    Raises:
        UserError: no checkpoint found; lists the names that were tried.
    """
    if weights not in ("best", "final"):
        raise UserError(f"weights: found {weights!r}, expected final or best")
    path = Path(path).expanduser()
    if path.is_file():
        return path
    if not path.is_dir():
        expected = "a checkpoint, a run or a bundle"
        if key == "output_dir":
            expected = "a run that fine-tuning has finished, or --weights best for one that is not finished"
        raise UserError(f"{key}: {path}: not found; expected {expected}")
    for folder in (path / "checkpoints", path / "models", path):
        best, final, epochs = folder / "best.pt", folder / "final.pt", reversed(epoch_files(folder))
        order = [best, final, *epochs] if weights == "best" else [final, *epochs, best]
        for file in (*order, folder / "model.pt", folder / "model.safetensors"):
            if file.is_file():
                return file
    others = sorted(file.parent for file in path.glob("models/*/model.pt"))
    hint = f"; weights are in {', '.join(map(str, others))}" if others else ""
    raise UserError(
        f"{key}: {path}: no checkpoint in this folder; looked for best.pt, final.pt, epoch_XXXX.pt and "
        f"model.pt in checkpoints/, in models/ and in the folder itself{hint}"
    )
