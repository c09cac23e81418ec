"""Which file of weights a path denotes: a checkpoint, a run, or a bundle with weights in 3D and in 2D.

Nothing heavy is imported, and no file opened but where weights are chosen by the axes of their network.
"""

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


def resolve_pretrained(
    path: str | Path, weights: str = "best", key: str = "pretrained", spatial_dims: int = 0
) -> Path:
    """Find the checkpoint from its path, or from the folder of a run, of its checkpoints or of a bundle.

    In a folder the first of these files is taken: best.pt, final.pt, the newest epoch_XXXX.pt, model.pt; with
    `weights` final: final.pt, the newest epoch_XXXX.pt, best.pt, model.pt. They are looked for in
    `checkpoints`, then in `models`, then in the folder itself; model.safetensors where there is no model.pt.

    A bundle may have further weights in models/NAME. With `spatial_dims` they are taken instead of those in
    models if they alone are of a network with that number of axes, by their records.

    Args:
        path: Path of a file or folder.
        weights: Checkpoint to take from a folder: best or final.
        key: Name of the path in messages; of output_dir, the run itself is evaluated.
        spatial_dims: Number of spatial axes, 3 or 2, for which a bundle's weights are chosen; 0 = those in
            models. It is no check: a bundle without such weights gives the others.

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
    others = sorted(path.glob("models/*/model.pt"))
    for folder in (path / "checkpoints", path / "models", path):
        best, final, epochs = folder / "best.pt", folder / "final.pt", reversed(epoch_files(folder))
        order = [best, final, *epochs] if weights == "best" else [final, *epochs, best]
        candidates = [*order, folder / "model.pt", folder / "model.safetensors"]
        found = next((file for file in candidates if file.is_file()), None)
        if folder.name == "models" and others and spatial_dims:
            fitting = with_axes(([found] if found else []) + others, spatial_dims)
            if found in fitting or len(fitting) == 1:
                return fitting[0]
        if found:
            return found
    hint = f"; weights are in {', '.join(str(file.parent) for file in others)}" if others else ""
    raise UserError(
        f"{key}: {path}: no checkpoint in this folder; looked for best.pt, final.pt, epoch_XXXX.pt and "
        f"model.pt in checkpoints/, in models/ and in the folder itself{hint}"
    )


def with_axes(files: list[Path], spatial_dims: int) -> list[Path]:
    """The files of weights of a network with `spatial_dims` axes, in the same order."""
    from pretext3d.training.checkpoint_io import load_checkpoint  # with torch
    from pretext3d.training.safe_weights import preferred

    records = (load_checkpoint(preferred(file))["record"] for file in files)
    axes = [(record.get("backbone") or {}).get("spatial_dims", spatial_dims) for record in records]
    return [file for file, found in zip(files, axes, strict=True) if found == spatial_dims]
