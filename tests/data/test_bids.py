"""Tests of BIDS folders: subjects, sessions, modalities as channels, labels among the derivatives."""

import json
import logging
from pathlib import Path

import pytest
from pretext3d.data.bids import BidsName, bids_name, check_modalities
from pretext3d.data.cases import find_cases
from pretext3d.data.prepare import inference_cases, prepare_cases
from pretext3d.data.splits import split_cases
from pretext3d.errors import UserError

VISITS = [(f"sub-{s:02d}", f"ses-{v}") for s in range(1, 6) for v in (1, 2)]


@pytest.fixture
def bids(tmp_path, volume, label):
    """Five subjects, two visits of two modalities each, with one label per visit."""
    for subject, session in VISITS:
        stem = f"{subject}/{session}/anat/{subject}_{session}"
        volume(f"bids/{stem}_T1w.nii.gz"), volume(f"bids/{stem}_FLAIR.nii.gz")
        label(f"bids/derivatives/manual/{stem}_dseg.nii.gz")
    (tmp_path / "bids/dataset_description.json").write_text(json.dumps({"Name": "five"}))
    return tmp_path / "bids"


def files(case):
    images = case["image"] if isinstance(case["image"], list) else [case["image"]]
    return [Path(image).name for image in images]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sub-01_T1w.nii.gz", BidsName("sub-01", "", (), "T1w")),
        ("a/sub-A1_ses-x2_acq-b_run-2_bold.nii", BidsName("sub-A1", "ses-x2", ("acq-b", "run-2"), "bold")),
        ("sub-01_ses-1", BidsName("sub-01", "ses-1", (), "")),
        ("sub-01", BidsName("sub-01", "", (), "")),
        ("sub01_T1w", None),
        ("subject-01_T1w", None),
        ("sub-01_T1w_copy_2", None),
        ("x_sub-01_T1w", None),
    ],
)
def test_names(name, expected):
    assert bids_name(name) == expected


def test_each_file_is_a_case_with_its_subject_and_label(bids):
    cases = find_cases(bids)
    assert len(cases) == 20
    assert {case["subject"] for case in cases} == {subject for subject, _ in VISITS}
    case = next(case for case in cases if case["name"] == "sub-02_ses-1_FLAIR")
    assert case["label"] == str(bids / "derivatives/manual/sub-02/ses-1/anat/sub-02_ses-1_dseg.nii.gz")


@pytest.mark.parametrize("modalities", [None, ["T1w", "FLAIR"]])
def test_visits_and_modalities_of_a_subject_stay_together(bids, modalities):
    cases = find_cases(bids, modalities=modalities)
    for seed in range(6):
        split = split_cases(cases, 0.2, seed)
        held = {case["subject"] for case in split.val}
        assert len(held) == 1
        assert held.isdisjoint(case["subject"] for case in split.train)
        assert len(split.val) == (4 if modalities is None else 2)


def test_the_split_is_the_same_whatever_the_modalities(bids):
    (bids / "sub-03/ses-2/anat/sub-03_ses-2_FLAIR.nii.gz").unlink()
    for seed in range(6):
        held = [
            {case["subject"] for case in split_cases(find_cases(bids, modalities=m), 0.4, seed).val}
            for m in (None, "FLAIR", ["FLAIR", "T1w"])
        ]
        assert held[0] == held[1] == held[2]


def test_modalities_of_a_session_are_channels_in_the_order_given(bids, volume):
    volume("bids/sub-01/ses-1/anat/sub-01_ses-1_T2w.nii.gz"), volume("bids/notes/plain.nii.gz")
    cases = find_cases(bids, modalities=["FLAIR", "T1w"])
    assert [case["name"] for case in cases] == [f"{subject}_{session}" for subject, session in VISITS]
    assert files(cases[0]) == ["sub-01_ses-1_FLAIR.nii.gz", "sub-01_ses-1_T1w.nii.gz"]
    assert all("label" in case for case in cases)
    assert files(find_cases(bids, modalities="T1w")[0]) == ["sub-01_ses-1_T1w.nii.gz"]


def test_a_session_that_lacks_a_modality_is_bad(bids, tmp_path, caplog):
    (bids / "sub-03/ses-2/anat/sub-03_ses-2_FLAIR.nii.gz").unlink()
    keys = {"roi_size": 4, "cache_dir": str(tmp_path / "cache"), "modalities": ["T1w", "FLAIR"]}
    with caplog.at_level(logging.INFO):
        ready = prepare_cases(str(bids), **keys)
    assert ready["bad"] == [["sub-03_ses-2", "missing modality: FLAIR"]]
    assert ready["channels"] == 2
    assert "left out: sub-03_ses-2: missing modality: FLAIR" in caplog.text
    assert "4 subjects" in caplog.text
    with pytest.raises(
        UserError, match=r"1 of 10 labelled cases are bad \(sub-03_ses-2: missing modality: FLAIR"
    ):
        prepare_cases(str(bids), purpose="finetuning", **keys)
    tuned = prepare_cases(str(bids), purpose="finetuning", skip_bad=True, **keys)
    assert [case["id"] for case in tuned["val"]] == [case["id"] for case in ready["val"]]
    del keys["roi_size"]
    assert len(inference_cases(str(bids), **keys)["cases"]) == 9


