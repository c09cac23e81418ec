"""The bundles in 2D, through the real command line: photographs, their labels and classes, slices."""

import csv
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from tests.bundles.command import BUNDLES, FINETUNE, QUICK, TINY, fail, history, succeed

pytestmark = pytest.mark.slow

SHAPE = (40, 48)  # rows, columns
IMAGES = {key: value for key, value in FINETUNE.items() if key != "pixdim"}  # have no millimetres
PLANE = {"spatial_dims": 2, "pictures": 1, "val_crops": 1}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten pictures, two per subject, of one bright disc: its mask is the label, its colour the class."""
    folder = tmp_path_factory.mktemp("photographs")
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    rng = np.random.default_rng(0)
    lines = ["id,class,subject"]
    for name in ("images", "labels"):
        (folder / name).mkdir()
    for number in range(10):
        centre, radius = rng.uniform(12, 28, size=2), rng.uniform(6, 10)
        disc = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < radius**2
        image = (
            rng.integers(0, 60, size=(*SHAPE, 3)) + 120 * disc[..., None] * np.eye(3, dtype=int)[number % 2]
        )
        Image.fromarray(image.astype(np.uint8)).save(folder / "images" / f"eye_{number}.png")
        Image.fromarray(disc.astype(np.uint8)).save(folder / "labels" / f"eye_{number}.png")
        lines.append(f"eye_{number},{'red' if number % 2 == 0 else 'green'},person {number // 2}")
    (folder / "classes.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def trained(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    keys = {"dataset_dir": photographs, "subjects": photographs / "classes.csv", "output_dir": folder}
    output = succeed("train", test_fraction=0.2, bundle="vectorpose", **keys, **PLANE, **TINY)
    assert "3 subjects (6 volumes) to train on, 1 (2) held out, 1 (2) to test on" in output
    return folder


# avsdb generates its images: see test_avsdb_bundle
@pytest.mark.parametrize(
    "bundle", sorted({p.parents[1].name for p in BUNDLES.glob("*/configs/train.yaml")} - {"avsdb"})
)
def test_every_bundle_trains_on_the_phantom_s_slices(bundle: str, tmp_path: Path) -> None:
    keys = {**QUICK, **PLANE, "max_epochs": 1, "steps_per_epoch": 1, "slices": "{'axis':2,'every':16}"}
    succeed("train", bundle=bundle, output_dir=tmp_path / "run", **keys)
    assert len(history(tmp_path / "run")) == 1
    assert list((tmp_path / "run" / "pictures").glob("*.png"))


def test_photographs_are_segmented(photographs: Path, trained: Path, tmp_path: Path) -> None:
    keys = {
        "dataset_dir": photographs,
        "subjects": photographs / "classes.csv",
        "output_dir": tmp_path / "ft",
    }
    plane = {"spatial_dims": 2, "num_labelled": 2, "test_fraction": 0.2, "freeze_encoder_epochs": 1}
    output = succeed("finetune", pretrained=trained, **keys, **plane, **IMAGES)
    assert "2 subjects (4 volumes) of 3 (6) to train on, 1 (2) held out, 1 (2) to test on" in output
    assert "encoder frozen up to epoch 1" in output
    assert "encoder released: trained from epoch 2 on" in output
    succeed(["finetune", "evaluate"], **keys, profile="laptop")
    with (tmp_path / "ft" / "evaluation.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2  # one class of the two pictures of the test subject
    assert len({row["subject"] for row in rows}) == 1
    scans = photographs / "images"
    succeed("inference", pretrained=tmp_path / "ft", dataset_dir=scans, output_dir=tmp_path / "out")
    found = sorted((tmp_path / "out").glob("*_seg.png"))
    assert [path.name for path in found] == [f"eye_{number}_seg.png" for number in range(10)]
    for path in found:
        result = np.asarray(Image.open(path))
        assert result.shape == SHAPE
        assert set(np.unique(result)) <= {0, 1}


def test_photographs_are_classified(photographs: Path, trained: Path, tmp_path: Path) -> None:
    keys = {"dataset_dir": photographs / "images", "class_file": photographs / "classes.csv"}
    keys |= {"subjects": photographs / "classes.csv", "output_dir": tmp_path / "run", "bundle": "vectorpose"}
    training = {"spatial_dims": 2, "test_fraction": 0.2, "backbone_learning_rate": 0.0}
    output = succeed("finetune_classification", pretrained=trained, **keys, **training, **IMAGES)
    assert "frozen for good" in output
    succeed(["finetune_classification", "evaluate_classification"], **keys, profile="laptop")
    with (tmp_path / "run" / "evaluation" / "classification.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2
    assert {row["class"] for row in rows} == {"red", "green"}


def test_slices_come_back_as_a_volume(tmp_path: Path) -> None:
    """Measured per volume; a result has the grid of its volume, and 0 where no slice was taken."""
    keys = {**FINETUNE, "spatial_dims": 2, "slices": "{'axis':2,'every':8}", "num_labelled": 2}
    succeed("finetune", encoder="unet", output_dir=tmp_path / "ft", **keys)
    output = succeed(["finetune", "evaluate"], output_dir=tmp_path / "ft", profile="laptop")
    with (tmp_path / "ft" / "evaluation.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert f"evaluation of {len({row['case'] for row in rows})} cases\n" in output
    assert not any("slice" in row["case"] for row in rows)  # one line per volume and class
    assert len({(row["case"], row["class"]) for row in rows}) == len(rows)
    volume = np.random.default_rng(0).random((20, 18, 17)).astype(np.float32)
    affine = np.diag([-2.0, 2.0, 3.0, 1.0])
    (tmp_path / "scans").mkdir()
    nib.save(nib.Nifti1Image(volume, affine), tmp_path / "scans" / "a.nii.gz")
    run = {"pretrained": tmp_path / "ft", "dataset_dir": tmp_path / "scans", "output_dir": tmp_path / "out"}
    succeed("inference", **run)
    result = nib.load(tmp_path / "out" / "a_seg.nii.gz")
    assert result.shape == volume.shape
    np.testing.assert_allclose(result.affine, affine)
    taken = np.asarray(result.dataobj).any(axis=(0, 1))
    assert not taken[[k for k in range(17) if k % 8]].any()


def test_mistakes_are_named(photographs: Path, trained: Path, tmp_path: Path) -> None:
    keys = {**TINY, "output_dir": tmp_path / "run", "dataset_dir": photographs}
    fail("train", "spatial_dims", **keys)
    fail("train", "spatial_dims: found 4, expected 2 or 3", **keys, spatial_dims=4)
    three = {**keys, "roi_size": "[16,16,16]", "spatial_dims": 2}
    fail("train", "roi_size: found [16, 16, 16], expected one number of voxels or two", **three)
    transfer = {**IMAGES, "output_dir": tmp_path / "run", "pretrained": trained}
    fail("finetune", "spatial_dims 2", "spatial_dims 3", **transfer)
