"""Windows of complete volumes, and labels in the cells of their feature maps."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.transforms import Compose, SpacingD
from pretext3d.data.dataset import CachedVolumes
from pretext3d.data.loading import LoadCased, PlainOrientationd, ScaleToUnitd
from pretext3d.errors import UserError
from pretext3d.networks.factory import build_backbone
from pretext3d.training.probe_inputs import (
    FrozenEncoder,
    cell_fractions,
    evenly,
    label_on_grid,
    window_starts,
)
from pretext3d.transforms.crops import ResizeBodyd
from pretext3d.transforms.grids import StretchToGridd

from tests.labelled import save, write_labelled

UNIT = ScaleToUnitd("image", {"window": [0, 2]})


def dataset(folder: Path, *more, dims=3, **case) -> CachedVolumes:
    """One case of the labelled set, loaded, in RAS order, scaled, and then transformed."""
    write_labelled(folder, cases=1)
    files = {key: str(folder / f"{key}sTr" / "case_0.nii.gz") for key in ("image", "label")}
    load = [LoadCased("image", spatial_dims=dims), PlainOrientationd("image"), UNIT]
    return CachedVolumes(
        [{"id": "a", **files, **case}], Compose([*load, *more]), cache_dir=str(folder / "cache")
    )


@pytest.mark.parametrize(
    "more",
    [
        [],
        [SpacingD("image", pixdim=(2.5, 2.5, 3.5), mode="bilinear")],
        [StretchToGridd("image", grid=2, size=(16, 16, 16), gap=2)],
        [ResizeBodyd("image", size=(24, 20, 16), threshold=0.2)],
    ],
    ids=["native", "spacing", "stretched", "body"],
)
def test_label_lies_on_the_volume(tmp_path, more):
    """The image is half the label, and noise: a label that is a voxel off fits it less well."""
    data = dataset(tmp_path, *more)
    image, label = data.volume(0)["image"].as_tensor(), label_on_grid(data, 0)
    assert label.shape == image.shape
    assert label.unique().tolist() == [0, 1, 2]
    errors = {
        shift: float((image - label.roll(shift, dims=(1, 2, 3)) / 2).abs().mean())
        for shift in itertools.product((-1, 0, 1), repeat=3)
    }
    assert min(errors, key=errors.__getitem__) == (0, 0, 0)


@pytest.mark.parametrize(("axis", "index"), [(0, 8), (1, 5), (2, 9)])
def test_label_of_a_slice(tmp_path, axis, index):
    data = dataset(tmp_path, dims=2, slice=index, slice_axis=axis)
    image, label = data.volume(0)["image"], label_on_grid(data, 0)
    assert label.shape == image.shape
    assert bool(label.any())
    assert float((image.as_tensor().mul(2).round() == label).float().mean()) > 0.95


def test_label_of_another_shape_is_refused(tmp_path):
    data = dataset(tmp_path)
    save(np.zeros((4, 4, 4), np.uint8), tmp_path / "labelsTr" / "case_0.nii.gz")
    with pytest.raises(UserError, match="label: found shape"):
        label_on_grid(data, 0)


def test_windows_by_hand():
    # 10 voxels in 3 parts of 3.33: middles 1.67, 5, 8.33; windows of 4 from -0.33, 3, 6.33, moved inside
    assert window_starts((10,), (4,), most=9) == [(0,), (3,), (6,)]
    assert window_starts((8, 8), (8, 8), most=1) == [(0, 0)]
    assert window_starts((3,), (8,), most=1) == [(-2,)]  # voxels 2, 3, 4 of the window
    # 6 x 3 windows would cover it; at most 8: 6, 5, 4, 3 x 3, then the first axis again
    found = window_starts((24, 12), (4, 4), most=8)
    assert sorted({i for i, _ in found}) == [4, 16]
    assert sorted({j for _, j in found}) == [0, 4, 8]


@pytest.mark.parametrize("most", [1, 2, 8, 27, 1000])
def test_windows_lie_inside_and_are_no_more_than_asked_for(most):
    shape, size = (31, 16, 50), (16, 16, 16)
    found = window_starts(shape, size, most)
    assert 0 < len(found) == len(set(found)) <= min(most, 2 * 1 * 4)
    assert all(0 <= s <= n - e for start in found for s, n, e in zip(start, shape, size, strict=True))
    if most >= 8:  # they cover the volume
        seen = torch.zeros(shape)
        for i, j, k in found:
            seen[i : i + 16, j : j + 16, k : k + 16] = 1
        assert bool(seen.all())


def test_cells_by_hand():
    """A window of 4 x 2 voxels, two cells of 2 x 2, half of it beyond the image, where nothing is."""
    label = torch.tensor([[[3, 0], [3, 3]]])
    found = cell_fractions(label, [0, 3], [(-2, 0), (0, 0)], (4, 2), (2, 1))
    assert found.tolist() == [[1.0, 0.0], [0.25, 0.75], [0.25, 0.75], [1.0, 0.0]]


def test_rows_are_in_the_order_of_the_features():
    """An encoder of averages sees what the label's cells contain."""
    label = (torch.rand(1, 9, 11, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    starts = window_starts((9, 11), (8, 8), most=4)
    windows = torch.stack([label[:, i : i + 8, j : j + 8] for i, j in starts])
    maps = torch.nn.functional.avg_pool2d(windows, 4)
    rows = maps.flatten(2).transpose(1, 2).flatten(0, 1)
    torch.testing.assert_close(cell_fractions(label, [1], starts, (8, 8), (2, 2)), rows)


def test_maps_of_cases_one_after_the_other(tmp_path):
    """Whatever the batches, each case gets the maps of its own windows; modes and statistics stay."""
    data = dataset(tmp_path)
    data.data = list(data.data) * 3
    backbone = build_backbone("unet", 1, (16, 16, 16)).train()
    backbone.encoder[0].eval() if hasattr(backbone, "encoder") else None
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    modes = [module.training for module in backbone.modules()]
    inferer = lambda x, network: network(x)  # noqa: E731
    groups = [[0], [1, 2], [2]]
    found = []
    for batch_size in (1, 3, 100):
        encoder = FrozenEncoder(backbone, inferer, "cpu", batch_size=batch_size, max_windows=27)
        found.append(list(encoder.maps(data, groups)))
        assert [len(one) for one in found[-1]] == [8, 16, 8]
        for one, other in zip(found[0], found[-1], strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[0][0], found[0][2])
    assert [module.training for module in backbone.modules()] == modes
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_another_map(tmp_path):
    data, backbone = dataset(tmp_path), build_backbone("unet", 1, (16, 16, 16))
    inferer = lambda x, network: network(x)  # noqa: E731
    first = FrozenEncoder(backbone, inferer, "cpu", level=0)
    assert first.cells == (16, 16, 16)
    assert next(first.maps(data, [[0]])).shape == (8, backbone.feature_channels[0], 16, 16, 16)
    count = len(backbone.feature_channels)
    with pytest.raises(UserError, match=f"probe::level: found 7, expected .* -{count} to {count - 1}"):
        FrozenEncoder(backbone, inferer, "cpu", level=7)


def test_evenly():
    assert evenly(range(10), 3) == [1, 5, 8]
    assert evenly([], 3) == []
    assert evenly([1, 2], 2) == [1, 2]
