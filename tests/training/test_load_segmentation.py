"""The whole network of a fine-tuned checkpoint: the same answers as before, or a refusal."""

import pytest
import torch
from pretext3d.errors import UserError
from pretext3d.networks.factory import build_backbone
from pretext3d.networks.segmentation import SegmentationNet
from pretext3d.training.checkpoint_io import save_checkpoint
from pretext3d.training.pretrained import load_segmentation, read_record

ROI = [16, 16, 16]


def write(folder, name="checkpoints/best.pt", **changes):
    """A checkpoint of a network for 2 channels and 3 classes; the network."""
    torch.manual_seed(0)
    network = SegmentationNet(build_backbone("unet", 2, ROI), 3)
    record = {
        "method": "segmentation",
        "backbone": network.backbone.record,
        "channels": 2,
        "num_classes": 3,
        "pixdim": [1.0, 1.0, 3.0],
        "roi_size": ROI,
    }
    save_checkpoint(folder / name, {"record": record | changes, "network": network.state_dict()})
    return network


@pytest.mark.parametrize("in_channels", [0, 2])
@pytest.mark.parametrize("name", ["checkpoints/best.pt", "models/model.pt", "any.pt"])
def test_round_trip(tmp_path, name, in_channels) -> None:
    saved = write(tmp_path, name).eval()
    source = tmp_path / name if name == "any.pt" else tmp_path
    loaded = load_segmentation(str(source), in_channels).eval()
    assert loaded.state_dict().keys() == saved.state_dict().keys()
    image = torch.rand(1, 2, *ROI, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(loaded(image), saved(image))
    record = read_record(source, method="segmentation")
    assert record["pixdim"] == [1.0, 1.0, 3.0]
    assert record["roi_size"] == ROI
    assert record["backbone"] == saved.backbone.record


def test_pretraining_cannot_segment(tmp_path) -> None:
    write(tmp_path, method="vectorpose")
    with pytest.raises(UserError, match=r"best\.pt: a checkpoint of method 'vectorpose' cannot segment"):
        load_segmentation(str(tmp_path))


def test_another_number_of_channels(tmp_path) -> None:
    write(tmp_path)
    with pytest.raises(UserError, match=r"best\.pt: was trained on 2 channel\(s\), the images have 4"):
        load_segmentation(str(tmp_path), 4)


def test_nothing_there(tmp_path) -> None:
    with pytest.raises(UserError, match=r"pretrained: .*no checkpoint in this folder"):
        load_segmentation(str(tmp_path))


def test_a_file_that_is_no_checkpoint(tmp_path) -> None:
    torch.save({"weights": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(UserError, match=r"other\.pt"):
        load_segmentation(str(tmp_path / "other.pt"))
