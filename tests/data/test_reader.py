"""Tests of what every format has in common: one reader for all pipelines, odd names, passing errors."""

import errno
import logging
import os
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from pretext3d.data import reader
from pretext3d.data.faults import BadFileError
from pretext3d.data.images import is_picture
from pretext3d.data.loading import LoadCased
from pretext3d.data.reader import check_frames, files_of_volume, open_scan
from pretext3d.data.volumes import VerdictCache, examine
from pretext3d.errors import UserError

from .conftest import voxels


@pytest.mark.parametrize("frames", [[], [-1], [0, 0], "last", 1.5, True, {"first": 1}])
def test_frames_that_are_none(frames):
    with pytest.raises(
        UserError, match=r"frames: found .*, expected first, mean, channels, distinct indices"
    ):
        check_frames(frames)


@pytest.mark.parametrize(
    "error",
    [MemoryError(), OSError(errno.EMFILE, os.strerror(errno.EMFILE)), OSError(errno.EIO, "I/O error")],
)
def test_an_error_of_the_machine_is_no_verdict(volume, tmp_path, monkeypatch, error):
    path, kept = volume("a.nii.gz"), tmp_path / "cache"

    def fail(*_):
        raise error

    monkeypatch.setattr(reader, "open_nifti", fail)
    facts = VerdictCache(str(kept)).facts(path, "image")
    assert (facts.problem, facts.passing) == ("unreadable", True)
    assert facts.detail in ("not enough memory", "Too many open files", "I/O error")
    monkeypatch.undo()
    assert VerdictCache(str(kept)).facts(path, "image").states == [["", ""]]
    assert len(list(kept.rglob("*.json"))) == 1


def test_a_lasting_fault_is_kept(tmp_path):
    (tmp_path / "a.nii").write_text("<html>404</html>")
    facts = VerdictCache(str(tmp_path / "cache")).facts(str(tmp_path / "a.nii"), "image")
    assert facts.detail == "no NIfTI header in its first 16 bytes"
    assert len(list((tmp_path / "cache").rglob("*.json"))) == 1
    (tmp_path / "b.nii").touch()
    facts = VerdictCache(str(tmp_path / "cache")).facts(str(tmp_path / "b.nii"), "image")
    assert facts.detail == "the file is empty"


def test_odd_names_are_bad_cases(tmp_path):
    latin = os.fsencode(tmp_path) + b"/caf\xe9.nii"
    nib.save(nib.Nifti1Image(voxels((5, 6, 7)), np.eye(4)), tmp_path / "a.nii")
    os.rename(tmp_path / "a.nii", latin)  # noqa: PTH104  a name in bytes
    (tmp_path / "loop.nii").symlink_to("loop.nii")
    for path, detail in (
        (os.fsdecode(latin), "its name is not UTF-8; expected another name"),
        (str(tmp_path / "loop.nii"), "a link that leads to itself"),
        (str(tmp_path / "nul\0.nii"), "a NUL in its name; expected another name"),
    ):
        for folder in ("", str(tmp_path / "cache")):
            facts = VerdictCache(folder).facts(path, "image")
            assert (facts.problem, facts.detail) == ("unreadable", detail)


def test_pointers_and_folders_are_named(tmp_path):
    (tmp_path / "a.nii.gz").symlink_to(".git/annex/objects/x/y/z.nii.gz")
    (tmp_path / "b.nii.gz").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    (tmp_path / "c.nii").mkdir()
    facts = [VerdictCache().facts(str(tmp_path / n), "image") for n in ("a.nii.gz", "b.nii.gz", "c.nii")]
    assert ["annex" in facts[0].detail, "LFS" in facts[1].detail] == [True, True]
    assert facts[2].detail == "a folder, expected a file"


def test_unknown_formats(tmp_path):
    (tmp_path / "a.xyz").write_bytes(b"something")
    assert examine(str(tmp_path / "a.xyz"), "image").detail.startswith(
        "no format that is read; expected .nii.gz"
    )
    assert files_of_volume(str(tmp_path / "a.xyz")) == [str(tmp_path / "a.xyz")]
    assert files_of_volume(str(tmp_path / "gone.mhd")) == [str(tmp_path / "gone.mhd")]
    with pytest.raises(BadFileError, match="missing file"):
        open_scan(str(tmp_path / "gone.mhd"))


def shipped_by_nibabel() -> list[Path]:
    folder = Path(nib.__file__).parent / "tests/data"
    return sorted(path for path in folder.glob("*") if path.is_file()) if folder.is_dir() else []


def shipped_by_pydicom() -> list[Path]:
    pydicom = pytest.importorskip("pydicom")
    folder = Path(pydicom.__file__).parent / "data/test_files"
    return sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []


@pytest.mark.parametrize("shipped", [shipped_by_nibabel, shipped_by_pydicom])
def test_every_file_that_a_library_ships_for_its_tests(shipped, capfd, caplog, recwarn):
    """No crash, nothing printed, and every reason is one clause without sources and addresses."""
    files = shipped()
    if len(files) < 20:
        pytest.skip("this installation of the library comes without its test files")
    caplog.set_level(logging.INFO)
    for path in files:
        if is_picture(str(path)):
            continue
        facts = examine(str(path), "image")
        detail = facts.detail
        assert bool(facts.problem) == bool(detail), path.name
        assert "\n" not in detail, path.name
        assert len(detail) < 200, path.name
        assert not re.search(r"0x[0-9a-f]{6}|\.cxx|\.py\b|object has no|Error:|itk", detail), detail
        if not facts.problem:  # what the check accepts, the loader reads, at the same place
            loaded = LoadCased("image")({"image": str(path)})["image"]
            assert list(loaded.shape) == [facts.channels, *facts.shape], path.name
            assert loaded.affine.tolist() == facts.affine, path.name
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")
    assert not [r.getMessage() for r in caplog.records if not r.name.startswith("monai")]
    assert not recwarn.list
