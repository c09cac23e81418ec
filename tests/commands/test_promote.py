"""The promote command: what a deployable bundle holds, MONAI's own checks, and the user's mistakes."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from monai.bundle import ConfigParser, ConfigWorkflow
from monai.transforms import LoadImage, LoadImaged
from pretext3d.commands.promote import options
from pretext3d.errors import UserError
from pretext3d.networks.segmentation import SegmentationNet
from pretext3d.publishing.provenance import check_provenance, read_provenance

from tests.bundles.command import call
from tests.finished import LICENCE, finished_run, promoted
from tests.labelled import write_labelled

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = ROOT / "tools" / "schema" / "meta_schema_20240725.json"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return promoted(tmp_path_factory.mktemp("promoted"))


# ---------------------------------------------------------------------------------------------- what is there
def test_files(bundle: Path) -> None:
    expected = {
        "LICENSE", "configs/evaluate.yaml", "configs/inference.yaml", "configs/logging.conf",
        "configs/metadata.json", "configs/multi_gpu_train.yaml",
        "configs/train.yaml", "docs/README.md", "models/README.md",
        "models/model.pt", "models/model.safetensors", "models/provenance.json",
    }  # fmt: skip
    found = {str(path.relative_to(bundle)) for path in bundle.rglob("*") if path.is_file()}
    assert {name for name in found if not name.startswith("pretext3d/")} == expected
    assert "pretext3d/publishing/deployment.py" in found
    assert not any("__pycache__" in name for name in found)
    assert bundle.stat().st_mode & 0o077 == 0o055  # others may read it


def test_metadata_is_valid_and_names_the_labels(bundle: Path) -> None:
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    jsonschema.validate(metadata, json.loads(SCHEMA.read_text()))
    assert metadata["version"] in metadata["changelog"]
    formats = metadata["network_data_format"]
    assert list(formats["inputs"]) == ["image"]
    assert formats["outputs"]["pred"]["channel_def"] == {"0": "background", "1": "Left", "2": "Right"}
    assert formats["inputs"]["image"]["spatial_shape"] == [16, 16, 24]


@pytest.mark.parametrize(
    ("record", "names", "channels", "values"),
    [
        ({"labels": {"values": [0, 1, 255]}}, ["a", "b"], 3, {"0": "background", "1": "a", "255": "b"}),
        (
            {
                "num_classes": 2, "class_names": ["whole", "core"],
                "labels": {"values": [0, 1, 2], "regions": {"whole": [1, 2], "core": [1]}, "order": [2, 1]},
            },
            ["whole", "core"], 2, {"0": "background", "1": "core", "2": "whole"},
        ),
        (
            {
                "num_classes": 2, "class_names": ["background", "foreground"],
                "labels": {"values": [0, 3], "merged": True},
            },
            ["tumour"], 2, {"0": "background", "3": "tumour"},
        ),
    ],
)  # fmt: skip
def test_label_values_of_the_run(
    tmp_path: Path, record: dict[str, object], names: list[str], channels: int, values: dict[str, str]
) -> None:
    """MONAI Label takes the numbers in its outputs, and in the labels it saves, from channel_def."""
    run = finished_run(tmp_path / "run", **record)
    options.main([str(run), "--name", "x", "--labels", *names, *LICENCE, "--output_dir", str(tmp_path)])
    output = json.loads((tmp_path / "x/configs/metadata.json").read_text())["network_data_format"]["outputs"]
    assert (output["pred"]["num_channels"], output["pred"]["channel_def"]) == (channels, values)
    assert all(
        f"| {value} | {name} |" in (tmp_path / "x/docs/README.md").read_text()
        for value, name in values.items()
    )
    for name in ("inference", "train"):
        parser = ConfigParser()
        parser.read_config(tmp_path / "x" / "configs" / f"{name}.yaml")
        assert parser["labels"] == record["labels"]
    loss = parser.get_parsed_content("loss")
    assert bool(loss.members) == ("regions" in parser["labels"])
    assert parser["cases"]["labels"] == "@labels"


def test_provenance(bundle: Path) -> None:
    provenance = json.loads((bundle / "models" / "provenance.json").read_text())
    expected = {
        "data": "scans", "steps": 4, "epochs": 1, "seed": 7, "best_mean_dice": 0.5, "bundle_version": "0.1.0",
        "licence": "CC BY 4.0", "held_out": {"best_validation_mean_dice": 0.5},
        "pretrained": "vp", "method": "rubiks_cube", "training_cases": 1, "weights": "final",
    }  # fmt: skip
    assert {key: provenance[key] for key in expected} == expected
    readme = (bundle / "docs" / "README.md").read_text()
    assert check_provenance(bundle / "models")
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    assert metadata["data_source"] == "scans (licence: CC BY 4.0)"
    for text in (provenance["sha256"], "scans", "CC BY 4.0", "4 steps", "| 1 | Left |", "mean Dice 0.5000"):
        assert text in readme


def test_weights_are_a_state_dict_of_the_network(bundle: Path) -> None:
    weights = torch.load(bundle / "models" / "model.pt", weights_only=True)
    for name in ("inference.yaml", "train.yaml"):
        parser = ConfigParser()
        parser.read_config(bundle / "configs" / name)
        network = parser.get_parsed_content("network_def")
        assert isinstance(network, SegmentationNet)
        network.load_state_dict(weights)
        assert network(torch.zeros(1, 1, 16, 16, 24)).shape == (1, 3, 16, 16, 24)


def test_no_path_of_the_machine(bundle: Path) -> None:
    for path in bundle.rglob("*"):
        if path.is_file() and "pretext3d" not in path.parts:
            assert str(bundle.parent).encode() not in path.read_bytes(), path.name


def test_settings_of_the_run_are_kept_and_its_experiment_is_not(bundle: Path) -> None:
    config = yaml.safe_load((bundle / "configs" / "train.yaml").read_text())
    kept = {"batch_size": 3, "normalisation": {"window": [-100, 300]}, "spacing": [2.0, 2.0, 3.0]}
    reset = {"num_labelled": 0, "dataset_dir": "", "profile": "laptop"}
    assert {key: config[key] for key in {**kept, **reset}} == {**kept, **reset}
    assert config["optimizer"]["lr"] == 0.25
    assert list(config["profiles"]) == ["laptop"]
    assert all(isinstance(handler, dict) for handler in config["train"]["handlers"])
    record = yaml.safe_load((bundle / "configs" / "inference.yaml").read_text())["record"]
    assert record == {
        "pixdim": [2.0, 2.0, 3.0], "normalisation": {"window": [-100, 300]}, "roi_size": [16, 16, 24]
    }  # fmt: skip


def test_a_profile_that_is_like_another_takes_that_along(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run")
    config = yaml.safe_load((run / "config.yaml").read_text()) | {"profile": "laptop_transformer"}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    options.main([str(run), "--name", "x", "--labels", "a", "b", *LICENCE, "--output_dir", str(tmp_path)])
    parser = ConfigParser()
    parser.read_config(tmp_path / "x" / "configs" / "train.yaml")
    assert list(parser["profiles"]) == ["laptop", "laptop_transformer"]
    settings = parser.get_parsed_content("settings")
    assert (settings["encoder"], settings["weight_decay"]) == ("vit_tiny", 0.001)


@pytest.mark.parametrize(
    ("bundle", "encoder", "decoder"),
    [("vectorpose", "segresnet", ""), ("supervoxel_inpainting", "unet4", ""), ("rubiks_cube", "unet", "duc")],
)
def test_runs_of_every_bundle(tmp_path: Path, bundle: str, encoder: str, decoder: str) -> None:
    run = finished_run(tmp_path / "run", bundle, encoder, decoder)
    options.main([str(run), "--name", "x", "--labels", "a", "b", *LICENCE, "--output_dir", str(tmp_path)])
    weights = torch.load(tmp_path / "x" / "models" / "model.pt", weights_only=True)
    own = yaml.safe_load((ROOT / "bundles" / bundle / "configs" / "finetune.yaml").read_text())
    for name in ("inference.yaml", "train.yaml"):
        parser = ConfigParser()
        parser.read_config(tmp_path / "x" / "configs" / name)
        parser.get_parsed_content("network_def").load_state_dict(weights)
    assert parser["loss"] == own["loss"]
    assert read_provenance(tmp_path / "x" / "models")["method"] == bundle


def test_comments_stay_and_nothing_asks_for_a_data_set(bundle: Path) -> None:
    text = (bundle / "configs" / "train.yaml").read_text()
    assert text.count("\n") < 400
    assert "# ---- which weights and which labels" in text
    asked = set(re.findall(r"@cases\['(\w+)'\]", text))
    assert asked == {"train", "val"}  # the two lists that MONAI Label gives
    evaluate = yaml.safe_load((bundle / "configs" / "evaluate.yaml").read_text())
    asking = [evaluate["evaluated"], *(s for s in evaluate["initialize"] if "@cases" in str(s))]
    assert [s["_target_"].rpartition(".")[2] for s in asking] == ["evaluation_cases", "check_classes"]
    rest = [
        key
        for key, value in evaluate.items()
        if key not in ("evaluated", "initialize") and "@cases" in str(value)
    ]
    assert rest == []


def test_monai_label_settings_need_no_data(bundle: Path) -> None:
    """As MONAI Label reads it: only these ids, and none of them may look for cases."""
    parser = ConfigParser()
    parser.read_config(bundle / "configs" / "inference.yaml")
    parser["bundle_root"] = str(bundle)
    parser["cases"] = "$1 / 0"
    for key in ("preprocessing", "postprocessing", "inferer", "network_def"):
        assert parser.get_parsed_content(key) is not None


@pytest.mark.parametrize(("name", "kind"), [("train", "train"), ("inference", "infer")])
def test_monai_finds_every_property(bundle: Path, tmp_path: Path, name: str, kind: str) -> None:
    workflow = ConfigWorkflow(
        str(bundle / "configs" / f"{name}.yaml"),
        workflow_type=kind,
        logging_file=False,
        dataset_dir=str(write_labelled(tmp_path / "data")),
        output_dir=str(tmp_path / "run"),
        cache_dir=str(tmp_path / "cache"),
    )
    workflow.initialize()
    assert not workflow.check_properties()


# ---------------------------------------------------------------------------------------- the user's mistakes
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"--labels": ["spleen"]},
            "--labels: found 1 (spleen), expected 2, for the run's classes grey, white",
        ),
        ({"--labels": ["a", "A"]}, "--labels: found ['a', 'A'], expected different names"),
        ({"--labels": ["a", "background"]}, "expected different names, without background"),
        ({"--name": ["../x"]}, "--name: found '../x', expected a letter"),
        ({"--name": ["spleen_v2"]}, "--name: found 'spleen_v2', expected a letter"),
        ({"--licence": [" "]}, "--licence: found nothing, expected that of the data"),
        ({"--name": ["cell_detection"]}, "without 'detection'"),
        ({"--version": ["1"]}, "--version: found '1', expected three numbers"),
        ({"--weights": ["best"]}, "found final.pt, expected a finished run with checkpoints/best.pt"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, changes: dict[str, list[str]], expected: str) -> None:
    run = finished_run(tmp_path / "run")
    words = {
        "--name": ["x"], "--labels": ["a", "b"], "--licence": ["CC0"],
        "--output_dir": [str(tmp_path / "out")], **changes,
    }  # fmt: skip
    with pytest.raises(UserError, match=re.escape(expected)):
        options.main([str(run), *(word for key, values in words.items() for word in (key, *values))])
    assert not (tmp_path / "out").exists()


def test_the_command_ends_with_one_line_and_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    done = call(
        "pretext3d", "promote", tmp_path, "--name", "x", "--labels", "a", *LICENCE, "--output_dir", tmp_path
    )
    assert done.returncode == 1
    assert done.stderr.strip().startswith("error: --output_dir: found")
    assert done.stderr.strip().count("\n") == 0


# ----------------------------------------------------------------------------------- through the command line
@pytest.mark.slow
def test_the_bundle_runs_alone(bundle: Path, tmp_path: Path) -> None:
    """Segmentation, and the export to TorchScript, with the vendored package and from another folder."""
    scans = tmp_path / "scans"
    scans.mkdir()
    affine = np.array([[-2.0, 0, 0, 9], [0, 0, 2.0, 1], [0, 5.0, 0, 4], [0, 0, 0, 1]])  # axes not in order
    nib.save(nib.Nifti1Image(np.random.default_rng(0).random((20, 12, 18)), affine), scans / "a.nii.gz")
    run = [sys.executable, "-m", "monai.bundle"]
    configs = bundle / "configs"
    words = [
        "run",
        "--config_file",
        configs / "inference.yaml",
        "--dataset_dir",
        scans,
        "--output_dir",
        "out",
    ]
    export = [
        "ckpt_export", "network_def", "--filepath", "model.ts", "--ckpt_file", bundle / "models" / "model.pt",
        "--meta_file", configs / "metadata.json", "--config_file", configs / "inference.yaml",
        "--use_trace", "True", "--input_shape", "[1,1,16,16,24]",
    ]  # fmt: skip
    for command in (words, export):
        done = subprocess.run(
            [*run, *map(str, command)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(bundle), "PRETEXT3D_CACHE": str(tmp_path / "cache")},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    result = nib.load(tmp_path / "out" / "a_seg.nii.gz")
    assert result.shape == (20, 12, 18)
    np.testing.assert_allclose(result.affine, affine, atol=1e-5)
    assert torch.jit.load(tmp_path / "model.ts")(torch.zeros(1, 1, 16, 16, 24)).shape == (1, 3, 16, 16, 24)
    check_what_monai_deploy_reads(tmp_path / "model.ts", scans / "a.nii.gz")


def check_what_monai_deploy_reads(model: Path, scan: Path) -> None:
    """MONAI Deploy's bundle operator has the TorchScript file alone: network, metadata, configuration.

    It loads the image by itself, leaves loading and saving out of the transforms, and takes the first input
    and output of the metadata.
    """
    inside = {"metadata.json": "", "inference.json": ""}
    network = torch.jit.load(model, _extra_files=inside)
    parser = ConfigParser(json.loads(inside["inference.json"]))
    formats = json.loads(inside["metadata.json"])["network_data_format"]
    assert next(iter(formats["inputs"])) == "image"
    assert next(iter(formats["outputs"])) == "pred"
    preprocessing, postprocessing = (
        parser.get_parsed_content(f"{part}processing").transforms for part in ("pre", "post")
    )
    sample = {"image": LoadImage(ensure_channel_first=True)(scan)}
    for transform in preprocessing:
        if not isinstance(transform, LoadImaged):
            sample = transform(sample)
    assert sample["image"].shape[0] == formats["inputs"]["image"]["num_channels"]
    sample["pred"] = parser.get_parsed_content("inferer")(sample["image"].as_tensor()[None], network)[0]
    assert sample["pred"].shape[0] == formats["outputs"]["pred"]["num_channels"]
    assert "InvertToClassd" in {type(transform).__name__ for transform in postprocessing}
