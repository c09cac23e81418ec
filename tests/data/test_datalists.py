"""Whatever a dataset.json or a CSV file holds: the cases, or one message that names file and key."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pretext3d.data.cases import find_cases
from pretext3d.data.classes import classified_cases
from pretext3d.data.datalists import declared_labels
from pretext3d.data.declared import read_labels
from pretext3d.data.splits import split_cases
from pretext3d.data.tables import read_column
from pretext3d.errors import UserError

ENTRY = {
    "image": ["a_0.nii.gz", "a_1.nii.gz"], "label": "l.nii.gz", "fold": 0, "subject": "p", "class": "sick",
    "landmark": [1, 2.5, 3], "landmark_mask": "m.nii.gz", "slice": 3, "slice_axis": 2, "age": 40,
}  # fmt: skip
CONTENT: dict[str, Any] = {
    "labels": {"background": 0, "whole": [1, 2], "core": 2}, "regions_class_order": [1, 2],
    "channel_names": {"0": "T1"}, "file_ending": ".nii.gz",
    "training": [ENTRY, {"image": "b.nii.gz", "class": "well"}, "c.nii.gz"], "validation": [ENTRY],
}  # fmt: skip
FIELDS = ("image", "label", "landmark", "landmark_mask", "fold", "subject", "class", "slice", "slice_axis")
PLACES = [
    *([key] for key in CONTENT), *(["labels", key] for key in ("background", "whole", "core", "²", "1")),
    *(["training", 0, key] for key in (*FIELDS, "id", "name", "path", "source", "split", "missing")),
    ["training", 0, "image", 1], ["training", 0, "landmark", 0], ["training", 2], ["labels", "whole", 0],
]  # fmt: skip
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**40), 10**40), st.floats(), st.text(max_size=5),
    st.sampled_from(["", "1", "²", "99999999", "\0", "\ud800", "x" * 5000, "a\nb", "../..", "~", "None"]),
)  # fmt: skip
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=5,
)


@settings(max_examples=150)
@given(st.sampled_from(PLACES), values)
def test_any_value_at_any_place(
    tmp_path_factory: pytest.TempPathFactory, place: list[Any], value: Any
) -> None:
    folder = tmp_path_factory.mktemp("any")
    content = copy.deepcopy(CONTENT)
    node: Any = content
    for key in place[:-1]:
        node = node[key]
    node[place[-1]] = value
    (folder / "dataset.json").write_text(json.dumps(content))
    message, cases = "", []
    try:
        cases = find_cases(str(folder))
        declared_labels(str(folder))
        split_cases(cases, 0.3, 0, None, 0.0)
        classified_cases(cases)
    except UserError as error:
        message = str(error)
    assert len(message) < 1000
    assert all(case["source"] == str(folder) and isinstance(case["name"], str) for case in cases)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[" * 100_000, r"dataset.json: cannot be read as JSON: lists or objects are nested too deeply"),
        ('{"training": ["bösartig"]}'.encode("latin-1"), r"dataset.json: .*byte 0xf6.*; expected UTF-8 text"),
        (b'{"training": [{"image": "a\\u0000"}]}', r"training\[0\]: 'image' is 'a\\x00', expected a path"),
        (b'{"training": [{"image": "a", "subject": true}]}', r"training\[0\]: 'subject' is True, exp"),
        (b'{"training": [{"image": "a", "landmark": [1, 2, NaN]}]}', r"'landmark' is \[1, 2, nan\], exp"),
        (b'{"training": [{"image": "a", "slice_axis": 3}]}', r"'slice_axis' is 3, expected 0, 1 or 2"),
    ],
)  # fmt: skip
def test_broken_content(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "dataset.json").write_bytes(content)
    with pytest.raises(UserError, match=message):
        find_cases(str(tmp_path))


def test_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_bytes(b'\xef\xbb\xbf{"training": ["a.nii.gz"]}')
    assert [case["name"] for case in find_cases(str(tmp_path))] == ["a"]


def test_fields_that_cases_get_here_are_not_taken_from_a_datalist(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    entry = {"image": "a.nii.gz", "id": "x", "path": 5, "missing": ["T1w"], "split": "validation"}
    others = [
        "volume",
        "slice_every",
        "constant",
        "fault",
        "source_name",
        "oriented",
        "unusable",
        "draw",
        "visit_seed",
    ]
    entry |= dict.fromkeys(others, 1)
    caplog.set_level("DEBUG")
    (tmp_path / "dataset.json").write_text(json.dumps({"training": [entry]}))
    (case,) = find_cases(str(tmp_path))
    assert (case["id"], case["name"]) == ("a", "a")
    assert "missing" not in case
    assert "split" not in case
    assert not case.keys() & set(others)
    assert caplog.text.count("not read, since cases are given them here: ['constant', 'draw',") == 1


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"²": "liver"}, "labels: '²' is 'liver', expected {value: name} as in MSD"),
        ({"99999999": "liver"}, "labels: '99999999' is 'liver', expected {value: name}"),
        ({"liver": 65536}, "labels: 'liver' is 65536, expected {value: name}"),
        ({"liver": -1}, "labels: 'liver' is -1"),
        ({"liver": True}, "labels: 'liver' is True"),
        ({"liver": []}, "labels: 'liver' is []"),
        ({"0": "background", "1": ["a"]}, "labels: '0' is 'background'"),
        (["background", "liver"], "labels is a list, expected {value: name}"),
        ({"1": "liver", "2": "liver"}, "labels: found 'liver' twice, expected different names"),
        ({"1": "liver", "01": "spleen"}, "labels: found the value 1 twice"),
        ({"a": 1, "b": 1}, "labels: found the value 1 twice"),
        ({"1": "a\nb"}, r"labels: found the name 'a\nb', expected printable text"),
        ({str(v): f"c{v}" for v in range(1, 257)}, "labels: found 257 values, background included, exp"),
    ],
)  # fmt: skip
def test_bad_label_declarations(labels: Any, message: str) -> None:
    with pytest.raises(UserError, match=f"^dataset.json: {re.escape(message)}"):
        read_labels(labels, None, "dataset.json")


def test_label_declarations() -> None:
    assert read_labels({"0": "background", "4": "ET", "2": ""}, None, "").names == {
        0: "background", 2: "label 2", 4: "ET"
    }  # fmt: skip
    assert read_labels({"white": 255}, None, "").names == {0: "background", 255: "white"}
    with pytest.raises(UserError, match="d: regions_class_order is '1', expected a list of label values"):
        read_labels({"whole": [1, 2]}, "1", "d")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,subject\nbösartig,1\n".encode("latin-1"), "cannot be read as CSV"),
        (b"id,subject\n" + b"a" * 200_000 + b",1\n", "field larger than field limit"),
        (b"id,subject\na," + b"1" * 5000 + b"\n", "line 2: found a field of 5000 characters, expected at"),
        (b"id,subject\na\n", "line 2: found case 'a' and subject '', expected both"),
        (b"", r"found the columns \[\], expected 'subject'"),
        (b'id,subject\n"a,1\n', "line 2: found case"),
    ],
)  # fmt: skip
def test_broken_tables(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(UserError, match=rf"t\.csv:? .*{message}"):
        read_column("subjects", str(tmp_path / "t.csv"), "subject")


def test_table_with_a_byte_order_mark_and_wrong_paths(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"\xef\xbb\xbfid,subject\na,1\n")
    assert read_column("subjects", str(tmp_path / "t.csv"), "subject") == {"a": "1"}
    with pytest.raises(UserError, match="File name too long"):
        read_column("subjects", "x" * 5000, "subject")


@settings(max_examples=60)
@given(
    st.binary(max_size=60)
    | st.text(max_size=60).map(lambda text: f"id,subject\n{text}".encode("utf-8", "replace"))
)
def test_any_table(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    file = tmp_path_factory.mktemp("table") / "t.csv"
    file.write_bytes(content)
    message = "t.csv"
    try:
        assert all(read_column("subjects", str(file), "subject").values())
    except UserError as error:
        message = str(error)
    assert "t.csv" in message
