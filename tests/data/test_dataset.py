"""The cache of volumes and the sampler: same keys same samples, whoever asks."""

import copy
import functools
import json
import re
import threading
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import DataLoader
from monai.transforms import (
    CastToTyped,
    Compose,
    Lambdad,
    LoadImaged,
    ResizeWithPadOrCropd,
    ScaleIntensityd,
    SelectItemsd,
    Spacingd,
    Transform,
)
from pretext3d.data.dataset import CachedVolumes, EpochSampler, UsableVolumes, describe
from pretext3d.data.loading import LoadCased, PlainOrientationd, ScaleToUnitd, SelectChannelsd
from pretext3d.errors import UserError
from pretext3d.transforms.grids import StretchToGridd

from tests.data.cached import pipeline


def test_sample_is_a_function_of_seed_and_key(cases: list[dict], tmp_path: Path) -> None:
    data = CachedVolumes(cases, pipeline(), str(tmp_path / "cache"), seed=3)
    again = CachedVolumes(cases, pipeline(), str(tmp_path / "cache"), seed=3)
    other = CachedVolumes(cases, pipeline(), str(tmp_path / "cache"), seed=4)
    first = [data[key]["image"].clone() for key in (0, 4, 8)]
    second = [again[key]["image"].clone() for key in (8, 4, 0)][::-1]  # another order
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert not torch.equal(first[0], other[0]["image"])
    assert not torch.equal(data[0]["image"], data[3]["image"])  # another draw of the same case


def test_workers_give_the_same_samples(cases: list[dict], tmp_path: Path) -> None:
    data = CachedVolumes(cases, pipeline(), str(tmp_path / "cache"), crops_per_volume=4)
    plain = torch.cat([b["image"] for b in DataLoader(data, batch_size=2, num_workers=0)])
    forked = torch.cat([b["image"] for b in DataLoader(data, batch_size=2, num_workers=2)])
    assert plain.shape == (12, 1, 5, 6, 7)
    assert torch.equal(plain, forked)


def test_deterministic_part_is_kept_and_found_again(cases: list[dict], tmp_path: Path) -> None:
    CachedVolumes(cases, pipeline(), str(tmp_path / "cache"))
    entries = sorted((tmp_path / "cache" / "volumes").iterdir())
    stamps = [e.stat().st_mtime_ns for e in entries]
    data = CachedVolumes(cases, pipeline(), str(tmp_path / "cache"))
    assert len(entries) == 3
    assert stamps == [e.stat().st_mtime_ns for e in sorted((tmp_path / "cache" / "volumes").iterdir())]
    volume = data.volume(1)
    direct = data.deterministic(dict(cases[1]))
    torch.testing.assert_close(volume["image"].as_tensor(), direct["image"].as_tensor())
    torch.testing.assert_close(volume["image"].affine, direct["image"].affine)
    assert volume["id"] == "case1"


def test_writing_to_a_volume_does_not_reach_the_cache(cases: list[dict], tmp_path: Path) -> None:
    data = CachedVolumes(cases, pipeline(), str(tmp_path / "cache"))
    before = data.volume(0)["image"].clone()
    data.volume(0)["image"].zero_()
    torch.testing.assert_close(data.volume(0)["image"], before)


def test_changed_file_or_transform_is_read_anew(cases: list[dict], tmp_path: Path) -> None:
    data = CachedVolumes(cases, pipeline(), str(tmp_path / "cache"))
    other = Compose([LoadImaged("image", ensure_channel_first=True), ScaleIntensityd("image", maxv=2.0)])
    assert CachedVolumes(cases, other, str(tmp_path / "cache")).volume(0)["image"].max() == 2
    nib.save(nib.Nifti1Image(np.eye(4)[:, :, None] * np.ones(5), np.eye(4)), cases[0]["image"])
    changed = CachedVolumes(cases, pipeline(), str(tmp_path / "cache"))
    assert changed.volume(0)["image"].shape == (1, 4, 4, 5)
    assert data.volume(0)["image"].shape == (1, 5, 6, 7)


def test_many_entries_that_name_one_file_share_one_copy(cases: list[dict], tmp_path: Path) -> None:
    data = CachedVolumes(cases[:1] * 500, pipeline(), str(tmp_path / "cache"))
    assert len(data) == 500
    assert len(list((tmp_path / "cache" / "volumes").iterdir())) == 1


