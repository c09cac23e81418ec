"""Values of voxels: rescaling, padding, inversion, colour, compression; ITK as the reference."""

import importlib.util
import logging
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from monai.transforms import LoadImage
from pretext3d.data import dicom_pixels
from pretext3d.data.cases import walk
from pretext3d.data.dicom import find_stacks, is_dicom, read_stack
from pretext3d.data.dicom_files import missing_decoder
from pretext3d.data.faults import BadFileError
from pretext3d.data.volumes import VerdictCache
from pretext3d.extras import not_installed
from pydicom.data import get_testdata_file
from pydicom.uid import HTJ2K, MPEG2MPHL, JPEGLSLossless

from tests.data.dicom_files import Slice, item, stack, write, write_all, write_enhanced

SHIPPED = Path(pydicom.__file__).parent / "data"  # pydicom's own test files


def voxels(folder: Path, **elements: object) -> np.ndarray:
    """The values of one slice of the stored numbers 0 to 3, rows (0, 1) and (2, 3), as [[0, 1], [2, 3]]."""
    path = write(folder / "a.dcm", Slice((0, 0, 0), shape=(2, 2), elements=elements))
    return read_stack(path)[0][:, :, 0].T


def test_each_slice_has_its_own_slope_and_intercept(tmp_path):
    """PET: stored 0 to 3 and 4 to 7, with slopes 2 and 0.5: 2 * 3 + 1 = 7 and 0.5 * 7 - 1 = 2.5."""
    slices = stack(2, shape=(2, 2))
    rescale = ({"RescaleSlope": 2, "RescaleIntercept": 1}, {"RescaleSlope": 0.5, "RescaleIntercept": -1})
    folder = write_all(tmp_path, [replace(s, elements=e) for s, e in zip(slices, rescale, strict=True)])[
        0
    ].parent
    array = read_stack(folder)[0]
    assert array.dtype == np.float32
    assert array[..., 0].T.tolist() == [[1, 3], [5, 7]]
    assert array[..., 1].T.tolist() == [[1, 1.5], [2, 2.5]]


def test_each_frame_has_its_own_slope(tmp_path):
    path = write_enhanced(tmp_path / "a.dcm", stack(2, shape=(2, 2)))
    data = pydicom.dcmread(path)
    groups = data.PerFrameFunctionalGroupsSequence
    groups[1].PixelValueTransformationSequence = [item(RescaleSlope=10, RescaleIntercept=-1)]
    shared = data.SharedFunctionalGroupsSequence[0]
    shared.PixelValueTransformationSequence = [item(RescaleSlope=1, RescaleIntercept=5)]
    data.save_as(path)
    array = read_stack(path)[0]
    assert array[..., 0].T.tolist() == [[5, 6], [7, 8]]
    assert array[..., 1].T.tolist() == [[39, 49], [59, 69]]


def test_unsigned_and_signed_numbers(tmp_path):
    stored = np.array([[0, 1], [2, 65535]], dtype=np.uint16)
    raw = {"PixelData": stored.tobytes()}
    assert voxels(tmp_path, PixelRepresentation=0, **raw).tolist() == [[0, 1], [2, 65535]]
    assert voxels(tmp_path, PixelRepresentation=1, **raw).tolist() == [[0, 1], [2, -1]]


def test_padding_outside_the_measured_values_becomes_the_lowest_of_them(tmp_path):
    raw = {"PixelData": np.array([[-2000, -900], [40, -2000]], dtype=np.int16).tobytes()}
    intercept = {"RescaleSlope": 1, "RescaleIntercept": -24}
    assert voxels(tmp_path, **raw, **intercept).tolist() == [[-2024, -924], [16, -2024]]
    found = voxels(tmp_path, PixelPaddingValue=-2000, **raw, **intercept)
    assert found.tolist() == [[-924, -924], [16, -924]]
    # 1 lies between measured values, and stays: nothing is outside
    assert voxels(tmp_path, PixelPaddingValue=1).tolist() == [[0, 1], [2, 3]]
    # a range of padding values, here the two highest ones
    assert voxels(tmp_path, PixelPaddingValue=2, PixelPaddingRangeLimit=9).tolist() == [[0, 1], [0, 0]]
    # nothing but padding: left as it is, for the check of empty volumes
    assert voxels(tmp_path, PixelPaddingValue=0, PixelPaddingRangeLimit=9).tolist() == [[0, 1], [2, 3]]


