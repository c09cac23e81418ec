"""Tests of NIfTI: voxels, positions and units against the truth, and headers that contradict their file."""

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from pretext3d.data.loading import LoadCased, SaveCased
from pretext3d.data.nifti import image_like
from pretext3d.data.reader import read_volume
from pretext3d.data.volumes import examine
from pretext3d.errors import UserError

from .conftest import voxels

AFFINE = np.array([[0.0, -2.0, 0.1, 11.0], [1.5, 0.0, 0.0, -7.0], [0.0, 0.05, 3.0, 5.0], [0, 0, 0, 1]])


def write(path: Path, array=None, affine=AFFINE, kind=nib.Nifti1Image, **header) -> str:
    """A NIfTI file whose header has these fields; pixdim agrees with the affine."""
    image = kind(voxels((5, 6, 7)) if array is None else array, affine)
    for name, value in header.items():
        image.header[name] = value
    nib.save(image, path)
    return str(path)


def patched(path: str, **fields) -> str:
    """The file with fields of its header changed in place: what no library would write."""
    file = Path(path)
    raw = bytearray(gzip.decompress(file.read_bytes()) if path.endswith(".gz") else file.read_bytes())
    header = nib.Nifti1Header(bytes(raw[:348]), check=False)
    for name, value in fields.items():
        header[name] = value
    raw[:348] = header.structarr.tobytes()
    file.write_bytes(gzip.compress(bytes(raw)) if path.endswith(".gz") else bytes(raw))
    return path


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image, nib.Nifti1Pair, nib.Nifti2Pair])
@pytest.mark.parametrize("end", ["", ".gz"])
def test_voxels_and_positions(tmp_path, kind, end):
    pair = "Pair" in kind.__name__
    path = write(tmp_path / f"a{'.img' if pair else '.nii'}{end}", kind=kind)
    for name in [path, path.replace(".img", ".hdr")]:
        found = read_volume(name)
        np.testing.assert_array_equal(found.array[..., 0], voxels((5, 6, 7)))
        np.testing.assert_array_equal(found.affine, nib.load(path).affine)
        assert found.array.dtype == np.float32


@pytest.mark.parametrize("dtype", [">i2", "<u4", ">f4", "<f8", "u1", "<i8"])
def test_types_byte_orders_and_scaling(tmp_path, dtype):
    array = voxels((5, 6, 7, 2)).astype(dtype)
    header = nib.Nifti1Header(endianness=dtype[0] if dtype[0] in "<>" else "<")
    header.set_data_dtype(np.dtype(dtype))
    image = nib.Nifti1Image(array, AFFINE, header)
    image.header.set_slope_inter(0.37, -1024)
    nib.save(image, tmp_path / "a.nii.gz")
    # the truth is nibabel's float64, rounded once
    truth = np.asarray(nib.load(tmp_path / "a.nii.gz").dataobj).astype(np.float32)
    np.testing.assert_array_equal(read_volume(str(tmp_path / "a.nii.gz")).array, truth)


def test_a_name_does_not_decide_what_is_compressed(tmp_path):
    packed, plain = write(tmp_path / "a.nii.gz"), write(tmp_path / "b.nii")
    Path(packed).rename(tmp_path / "c.nii")
    Path(plain).rename(tmp_path / "d.nii.gz")
    for name in ("c.nii", "d.nii.gz"):
        np.testing.assert_array_equal(read_volume(str(tmp_path / name)).array[..., 0], voxels((5, 6, 7)))


@pytest.mark.parametrize(
    ("unit", "factor"), [(0, 1), (1, 1000), (2, 1), (3, 0.001), (2 | 8, 1), (3 | 16, 0.001)]
)
def test_units_of_length(tmp_path, unit, factor):
    path = write(tmp_path / "a.nii", xyzt_units=unit)
    facts = examine(path, "header")
    np.testing.assert_allclose(read_volume(path).affine[:3], factor * AFFINE[:3], rtol=1e-6)
    # columns of AFFINE: |(0, 1.5, 0)|, |(-2, 0, 0.05)| = 2.000625, |(0.1, 0, 3)| = 3.001666
    np.testing.assert_allclose(facts.spacing, factor * np.array([1.5, 2.000625, 3.001666]), rtol=1e-5)


def test_a_unit_that_is_none(tmp_path):
    facts = examine(write(tmp_path / "a.nii", xyzt_units=5), "header")
    assert (facts.problem, facts.detail) == ("bad geometry", "xyzt_units 5 is no unit of length")


