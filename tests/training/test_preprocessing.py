"""Another window or spacing than that of pre-training: what is reported, and the key that takes the same."""

from pathlib import Path

import pytest
from pretext3d.errors import UserError
from pretext3d.training.preprocessing import check_spacing, check_window, differing_axes
from pretext3d.training.pretrained import Pretrained, pixdim_of


def test_another_window_of_intensities_is_reported(caplog):
    there, here = {"window": [-175, 250]}, {"percentiles": [0.5, 99.5]}
    check_window(Path("best.pt"), there, there)
    check_window(Path("best.pt"), here, {"percentiles": [1, 99]})
    check_window(Path("best.pt"), {"mean_maximum": [-1, 1]}, here)
    assert not caplog.messages
    check_window(Path("best.pt"), there, {"window": 40})  # reported in full by what scales the intensities
    for one, other in ((there, here), (here, there), (there, {"window": [0, 80]})):
        caplog.clear()
        check_window(Path("best.pt"), one, other)
        assert "best.pt: trained with normalisation" in caplog.text


@pytest.mark.parametrize(
    ("there", "here", "axes"),
    [
        ([1.0, 1.0, 3.0], [1.0, 1.0, 3.0], ""),
        ([1.0, 1.0, 3.0], [1.3, 1.3, 3.9], ""),  # 1.3 times: still alike
        ([1.0, 1.0, 3.0], [1.31, 1.0, 2.3], "xz"),  # 3 / 2.3 = 1.304
        ([2.0, 2.0], [1.0, 2.0], "x"),
        ([], [1.0, 1.0, 1.0], ""),  # as each file has it: nothing to compare
        ([1.0, 1.0, 1.0], [], ""),
    ],
)
def test_axes_with_another_spacing(there: list[float], here: list[float], axes: str) -> None:
    assert differing_axes(there, here) == axes
    assert differing_axes(here, there) == axes


def test_another_spacing_is_reported_once_with_the_key_that_helps(caplog: pytest.LogCaptureFixture) -> None:
    check_spacing(Path("best.pt"), [1.0, 1.0, 3.0], [1.2, 1.2, 3.0])
    assert not caplog.messages
    check_spacing(Path("best.pt"), [1.0, 1.0, 3.0], [2.0, 1.0, 1.5])
    assert caplog.messages == [
        "best.pt: trained at a spacing of 1x1x3 mm, here it is 2x1x1.5 mm, more than 1.3 times different "
        "along x, z: the same structure has another size in voxels; --pixdim pretrained takes that of the "
        "weights"
    ]


def weights(**record: object) -> Pretrained:
    return Pretrained(Path("run/best.pt"), {"backbone": {"spatial_dims": 3}, **record}, {})


def test_the_spacing_of_the_weights() -> None:
    there = weights(pixdim=[1.0, 1.0, 2.5])
    assert pixdim_of("pretrained", there, 3) == [1.0, 1.0, 2.5]
    for pixdim in ("median", 1.5, [1.0, 1.0, 2.0], {"fit": 1.5}, None):
        assert pixdim_of(pixdim, there, 3) == pixdim
        assert pixdim_of(pixdim, "", 3) == pixdim
        assert pixdim_of(pixdim, "nothing/is/read", 3) == pixdim


@pytest.mark.parametrize(
    ("pretrained", "spatial_dims", "message"),
    [
        ("", 3, "pixdim: found 'pretrained' with no weights in the key pretrained, expected a spacing in mm"),
        (weights(pixdim=[]), 3, "found 'pretrained', but run/best.pt was not trained at one spacing"),
        (weights(), 3, "found 'pretrained', but run/best.pt was not trained at one spacing"),
        (weights(pixdim=[1.0, 1.0, 1.0]), 2, "run/best.pt: its network has spatial_dims 3"),
    ],
)
def test_weights_without_a_spacing(pretrained: object, spatial_dims: int, message: str) -> None:
    with pytest.raises(UserError) as caught:
        pixdim_of("pretrained", pretrained, spatial_dims)  # type: ignore[arg-type]
    assert message in str(caught.value)
