"""Tests of who a volume is of: CSV files, and names that look like several volumes of one subject."""

import logging

import pytest
from pretext3d.data.splits import split_cases
from pretext3d.data.subjects import (
    by_subject,
    case_code,
    interleaved,
    set_subjects,
    similar_names,
    subject_code,
    subject_count,
    warn_ungrouped,
)
from pretext3d.errors import UserError

CASES = [{"id": f"a/{n}", "name": n, "source": "a"} for n in ("s1_ed", "s1_es", "s2_ed")]


def write(tmp_path, text):
    path = tmp_path / "people.csv"
    path.write_text(text)
    return str(path)


def test_subjects_of_a_csv(tmp_path):
    found = set_subjects(CASES, write(tmp_path, "age,id,subject\n61,s1_ed,s1\n61,a/s1_es,s1\n"))
    assert [case["subject"] for case in found] == ["s1", "s1", "s2_ed"]
    assert "subject" not in CASES[0]
    listed = set_subjects(
        [{**CASES[0], "subject": "x"}, *CASES[1:]], write(tmp_path, "image,subject\nb/s1_es.nii.gz,x\n")
    )
    assert [case["subject"] for case in listed] == ["x", "x", "s2_ed"]  # a case without a line keeps its own
    assert subject_count(listed) == "2 (3)"
    slices = [{**case, "id": f"{case['id']}/{n}", "volume": case["id"]} for case in listed for n in range(4)]
    assert subject_count(slices, unit=True) == "2 subjects (3 volumes)"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"subjects: .*people\.csv not found; expected a CSV file with the columns id and subject"),
        (
            "id,who\ns1_ed,a\n",
            r"people\.csv: found the columns \['id', 'who'\], expected 'subject' and one of id, case, name",
        ),
        ("id,subject\ns1_ed,a\ns9,b\n", r"people\.csv: 1 of 2 cases are not in dataset_dir, e\.g\. 's9'"),
        ("id,subject\ns1_ed,a\ns1_ed,b\n", r"line 3: case 's1_ed' has subject 'b' here, 'a' above"),
        ("id,subject\ns1_ed\n", r"line 2: found case 's1_ed' and subject '', expected both"),
    ],
)
def test_bad_files(tmp_path, text, message):
    path = write(tmp_path, text) if text is not None else str(tmp_path / "people.csv")
    with pytest.raises(UserError, match=message):
        set_subjects(CASES, path)


def test_the_file_of_a_larger_data_set(tmp_path, caplog):
    """Every case has a line: the others are those of cases that are elsewhere."""
    lines = "".join(f"{name},x\n" for name in ("s1_ed", "s1_es", "s2_ed", "s3_ed"))
    found = set_subjects(CASES, write(tmp_path, f"id,subject\n{lines}"))
    assert [case["subject"] for case in found] == ["x"] * 3
    assert "people.csv: 1 of 4 cases are not in dataset_dir, e.g. 's3_ed'; every case" in caplog.text


def test_a_file_that_is_no_text(tmp_path):
    (tmp_path / "people.csv").write_bytes(b"id,subject\n\xff\xfe\x00,a\n")
    with pytest.raises(UserError, match="cannot be read as CSV"):
        set_subjects(CASES, str(tmp_path / "people.csv"))


def test_a_subject_of_the_csv_is_the_same_in_all_data_sets(tmp_path):
    cases = [{"id": f"{s}/{n}", "name": n, "source": s} for s in "ab" for n in ("s1", "s2")]
    path = write(tmp_path, "id,subject\na/s1,anna\nb/s2,anna\n")
    groups = by_subject(set_subjects(cases, path))
    assert [[case["id"] for case in group] for group in groups.values()] == [
        ["a/s1", "b/s2"],
        ["a/s2"],
        ["b/s1"],
    ]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["patient001_ed", "patient001_es"], {"patient001": 2}),
        (["s01_t1", "s01_t2", "s02_t1"], {"s01": 2}),
        (["x-left", "x-right"], {"x": 2}),
        (["patient001", "patient001_ES"], {"patient001": 2}),
        (["s01_visit1", "s01_visit2"], {"s01": 2}),
        (["s01_t1_visit1", "s01_t1_visit2"], {"s01": 2}),
        (["ms01_t1w_uint16", "ms01_t2w_uint16", "ms01_flair_uint16"], {"ms01_uint16": 3}),
        (["p1/t1", "p1/t2", "p2/t1"], {"p1": 2}),
        ([f"p{i:02d}_{v}" for i in range(3) for v in (1, 2)], {"p00": 2, "p01": 2, "p02": 2}),
        ([f"p{i:02d}_{v}" for i in range(3) for v in ("aa", "bb")], {"p00": 2, "p01": 2, "p02": 2}),
        (["sub-01_ses-1_T1w", "sub-01_ses-2_T1w", "sub-02_ses-1_T1w"], {"sub-01": 2}),
        (
            [f"patient{i:03d}_frame{f:02d}" for i, f in ((1, 1), (1, 12), (2, 1), (2, 14))],
            {"patient001": 2, "patient002": 2},
        ),
    ],
)
def test_names_of_several_volumes_of_a_subject(names, expected):
    assert {subject: len(found) for subject, found in similar_names(names).items()} == expected


