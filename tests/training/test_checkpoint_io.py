import os
import random
from collections import Counter, OrderedDict
from enum import Enum
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data import MetaTensor
from pretext3d.errors import UserError
from pretext3d.training import checkpoint_io
from pretext3d.training.checkpoint_io import (
    check_same_run,
    load_checkpoint,
    plain,
    rng_state,
    save_checkpoint,
    set_rng_state,
    unwrap,
)

NETWORK = {"weight": torch.arange(1000.0)}


class Colour(str, Enum):
    RED = "red"


def saved(folder: Path) -> Path:
    path = folder / "x.pt"
    save_checkpoint(path, {"record": {"method": "a"}, "network": NETWORK})
    return path


def test_plain_converts_what_weights_only_refuses(tmp_path):
    content = {
        "numpy": np.float64(1.5),
        "array": np.arange(3, dtype=np.int16),
        "words": np.array(["a", "b"]),
        "enum": Colour.RED,
        "path": Path("a") / "b",
        "version": torch.__version__,  # a subclass of str
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "meta": MetaTensor(torch.ones(2)),
        "ordered": OrderedDict(a=(1, 2)),
        "milestones": Counter({3: 1}),
        "device": torch.device("cpu"),
    }
    path = tmp_path / "x.pt"
    save_checkpoint(path, {"record": content, "network": {}})
    record = load_checkpoint(path)["record"]
    assert record["numpy"] == 1.5
    assert type(record["numpy"]) is float
    torch.testing.assert_close(record["array"], torch.tensor([0, 1, 2], dtype=torch.int16))
    assert record["words"] == ["a", "b"]
    assert (record["enum"], record["path"], record["device"]) == ("red", str(Path("a/b")), "cpu")
    assert record["version"] == str(torch.__version__)
    assert type(record["version"]) is str
    assert type(record["parameter"]) is type(record["meta"]) is torch.Tensor
    assert type(record["ordered"]) is dict
    assert record["ordered"] == {"a": (1, 2)}
    assert isinstance(record["milestones"], Counter)


def test_plain_names_the_place_of_a_foreign_object():
    with pytest.raises(UserError, match=r"record\.data\[1\]: found function"):
        plain({"data": [1, lambda: 0]}, "record")


plain_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**40), 2**40)
    | st.floats(allow_nan=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(plain_values)
def test_saved_is_loaded(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("law") / "x.pt"
    save_checkpoint(path, {"record": {"value": value}, "network": {}})
    assert load_checkpoint(path)["record"] == {"value": value}


def test_saving_makes_the_folder_and_leaves_one_file(tmp_path):
    path = tmp_path / "a" / "b" / "x.pt"
    save_checkpoint(path, {"record": {}, "network": {}})
    assert [p.name for p in path.parent.iterdir()] == ["x.pt"]


@pytest.mark.parametrize("step", ["torch.save", "os.fsync"])
def test_a_failed_write_keeps_the_old_file_and_no_draft(tmp_path, monkeypatch, step):
    path = saved(tmp_path)
    before = path.read_bytes()

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*((torch, "save") if step == "torch.save" else (os, "fsync")), full)
    with pytest.raises(UserError, match=r"x\.pt: the checkpoint cannot be written: .*No space left"):
        save_checkpoint(path, {"record": {"method": "new"}, "network": {}})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["x.pt"]


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(UserError, match=r"none\.pt: there is no such file; expected a checkpoint"):
        load_checkpoint(tmp_path / "none.pt")
    with pytest.raises(UserError, match="there is a folder of this name"):
        load_checkpoint(tmp_path)


@given(st.floats(0, 0.999))
def test_every_truncated_file_is_a_user_error(tmp_path_factory, part):
    path = saved(tmp_path_factory.mktemp("cut"))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(UserError, match=r"x\.pt: found (a truncated checkpoint|another kind of file) \("):
        load_checkpoint(path)


def test_a_changed_byte_is_found(tmp_path):
    path = saved(tmp_path)
    data = bytearray(path.read_bytes())
    place = bytes(data).find(torch.tensor([500.0, 501.0]).numpy().tobytes())
    data[place] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(UserError, match="found a damaged file"):
        load_checkpoint(path)


def test_foreign_files(tmp_path):
    text = tmp_path / "notes.pt"
    text.write_text("hello, this is no checkpoint")
    with pytest.raises(UserError, match=r"another kind of file \(28 bytes, beginning with b'hell'\)"):
        load_checkpoint(text)
    weights = tmp_path / "weights.pt"
    torch.save({"conv.weight": torch.ones(1), "conv.bias": torch.ones(1)}, weights)
    with pytest.raises(UserError, match=r"a dict with keys conv\.weight, conv\.bias and no key 'format'"):
        load_checkpoint(weights)
    module = tmp_path / "module.pt"
    torch.save(torch.nn.Linear(1, 1), module)
    with pytest.raises(UserError, match="found a pickle of Python objects besides tensors") as caught:
        load_checkpoint(module)
    assert "\n" not in str(caught.value)
    other = tmp_path / "other.pt"
    torch.save({"format": "pretext3d-9", "record": {}, "network": {}}, other)
    with pytest.raises(UserError, match=r"found format .pretext3d-9. .* format .pretext3d-2."):
        load_checkpoint(other)


def draws() -> list[float]:
    return [random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), torch.rand(1).item()]


