"""The functions of the preview command, each alone: arguments, the cases and the sheet, the next command."""

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pretext3d.commands.preview import options, preview

from tests.bundles.command import BUNDLES


def test_sheet_by_hand() -> None:
    one, two = np.full((1, 2, 3), 7, np.uint8), np.full((1, 1, 3), 9, np.uint8)
    # 3 pictures, height 1, width 2: ceil(sqrt(3 / 2)) = 2 columns, 2 rows; the rest as the first's corner
    expected = [[7, 7, 9, 7], [7, 7, 7, 7]]
    assert preview.sheet([one, two, one])[..., 0].tolist() == expected
    # one picture of height 3, width 1: ceil(sqrt(3)) = 2 columns, of which one would be empty
    assert preview.sheet([np.zeros((3, 1, 3), np.uint8)]).shape == (3, 1, 3)


def test_cases_are_spread() -> None:
    assert preview.choose(2, 1, 0) == [("train", 0), ("train", 1), ("validate", 0)]
    assert preview.choose(2, 1, 5) == preview.choose(2, 1, 0)
    # 10 cases, 2 of them: 0.5 * 5 = 2.5 and 1.5 * 5 = 7.5
    assert preview.choose(7, 3, 2) == [("train", 2), ("validate", 0)]


def test_arguments_are_read_as_in_a_run() -> None:
    known, overrides = options.parse_arguments(
        [
            "--bundle",
            "b",
            "--roi_size",
            "[32,32,16]",
            "--a::b=1e-3",
            "--boundary",
            "False",
            "--flag",
            "--name",
            "x y",
        ]
    )
    assert known.bundle == "b"
    assert overrides == {
        "roi_size": [32, 32, 16],
        "a::b": 1e-3,
        "boundary": False,
        "flag": True,
        "name": "x y",
    }


@pytest.mark.parametrize(
    ("name", "axes", "named", "folder"),
    [
        ("rotation", 2, "", "models/2d"),
        ("rotation", 3, "", ""),
        ("avsdb", 3, "", ""),
        ("avsdb", 2, "", "models/2d"),
        ("avsdb", 3, "models/transformer", "models/transformer"),
    ],
)
def test_the_next_command_has_the_weights_that_were_drawn(
    name: str, axes: int, named: str, folder: str
) -> None:
    bundle = BUNDLES / name
    given = ["--bundle", str(bundle), "--checkpoint", str(bundle / named), "--spatial_dims", str(axes)]
    known, overrides = options.parse_arguments(given)
    weights = options.check_arguments(known, overrides)
    command = shlex.split(preview.next_command(known, overrides, weights, overrides, []))
    assert Path(command[5]).resolve() == bundle / "configs" / "finetune.yaml"
    of_2d = ["--spatial_dims", "2"] if axes == 2 else []
    assert command[6:] == ["--pretrained", str(bundle / folder), "--dataset_dir", "LABELLED_FOLDER", *of_2d]


@pytest.mark.parametrize(
    ("case", "file", "more"),
    [
        ({"id": "a"}, "finetune_classification.yaml", "--dataset_dir eyes --class_file CLASSES.csv"),
        ({"id": "a", "label": "a.png"}, "finetune.yaml", "--dataset_dir eyes"),
        ({"id": "a", "slice": 3}, "finetune.yaml", "--dataset_dir LABELLED_FOLDER"),
    ],
)
def test_the_next_command_is_the_fine_tuning_that_the_cases_allow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: dict[str, Any], file: str, more: str
) -> None:
    """As after a training on them, and with the same subjects."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "eyes").mkdir()
    (tmp_path / "people.csv").touch()
    bundle = BUNDLES / "rotation"
    given = ["--bundle", str(bundle), "--checkpoint", str(bundle), "--spatial_dims", "2"]
    known, overrides = options.parse_arguments([*given, "--dataset_dir", "eyes", "--subjects", "people.csv"])
    weights = options.check_arguments(known, overrides)
    command = shlex.split(preview.next_command(known, overrides, weights, overrides, [case]))
    assert Path(command[5]).name == file
    same = ["--spatial_dims", "2", "--subjects", "people.csv"]
    assert command[8:] == [*more.split(), *same]
