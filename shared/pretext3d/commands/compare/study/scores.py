"""scores.csv of a study: every score with its differences, for model cards, docs and figures elsewhere.

One line per task, encoder, arm, reader and number of labelled subjects. `reader` is what a probe trains on
frozen features (linear or knn), and empty for a fine-tuning. Differences, intervals and p-values are those of
RESULTS.md; `missing` counts the cells of the task and the encoder that are not measured yet: before it is 0,
no p-value is final.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from pretext3d.commands.compare.tasks import CLASSIFICATION
from pretext3d.errors import UserError, one_line

if TYPE_CHECKING:
    from pretext3d.commands.compare.study.definition import Study
    from pretext3d.commands.compare.study.report import Part

__all__ = ["SCORES", "read_scores", "scores_of"]

SCORES = "scores.csv"
COLUMNS = (
    "task", "encoder", "arm", "bundle", "reader", "metric", "labelled", "fraction", "score", "std", "cells",
    "missing", "to_scratch", "to_scratch_low", "to_scratch_high", "to_scratch_p", "to_scratch_long",
    "to_scratch_long_low", "to_scratch_long_high", "to_scratch_long_p",
)  # fmt: skip
DIGITS = 6


def scores_of(study: "Study", part: "Part", tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The lines of one task and encoder.

    Args:
        study: Study.
        part: Task and encoder with their results.
        tables: Summaries of the fine-tunings by control, see `report.tables_of`.
    """
    found = lines(study, part, tables, "", part.task.kind.score)
    for reader, table in part.probe_tables.items():
        of_arms = table[table["arm"].isin(study.arms)].set_index(["num_labelled", "arm"])
        found += lines(study, part, {"scratch": of_arms}, reader, CLASSIFICATION.score)
    return pd.DataFrame(found, columns=COLUMNS)


def lines(
    study: "Study", part: "Part", tables: Mapping[str, pd.DataFrame], reader: str, score: str
) -> list[dict[str, Any]]:
    """The lines of the tables of one reader."""
    found = []
    for (number, arm), row in next(iter(tables.values())).iterrows():
        line = {
            "task": part.task.name,
            "encoder": part.encoder,
            "arm": arm,
            "bundle": study.arms[arm].source,
            "reader": reader,
            "metric": score,
            "labelled": int(number),
            "fraction": part.fractions.get(int(number), ""),
            "score": row[score],
            "std": row[f"{score}_std"],
            "cells": int(row["cells"]),
            "missing": part.missing,
        }
        for control, table in tables.items() if arm != "scratch" else ():
            other = table.loc[(number, arm)]
            line |= {f"to_{control}": other["difference_mean"]}
            line |= {f"to_{control}_{key}": other[f"difference_{key}"] for key in ("low", "high", "p")}
        found.append(line)
    return found


def read_scores(file: Path) -> pd.DataFrame:
    """What `scores_of` has written.

    Raises:
        UserError: no such file, or another one.
    """
    if not file.is_file():
        raise UserError(f"{file}: not found; expected the table that `pretext3d compare --study` writes")
    text = dict.fromkeys(("task", "encoder", "arm", "bundle", "reader", "metric"), str)
    table = pd.read_csv(file, dtype=text, keep_default_na=False)
    if tuple(table.columns) != COLUMNS:
        raise UserError(f"{file}: found columns {', '.join(table.columns)}, expected {', '.join(COLUMNS)}")
    numbers = [name for name in COLUMNS if name not in text]
    try:
        return table.assign(**{name: pd.to_numeric(table[name].replace("", math.nan)) for name in numbers})
    except ValueError as error:
        raise UserError(
            f"{file}: found {one_line(error)}, expected numbers in {', '.join(numbers)}"
        ) from error
