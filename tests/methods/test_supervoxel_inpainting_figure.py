"""The picture of supervoxel in-painting: what is drawn where, worked out by hand."""

from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.collections import LineCollection
from matplotlib.patches import Rectangle
from monai.data import MetaTensor
from pretext3d.errors import UserError
from pretext3d.methods.supervoxel_inpainting.figure import Place, as_in_volume, borders, draw, tinted
from pretext3d.methods.supervoxel_inpainting.regions import RandHideRegiond, Regionsd
from pretext3d.training.drawing import times
from pretext3d.training.pictures import render

AFFINE = torch.diag(torch.tensor([1.0, 2.0, 3.0, 1.0], dtype=torch.float64))


def example(kind: str = "supervoxels", channels: int = 2) -> tuple[dict[str, Any], dict[str, Any]]:
    """5 x 6 x 7 voxels of 1 x 2 x 3 mm; two supervoxels, k = 0..3 and k = 4..6, of which only i < 2 count."""
    image = torch.rand(channels, 5, 6, 7, generator=torch.Generator().manual_seed(0))
    label = torch.zeros(1, 5, 6, 7, dtype=torch.uint8)
    label[:, :2] = 1
    supervoxels = torch.tensor([1, 1, 1, 1, 2, 2, 2], dtype=torch.int32).expand(1, 5, 6, 7)
    case = {"id": "case_7", "image": MetaTensor(image, affine=AFFINE), "label": label}
    if kind == "supervoxels":
        case["supervoxels"] = supervoxels
    volume = Regionsd(kind, min_region_voxels=1, cuboid_sides=[2, 3])(case)
    hide = RandHideRegiond("image", roi_size=[4, 4, 4], regions=kind, cuboid_sides=[2, 3])
    sample = hide.set_random_state(seed=0)({**volume, "draw": 0})
    kept = ("image", "clean", "mask", "inside", "crop_start", "crop_size")
    return volume, {key: sample[key] for key in kept}


def titles(figure: Any) -> list[str]:
    return [axes.get_title() for axes in figure.axes]


def texts(figure: Any) -> str:
    found = [t.get_text() for t in figure.texts]
    return "\n".join(found + [t.get_text() for axes in figure.axes for t in axes.texts])


def test_panels_of_the_arms() -> None:
    above = ["Volume", "2 supervoxels", "Regions that may be hidden", "Hidden now, and the tile"]
    assert titles(draw(*example())) == [*above, "What the network sees", "What was there"]
    volume, sample = example("cuboids")
    assert titles(draw(volume, sample))[:3] == ["Volume", "Foreground: cuboids overlap it", above[-1]]
    del volume["label"], volume["foreground"]
    assert titles(draw(volume, sample))[:2] == ["Volume", above[-1]]
    volume["label"] = "labelsTr/case_7.nii.gz"  # not read: its name alone
    assert titles(draw(volume, sample))[:2] == ["Volume", above[-1]]


def test_what_is_said() -> None:
    volume, sample = example()
    said = texts(draw(volume, sample))
    voxels = int(sample["mask"].sum())
    # 5 x 12 x 21 mm; a voxel has 6 mm3
    assert f"{times([5, 12, 21])} mm" in said
    assert "channel 1 of 2 is shown" in said
    assert f"one of 2 regions, {voxels} voxels = {voxels * 6 / 1000:.1f} ml" in said
    assert "a random cuboid" in texts(draw(*example("cuboids", channels=1)))


def test_prediction_and_its_error() -> None:
    volume, sample = example()
    figure = draw(volume, sample, sample["clean"] + 0.1)  # 0.1 off everywhere: MSE 0.01
    assert titles(figure)[-2:] == ["The network's in-painting", "Error"]
    assert "MSE 0.0100" in texts(figure)
    np.testing.assert_allclose(figure.axes[-1].images[0].get_array(), 0.1, atol=1e-6)
    assert render(figure).shape == (740, 1200, 3)


def test_channel() -> None:
    volume, sample = example()
    place = Place(volume, sample)
    shown = draw(volume, sample, channel=1).axes[0].images[0].get_array()
    np.testing.assert_allclose(shown, volume["image"][1, :, :, place.slice].T, atol=1e-6)
    for channel in (2, -1):
        with pytest.raises(UserError, match="channel"):
            draw(volume, sample, channel=channel)


def test_tile_lies_where_it_was_taken() -> None:
    volume, sample = example()
    axes = draw(volume, sample).axes[3]
    start = sample["crop_start"].numpy()
    box = next(patch for patch in axes.patches if isinstance(patch, Rectangle))
    # 4 voxels of 1 and of 2 mm
    assert (*box.get_xy(), box.get_width(), box.get_height()) == (start[0], 2 * start[1], 4.0, 8.0)
    place = Place(volume, sample)
    assert sample["mask"][0, :, :, place.tile_slice].sum() == sample["mask"].sum((0, 1, 2)).max()
    assert place.slice == start[2] + place.tile_slice


def test_a_mirrored_tile_is_drawn_as_it_lies() -> None:
    _, sample = example()
    pred = torch.rand_like(sample["clean"])
    mirrored = {key: sample[key].flip(1) for key in ("image", "clean", "mask", "inside")}
    back, pred_back = as_in_volume(
        {**sample, **mirrored, "orientation": torch.diag(torch.tensor([-1.0, 1.0, 1.0]))}, pred.flip(1)
    )
    assert all(torch.equal(torch.as_tensor(back[key]), torch.as_tensor(sample[key])) for key in mirrored)
    assert torch.equal(pred_back, pred)
    assert as_in_volume(sample, None) == (sample, None)


def test_borders_by_hand() -> None:
    # one voxel, (1, 1), differs from all around it: the four sides of [1, 2] x [1, 2]
    labels = np.zeros((3, 3), dtype=int)
    labels[1, 1] = 5
    found = {tuple(map(tuple, line)) for line in borders(labels)}
    assert found == {((1, 1), (1, 2)), ((2, 1), (2, 2)), ((1, 1), (2, 1)), ((1, 2), (2, 2))}
    lines = [c for c in draw(*example()).axes[4].collections if isinstance(c, LineCollection)]
    assert len(lines[0].get_segments()) > 0


def test_tints() -> None:
    colours = tinted(np.array([[0, 1, 2]]))
    assert colours[0, :, 3].tolist() == [0.0, 0.55, 0.55]
    assert not np.allclose(colours[0, 1, :3], colours[0, 2, :3])
    np.testing.assert_allclose(tinted(np.array([[1]]), "#ff0000")[0, 0], [1, 0, 0, 0.55])


def test_an_arm_that_hides_nothing_has_no_picture() -> None:
    volume, sample = example()
    del sample["mask"]
    with pytest.raises(UserError, match="restart-unet"):
        draw(volume, sample)
