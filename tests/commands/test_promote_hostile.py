"""What a run from elsewhere can do to the bundle that is promoted from it: nothing that runs code."""

import json
import re
import sys
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml
from monai.bundle import ConfigParser, ConfigWorkflow
from pretext3d.commands import saved_config
from pretext3d.commands.promote import options
from pretext3d.commands.promote.configs import Document
from pretext3d.commands.promote.run import read_run
from pretext3d.commands.promote.text import table
from pretext3d.commands.saved_config import ENTRIES, as_saved, read_config, settings_of
from pretext3d.errors import UserError
from pretext3d.literals import is_literal_text
from pretext3d.networks.factory import build_backbone
from pretext3d.networks.segmentation import SegmentationNet
from pretext3d.training.checkpoint_io import load_checkpoint, save_checkpoint

from tests.commands.hostile_runs import EXPANDED, ODD, hostile_configs, renamed
from tests.finished import LICENCE, finished_run
from tests.labelled import write_labelled

# nine entries, each of nine times the one before it: half a kilobyte that stands for 400 million values
ALIASES = "b0: &b0 [1]\n" + "".join(f"b{n}: &b{n} [{', '.join([f'*b{n - 1}'] * 9)}]\n" for n in range(1, 10))
ROOT = Path(__file__).resolve().parents[2]


def promoted(run: Path, there: Path, labels: tuple[str, str] = ("a", "b"), *more: str) -> Path:
    options.main([str(run), "--name", "x", "--labels", *labels, *LICENCE, "--output_dir", str(there), *more])
    return there / "x"


def workflow(bundle: Path, name: str, **keys: str) -> ConfigWorkflow:
    kind = "infer" if name == "inference" else "train"
    file = str(bundle / "configs" / f"{name}.yaml")
    found = ConfigWorkflow(file, workflow_type=kind, logging_file=False, **keys)
    found.initialize()
    return found


# ------------------------------------------------------------------------------------------- names and labels
@pytest.mark.parametrize("text", EXPANDED)
def test_names_that_monai_would_expand_are_refused(tmp_path: Path, text: str) -> None:
    run = finished_run(tmp_path / "run")
    there = tmp_path / "out"
    with pytest.raises(UserError, match=re.escape(f"--labels: found {text!r}, expected text that MONAI")):
        promoted(run, there, ("a", text))
    renamed(run, name=text)
    with pytest.raises(UserError, match=r"data: the name .*; give another one by --data"):
        promoted(run, there)
    assert not list(there.glob("x*"))
    bundle = promoted(run, there, ("a", "b"), "--data", "scans of 2024")
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    assert metadata["data_source"] == "scans of 2024 (licence: CC BY 4.0)"


@pytest.mark.parametrize("text", EXPANDED)
def test_it_is_what_monai_expands(text: str) -> None:
    """The list of such texts is not invented: MONAI's parser gives another value, or none."""
    parser = ConfigParser({"a": {"b": [text]}, "network_def": 1, "stenosis": 2, "x": 3})
    try:
        assert parser.get_parsed_content("a::b::0") != text
    except Exception:  # a syntax error, a missing reference, an id out of range
        assert not is_literal_text(text)
    assert "antigravity" not in sys.modules or text == "$import antigravity"
    sys.modules.pop("antigravity", None)


@pytest.mark.parametrize("text", ODD)
def test_other_texts_are_left_as_they_are(text: str) -> None:
    assert is_literal_text(text)
    assert ConfigParser({"a": [text]}).get_parsed_content("a") == [text]
    document = Document("a: 1\nb: [x]\n", "", "train.yaml")
    document.set("a", text)
    document.set("b", [text, text])
    assert yaml.safe_load(document.text()) == {"a": text, "b": [text, text]}


