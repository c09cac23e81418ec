"""Pretrained networks from whatever holds their weights: a run, a bundle, a packed bundle, a hub's folder."""

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

from pretext3d.errors import UserError
from pretext3d.publishing.archive import split_archive_name, unpack
from pretext3d.training.features import PretrainedModel, model_of
from pretext3d.training.pretrained import read_pretrained

__all__ = ["load_pretrained"]


def load_pretrained(
    path: str | Path,
    weights: str = "best",
    encoder: str = "",
    pixdim: Any = None,
    precision: str = "auto",
) -> PretrainedModel:
    """A pretrained network with its preprocessing and its features. No code of the path is run.

        model = load_pretrained("runs/vp")
        image = model.preprocess("scan.nii.gz")["image"]
        maps, vector = model.encode(image), model.pooled(image)

    Args:
        path: Path of a run, a checkpoint, a bundle, a packed bundle (`NAME_vVERSION.zip`), or a folder in the
            layout of a model hub.
        weights: Checkpoint to take from a run: best (on the held-out cases) or final (the last step).
        encoder: Dotted name of an encoder of your own, which a record alone does not import.
        pixdim: Spacing in mm that images are resampled to, one number or one per axis; None = that of the
            training, and without one in the record that of each file; resize = every image is resized to the
            input of the network. Methods that stretch the body to one size (rotation, jigsaw, ...) record no
            spacing: `resize`, or a spacing at which a scan is about as long as `model.roi_size`, suits them.
        precision: `auto` (bfloat16 where the device is fast at it), `bf16` or `fp32`.

    Raises:
        UserError: a path without weights; weights that Pretext3D has not written, or that do not fit their
            record; an invalid argument.
    """
    path = Path(path).expanduser()
    arguments = (encoder, pixdim, precision)
    if path.suffix != ".zip" or not path.is_file():
        return model_of(read_pretrained(path, weights, key="path"), *arguments)
    named = split_archive_name(path.name)
    if named is None:
        raise UserError(f"path: found {path}, expected a packed bundle with the name NAME_vVERSION.zip")
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / named[0]
        try:
            unpack(path, folder, *named)
            model = model_of(read_pretrained(folder, weights, key="path"), *arguments)
        except UserError as error:  # about the packed bundle, not about where it was unpacked
            raise UserError(str(error).replace(str(folder), str(path))) from error
    return dataclasses.replace(model, file=path)
