"""Tests of the one call that a configuration makes."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from pretext3d.data.checks import NOT_A_SLICE
from pretext3d.data.prepare import listing, prepare_cases
from pretext3d.data.spacing import choose_pixdim
from pretext3d.errors import UserError


@pytest.fixture
def prepare(tmp_path):
    def call(dataset_dir, **kwargs):
        return prepare_cases(
            dataset_dir, cache_dir=str(tmp_path / "cache"), **{"roi_size": [4, 4, 4], **kwargs}
        )

    return call


def ids(cases):
    return [c["id"] for c in cases]


def test_pretraining(msd, prepare):
    ready = prepare(msd())
    assert (len(ready["train"]), len(ready["val"]), ready["channels"], ready["bad"]) == (8, 2, 1, [])
    # extents 5x1, 6x2, 7x3 mm: mean (5 * 12 * 21)^(1/3) = 10.80; / (1.5 * 4) = 1.80 mm, above 1 mm
    assert ready["pixdim"] == [1.8, 1.8, 1.8]
    assert (ready["num_classes"], ready["class_names"]) == (0, [])
    assert json.loads(json.dumps(ready)) == ready  # plain values alone


def test_guided_pretraining_takes_the_labelled_cases_alone(msd, prepare, volume, caplog):
    folder = msd({"0": "background", "2": "tumour"})
    volume("msd/imagesTr/plain.nii.gz")
    listed = json.loads((Path(folder) / "dataset.json").read_text())
    listed["training"].append({"image": "imagesTr/plain.nii.gz"})
    (Path(folder) / "dataset.json").write_text(json.dumps(listed))
    guided = prepare(folder, purpose="guided", label_fraction=0.5)
    assert "left out: plain: no label" in caplog.text
    tuned = prepare(folder, purpose="finetuning", label_fraction=0.5)
    assert ids(guided["train"]) == ids(tuned["train"])
    assert ids(guided["val"]) == ids(tuned["val"])
    assert (guided["num_classes"], guided["class_names"]) == (2, ["background", "tumour"])
    assert "plain" in ids(prepare(folder)["train"] + prepare(folder)["val"])


def test_guided_pretraining_without_labels_says_what_to_do(prepare, volume, tmp_path):
    volume("scans/a.nii.gz"), volume("scans/b.nii.gz")
    expected = r"0 good ones to train on and 0 held out.*\(a, b: no label\); without labels take an arm"
    with pytest.raises(UserError, match=expected):
        prepare(str(tmp_path / "scans"), purpose="guided")


def test_finetuning_holds_out_what_pretraining_did(msd, prepare):
    folder = msd()
    before, after = (
        prepare(folder, split_seed=3),
        prepare(folder, purpose="finetuning", split_seed=3, num_labelled=4),
    )
    assert ids(before["val"]) == ids(after["val"])
    assert len(after["train"]) == 4
    assert set(ids(after["train"])) <= set(ids(before["train"]))
    assert prepare(folder + "/imagesTr", split_seed=3)["val"][0]["id"] in ids(before["val"])
    assert ids(prepare(folder, split_seed=4)["val"]) != ids(before["val"])


@pytest.fixture
def visits(tmp_path, volume, label):
    """Ten subjects with two labelled volumes each; `subject` in the datalist on demand."""

    def make(listed=True):
        names = [(f"p{i}", f"p{i}_{phase}") for i in range(10) for phase in ("ed", "es")]
        for _, name in names:
            volume(f"visits/imagesTr/{name}.nii.gz"), label(f"visits/labelsTr/{name}.nii.gz")
        training = [
            {
                "image": f"imagesTr/{n}.nii.gz",
                "label": f"labelsTr/{n}.nii.gz",
                **({"subject": s} if listed else {}),
            }
            for s, n in names
        ]
        (tmp_path / "visits/dataset.json").write_text(json.dumps({"training": training}))
        return str(tmp_path / "visits")

    return make


def subjects_of(cases):
    return {case["id"].split("_")[0] for case in cases}


def test_labels_and_splits_are_counted_by_subject(visits, prepare, caplog):
    with caplog.at_level(logging.INFO):
        ready = prepare(visits(), purpose="finetuning", num_labelled=3, test_fraction=0.2)
    assert [len(ready[part]) for part in ("train", "val", "test")] == [6, 4, 4]
    people = [subjects_of(ready[part]) for part in ("train", "val", "test")]
    assert [len(found) for found in people] == [3, 2, 2]
    assert len(set.union(*people)) == 7
    assert (
        "finetuning: 3 subjects (6 volumes) of 6 (12) to train on, 2 (4) held out, 2 (4) to test on, 0 bad;"
        in caplog.text
    )
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    with pytest.raises(
        UserError, match="num_labelled: found 9, expected at most 8, the labelled training subj"
    ):
        prepare(visits(), purpose="finetuning", num_labelled=9)


def test_where_each_subject_has_a_volume_only_subjects_are_counted(msd, prepare, caplog):
    with caplog.at_level(logging.INFO):
        prepare(msd(), purpose="finetuning", num_labelled=3)
        prepare(msd())
    assert (
        "finetuning: 3 subjects of 8 to train on, 2 held out, 0 to test on, 0 bad; 1 channel(s)"
        in caplog.text
    )
    assert "pretraining: 8 subjects to train on, 2 held out, 0 to test on, 0 bad; 1 channel(s)" in caplog.text


def test_the_test_set_is_the_same_for_every_purpose_and_fold(visits, prepare):
    folder = visits()
    keys = {"test_fraction": 0.2, "split_seed": 4}
    before = prepare(folder, **keys)
    after = prepare(folder, purpose="finetuning", fold=2, num_labelled=2, **keys)
    assert ids(before["test"]) == ids(after["test"])
    assert len(before["test"]) == 4
    assert not set(ids(before["test"])) & set(ids(before["train"] + before["val"]))
    assert not set(ids(after["test"])) & set(ids(after["train"] + after["val"]))
    assert prepare(folder)["test"] == []


def test_a_csv_says_who_is_who(visits, prepare, tmp_path, caplog):
    caplog.set_level(logging.WARNING)  # another test of this process may have asked for more
    folder = visits(listed=False)
    prepare(folder)
    assert [r.getMessage()[:40] for r in caplog.records] == ["subjects: 20 of 20 cases look by their n"]
    caplog.clear()
    lines = ["id,subject", *(f"p{i}_{phase},person {i}" for i in range(10) for phase in ("ed", "es"))]
    (tmp_path / "people.csv").write_text("\n".join(lines))
    ready = prepare(folder, subjects=str(tmp_path / "people.csv"), purpose="finetuning", num_labelled=4)
    assert not caplog.records
    assert len(subjects_of(ready["train"])) == 4
    assert len(ready["train"]) == 8
    assert len(subjects_of(ready["val"])) == 2
    assert len(ready["val"]) == 4


def test_one_subject_cannot_be_split(prepare, volume, tmp_path):
    volume("one/sub-1/anat/sub-1_T1w.nii.gz"), volume("one/sub-1/anat/sub-1_FLAIR.nii.gz")
    with pytest.raises(
        UserError, match=r"2 cases of 1 subject found in .* 2 good ones to train on and 0 held"
    ):
        prepare(str(tmp_path / "one"))


def test_classes(msd, prepare, caplog):
    """Every label of the data set holds 0 and 2."""
    found = prepare(msd(), purpose="finetuning")
    assert (found["num_classes"], found["class_names"]) == (2, ["background", "label 2"])
    assert found["labels"] == {"values": [0, 2]}
    assert "no training case" not in caplog.text
    declared = prepare(msd({"0": "background", "2": "tumour", "3": "cyst"}), purpose="finetuning")
    assert (declared["num_classes"], declared["class_names"]) == (3, ["background", "tumour", "cyst"])
    assert declared["labels"] == {"values": [0, 2, 3]}
    assert "no training case has cyst (label value 3)" in caplog.text


def test_classification_holds_out_what_pretraining_did(msd, prepare, tmp_path):
    folder = msd()
    before = prepare(folder, split_seed=3)
    held = ids(before["val"])
    lines = [f"case{i},{'old' if i % 2 else 'young'}" for i in range(10) if f"case{i}" != held[0]]
    (tmp_path / "classes.csv").write_text("\n".join(["id,class", *lines]))
    after = prepare(
        folder,
        purpose="classification",
        split_seed=3,
        class_file=str(tmp_path / "classes.csv"),
        num_labelled=4,
    )
    assert (after["num_classes"], after["class_names"]) == (2, ["old", "young"])
    assert ids(after["val"]) == held[1:]
    assert len(after["train"]) == 4
    assert set(ids(after["train"])) <= set(ids(before["train"]))
    assert all(
        case["class"] == ["old", "young"].index("old" if int(case["id"][-1]) % 2 else "young")
        for case in after["train"] + after["val"]
    )


def test_bad_cases_are_left_out_of_pretraining_with_a_line_each(msd, prepare, volume, caplog):
    folder = msd()
    held = ids(prepare(folder)["val"])
    name = next(f"case{i}" for i in range(10) if f"case{i}" not in held)
    volume(f"msd/imagesTr/{name}.nii.gz", np.zeros((5, 6, 7), np.int16))
    with caplog.at_level(logging.WARNING):
        ready = prepare(folder)
    assert ready["bad"] == [[name, "empty: every voxel is 0"]]
    assert ids(ready["val"]) == held  # a bad case does not move the split
    assert len(ready["train"]) == 7
    assert [r.getMessage() for r in caplog.records] == [
        f"left out: {name}: empty: every voxel is 0",
        "left out: 1 of 10 cases",
    ]
    with pytest.raises(UserError, match=rf"1 of 10 labelled cases are bad \({name}: empty.*skip_bad: True"):
        prepare(folder, purpose="finetuning")
    assert len(prepare(folder, purpose="finetuning", skip_bad=True)["train"]) == 7


def test_labels_without_any_foreground(msd, prepare, label):
    folder = msd()
    for i in range(10):
        label(f"msd/labelsTr/case{i}.nii.gz", 0)
    with pytest.raises(UserError, match="every voxel of the labels of all 8 training cases is 0"):
        prepare(folder, purpose="finetuning")
    label("msd/labelsTr/case0.nii.gz", 1)
    label("msd/labelsTr/case1.nii.gz", 1)
    label("msd/labelsTr/case2.nii.gz", 1)
    assert prepare(folder, purpose="finetuning")["num_classes"] == 2  # the others are healthy controls


def test_landmarks_of_some_cases_only_are_told(msd, prepare, caplog):
    folder = Path(msd())
    content = json.loads((folder / "dataset.json").read_text())
    for entry in content["training"]:
        entry["landmark"] = [1.0, 2.0, 3.0]
    (folder / "dataset.json").write_text(json.dumps(content))
    with caplog.at_level(logging.WARNING):
        lacks = prepare(str(folder))["train"][0]["id"]
    assert not caplog.records
    del content["training"][int(lacks.removeprefix("case"))]["landmark"]
    (folder / "dataset.json").write_text(json.dumps(content))
    with caplog.at_level(logging.WARNING):
        prepare(str(folder))
    assert [r.getMessage() for r in caplog.records] == [
        f"landmark: 1 of 8 training cases have none ({lacks}): their volume's centre is used instead"
    ]


def test_nothing_good_is_an_error_with_the_reasons(tmp_path, volume, prepare):
    volume("x/a.nii.gz", np.zeros((5, 6, 7), np.int16)), volume("x/b.nii.gz")
    with pytest.raises(
        UserError,
        match=r"2 cases found .* expected at least one of each; all 1 held-out cases are bad .a: empty",
    ):
        prepare(str(tmp_path / "x"))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"purpose": "training"}, "purpose: found 'training'"),
        ({"num_labelled": 9, "purpose": "finetuning"}, "num_labelled: found 9, expected at most 8"),
        ({"label_fraction": 1.5, "purpose": "finetuning"}, "label_fraction: found 1.5"),
        ({"val_fraction": 1}, "val_fraction: found 1"),
        ({"fold": 7}, "fold: found 7"),
        ({"channels": [0, 0]}, "channels: found"),
        ({"pixdim": "fine"}, "pixdim: found 'fine', expected 'fit', {fit: 1.5}, {fit_each: 1.5}, 'median'"),
        ({"pixdim": [1, 2]}, r"pixdim: found \[1, 2\]"),
        ({"pixdim": -1}, "pixdim: found -1"),
        ({"pixdim": {"fit": 0}}, r"pixdim: found {'fit': 0}, expected 'fit', {fit: 1.5}"),
        ({"pixdim": {"median": 2}}, r"pixdim: found {'median': 2}, expected"),
        ({"pixdim": {"fit_each": -1}}, r"pixdim: found {'fit_each': -1}, expected"),
        ({"pixdim": {"fit": 1, "fit_each": 1}}, r"pixdim: found {'fit': 1, 'fit_each': 1}, expected"),
        ({"pixdim": {}}, r"pixdim: found {}, expected"),
        ({"roi_size": None}, "roi_size: found None, pixdim: fit needs"),
        ({"roi_size": [0, 4, 4]}, "roi_size: found"),
        (
            {"channels": [1]},
            r"channels: found \[1\], but no volume has more than 1 channel.s.; expected indices from 0 to 0",
        ),
    ],
)
def test_wrong_keys(msd, prepare, keys, message):
    with pytest.raises(UserError, match=message):
        prepare(msd(), **keys)


@pytest.mark.parametrize(
    ("pixdim", "expected"),
    [
        ([1, 2, 3.5], [1.0, 2.0, 3.5]),
        (2, [2.0, 2.0, 2.0]),
        (0.5, [0.5, 0.5, 0.5]),
        ("native", []),
        (None, []),
        ([], []),
        ("median", [1.0, 1.0, 4.0]),
    ],
)
def test_pixdim(pixdim, expected):
    shapes = [[100, 100, 25], [100, 100, 50], [50, 50, 50]]
    spacings = [[1, 1, 4], [1, 1, 4], [3, 3, 2]]
    assert choose_pixdim(pixdim, shapes, spacings, [32, 32, 32]) == expected


def test_pixdim_fit_of_a_number_of_crops():
    # 100 mm along every axis; 2.5 crops of 16 voxels are 40 voxels: 2.5 mm
    assert choose_pixdim({"fit": 2.5}, [[100, 100, 25]] * 3, [[1, 1, 4]] * 3, 16) == [2.5, 2.5, 2.5]


def test_pixdim_fit_is_never_finer_than_the_volumes():
    # extents 100x100x100 mm; crop 96: 100 / (1.5 * 96) = 0.69 mm, but most volumes have no voxel under 1 mm
    assert choose_pixdim("fit", [[100, 100, 25]] * 3, [[1, 1, 4]] * 3, [96, 96, 96]) == [1.0, 1.0, 1.0]
    # crop 32: 100 / 48 = 2.083
    assert choose_pixdim("fit", [[100, 100, 25]] * 3, [[1, 1, 4]] * 3, 32) == [2.08, 2.08, 2.08]


def test_pixdim_fit_along_each_axis():
    # extents 100, 120, 60 mm; 2.5 crops of 16, 16, 8 voxels: 100 / 40, 120 / 40, 60 / 20 mm
    shapes, spacings = [[100, 120, 15]] * 3, [[1, 1, 4]] * 3
    assert choose_pixdim({"fit_each": 2.5}, shapes, spacings, [16, 16, 8]) == [2.5, 3.0, 3.0]
    # 100, 120 and 60 voxels of 1, 1.2 and 0.6 mm, but most volumes have none under 1 mm
    assert choose_pixdim({"fit_each": 2}, shapes, spacings, 50) == [1.0, 1.2, 1.0]


def test_phantom_without_dataset_dir(prepare, tmp_path, monkeypatch, volume, label):
    phantom = pytest.importorskip("pretext3d.phantom.phantom")

    def write(root, *args, **kwargs):
        for name in "abcde":
            volume(f"cache/phantom/imagesTr/{name}.nii.gz"), label(f"cache/phantom/labelsTr/{name}.nii.gz")
        return root

    monkeypatch.setattr(phantom, "write_phantom", write)
    assert prepare("", purpose="finetuning")["num_classes"] == 2
    assert len(prepare(None)["train"]) == 4


@pytest.mark.real_data
def test_four_labelled_hearts_are_eight_volumes(real_data, prepare, caplog):
    with caplog.at_level(logging.INFO):
        ready = prepare(str(real_data / "heart"), purpose="finetuning", num_labelled=4, roi_size=32)
    assert len(ready["train"]) == 8
    assert len({case["subject"] for case in ready["train"]}) == 4
    assert "finetuning: 4 subjects (8 volumes) of 56 (112) to train on, 14 (28) held out" in caplog.text


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "channels", "classes", "train", "val", "pixdim"),
    [
        ("structures", 1, 3, 146, 36, 1.0),
        ("brain_lesions", 3, 2, 29, 7, 2.58),
        ("brain_structures", 1, 12, 11, 3, 2.84),
    ],
)
def test_real_data_sets_are_whole(real_data, prepare, name, channels, classes, train, val, pixdim):
    ready = prepare(str(real_data / name), purpose="finetuning", roi_size=[48, 48, 48])
    assert (ready["channels"], ready["num_classes"], ready["bad"]) == (channels, classes, [])
    assert (len(ready["train"]), len(ready["val"]), ready["pixdim"]) == (train, val, [pixdim] * 3)


def test_it_is_said_where_all_held_out_cases_are_bad(msd, prepare, volume):
    folder = msd()
    held = ids(prepare(folder)["val"])
    for name in held:
        volume(f"msd/imagesTr/{name}.nii.gz", np.zeros((5, 6, 7), np.int16))
    with pytest.raises(UserError, match=rf"0 held out; .* each; all {len(held)} held-out cases are bad \("):
        prepare(folder)


def test_the_listing_has_the_cases_of_the_part_that_lost_all(msd, prepare, volume):
    folder = msd()
    found = prepare(folder)
    other = ids(found["train"])[0]
    for name in [*ids(found["val"]), other]:
        volume(f"msd/imagesTr/{name}.nii.gz", np.zeros((5, 6, 7), np.int16))
    with pytest.raises(UserError, match="held-out cases are bad") as caught:
        prepare(folder)
    assert other not in str(caught.value).partition("cases are bad (")[2]


def test_the_listing_of_bad_cases_stays_short():
    """Five reasons with three cases each, then the number of the others."""
    bad = [({"id": f"{reason}{i}"}, f"reason {reason}") for reason in "abcdefg" for i in range(4)]
    parts = [f"{r}0, {r}1, {r}2 and 1 more: reason {r}" for r in "abcde"]
    assert listing(bad) == "; ".join([*parts, "and 8 more, see the log above"])
    assert listing(bad[:2]) == "a0, a1: reason a"


def test_volumes_of_several_sizes_have_one_reason_in_2d():
    bad = [({"id": f"v{n}"}, f"volume: {n} x 8 x 8 voxels, {NOT_A_SLICE}") for n in (4, 5)]
    assert listing(bad) == f"v4, v5: volume: {NOT_A_SLICE}"
