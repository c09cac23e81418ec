"""Relative patch location: values worked out by hand, and laws."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data import MetaTensor
from pretext3d.errors import UserError
from pretext3d.methods.relative_patch_location.pretext import (
    RandRelativePatchesd,
    RelativePatchLocationNet,
    cells_at,
    validation_metrics,
)
from pretext3d.networks.factory import build_backbone
from pretext3d.training.classes import ClassAccuracy, ClassLoss

AFFINE = np.diag([2.0, 1.0, 3.0, 1.0])


def numbered(*shape: int) -> MetaTensor:
    return MetaTensor(torch.arange(1.0, 1 + math.prod(shape)).reshape(shape), affine=AFFINE)


def patches_of(volume: torch.Tensor, seed: int = 0, **options: Any) -> dict[str, Any]:
    given = {"grid": 3, "size": (2, 1, 1), "gap": (1, 0, 1), **options}
    transform = RandRelativePatchesd(**given)
    transform.set_random_state(seed=seed)
    return transform({"image": volume})


# ------------------------------------------------------------------------------------------------- locations
def test_cells_around_the_centre_are_numbered_without_a_gap() -> None:
    """Of 27 cells the centre is 13: cells 0..12 are locations 0..12, cells 14..26 are 13..25."""
    cells = torch.tensor([*range(13), *range(14, 27)])
    assert torch.equal(cells_at(torch.arange(26), 13), cells)
    # of 9 cells the centre is 4
    assert cells_at(torch.arange(8), 4).tolist() == [0, 1, 2, 3, 5, 6, 7, 8]


def test_a_location_is_a_direction() -> None:
    """Without gaps in a volume of exactly the grid: the voxel's coordinates are the cell's.

    Voxel (i, j, k) of 3 x 3 x 3 has the value 1 + 9 i + 3 j + k, so the centre has 14. Location 0 is towards
    (-1, -1, -1), value 1; location 12 is (0, 0, -1), value 13; location 13 is (0, 0, 1), value 15; location
    25 is (1, 1, 1), value 27.
    """
    got = patches_of(numbered(1, 3, 3, 3), size=(1, 1, 1), gap=0, queries=26)
    assert got["image"].shape == (27, 1, 1, 1, 1)
    values = got["image"].flatten().tolist()
    assert values[0] == 14
    found = dict(zip(got["location"].tolist(), values[1:], strict=True))
    assert found == {location: location + 1 + (location >= 13) for location in range(26)}
    assert [found[location] for location in (0, 12, 13, 25)] == [1, 13, 15, 27]


def test_a_location_in_2d() -> None:
    """Pixel (i, j) of 3 x 3 has 1 + 3 i + j: the centre 5, then 1, 2, 3, 4, 6, 7, 8, 9."""
    got = patches_of(numbered(1, 3, 3), size=(1, 1), gap=0, queries=8, spatial_dims=2)
    values = got["image"].flatten().tolist()
    assert values[0] == 5
    assert dict(zip(got["location"].tolist(), values[1:], strict=True)) == dict(
        enumerate([1, 2, 3, 4, 6, 7, 8, 9])
    )


# --------------------------------------------------------------------------------------------------- patches
@given(
    space=st.tuples(st.integers(9, 12), st.integers(3, 6), st.integers(6, 8)),
    queries=st.integers(1, 26),
    seed=st.integers(0, 99),
)
def test_patches_are_cut_where_the_starts_say(space: tuple[int, int, int], queries: int, seed: int) -> None:
    """Cells are 3 x 1 x 2 long; the patch of the centre is first, then those of the queries."""
    volume = numbered(2, *space)
    before = volume.clone()
    got = patches_of(volume, seed, queries=queries)
    assert got["starts"].shape == (27, 3)
    assert len(set(got["location"].tolist())) == queries
    for patch, cell in zip(got["image"], [13, *cells_at(got["location"], 13).tolist()], strict=True):
        i, j, k = got["starts"][cell].tolist()
        assert torch.equal(patch, volume.as_tensor()[:, i : i + 2, j : j + 1, k : k + 1])
    assert torch.equal(volume, before)


def test_a_sample_owns_its_locations() -> None:
    transform = RandRelativePatchesd(3, (2, 1, 2), (1, 0, 1), queries=5).set_random_state(seed=0)
    got = transform({"image": numbered(1, 9, 3, 9)})
    drawn = transform.location.copy()
    got["location"].zero_()
    assert transform.location.tolist() == drawn.tolist()


def test_places_in_the_cells() -> None:
    """Cell (a, b, c) begins at corner + (3 a, b, 2 c), its patch at most gap = (1, 0, 1) further on.

    The volume has one voxel more than the grid's 9 x 3 x 6 along each axis: the corner is 0 or 1.
    """
    cells = torch.stack(torch.meshgrid(*[torch.arange(3)] * 3, indexing="ij"), -1).reshape(27, 3)
    places = torch.stack(
        [
            patches_of(numbered(1, 10, 4, 7), seed)["starts"] - cells * torch.tensor([3, 1, 2])
            for seed in range(60)
        ]
    )
    assert places.amin((0, 1)).tolist() == [0, 0, 0]
    assert places.amax((0, 1)).tolist() == [2, 1, 2]
    corner = places.amin(1)
    assert (places - corner[:, None] <= torch.tensor([1, 0, 1])).all()
    still = patches_of(numbered(1, 10, 4, 7), jitter=0, shift=0.0)["starts"]
    offset = still - cells * torch.tensor([3, 1, 2])
    assert (offset == offset[0]).all()


def test_every_location_comes() -> None:
    """600 draws of 2 of 26: each 46 times, standard deviation 6.5."""
    drawn = torch.cat([patches_of(numbered(1, 9, 3, 6), seed, queries=2)["location"] for seed in range(600)])
    counts = torch.bincount(drawn, minlength=26)
    assert len(counts) == 26
    assert int(counts.min()) > 20
    assert int(counts.max()) < 76


def test_same_seed_same_patches() -> None:
    options = {"queries": 3, "brightness": 0.5, "contrast": 0.5, "colour": "drop"}
    first, again, other = (patches_of(numbered(2, 10, 4, 7), seed, **options) for seed in (3, 3, 4))
    assert all(torch.equal(first[key], again[key]) for key in ("image", "location", "starts"))
    assert not torch.equal(first["image"], other["image"])


def test_cues_are_removed_without_another_choice_of_patches() -> None:
    volume = torch.rand(3, 10, 4, 7)
    plain = patches_of(volume, 5, queries=2)
    for options in ({"brightness": 0.1}, {"contrast": 0.1}, {"colour": "grey"}, {"colour": "project"}):
        got = patches_of(volume, 5, queries=2, **options)
        assert torch.equal(got["location"], plain["location"])
        assert torch.equal(got["starts"], plain["starts"])
        assert not torch.equal(got["image"], plain["image"])


def test_brightness_and_contrast_keep_their_limits() -> None:
    """Patches of one value have no contrast: they change by the brightness alone, each channel by its own."""
    volume = torch.ones(2, 9, 3, 6)
    got = patches_of(volume, queries=26, brightness=0.5, contrast=1.0)["image"]
    assert (got == got[:, :, :1, :1, :1]).all()
    change = got[:, :, 0, 0, 0] - 1
    assert float(change.abs().max()) <= 0.5
    assert len(change.unique()) == 54
    spread = patches_of(numbered(1, 9, 3, 6), queries=26, contrast=0.25)["image"].flatten(1)
    # the two voxels of a patch are 3 * 6 = 18 apart along axis 0
    factors = (spread[:, 1] - spread[:, 0]) / 18
    assert 0.75 <= float(factors.min()) < float(factors.max()) <= 1.25


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"grid": 2}, r"grid: found \[2, 2, 2\], expected odd numbers"),
        ({"grid": [1, 1, 1]}, r"grid: found \[1, 1, 1\], expected odd numbers .* three"),
        ({"grid": [3, 3, 2]}, r"grid: found \[3, 3, 2\], expected odd"),
        ({"queries": 27}, "queries: found 27, expected an integer from 1 to 26"),
        ({"queries": 0}, "queries: found 0"),
        ({"gap": -1}, "gap: found -1"),
        ({"jitter": [2, 0, 0]}, "jitter: found"),
        ({"contrast": 1.5}, r"patch_contrast: found 1.5, expected a number in \[0, 1\]"),
        ({"brightness": -0.1}, "patch_brightness: found -0.1"),
        ({"colour": "red"}, "patch_colour: found 'red', expected one of keep, grey, project, drop"),
        ({"colour": "drop"}, "patch_colour: found 'drop' with images of 1 channel, expected keep"),
        ({"size": (4, 1, 1)}, r"grid: \[3, 3, 3\] cells .* need \[15, 3, 6\] voxels, found a volume of"),
        ({"spatial_dims": 2, "size": (2, 1), "gap": 0}, "spatial_dims: found 2"),
    ],
)
def test_impossible_patches(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        patches_of(numbered(1, 10, 4, 7), **options)


# ------------------------------------------------------------------------------------------ network and loss
def network_of(dims: int, **options: Any) -> RelativePatchLocationNet:
    torch.manual_seed(0)
    backbone = build_backbone("unet", 2, [8] * dims, spatial_dims=dims, encoder_only=True)
    return RelativePatchLocationNet(backbone, 3, **{"hidden": [6], "dropout": 0.0, **options})


@pytest.mark.parametrize(("dims", "locations"), [(3, 26), (2, 8)])
def test_network(dims: int, locations: int) -> None:
    network = network_of(dims, pool_size=2)
    pred = network(torch.randn(2, 4, 2, *[8] * dims))
    assert pred.shape == (2, 3, locations)
    pred.square().sum().backward()
    missing = {n for n, p in network.named_parameters() if p.requires_grad and p.grad is None}
    assert missing == set()  # several processes wait for every gradient
    assert not any(p.requires_grad for p in network.backbone.up.parameters())


def test_pairs_are_the_centre_and_one_query() -> None:
    """With a linear head and an encoder that gives the patches themselves: logits = centre, query.

    The weights of location 0 read the centre's only feature, those of location 1 the query's.
    """
    network = network_of(2, hidden=[])
    features = torch.tensor(
        [[[5.0], [7.0], [9.0]], [[1.0], [2.0], [3.0]]]
    )  # two samples: centre, two queries
    network.patches.forward = lambda backbone, x: features
    network.head = torch.nn.Linear(2, 8, bias=False)
    with torch.no_grad():
        network.head.weight.zero_()
        network.head.weight[0, 0] = network.head.weight[1, 1] = 1
    pred = network(torch.zeros(2, 3, 2, 8, 8))
    assert pred[..., 0].tolist() == [[5, 5], [1, 1]]
    assert pred[..., 1].tolist() == [[7, 9], [2, 3]]
    assert not pred[..., 2:].any()


def test_queries_share_their_weights() -> None:
    """Exchanging two queries exchanges their logits; another centre changes all."""
    network = network_of(3).eval()
    x = torch.randn(1, 4, 2, 8, 8, 8)
    torch.testing.assert_close(network(x[:, [0, 2, 1, 3]]), network(x)[:, [1, 0, 2]])
    assert (network(x[:, [1, 1, 2, 3]])[:, 1:] != network(x)[:, 1:]).any(-1).all()


def test_name_of_the_metric() -> None:
    assert set(validation_metrics()) == {"location_accuracy", "chance"}


def test_a_few_samples_are_learned() -> None:
    """Of 8 samples of one smooth volume with 4 queries: nine in ten, where guessing gives one in 26."""
    torch.manual_seed(0)
    volume = torch.nn.functional.interpolate(torch.rand(1, 1, 5, 5, 5), (30, 30, 30), mode="trilinear")[0]
    transform = RandRelativePatchesd(3, (8, 8, 8), 1, queries=4).set_random_state(seed=0)
    samples = [transform({"image": volume}) for _ in range(8)]
    patches, location = (torch.stack([s[key] for s in samples]) for key in ("image", "location"))
    backbone = build_backbone("unet", 1, (8, 8, 8), options={"channels": [8, 16]}, encoder_only=True)
    network, loss = RelativePatchLocationNet(backbone, 3, [32], 0.0, 2), ClassLoss("location")
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    for _ in range(40):
        optimizer.zero_grad()
        loss(network(patches), {"location": location}).backward()
        optimizer.step()
    output = {"pred": network(patches), "label": {"location": location}}
    assert ClassAccuracy("location")(output).mean() > 0.9
