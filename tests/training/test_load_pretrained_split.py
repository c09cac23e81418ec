"""What a checkpoint may have seen of the cases that judge it: a test case is refused, validation is named."""

import logging
from pathlib import Path

import pytest
from pretext3d.data.fingerprints import fingerprints
from pretext3d.errors import UserError
from pretext3d.networks.factory import build_backbone
from pretext3d.training import pretrained as module
from pretext3d.training.pretrained import Pretrained, load_pretrained
from torch import nn

ROI = (16, 16, 16)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = build_backbone("unet", 1, ROI)


@pytest.fixture
def cases(tmp_path: Path) -> list[dict]:
    for name in "abc":
        (tmp_path / name).write_bytes(name.encode() * 9)
    return [{"id": name, "image": str(tmp_path / name)} for name in "abc"]


def pretrained(seen: list[dict], **split: float) -> Pretrained:
    """Weights whose training has seen some cases."""
    network = Net()
    record = {"method": "vectorpose", "backbone": network.backbone.record, "channels": 1}
    record |= {"data": {"name": "scans", "train": fingerprints(seen)}, **({"split": split} if split else {})}
    return Pretrained(Path("model.pt"), record, network.state_dict())


def load(weights: Pretrained, **keys: list[dict]) -> nn.Module:
    return load_pretrained(weights, "", in_channels=1, roi_size=ROI, num_classes=2, **keys)


def test_a_test_case_that_was_trained_on_is_refused(cases, monkeypatch) -> None:
    monkeypatch.setattr(module, "split_settings", lambda: {"test_fraction": 0.2, "split_seed": 0})
    with pytest.raises(
        UserError,
        match=r"1 of 2 test cases were trained on \(a\), with test_fraction 0.0 there, 0.2 here: give",
    ):
        load(pretrained(cases[:1]), tested=cases[:2])
    load(pretrained(cases[:1]), tested=cases[1:])


def test_a_validation_case_that_was_trained_on_is_a_warning(cases, monkeypatch, caplog) -> None:
    here = {"val_fraction": 0.3, "test_fraction": 0.0, "fold": None, "split_seed": 0}
    monkeypatch.setattr(module, "split_settings", lambda: here)
    caplog.set_level(logging.WARNING)
    load(pretrained(cases[:2], split_seed=7), held_out=cases[1:], tested=[])
    assert (
        "1 of 2 validation cases were trained on (b), with val_fraction 0.2 there, 0.3 here, split_seed 7 "
        "there, 0 here: give the same" in caplog.text
    )
    caplog.clear()
    load(pretrained(cases[:1], val_fraction=0.3), held_out=cases[1:])  # another split, but none was seen
    assert not caplog.records
