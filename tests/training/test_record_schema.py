"""Checkpoints from elsewhere: every value has a type and range, and none decides what code runs."""

import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from pretext3d.data.normalisation import check_normalisation
from pretext3d.errors import UserError
from pretext3d.training import checkpoint_io, record_schema
from pretext3d.training.checkpoint_io import load_checkpoint, save_checkpoint
from pretext3d.training.pretrained import load_pretrained, load_segmentation, read_pretrained
from pretext3d.training.record_schema import check_checkpoint, check_finite, known_entries

from tests.training.hostile import (
    CODE,
    WRONG,
    compressed,
    hostile_records,
    overlapping,
    places,
    valid_content,
)


def test_every_entry_is_checked_and_named() -> None:
    valid = valid_content()
    check_checkpoint(valid, "x.pt")
    refused = Counter[str]()
    for name, record in hostile_records():
        with pytest.raises(UserError, match=rf"^x\.pt: record\.{name}: found .*, expected") as caught:
            check_checkpoint({**valid, "record": record}, "x.pt")
        assert "\n" not in str(caught.value)
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 400
        refused[name] += 1
    assert len(refused) == len(places(valid["record"])) >= 25


def test_a_training_without_labels_has_no_classes() -> None:
    content = valid_content()
    content["record"] |= {"num_classes": 0, "class_names": []}
    del content["record"]["labels"]
    check_checkpoint(content, "x.pt")


def test_the_schema_lists_what_a_run_writes() -> None:
    """A record of a fine-tuning has no entry that would be left out."""
    record = valid_content()["record"]
    assert known_entries(record, "x.pt") == record


def test_entries_of_another_version_load_and_reach_no_run(tmp_path: Path) -> None:
    content = valid_content()
    content["record"] |= {"from_the_future": CODE[0], "normalisation": {"window": [0, 1]}}
    content["record"]["data"]["people"] = CODE[1]
    save_checkpoint(tmp_path / "x.pt", content)
    assert load_checkpoint(tmp_path / "x.pt")["record"]["from_the_future"] == CODE[0]
    record = read_pretrained(tmp_path / "x.pt", method="segmentation").record
    assert record == known_entries(content["record"], "x.pt")
    assert not any(text in str(record) for text in CODE[:2])


def test_an_entry_that_is_read_and_not_there_is_named(tmp_path: Path) -> None:
    content = valid_content()
    del content["record"]["pixdim"], content["record"]["split"]["fold"]
    save_checkpoint(tmp_path / "x.pt", content)
    record = read_pretrained(tmp_path / "x.pt", method="segmentation").record
    for read, entry in ((record, "pixdim"), (record["split"], "fold")):
        with pytest.raises(UserError, match=rf"x\.pt: record.*: found no {entry}, expected a record with it"):
            read[entry]
    assert "pixdim" not in record
    assert record.get("pixdim") is None


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"roi_size": [16, 16]}, r"record\.roi_size: found \[16, 16\], expected 3 sizes"),
        ({"num_classes": 4}, r"record\.class_names: found 3, expected 4"),
        ({"class_names": ["background", "a", "a"]}, r"x\.pt: record\.class_names: found 'a' twice, expected"),
        ({"labels": {"values": [0, 1]}}, r"x\.pt: record\.labels: found those of 2 outputs, expected 3, as"),
        ({"roi_size": [2**10] * 3}, r"record\.roi_size: found .*134,217,728 voxels at most"),
    ],
)
def test_values_that_do_not_agree(change: dict[str, object], expected: str) -> None:
    content = valid_content()
    content["record"] |= change
    with pytest.raises(UserError, match=expected):
        check_checkpoint(content, "x.pt")


@pytest.mark.parametrize(
    ("key", "value"),
    [("epoch", "$1"), ("best_metric", "nan"), ("optimizer", [1]), ("rng", 3), ("network", [])],
)
def test_the_rest_of_a_checkpoint_is_checked_too(key: str, value: object) -> None:
    with pytest.raises(UserError, match=rf"x\.pt: {key}: found .*, expected"):
        check_checkpoint({**valid_content(), key: value}, "x.pt")


def test_a_deeply_nested_value_is_one_line() -> None:
    nested: object = "x"
    for _ in range(5_000):
        nested = [nested]
    with pytest.raises(UserError, match=r"record\.pixdim: found \[") as caught:
        check_checkpoint({"record": {"pixdim": nested}, "network": {}}, "x.pt")
    assert len(str(caught.value)) < 300


