"""Parts of the promote command: the run that it reads, the document that it edits, the spacing it writes."""

import shutil
from pathlib import Path

import pytest
import torch
import yaml
from pretext3d.commands.promote.configs import Document
from pretext3d.commands.promote.run import bundle_of, profile_of, read_run
from pretext3d.data.loading import PlainSpacingd
from pretext3d.errors import UserError

from tests.finished import finished_run

ROOT = Path(__file__).resolve().parents[2]


# ---------------------------------------------------------------------------------------------------- the run
def test_what_is_no_fine_tuned_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"found no config\.yaml"):
        read_run(tmp_path, "final")
    pretraining = finished_run(tmp_path / "pre", method="vectorpose")
    with pytest.raises(UserError, match="found method 'vectorpose', expected a run of a finetune"):
        read_run(pretraining, "final")


def test_bundle_is_the_one_that_the_record_names(tmp_path: Path) -> None:
    """However much of its configuration a run has changed."""
    run = finished_run(tmp_path / "run", "vectorpose")
    config = yaml.safe_load((ROOT / "bundles" / "rubiks_cube" / "configs" / "finetune.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump({**config, "profile": "laptop", "learning_rate": 0.1}))
    assert read_run(run, "final").bundle.name == "vectorpose"
    with pytest.raises(UserError, match=r"found no `bundle` in its checkpoint's record"):
        bundle_of({"method": "segmentation"}, tmp_path)
    with pytest.raises(UserError, match=r"found bundle '\.\./x', expected one of avsdb, cpc, exemplar"):
        bundle_of({"bundle": "../x"}, tmp_path)


def test_bundle_may_be_given_by_its_folder(tmp_path: Path) -> None:
    elsewhere = tmp_path / "vectorpose"
    shutil.copytree(ROOT / "bundles" / "vectorpose" / "configs", elsewhere / "configs")
    run = finished_run(tmp_path / "run", "vectorpose")
    assert read_run(run, "final", str(elsewhere)).bundle == elsewhere.resolve()
    other = str(ROOT / "bundles" / "rubiks_cube")
    with pytest.raises(UserError, match=r"--bundle: found .*rubiks_cube, expected the bundle vectorpose"):
        read_run(run, "final", other)
    (elsewhere / "configs" / "finetune.yaml").unlink()
    with pytest.raises(UserError, match=r"--bundle: found .*vectorpose, expected the bundle vectorpose"):
        read_run(run, "final", str(elsewhere))


def test_profile_comes_from_the_log_where_the_machine_decided(tmp_path: Path) -> None:
    config = {"profile": "$'paper' if torch.cuda.is_available() else 'laptop'", "profiles": {"paper": {}}}
    (tmp_path / "log.txt").write_text("INFO x: pretext3d 0.1.0; run in y; profile paper\n")
    assert profile_of(config, tmp_path) == "paper"
    (tmp_path / "log.txt").unlink()
    with pytest.raises(UserError, match="expected one of its config"):
        profile_of(config, tmp_path)


# ----------------------------------------------------------------------------- what it writes into the bundle
def test_document_is_edited_where_it_stands() -> None:
    document = Document("# old\na: 1  # why\nb:\n  c: 1\n  d: 2\n", "# new\n", "train.yaml")
    document.set("a", 3)
    document.set("b::c", {"x": 1e-05, "y": None, "z": "$@a"})
    expected = "# new\na: 3 # why\nb:\n  c:\n    x: 1.0e-05\n    y: null\n    z: $@a\n  d: 2\n"
    assert document.text() == expected
    document.insert_before("b", {"e": [1]})
    document.remove("a")
    document.set("b", 4, "all")
    assert document.text() == "# new\ne: [1]\nb: 4 # all\n"


def test_an_edit_that_finds_nothing_is_an_error() -> None:
    """Marks of common blocks are left out; an overlay's nested key is one entry."""
    text = "# >>> data (common; written by tools/bundles/sync)\na::b: 1\n# <<<\nc: {d: 1}\n"
    document = Document(text, "", "train.yaml")
    document.set("a::b", 2)
    assert document.text() == "a::b: 2\nc: {d: 1}\n"
    for path in ("z", "c::z", "c::d::e"):
        with pytest.raises(UserError, match=f"train.yaml: found no entry {path}, expected the template's"):
            document.set(path, 1)
        with pytest.raises(UserError, match=f"found no entry {path}"):
            document.remove(path)
    with pytest.raises(UserError, match="found an entry c, expected none"):
        document.insert_before("a::b", {"c": 1})


def test_spacing_leaves_other_keys_alone() -> None:
    """MONAI's own takes `image_path` for meta data; voxels of 1 mm become 2 mm, and come back."""
    from monai.data import MetaTensor

    image = MetaTensor(torch.rand(1, 6, 8, 4), meta={"filename_or_obj": "a.nii.gz"})
    sample = {"image": image, "image_path": "a.nii.gz", "id": 1}
    transform = PlainSpacingd("image", pixdim=[2, 2, 2])
    result = transform(sample)
    assert result["image_path"] == "a.nii.gz"
    assert result["image"].shape[1:] != image.shape[1:]
    assert transform.inverse(result)["image"].shape == image.shape
    assert list(result) == list(sample)
