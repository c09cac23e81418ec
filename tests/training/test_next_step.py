"""The last lines of a run: what it wrote, and the command of the step that its data allow."""

import logging
import shlex
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigWorkflow
from pretext3d.training import next_step
from pretext3d.training.next_step import WROTE

pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")

CONFIG = """
output_dir: runs/x
dataset_dir: eyes
datalist: ''
subjects: ''
spatial_dims: 3
val_fraction: 0.3
probe: null
cases: {train: [{id: a}], val: []}
initialize: [$@cases]
run: []
finalize:
- {_target_: pretext3d.training.session.finish, next_step: finetune}
"""


def ending(folder: Path, caplog: pytest.LogCaptureFixture, **overrides: Any) -> list[str]:
    """The lines that the end of a run writes."""
    (folder / "configs").mkdir(exist_ok=True)
    file = folder / "configs" / "train.yaml"
    file.write_text(CONFIG)
    caplog.set_level(logging.INFO)
    workflow = ConfigWorkflow(str(file), workflow_type="train", logging_file=False, **overrides)
    workflow.initialize()
    workflow.run()
    workflow.finalize()
    return caplog.messages[-1].splitlines()


@pytest.mark.parametrize(
    ("overrides", "file", "more"),
    [
        ({}, "finetune.yaml", "--dataset_dir LABELLED_FOLDER --val_fraction 0.3"),
        ({"dataset_dir": ""}, "finetune.yaml", "--val_fraction 0.3"),
        ({"dataset_dir": "", "profile": "laptop"}, "finetune.yaml", "--val_fraction 0.3"),
        ({"dataset_dir": "", "profile": "mine"}, "finetune.yaml", "--profile mine --val_fraction 0.3"),
        (
            {"spatial_dims": 2},
            "finetune_classification.yaml",
            "--dataset_dir eyes --class_file CLASSES.csv --spatial_dims 2 --val_fraction 0.3",
        ),
        (
            {"spatial_dims": 2, "cases::train": [{"id": "a", "label": "a.png"}], "datalist": "list.json"},
            "finetune.yaml",
            "--dataset_dir eyes --datalist list.json --spatial_dims 2 --val_fraction 0.3",
        ),
        (
            {"spatial_dims": 2, "cases::val": [{"id": "a", "slice": 4, "volume": "a"}]},
            "finetune.yaml",
            "--dataset_dir LABELLED_FOLDER --spatial_dims 2 --val_fraction 0.3",
        ),
        (
            {"probe": {"class_file": "my eyes.csv"}, "cases::train": [{"id": "a", "label": "a.nii"}]},
            "finetune_classification.yaml",
            "--dataset_dir eyes --class_file 'my eyes.csv' --val_fraction 0.3",
        ),
        (
            {"cases::train": [{"id": "a", "class": "ill"}], "datalist": "list.json", "subjects": "s.csv"},
            "finetune_classification.yaml",
            "--dataset_dir eyes --datalist list.json --subjects s.csv --val_fraction 0.3",
        ),
    ],
)
def test_pre_training_suggests_the_fine_tuning_that_its_cases_allow(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, overrides: dict[str, Any], file: str, more: str
) -> None:
    lines = ending(tmp_path, caplog, **overrides)
    assert lines[-3:-1] == ["next:", "  pretext3d doctor runs/x"]
    words = shlex.split(lines[-1])
    assert words[:4] == ["python", "-m", "monai.bundle", "run"]
    assert Path(words[5]).name == file
    assert words[6:] == ["--pretrained", "runs/x", *shlex.split(more)]


def test_an_unzipped_bundle_has_no_command_to_judge(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its package is in the bundle's folder, without the program `pretext3d`."""
    monkeypatch.setattr(next_step, "SHIPPED", tmp_path / "pretext3d" / "bundles")
    assert ending(tmp_path, caplog)[-2] == "next:"


def test_after_generated_volumes_the_labelled_folder_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a pre-training has no `dataset_dir`; without one the fine-tuning would run on the phantom."""
    generated = (
        CONFIG.replace("dataset_dir: eyes\n", "").replace("cases:", "volumes:").replace("@cases", "@volumes")
    )
    monkeypatch.setattr(f"{__name__}.CONFIG", generated)
    assert "--pretrained runs/x --dataset_dir LABELLED_FOLDER" in ending(tmp_path, caplog)[-1]


def test_an_evaluation_gets_the_same_data(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    end = ending(tmp_path, caplog, **{"finalize::0::next_step": "evaluate", "datalist": "list.json"})
    assert end[-2] == "next:"
    assert "finetune.yaml', '" in end[-1]
    assert end[-1].endswith("--output_dir runs/x --dataset_dir eyes --datalist list.json")


def test_files_of_each_training_that_exist_are_listed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    for name in ("checkpoints/best.pt", "metrics.csv", "config.yaml"):
        (folder / name).write_text("")
    for step, first in (("finetune", "weights for fine-tuning"), ("evaluate", "best on the held-out cases")):
        lines = ending(tmp_path, caplog, output_dir=str(folder), **{"finalize::0::next_step": step})
        assert lines[1:4] == [
            f"  checkpoints/best.pt ({first})",
            "  metrics.csv (one line per epoch)",
            "  config.yaml",
        ]
        assert lines[0] == f"done: {folder}"
    assert WROTE["evaluate_classification"][0] == WROTE["evaluate"][0]
