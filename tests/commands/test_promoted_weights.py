"""The weights of a promoted bundle: trained on, kept whole, loaded by MONAI."""

import shutil
from pathlib import Path

import monai.bundle
import pytest
import torch
from monai.bundle import ConfigWorkflow
from pretext3d.errors import UserError, find_user_error
from pretext3d.networks.segmentation import SegmentationNet
from pretext3d.publishing.archive import unpack
from pretext3d.publishing.deployment import publish
from pretext3d.publishing.opening import load_pretrained
from pretext3d.publishing.provenance import check_provenance, read_provenance

from tests.finished import finished_run, promoted
from tests.labelled import write_labelled
from tools import pack


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return promoted(tmp_path_factory.mktemp("promoted"))


def test_a_promoted_bundle_is_loaded_with_its_record(bundle: Path, tmp_path: Path) -> None:
    """From the safetensors; model.pt holds tensors alone, for other programs."""
    model = load_pretrained(bundle)
    before = torch.load(bundle / "models" / "model.pt", weights_only=True)
    assert isinstance(model.network, SegmentationNet)
    assert all(torch.equal(value, before[name]) for name, value in model.network.state_dict().items())
    assert model.record["method"] == "segmentation"
    assert model.record["data"]["name"] == read_provenance(bundle / "models")["data"]
    assert model.record["class_names"][0] == "background"


def test_publish_keeps_the_weights_before(bundle: Path, tmp_path: Path) -> None:
    before = torch.load(bundle / "models" / "model.pt", weights_only=True)
    models = tmp_path / "models"
    models.mkdir()
    for name in ("model.pt", "provenance.json", "README.md"):
        (models / name).write_bytes((bundle / "models" / name).read_bytes())
    run = finished_run(
        tmp_path / "run", data={"name": "more", "train": ["f" * 16], "pretrained": "two_sides"}
    )
    publish(str(run / "checkpoints"), str(models))  # there is no best.pt: final.pt
    kept = torch.load(models / "model_previous.pt", weights_only=True)
    assert all(torch.equal(kept[name], before[name]) for name in before)
    provenance = read_provenance(models)
    assert provenance["data"] == "more"
    assert provenance["trained_before"][0]["data"] == "scans"
    assert provenance["licence"] == "CC BY 4.0; of the cases trained on since: not named"
    assert check_provenance(models)
    publish(str(run / "checkpoints"), str(models))
    assert read_provenance(models)["licence"] == provenance["licence"]
    assert provenance["train"] == ["0123456789abcdef", "f" * 16]  # of both trainings: neither may judge it


def test_truncated_provenance_ends_a_training_before_it_begins(bundle: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "two_sides"))
    (copy / "models" / "provenance.json").write_text('{"data": "sc')
    workflow = ConfigWorkflow(
        str(copy / "configs" / "train.yaml"),
        workflow_type="train",
        logging_file=False,
        dataset_dir=str(write_labelled(tmp_path / "data")),
        cache_dir=str(tmp_path / "cache"),
    )
    with pytest.raises(RuntimeError) as failed:
        workflow.initialize()
    assert "provenance.json: is not JSON" in str(find_user_error(failed.value))
    run = finished_run(tmp_path / "run")
    weights = (copy / "models" / "model.pt").read_bytes()
    with pytest.raises(UserError, match=r"provenance\.json: is not JSON"):
        publish(str(run / "checkpoints"), str(copy / "models"))
    assert (copy / "models" / "model.pt").read_bytes() == weights


def test_weights_stay_when_others_cannot_be_written(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = Path(shutil.copytree(bundle / "models", tmp_path / "models"))
    (models / "model_previous.pt").write_bytes(b"before")
    run = finished_run(tmp_path / "run")
    weights = (models / "model.pt").read_bytes()

    def full(self: Path, content: bytes) -> int:
        self.touch()
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match="cannot be written: disk full"):
        publish(str(run / "checkpoints"), str(models))
    assert (models / "model.pt").read_bytes() == weights
    assert (models / "model_previous.pt").read_bytes() == b"before"
    assert [path.name for path in models.iterdir() if path.name.startswith(".")] == []


@pytest.mark.filterwarnings("ignore:parsing config_file")
def test_monai_loads_it(bundle: Path, tmp_path: Path) -> None:
    """monai.bundle.load reads inference.json, which packing adds."""
    zipped = pack.pack(bundle, tmp_path).path
    unpack(zipped, tmp_path / "there" / "two_sides", "two_sides", "0.1.0")
    network = monai.bundle.load("two_sides", bundle_dir=tmp_path / "there", workflow_type="inference")
    weights = torch.load(bundle / "models" / "model.pt", weights_only=True)
    assert all(torch.equal(weights[name], value) for name, value in network.state_dict().items())