def test_monochrome1_is_inverted_except_for_ct_and_pet(tmp_path):
    """12 bits: 4095 - stored; signed 12 bits: -1 - stored."""
    inverse = {"PhotometricInterpretation": "MONOCHROME1", "BitsStored": 12, "HighBit": 11}
    found = voxels(tmp_path, **inverse, PixelRepresentation=0, Modality="DX")
    assert found.tolist() == [[4095, 4094], [4093, 4092]]
    found = voxels(tmp_path, **inverse, PixelRepresentation=1, Modality="MR")
    assert found.tolist() == [[-1, -2], [-3, -4]]
    for modality in ("CT", "PT"):
        assert voxels(tmp_path, **inverse, Modality=modality).tolist() == [[0, 1], [2, 3]]


def test_a_modality_lookup_table(tmp_path):
    table = item(ModalityLUTType="US")
    table.add_new("LUTDescriptor", "US", [4, 0, 16])
    table.add_new("LUTData", "US", [7, 70, 700, 7000])
    found = voxels(tmp_path, ModalityLUTSequence=[table], PixelRepresentation=0)
    assert found.tolist() == [[7, 70], [700, 7000]]


def test_colour_gives_three_channels(tmp_path):
    colours = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    elements = {
        "SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0,
        "BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "PixelRepresentation": 0,
        "PixelData": colours.tobytes(),
    }  # fmt: skip
    slices = stack(3, shape=(2, 2), elements=elements)
    array, _ = read_stack(write_all(tmp_path, slices)[0].parent)
    assert array.shape == (2, 2, 3, 3)  # i, j, k, channel
    assert array[1, 0, 2].tolist() == [3, 4, 5]  # second column, first row


def test_jpeg_of_12_bits_is_read_by_gdcm(capfd):
    """The values at row 420, column 140 and row 230, column 120 are those of pydicom's own tests."""
    pytest.importorskip("gdcm")
    array, _ = read_stack(get_testdata_file("JPGExtended.dcm"), spatial_dims=2)
    assert (array[140, 420, 0], array[120, 230, 0]) == (244, 95)
    assert capfd.readouterr().err == ""


def test_compressed_files_have_the_values_of_the_plain_one():
    pytest.importorskip("gdcm")
    plain, affine = read_stack(get_testdata_file("MR_small.dcm"))
    for name in ("RLE", "jp2klossless", "jpeg_ls_lossless", "bigendian", "implicit", "padded"):
        array, other = read_stack(get_testdata_file(f"MR_small_{name}.dcm"))
        np.testing.assert_array_equal(array, plain, err_msg=name)
        np.testing.assert_array_equal(other, affine, err_msg=name)


def test_a_missing_decoder_is_named(monkeypatch, tmp_path):
    expected = (
        "High-Throughput JPEG 2000 Image Compression: needs the package pylibjpeg-openjpeg with pylibjpeg"
    )
    assert missing_decoder(HTJ2K).startswith(f"compressed as {expected}")
    assert missing_decoder(MPEG2MPHL).endswith("for which there is no decoder")
    if importlib.util.find_spec("gdcm"):
        assert missing_decoder(JPEGLSLossless) == ""
    decoder = pydicom.pixels.get_decoder(JPEGLSLossless)
    monkeypatch.setattr(decoder, "_available", {})
    missing_decoder.cache_clear()
    name = "JPEG-LS Lossless Image Compression"
    reason = f"compressed as {name}: {not_installed('python-gdcm')}"
    assert reason.endswith("which is not installed: pip install pydicom python-gdcm (extra dicom)")
    assert missing_decoder(JPEGLSLossless) == reason
    (found,) = find_stacks([Path(get_testdata_file("MR_small_jpeg_ls_lossless.dcm"))], "")
    assert found.reason == f"unreadable: {reason}"
    facts = VerdictCache(str(tmp_path)).facts(get_testdata_file("MR_small_jpeg_ls_lossless.dcm"), "image")
    assert (facts.detail, facts.passing) == (reason, True)
    assert list(tmp_path.iterdir()) == []  # no verdict: installing it mends the file
    missing_decoder.cache_clear()


