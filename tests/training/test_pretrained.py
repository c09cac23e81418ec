import dataclasses
import logging
from pathlib import Path

import pytest
import torch
from pretext3d.errors import UserError
from pretext3d.networks.factory import build_backbone
from pretext3d.networks.segmentation import SegmentationNet
from pretext3d.training import pretrained
from pretext3d.training.checkpoint_io import load_checkpoint, save_checkpoint
from pretext3d.training.pretrained import (
    Pretrained,
    load_pretrained,
    load_segmentation,
    read_pretrained,
    read_record,
    transfer_weights,
)
from pretext3d.training.transfer import position_embedding, transferred
from torch import nn


class Toy(nn.Module):
    """A backbone of a convolution, a batch norm and, if asked for, the positions of tokens."""

    def __init__(self, channels=1, encoder="toy", grid=None, roi_size=(16, 16, 32)):
        super().__init__()
        self.in_channels = channels
        self.record = {
            "encoder": encoder,
            "in_channels": channels,
            "spatial_dims": 3,
            "roi_size": list(roi_size),
        }
        self.first = nn.Conv3d(channels, 2, 3)  # 54 c weights, 2 biases
        self.norm = nn.BatchNorm3d(2)  # 2 + 2 parameters; 2 + 2 running statistics and a counter
        if grid:
            self.axis_strides = ((16, 16, 16),)
            self.position_keys = ("positions",)
            self.positions = nn.Parameter(torch.randn(1, grid[0] * grid[1] * grid[2], 5))


class Net(nn.Module):
    """A backbone with heads; a toy's values are all random, so that no two networks share one."""

    def __init__(self, backbone, **heads):
        super().__init__()
        self.backbone = backbone
        for name, head in heads.items():
            self.add_module(name, head)
        torch.manual_seed(len(heads) + backbone.in_channels)
        for value in self.state_dict().values():
            if isinstance(backbone, Toy) and value.is_floating_point():
                nn.init.normal_(value)


def content_of(network, method="pretext"):
    record = {"method": method, "channels": network.backbone.in_channels, "backbone": network.backbone.record}
    return Pretrained(Path("source.pt"), record, network.state_dict())


def save(path, network, method="pretext"):
    content = content_of(network, method)
    save_checkpoint(path, {"record": content.record, "network": content.network})
    return path


def test_matched_new_and_unexpected(caplog):
    """Backbone: 4 weights, 3 buffers, 54 + 2 + 2 + 2 + 2 + 2 + 1 values; heads 3 x 2 + 3 and 4 x 2 + 4."""
    caplog.set_level(logging.INFO)
    source = Net(Toy(), vector_head=nn.Linear(2, 3))
    target = Net(Toy(), head=nn.Linear(2, 4), other=nn.Identity())
    head = target.head.weight.clone()
    report = transfer_weights(target, content_of(source))
    counts = {
        s: (len(report.of(s)), sum(r.size for r in report.of(s)))
        for s in ("matched", "adapted", "new", "missing", "unexpected")
    }
    expected = {
        "matched": (7, 65),
        "adapted": (0, 0),
        "new": (2, 12),
        "missing": (0, 0),
        "unexpected": (2, 9),
    }
    assert counts == expected
    assert report.fraction == 1
    for name, value in source.backbone.state_dict().items():  # running statistics, too
        assert torch.equal(value, target.backbone.state_dict()[name]), name
    assert torch.equal(target.head.weight, head)
    assert str(report).splitlines() == [
        "weights    tensors   parameters  in",
        "matched          7           65  backbone.first 2, backbone.norm 5",
        "adapted          0            0",
        "new              2           12  head 2",
        "missing          0            0",
        "unexpected       2            9  vector_head 2",
        "100.0% of the backbone's parameters come from source.pt",
    ]
    assert str(report) in caplog.text


def test_wrapped_network_and_other_dtype():
    source, target = Net(Toy()), Net(Toy()).half()
    transfer_weights(nn.DataParallel(target), content_of(source))
    assert torch.equal(target.backbone.first.weight, source.backbone.first.weight.half())


