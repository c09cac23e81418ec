"""Tests of the checks of cases: every named reason, channels, labels, and speed on long lists."""

import ast
import logging
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from pretext3d.data import volumes
from pretext3d.data.cases import find_cases
from pretext3d.data.checks import as_channels, check_cases
from pretext3d.errors import UserError

from .conftest import voxels


def case(name, image, **more):
    return {"id": name, "image": image, **more}


def reasons(result):
    return {c["id"]: reason for c, reason in result.bad}


def test_every_reason_of_images(volume, tmp_path):
    nan, inf = voxels((5, 6, 7)).astype(np.float32), voxels((5, 6, 7)).astype(np.float32)
    nan[0, 0, 0], inf[0, 0, 0] = np.nan, -np.inf
    whole = Path(volume("big.nii.gz", shape=(20, 20, 20)))
    (tmp_path / "cut.nii.gz").write_bytes(whole.read_bytes()[:4000])
    cases = [
        case("good", volume("good.nii.gz")),
        case("good2", volume("good2.nii")),
        case("gone", str(tmp_path / "gone.nii.gz")),
        case("cut", str(tmp_path / "cut.nii.gz")),
        case("slice", volume("slice.nii.gz", shape=(5, 6, 1))),
        case("5d", volume("5d.nii.gz", shape=(5, 6, 7, 1, 2))),
        case("nan", volume("nan.nii.gz", nan)),
        case("inf", volume("inf.nii.gz", inf)),
        case("flat", volume("flat.nii.gz", np.zeros((5, 6, 7), np.uint8))),
        case("4d", volume("4d.nii.gz", shape=(5, 6, 7, 2))),
        case("mask", volume("good.nii.gz"), landmark_mask=str(tmp_path / "gone_mask.nii.gz")),
        case("no mask", volume("good.nii.gz"), landmark_mask=str(tmp_path / "flat.nii.gz")),
        case("bad mask", volume("good.nii.gz"), landmark_mask=str(tmp_path / "nan.nii.gz")),
    ]
    result = check_cases(cases)
    assert [c["id"] for c in result.good] == ["good", "good2"]
    found = reasons(result)
    assert found.pop("cut").startswith("unreadable: ")
    assert found == {
        "gone": f"missing file: {tmp_path}/gone.nii.gz",
        "slice": "single slice: shape 5x6x1",
        "5d": "wrong number of dimensions: 5D, expected 3D, or 4D with channels last",
        "nan": "NaN: 1 of 210 voxels",
        "inf": "inf: 1 of 210 voxels",
        "flat": "empty: every voxel is 0",
        "4d": "wrong number of channels: 2, expected 1 as in most cases",
        "mask": f"missing file: landmark_mask, {tmp_path}/gone_mask.nii.gz",
        "no mask": "empty: landmark_mask, every voxel is 0",
        "bad mask": "NaN: landmark_mask, 1 of 210 voxels",
    }
    assert result.channels == 1
    assert result.shapes == {"good": [5, 6, 7], "good2": [5, 6, 7]}


def test_chosen_channels(volume):
    two, three = voxels((5, 6, 7, 2)).astype(np.float32), voxels((5, 6, 7, 3)).astype(np.float32)
    three[0, 0, 0, 2] = np.nan
    cases = [
        case("1", volume("1.nii.gz")),
        case("2", volume("2.nii.gz", two)),
        case("3", volume("3.nii.gz", three)),
    ]
    assert reasons(check_cases(cases, channels=[1])) == {
        "1": "wrong number of channels: 1, expected 2 or more"
    }
    assert reasons(check_cases(cases, channels=[0])) == {}
    assert reasons(check_cases(cases, channels=2))["3"] == "NaN: 1 of 210 voxels"
    assert check_cases(cases, channels=[1, 0]).channels == 2
    assert check_cases(cases[:1], channels=None).channels == 1


def test_as_many_cases_with_one_number_of_channels_as_with_another(volume):
    """Neither is chosen: the user says whether to take the first channel of all, or the cases with three."""
    three = [volume(f"c{n}.nii.gz", voxels((5, 6, 7, 3)).astype(np.float32)) for n in range(2)]
    cases = [case("a", volume("a.nii.gz")), case("b", volume("b.nii.gz")), case("c", three[0])]
    assert check_cases(cases).channels == 1
    cases.append(case("d", three[1]))
    expected = "channels: found 2 case(s) with 1 channel(s) and as many with 3, expected one number that most"
    with pytest.raises(UserError, match=re.escape(expected)) as caught:
        check_cases(cases)
    for key, good in (("[0]", "abcd"), ("[0, 1, 2]", "cd")):
        assert f'--channels "{key}"' in str(caught.value)
        assert [c["id"] for c in check_cases(cases, channels=ast.literal_eval(key)).good] == list(good)
    for needed, good in ((1, "ab"), (3, "cd"), (2, "")):  # a network that is there decides
        found = check_cases(cases, in_channels=needed)
        assert [c["id"] for c in found.good] == list(good)
        assert found.channels == needed
    assert (
        reasons(check_cases(cases, in_channels=3))["a"]
        == "wrong number of channels: 1, expected 3 as the network has"
    )


