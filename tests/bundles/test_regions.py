"""Label values with gaps, classes and overlapping regions, through the real command line."""

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.bundles.command import TINY, fail, succeed
from tests.labelled import save, volume, write_labelled

pytestmark = pytest.mark.slow

REGIONS = "{both: [1, 4], white: [4]}"
KEYS = {**TINY, "steps_per_epoch": 30, "batch_size": 4, "val_fraction": 0.3, "learning_rate": 0.01}


@pytest.fixture(scope="module")
def brats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labels of 0, 1 and 4: grey and white."""
    folder = write_labelled(tmp_path_factory.mktemp("brats"), cases=6)
    for case in range(6):
        save(np.array([0, 1, 4], np.uint8)[volume(case)[1]], folder / f"labelsTr/case_{case}.nii.gz")
    content = json.loads((folder / "dataset.json").read_text())
    content["labels"] = {"0": "background", "1": "grey", "4": "white"}
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def table(path: Path) -> dict[tuple[str, str], float]:
    """Class and label values of each line, and the Dice; the last one of each class."""
    with path.open(newline="") as file:
        return {(row["class"], row["label_values"]): float(row["dice"]) for row in csv.DictReader(file)}


def values(dataset: Path, run: Path, output: Path) -> tuple[set[int], float]:
    """The values of a segmentation, and the part of its voxels that agrees with the label."""
    scans = output.parent / "scans"
    save(volume(0)[0], scans / "a.nii.gz")
    succeed("inference", dataset_dir=scans, pretrained=run, output_dir=output)
    found = nib.load(output / "a_seg.nii.gz")
    assert found.get_data_dtype() == np.uint8
    array, label = np.asarray(found.dataobj), np.asarray(nib.load(dataset / "labelsTr/case_0.nii.gz").dataobj)
    return set(np.unique(array).tolist()), float((array == label).mean())


def test_regions(brats: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    output = succeed("finetune", dataset_dir=brats, output_dir=run, regions=REGIONS, crops="balanced", **KEYS)
    assert "labels: the network's both is 1 4 (written as 1); white is 4 (written as 4); res" in output
    succeed(["finetune", "evaluate"], dataset_dir=brats, output_dir=run)
    dice = table(run / "evaluation.csv")
    assert set(dice) == {("both", "1 4"), ("white", "4")}
    assert min(dice.values()) > 0.5
    assert not (run / "evaluation_regions.csv").exists()
    found, agreement = values(brats, run, tmp_path / "out")
    assert found == {0, 1, 4}
    assert agreement > 0.8


def test_classes_and_their_regions(brats: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    ours = {"crops": "balanced", "dice_background": False}
    succeed("finetune", dataset_dir=brats, output_dir=run, **ours, **KEYS)
    keys = {"dataset_dir": brats, "output_dir": run, "regions": REGIONS}
    succeed(["finetune", "evaluate"], **keys)
    assert set(table(run / "evaluation.csv")) == {("grey", "1"), ("white", "4")}
    dice = table(run / "evaluation_regions.csv")
    assert set(dice) == {("both", "1 4"), ("white", "4")}
    assert dice["both", "1 4"] > 0.5
    found, agreement = values(brats, run, tmp_path / "out")
    assert found == {0, 1, 4}
    assert agreement > 0.8
    unknown = "regions: all is [1, 2], expected some of the label values 1, 4"
    fail(["finetune", "evaluate"], unknown, **{**keys, "regions": "{all: [1, 2]}"})


def test_wrong_regions_end_in_one_line(brats: Path, tmp_path: Path) -> None:
    keys = {"dataset_dir": brats, "output_dir": tmp_path / "run", **KEYS}
    fail(
        "finetune",
        "regions: all is [1, 2], expected some of the label values",
        regions="{all: [1, 2]}",
        **keys,
    )
    fail("finetune", "regions: found 'WT', expected sets of label values", regions="WT", **keys)