# ----------------------------------------------------------------------------------------------- code, memory
def test_a_record_imports_no_module(tmp_path: Path) -> None:
    content = valid_content()
    content["record"]["backbone"]["encoder"] = "antigravity.x"
    save_checkpoint(tmp_path / "x.pt", content)
    for load in (load_segmentation, lambda path: load_pretrained(path, "", 1, (16, 16, 24), 3)):
        with pytest.raises(UserError, match=r"encoder: found 'antigravity\.x' in a checkpoint's record"):
            load(tmp_path / "x.pt")
    assert "antigravity" not in sys.modules


def test_a_record_takes_no_more_memory_than_its_weights(tmp_path: Path) -> None:
    """A U-Net of 60,000 channels would have 10^11 values."""
    content = valid_content()
    content["record"]["backbone"]["options"] = {"channels": [60_000, 60_000, 60_000]}
    save_checkpoint(tmp_path / "x.pt", content)
    with pytest.raises(
        UserError, match=r"x\.pt: its record describes a network of \d+,.* of which the file has"
    ):
        load_segmentation(tmp_path / "x.pt")


@pytest.mark.parametrize(
    "options", [{"norm": "no_such_norm"}, {"channels": [0, 0, 0]}, {"channels": ["a"] * 3}]
)
def test_a_record_of_no_network(tmp_path: Path, options: dict[str, object]) -> None:
    content = valid_content()
    content["record"]["backbone"]["options"] = options
    save_checkpoint(tmp_path / "x.pt", content)
    with pytest.raises(UserError, match=r"x\.pt: |expected"):
        load_segmentation(tmp_path / "x.pt")


def test_compressed_members_are_refused_before_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = compressed(tmp_path / "x.pt")
    assert path.stat().st_size < 2**20

    def read(*arguments: object) -> None:
        raise AssertionError("a member was read")

    monkeypatch.setattr(checkpoint_io.zipfile.ZipFile, "testzip", read)
    monkeypatch.setattr(checkpoint_io.torch, "load", read)
    with pytest.raises(
        UserError, match=r"x\.pt: found the compressed member .*, expected stored|expected stored"
    ):
        load_checkpoint(path)


def test_members_larger_than_the_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"found members of [\d,]+ bytes in a file of [\d,]+"):
        load_checkpoint(overlapping(tmp_path / "x.pt"))


@pytest.mark.parametrize(
    ("weight", "expected"),
    [
        (torch.zeros(1).expand(10**6, 10**6), r"found shape \[1000000, 1000000\], 4,0.* the file has 4"),
        (lambda: torch.eye(3).to_sparse(), "found a torch.sparse_coo tensor"),
        (torch.zeros(2, dtype=torch.complex64), r"of torch\.complex64, expected"),
        (torch.zeros(2, device="meta"), "on meta"),
        ([1.0], r"found \[1\.0\], expected a tensor"),
    ],
    ids=["expanded", "sparse", "complex", "meta", "list"],
)
@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
def test_tensors_are_plain_and_in_the_file(tmp_path: Path, weight: object, expected: str) -> None:
    weight = weight() if callable(weight) and not isinstance(weight, torch.Tensor) else weight
    content = {"format": checkpoint_io.FORMAT, "record": {}, "network": {"a.weight": weight}}
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(UserError, match=expected):
        load_checkpoint(tmp_path / "x.pt")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(tmp_path: Path, value: float) -> None:
    content = valid_content()
    content["network"]["backbone.down.0.0.weight"][0, 0, 0, 0, 0] = value
    save_checkpoint(tmp_path / "x.pt", content)
    expected = (
        r"x\.pt: tensor backbone\.down\.0\.0\.weight: found 1 of [\d,]+ values that are NaN or infinite"
    )
    for load in (load_segmentation, lambda path: load_pretrained(path, "", 1, (16, 16, 24), 3)):
        with pytest.raises(UserError, match=expected):
            load(tmp_path / "x.pt")
    check_finite({"counter": torch.tensor(3)}, "x.pt")


def test_wrong_values_are_wrong_for_a_normalisation() -> None:
    for value in (*CODE, *WRONG, {"window": [1, 0]}, {"window": [0, "$1"]}, {"window": [0, 10**400]}):
        with pytest.raises(UserError, match=r"normalisation: found"):
            check_normalisation(value)
    assert check_normalisation({"mean_maximum": (-1, 1)}) == ("mean_maximum", -1.0, 1.0)
    assert record_schema.is_normalisation({"percentiles": [0.5, 99.5]})
