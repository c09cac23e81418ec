"""What of a checkpoint's record enters a promoted bundle: plain data, the same in every file."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from monai.bundle import ConfigParser
from pretext3d.commands.promote import options
from pretext3d.commands.promote.run import recorded_settings
from pretext3d.errors import UserError
from pretext3d.training import checkpoint_io
from pretext3d.training.checkpoint_io import load_checkpoint, save_checkpoint
from pretext3d.training.record_schema import RECORD, Entry, check_record

from tests.finished import LICENCE, finished_run

CODE = ("$__import__('os').system('x')", "@x", "%x")
DATA = ("channels", "modalities", "slices", "frames", "labels")


def promoted(run: Path, there: Path, *more: str) -> Path:
    options.main([str(run), "--name", "x", *LICENCE, "--output_dir", str(there), *more])
    return there / "x"


def entries(table: Mapping[str, Any], *outer: str) -> Iterator[tuple[tuple[str, ...], Entry]]:
    """Every entry of a schema, and its path."""
    for key, entry in table.items():
        if isinstance(entry, Entry):
            yield (*outer, key), entry
        else:
            yield from entries(entry, *outer, key)


def forms(text: str) -> Iterator[Any]:
    """The forms in which an entry could hold a text."""
    yield from (text, [text], [text, "a", "b"], ["background", "a", text], [["a", text]])
    yield from ({text: 1}, {"a": text}, {"a": [text]}, {"axis": text}, {"window": [0, text]})
    yield {"values": [0, 1, 2, 3], "regions": {text: [1, 2, 3], "b": [1, 2], "c": [1]}, "order": [3, 2, 1]}


def accepted() -> list[tuple[tuple[str, ...], Any]]:
    """The entries in which the schema lets code stand, as text; all others refuse it when a file is read."""
    return [
        (path, form)
        for path, entry in entries(RECORD)
        for text in CODE
        for form in forms(text)
        if entry.valid(form)
    ]


def resolved(bundle: Path) -> dict[str, Any]:
    """What MONAI makes of the constants of the bundle's files."""
    found = {}
    for name in ("train.yaml", "inference.yaml", "metadata.json"):
        parser = ConfigParser()
        parser.read_config(bundle / "configs" / name)
        keys = (*DATA, "normalisation", "class_names", "num_classes")
        for key in parser.config if name == "metadata.json" else [k for k in keys if k in parser.config]:
            found[f"{name}: {key}"] = parser.get_parsed_content(key)
    return found


def test_only_names_may_be_any_text() -> None:
    found = {".".join(path) for path, _ in accepted()}
    assert found == {"bundle", "class_names", "data.name", "data.pretrained", "ordered_classes"}


def test_text_of_a_record_is_refused_or_stays_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Background and classes, folders and data sets: none of them reaches a file that MONAI resolves."""
    run, executed = finished_run(tmp_path / "run"), list[str]()
    monkeypatch.setattr(os, "system", executed.append)
    path, given = run / "checkpoints" / "final.pt", ("--labels", "a", "b", "--data", "scans")
    clean, valid = resolved(promoted(run, tmp_path / "clean", *given)), load_checkpoint(path)
    kept = set()
    for number, (place, value) in enumerate(accepted()):
        content = load_checkpoint(path)
        node = content["record"] = {**valid["record"], "data": dict(valid["record"]["data"])}
        for key in place[:-1]:
            node = node[key]
        node[place[-1]] = value
        try:
            check_record(content["record"], "x.pt")
        except UserError:
            continue  # refused at load: another number of names than of classes
        save_checkpoint(path, content)
        if place[-1] == "bundle":
            with pytest.raises(UserError, match="found bundle"):
                promoted(run, tmp_path / str(number), *given)
            continue
        assert resolved(promoted(run, tmp_path / str(number), *given)) == clean
        if place[-1] == "class_names" and value[0] == "background":
            with pytest.raises(
                UserError, match=r"the names in the run's datalist.*; give others by --labels"
            ):
                promoted(run, tmp_path / "own")
        kept.add(place[-1])
    assert kept == {"class_names", "name", "ordered_classes", "pretrained"}
    assert executed == []


@pytest.mark.parametrize(
    ("entry", "where"),
    [
        ({"decoder": "%x"}, "decoder: found '%x'"),
        ({"backbone": {"options": {"_target_": "x"}}}, "backbone: found .*_target_.*"),
        ({"modalities": ["T1w", "@x"]}, "modalities: found '@x'"),
    ],
)
def test_settings_of_a_record_are_plain(entry: dict[str, Any], where: str) -> None:
    """Whatever a schema lets pass: the one way of a record into a configuration."""
    with pytest.raises(UserError, match=rf"^x\.pt: record\.{where}, expected text that MONAI"):
        recorded_settings({"num_classes": 3, **entry}, "x.pt")
    with pytest.raises(UserError, match=r"record: found no pixdim, expected a record with it"):
        recorded_settings({"num_classes": 3}, "x.pt")["pixdim"]


def test_data_keys_are_the_same_in_both_files(tmp_path: Path) -> None:
    """Those of the record, not of the run's config.yaml, in which they can be expressions or missing."""
    data = {
        "modalities": ["T1w"],
        "frames": "mean",
        "channel_indices": [0],
        "normalisation": {"window": [0, 9]},
    }
    bundle = promoted(finished_run(tmp_path / "run", "vectorpose", **data), tmp_path)
    train, infer = (
        yaml.safe_load((bundle / "configs" / f"{name}.yaml").read_text()) for name in ("train", "inference")
    )
    assert {key: train[key] for key in DATA} == {key: infer[key] for key in DATA}
    assert {key: train[key] for key in DATA} == {
        "channels": [0], "modalities": ["T1w"], "slices": None, "frames": "mean",
        "labels": {"values": [0, 1, 2]},
    }  # fmt: skip
    assert train["normalisation"] == infer["record"]["normalisation"] == {"window": [0, 9]}


def test_a_checkpoint_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So the weights that were checked are those that are written."""
    run, read = finished_run(tmp_path / "run"), list[Path]()
    archive = checkpoint_io.read_archive

    def once(path: Path) -> dict[str, Any]:
        read.append(path)
        return archive(path)

    monkeypatch.setattr(checkpoint_io, "read_archive", once)
    promoted(run, tmp_path, "--labels", "a", "b")
    assert read == [run / "checkpoints" / "final.pt"]
