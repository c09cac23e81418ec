"""The curves command: panels, and its two mistakes."""

from pathlib import Path

import pandas as pd
import pytest
from pretext3d.commands import curves
from pretext3d.errors import UserError


def table() -> pd.DataFrame:
    columns = {
        "epoch": [1, 2],
        "step": [10, 20],
        "seconds": [1, 1],
        "train_loss": [2, 1],
        "learning_rate": [1, 0],
    }
    return pd.DataFrame({**columns, "val_loss": [None, 1.5], "relative_vector_error": [1.1, 0.4]})


def test_a_panel_each_and_both_losses_in_one() -> None:
    figure = curves.draw({"a": table(), "b": table()})
    assert [axes.get_title() for axes in figure.axes] == ["loss", "relative vector error"]
    assert len(figure.axes[0].lines) == 4  # two losses of two runs
    assert figure.axes[1].lines[0].get_ydata().tolist() == [1.1, 0.4]


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"metrics\.csv"):
        curves.read_history(tmp_path)
    with pytest.raises(UserError, match="dice"):
        curves.draw({"a": table()}, ["dice"])