@pytest.mark.parametrize(
    "names",
    [
        [f"hippocampus_{i:03d}" for i in range(9)],
        [f"scan_{i:04d}" for i in range(3)],
        [f"case{i}" for i in range(9)],
        [f"head_{i:02d}" for i in range(9)],
        ["lgg_DU_5851", "lgg_DU_5853", "lgg_HT_5851", "lgg_HT_8018"],
        [f"BraTS20_Training_{i:03d}" for i in range(9)],
        [f"ct_train_{i}" for i in range(1001, 1009)],
        [f"site{s}_{i:03d}" for s in (1, 2) for i in range(9)],
        [f"IXI{i:03d}-Guys-{i + 700:04d}-T1" for i in range(9)],
        [f"study_scan{i}" for i in range(5)],
        ["eye_00291a03", "eye_007f1984", "eye_008a55fb"],
        ["t1", "t2", "flair"],
        [f"sub-{i:02d}_T1w" for i in range(5)],
        [f"subject{i:02d}_left" for i in range(5)],
        ["ct_heart_1p5mm_LPS", "ct_thorax_1p5mm_LPS"],
        ["a", "b", ""],
        [],
    ],
)
def test_names_of_a_volume_per_subject(names):
    assert similar_names(names) == {}


def test_one_warning_says_how_to_group_volumes(caplog):
    heart = [f"patient{i:03d}_{phase}" for i in range(1, 4) for phase in ("ed", "es")]
    cases = [{"id": n, "name": n, "source": "a"} for n in heart]
    others = [{"id": n, "name": n, "source": "b"} for n in ("x_left", "x_right", "y")]
    with caplog.at_level(logging.WARNING):
        warn_ungrouped([*cases, *others])
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith("subjects: 8 of 9 cases look by their names like several of one subject")
    assert "--subjects FILE.csv with the columns id,subject and lines as patient001_ed,patient001" in message
    caplog.clear()
    warn_ungrouped([{**case, "subject": case["name"]} for case in cases])  # somebody said who is who
    assert not caplog.records


def test_the_file_of_the_classes_may_say_who_is_who(tmp_path, caplog):
    """Two of three pictures are of one person by the column subject; no names are alike."""
    cases = [{"id": name, "name": name, "source": "a"} for name in ("apple", "pear", "plum")]
    file = tmp_path / "classes.csv"
    file.write_text("id,class,subject\napple,red,p1\npear,green,p1\nplum,blue,p2\n")
    warn_ungrouped(cases, str(file))
    (message,) = caplog.messages
    assert message.startswith(f"subjects: 2 of 3 cases share a subject in the column subject of {file}, but")
    assert message.endswith(f"give --subjects {file}")
    caplog.clear()
    warn_ungrouped([{**cases[0], "subject": "p1"}, *cases[1:]], str(file))  # --subjects was given
    for text in ("id,class\napple,red\n", "id,class,subject\napple,red,\n", "id,class,subject\nplum,red,p\n"):
        file.write_text(text)
        warn_ungrouped(cases, str(file))
    warn_ungrouped(cases, str(tmp_path / "missing.csv"))
    assert not caplog.records


def test_codes_follow_subjects_and_data_sets() -> None:
    """Eyes of one person agree; equal names in two data sets do not, unless a CSV file identifies them."""
    left, right = (
        {"id": side, "subject": "p", "source": "/scans/a", "source_name": "a"} for side in ("left", "right")
    )
    elsewhere = {**left, "source": "/scans/b", "source_name": "b"}
    assert subject_code(left) == subject_code(right)
    assert case_code(left) != case_code(right)
    assert subject_code(left) != subject_code(elsewhere)
    assert subject_code(left) == subject_code({**left, "source": "/moved/a"})
    assert subject_code({**left, "subject_scope": ""}) == subject_code({**elsewhere, "subject_scope": ""})
    assert len({subject_code({"id": str(n)}) for n in range(1000)}) == 1000
    assert 0 <= subject_code(left) < 2**32


def test_interleaved_cases_are_all_there_once() -> None:
    cases = [{"id": name, "subject": name[0]} for name in ("a0", "a1", "a2", "b0")]
    assert [case["id"] for case in interleaved(cases)] == ["a0", "b0", "a1", "a2"]
    assert interleaved([]) == []


def test_folds_of_a_csv(tmp_path):
    """All cases of a subject are in its fold; those without a line train in every fold."""
    cases = [*CASES, {"id": "a/s3", "name": "s3", "source": "a", "fold": 4}]
    listed = set_subjects(cases, write(tmp_path, "id,subject,fold\ns1_ed,s1,1\ns2_ed,s2,0\n"))
    assert [case["fold"] for case in listed] == [1, -1, 0, -1]
    both = set_subjects(cases, write(tmp_path, "id,subject,fold\ns1_ed,s1,1\ns1_es,s1,1\ns2_ed,s2,0\n"))
    assert [case["fold"] for case in both] == [1, 1, 0, -1]
    split = split_cases(both, fold=1)
    assert [[case["name"] for case in part] for part in split] == [["s2_ed", "s3"], ["s1_ed", "s1_es"], []]
    with pytest.raises(UserError, match=r"fold: found 2, expected one of the datalist's folds \[0, 1\]"):
        split_cases(both, fold=2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,subject,fold\ns1_ed,s1,first\n", "case a/s1_ed: found fold 'first', expected an integer from 0"),
        (
            "id,subject,fold\ns1_ed,s1,0\ns1_es,s1,1\n",
            "subject s1: found the folds 0 and 1, expected all cases of a subject in one",
        ),
        ("id,subject,fold\ns1_ed,s1,\n", "line 2: found case 's1_ed' and fold ''"),
    ],
)
def test_bad_folds(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        set_subjects(CASES, write(tmp_path, text))
