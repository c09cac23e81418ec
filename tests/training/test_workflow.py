"""What components read from the workflow that evaluates them: its folder, its keys, record and report."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ignite.engine import Engine
from monai.bundle import ConfigWorkflow
from pretext3d.training.batches import PrepareTargets
from pretext3d.training.metrics import ValidationLoss
from pretext3d.training.record import data_name, split_settings
from pretext3d.training.report import RunReport
from pretext3d.training.workflow import bundle_root, dated_folder, is_not_rank0, setting

pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")

CONFIG = """
bundle_root: {_target_: pretext3d.training.workflow.bundle_root}
is_not_rank0: {_target_: pretext3d.training.workflow.is_not_rank0}
folder: {_target_: pretext3d.training.workflow.dated_folder}
seed: 3
crop_size: [8, 8, 8]
dataset_dir: scans/heads
channels: [1]
modalities: null
slices: null
normalisation: {percentiles: [0.5, 99.5]}
network_def:
  _target_: tests.training.test_workflow.network
  dims: 3
in_channels: 1
spacing: [1.0, 2.0, 3.0]
classes: 2
class_names: [background, liver]
labels: {values: [0, 1]}
val_fraction: 0.2
test_fraction: 0.1
split_seed: 0
fold: null
pretrained: runs/vectorpose/
freeze_encoder_epochs: 4
train:
  dataset: {data: []}
validate:
  dataset: {data: []}
record:
  _target_: pretext3d.training.record.labelled_record
  task: segmentation
  decoder: duc
cases: {train: [], val: [], channels: 2, pixdim: [4.0]}
pretraining:
  _target_: pretext3d.training.record.pretraining_record
  method: jigsaw
  grid: 3
"""


def network(dims: int) -> SimpleNamespace:
    """What a record reads of a network."""
    return SimpleNamespace(backbone=SimpleNamespace(record={"encoder": "unet", "spatial_dims": dims}))


@pytest.fixture
def workflow(tmp_path: Path) -> ConfigWorkflow:
    file = tmp_path / "liver_ct" / "configs" / "train.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(CONFIG)
    made = ConfigWorkflow(str(file), logging_file=False)
    made.initialize()
    return made


def content(workflow: ConfigWorkflow, key: str) -> object:
    """A key as the workflow resolves it: with the workflow on the stack."""
    workflow.parser["wanted"] = [f"$@{key}"]
    workflow.parser.parse(reset=True)
    workflow.run_id = "wanted"
    return workflow.run()[0]


def test_bundle_root_is_the_folder_of_the_configuration(workflow: ConfigWorkflow, tmp_path: Path) -> None:
    assert content(workflow, "bundle_root") == str(tmp_path / "liver_ct")
    assert Path(str(content(workflow, "folder"))).parent == tmp_path / "liver_ct" / "runs"


def test_outside_of_a_workflow() -> None:
    assert bundle_root() == "."
    assert setting("seed", 5) == 5
    assert Path(dated_folder()).parent == Path("runs")


def test_torchrun_s_environment_says_who_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    assert not is_not_rank0()
    monkeypatch.setenv("RANK", "1")
    assert is_not_rank0()


def test_record_of_a_fine_tuning(workflow: ConfigWorkflow) -> None:
    """The configuration's own keys come before what `cases` found; no path is kept."""
    assert content(workflow, "record") == {
        "method": "segmentation",
        "bundle": "liver_ct",
        "backbone": {"encoder": "unet", "spatial_dims": 3},
        "channels": 1,
        "channel_indices": [1],
        "pixdim": [1.0, 2.0, 3.0],
        "normalisation": {"percentiles": [0.5, 99.5]},
        "seed": 3,
        "roi_size": [8, 8, 8],
        "num_classes": 2,
        "class_names": ["background", "liver"],
        "split": {"val_fraction": 0.2, "split_seed": 0, "fold": None, "test_fraction": 0.1, "val": []},
        "freeze_encoder_epochs": 4,
        "decoder": "duc",
        "data": {"name": "heads", "train": [], "pretrained": "vectorpose"},
    }


def test_record_of_a_pretraining_in_2d(workflow: ConfigWorkflow) -> None:
    workflow.parser["network_def#dims"] = 2
    workflow.parser["slices"] = {"axis": 2, "every": 1}
    for key in ("in_channels", "spacing"):
        del workflow.parser.config[key]
    record = content(workflow, "pretraining")
    expected = {
        "method": "jigsaw",
        "channels": 2,
        "pixdim": [4.0],
        "slices": {"axis": 2, "every": 1},
        "grid": 3,
    }
    assert {key: record[key] for key in expected} == expected  # type: ignore[index]
    assert record["data"] == {"name": "heads", "train": []}  # type: ignore[index]


def test_a_pretraining_records_the_split_where_it_is_not_the_default(workflow: ConfigWorkflow) -> None:
    """test_fraction is 0.1, the other keys have their defaults."""
    assert split_settings() == {}  # without a configuration
    assert content(workflow, "pretraining")["split"] == {"test_fraction": 0.1}  # type: ignore[index]
    workflow.parser["test_fraction"] = 0.0
    assert "split" not in content(workflow, "pretraining")  # type: ignore[operator]
    workflow.parser["fold"] = 2
    assert content(workflow, "pretraining")["split"] == {"fold": 2}  # type: ignore[index]


def test_name_of_the_data() -> None:
    assert data_name(None) == "phantom"
    assert data_name("", unnamed="annotated cases") == "annotated cases"


# ------------------------------------------------------------------------------------- report, loss, targets
def test_report_writes_one_line_per_epoch(tmp_path: Path) -> None:
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=0.5)
    engine = Engine(lambda engine, batch: {"loss": torch.tensor(float(batch))})
    RunReport(str(tmp_path), optimizer, {"method": "jigsaw"}).attach(engine)
    engine.run([1, 3], max_epochs=2)
    lines = (tmp_path / "metrics.csv").read_text().splitlines()
    assert lines[0] == "epoch,step,seconds,train_loss,learning_rate"
    assert [line.split(",")[3] for line in lines[1:]] == ["2.0", "2.0"]


def test_validation_loss_weighs_every_sample_the_same() -> None:
    """Two samples with loss 1 and one with loss 4: (2 * 1 + 1 * 4) / 3 = 2."""
    metric = ValidationLoss(lambda pred, label: (pred - label["clean"]).mean())
    for values in ([1.0, 1.0], [4.0]):
        pred = torch.tensor(values)
        metric.update((pred, {"clean": torch.zeros(len(values))}))
    assert metric.compute() == pytest.approx(2.0)
    engine = Engine(lambda engine, batch: {"pred": torch.full((3,), 2.0), "label": torch.zeros(3)})
    ValidationLoss(lambda pred, label: (pred - label).mean()).attach(engine, "loss")
    assert engine.run([0]).metrics["loss"] == pytest.approx(2.0)


def test_a_target_may_be_optional() -> None:
    batch = {"image": torch.zeros(1), "clean": torch.ones(1)}
    prepare = PrepareTargets(["clean", "boundary"], optional_keys=["boundary"])
    assert set(prepare(batch, torch.device("cpu"))[1]) == {"clean"}
    with pytest.raises(KeyError):
        PrepareTargets(["clean", "boundary"])(batch, torch.device("cpu"))
