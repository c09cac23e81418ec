"""Regions to hide, cuboids and tiles: worked out by hand on a volume of 5 x 6 x 7 voxels of 1 x 2 x 3 mm."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pretext3d.errors import UserError
from pretext3d.methods.supervoxel_inpainting.regions import (
    RandHideRegiond,
    Regionsd,
    region_map,
    window_starts,
)

from tests.methods import inpainting

SHAPE = (5, 6, 7)
# three supervoxels: planes k = 0, 1, 2, then 3, 4, then 5, 6; 30 voxels a plane, so 90, 60 and 60; those with
# i = 0, 1 are the foreground: 12 of each plane, so 36, 24 and 24 of the three
case, prepared = partial(inpainting.case, SHAPE), partial(inpainting.prepared, SHAPE)
foreground, layers = partial(inpainting.foreground, SHAPE), partial(inpainting.layers, SHAPE)


# ---------------------------------------------------------------------------------------------------- regions
def test_regions_by_hand() -> None:
    regions, boxes, largest = region_map(layers(), foreground(), 24)
    assert torch.equal(regions, (layers() * foreground()).to(regions.dtype))
    assert boxes.tolist() == [[[0, 0, 0], [2, 6, 3]], [[0, 0, 3], [2, 6, 5]], [[0, 0, 5], [2, 6, 7]]]
    assert largest == 36


def test_small_regions_go_and_the_others_are_numbered_anew() -> None:
    regions, boxes, _ = region_map(layers(), None, 61)  # of 90, 60, 60 voxels
    assert torch.bincount(regions.flatten()).tolist() == [120, 90]
    assert boxes.tolist() == [[[0, 0, 0], [5, 6, 3]]]
    supervoxels = layers()
    supervoxels[supervoxels == 1] = 0  # belongs to none
    regions, boxes, _ = region_map(supervoxels, None, 60)
    assert torch.equal(regions, (supervoxels.clamp(min=1) - 1).to(regions.dtype))
    assert boxes.tolist() == [[[0, 0, 3], [5, 6, 5]], [[0, 0, 5], [5, 6, 7]]]


@given(seed=st.integers(0, 10_000), least=st.integers(1, 12), count=st.integers(1, 40))
def test_regions_are_those_of_a_plain_loop(seed: int, least: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    supervoxels = torch.from_numpy(rng.integers(0, count + 1, (1, *SHAPE), dtype=np.int32))
    roi = torch.from_numpy(rng.random((1, *SHAPE)) < 0.6)
    regions, boxes, largest = region_map(supervoxels, roi, least)
    found, sizes = [], [0]
    for value in range(1, count + 1):
        voxels = torch.nonzero((supervoxels[0] == value) & roi[0])
        sizes.append(len(voxels))
        if len(voxels) >= least:
            found.append([voxels.amin(0).tolist(), (voxels.amax(0) + 1).tolist()])
            assert (regions[0][tuple(voxels.T)] == len(found)).all()
    assert boxes.tolist() == found
    assert largest == max(sizes)
    assert int(regions.max()) == len(found)


def test_least_volume_in_mm3_by_hand() -> None:
    # a voxel has 6 mm3: 150 mm3 are 25 voxels, more than 24; 144 mm3 are 24
    assert len(prepared(min_region_size=150)["region_boxes"]) == 1
    assert len(prepared(min_region_size=144)["region_boxes"]) == 3
    assert len(prepared(min_region_size=144, min_region_voxels=30)["region_boxes"]) == 1  # both must hold


def test_prepared_case() -> None:
    given = case(label=foreground().to(torch.uint8))
    before = {key: value.clone() for key, value in given.items() if isinstance(value, torch.Tensor)}
    ready = Regionsd(min_region_voxels=1)(given)
    assert ready["unusable"] == ""
    torch.testing.assert_close(ready["spacing"], torch.tensor([1.0, 2.0, 3.0]))
    assert set(given) == {"id", "image", "supervoxels", "label"}
    assert all(torch.equal(given[key], value) for key, value in before.items())
    cuboids = prepared(regions="cuboids", cuboid_sides=[2, 3])
    # flat indices of the voxels with i < 2: the first 2 * 6 * 7
    assert cuboids["foreground"].tolist() == list(range(84))
    assert "foreground" not in prepared(regions="cuboids", cuboid_sides=[2, 3], roi=False)


@pytest.mark.parametrize(
    ("settings", "label", "reason"),
    [
        ({}, torch.zeros(1, *SHAPE), "no foreground"),
        ({"regions": "cuboids", "cuboid_sides": [2, 3]}, torch.zeros(1, *SHAPE), "no foreground"),
        (
            {"min_region_voxels": 37},
            foreground(),
            "no region of 37 voxels or more (min_region_voxels: 37), the largest has 36",
        ),
        (
            {"min_region_voxels": 1, "min_region_size": 600},
            foreground(),
            "no region of 100 voxels or more (min_region_size: 600, at 6 mm3 per voxel), the largest has 36",
        ),
        (
            {"regions": "cuboids"},
            foreground(),
            "[5, 6, 7] voxels hold no cuboid with sides of 12",
        ),
    ],
)
def test_why_a_case_cannot_be_used(settings: dict, label: torch.Tensor, reason: str) -> None:
    ready = Regionsd(**settings)(case(label=label.to(torch.uint8)))
    assert ready["unusable"] == reason
    hide = RandHideRegiond("image", roi_size=[4, 4, 4])
    with pytest.raises(UserError, match="case_7"):
        hide(ready)


def test_a_label_is_read_only_where_it_counts() -> None:
    assert len(Regionsd(roi=False, min_region_voxels=1)(case())["region_boxes"]) == 3
    with pytest.raises(UserError, match="case_7: has no label"):
        Regionsd()(case())


# ------------------------------------------------------------------------------------------------------ tiles
@pytest.mark.parametrize(
    ("size", "starts"),
    [
        (3, [2]),  # only 2, 3, 4 hold all four voxels
        (2, [2, 3]),  # sums 0, 1, 3, 3, 1, 0
        (5, [0, 1, 2]),
        (7, [0]),
        (9, [-1]),  # one place more on each side
        (10, [-1]),
    ],
)
def test_windows_by_hand(size: int, starts: list[int]) -> None:
    assert window_starts(torch.tensor([0, 0, 1, 2, 1, 0, 0]), size).tolist() == starts


def test_tile_by_hand() -> None:
    # region 3: i 0..1, j 0..5, k 5..6; a tile of 4 x 4 x 4: along i only 0 holds both; along j 0, 1 and
    # 2 hold four of six, and 1 is central; along k only 3 holds both planes
    hide = RandHideRegiond("image", roi_size=[4, 4, 4])
    draws = [hide({**prepared(), "draw": draw}) for draw in range(3)]
    third = next(d for d in draws if hide_planes(d) == {5, 6})
    assert third["crop_start"].tolist() == [0, 1, 3]
    expected = torch.zeros(1, 4, 4, 4, dtype=torch.bool)
    expected[:, :2, :, 2:] = True
    assert torch.equal(third["mask"], expected)
    torch.testing.assert_close(third["clean"], case()["image"].as_tensor()[:, 0:4, 1:5, 3:7])
    assert (third["image"][:, expected[0]] == 0).all()
    assert torch.equal(third["image"][:, ~expected[0]], third["clean"][:, ~expected[0]])


def hide_planes(sample: dict[str, Any]) -> set[int]:
    """The planes k of the volume that are hidden."""
    planes = torch.nonzero(sample["mask"].any(1).any(1)[0])[:, 0] + int(sample["crop_start"][2])
    return {int(k) for k in planes}


def test_consecutive_draws_hide_different_regions() -> None:
    hide = RandHideRegiond("image", roi_size=[5, 6, 7])
    ready = prepared()
    seen = [frozenset(hide_planes(hide({**ready, "draw": draw}))) for draw in range(9)]
    every = {frozenset({0, 1, 2}), frozenset({3, 4}), frozenset({5, 6})}
    assert all(set(seen[first : first + 3]) == every for first in (0, 3, 6))
    orders = [tuple(hide_planes(hide({**ready, "draw": draw}))) for draw in range(30)]
    assert len({tuple(orders[first : first + 3]) for first in range(0, 30, 3)}) > 1  # a new order each round
    random = {frozenset(hide_planes(hide(dict(ready)))) for _ in range(40)}
    assert random == every  # without a draw's number: all of them come


def test_another_seed_is_another_order() -> None:
    ready = prepared()
    orders = []
    for seed in (0, 1, 0):
        hide = RandHideRegiond("image", roi_size=[5, 6, 7], seed=seed)
        orders.append([hide_planes(hide({**ready, "draw": draw})) for draw in range(15)])
    assert orders[0] != orders[1]
    assert orders[0] == orders[2]


def test_tile_lies_anywhere_along_k_and_in_the_middle_along_j() -> None:
    # region 2, planes 3 and 4, j 0..5: a tile of 4 voxels holds it along k from 1, 2 or 3 on, and four of its
    # six places along j from 0, 1 or 2 on
    hide = RandHideRegiond("image", roi_size=[5, 4, 4]).set_random_state(seed=0)
    samples = [hide({**prepared(), "draw": draw}) for draw in range(90)]
    starts = [tuple(s["crop_start"].tolist()) for s in samples if hide_planes(s) == {3, 4}]
    assert len(starts) == 30
    assert set(starts) == {(0, 1, 1), (0, 1, 2), (0, 1, 3)}


def test_smaller_volumes_lie_in_the_middle() -> None:
    # 9 - 5 = 4: two before; 9 - 6 = 3: one before; 9 - 7 = 2: one before
    sample = RandHideRegiond("image", roi_size=[9, 9, 9])({**prepared(), "draw": 0})
    assert sample["crop_start"].tolist() == [-2, -1, -1]
    torch.testing.assert_close(sample["clean"][:, 2:7, 1:7, 1:8], case()["image"].as_tensor())
    outside = torch.ones(9, 9, 9, dtype=torch.bool)
    outside[2:7, 1:7, 1:8] = False
    assert (sample["clean"][:, outside] == 0).all()
    assert not sample["mask"][:, outside].any()
    assert torch.equal(sample["inside"][0], ~outside)


def test_a_tile_holds_some_of_a_region_that_is_larger() -> None:
    # four pillars at the corners of i, j: seen along i or j alone any two places are as good as others
    hidden = torch.zeros(12, 12, 2, dtype=torch.bool)
    hidden[0, 6], hidden[6, 0], hidden[11, 5], hidden[5, 11] = True, True, True, True
    volume = torch.rand(1, 12, 12, 2)
    boxes = torch.tensor([[[0, 0, 0], [12, 12, 2]]], dtype=torch.int32)
    ready = {"image": volume, "regions": hidden[None].int(), "region_boxes": boxes, "draw": 0}
    sample = RandHideRegiond("image", roi_size=[4, 4, 2])(ready)
    assert int(sample["mask"].sum()) >= 2


@pytest.mark.parametrize("regions", ["supervoxels", "cuboids"])
@pytest.mark.parametrize("channels", [1, 3])
def test_laws(regions: str, channels: int) -> None:
    label = foreground().to(torch.uint8)
    settings: dict[str, Any] = {"regions": regions, "cuboid_sides": [2, 4]}
    ready = Regionsd(**settings, min_region_voxels=1)(case(channels, label=label))
    before = ready["image"].clone()
    one, two = (RandHideRegiond("image", roi_size=[4, 4, 4], **settings) for _ in range(2))
    for seed in range(5):
        one.set_random_state(seed=seed), two.set_random_state(seed=seed)
        a, b = one(ready), two(ready)
        for key in ("image", "clean", "mask", "crop_start"):
            assert torch.equal(a[key], b[key])
        assert torch.equal(ready["image"], before)
        assert a["image"].shape == a["clean"].shape == (channels, 4, 4, 4)
        assert a["mask"].shape == (1, 4, 4, 4)
        assert (a["image"].dtype, a["mask"].dtype) == (torch.float32, torch.bool)
        assert a["mask"].any()
        # the image has no zeros, so what is zero is hidden: in all channels alike
        assert torch.equal(a["image"] == 0, a["mask"].expand_as(a["image"]))


@pytest.mark.parametrize("roi", [True, False])
def test_cuboids_keep_their_sides_and_places(roi: bool) -> None:
    ready = prepared(regions="cuboids", cuboid_sides=[2, 4], roi=roi)
    hide = RandHideRegiond("image", roi_size=[5, 6, 7], regions="cuboids", cuboid_sides=[2, 4])
    hide.set_random_state(seed=0)
    sides, first, overlap = set(), set(), []
    for _ in range(400):
        mask = hide(ready)["mask"][0]
        voxels = torch.nonzero(mask)
        low, high = voxels.amin(0), voxels.amax(0) + 1
        assert int(mask.sum()) == int((high - low).prod())  # a whole cuboid
        sides |= {tuple((high - low).tolist())}
        first |= {int(low[0])}
        overlap.append(bool((mask & foreground()[0]).any()))
    assert {n for side in sides for n in side} == {2, 3, 4}
    assert first == ({0, 1} if roi else {0, 1, 2, 3})  # the foreground ends before i = 2
    assert all(overlap) == roi


def test_cuboids_fit_into_the_tile_and_touch_the_foreground() -> None:
    # cuboids of 2 to 7 voxels, tiles of 3 x 3 x 7: what is hidden of the foreground must be seen in the tile
    ready = prepared(regions="cuboids", cuboid_sides=[2, 7])
    hide = RandHideRegiond("image", roi_size=[3, 3, 7], regions="cuboids", cuboid_sides=[2, 7])
    hide.set_random_state(seed=0)
    for _ in range(100):
        sample = hide(ready)
        assert int(sample["mask"].sum()) == hide.hidden.numel()
        assert max(hide.hidden.shape[:2]) <= 3
        start = [int(n) for n in sample["crop_start"]]
        places = torch.nonzero(sample["mask"][0]) + torch.tensor(start)
        assert foreground()[0][tuple(places.T)].any()


def test_cuboid_is_no_longer_than_the_volume() -> None:
    ready = prepared(regions="cuboids", cuboid_sides=[5, 9], roi=False)
    hide = RandHideRegiond("image", roi_size=[9, 9, 9], regions="cuboids", cuboid_sides=[5, 9])
    assert {int(hide(ready)["mask"].any(2).any(2).sum()) for _ in range(20)} == {5}


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: Regionsd(regions="circles"), "regions"),
        (lambda: Regionsd(min_region_voxels=0), "min_region_voxels"),
        (lambda: Regionsd(min_region_size=-1), "min_region_size"),
        (lambda: Regionsd(cuboid_sides=[12]), "cuboid_sides"),
        (lambda: RandHideRegiond("image", [8, 8, 8], cuboid_sides=[5, 4]), "cuboid_sides"),
        (lambda: RandHideRegiond("image", [8, 8, 8], regions="circles"), "regions"),
        (lambda: RandHideRegiond("image", [8]), "roi_size"),
        (
            lambda: RandHideRegiond("image", [8, 4, 8], "cuboids", cuboid_sides=[5, 9]),
            "cuboid_sides: .* 4 voxels",
        ),
    ],
)
def test_bad_arguments_are_named(make: Any, key: str) -> None:
    with pytest.raises(UserError, match=key):
        make()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_gives_the_same() -> None:
    for regions in ("supervoxels", "cuboids"):
        ready = prepared(regions=regions, cuboid_sides=[2, 4])
        there = {k: v.cuda() if isinstance(v, torch.Tensor) else v for k, v in ready.items()}
        hide = RandHideRegiond("image", roi_size=[4, 4, 4], regions=regions, cuboid_sides=[2, 4])
        samples = [hide.set_random_state(seed=1)(case) for case in (ready, there)]
        for key in ("image", "mask"):
            assert torch.equal(samples[0][key], samples[1][key].cpu())