def test_cases_that_share_a_file_keep_their_names(cases: list[dict], tmp_path: Path) -> None:
    same = [{**cases[0], "id": f"entry{n}", "fold": n} for n in range(3)]
    data = CachedVolumes(same, pipeline(), str(tmp_path / "cache"))
    assert len(list((tmp_path / "cache" / "volumes").iterdir())) == 1
    assert [(data[n]["id"], data[n]["fold"]) for n in range(3)] == [(f"entry{n}", n) for n in range(3)]
    plain, named = {**cases[0], "name": "x"}, {**cases[0], "name": "x", "subject": "p"}
    found = [CachedVolumes([c], pipeline(), str(tmp_path / "other")).volume(0) for c in (plain, named, plain)]
    assert [one.get("subject") for one in found] == [None, "p", None]  # not those of the run that filled it
    moved = [{**cases[0], "landmark": [0.0, 0.0, z]} for z in (1.0, 2.0)]  # transforms do read this one
    CachedVolumes(moved, pipeline(), str(tmp_path / "cache"))
    assert len(list((tmp_path / "cache" / "volumes").iterdir())) == 3


def test_other_files_in_the_data_set_do_not_matter(cases: list[dict], tmp_path: Path) -> None:
    inside = [{**case, "source": str(tmp_path)} for case in cases]
    first = CachedVolumes(inside, pipeline(), str(tmp_path / "cache")).entry(0)
    (tmp_path / "another.nii.gz").write_bytes(b"new")
    assert CachedVolumes(inside, pipeline(), str(tmp_path / "cache")).entry(0) == first


def test_unreadable_file_is_named(cases: list[dict], tmp_path: Path) -> None:
    Path(cases[1]["image"]).write_bytes(b"not a volume")
    with pytest.raises(UserError, match="case1"):
        CachedVolumes(cases, pipeline(), str(tmp_path / "cache"))


def test_lambda_cannot_be_cached(cases: list[dict], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="lambda"):
        CachedVolumes(cases, Compose([Lambdad("image", lambda x: x)]), str(tmp_path / "cache"))


def test_description_is_stable_and_tells_parameters_apart() -> None:
    assert json.dumps(describe(ScaleIntensityd("image"))) == json.dumps(describe(ScaleIntensityd("image")))
    assert describe(ScaleIntensityd("image")) != describe(ScaleIntensityd("image", maxv=3.0))


def test_use_of_a_transform_does_not_change_its_description(cases: list[dict], tmp_path: Path) -> None:
    """MONAI's transforms get a flag per thread at first use."""
    sample = dict(cases[0])
    steps = [
        LoadCased("image"),
        SelectChannelsd("image", channels=[0]),
        PlainOrientationd("image", axcodes="RAS"),
        Spacingd("image", pixdim=[2.0, 2.0, 2.0], mode="bilinear"),
        ScaleToUnitd("image", normalisation={"percentiles": [1, 99]}),
        ResizeWithPadOrCropd("image", spatial_size=[6, 6, 6]),
        CastToTyped("image", dtype=torch.float32),
        StretchToGridd("image", grid=2, size=[4, 4, 4], gap=2),
        SelectItemsd(["image"]),
    ]
    before = [json.dumps(describe(step)) for step in steps[1:]]
    for step in copy.deepcopy(steps[:1]) + steps[1:]:
        sample = step(sample)
    assert "_tracing" in vars(steps[5].padder.padder)
    assert [json.dumps(describe(step)) for step in steps[1:]] == before


def test_held_out_volumes_are_not_cached_twice(cases: list[dict], tmp_path: Path) -> None:
    """A training and its validation share their transforms, one of which keeps the names of files it read."""
    shared = Compose([LoadCased("image"), SelectChannelsd("image", channels=[0])])
    first = CachedVolumes(cases[:2], shared, str(tmp_path / "cache"))
    second = CachedVolumes(cases[1:], shared, str(tmp_path / "cache"))
    assert first.entry(1) == second.entry(0)
    assert len(list((tmp_path / "cache" / "volumes").iterdir())) == 3


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (functools.partial(int, base=2), functools.partial(int, base=3)),
        (re.compile("a"), re.compile("b")),
        (b"a", b"b"),
        (slice(1), slice(2)),
        (LoadImaged("image", dtype=np.float32), LoadImaged("image", dtype=np.float64)),  # kept in `_loader`
    ],
)
def test_description_holds_what_decides(one: object, other: object) -> None:
    assert json.dumps(describe(one)) != json.dumps(describe(other))


def test_what_cannot_be_pickled_is_described_by_its_class() -> None:
    assert json.dumps(describe(threading.Lock())) == json.dumps(describe(threading.Lock()))


def test_sampler_visits_every_case_equally_with_new_draws(cases: list[dict], tmp_path: Path) -> None:
    data = CachedVolumes(cases, pipeline(), str(tmp_path / "cache"))
    sampler = EpochSampler(data, num_samples=12, seed=1)
    keys = []
    for epoch in range(1, 4):
        sampler.set_epoch(epoch)
        epoch_keys = list(sampler)
        assert len(epoch_keys) == len(sampler) == 12
        assert np.bincount([k % 3 for k in epoch_keys]).tolist() == [4, 4, 4]
        keys += epoch_keys
    assert len(set(keys)) == 36  # no draw is ever repeated
    sampler.set_epoch(2)
    assert list(sampler) == keys[12:24]  # a function of the epoch alone


