"""The table of an evaluation in the log: no wider than a terminal."""

import logging
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pretext3d.training.evaluation import METRICS, WIDTH, table_text

from tests.training.test_evaluation import CASES, NAMES, evaluate


def summary(names: list[str], distance: float, **others: Any) -> pd.DataFrame:
    """A summary of fractions of 0.5 and these distances in mm; standard deviations are a tenth of them."""
    means = {name: distance if name.endswith("_mm") else 0.5 for name in METRICS}
    row = {**means, **{f"{name}_std": mean / 10 for name, mean in means.items()}}
    row |= {"cases": 1000, "subjects": 1000, "no_distance": 3, **others}
    return pd.DataFrame([row] * len(names), names)


@pytest.mark.parametrize("distance", [0.5, 99.0, 12345.0])
@pytest.mark.parametrize("subjects", [1000, 200])
@pytest.mark.parametrize("names", [["liver", "foreground mean"], ["left inferior parietal cortex " * 3, "x"]])
def test_no_line_is_wider_than_a_terminal(names: list[str], subjects: int, distance: float) -> None:
    lines = table_text(summary(names, distance, subjects=subjects)).splitlines()
    assert len(lines) == 3
    assert max(map(len, lines)) <= WIDTH
    assert lines[1].startswith(names[0][:8])
    assert ("subjects" in lines[0]) == (subjects != 1000)


def test_cells() -> None:
    """Three digits of a fraction, two of mm; no spread of one subject, - where no case has the class."""
    table = summary(["liver"], 0.5, hd95_mm=np.nan, dice_std=np.nan)
    assert table_text(table).split() == [
        "cases", "dice", "iou", "nsd", "hd95_mm", "surface_mm",
        "liver", "1000", "0.500", "0.500±0.050", "0.500±0.050", "-", "0.50±0.05",
    ]  # fmt: skip


def test_an_evaluation_logs_it(tmp_path, caplog) -> None:
    caplog.set_level(logging.INFO)
    evaluate(tmp_path, CASES)
    (said,) = [message for message in caplog.messages if message.startswith("evaluation of")]
    lines = said.splitlines()
    assert [line.split()[0] for line in lines[2:4]] == NAMES[1:]
    assert "0.750±0.354" in lines[2]  # Dice of the liver: 0.5 and 1
    assert max(map(len, lines)) <= WIDTH