@pytest.mark.parametrize("channels", [[], [0, 0], [-1], -1, True])
def test_wrong_channels(channels):
    with pytest.raises(UserError, match=r"channels: found .*, expected distinct indices from 0"):
        as_channels(channels)


def test_one_file_a_channel(volume):
    a, b = volume("x_0.nii.gz"), volume("x_1.nii.gz")
    flat = volume("x_2.nii.gz", np.zeros((5, 6, 7), np.uint8))
    cases = [
        case("good", [a, b]),
        case("one flat", [a, flat]),  # a sequence that was not taken, filled with zeros
        case("all flat", [flat, flat]),
        case("shape", [a, volume("y.nii.gz", shape=(5, 6, 8))]),
        case("axes", [a, volume("z.nii.gz", axes="LPS")]),
        case("gone", [a, "gone.nii.gz"]),
        case("4d", [a, volume("w.nii.gz", shape=(5, 6, 7, 2))]),
    ]
    result = check_cases(cases)
    assert [c["id"] for c in result.good] == ["good", "one flat"]
    assert result.channels == 2
    assert reasons(result) == {
        "all flat": "empty: every voxel is 0",
        "shape": "channels of different shapes: [5, 6, 7] and [5, 6, 8] in y.nii.gz",
        "axes": "bad geometry: z.nii.gz has other axes or spacing than x_0.nii.gz",
        "gone": "missing file: gone.nii.gz in gone.nii.gz",
        "4d": "wrong number of channels: some of the 2 files have several, expected one per file",
    }
    assert reasons(check_cases([case("all flat", [flat, a])], channels=[0])) == {
        "all flat": "empty: every voxel is 0"
    }


def test_every_reason_of_labels(volume, label, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    image = volume("image.nii.gz")
    half, cut = np.zeros((5, 6, 7), np.float32), Path(label("cut.nii.gz", shape=(40, 40, 40)))
    half[2, 2, 2] = 0.5
    cut.write_bytes(cut.read_bytes()[:100])
    labels = {
        "good": label("good.nii.gz", 2),
        "gone": str(tmp_path / "gone.nii.gz"),
        "cut": str(cut),
        "shape": label("shape.nii.gz", shape=(5, 6, 8)),
        "slice": volume("slice.nii.gz", np.ones((5, 6, 1), np.uint8)),
        "channels": label("channels.nii.gz", shape=(5, 6, 7, 2)),
        "axes": label("axes.nii.gz", axes="LPS"),
        "spacing": label("spacing.nii.gz", spacing=(1, 2, 4)),
        "half": volume("half.nii.gz", half),
        "seven": label("seven.nii.gz", 7),
        "none": label("none.nii.gz", 0),
        "many": volume("many.nii.gz", np.full((5, 6, 7), 1024, np.int16)),
    }
    cases = [case(name, image, label=path) for name, path in labels.items()] + [case("unlabelled", image)]
    assert not check_cases(cases).bad  # labels are not looked at in pre-training
    result = check_cases(cases, require_label=True, label_values=[0, 1, 2])
    assert [c["id"] for c in result.good] == ["good", "none"]
    assert result.values == {"good": [0, 2], "none": [0]}  # a healthy control
    assert "none: no foreground: every voxel of its label is 0" in caplog.text
    found = reasons(result)
    assert found.pop("cut").startswith("unreadable: label, ")
    assert found == {
        "gone": f"missing file: label, {tmp_path}/gone.nii.gz",
        "shape": "label shape: [5, 6, 8], the image's is [5, 6, 7]",
        "slice": "label shape: [5, 6, 1], the image's is [5, 6, 7]",
        "channels": "label shape: [5, 6, 7] with 2 channels, the image's is [5, 6, 7]",
        "axes": "label geometry: LPS [1.0, 2.0, 3.0] mm, the image's is RAS [1.0, 2.0, 3.0] mm",
        "spacing": "label geometry: RAS [1.0, 2.0, 4.0] mm, the image's is RAS [1.0, 2.0, 3.0] mm",
        "half": "label values: 0.5, expected integers",
        "seven": "label values: 7, expected one of 0, 1, 2",
        "many": "label values: 1024, expected one of 0, 1, 2",
        "unlabelled": "no label",
    }


def test_many_entries_of_few_files_read_each_file_once(volume, label, tmp_path, monkeypatch):
    files = [(volume(f"imagesTr/{i}.nii.gz"), label(f"labelsTr/{i}.nii.gz")) for i in range(4)]
    cases = [case(str(i), files[i % 4][0], label=files[i % 4][1]) for i in range(10_000)]
    read = []
    examine = volumes.examine
    monkeypatch.setattr(volumes, "examine", lambda *a: read.append(a) or examine(*a))
    result = check_cases(cases, require_label=True, cache_dir=str(tmp_path / "cache"))
    assert len(result.good) == 10_000
    assert len(read) == 12  # header, voxels and label of four
    read.clear()
    check_cases(cases, require_label=True, cache_dir=str(tmp_path / "cache"))
    assert len(read) == 4  # the headers; the rest from disk


@pytest.mark.real_data
def test_all_30_wild_volumes(real_data):
    result = check_cases(find_cases(str(real_data / "wild"), "none"))
    assert len(result.good) == 21
    assert {i: r.split(":")[0] for i, r in reasons(result).items()} == {
        "dmri_head_8mm_4d": "wrong number of channels",
        "head_bold_4d": "time axis",  # these four state the time between their volumes
        "head_nifti2_4d": "time axis",
        "spine_dmri_4d_17p5mm": "time axis",
        "spine_fmri_4d": "time axis",
        "head_epi_bigendian_NaN": "NaN",
        "spine_tsnr_NaN": "NaN",
        "spine_mtr_minusInf": "inf",
        "spine_venc_2d_plus_dir": "single slice",
    }
    assert result.shapes["spine_t2_PSR"] == [
        52,
        60,
        55,
    ]  # 60x55x52 voxels, i to the back, j up, k to the right
    assert result.spacings["brain_tumour_t1"] == pytest.approx([0.78125, 0.78125, 6.5], abs=1e-3)
    cases = find_cases(str(real_data / "wild"), "none")
    first_channel = reasons(check_cases(cases, channels=[0], frames="channels"))
    assert sorted(first_channel) == [
        "head_epi_bigendian_NaN",
        "spine_mtr_minusInf",
        "spine_tsnr_NaN",
        "spine_venc_2d_plus_dir",
    ]


def moved(path: str, shift=(0.0, 0.0, 0.0), turn: float = 0.0) -> str:
    """The NIfTI file with its volume shifted by mm, and turned about z through its first voxel."""
    image = nib.load(path)
    affine = np.array(image.affine)
    rotation = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    affine[:3, :3], affine[:3, 3] = rotation @ affine[:3, :3], affine[:3, 3] + shift
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), affine), path)
    return path


