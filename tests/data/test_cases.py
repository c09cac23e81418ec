"""Tests of finding cases: each kind of folder, and each way to get it wrong."""

import json
import logging
import os
from pathlib import Path

import pytest
from pretext3d.data.cases import find_cases
from pretext3d.data.checks import check_cases
from pretext3d.data.datalists import declared_labels
from pretext3d.errors import UserError


def by_id(cases):
    return {c["id"]: c for c in cases}


def write_json(path: Path, content) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def test_msd_folder(tmp_path, volume, label, caplog):
    caplog.set_level(logging.INFO)
    volume("imagesTr/a.nii.gz"), volume("imagesTr/b.nii.gz"), volume("imagesTr/not_listed.nii.gz")
    volume("imagesTs/c.nii.gz")
    label("labelsTr/a.nii.gz")
    entry = {
        "fold": 1,
        "landmark": [1.5, -2, 3],
        "landmark_mask": "./labelsTr/a.nii.gz",
        "age": 61,
        "scores": [1, 2],
    }
    write_json(
        tmp_path / "dataset.json",
        {
            "labels": {"0": "background", "1": "liver"},
            "training": [{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz", **entry}],
            "validation": [
                {"image": "./imagesTr/b.nii.gz", "label": "./labelsTr/b.nii.gz"},
                {"image": "./imagesTr/not_listed.nii.gz"},
            ],
        },
    )
    cases = by_id(find_cases(str(tmp_path)))
    assert list(cases) == ["a", "b"]
    assert "2 volumes of the folder are not listed" in caplog.text
    assert cases["a"]["image"] == str(tmp_path / "imagesTr/a.nii.gz")
    assert cases["a"]["landmark_mask"] == cases["a"]["label"] == str(tmp_path / "labelsTr/a.nii.gz")
    assert (cases["a"]["fold"], cases["a"]["landmark"], cases["a"]["age"]) == (1, [1.5, -2, 3], 61)
    assert "split" not in cases["a"]
    assert cases["b"]["split"] == "validation"
    assert declared_labels(str(tmp_path)).names == {0: "background", 1: "liver"}


def test_datalist_none_takes_every_volume_and_finds_labels(tmp_path, volume, label):
    volume("imagesTr/a.nii.gz"), volume("imagesTr/b.nii")
    label("labelsTr/b.nii.gz")
    write_json(tmp_path / "dataset.json", {"training": [{"image": "imagesTr/a.nii.gz"}]})
    assert list(by_id(find_cases(str(tmp_path)))) == ["a"]
    cases = by_id(find_cases(str(tmp_path), "none"))
    assert list(cases) == ["a", "b"]
    assert cases["b"]["label"].endswith("labelsTr/b.nii.gz")
    assert "label" not in cases["a"]
    assert list(by_id(find_cases(str(tmp_path / "imagesTr")))) == ["a", "b"]


def test_datalist_elsewhere_is_relative_to_itself_or_to_dataset_dir(tmp_path, volume):
    volume("data/imagesTr/a.nii.gz")
    near = write_json(tmp_path / "data/small.json", {"training": ["imagesTr/a.nii.gz"]})
    far = write_json(tmp_path / "lists/far.json", {"training": ["imagesTr/a.nii.gz"]})
    for datalist in (str(near), "small.json", str(far)):
        (case,) = find_cases(str(tmp_path / "data"), datalist)
        assert case["image"] == str(tmp_path / "data/imagesTr/a.nii.gz")


def test_nnunet_raw_folder(tmp_path, volume, label):
    for name in ("x_0000", "x_0001", "y_0000", "y_0001"):
        volume(f"imagesTr/{name}.nii.gz")
    volume("imagesTs/z_0000.nii.gz")
    label("labelsTr/x.nii.gz")
    listing = {
        "channel_names": {"0": "T1", "1": "T2"},
        "labels": {"background": 0, "tumour": 1},
        "file_ending": ".nii.gz",
    }
    write_json(tmp_path / "dataset.json", listing)
    cases = by_id(find_cases(str(tmp_path)))
    assert list(cases) == ["x", "y"]
    assert [Path(p).name for p in cases["x"]["image"]] == ["x_0000.nii.gz", "x_0001.nii.gz"]
    assert cases["x"]["label"] == str(tmp_path / "labelsTr/x.nii.gz")
    assert [c["id"] for c in find_cases(str(tmp_path), require_label=True)] == ["x"]
    assert declared_labels(str(tmp_path)).names == {0: "background", 1: "tumour"}


def test_nnunet_names_without_json(tmp_path, volume, label):
    volume("imagesTr/x_0000.nii.gz"), volume("imagesTr/y_0000.nii.gz")
    label("labelsTr/x.nii.gz"), label("labelsTr/y.nii.gz")
    cases = by_id(find_cases(str(tmp_path)))
    assert list(cases) == ["x", "y"]
    assert cases["y"]["image"].endswith("y_0000.nii.gz")
    assert cases["y"]["label"].endswith("labelsTr/y.nii.gz")


def test_numbered_scans_are_no_channels(tmp_path, volume, label):
    for i in range(3):
        volume(f"imagesTr/scan_000{i}.nii.gz"), label(f"labelsTr/scan_000{i}.nii.gz")
    cases = find_cases(str(tmp_path))
    assert [c["id"] for c in cases] == ["scan_0000", "scan_0001", "scan_0002"]
    assert all(c["label"].endswith(f"labelsTr/{c['id']}.nii.gz") for c in cases)
    assert len(find_cases(str(tmp_path / "imagesTr"))) == 3


def test_folder_is_searched_to_its_depths(tmp_path, volume):
    for name in (
        "p1/t1.nii.gz",
        "p2/t1.nii.gz",
        "p2/deep/er/t2.nii",
        "p2/t1_seg.nii.gz",
        "labels/t1.nii.gz",
        "._t3.nii",
    ):
        volume(name)
    (tmp_path / "p1/notes.txt").write_text("not a volume")
    (tmp_path / "p1/loop").symlink_to(tmp_path)
    assert [c["id"] for c in find_cases(str(tmp_path))] == ["p1/t1", "p2/t1", "t2"]


def test_images_and_labels_folders(tmp_path, volume, label):
    volume("images/g/a.nii.gz"), label("labels/g/a.nii.gz")
    (case,) = find_cases(str(tmp_path), require_label=True)
    assert case["label"] == str(tmp_path / "labels/g/a.nii.gz")


def test_several_folders(tmp_path, volume):
    volume("one/a.nii.gz"), volume("one/b.nii.gz"), volume("two/a.nii.gz")
    cases = find_cases([str(tmp_path / "one"), str(tmp_path / "two")])
    assert [c["id"] for c in cases] == ["one/a", "b", "two/a"]
    assert [c["name"] for c in cases] == ["a", "b", "a"]
    assert [c["source_name"] for c in cases] == ["one", "one", "two"]
    assert "source_name" not in find_cases(str(tmp_path / "one"))[0]


def test_repeated_entries_get_ids_of_their_own(tmp_path, volume):
    volume("a.nii.gz")
    write_json(tmp_path / "dataset.json", {"training": [{"image": "a.nii.gz"}] * 3})
    assert [c["id"] for c in find_cases(str(tmp_path))] == ["a", "a#2", "a#3"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{broken", "dataset.json: cannot be read as JSON"),
        ("[1]", "found a list, expected an object"),
        ('{"train": []}', r"found the keys \['train'\], expected 'training'"),
        ('{"training": []}', "'training' is empty"),
        ('{"training": 4}', "'training' is a int, expected a list"),
        (
            '{"training": [{"img": "a"}]}',
            r"training\[0\]: found the keys \['img'\], expected an entry with 'image'",
        ),
        ('{"training": [{"image": 4}]}', r"training\[0\]: 'image' is 4"),
        ('{"training": [{"image": "a", "label": 4}]}', r"'label' is 4, expected a path"),
        ('{"training": [{"image": "a", "fold": "x"}]}', "'fold' is 'x', expected an integer"),
        (
            '{"training": [{"image": "a", "landmark": [1, 2]}]}',
            r"'landmark' is \[1, 2\], expected \[x, y, z\]",
        ),
    ],
)
def test_broken_datalists(tmp_path, content, message):
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(UserError, match=message):
        find_cases(str(tmp_path))


def test_wrong_folders(tmp_path, volume):
    with pytest.raises(UserError, match=r"dataset_dir: .*/no/where does not exist .*nearest"):
        find_cases(str(tmp_path / "no/where"))
    with pytest.raises(UserError, match="is a file, expected a folder"):
        find_cases(volume("a/a.nii.gz"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        UserError, match=r"no volumes found in .*\.nii\.gz \.nii \.nrrd \.nhdr \.mha \.mhd and DICOM"
    ):
        find_cases(str(tmp_path / "empty"))
    with pytest.raises(UserError, match=r"datalist: gone\.json not found"):
        find_cases(str(tmp_path / "a"), "gone.json")
    with pytest.raises(UserError, match=r"none of the 1 cases .* has a label"):
        find_cases(str(tmp_path / "a"), require_label=True)
    with pytest.raises(UserError, match="found an empty list"):
        find_cases([])


def test_cases_without_a_label_are_named(tmp_path, volume, caplog):
    entries = [{"image": volume(f"{name}.nii.gz")} for name in "abcdef"]
    entries[2]["label"] = volume("c_seg.nii.gz")
    write_json(tmp_path / "dataset.json", {"training": entries})
    found = find_cases(str(tmp_path), require_label=True)
    assert [case["id"] for case in found] == ["c"]
    expected = "5 of 6 cases have no label and are left out: a, b, d and 2 more"
    assert expected in caplog.messages


def test_label_names_that_differ_or_are_not_supported(tmp_path):
    write_json(tmp_path / "a/dataset.json", {"labels": {"0": "background", "1": "liver"}})
    write_json(tmp_path / "b/dataset.json", {"labels": {"0": "background", "1": "spleen"}})
    write_json(tmp_path / "c/dataset.json", {"labels": {"background": 0, "x": 1, "ignore": 2}})
    write_json(tmp_path / "d/dataset.json", {"labels": {"background": 0, "whole": [1, 2]}})
    with pytest.raises(UserError, match="differ from"):
        declared_labels([str(tmp_path / "a"), str(tmp_path / "b")])
    with pytest.raises(UserError, match="'ignore', which is not supported"):
        declared_labels(str(tmp_path / "c"))
    assert declared_labels(str(tmp_path / "d")).regions == {"whole": [1, 2]}


def test_what_macos_adds_is_passed_over(tmp_path, volume, caplog):
    caplog.set_level(logging.INFO)
    volume("d/imagesTr/a.nii.gz"), volume("d/imagesTr/b.nii.gz"), volume("d/__MACOSX/imagesTr/a.nii.gz")
    (tmp_path / "d/imagesTr/._a.nii.gz").write_bytes(b"\x00\x05\x16\x07Mac OS X")
    assert sorted(by_id(find_cases(tmp_path / "d"))) == ["a", "b"]
    listed = [{"image": f"./{name}.nii.gz"} for name in ("imagesTr/a", "imagesTr/._a", "__MACOSX/imagesTr/a")]
    (tmp_path / "d/dataset.json").write_text(json.dumps({"training": listed}))
    assert sorted(by_id(find_cases(tmp_path / "d"))) == ["a"]
    assert "2 entries are macOS metadata (._ files), not images" in caplog.text
    (tmp_path / "d/dataset.json").write_text(json.dumps({"training": listed[1:]}))
    with pytest.raises(UserError, match="'training' lists only macOS metadata"):
        find_cases(tmp_path / "d")


def test_a_name_that_is_not_utf8_is_shown_escaped(tmp_path, volume):
    path = volume("d/a.nii.gz")
    os.rename(path, os.fsencode(tmp_path) + b"/d/caf\xe9.nii.gz")  # noqa: PTH104  a name in bytes
    found = find_cases(tmp_path / "d")
    assert len(found) == 1
    found[0]["id"].encode()
    assert found[0]["id"].startswith("caf")
    assert check_cases(found).bad[0][1] == "unreadable: its name is not UTF-8; expected another name"
