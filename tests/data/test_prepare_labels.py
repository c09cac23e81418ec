"""Regions, merged foreground and label values beyond a byte, from a folder to the classes of a run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pretext3d.data.prepare import prepare_cases
from pretext3d.errors import UserError

Prepare = Callable[..., dict[str, Any]]


@pytest.fixture
def prepare(tmp_path: Path) -> Prepare:
    """`prepare_cases` with a cache folder of this test."""

    def call(folder: str, **keys: Any) -> dict[str, Any]:
        keys = {"roi_size": (4, 4, 4), "pixdim": "native", "cache_dir": str(tmp_path / "cache"), **keys}
        return prepare_cases(folder, **keys)

    return call


def test_regions_and_merged_foreground(msd, prepare, label):
    folder = msd({"background": 0, "whole": [1, 2], "core": [2]})
    found = prepare(folder, purpose="finetuning")
    assert (found["num_classes"], found["class_names"]) == (2, ["whole", "core"])
    expected = {"values": [0, 1, 2], "regions": {"whole": [1, 2], "core": [2]}, "order": [1, 2]}
    assert found["labels"] == expected
    own = prepare(folder, purpose="finetuning", regions={"all": [2, 1]}, regions_class_order=[2])
    assert own["labels"] == {"values": [0, 1, 2], "regions": {"all": [2, 1]}, "order": [2]}
    merged = prepare(folder, purpose="finetuning", merge_foreground=True)
    assert (merged["labels"], merged["num_classes"]) == ({"values": [0, 1], "merged": True}, 2)
    plain = prepare(folder, purpose="finetuning", regions={})
    assert plain["class_names"] == ["background", "label 1", "label 2"]
    # the label map of a trained network is kept, and values that it does not know are bad labels
    known = prepare(folder, purpose="finetuning", labels={"values": [0, 1, 2, 7]})
    assert (known["labels"], known["num_classes"]) == ({"values": [0, 1, 2, 7]}, 4)
    label("msd/labelsTr/case0.nii.gz", 7)
    with pytest.raises(UserError, match=r"case0: label values: 7, expected one of 0, 1, 2\)"):
        prepare(folder, purpose="finetuning")
    with pytest.raises(
        UserError, match=r"declares the values 2 \(label 2\), expected those of the training: 0, 1"
    ):
        prepare(folder, purpose="finetuning", labels={"values": [0, 1]})


def test_values_above_255_and_too_many(msd, prepare, volume):
    folder, wide = msd(), np.zeros((5, 6, 7), np.uint16)
    wide[1:3, 1:3, 1:3] = 1000
    for case in range(10):
        volume(f"msd/labelsTr/case{case}.nii.gz", wide)
    assert prepare(folder, purpose="finetuning")["labels"] == {"values": [0, 1000]}
    for case in range(10):
        volume(
            f"msd/labelsTr/case{case}.nii.gz", np.arange(210, dtype=np.uint16).reshape(5, 6, 7) + 60 * case
        )
    with pytest.raises(
        UserError, match="labels: found 750 different values in the label files, 1 to 749; expec"
    ):
        prepare(folder, purpose="finetuning")
