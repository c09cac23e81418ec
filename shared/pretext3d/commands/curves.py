"""The curves of one run or several as a picture: the columns of metrics.csv, one panel each."""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pretext3d.commands.parser import command_parser
from pretext3d.errors import UserError
from pretext3d.messages import say

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

AXES = ("epoch", "step", "seconds", "learning_rate")  # columns that do not measure a run
EXAMPLES = """
examples
  pretext3d curves runs/vectorpose --output_file curves.png
  pretext3d curves runs/a runs/b --metrics val_loss relative_vector_error --output_file both.png
"""


def history_file(run: Path) -> Path:
    """The table in a run's folder.

    Raises:
        UserError: no such folder, or no table in it.
    """
    path = run / "metrics.csv"
    if not run.exists():
        raise UserError(f"{run}: does not exist; expected the output_dir of a training run")
    if not path.is_file():
        raise UserError(f"{run}: has no metrics.csv; expected the output_dir of a training run")
    return path


def read_history(run: Path) -> "pd.DataFrame":
    """The table of a run's folder."""
    import pandas as pd

    return pd.read_csv(history_file(run))


def draw(histories: "dict[str, pd.DataFrame]", metrics: Sequence[str] = ()) -> "Figure":
    """One panel per metric against steps; training and validation loss share one."""
    from matplotlib.figure import Figure

    found = list(dict.fromkeys(name for table in histories.values() for name in table if name not in AXES))
    unknown = [name for name in metrics if name not in found]
    if unknown:
        raise UserError(f"--metrics: found {', '.join(unknown)}, expected names out of {', '.join(found)}")
    names = [name for name in metrics or found if metrics or name != "val_loss"]
    columns = min(4, len(names))
    rows = math.ceil(len(names) / columns)
    figure = Figure(figsize=(3.4 * columns, 2.6 * rows), layout="constrained")
    for panel, name in enumerate(names):
        axes = figure.add_subplot(rows, columns, panel + 1)
        pair = [name, "val_loss"] if name == "train_loss" and "val_loss" in found else [name]
        for run, table in histories.items():
            for shown in (n for n in pair if n in table):
                label = " ".join(([run] if len(histories) > 1 else []) + ([shown] if len(pair) > 1 else []))
                values = table[["step", shown]].dropna()
                axes.plot(values["step"], values[shown], marker=".", label=label or None)
        axes.set(title="loss" if len(pair) > 1 else name.replace("_", " "), xlabel="step")
        axes.grid(alpha=0.3)
        if name.startswith("relative_"):  # 1 needs no learning
            axes.axhline(1, color="black", linestyle=":", linewidth=1)
        if len(pair) > 1 or len(histories) > 1:
            axes.legend(fontsize=7)
    return figure


def make_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = command_parser("curves", __doc__, EXAMPLES)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of training runs")
    parser.add_argument("--metrics", nargs="+", default=[], help="columns of metrics.csv; default: all")
    parser.add_argument("--output_file", type=Path, default=Path("curves.png"), help="default: %(default)s")
    return parser


def main(words: Sequence[str]) -> int:
    """The command: draw, report what was written."""
    options = make_parser().parse_args(words)
    figure = draw({run.name: read_history(run) for run in options.runs}, options.metrics)
    figure.savefig(options.output_file, dpi=100)
    say(f"wrote {options.output_file}")
    return 0
