"""Weights as safetensors next to model.pt: preferred, and of the same content; hostile headers."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from pretext3d.errors import UserError
from pretext3d.publishing.deployment import load_weights
from pretext3d.publishing.provenance import check_provenance
from pretext3d.publishing.weights import write_weights
from pretext3d.training import safe_weights
from pretext3d.training.checkpoint_files import resolve_pretrained
from pretext3d.training.checkpoint_io import load_checkpoint, save_checkpoint
from pretext3d.training.pretrained import load_segmentation, read_pretrained
from pretext3d.training.safe_weights import check_same_weights, preferred, read_safetensors, write_safetensors
from safetensors.torch import save_file
from torch import nn

from tests.training.hostile import hostile_records, valid_content


def shipped(folder: Path) -> Path:
    """A checkpoint as model.pt, and its safetensors."""
    path = folder / "models" / "model.pt"
    save_checkpoint(path, valid_content())
    content = load_checkpoint(path)
    write_safetensors(path, content["network"], content["record"])
    return path


def test_both_are_the_same_and_the_safe_one_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = shipped(tmp_path)
    check_same_weights(path)
    pickled = load_checkpoint(path)
    monkeypatch.setattr(torch, "load", None)
    read = read_pretrained(tmp_path, method="segmentation")
    assert read.file.name == "model.safetensors"
    assert read.record == pickled["record"]
    assert all(torch.equal(read.network[name], value) for name, value in pickled["network"].items())
    assert load_segmentation(tmp_path).state_dict().keys() == pickled["network"].keys()
    path.unlink()
    assert resolve_pretrained(tmp_path).name == "model.safetensors"
    assert read_pretrained(tmp_path).record == pickled["record"]


def test_the_same_weights_give_the_same_bytes(tmp_path: Path) -> None:
    path = shipped(tmp_path)
    first = path.with_suffix(".safetensors").read_bytes()
    content = load_checkpoint(path)
    write_safetensors(path, content["network"], content["record"])
    assert path.with_suffix(".safetensors").read_bytes() == first


def test_without_safetensors_model_pt_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = shipped(tmp_path)
    monkeypatch.setattr(safe_weights, "is_installed", lambda: False)
    assert read_pretrained(tmp_path).file == path
    digest = write_weights(path, {"weight": torch.ones(1)})
    assert len(digest) == 64
    assert not path.with_suffix(".safetensors").exists()  # that of the earlier weights
    path.with_suffix(".safetensors").touch()
    with pytest.raises(UserError, match="needs the package safetensors"):
        read_safetensors(path.with_suffix(".safetensors"))


def test_files_of_different_weights_are_one_error(tmp_path: Path) -> None:
    path = shipped(tmp_path)
    content = load_checkpoint(path)
    content["network"]["head.bias"][0] += 1
    save_checkpoint(path, content)  # the safetensors are those of before
    expected = r"model\.safetensors: was written with another model\.pt: found SHA-256 \w{64} of that, exp"
    for read in (read_pretrained, check_same_weights, lambda p: load_weights(nn.Linear(1, 1), p)):
        with pytest.raises(UserError, match=expected):
            read(path)
    header = {"record": {}, "sha256": safe_weights.sha256_of(path)}  # one that states what it should not
    save_file(
        {"head.bias": torch.ones(3)}, path.with_suffix(".safetensors"), {"pretext3d": json.dumps(header)}
    )
    with pytest.raises(UserError, match=r"tensor backbone\.\S+ differs from that of model\.pt"):
        check_provenance(path.parent)
    path.unlink()
    with pytest.raises(UserError, match=r"found no model\.pt next to it, which MONAI reads; expected both"):
        check_provenance(path.parent)


def test_a_state_dict_is_loaded_from_the_safe_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a promoted bundle: no record; a wrong tensor is named in both forms."""
    path, network = tmp_path / "model.pt", nn.Linear(2, 1)
    write_weights(path, network.state_dict())
    other = nn.Linear(2, 1)
    monkeypatch.setattr(torch, "load", None)
    load_weights(other, path)
    assert torch.equal(other.weight, network.weight)
    with torch.no_grad():
        network.bias[0] = float("nan")
    monkeypatch.undo()
    write_weights(path, network.state_dict())
    with pytest.raises(UserError, match="tensor bias: found 1 of 1 values that are NaN"):
        load_weights(other, path)


def test_hostile_headers_are_checked_like_any_record(tmp_path: Path) -> None:
    network = valid_content()["network"]
    path = tmp_path / "model.safetensors"
    for number, (name, record) in enumerate(hostile_records(seed=1, per_place=1)):
        try:
            header = json.dumps({"record": record})
        except TypeError:  # bytes and tensors, which JSON does not have
            continue
        if number % 5 == 0:
            save_file(dict(network), path, {"pretext3d": header})
            with pytest.raises(UserError, match=rf"model\.safetensors: record\.{name}: found"):
                read_pretrained(path)


@pytest.mark.parametrize("content", [b"", b"\xff" * 64, b"\x08\0\0\0\0\0\0\0{}      ", b"PK\x03\x04"])
def test_foreign_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"model\.safetensors: .*expected weights that Pretext3D has written"):
        read_pretrained(path)


def test_nothing_is_preferred_where_there_is_one_file(tmp_path: Path) -> None:
    path = shipped(tmp_path)
    alone = Path(shutil.copy(path, tmp_path / "final.pt"))
    assert preferred(alone) == alone
    assert preferred(path).suffix == ".safetensors"
    assert preferred(preferred(path)) == preferred(path)
