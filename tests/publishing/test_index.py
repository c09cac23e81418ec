"""pretext3d/publishing/index.py: what an index says of a folder, and what is refused."""

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from monai.bundle import scripts
from pretext3d.errors import UserError
from pretext3d.publishing.index import Entry, choose, make_index, read_index

from tests.publishing.archives import write_bundle

GOOD = {"source": "tiny_v0.1.0.zip", "sha256": "a" * 64, "size": 1, "unpacked_size": 1}


def test_index_of_a_folder_has_every_version(tmp_path: Path) -> None:
    path = write_bundle(tmp_path, version="0.10.0")
    write_bundle(tmp_path, version="0.9.0")
    (tmp_path / "notes.zip").write_bytes(b"not a bundle")
    index = make_index(tmp_path)
    assert list(index) == ["tiny_v0.10.0", "tiny_v0.9.0"]
    data = path.read_bytes()
    assert (
        index["tiny_v0.10.0"]["checksum"] == hashlib.sha1(data).hexdigest()
    )  # what the model zoo's entries have
    assert index["tiny_v0.10.0"]["sha256"] == hashlib.sha256(data).hexdigest()
    assert index["tiny_v0.10.0"]["size"] == len(data)
    assert index["tiny_v0.10.0"]["source"] == "tiny_v0.10.0.zip"
    entries = read_index(json.dumps(index).encode(), "here")
    assert choose(entries, "tiny", None, "here").version == "0.10.0"
    assert choose(entries, "tiny", "0.9.0", "here").version == "0.9.0"


def test_base_url_stands_before_the_file_name(tmp_path: Path) -> None:
    write_bundle(tmp_path)
    source = make_index(tmp_path, "https://example.org/bundles/")["tiny_v0.1.0"]["source"]
    assert source == "https://example.org/bundles/tiny_v0.1.0.zip"


def test_monai_reads_the_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bundle(tmp_path, "rubiks_cube")
    write_bundle(tmp_path, "tiny", "0.2.0")
    text = json.dumps(make_index(tmp_path, "https://example.org"))
    reply = SimpleNamespace(text=text, raise_for_status=lambda: None)
    monkeypatch.setattr(scripts, "requests", SimpleNamespace(get=lambda url: reply))
    monkeypatch.setattr(scripts, "has_requests", True)
    assert scripts.get_all_bundles_list() == [("rubiks_cube", "0.1.0"), ("tiny", "0.2.0")]
    info = scripts.get_bundle_info("tiny", "0.2.0", tag="dev")
    assert info["browser_download_url"] == "https://example.org/tiny_v0.2.0.zip"


@pytest.mark.parametrize(
    ("key", "changes", "message"),
    [
        ("tiny", {}, "the key 'tiny'"),
        ("../x_v0.1.0", {}, "the key '../x_v0.1.0'"),
        ("tiny_v0.1.0", {"source": "../tiny_v0.1.0.zip"}, "source: found"),
        ("tiny_v0.1.0", {"source": "file:///tiny.zip"}, "source: found"),
        ("tiny_v0.1.0", {"source": "http:/" + "/[x"}, r"source: found 'http:.*x', expected a URL"),
        (
            "tiny_v0.1.0",
            {"source": "https:/" + "/me:secret@x.org/y"},
            "source: found 'https://\\*\\*\\*@x.org",
        ),
        ("tiny_v0.1.0", {"source": None}, "source: found None"),
        ("tiny_v0.1.0", {"sha256": None}, "sha256: found None"),
        ("tiny_v0.1.0", {"sha256": "a" * 63}, "64 hexadecimal"),
        ("tiny_v0.1.0", {"size": -1}, "size: found -1"),
        ("tiny_v0.1.0", {"unpacked_size": "1"}, "unpacked_size: found '1'"),
    ],
)
def test_entries_that_are_none_are_refused(key: str, changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_index(json.dumps({key: {**GOOD, **changes}}).encode(), "there")
    assert read_index(json.dumps({"tiny_v0.1.0": GOOD}).encode(), "there") == [
        Entry("tiny", "0.1.0", *GOOD.values())
    ]


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 200_000])
def test_no_index_at_all(text: bytes) -> None:
    with pytest.raises(UserError, match="there: "):
        read_index(text, "there")


def test_names_and_versions_that_are_not_there() -> None:
    entries = read_index(json.dumps({"tiny_v0.1.0": GOOD}).encode(), "there")
    with pytest.raises(UserError, match="did you mean tiny"):
        choose(entries, "tinny", None, "there")
    with pytest.raises(UserError, match="expected one of tiny"):
        choose(entries, "jigsaw", None, "there")
    with pytest.raises(UserError, match=r"version: found '0.2.0', expected one of 0.1.0"):
        choose(entries, "tiny", "0.2.0", "there")
