"""Tests of MetaImage: ITK's files and hand-written ones against the truth, and faulty headers."""

import zlib
from pathlib import Path

import numpy as np
import pytest
from pretext3d.data.reader import files_of_volume, read_volume
from pretext3d.data.volumes import VerdictCache, examine

from .conftest import voxels

HEADER = """ObjectType = Image
NDims = 3
BinaryData = True
BinaryDataByteOrderMSB = False
CompressedData = False
TransformMatrix = 0 1 0 -1 0 0 0 0 1
Offset = 10 20 30
CenterOfRotation = 0 0 0
ElementSpacing = 2 1 3
DimSize = 5 6 7
ElementType = MET_SHORT
ElementDataFile = LOCAL
"""
# row n of TransformMatrix is the direction of axis n in LPS: i to the back, j to the right, k up
AFFINE = np.array([[0.0, 1, 0, -10], [-2, 0, 0, -20], [0, 0, 3, 30], [0, 0, 0, 1]])
DATA = voxels((5, 6, 7)).astype("<i2").tobytes(order="F")


def write(path: Path, *changes: tuple[str, str], data: bytes = DATA) -> str:
    text = HEADER
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path.write_bytes(text.encode() + data)
    return str(path)


def test_by_hand(tmp_path):
    found = read_volume(write(tmp_path / "a.mha"))
    np.testing.assert_array_equal(found.array[..., 0], voxels((5, 6, 7)))
    np.testing.assert_allclose(found.affine, AFFINE)
    assert examine(str(tmp_path / "a.mha"), "image").axes == "PRS"


def test_compressed_big_endian_and_several_components(tmp_path):
    packed = write(
        tmp_path / "a.mha", ("CompressedData = False", "CompressedData = True"), data=zlib.compress(DATA)
    )
    np.testing.assert_array_equal(read_volume(packed).array[..., 0], voxels((5, 6, 7)))
    swapped = voxels((5, 6, 7)).astype(">i2").tobytes(order="F")
    big = write(tmp_path / "b.mha", ("MSB = False", "MSB = True"), data=swapped)
    np.testing.assert_array_equal(read_volume(big).array[..., 0], voxels((5, 6, 7)))
    pair = voxels((2, 5, 6, 7)).astype("<i2")  # the components of a voxel lie together
    several = write(
        tmp_path / "c.mha", ("ElementType", "ElementNumberOfChannels = 2\nElementType"),
        data=pair.tobytes(order="F"),
    )  # fmt: skip
    np.testing.assert_array_equal(read_volume(several).array, np.moveaxis(pair, 0, -1))


def test_files_that_a_header_names(tmp_path):
    path = write(tmp_path / "a.mhd", ("= LOCAL", "= a.raw"), data=b"")
    (tmp_path / "a.raw").write_bytes(DATA)
    assert files_of_volume(path) == [path, str(tmp_path / "a.raw")]
    assert VerdictCache(str(tmp_path / "c")).facts(path, "image").states == [["", ""]]
    (tmp_path / "a.raw").write_bytes(bytes(420))
    assert VerdictCache(str(tmp_path / "c")).facts(path, "image").states == [["empty", "every voxel is 0"]]
    for k in range(7):
        (tmp_path / f"s{k + 1:02d}.raw").write_bytes(b"head" + voxels((5, 6, 7))[..., k].tobytes(order="F"))
    names = "LIST\n" + "\n".join(f"s{k + 1:02d}.raw" for k in range(7))
    for named in (names, "s%02d.raw 1 7 1"):
        for size in ("4", "-1"):
            write(
                tmp_path / "b.mhd",
                ("ElementDataFile = LOCAL", f"HeaderSize = {size}\nElementDataFile = {named}"),
                data=b"",
            )
            np.testing.assert_array_equal(
                read_volume(str(tmp_path / "b.mhd")).array[..., 0], voxels((5, 6, 7))
            )
    (tmp_path / "a.raw").unlink()
    facts = VerdictCache(str(tmp_path / "c")).facts(path, "image")
    assert (facts.problem, facts.detail) == ("unreadable", "its data file a.raw is missing")


@pytest.mark.parametrize(
    ("old", "new", "problem", "detail"),
    [
        ("Offset = 10 20 30\n", "", "bad geometry", "no Offset in its header"),
        ("ElementSpacing = 2 1 3\n", "", "bad geometry", "no ElementSpacing in its header"),
        ("TransformMatrix = 0 1 0 -1 0 0 0 0 1\n", "", "bad geometry", "no TransformMatrix in its header"),
        ("= 2 1 3", "= 2 0 3", "bad geometry", "ElementSpacing 2 0 3, or a TransformMatrix"),
        ("= 2 1 3", "= 2 nan 3", "unreadable", "ElementSpacing is '2 nan 3' in its header"),
        ("= 10 20 30", "= 10 20", "unreadable", "Offset is '10 20' in its header"),
        ("DimSize = 5 6 7", "DimSize = 5 6 8", "unreadable", "fewer data than its header states"),
        ("DimSize = 5 6 7", "DimSize = 5 6 6", "unreadable", "more data than its header states"),
        ("DimSize = 5 6 7", "DimSize = 5 6", "unreadable", "NDims 3 and DimSize 5 6 in its header"),
        ("MET_SHORT", "MET_STRING", "unreadable", "voxels of type MET_STRING"),
        ("BinaryData = True", "BinaryData = False", "unreadable", "BinaryData False"),
        ("ObjectType = Image", "ObjectType = Mesh", "unreadable", "ObjectType Mesh, expected Image"),
        ("ElementDataFile = LOCAL\n", "", "unreadable", "no MetaImage header"),
    ],
)
def test_faulty_headers(tmp_path, old, new, problem, detail):
    facts = examine(write(tmp_path / "a.mha", (old, new)), "image")
    assert facts.problem == problem
    assert facts.detail.startswith(detail)


def test_what_itk_writes(tmp_path):
    itk = pytest.importorskip("itk")
    angle = 0.3
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    image = itk.image_from_array(voxels((7, 6, 5)))  # k j i
    image.SetSpacing([1.0, 2.0, 3.0])
    image.SetOrigin([10.0, 20.0, 30.0])
    image.SetDirection(itk.matrix_from_array(turn))
    truth = np.eye(4)
    truth[:3, :3], truth[:3, 3] = turn @ np.diag([1.0, 2, 3]), (10, 20, 30)
    for name, packed in (("a.mha", True), ("b.mhd", False), ("c.mhd", True)):
        itk.imwrite(image, str(tmp_path / name), compression=packed)
        found = read_volume(str(tmp_path / name))
        np.testing.assert_array_equal(found.array[..., 0], voxels((7, 6, 5)).T)
        np.testing.assert_allclose(found.affine, np.diag([-1, -1, 1, 1]) @ truth, atol=1e-12)


@pytest.mark.parametrize("name", ["../secret.raw", "{absolute}", "LIST\n../secret.raw", "../s%04d.raw 1 7 1"])
def test_data_above_the_folder_are_not_read(tmp_path, name):
    """The file is there and would fit."""
    (tmp_path / "secret.raw").write_bytes(DATA)
    (tmp_path / "scans").mkdir()
    named = name.format(absolute=tmp_path / "secret.raw")
    path = write(tmp_path / "scans" / "a.mhd", ("= LOCAL", f"= {named}"), data=b"")
    facts = examine(path, "image")
    assert facts.problem == "unreadable"
    assert facts.detail.endswith("expected a data file in the header's folder")
