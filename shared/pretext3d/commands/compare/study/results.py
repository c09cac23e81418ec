"""The results of a study's cells: one small CSV file each, with the settings that it was measured with.

The first line is a comment, `# ` and JSON: digest and settings of the cell, seconds, the number of labelled
subjects, the score, network and precision of the fine-tuning, the digest of the configurations and the
version of the package when it was started, digests of the weights that it started from and of the
configuration that trained them, and the curve of the validations as [epoch, step, score]. The rest is the
cell's table, one line per case and, of a segmentation, class. A cell whose result is there with the same
settings is done, wherever it was run.
"""

import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pretext3d.commands.compare.folder import changed_keys
from pretext3d.commands.compare.study.cells import StudyCell
from pretext3d.errors import UserError
from pretext3d.files import write_whole

__all__ = ["TEXT", "Results"]

ROUNDING = 1e-5  # of the score of a table, whose numbers have five digits
TEXT = {"case": str, "class": str, "subject": str, "predicted": str}


class Results:
    """The results below a folder.

    Args:
        folder: Folder of the results.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.known: dict[str, tuple[dict[str, Any], pd.DataFrame]] = {}

    def file(self, cell: StudyCell) -> Path:
        """The file of a cell's result."""
        return self.folder / f"{cell.name}.csv"

    def has(self, cell: StudyCell) -> bool:
        """Whether a cell's result is there; refuses one of other settings.

        Raises:
            UserError: a result of other settings, a file that is not a result, or one whose table does not
                give its score.
        """
        if cell.name not in self.known:
            if not self.file(cell).exists():
                return False
            head, table = self.read(self.file(cell))
            if head["digest"] != cell.digest:
                lines = changed_keys(head["settings"], cell.settings)
                raise UserError(
                    f"{self.file(cell)}: was measured with other settings: {'; '.join(lines)}. Remove it to "
                    "measure it again, or use another results_dir"
                )
            self.check(cell, head["score"], table)
            self.known[cell.name] = head, table
        return True

    def read(self, file: Path) -> tuple[dict[str, Any], pd.DataFrame]:
        """The first line of a result, and its table.

        Raises:
            UserError: not a result; one without the settings that it was measured with.
        """
        try:
            first, _, rest = file.read_text(encoding="utf-8").partition("\n")
            head = json.loads(first.removeprefix("# "))
            table = pd.read_csv(io.StringIO(rest), dtype=TEXT)
            for key, kind in (("digest", str), ("settings", dict), ("score", float), ("labelled", int)):
                if not isinstance(head.get(key), kind):
                    raise ValueError(f"{key} is not there")
        except (ValueError, AttributeError, OSError) as error:
            raise UserError(
                f"{file}: is no result of a cell ({error}); remove it to measure the cell again"
            ) from error
        return head, table

    def check(self, cell: StudyCell, score: float, table: pd.DataFrame) -> None:
        """Refuse a table that was cut or edited.

        Raises:
            UserError: names the file, its score and that of its table.
        """
        if cell.task is None:
            return
        try:
            found = cell.task.score_of(table)
        except (KeyError, IndexError, TypeError, ValueError):
            found = math.nan
        if not abs(found - score) <= ROUNDING:
            raise UserError(
                f"{self.file(cell)}: found a table whose score is {found:.6f}, expected {score:.6f}, as its "
                "first line says; remove it to measure the cell again"
            )

    def head(self, cell: StudyCell) -> dict[str, Any]:
        """The first line of a result that is there."""
        return self.known[cell.name][0]

    def table(self, cell: StudyCell) -> pd.DataFrame:
        """The table of a result that is there."""
        return self.known[cell.name][1]

    def score(self, cell: StudyCell) -> float:
        """The score of a result that is there."""
        return float(self.head(cell)["score"])

    def write(
        self,
        cell: StudyCell,
        table: pd.DataFrame,
        score: float,
        curve: Sequence[Sequence[float]] = (),
        more: Mapping[str, Any] | None = None,
    ) -> None:
        """Write a cell's result.

        Args:
            cell: Cell.
            table: Table of its cases.
            score: Its score.
            curve: Its validations, [epoch, step, score] each.
            more: Further entries of the first line; `labelled` is one.
        """
        head = {
            "digest": cell.digest,
            "score": round(float(score), 6),
            **(more or {}),
            "curve": [list(each) for each in curve],
            "settings": dict(cell.settings),
        }
        text = f"# {json.dumps(head)}\n" + table.to_csv(index=False, float_format="%.5g", lineterminator="\n")
        self.file(cell).parent.mkdir(parents=True, exist_ok=True)
        write_whole(self.file(cell), text)
        self.known.pop(cell.name, None)
        self.has(cell)

    def probes(self, cells: Sequence[StudyCell]) -> pd.DataFrame:
        """The results of probes as one table."""
        found = [self.table(cell) for cell in cells if self.has(cell)]
        return pd.concat(found, ignore_index=True) if found else pd.DataFrame()

    def tables(self, cells: Sequence[StudyCell]) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The results of those cells that have one, as tables that a comparison's report reads.

        Returns:
            One line per cell, case and class, and one line per validation: with arm, num_labelled (subjects)
            and seed.
        """
        rows, curves = [], []
        for cell in cells:
            if not self.has(cell):
                continue
            head, table = self.known[cell.name]
            keys = {"arm": cell.keys["arm"], "num_labelled": head["labelled"], "seed": cell.keys["seed"]}
            rows.append(table.assign(**keys))
            points = pd.DataFrame(head.get("curve", []), columns=["epoch", "step", "score"])
            curves.append(points.assign(**keys))
        join = [pd.concat(each, ignore_index=True) if each else pd.DataFrame() for each in (rows, curves)]
        return join[0], join[1]