@pytest.mark.parametrize(
    ("fields", "used", "note"),
    [
        ({"qform_code": 1}, "sform", ""),
        ({"sform_code": 0, "qform_code": 1}, "qform", ""),
        ({"qform_code": 1, "srow_x": np.nan}, "qform", "its sform is not finite: the qform is used"),
        ({"qform_code": 1, "srow_z": np.inf}, "qform", "its sform is not finite: the qform is used"),
        ({"qform_code": 1, "srow_x": 0, "srow_y": 0}, "qform", "its sform is singular: the qform is used"),
        ({"qform_code": 1, "qoffset_x": np.nan}, "sform", "its qform is not finite: the sform is used"),
        # 4 mm along i of 1 mm are 4 voxels
        (
            {"qform_code": 1, "qoffset_x": 15},
            "sform",
            "its sform and qform place it up to 4 voxels apart: the sform is used",
        ),
        # the last voxel of 7, at 6 x 3 mm, is where the sform has voxel 6 x 3 / 1 = 18
        (
            {"qform_code": 1, "srow_z": [0, 0, 1, 5]},
            "qform",
            "its sform and qform place it up to 12 voxels apart: the qform, whose spacing is the header's, "
            "is used",
        ),
    ],
)
def test_which_of_two_positions_is_used(tmp_path, fields, used, note):
    plain = np.array([[1.0, 0, 0, 11], [0, 2, 0, -7], [0, 0, 3, 5], [0, 0, 0, 1]])
    path = patched(write(tmp_path / "a.nii.gz", affine=plain), **fields)
    header = nib.load(path).header
    found = read_volume(path)
    np.testing.assert_allclose(found.affine, header.get_sform() if used == "sform" else header.get_qform())
    assert examine(path, "header").note == note


@pytest.mark.parametrize(
    ("fields", "detail"),
    [
        ({"sform_code": 0, "qform_code": 0}, "no orientation: sform_code and qform_code are 0"),
        ({"srow_x": np.nan, "qform_code": 0}, "its sform is not finite"),
        ({"srow_x": 0, "qform_code": 1, "pixdim": [1, 0, 2, 3, 1, 1, 1, 1]},
         "its sform is singular and its qform is singular"),
    ],
)  # fmt: skip
def test_geometry_that_is_not_stated(tmp_path, fields, detail):
    facts = examine(patched(write(tmp_path / "a.nii.gz"), **fields), "header")
    assert (facts.problem, facts.detail) == ("bad geometry", detail)


@pytest.mark.parametrize("end", ["", ".gz"])
@pytest.mark.parametrize(
    ("fields", "detail"),
    [
        ({"bitpix": 8}, "8 bits per voxel, but type int16 in its header"),
        ({"datatype": 4096}, "voxels of the unknown type 4096"),
        ({"datatype": 8, "bitpix": 32}, "data than its header states"),
        ({"datatype": 2, "bitpix": 8}, "more data than its header states"),
        ({"dim": [3, 5, 6, 8, 1, 1, 1, 1]}, "data than its header states"),
        ({"dim": [3, 5, 6, 6, 1, 1, 1, 1]}, "more data than its header states"),
        ({"dim": [3, 5, -6, 7, 1, 1, 1, 1]}, "dimensions [3, 5, -6, 7, 1, 1, 1, 1] in its header"),
        ({"dim": [0, 5, 6, 7, 1, 1, 1, 1]}, "dimensions [0, 5, 6, 7, 1, 1, 1, 1] in its header"),
        ({"vox_offset": 0}, "vox_offset 0 in its header, expected 352 or more"),
        ({"vox_offset": np.nan}, "vox_offset nan in its header, expected 352 or more"),
        ({"scl_slope": 1, "scl_inter": np.inf}, "scaling intercept inf"),
        ({"magic": b"zz"}, "an ANALYZE file, which does not state orientation and position"),
    ],
)
def test_headers_at_odds_with_their_file(tmp_path, end, fields, detail):
    facts = examine(patched(write(tmp_path / f"a.nii{end}"), **fields), "image")
    assert facts.problem in ("unreadable", "bad geometry")
    assert facts.detail.startswith(detail) or detail in facts.detail or "too early" in facts.detail


def test_a_header_that_claims_gigabytes_takes_no_memory(tmp_path):
    path = write(tmp_path / "a.nii.gz", np.zeros((5, 6, 7), np.float32))
    patched(path, dim=[3, 1100, 1100, 1100, 1, 1, 1, 1])
    for kind in ("header", "image"):
        facts = examine(path, kind)
        assert "voxels, 5.32 GB, which" in facts.detail
        assert facts.detail.endswith("cannot hold")


