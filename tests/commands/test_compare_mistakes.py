"""The user's mistakes at `pretext3d compare`: each is one line, and nothing is run."""

import re
from pathlib import Path

import pytest
from pretext3d.__main__ import main

SHIPPED = Path(__file__).parents[2] / "bundles" / "vectorpose"  # weights of a 3D network


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--arms scratch nonsense", "expected scratch, restart or NAME=PATH"),
        ("--arms vp=not_there", "--arms vp: pretrained: not_there: not found"),
        (
            f"--spatial_dims 2 --arms vp={SHIPPED}",
            "--arms vp: .* spatial_dims 3, this one has spatial_dims 2",
        ),
        ("--spatial_dims 4", "spatial_dims: found 4, expected 2 or 3"),
        ("--arms scratch=somewhere", "expected another NAME"),
        ("--arms scratch scratch", "expected different names"),
        ("--num_labelled 0", "num_labelled: found .0., expected different integers from 1"),
        ("--seeds 0 0", "seeds: found"),
        ("--jobs 0", "jobs: found 0"),
        ("--max_epoch 3", "did you mean --max_epochs"),
        ("--pretrained x", "the comparison sets this itself"),
        ("--bundle not_there", "--bundle: found not_there, expected the folder of a bundle, or one of avsdb"),
        ("--report_only", "no cell is done yet"),
        ("--label_fractions 0.5 --num_labelled 4", "--label_fractions: found with --num_labelled"),
        (
            "--label_fractions 0",
            "--label_fractions: found .0.0., expected different numbers above 0, up to 1",
        ),
        ("--label_fractions 0.5 0.5", "--label_fractions: found .0.5, 0.5., expected different numbers"),
        ("--folds 1", "--folds: found 1, expected 2 or more"),
        ("--folds 3 --monte_carlo", "--folds: found 3 with --monte_carlo, expected"),
        ("--folds 3 --fold 1", "--fold: found with --folds, which sets it"),
        ("--validate_every -1", "--validate_every: found -1, expected 0 or more"),
        ("--task classification --decoder duc", "no such key in finetune_classification.yaml"),
        ("--set flat spatial_dims 2", "--set: found the arm flat, expected one of scratch"),
        ("--set scratch max_epochs 2", "--set scratch max_epochs: all arms have the same data"),
    ],
)
def test_mistakes_are_one_line(
    words: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", *words.split(), "--output_dir", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert re.search(message, error)
