"""Tests of DICOM series: one case a series, whatever the folders."""

import logging

import pytest
from pretext3d.data.cases import find_cases
from pretext3d.data.checks import check_cases
from pretext3d.data.series import is_dicom


@pytest.fixture(autouse=True)
def quiet(caplog):
    caplog.set_level(logging.ERROR)


def test_one_series_a_folder(tmp_path, dicom):
    dicom("p1/ct"), dicom("p2/ct", suffix="")
    cases = find_cases(str(tmp_path), cache_dir=str(tmp_path / "cache"))
    assert [(c["id"], c["image"]) for c in cases] == [
        ("p1/ct", str(tmp_path / "p1/ct")),
        ("p2/ct", str(tmp_path / "p2/ct")),
    ]
    result = check_cases(cases)
    assert not result.bad
    # 6 columns of 3 mm along x, 5 rows of 2 mm along y, 4 slices 4 mm apart along z
    assert result.shapes["p1/ct"] == [6, 5, 4]
    assert result.spacings["p1/ct"] == pytest.approx([3, 2, 4])
    assert result.shapes == {"p1/ct": [6, 5, 4], "p2/ct": [6, 5, 4]}


def test_two_series_in_one_folder(tmp_path, dicom):
    dicom("p", uid="1.2.3.4", slices=3, number=7), dicom("p", uid="1.2.3.5", slices=5, start=3, number=8)
    cases = find_cases(str(tmp_path / "p"), cache_dir=str(tmp_path / "cache"))
    assert [c["id"] for c in cases] == ["series_7", "series_8"]
    assert {i: s[2] for i, s in check_cases(cases).shapes.items()} == {"series_7": 3, "series_8": 5}
    assert find_cases(str(tmp_path / "p"), cache_dir=str(tmp_path / "cache")) == cases  # the links are reused


def test_one_series_in_two_folders(tmp_path, dicom):
    dicom("p/a", uid="1.2.3.4", slices=3)
    second = dicom("p/b", uid="1.2.3.4", slices=6)
    for path in sorted(second.iterdir())[:3]:  # the first three are in the other folder
        path.unlink()
    (case,) = find_cases(str(tmp_path / "p"), cache_dir=str(tmp_path / "cache"))
    assert check_cases([case]).shapes[case["id"]] == [6, 5, 6]


def test_other_files_beside_a_series_do_no_harm(tmp_path, dicom):
    (dicom("p") / "report.txt").write_text("text")
    (case,) = find_cases(str(tmp_path / "p"), cache_dir=str(tmp_path / "cache"))
    assert case["id"] == "p"
    assert check_cases([case]).shapes["p"] == [6, 5, 4]


def test_one_slice_is_a_single_slice(tmp_path, dicom):
    dicom("p", slices=1)
    ((_, reason),) = check_cases(find_cases(str(tmp_path / "p"), cache_dir=str(tmp_path))).bad
    assert reason.startswith("single slice: ")


def test_broken_dicom_files(tmp_path):
    (tmp_path / "p").mkdir()
    for i in range(3):
        (tmp_path / f"p/{i}.dcm").write_bytes(b"not dicom at all")
    ((case, reason),) = check_cases(find_cases(str(tmp_path / "p"), cache_dir=str(tmp_path))).bad
    assert case["id"] == "p"
    assert reason.startswith("unreadable: ")


def test_is_dicom(tmp_path):
    magic = b"\0" * 128 + b"DICM"
    for name, content, expected in (
        ("a.dcm", b"", True),
        ("b.IMA", b"", True),
        ("c", magic, True),
        ("1.2.840.5", magic, True),
        ("d", b"short", False),
        ("e.txt", magic, False),
        ("DICOMDIR", magic, False),
    ):
        (tmp_path / name).write_bytes(content)
        assert is_dicom(tmp_path / name) is expected, name