def test_damaged_compression_is_never_read(tmp_path):
    """A file whose compressed voxels, checksum or length has one flipped bit is refused, never used."""
    whole = Path(write(tmp_path / "a.nii.gz", voxels((20, 20, 20)))).read_bytes()
    random = np.random.RandomState(0)
    for place in (*random.randint(400, len(whole) - 8, 12), *range(len(whole) - 8, len(whole))):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << random.randint(8)
        (tmp_path / "b.nii.gz").write_bytes(damaged)
        assert examine(str(tmp_path / "b.nii.gz"), "image").problem == "unreadable"
        with pytest.raises(UserError, match=r"b\.nii\.gz: unreadable: "):
            read_volume(str(tmp_path / "b.nii.gz"))


def test_time_is_not_channels(tmp_path):
    array = voxels((5, 6, 7, 3))
    image = nib.Nifti1Image(array, AFFINE)
    image.header.set_xyzt_units("mm", "sec")
    image.header.set_zooms((*image.header.get_zooms()[:3], 2.5))
    nib.save(image, tmp_path / "a.nii.gz")
    path = str(tmp_path / "a.nii.gz")
    facts = examine(path, "header")
    assert facts.problem == "time axis"
    assert facts.detail.startswith("3 time points, 2.5 s apart, not channels; frames: first, mean,")
    with pytest.raises(UserError, match=r"a\.nii\.gz: time axis: 3 time points"):
        read_volume(path)
    for frames, truth in (
        ("first", array[..., :1]),
        ("channels", array),
        ([2, 0], array[..., [2, 0]]),
        ("mean", array.astype(np.float64).mean(-1, keepdims=True)),
    ):
        got = read_volume(path, frames)
        np.testing.assert_allclose(got.array, truth, rtol=1e-6)
        facts = examine(path, "image", frames=frames)
        assert (facts.problem, facts.channels) == ("", truth.shape[3])
        assert facts.states == [["", ""]] * truth.shape[3]
    assert (
        "3 time points, 2.5 s apart, but frames names index 3" in examine(path, "header", frames=[3]).detail
    )


def test_channels_stay_channels(tmp_path):
    path = write(tmp_path / "a.nii.gz", voxels((5, 6, 7, 3)))  # no unit of time
    assert examine(path, "header").channels == 3
    spectrum = write(tmp_path / "b.nii.gz", voxels((5, 6, 7, 3)), xyzt_units=2 | 40)
    assert examine(spectrum, "header").detail.startswith("3 points of a spectrum in ppm, not channels")


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize(
    "fields",
    [
        {"qform_code": 1, "sform_code": 0},
        {"qform_code": 0, "sform_code": 4},
        {"qform_code": 3, "sform_code": 2, "qoffset_x": 50.0},
        {"qform_code": 1, "sform_code": 1, "xyzt_units": 1},
        {"qform_code": 1, "sform_code": 0, "xyzt_units": 3 | 8},
    ],
)
def test_results_keep_forms_codes_and_units(tmp_path, kind, fields):
    image = kind(voxels((5, 6, 7)), AFFINE)
    image.header.set_qform(np.diag([1.5, 2.0, 3.0, 1.0]), 1)
    for name, value in fields.items():
        image.header[name] = value
    source = tmp_path / "scan.nii.gz"
    nib.save(kind(voxels((5, 6, 7)), None, image.header), source)
    loaded = LoadCased("image")({"image": str(source), "result_name": "scan"})
    SaveCased("image", str(tmp_path / "out"))(loaded)
    before, after = nib.load(source).header, nib.load(tmp_path / "out/scan_seg.nii.gz").header
    assert after.get_data_dtype() == np.uint8
    for name in ("qform_code", "sform_code", "xyzt_units", "qoffset_x", "quatern_b", "srow_y"):
        np.testing.assert_allclose(after[name], before[name], rtol=1e-6, err_msg=name)
    np.testing.assert_allclose(after["pixdim"][:4], before["pixdim"][:4], rtol=1e-6)
    saved = read_volume(str(tmp_path / "out/scan_seg.nii.gz"))
    np.testing.assert_array_equal(saved.array[..., 0], voxels((5, 6, 7)).astype(np.uint8))
    np.testing.assert_allclose(saved.affine, read_volume(str(source)).affine, rtol=1e-6)


def test_a_form_that_is_no_position_is_not_kept(tmp_path):
    path = patched(write(tmp_path / "a.nii.gz"), srow_x=np.nan, qform_code=1)
    image = image_like(np.zeros((5, 6, 7), np.uint8), np.eye(4), path)
    assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (0, 1)
    other = image_like(np.zeros((5, 6, 8), np.uint8), np.diag([2.0, 2, 2, 1]), path)  # another grid
    np.testing.assert_array_equal(other.affine, np.diag([2.0, 2, 2, 1]))
