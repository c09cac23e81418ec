"""What of a checkpoint reaches a labelled task: the encoder alone, or with the decoder, from any task."""

from pathlib import Path

import pytest
import torch
from pretext3d.errors import UserError
from pretext3d.networks.factory import build_backbone
from pretext3d.networks.segmentation import SegmentationNet
from pretext3d.training.checkpoint_io import load_checkpoint, save_checkpoint
from pretext3d.training.freezing import FreezeEncoder
from pretext3d.training.pretrained import Pretrained, load_pretrained, transfer_weights
from pretext3d.training.transfer import transferred

ROI = (16, 16, 16)
NAMES = ["background", "grey", "white"]


@pytest.fixture
def supervised(tmp_path: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    """A checkpoint of a segmentation of three classes, a supervised pre-training; its weights."""
    torch.manual_seed(0)
    network = SegmentationNet(build_backbone("unet", 1, ROI), 3)
    record = {"method": "segmentation", "channels": 1, "num_classes": 3, "class_names": NAMES}
    record["backbone"] = network.backbone.record
    save_checkpoint(tmp_path / "final.pt", {"record": record, "network": network.state_dict()})
    return tmp_path / "final.pt", network.state_dict()


@pytest.mark.parametrize("transfer", ["all", "encoder"])
def test_the_decoder_is_transferred_or_starts_at_random(supervised, transfer) -> None:
    """Another segmentation, of five classes: its output layer is new in both cases."""
    path, source = supervised
    torch.manual_seed(1)
    network = load_pretrained(str(path), "", 1, ROI, num_classes=5, transfer=transfer)
    weights = {name: value for name, value in network.state_dict().items() if value.ndim > 1}
    learned = {name for name in weights if torch.equal(weights[name], source.get(name, weights[name][:0]))}
    convolutions = {name for name, value in source.items() if value.ndim > 1 and name.startswith("backbone.")}
    encoder = {name for name in convolutions if name.startswith("backbone.down.")}
    assert 0 < len(encoder) < len(convolutions)
    assert learned == (convolutions if transfer == "all" else encoder)
    assert network.head.weight.shape[0] == 5
    decoder = ("backbone.up.", "backbone.merge.")
    assert any(name.startswith(decoder) for name in transferred(network)) == (transfer == "all")
    assert FreezeEncoder(network, epochs=1).names == {n for n in source if n.startswith("backbone.down.")}


@pytest.mark.parametrize("transfer", ["all", "encoder"])
def test_rescaled_weights_are_the_same_function(supervised, transfer) -> None:
    """Of kernels that have tripled: what was transferred before a norm is as large as at initialisation."""
    path, source = supervised
    grown = {name: 3 * value if value.ndim > 2 else value for name, value in source.items()}
    read = Pretrained(path, load_checkpoint(path)["record"], grown)
    networks = []
    for rescale in (False, True):
        torch.manual_seed(1)
        arguments = {"num_classes": 5, "transfer": transfer, "rescale": rescale}
        networks.append(load_pretrained(read, "", 1, ROI, **arguments).eval())
    plain, rescaled = networks
    x = torch.randn(1, 1, *ROI)
    torch.testing.assert_close(rescaled(x), plain(x), rtol=1e-3, atol=1e-3)
    ratios = {
        name: float((value.norm() / plain.get_parameter(name).norm()).detach())
        for name, value in rescaled.named_parameters()
        if value.ndim > 2
    }
    changed = {name for name, ratio in ratios.items() if abs(ratio - 1) > 0.1}
    assert {name.split(".")[1] for name in changed} >= {"down", *["merge"] * (transfer == "all")}
    assert all(name.startswith("backbone.down.") for name in changed) == (transfer == "encoder")
    assert all(ratios[name] == pytest.approx(1 / 3, rel=0.2) for name in changed)


def test_a_supervised_pre_training_serves_a_classification(supervised) -> None:
    path, source = supervised
    network = load_pretrained(str(path), "", 1, ROI, num_classes=2, task="classification")
    for name, value in network.backbone.state_dict().items():
        assert torch.equal(value, source[f"backbone.{name}"]), name
    assert network.eval()(torch.zeros(1, 1, *ROI)).shape == (1, 2)


def test_mistakes(supervised) -> None:
    path, _ = supervised
    with pytest.raises(UserError, match="transfer: found 'decoder', expected 'all' or 'encoder'"):
        load_pretrained(str(path), "", 1, ROI, 3, transfer="decoder")
    with pytest.raises(UserError, match="keep_head: found with transfer 'encoder', whose decoder is new"):
        load_pretrained(str(path), "", 1, ROI, 3, transfer="encoder", keep_head=True)
    # of DUC nothing lies between the encoder and the output layer, which is another one here
    with pytest.raises(UserError, match="its head cannot be kept"):
        load_pretrained(str(path), "", 1, ROI, 3, decoder="duc", transfer="encoder", keep_head=True)


def test_what_pre_training_left_untrained_stays_behind():
    source, network = (SegmentationNet(build_backbone("unet", 1, (8, 8, 8)), 2) for _ in range(2))
    source.backbone.train_encoder_only()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    record = {"method": "pretext", "channels": 1, "backbone": source.backbone.record}
    content = Pretrained(Path("source.pt"), record, source.state_dict())
    report = transfer_weights(network, content)
    assert {row.name.split(".")[1] for row in report.of("matched")} == {"down"}
    assert {row.name.split(".")[1] for row in report.of("new")} == {
        "up",
        "merge",
        "weight",
        "bias",
    }  # and head
    assert (report.of("missing"), report.fraction) == ([], 1.0)  # of what is wanted
    end = str(report).splitlines()[-1]
    assert end.startswith("100.0% of the backbone's parameters come from source.pt, not counting backbone.")
    assert "backbone.up" in end
    assert "backbone.merge" in end
    assert end.endswith(", which start at random")
    after = network.state_dict()
    assert all(
        torch.equal(after[n], before[n]) for n in after if n.startswith(("backbone.up", "backbone.merge"))
    )
    assert torch.equal(after["backbone.down.0.0.weight"], source.backbone.down[0][0].weight)