def test_a_case_has_consecutive_draws_in_an_epoch(cases: list[dict], tmp_path: Path) -> None:
    data = CachedVolumes(cases, pipeline(), str(tmp_path / "cache"))
    sampler = EpochSampler(data, num_samples=8, seed=1)  # 3 passes over 3 cases, the last one of 2 cases
    for epoch in range(3):
        sampler.set_epoch(epoch)
        for case in range(3):
            draws = [key // 3 for key in sampler if key % 3 == case]
            assert draws == list(range(3 * epoch, 3 * epoch + 3))[: len(draws)]


def nothing_in_case1(sample: dict) -> dict:
    return {**sample, "unusable": "too small" if sample["id"] == "case1" else ""}


def nothing_anywhere(sample: dict) -> dict:
    return {**sample, "unusable": "too small"}


class Judge(Transform):
    def __init__(self, function: Callable[[dict], dict]) -> None:
        self.function = function

    def __call__(self, data: dict) -> dict:
        return self.function(data)


def test_unusable_cases_are_left_out_by_name(
    cases: list[dict], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    steps = Compose([*pipeline().transforms[:2], Judge(nothing_in_case1), *pipeline().transforms[2:]])
    data = UsableVolumes(cases, steps, cache_dir=str(tmp_path / "cache"), crops_per_volume=2)
    assert "left out: case1: too small" in caplog.text
    assert [data[key]["id"] for key in range(len(data))] == ["case0", "case2", "case0", "case2"]
    assert [data[key]["draw"] for key in range(len(data))] == [0, 0, 1, 1]
    seeds = [data[key]["visit_seed"] for key in range(6)]  # two draws of each case are one visit
    assert (seeds[0], seeds[1]) == (seeds[2], seeds[3])
    assert len(set(seeds)) == 4
    whole = CachedVolumes([cases[0], cases[2]], steps, cache_dir=str(tmp_path / "cache"))
    for key in range(4):
        assert torch.equal(data[key]["image"], whole[key]["image"])  # the same draws as without the bad one


def test_no_usable_case_is_an_error(cases: list[dict], tmp_path: Path) -> None:
    steps = Compose([*pipeline().transforms[:2], Judge(nothing_anywhere)])
    with pytest.raises(UserError, match="none of 3 cases can be used: case0: too small; case1: too small"):
        UsableVolumes(cases, steps, cache_dir=str(tmp_path / "cache"))
    with pytest.raises(UserError, match="none of 1 held-out cases can be used: case0: too small"):
        UsableVolumes(cases[:1], steps, part="held-out", cache_dir=str(tmp_path / "cache"))


def test_ranks_together_are_one_process(cases: list[dict], tmp_path: Path) -> None:
    data = CachedVolumes(cases, pipeline(), str(tmp_path / "cache"))
    whole = list(EpochSampler(data, num_samples=12, seed=1))
    parts = []
    for rank in range(2):
        part = EpochSampler(data, num_samples=12, seed=1)
        part.rank, part.num_replicas, part.num_samples = rank, 2, 6
        parts.append(list(part))
    assert [key for pair in zip(*parts, strict=True) for key in pair] == whole


@pytest.mark.parametrize("arguments", [{"crops_per_volume": 0}])
def test_bad_arguments(cases: list[dict], arguments: dict) -> None:
    with pytest.raises(UserError, match="crops_per_volume"):
        CachedVolumes(cases, pipeline(), **arguments)


def test_files_of_the_same_name_in_two_folders_are_two_volumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    means = []
    for value in (1.0, 2.0):
        folder = tmp_path / str(value)
        folder.mkdir()
        nib.save(nib.Nifti1Image(np.full((4, 4, 4), value, np.float32), np.eye(4)), folder / "scan.nii.gz")
        monkeypatch.chdir(folder)  # as with --dataset_dir .
        transform = Compose([LoadImaged("image", ensure_channel_first=True)])
        data = CachedVolumes([{"id": "scan", "image": "scan.nii.gz"}], transform, str(tmp_path / "cache"))
        means.append(float(data.volume(0)["image"].mean()))
    assert means == [1.0, 2.0]


def test_until_gives_the_sample_s_value(cases: list[dict], tmp_path: Path) -> None:
    data = CachedVolumes(cases, pipeline(), str(tmp_path / "cache"))
    torch.testing.assert_close(data.until(4, "image"), data.volume(1)["image"])  # there before any random one
    assert data.until(4, "id") == "case1"
