"""Write what the studies have measured into the docs of bundles and the cards of weights, or check it.

python -m tools.bundles.evidence            writes
python -m tools.bundles.evidence --check    writes nothing; exit code 1 where a file differs

The lines between the marks of `docs/README.md` come from scores.csv of the main study, of those tasks whose
cells are all measured; those of a model card, `models/README.md`, from every study with cells that started
from these weights, by their SHA-256. No figure there is typed.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from pretext3d.commands.compare.report import amount, p_value, signed
from pretext3d.commands.compare.study.scores import SCORES, read_scores
from pretext3d.commands.compare.tasks import CLASSIFICATION, SEGMENTATION
from pretext3d.commands.compare.text import markdown
from pretext3d.errors import UserError

from tools.bundles.sync import ROOT, written_or_checked

__all__ = ["card", "evidence", "inserted", "measured"]

STUDIES = ROOT / "docs" / "studies"
STUDY = STUDIES / "main"
BEGIN, END = "<!-- measured: written by tools/bundles/evidence -->", "<!-- end of measured -->"
READERS = {"linear": "frozen features, linear probe", "knn": "frozen features, nearest neighbours"}
METRICS = {task.score: task.title for task in (SEGMENTATION, CLASSIFICATION)}
ABOUT = """Measured on test subjects, which chose nothing (on hearts with the exceptions that
[RESULTS.md](../../../docs/RESULTS.md) names), mean over three seeds: fine-tuned for 300 steps;
the difference to random weights fine-tuned as long, and to random weights trained as long as pre-training and
fine-tuning together, each with its 95 % interval ([the study](../../../docs/studies/main/RESULTS.md)).
\\* marks intervals that exclude 0 with p below 0.05 after correction for all arms and numbers of labels
(fine-tuning, and frozen features, each by itself)."""
CARD = """## In fine-tuning

What they gain over random weights fine-tuned as long, and (*as long*), where a study has asked, over random
weights trained as long as pre-training and fine-tuning together: on test subjects, which chose nothing (on
hearts with the exceptions that `docs/RESULTS.md` of the repository names), mean over three seeds, with 95 %
intervals; \\* marks those that exclude 0 with p below 0.05 after correction. The studies, with the settings
of each arm, are in `docs/studies/` there."""
NONE_OF_THESE = "No study has measured what these weights gain in fine-tuning."
NONE_YET = "Not measured yet by [the study](../../../docs/studies/README.md): compare before you rely on it."


def difference(row: Any, to: str) -> str:
    """A difference with its interval, marked where it is significant."""
    values = [getattr(row, f"{to}{end}") for end in ("", "_low", "_high")]
    p = getattr(row, f"{to}_p")
    return signed(*values) + ("\\*" if p_value(p) and p < 0.05 and values[1] * values[2] > 0 else "")


def tables(scores: pd.DataFrame, bundle: str) -> Iterator[str]:
    """The tables of a bundle's arms, one per task, encoder and arm."""
    own = scores[(scores["bundle"] == bundle) & (scores["missing"] == 0)]
    for (task, encoder, arm), part in own.groupby(["task", "encoder", "arm"], sort=False):
        tuned = part[part["reader"] == ""]
        frozen = {
            title: part[part["reader"] == reader].set_index("labelled")
            for reader, title in READERS.items()
            if reader in set(part["reader"])
        }
        fractions = {int(n): f for n, f in zip(tuned["labelled"], tuned["fraction"], strict=True) if f == f}
        metric = METRICS[tuned["metric"].iloc[0]]
        header = ["labelled", metric, "to random weights", "to random weights, as long"]
        header += [f"{title}: to random weights" for title in frozen]
        rows = []
        for row in tuned.itertuples():
            line = [amount(int(row.labelled), fractions), f"{row.score:.3f}"]
            line += [difference(row, "to_scratch"), difference(row, "to_scratch_long")]
            for read in frozen.values():
                line.append(difference(next(read.loc[[row.labelled]].itertuples()), "to_scratch"))
            rows.append(line)
        named = "" if arm == bundle or len(own["arm"].unique()) == 1 else f", {arm}"
        yield "\n".join([f"**{task}, {encoder}{named}**", "", *markdown(header, rows)])


