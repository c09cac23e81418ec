"""Which file of weights a path denotes: in a run, in a bundle, in a bundle with weights in 3D and in 2D."""

from pathlib import Path

import pytest
from pretext3d.errors import UserError
from pretext3d.networks.factory import build_backbone
from pretext3d.training.checkpoint_files import resolve_pretrained
from pretext3d.training.checkpoint_io import save_checkpoint
from pretext3d.training.pretrained import read_pretrained
from torch import nn


def save(path: Path, axes: int) -> Path:
    """The weights of the smallest network with a number of spatial axes."""
    backbone = build_backbone("unet", 1, (16,) * axes, axes)
    record = {"method": "pretext", "backbone": backbone.record, "channels": 1, "pixdim": []}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(path, {"record": record, "network": nn.ModuleDict({"backbone": backbone}).state_dict()})
    return path


@pytest.mark.parametrize(
    ("given", "names", "expected"),
    [
        ("", ["checkpoints/best.pt", "checkpoints/final.pt", "models/model.pt"], "checkpoints/best.pt"),
        ("", ["checkpoints/epoch_0009.pt", "checkpoints/final.pt"], "checkpoints/final.pt"),
        ("", ["checkpoints/epoch_0009.pt", "checkpoints/epoch_0010.pt"], "checkpoints/epoch_0010.pt"),
        ("", ["models/model.pt", "configs/train.yaml"], "models/model.pt"),
        ("checkpoints", ["checkpoints/epoch_0001.pt", "checkpoints/best.pt"], "checkpoints/best.pt"),
        ("models", ["models/model.pt"], "models/model.pt"),
        (
            "checkpoints/epoch_0001.pt",
            ["checkpoints/epoch_0001.pt", "checkpoints/best.pt"],
            "checkpoints/epoch_0001.pt",
        ),
    ],
)
def test_resolve_pretrained(tmp_path: Path, given: str, names: list[str], expected: str) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert resolve_pretrained(str(tmp_path / given)) == tmp_path / expected


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["best.pt", "final.pt", "epoch_0002.pt"], "final.pt"),
        (["best.pt", "epoch_0001.pt", "epoch_0002.pt"], "epoch_0002.pt"),  # best is chosen, not the last
        (["best.pt"], "best.pt"),
    ],
)
def test_the_last_weights_of_a_folder(tmp_path: Path, names: list[str], expected: str) -> None:
    for name in names:
        (tmp_path / name).write_bytes(b"")
    assert resolve_pretrained(tmp_path, "final") == tmp_path / expected


def test_resolve_pretrained_says_what_it_looked_for(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"pretrained: .*: no checkpoint in this folder; looked for best\.pt"):
        resolve_pretrained(tmp_path)
    message = "output_dir: .*none: not found; expected a run that fine-tuning has finished, or --weights best"
    with pytest.raises(UserError, match=message):
        read_pretrained(tmp_path / "none", key="output_dir")
    with pytest.raises(UserError, match="none: not found; expected a checkpoint, a run or a bundle"):
        resolve_pretrained(tmp_path / "none")


def test_further_weights_of_a_bundle_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "transformer"
    folder.mkdir(parents=True)
    (folder / "model.pt").touch()
    with pytest.raises(UserError, match=f"in the folder itself; weights are in {folder}"):
        resolve_pretrained(tmp_path)
    assert resolve_pretrained(folder) == folder / "model.pt"


def test_weights_of_a_bundle_by_the_axes_of_their_network(tmp_path: Path) -> None:
    """Those in models where they fit, else the only ones that do; without a number of axes as before."""

    def write(folder: str, axes: int) -> Path:
        return save(tmp_path / folder / "model.pt", axes)

    flat = write("models/2d", 2)
    assert resolve_pretrained(tmp_path, spatial_dims=2) == flat
    with pytest.raises(UserError, match=f"in the folder itself; weights are in {flat.parent}"):
        resolve_pretrained(tmp_path, spatial_dims=3)
    deep = write("models", 3)
    write("models/a", 3)
    assert [resolve_pretrained(tmp_path, spatial_dims=axes) for axes in (0, 2, 3)] == [deep, flat, deep]
    write("models/b", 2)  # two that fit: the caller has to name one
    assert resolve_pretrained(tmp_path, spatial_dims=2) == deep
    deep.unlink()
    with pytest.raises(UserError, match=r"weights are in .*models/2d, .*models/a, .*models/b"):
        resolve_pretrained(tmp_path, spatial_dims=2)
    assert resolve_pretrained(flat.parent, spatial_dims=3) == flat  # named: the caller checks
    save(tmp_path / "checkpoints" / "best.pt", 3)
    assert resolve_pretrained(tmp_path, spatial_dims=2).parent.name == "checkpoints"
