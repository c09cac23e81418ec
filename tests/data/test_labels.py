"""Label values, classes and regions, worked out by hand."""

import logging
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pretext3d.data.declared import DeclaredLabels, choose_labels, warn_missing
from pretext3d.data.labels import LabelMap, recorded_labels, whole_values
from pretext3d.data.regions import check_sets, ordered_regions
from pretext3d.errors import UserError

BRATS = {"WT": [1, 2, 4], "TC": [1, 4], "ET": [4]}
NONE = DeclaredLabels({}, {}, [])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_check_and_loader_round_alike(dtype: type) -> None:
    """2.99995 is 3, where a cast alone gives 2; 40000.01 is an integer in float32's few digits."""
    found, fault = whole_values(np.array([0, 2.99995, 254.99999, 40000.01], dtype=dtype))
    assert (found.tolist(), fault) == ([0, 3, 255, 40000], "")
    assert LabelMap((0, 3, 255, 40000)).classes(np.array([2.99995, 40000.01], dtype)).tolist() == [1, 3]
    assert whole_values(np.array([0.001], dtype))[1] == "0.001, expected integers"
    assert whole_values(np.array([-1.0], dtype))[1] == "values -1 to -1, expected 0 to 65535"


def test_zero_and_255_are_two_classes() -> None:
    labels, names = choose_labels(NONE, {0, 255})
    assert (labels.plain(), names, labels.channels) == ({"values": [0, 255]}, ["background", "label 255"], 2)
    assert labels.classes(np.array([[255, 0]], np.uint8)).tolist() == [[1, 0]]