def evidence(scores: pd.DataFrame, bundle: str) -> str:
    """The lines between the marks: the tables of a bundle, or that there are none yet."""
    found = list(tables(scores, bundle))
    return "\n\n".join([ABOUT, *found]) if found else NONE_YET


def inserted(text: str, lines: str, where: str) -> str:
    """A text with other lines between its marks.

    Raises:
        UserError: no marks, or several.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise UserError(f"{where}: expected the line {BEGIN} and, after it, {END}, once each")
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{lines}\n\n{END}{rest.partition(END)[2]}"


def measured(study: Path) -> dict[str, set[tuple[str, str, str]]]:
    """The tasks, encoders and arms of a study by the SHA-256 of the weights that their cells started from.

    Args:
        study: Folder of its results.
    """
    found: dict[str, set[tuple[str, str, str]]] = {}
    for file in sorted(study.glob("confirmation/*/*/*.csv")):
        with file.open(encoding="utf-8") as lines:
            head = json.loads(next(lines).removeprefix("# "))
        if weights := head.get("pretraining", {}).get("weights"):
            arm = file.stem.rpartition("_seed")[0].rpartition("_")[0]
            found.setdefault(weights, set()).add((*file.parts[-3:-1], arm))
    return found


def card(studies: Mapping[Path, Mapping[str, set[tuple[str, str, str]]]], weights: str) -> str:
    """The lines of a model card: a table of what started from these weights; '' where nothing did.

    Args:
        studies: What is `measured`, by the folder of a study's results.
        weights: SHA-256 of the weights.
    """
    rows = []
    for study, found in studies.items():
        parts = found.get(weights, set())
        for row in read_scores(study / SCORES).itertuples() if parts else ():
            if (row.task, row.encoder, row.arm) in parts and row.reader == "" and row.missing == 0:
                line = [study.name, row.task, row.encoder, row.arm, f"{row.labelled:.0f}"]
                line += [METRICS[row.metric], f"{row.score:.3f}"]
                rows.append([*line, *(difference(row, to) for to in ("to_scratch", "to_scratch_long"))])
    header = ["study", "task", "encoder", "arm", "labelled", "metric", "score", "to random weights"]
    return "\n".join([CARD, "", *markdown([*header, "as long"], rows)]) if rows else ""


def main(words: Sequence[str] | None = None) -> int:
    """The command; the exit code."""

    def differing() -> dict[Path, str]:
        scores = read_scores(STUDY / SCORES)
        found = {}
        for path in sorted(ROOT.glob("bundles/*/docs/README.md")):
            text = path.read_text()
            lines = evidence(scores, path.parents[1].name)
            wanted = inserted(text, lines, str(path.relative_to(ROOT)))
            found |= {path: wanted} if wanted != text else {}
        studies = {path.parent: measured(path.parent) for path in sorted(STUDIES.glob(f"*/{SCORES}"))}
        for file in sorted(ROOT.glob("bundles/*/models/**/provenance.json")):
            path = file.with_name("README.md")
            text = path.read_text()
            lines = card(studies, json.loads(file.read_text())["sha256"])
            if lines and BEGIN not in text:  # the card of new weights
                text += f"\n{BEGIN}\n{END}\n"
            if BEGIN in text:
                wanted = inserted(text, lines or NONE_OF_THESE, str(path.relative_to(ROOT)))
                found |= {path: wanted} if wanted != path.read_text() else {}
        return found

    return written_or_checked(
        words, __doc__, differing, "the docs of bundles and the cards of weights have the studies' figures"
    )


if __name__ == "__main__":
    sys.exit(main())
