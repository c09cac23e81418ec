import pytest
from pretext3d.data.classes import are_ordered, classified_cases
from pretext3d.errors import UserError

CASES = [{"id": f"a/{n}", "name": n, "image": f"x/{n}.nii.gz"} for n in ("s1", "s2", "s3", "s4")]


def write(tmp_path, text):
    path = tmp_path / "classes.csv"
    path.write_text(text)
    return str(path)


def classes_of(found):
    return {case["name"]: case["class"] for case in found}


def test_from_a_file(tmp_path):
    found, names = classified_cases(
        CASES, write(tmp_path, "id,age,class\ns1,3,tumour\ns3,4,healthy\na/s4,1,tumour\n")
    )
    assert names == ["healthy", "tumour"]
    assert classes_of(found) == {"s1": 1, "s3": 0, "s4": 1}  # s2 has none
    assert "class" not in CASES[0]


def test_image_files_and_numbers(tmp_path):
    found, names = classified_cases(CASES, write(tmp_path, "image,class\nx/s1.nii.gz,10\ns2.nii.gz,9\n"))
    assert names == ["9", "10"]  # as numbers, not as text
    assert classes_of(found) == {"s1": 1, "s2": 0}


def test_cases_without_a_class_are_named(tmp_path, caplog):
    cases = [{**case, "class": "ill"} for case in CASES[:3]] + CASES[3:]
    file = write(tmp_path, "id,class\ns1,a\ns2,b\n")
    classified_cases(cases, file)
    assert caplog.messages == [
        f"2 of 4 cases have no class in {file} and are left out: a/s3, a/s4; the datalist has a class for 1 "
        "of them, which the file replaces"
    ]


def test_from_the_datalist():
    cases = [{**case, "class": value} for case, value in zip(CASES, (1, 0, 1, 1), strict=True)]
    found, names = classified_cases([*cases, {"id": "n", "name": "n"}])
    assert names == ["0", "1"]
    assert classes_of(found) == {"s1": 1, "s2": 0, "s3": 1, "s4": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "id,kind\ns1,a\n",
            r"classes\.csv: found the columns \['id', 'kind'\], expected 'class' and one of id",
        ),
        (
            "id,class\ns1,a\ns9,b\n",
            r"classes\.csv: 1 of 2 cases are not in dataset_dir, e\.g\. 's9'; expected names such as 's1'",
        ),
        ("id,class\ns1,a\ns1,b\n", r"line 3: case 's1' has class 'b' here, 'a' above"),
        ("id,class\ns1,\n", r"line 2: found case 's1' and class ''"),
        (
            "id,class\ns1,a\ns2,a\n",
            r"class_file: found 2 cases of 1 classes in .*classes\.csv, expected 2 or more",
        ),
    ],
)
def test_bad_files(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        classified_cases(CASES, write(tmp_path, text))


def test_no_file():
    with pytest.raises(UserError, match=r"class_file: gone\.csv not found"):
        classified_cases(CASES, "gone.csv")
    with pytest.raises(UserError, match="found 0 cases of 0 classes in the datalist's field 'class'"):
        classified_cases(CASES)


GRADED = [{"id": n, "name": n, "class": n} for n in ("mild", "none", "severe")]


def test_grades_keep_their_order():
    found, names = classified_cases(GRADED, ordered_classes=["none", "mild", "severe"])
    assert names == ["none", "mild", "severe"]
    assert classes_of(found) == {"none": 0, "mild": 1, "severe": 2}
    assert are_ordered(names, names)
    assert classified_cases(GRADED)[1] == ["mild", "none", "severe"]


def test_what_is_ordered():
    """Three or more integers are, unless the key says otherwise; of two classes an order says nothing."""
    assert are_ordered(["0", "1", "2"])
    assert not are_ordered(["0", "1", "2"], False)
    assert not are_ordered(["0", "1"])
    assert not are_ordered(["NOR", "DCM", "RV"])
    assert are_ordered(["0", "1"], [0, 1])


@pytest.mark.parametrize("order", [True, "none", ["none"]])
def test_an_order_is_a_list_of_names(order):
    with pytest.raises(
        UserError, match=r"ordered_classes: found .*, expected the classes in ascending order"
    ):
        classified_cases(GRADED, ordered_classes=order)


@pytest.mark.parametrize("order", [["none", "mild"], ["none", "mild", "severe", "grave"], ["none"] * 3])
def test_an_order_has_all_classes_once(order):
    with pytest.raises(
        UserError, match=r"ordered_classes: .*expected each class of the cases once: mild, no"
    ):
        classified_cases(GRADED, ordered_classes=order)
