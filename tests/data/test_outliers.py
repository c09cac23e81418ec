"""Tests of outliers of spacing: an error of units is a bad case, with the size that it would get."""

import pytest
from pretext3d.data.checks import CheckResult
from pretext3d.data.outliers import MAX_RESAMPLED, resampled_fault, without_outliers
from pretext3d.data.prepare import inference_cases, prepare_cases


def checked(spacings: dict, shape=(64, 64, 20), channels: int = 1) -> CheckResult:
    good = [{"id": name} for name in spacings]
    return CheckResult(good, [], {n: list(shape) for n in spacings}, dict(spacings), channels, {})


USUAL = {f"p{n}": [1.0, 1.0, 3.0] for n in range(4)}


@pytest.mark.parametrize(
    ("spacing", "reason"),
    [
        # 64 x 100 / 1, 64 x 100 / 1, 20 x 100 / 3
        ([100.0] * 3,
         "spacing 100x100x100 mm, the others' is 1x1x3 mm, at 1x1x3 mm it would be 6400x6400x667 voxels"),
        # 64 / 20 = 3.2, 20 / 20 = 1
        ([0.05, 0.05, 0.15],
         "spacing 0.05x0.05x0.15 mm, the others' is 1x1x3 mm, at 1x1x3 mm it would be 3x3x1 voxels"),
        ([19.0, 19.0, 57.0], ""),
        ([0.06, 0.06, 17.5], ""),
    ],
)  # fmt: skip
def test_a_spacing_that_is_20_times_that_of_the_others(spacing, reason):
    found = without_outliers(checked({**USUAL, "odd": spacing}), lambda *_: [1.0, 1.0, 3.0])
    assert {case["id"]: text for case, text in found.bad} == (
        {"odd": f"bad geometry: {reason}"} if reason else {}
    )
    native = without_outliers(checked({**USUAL, "odd": spacing}), lambda *_: [])
    assert len(native.bad) == bool(reason)
    assert all("it would be" not in text for _, text in native.bad)


def test_the_spacing_is_chosen_without_the_outlier():
    seen = []
    without_outliers(
        checked({**USUAL, "odd": [100.0] * 3}), lambda *given: seen.append(given) or [1.0] * 3, ["p1", "odd"]
    )
    assert seen == [([[64, 64, 20]], [[1.0, 1.0, 3.0]])]


def test_sizes_that_cannot_be():
    # 1024^3 = 2^30 voxels are the limit, of one channel
    assert resampled_fault([512] * 3, [2.0] * 3, [1.0] * 3, 1) == ""
    assert MAX_RESAMPLED == 1024**3
    assert "1024x1024x1024 voxels" in resampled_fault([512] * 3, [2.0] * 3, [1.0] * 3, 2)
    assert "1x20x20 voxels" in resampled_fault([20] * 3, [1.0] * 3, [20.0, 1.0, 1.0], 1)
    assert resampled_fault([20] * 3, [100.0] * 3, [], 1) == ""
    two = checked({"a": [1.0, 1, 1], "b": [100.0, 100, 100]}, (200, 200, 200))
    assert [case["id"] for case, _ in without_outliers(two, lambda *_: [1.0] * 3).bad] == ["b"]


@pytest.mark.parametrize("spacing", [100.0, 0.05])
def test_an_outlier_among_files_is_left_out(tmp_path, volume, spacing):
    for n in range(6):
        volume(f"in/p{n}.nii.gz", shape=(12, 13, 14), spacing=(1, 1, 1))
    volume("in/odd.nii.gz", shape=(12, 13, 14), spacing=[spacing] * 3)
    cache = str(tmp_path / "cache")
    ready = prepare_cases(str(tmp_path / "in"), pixdim="median", roi_size=8, cache_dir=cache)
    assert [name for name, _ in ready["bad"]] == ["odd"]
    assert ready["pixdim"] == [1.0] * 3
    found = inference_cases(str(tmp_path / "in"), cache_dir=cache, pixdim=ready["pixdim"])
    assert [name for name, _ in found["bad"]] == ["odd"]