def test_a_bundle_with_odd_names_starts_and_segments(tmp_path: Path) -> None:
    run = renamed(finished_run(tmp_path / "run"), name="50 % of @home: 'all'", pretrained="| $x")
    bundle = promoted(run, tmp_path, ("yes", "left: 'x@y', 12:30"))
    scans = tmp_path / "scans"
    scans.mkdir()
    volume = np.random.default_rng(0).random((17, 16, 25)).astype(np.float32)
    nib.save(nib.Nifti1Image(volume, np.diag([2.0, 2.0, 3.0, 1.0])), scans / "a.nii.gz")
    places = {"output_dir": str(tmp_path / "out"), "cache_dir": str(tmp_path / "cache")}
    inference = workflow(bundle, "inference", dataset_dir=str(scans), **places)
    inference.run()
    assert nib.load(tmp_path / "out" / "a_seg.nii.gz").shape == (17, 16, 25)
    places["output_dir"] = str(tmp_path / "trained")
    training = workflow(bundle, "train", dataset_dir=str(write_labelled(tmp_path / "data")), **places)
    names = training.parser.get_parsed_content("class_names")
    assert names == ["background", "yes", "left: 'x@y', 12:30"]
    assert "| first weights | \\| $x |" in (bundle / "docs" / "README.md").read_text()


def test_a_table_keeps_names_in_their_cells() -> None:
    assert table([("data", "a | b\n# c\x1b[2J")]).splitlines()[2:] == ["| data | a \\| b # c[2J |"]