def test_generators_go_on_where_they_were(tmp_path):
    random.gauss(0, 1)  # leaves a second normal number behind, in Python's and ...
    np.random.randn()  # ... in NumPy's generator
    save_checkpoint(tmp_path / "x.pt", {"record": {}, "network": {}, "rng": rng_state()})
    expected = draws()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    assert draws() != expected
    set_rng_state(load_checkpoint(tmp_path / "x.pt")["rng"])
    assert draws() == expected


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_generators_go_on_where_they_were():
    torch.rand(1, device="cuda")
    kept = rng_state()
    expected = torch.rand(3, device="cuda")
    torch.rand(3, device="cuda")
    set_rng_state(kept)
    assert torch.equal(torch.rand(3, device="cuda"), expected)


def test_unwrap():
    network = torch.nn.Linear(1, 1)
    assert unwrap(network) is network
    assert unwrap(torch.nn.DataParallel(network)) is network
    assert unwrap(torch.nn.DataParallel(torch.compile(network, backend="eager"))) is network


def test_check_same_run_lists_each_difference():
    backbone = {"encoder": "unet", "roi_size": (32, 32, 32)}
    record = {"method": "a", "channels": 1, "backbone": backbone, "data": {"cases": 3}}
    same = {**record, "backbone": {**backbone, "roi_size": [32, 32, 32]}, "data": {"cases": 4}}
    check_same_run(Path("x.pt"), record, same)
    other = {**record, "channels": 4, "backbone": {**backbone, "encoder": "resnet10"}}
    expected = "channels is 1 there, 4 here; backbone encoder is 'unet' there, 'resnet10' here"
    with pytest.raises(UserError, match=expected):
        check_same_run(Path("x.pt"), record, other)
    with pytest.raises(UserError, match="arm is 'roi-grid' there, 'noroi-grid' here"):
        check_same_run(Path("x.pt"), {**record, "arm": "roi-grid"}, {**record, "arm": "noroi-grid"})


def test_check_same_run_compares_what_the_outputs_mean():
    """Outputs of equal shapes; a record without a label map has the values 0, 1, 2, ..."""
    record = {"method": "segmentation", "num_classes": 3, "class_names": ["background", "a", "b"]}
    same = {**record, "decoder": "", "labels": {"values": [0, 1, 2]}}
    check_same_run(Path("x.pt"), record, same)
    check_same_run(Path("x.pt"), same, record)
    for key, value in {
        "class_names": ["background", "b", "a"],
        "labels": {"values": [0, 1, 4]},
        "decoder": "duc",
        "num_classes": 4,
    }.items():
        with pytest.raises(UserError, match=f"cannot be resumed: {key} is "):
            check_same_run(Path("x.pt"), record, {**record, key: value})


def test_format_is_written(tmp_path):
    assert load_checkpoint(saved(tmp_path))["format"] == checkpoint_io.FORMAT == "pretext3d-2"