def test_brats_has_no_empty_class(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    declared = DeclaredLabels({0: "background", 1: "NCR", 2: "ED", 4: "ET"}, {}, [])
    labels, names = choose_labels(declared, [])
    assert (labels.values, names) == ((0, 1, 2, 4), ["background", "NCR", "ED", "ET"])
    assert labels.classes(np.array([0, 1, 2, 4])).tolist() == [0, 1, 2, 3]
    assert "labels: the network's background is 0; NCR is 1; ED is 2; ET is 4; results are wr" in caplog.text
    assert not labels.is_identity
    assert choose_labels(NONE, [1, 2])[0].is_identity
    with pytest.raises(UserError, match="label values: 3, expected one of 0, 1, 2, 4"):
        labels.classes(np.array([0, 3]))


def test_further_classes_get_the_next_values() -> None:
    labels, names = choose_labels(NONE, [0, 5], num_classes=4)
    assert (labels.values, names) == ((0, 5, 6, 7), ["background", "label 5", "label 6", "label 7"])
    with pytest.raises(UserError, match="num_classes: found 2, expected 3 or more"):
        choose_labels(NONE, [0, 1, 5], num_classes=2)
    for wrong in (257, 10**12, -1):  # before a list of that length is made
        with pytest.raises(UserError, match=f"num_classes: found {wrong}, expected an integer from 0 to 256"):
            choose_labels(NONE, [0, 5], num_classes=wrong)


def test_merged_foreground() -> None:
    labels, names = choose_labels(NONE, [0, 2, 7], merge_foreground=True)
    assert (labels.plain(), names) == ({"values": [0, 2], "merged": True}, ["background", "foreground"])
    assert labels.classes(np.array([0, 2, 7, 9])).tolist() == [0, 1, 1, 1]
    assert labels.unknown([9]) == []


def test_regions_are_painted_from_large_to_small(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    labels, names = choose_labels(NONE, [0, 1, 2, 4], regions={"ET": [4], "WT": [1, 2, 4], "TC": [4, 1]})
    assert (names, labels.order) == (["WT", "TC", "ET"], (2, 1, 4))
    assert (labels.members(), labels.painted()) == ([[1, 2, 3], [3, 1], [3]], [2, 1, 3])
    assert labels.channels == 3
    assert LabelMap.of(labels.plain()) == labels
    assert "WT is 1 2 4 (written as 2); TC is 4 1 (written as 1); ET is 4 (written as 4); res" in caplog.text


def test_regions_of_nnunet_keep_their_order() -> None:
    declared = DeclaredLabels(dict.fromkeys(range(1, 4), "?"), {"whole": [1, 2, 3], "core": [2, 3]}, [1, 3])
    labels, names = choose_labels(declared, [])
    assert (names, labels.order) == (["whole", "core"], (1, 3))
    # without its regions: the classes
    assert choose_labels(declared, [], regions={})[1] == ["background", "?", "?", "?"]


nested = st.lists(st.sets(st.integers(1, 6), min_size=1), min_size=1, max_size=4)


@given(nested)
def test_an_order_that_is_accepted_gives_back_every_region(sets: list[set[int]]) -> None:
    """The law, from its definition: paint every value's regions, and ask which regions the result is in."""
    try:
        regions, order = ordered_regions({f"r{i}": sorted(one) for i, one in enumerate(sets)}, None, range(7))
    except UserError as error:
        assert "expected an order that gives back every region" in str(error)  # noqa: PT017
        return
    for value in range(7):
        painted = 0
        for chosen, paint in zip(regions.values(), order, strict=True):
            painted = paint if value in chosen else painted
        assert all((value in chosen) == (painted in chosen) for chosen in regions.values())


@pytest.mark.parametrize(
    ("regions", "order", "message"),
    [
        ({"WT": [1, 3]}, None, "regions: WT is [1, 3], expected some of the label values 1, 2, 4"),
        ({"WT": [0, 1]}, None, "regions: WT is [0, 1], expected some of the label values 1, 2, 4"),
        ({"WT": []}, None, "regions: WT is [], expected some"),
        ({"WT": ["1"]}, None, "regions: WT is ['1'], expected some"),
        ({"WT": [True]}, None, "regions: WT is [True], expected some"),
        ({"": [1]}, None, "regions: found the names [''], expected different ones"),
        ({"WT": [1], " wt": [2]}, None, "regions: found the names ['WT', ' wt'], expected different ones"),
        ({"background": [1]}, None, "none for the background"),
        ({"$x": [1]}, None, "expected different ones that MONAI leaves as they are (no $, @ or %"),
        ({"_target_": [1]}, None, "regions: found the names ['_target_'], expected different ones"),
        ({"a#b": [1]}, None, "regions: found the names ['a#b'], expected different ones"),
        ({"a::b": [1]}, None, "regions: found the names ['a::b'], expected different ones"),
        (BRATS, [2, 1], "regions_class_order: found [2, 1], expected 3 label values, one of each region"),
        (BRATS, [2, 1, 1], "regions_class_order: found [2, 1, 1], expected 3 label values, one of each"),
        # painted over by WT, which comes last
        ({"ET": [4], "WT": [1, 2, 4]}, [4, 1], "turn the label value 4 into 1, which changes ET"),
        # two regions that overlap in 4, which no region of its own has
        ({"a": [1, 4], "b": [2, 4]}, None, "turn the label value 4 into 2, which changes a"),
    ],
)  # fmt: skip
def test_wrong_regions(regions: Any, order: Any, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        ordered_regions(regions, order, (0, 1, 2, 4))


def test_other_mistakes() -> None:
    with pytest.raises(UserError, match="merge_foreground: found True with regions"):
        choose_labels(NONE, [0, 1], regions={"a": [1]}, merge_foreground=True)
    with pytest.raises(UserError, match=r"regions_class_order: found \[1\] without regions"):
        choose_labels(NONE, [0, 1], order=[1])
    with pytest.raises(UserError, match="num_classes: found 3, expected 1: "):
        choose_labels(NONE, [0, 1], 3, regions={"a": [1]})
    with pytest.raises(UserError, match="regions: found a, expected none: the network has one class"):
        check_sets({"a": [1]}, ())


@pytest.mark.parametrize(
    "labels",
    [
        {"values": [0]}, {"values": [1, 2]}, {"values": [0, 2, 1]}, {"values": [0, 1, 1]}, {},
        {"values": [0, 65536]},
        {"values": ["0", "1"]}, {"values": [0, True]}, {"values": 5}, {"values": list(range(257))}, [], "x",
        {"values": [0, 1, 2], "merged": True}, {"values": [0, 1], "merged": 1}, {"values": [0, 1], "x": 1},
        {"values": [0, 1], "regions": {"a": 1}, "order": [1]}, {"values": [0, 1], "regions": {"a": [1]}},
        {"values": [0, 1], "order": [1]},
    ],
)  # fmt: skip
def test_a_record_with_a_wrong_map_is_refused(labels: Any) -> None:
    with pytest.raises(UserError, match=r"labels|regions|merge_foreground"):
        recorded_labels({"num_classes": 2, "labels": labels})


def test_records() -> None:
    assert recorded_labels({"num_classes": 4}) == {"values": [0, 1, 2, 3]}  # one from before label maps
    assert recorded_labels({"num_classes": 2, "labels": {"values": [0, 9]}}) == {"values": [0, 9]}
    with pytest.raises(UserError, match="found labels of 2 outputs, expected 3"):
        recorded_labels({"num_classes": 3, "labels": {"values": [0, 9]}})


def test_missing_classes_are_named(caplog: pytest.LogCaptureFixture) -> None:
    warn_missing(LabelMap((0, 1, 4)), ["background", "liver", "cyst"], [[0, 1], [0]])
    assert caplog.messages == ["labels: no training case has cyst (label value 4): it cannot be learned"]
    caplog.clear()
    regions = LabelMap((0, 1, 2, 4), False, {"WT": (1, 2, 4), "ET": (4,)}, (1, 4))
    warn_missing(regions, ["WT", "ET"], [[0, 1]])
    assert caplog.messages == ["labels: no training case has ET (label value 4): it cannot be learned"]
    warn_missing(LabelMap((0, 1), merged=True), ["background", "foreground"], [[0, 9]])
    assert len(caplog.messages) == 1