def test_labels_and_channels_that_lie_elsewhere(volume, label):
    """Image: 5 x 6 x 7 voxels of 1 x 2 x 3 mm; half a voxel is 0.5, 1 and 1.5 mm."""
    image = volume("image.nii.gz")
    labels = {
        "rounding": moved(label("a.nii.gz"), (0.49, -0.98, 1.47)),
        "over i": moved(label("b.nii.gz"), (0.52, 0, 0)),
        "over k": moved(label("c.nii.gz"), (0, 0, 1.6)),
        "elsewhere": moved(label("d.nii.gz"), (30, 0, 0)),
        # the corner 4 mm along x and 10 mm along y is 10.77 mm from the first voxel: 2 sin(0.1) 10.77 = 2.15
        "oblique": moved(label("e.nii.gz"), turn=0.2),
    }
    cases = [case(name, image, label=path) for name, path in labels.items()]
    assert reasons(check_cases(cases, require_label=True)) == {
        "over i": "label geometry: its corners lie up to 0.52 mm from the image's",
        "over k": "label geometry: its corners lie up to 1.6 mm from the image's",
        "elsewhere": "label geometry: its corners lie up to 30 mm from the image's",
        "oblique": "label geometry: its corners lie up to 2.15 mm from the image's",
    }
    other = moved(volume("x_1.nii.gz"), (0, 5, 0))
    assert reasons(check_cases([case("channels", [image, other])])) == {
        "channels": "bad geometry: x_1.nii.gz lies up to 5 mm from image.nii.gz"
    }


def test_the_choice_between_two_positions_is_said_once_per_file(volume, tmp_path, caplog):
    path = volume("a.nii.gz")
    two = nib.load(path)
    two.header.set_qform(np.diag([1.0, 2, 3, 1]), 1)  # without the 11 mm along x, of 1 mm per voxel
    nib.save(two, tmp_path / "b.nii.gz")
    cases = [case("plain", path), *(case(f"b{n}", str(tmp_path / "b.nii.gz")) for n in range(3))]
    caplog.set_level(logging.WARNING)
    assert len(check_cases(cases).good) == 4
    notes = [r.getMessage() for r in caplog.records]
    assert notes == ["b0: b.nii.gz: its sform and qform place it up to 11 voxels apart: the sform is used"]


def test_a_shortage_is_no_fault_of_the_next_run(volume, tmp_path, monkeypatch):
    cases = [case("a", volume("a.nii.gz"))]
    monkeypatch.setattr(volumes, "channel_states", lambda *_: (_ for _ in ()).throw(MemoryError()))
    assert reasons(check_cases(cases, cache_dir=str(tmp_path))) == {"a": "unreadable: not enough memory"}
    monkeypatch.undo()
    assert check_cases(cases, cache_dir=str(tmp_path)).good == cases
