"""Tests of the tool that puts a run's weights into its bundle, and of the weights that the bundles hold."""

import hashlib
import importlib.util
import json
from pathlib import Path

import pytest
import torch
from pretext3d.errors import UserError
from pretext3d.files import sha256_of
from pretext3d.networks.factory import build_backbone, rebuild
from pretext3d.networks.segmentation import SegmentationNet
from pretext3d.publishing.provenance import check_provenance
from pretext3d.training import safe_weights
from pretext3d.training.checkpoint_io import load_checkpoint, save_checkpoint
from pretext3d.training.pretrained import read_pretrained, transfer_weights
from torch import nn

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = sorted(path.parent for path in ROOT.glob("bundles/*/models/**/model.pt"))  # folders with weights
SAYS = ["--data", "made-up bodies", "--licence", "CC0", "--command", "train it"]

spec = importlib.util.spec_from_file_location("ship_weights", ROOT / "tools" / "ship_weights.py")
assert spec is not None
assert spec.loader is not None
ship_weights = importlib.util.module_from_spec(spec)
spec.loader.exec_module(ship_weights)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of method `jigsaw` whose best epoch is the first of two."""
    backbone = build_backbone("unet", 1, (8, 8, 8))
    record = {"method": "jigsaw", "backbone": backbone.record, "channels": 1, "pixdim": [2.0] * 3, "seed": 3}
    record["data"] = {"name": "bodies", "train": ["a", "b"]}
    content = {"record": record, "network": nn.ModuleDict({"backbone": backbone}).state_dict(), "epoch": 1}
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    save_checkpoint(
        tmp_path / "run" / "checkpoints" / "best.pt", {**content, "best_metric": 0.5, "best_epoch": 1}
    )
    (tmp_path / "run" / "metrics.csv").write_text(
        "epoch,step,seconds,train_loss,learning_rate,val_loss,accuracy\n"
        "1,10,2.0,0.7,0.1,0.5,0.75\n2,20,2.0,0.6,0.1,0.9,0.5\n"
    )
    return tmp_path / "run"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    (tmp_path / "jigsaw" / "configs").mkdir(parents=True)
    (tmp_path / "jigsaw" / "configs" / "metadata.json").write_text('{"version": "1.2.3"}')
    return tmp_path / "jigsaw"


def test_weights_and_their_card(run: Path, bundle: Path) -> None:
    ship_weights.main([str(run), str(bundle), *SAYS])
    provenance = json.loads((bundle / "models" / "provenance.json").read_text())
    assert provenance["sha256"] == hashlib.sha256((bundle / "models" / "model.pt").read_bytes()).hexdigest()
    assert provenance["held_out"] == {"val_loss": 0.5, "accuracy": 0.75}
    keys = ("steps", "epochs", "seed", "training_cases", "bundle_version")
    assert {key: provenance[key] for key in keys} == {
        "steps": 10, "epochs": 1, "seed": 3, "training_cases": 2, "bundle_version": "1.2.3"
    }  # fmt: skip
    card = (bundle / "models" / "README.md").read_text()
    for text in ("made-up bodies", "CC0", "train it", provenance["sha256"], "| accuracy | 0.75 |"):
        assert text in card
    safe = bundle / "models" / "model.safetensors"
    assert provenance["sha256_safetensors"] == hashlib.sha256(safe.read_bytes()).hexdigest()
    assert provenance["sha256_safetensors"] in card
    assert read_pretrained(bundle).file == safe


def test_both_forms_or_none(run: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safe_weights, "is_installed", lambda: False)
    monkeypatch.setattr(ship_weights, "is_installed", lambda: False)
    with pytest.raises(UserError, match="found no package safetensors"):
        ship_weights.main([str(run), str(bundle), *SAYS])
    assert not (bundle / "models").exists()


def test_mistakes(run: Path, bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"found no configs/metadata\.json"):
        ship_weights.main([str(run), str(tmp_path), *SAYS])
    other = bundle.rename(tmp_path / "rotation")
    with pytest.raises(UserError, match="found method 'jigsaw', expected 'rotation'"):
        ship_weights.main([str(run), str(other), *SAYS])
    bundle = other.rename(tmp_path / "jigsaw")
    ship_weights.main([str(run), str(bundle), *SAYS])
    with pytest.raises(UserError, match=r"found models/model\.pt already"):
        ship_weights.main([str(run), str(bundle), *SAYS])
    ship_weights.main([str(run), str(bundle), *SAYS, "--force"])


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--data", "D:" + r"\scans"),
        ("--data", "scans of " + "/" + "nfs/me"),
        ("--command", "x --dataset_dir /" + "data/x"),
    ],
)
def test_nothing_of_the_machine_goes_on_the_card(run: Path, bundle: Path, option: str, value: str) -> None:
    with pytest.raises(UserError, match=f"{option}: found .*, expected nothing specific to this machine"):
        ship_weights.main([str(run), str(bundle), *SAYS, option, value])
    assert not (bundle / "models").exists()


def test_card_that_would_be_refused_changes_nothing(run: Path, bundle: Path) -> None:
    ship_weights.main([str(run), str(bundle), *SAYS])
    before = {path.name: path.read_bytes() for path in (bundle / "models").iterdir()}
    with pytest.raises(UserError, match="the model card: licence: found ' '"):
        ship_weights.main([str(run), str(bundle), *SAYS, "--licence", " ", "--force"])
    assert {path.name: path.read_bytes() for path in (bundle / "models").iterdir()} == before


def test_weights_stay_when_others_cannot_be_written(
    run: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ship_weights.main([str(run), str(bundle), *SAYS])
    before = {path.name: path.read_bytes() for path in (bundle / "models").iterdir()}
    monkeypatch.setattr(Path, "replace", lambda self, target: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(UserError, match="cannot be written: disk full"):
        ship_weights.main([str(run), str(bundle), *SAYS, "--licence", "CC BY 4.0", "--force"])
    assert {path.name: path.read_bytes() for path in (bundle / "models").iterdir()} == before


def test_further_weights_in_16_bits(run: Path, bundle: Path) -> None:
    """They have a folder of their own; kernels are rounded, all else is kept, and a network has 32 bits."""
    ship_weights.main([str(run), str(bundle), *SAYS])
    ship_weights.main([str(run), str(bundle), *SAYS, "--name", "transformer", "--half"])
    folder = bundle / "models" / "transformer"
    first, halved = (load_checkpoint(one / "model.pt")["network"] for one in (bundle / "models", folder))
    kernel = next(name for name, value in first.items() if value.dim() > 1)
    assert halved[kernel].dtype == torch.float16
    for name, value in first.items():
        expected = value.half() if value.dim() > 1 else value
        torch.testing.assert_close(halved[name], expected, rtol=0, atol=0)
    read = read_pretrained(folder)
    assert read.file == folder / "model.safetensors"
    network = SegmentationNet(rebuild(read.record["backbone"]), num_classes=2)
    assert transfer_weights(network, folder).fraction == 1.0
    assert {value.dtype for value in network.parameters()} == {torch.float32}
    torch.testing.assert_close(network.state_dict()[kernel], first[kernel], rtol=2**-11, atol=2**-25)
    card = (folder / "README.md").read_text()
    assert "--pretrained bundles/jigsaw/models/transformer" in card
    assert "bundles/jigsaw --name transformer --half --force" in card
    assert check_provenance(bundle / "models").count("made-up bodies") == 2
    (folder / "provenance.json").unlink()
    with pytest.raises(UserError, match="expected the provenance of the weights"):
        check_provenance(bundle / "models")
    with pytest.raises(UserError, match=r"--name: found '\.\./x', expected the name of a folder"):
        ship_weights.main([str(run), str(bundle), *SAYS, "--name", "../x"])


def test_weights_of_a_2d_network_and_a_note(run: Path, bundle: Path) -> None:
    file = run / "checkpoints" / "best.pt"
    content = load_checkpoint(file)
    backbone = build_backbone("unet", 1, (8, 8), 2)
    content["record"]["backbone"] = backbone.record
    save_checkpoint(file, {**content, "network": nn.ModuleDict({"backbone": backbone}).state_dict()})
    ship_weights.main([str(run), str(bundle), *SAYS, "--name", "2d", "--note", "Chance is 1 %."])
    provenance = json.loads((bundle / "models" / "2d" / "provenance.json").read_text())
    assert (provenance["spatial_dims"], provenance["note"]) == (2, "Chance is 1 %.")
    card = (bundle / "models" / "2d" / "README.md").read_text()
    assert "`finetune.yaml --pretrained bundles/jigsaw/models/2d --spatial_dims 2`" in card
    assert "| accuracy | 0.75 |\n\nChance is 1 %.\n\n    train it" in card


@pytest.mark.parametrize("shipped", SHIPPED, ids=lambda path: str(path.relative_to(ROOT / "bundles")))
def test_shipped_weights(shipped: Path) -> None:
    """The ones that their model card describes; they load as plain data and are transferred completely.

    Both forms have the same tensors and record, and the one that cannot contain code is read.
    """
    file, safe = shipped / "model.pt", shipped / "model.safetensors"
    assert max(file.stat().st_size, safe.stat().st_size) < 25e6
    assert check_provenance(shipped)
    card = (shipped / "README.md").read_text()
    assert sha256_of(safe) in card
    torch.load(file, weights_only=True)
    content = load_checkpoint(file)
    assert content["record"]["method"] == shipped.relative_to(ROOT / "bundles").parts[0]
    read = read_pretrained(shipped)
    assert read.file == safe
    assert read.record == content["record"]
    assert read.network.keys() == content["network"].keys()
    assert all(torch.equal(read.network[name], value) for name, value in content["network"].items())
    axes = content["record"]["backbone"]["spatial_dims"]
    backbone = rebuild(content["record"]["backbone"], roi_size=[32] * axes)  # as a fine-tuning has its own
    network = SegmentationNet(backbone, num_classes=2)
    report = transfer_weights(network, shipped)
    assert report.fraction == 1.0