@pytest.mark.parametrize("installed", [True, False])
def test_voxels_that_gdcm_might_decode_are_no_lasting_fault(monkeypatch, installed):
    monkeypatch.setattr(dicom_pixels, "stored_frames", lambda *_: iter([]))  # zip: fewer frames, ValueError
    find_spec = importlib.util.find_spec
    known = lambda name: (name if installed else None) if name == "gdcm" else find_spec(name)  # noqa: E731
    monkeypatch.setattr(dicom_pixels.importlib.util, "find_spec", known)
    with pytest.raises(BadFileError, match="cannot be decoded") as raised:
        list(dicom_pixels.decoded(get_testdata_file("MR_small_RLE.dcm"), [0]))
    assert raised.value.passing is not installed


def test_damaged_voxels_are_named(tmp_path):
    with pytest.raises(
        BadFileError, match=r"^unreadable: JPEG2000-.*: its voxels \(JPEG 2000 .*cannot be decoded$"
    ):
        read_stack(get_testdata_file("JPEG2000-embedded-sequence-delimiter.dcm"), spatial_dims=2)
    path = write(tmp_path / "a.dcm", Slice((0, 0, 0)))
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(
        BadFileError, match=r"^unreadable: cut short: 38 bytes of voxels, expected 40 by the header$"
    ):
        read_stack(path)


def test_all_files_that_pydicom_ships(tmp_path, caplog):
    """Each becomes an image, with the voxels that ITK reads, or a reason; nothing raises."""
    caplog.set_level(logging.INFO)
    files = [path for _, found in walk(SHIPPED) for path in found if is_dicom(path)]
    found = find_stacks(files, str(tmp_path))
    problems = Counter(stack.reason.split(":")[0] for stack in found)
    assert problems == {
        "": 9, "no geometry": 27, "unreadable": 4, "varying orientation": 3, "missing slices": 1,
        "scouts": 1, "single slice": 1,
    }  # fmt: skip
    kinds = "6 DICOMDIR, 7 RTDOSE, 4 RTPLAN, 1 RTSTRUCT, 2 SEG, 3 SR, 1 waveform, 66 without pixels"
    assert f"90 DICOM files are no images and are left out: {kinds}" in caplog.text


@pytest.mark.filterwarnings("ignore")
def test_images_have_the_voxels_that_itk_reads(tmp_path):
    """Of files that pydicom ships; the third axis of a single slice is its thickness here, 1 mm in ITK."""
    pytest.importorskip("itk")
    pytest.importorskip("gdcm")
    loader, compared = LoadImage(image_only=True, ensure_channel_first=True), 0
    files = [path for path in sorted((SHIPPED / "test_files").iterdir()) if path.suffix == ".dcm"]
    for stack_found in find_stacks(files, str(tmp_path), spatial_dims=2):
        name = stack_found.path.name
        if stack_found.reason or "embedded" in name or "rle_16bit" in name or "rle_32bit" in name:
            continue  # bad ones, and those that ITK cannot read
        array, affine = read_stack(stack_found.read, spatial_dims=2)
        image = loader(stack_found.read)
        theirs = np.moveaxis(image.numpy(), 0, -1).reshape(*array.shape[:3], -1)
        np.testing.assert_array_equal(array.reshape(theirs.shape), theirs, err_msg=name)
        columns = [0, 1, 3] if array.shape[2] == 1 else [0, 1, 2, 3]
        theirs_affine = np.asarray(image.affine)[:, columns]
        np.testing.assert_allclose(affine[:, columns], theirs_affine, atol=1e-4, err_msg=name)
        compared += 1
    assert compared == 45