def test_other_number_of_channels():
    source, target = Net(Toy(4)), Net(Toy(1))
    report = transfer_weights(target, content_of(source))
    assert [(r.name, r.source, r.target) for r in report.of("adapted")] == [
        ("backbone.first.weight", (2, 4, 3, 3, 3), (2, 1, 3, 3, 3))
    ]
    # one channel of T = 1: 4 / 1 * mean = the sum over the four
    torch.testing.assert_close(
        target.backbone.first.weight, source.backbone.first.weight.sum(1, keepdim=True)
    )
    assert "adapted: backbone.first.weight 2x4x3x3x3 -> 2x1x3x3x3" in str(report)
    assert report.fraction == 1


def test_only_input_channels_are_adapted():
    """A convolution whose dim 1 is not the images' channels keeps its initial values."""
    source, target = Net(Toy(1)), Net(Toy(1))
    source.backbone.second, target.backbone.second = nn.Conv3d(3, 1, 1), nn.Conv3d(2, 1, 1)
    before = target.backbone.second.weight.clone()
    report = transfer_weights(target, content_of(source))
    assert [r.name for r in report.of("missing")] == ["backbone.second.weight"]
    assert torch.equal(target.backbone.second.weight, before)
    assert 0.9 < report.fraction < 1
    assert "missing: backbone.second.weight 1x3x1x1x1 -> 1x2x1x1x1" in str(report)


@pytest.mark.parametrize(
    ("grid", "roi_size"),
    [((2, 2, 4), (32, 32, 64)), ((2, 1, 1), (32, 16, 16))],  # the second has as many tokens as the source
)
def test_positions_are_resampled(grid, roi_size):
    source, target = Net(Toy(grid=(1, 1, 2))), Net(Toy(grid=grid, roi_size=roi_size))
    report = transfer_weights(target, content_of(source))
    assert [r.name for r in report.of("adapted")] == ["backbone.positions"]
    expected = position_embedding(source.backbone.positions.detach(), (1, 1, 2), grid)
    torch.testing.assert_close(target.backbone.positions.detach(), expected)


def test_another_architecture_is_refused_and_nothing_changes():
    source, target = Net(Toy(encoder="toy")), Net(Toy(encoder="other"))
    source.backbone.first = nn.Conv3d(1, 3, 3)
    before = {k: v.clone() for k, v in target.state_dict().items()}
    # 2 + 2 of 60 parameters fit: 7 %
    with pytest.raises(
        UserError, match=r"of encoder 'toy', this network's is 'other': only 7% of the backbone's"
    ):
        transfer_weights(target, content_of(source))
    assert all(torch.equal(v, before[k]) for k, v in target.state_dict().items())


def test_nothing_matches():
    content = content_of(Net(Toy()))
    network = {name.removeprefix("backbone."): v for name, v in content.network.items()}
    content = dataclasses.replace(content, network=network)
    with pytest.raises(UserError, match="only 0% of the backbone's"):
        transfer_weights(Net(Toy()), content)


def test_exclude():
    source, target = Net(Toy()), Net(Toy())
    nn.init.zeros_(target.backbone.norm.weight)
    report = transfer_weights(target, content_of(source), exclude=["backbone.norm"])
    assert {r.name.rsplit(".", 1)[0] for r in report.of("new")} == {"backbone.norm"}
    assert report.fraction == 1
    assert target.backbone.norm.weight.sum() == 0


def test_keep_head():
    source, target = Net(Toy(), head=nn.Linear(2, 3)), Net(Toy(), head=nn.Linear(2, 3))
    nn.init.zeros_(target.head.weight)
    transfer_weights(target, content_of(source, "segmentation"))
    assert target.head.weight.sum() == 0
    transfer_weights(target, content_of(source, "segmentation"), keep_head=True)
    assert torch.equal(target.head.weight, source.head.weight)
    with pytest.raises(UserError, match="head cannot be kept: it is of method 'vectorpose'"):
        transfer_weights(target, content_of(source, "vectorpose"), keep_head=True)
    wider = Net(Toy(), head=nn.Linear(2, 4))
    with pytest.raises(UserError, match="2 of its tensors do not fit"):
        transfer_weights(wider, content_of(source, "segmentation"), keep_head=True)