# -------------------------------------------------------------------------------------- a run's configuration
def test_nothing_of_a_configuration_is_executed(tmp_path: Path) -> None:
    """Each is refused by name; what is taken over is plain, and no module has been imported."""
    refused = Counter[str]()
    for number, (place, run) in enumerate(hostile_configs(tmp_path)):
        with pytest.raises(UserError, match=r"config\.yaml: ") as caught:
            promoted(run, tmp_path / str(number))
        assert re.search(rf"{place.split('::')[0]}", str(caught.value))
        refused[place] += 1
    assert set(refused.values()) == {2}
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [", "cannot be read: "),
        ("- a\n", "found list, expected the config.yaml"),
        ("a: " + "[" * 5_000, "cannot be read: "),
        (ALIASES, "found more than 100,000 values"),
        ("a: " + "x" * (saved_config.MAX_BYTES + 1), "found [0-9,]+ bytes, expected the config"),
        ("a: !!python/object/apply:os.system ['true']\n", "cannot be read: could not determine"),
    ],
    ids=["cut", "list", "nested", "aliases", "long", "tag"],
)  # fmt: skip
def test_files_that_are_no_configuration(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(UserError, match=rf"config\.yaml: {expected}"):
        read_config(tmp_path / "config.yaml")


def test_components_of_ones_own_need_the_users_word(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run")
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["loss"] = {"_target_": "TverskyLoss", "softmax": True}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(UserError, match=r"loss: found .*TverskyLoss.*, or --trust_config"):
        promoted(run, tmp_path / "a")
    bundle = promoted(run, tmp_path / "b", ("a", "b"), "--trust_config")
    assert yaml.safe_load((bundle / "configs" / "train.yaml").read_text())["loss"] == config["loss"]


def test_handlers_are_taken_over_or_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A plain value of a handler is taken over; another handler, or a path of this machine, is one line."""
    run = finished_run(tmp_path / "run")
    config = yaml.safe_load((run / "config.yaml").read_text())
    handlers = config["train"]["handlers"]
    names = [handler["_target_"].rpartition(".")[2] for handler in handlers]
    handlers[names.index("ValidationHandler")]["interval"] = 7
    config["validate"]["handlers"].append({"_target_": "StatsHandler"})
    config["subset_seed"] = str(tmp_path / "seed")
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    bundle = promoted(run, tmp_path)
    trained = yaml.safe_load((bundle / "configs" / "train.yaml").read_text())
    assert trained["train"]["handlers"][names.index("ValidationHandler")]["interval"] == 7
    assert len(trained["validate"]["handlers"]) == len(config["validate"]["handlers"]) - 1
    lines = [line for line in caplog.messages if "not taken over" in line]
    assert len(lines) == 1
    assert "subset_seed (a path of this machine)" in lines[0]
    assert "validate::handlers (the bundle's own handlers are kept)" in lines[0]


def test_settings_of_a_run_by_their_paths() -> None:
    own = as_saved({"a": {"_target_": "X", "n": "@n#m"}, "b": [{"_target_": "Y", "p": 1}], "c": [1, 2]})
    found = settings_of({"a": {"_target_": "X", "n": 3}, "b": [{"_target_": "Y", "p": 2}], "c": [1]}, own)
    assert found == ({"a::n": 3, "b::0::p": 2, "c": [1]}, {})
    assert settings_of(own, own) == ({}, {})
    found = settings_of({"a": {"_target_": "X", "n": "$1", "more": 1}, "b": [], "c": ["%x"]}, own)
    assert found == ({}, {"a::n": "$1", "a::more": 1, "b": [], "c": ["%x"]})


def test_entries_of_a_profile_s_value_are_plain() -> None:
    own = {"sizes": {"_target_": ENTRIES, "of_profile": "$@settings['sizes']"}}
    given = {"box": [50, 80], "_mode_": "debug", "height": "$1"}
    found = settings_of({"sizes": {**own["sizes"], **given}}, own)
    assert found.plain == {"sizes::box": [50, 80]}
    assert found.other == {"sizes::_mode_": "debug", "sizes::height": "$1"}


def test_a_run_of_an_earlier_version_lacks_a_setting(tmp_path: Path) -> None:
    """The bundle's value stands in the promoted bundle, whose configuration reads it."""
    run = finished_run(tmp_path / "run")
    config = yaml.safe_load((run / "config.yaml").read_text())
    del config["profiles"]["laptop"]["weight_decay"]
    config["profiles"]["laptop"]["flip_axes"] = [1]
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    trained = yaml.safe_load((promoted(run, tmp_path) / "configs" / "train.yaml").read_text())
    assert trained["profiles"]["laptop"]["weight_decay"] == 0.001
    assert trained["profiles"]["laptop"]["flip_axes"] == [1]


# ---------------------------------------------------------------------------------------------------- in 2D
def test_an_image_is_called_an_image(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run")
    path = run / "checkpoints" / "final.pt"
    content = load_checkpoint(path)
    backbone = build_backbone("unet", 3, (16, 24), 2)
    content["record"] |= {"backbone": backbone.record, "channels": 3, "roi_size": [16, 24], "pixdim": []}
    save_checkpoint(path, {**content, "network": SegmentationNet(backbone, 3).state_dict()})
    bundle = promoted(run, tmp_path)
    readme = (bundle / "docs" / "README.md").read_text()
    assert "in images of 3 channel(s),\nat each image's own spacing, with windows of 16 x 24 pixels" in readme
    assert "volume" not in readme
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    assert metadata["task"] == "Segmentation of a, b in images"
    assert metadata["data_type"] == "png, jpeg, tiff or nibabel"
    content = load_checkpoint(path)
    content["record"]["slices"] = {"axis": 1, "every": 2}
    save_checkpoint(path, content)
    readme = (promoted(run, tmp_path / "slices") / "docs" / "README.md").read_text()
    assert "in coronal slices of volumes of 3 channel(s),\nat each volume's own spacing" in readme


def test_a_classification_is_not_promoted(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run", method="classification")
    with pytest.raises(
        UserError, match=r"found method 'classification', .*: only segmentations are promoted"
    ):
        read_run(run, "final")


def test_a_class_of_ones_own_is_not_promoted(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run")
    path = run / "checkpoints" / "final.pt"
    content = load_checkpoint(path)
    content["record"]["backbone"]["encoder"] = "antigravity.x"
    save_checkpoint(path, content)
    with pytest.raises(UserError, match=r"found encoder 'antigravity\.x', expected one of unet"):
        read_run(run, "final")
    assert "antigravity" not in sys.modules