def test_of_several_runs_the_first_is_taken(bids, volume, caplog):
    anat = "bids/sub-01/ses-1/anat/sub-01_ses-1"
    volume(f"{anat}_run-2_T1w.nii.gz"), volume(f"{anat}_acq-b_run-1_FLAIR.nii.gz")
    cases = find_cases(bids, modalities=["T1w", "FLAIR"])
    assert files(cases[0]) == ["sub-01_ses-1_T1w.nii.gz", "sub-01_ses-1_FLAIR.nii.gz"]
    assert "1 session(s) have several" not in caplog.text
    assert "2 session(s) have several files of one (sub-01 ses-1 T1w, sub-01 ses-1 FLAIR)" in caplog.text


def test_derivatives_and_sourcedata_hold_no_images(bids, volume, caplog):
    volume("bids/derivatives/prep/sub-01/anat/sub-01_ses-1_desc-preproc_T1w.nii.gz")
    volume("bids/sourcedata/patient9/t1.nii.gz")
    assert len(find_cases(bids)) == 20
    # a folder of results taken for itself is a data set; elsewhere the names mean nothing
    assert len(find_cases(bids / "derivatives/prep")) == 1
    volume("plain/derivatives/a.nii.gz"), volume("plain/b.nii.gz")
    assert len(find_cases(bids.parent / "plain")) == 2


def test_labels_go_with_the_images_that_they_fit(tmp_path, volume, label, caplog):
    for name in ("T1w", "FLAIR", "run-2_T1w", "space-MNI_T1w"):
        volume(f"raw/sub-1/anat/sub-1_{name}.nii.gz")
    volume("raw/sub-2/anat/sub-2_T1w.nii.gz"), volume("raw/sub-2/ses-1/anat/sub-2_ses-1_T1w.nii.gz")
    folder = "raw/derivatives/manual"
    label(
        f"{folder}/sub-1/anat/sub-1_space-T1w_dseg.nii.gz"
    )  # for every T1w image, but that of run 2 has its own
    label(f"{folder}/sub-1/anat/sub-1_run-2_space-T1w_dseg.nii.gz")
    label(f"{folder}/sub-1/anat/sub-1_space-MNI_dseg.nii.gz")
    label(f"{folder}/sub-1/anat/sub-1_label-lesion_mask.nii.gz")
    label(f"{folder}/sub-2/anat/sub-2_space-orig_desc-b_dseg.nii.gz")
    label(f"{folder}/sub-2/anat/sub-2_space-orig_desc-a_dseg.nii.gz")
    (tmp_path / f"{folder}/sub-2/anat/sub-2_dseg.json").write_text("{}")
    found = {case["name"]: Path(case.get("label", "none")).name for case in find_cases(tmp_path / "raw")}
    assert found == {
        "sub-1_T1w": "sub-1_space-T1w_dseg.nii.gz",
        "sub-1_FLAIR": "none",
        "sub-1_run-2_T1w": "sub-1_run-2_space-T1w_dseg.nii.gz",
        "sub-1_space-MNI_T1w": "sub-1_space-MNI_dseg.nii.gz",
        "sub-2_T1w": "sub-2_space-orig_desc-a_dseg.nii.gz",
        "sub-2_ses-1_T1w": "none",
    }
    assert "labels: 1 case(s) have several dseg files" in caplog.text


def test_labels_are_of_their_own_data_set(tmp_path, volume, label):
    for site in ("a", "b"):
        volume(f"all/{site}/sub-1/anat/sub-1_T1w.nii.gz")
    label("all/b/derivatives/x/sub-1/sub-1_dseg.nii.gz")
    found = {case["name"]: case.get("label", "none") for case in find_cases(tmp_path / "all")}
    assert found["a/sub-1/anat/sub-1_T1w"] == "none"
    assert found["b/sub-1/anat/sub-1_T1w"].endswith("b/derivatives/x/sub-1/sub-1_dseg.nii.gz")
    joined = find_cases(tmp_path / "all", modalities="T1w")
    assert [case["name"] for case in joined] == ["a/sub-1/sub-1", "b/sub-1/sub-1"]


def test_modalities_that_are_not_there(bids, tmp_path, volume):
    with pytest.raises(
        UserError, match=r"none of the 10 sessions .* of T1w, T2w; found FLAIR \(10\), T1w \(10\)"
    ):
        find_cases(bids, modalities=["T1w", "T2w"])
    volume("plain/a.nii.gz")
    with pytest.raises(
        UserError, match=r"none of the 0 sessions in .*found no BIDS names; expected names as sub-01"
    ):
        find_cases(tmp_path / "plain", modalities="T1w")
    (tmp_path / "plain/dataset.json").write_text(json.dumps({"training": ["a.nii.gz"]}))
    with pytest.raises(UserError, match=r"modalities: found T1w, but .*dataset\.json lists the cases"):
        find_cases(tmp_path / "plain", modalities="T1w")
    for wrong in ([1], ["T1w", "T1w"], ["T1 w"]):
        with pytest.raises(UserError, match=r"modalities: found .*, expected distinct BIDS suffixes"):
            check_modalities(wrong)
    assert check_modalities(None) == check_modalities("") == check_modalities([]) == []