def test_read_pretrained_opens_the_file_once(tmp_path, monkeypatch):
    """One read serves the record, the rebuilt network and the transfer."""
    network = Net(build_backbone("unet", 1, ROI))
    file = save(tmp_path / "checkpoints" / "final.pt", network)
    reads = []
    monkeypatch.setattr(
        pretrained, "load_checkpoint", lambda path: reads.append(path) or load_checkpoint(path)
    )
    found = read_pretrained(tmp_path, "final", method="pretext")
    assert (found.file, found.record) == (file, content_of(network).record)
    again = load_pretrained(found, "", in_channels=1, roi_size=ROI, num_classes=2)
    assert torch.equal(again.backbone.down[0][0].weight, network.backbone.down[0][0].weight)
    assert reads == [file]
    with pytest.raises(
        UserError, match=r"final\.pt: a checkpoint of method 'pretext' found, expected 'other'"
    ):
        read_pretrained(tmp_path, method="other")


def test_read_record(tmp_path):
    network = Net(Toy())
    save(tmp_path / "models" / "model.pt", network)
    assert read_record(tmp_path) == content_of(network).record


ROI = (16, 16, 16)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a pre-training run of the smallest real network, with a head that stays behind."""
    folder = tmp_path_factory.mktemp("run")
    network = Net(build_backbone("unet", 1, ROI), vector_head=nn.Linear(2, 3))
    save(folder / "checkpoints" / "final.pt", network)
    return folder


@pytest.mark.parametrize("encoder", ["", "unet"])
def test_load_pretrained(run, encoder):
    network = load_pretrained(str(run), encoder, in_channels=1, roi_size=ROI, num_classes=3)
    assert isinstance(network, SegmentationNet)
    source = load_checkpoint(run / "checkpoints" / "final.pt")["network"]
    for name, value in network.backbone.state_dict().items():
        assert torch.equal(value, source[f"backbone.{name}"]), name
    assert network.eval()(torch.zeros(1, 1, *ROI)).shape == (1, 3, *ROI)


def test_load_pretrained_with_another_decoder(run, tmp_path):
    """The whole path of a DUC network: built, handed weights, saved, and loaded to segment."""
    network = load_pretrained(str(run), "", 1, ROI, 3, decoder="duc")
    assert network.decoder == "duc"
    record = {"method": "segmentation", "channels": 1, "num_classes": 3, "decoder": "duc"}
    record["backbone"] = network.backbone.record
    save_checkpoint(tmp_path / "x.pt", {"record": record, "network": network.state_dict()})
    again = load_segmentation(str(tmp_path / "x.pt")).eval()
    image = torch.randn(1, 1, *ROI)
    torch.testing.assert_close(again(image), network.eval()(image))


def test_load_pretrained_for_more_channels(run):
    """Four equal channels give what the one channel of the pre-training gave."""
    one = load_pretrained(str(run), "", in_channels=1, roi_size=ROI, num_classes=2).eval()
    four = load_pretrained(str(run), "", in_channels=4, roi_size=ROI, num_classes=2).eval()
    four.head.load_state_dict(one.head.state_dict())
    image = torch.randn(1, 1, *ROI, generator=torch.Generator().manual_seed(0))
    # float32 sums over channels in another order, through some twenty layers
    torch.testing.assert_close(four(image.repeat(1, 4, 1, 1, 1)), one(image), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("there", "here"), [(3, 2), (2, 3)])
def test_weights_of_other_spatial_dims_are_refused(tmp_path, there, here):
    network = Net(build_backbone("unet", 1, (16,) * there, there))
    file = save(tmp_path / "best.pt", network, "segmentation")
    message = rf"best\.pt: its network has spatial_dims {there}, this one has spatial_dims {here}; expected"
    with pytest.raises(UserError, match=message):
        load_pretrained(file, "", 1, (16,) * here, 2, spatial_dims=here)
    with pytest.raises(UserError, match=message):
        load_segmentation(file, spatial_dims=here)
    with pytest.raises(UserError, match=message):
        transfer_weights(SegmentationNet(build_backbone("unet", 1, (16,) * here, here), 2), file)
    same = load_pretrained(file, "", 1, (16,) * there, 2, spatial_dims=there)
    assert same(torch.zeros(2, 1, *(16,) * there)).shape == (2, 2, *(16,) * there)


def test_what_was_transferred_is_known(run):
    """Adapted tensors count, a new head does not; from scratch there are none; else the backbone."""
    network = load_pretrained(run, "", in_channels=2, roi_size=ROI, num_classes=3)
    backbone = {f"backbone.{name}" for name in network.backbone.state_dict()}
    assert transferred(network) == backbone
    part = load_pretrained(run, "", 1, ROI, 3, exclude=["backbone.merge"])
    assert transferred(part) == {name for name in backbone if not name.startswith("backbone.merge")}
    assert transferred(load_pretrained("", "unet", 1, ROI, 3)) == frozenset()
    assert transferred(SegmentationNet(build_backbone("unet", 1, ROI), 3)) == backbone


def test_load_pretrained_from_scratch():
    for encoder, default in [("unet", ""), ("", "unet"), ("unet", "resnet10")]:
        network = load_pretrained("", encoder, 1, ROI, 2, default_encoder=default)
        assert network.backbone.record["encoder"] == "unet"
    with pytest.raises(UserError, match="encoder: found '', expected an encoder's name"):
        load_pretrained("", "", 1, ROI, 2)


@pytest.mark.parametrize(
    ("encoder", "default", "said"), [("", "vit_tiny", True), ("", "unet", False), ("unet", "vit_tiny", False)]
)
def test_the_encoder_of_the_weights_comes_before_the_profiles(run, caplog, encoder, default, said):
    caplog.set_level(logging.INFO)
    network = load_pretrained(run, encoder, 1, ROI, 2, default_encoder=default)
    assert network.backbone.record["encoder"] == "unet"
    lines = [line for line in caplog.messages if line.startswith("encoder: unet, that of ")]
    assert len(lines) == said
    assert all(line.endswith("; the profile's, vit_tiny, is for a training from scratch") for line in lines)


def test_load_pretrained_with_another_encoder(run):
    with pytest.raises(UserError, match=r"found 'resnet10', expected '' or 'unet', the encoder of .*\.pt"):
        load_pretrained(str(run), "resnet10", 1, ROI, 2)


def test_from_scratch_with_the_options_of_weights(tmp_path):
    """Patches follow from roi_size: a comparison with weights that have others needs theirs."""
    size, steps = (16, 16, 16), [[2, 2, 1], [2, 2, 2]]
    file = save(tmp_path / "x.pt", Net(build_backbone("vit_tiny", 1, size, options={"steps": steps})))
    networks = [
        load_pretrained(start, "vit_tiny", 1, size, 2, options={"steps": steps}) for start in ("", file)
    ]
    assert [network.backbone.record["options"] for network in networks] == [{"steps": steps}] * 2
    scratch, tuned = ({k: v.shape for k, v in network.state_dict().items()} for network in networks)
    assert scratch == tuned
    with pytest.raises(
        UserError, match=r"options: found \{'steps': \[\[2, 2, 2\], \[2, 2, 2\]\]\}, expected none or"
    ):
        load_pretrained(file, "", 1, size, 2, options={"steps": [[2, 2, 2], [2, 2, 2]]})


def test_a_record_without_encoder(tmp_path):
    save_checkpoint(tmp_path / "x.pt", {"record": {"method": "a"}, "network": {}})
    with pytest.raises(UserError, match="its record names no encoder"):
        load_pretrained(str(tmp_path / "x.pt"), "", 1, ROI, 2)


def test_weights_of_another_network_than_the_record_says(tmp_path):
    """The record says unet, the weights are of resnet10: refused, with both named."""
    network = Net(build_backbone("resnet10", 1, ROI))
    network.backbone.record = build_backbone("unet", 1, ROI).record
    save(tmp_path / "x.pt", network)
    with pytest.raises(UserError, match="of encoder 'unet', this network's is 'unet': only"):
        load_pretrained(str(tmp_path / "x.pt"), "", 1, ROI, 2)


def test_unetr_for_another_crop():
    source = Net(build_backbone("unetr", 1, (32, 32, 32)))
    target = Net(build_backbone("unetr", 1, (32, 32, 64)))
    report = transfer_weights(target, content_of(source))
    assert report.fraction == 1
    assert [r.target[1] for r in report.of("adapted")] == [2 * 2 * 4]
