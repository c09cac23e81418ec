"""The report of a study: RESULTS.md with its figures, from the results of its cells.

Per task and encoder: scores of every arm and number of labels with their differences to scratch and to
scratch_long, the 95 % intervals of the pigeonhole bootstrap over seeds and subjects, and p-values of sign
flips over the subjects, corrected by Holm's procedure over all arms and numbers of labels of the task and the
encoder, among which the verdict chooses (see `statistics`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from pretext3d.commands.compare.convergence import convergence
from pretext3d.commands.compare.figures import Panel, draw_curves, draw_efficiency, draw_overview
from pretext3d.commands.compare.probes import baseline_of, probe_lines, probe_tables
from pretext3d.commands.compare.report import amount, main_table, summarise, with_p
from pretext3d.commands.compare.statistics import DRAWS
from pretext3d.commands.compare.study.cells import Cells, StudyCell, grid
from pretext3d.commands.compare.study.choice import planned_cells
from pretext3d.commands.compare.study.consistency import mixed
from pretext3d.commands.compare.study.definition import Study, StudyTask
from pretext3d.commands.compare.study.keys import finetuning
from pretext3d.commands.compare.study.plans import Plan, PlanPart
from pretext3d.commands.compare.study.results import Results
from pretext3d.commands.compare.study.scores import DIGITS, SCORES, scores_of
from pretext3d.commands.compare.tasks import TASKS, case_subjects
from pretext3d.commands.compare.text import markdown, spread
from pretext3d.errors import UserError
from pretext3d.files import replacing, write_whole

__all__ = ["verdict", "write_report"]

CONTROLS = ("scratch", "scratch_long")
LEVEL = 0.05  # of a corrected p-value
# Of a verdict, by task. A smaller gain can be significant over subjects, but changes little for a user, and
# is within what another seed of fine-tuning changes.
LEAST_GAIN = {"segmentation": 0.03, "classification": 0.05}
NOTES = """Scores: mean ± standard deviation over the seeds, of test subjects, which chose nothing.
Learning rates and recipes were chosen for every arm from the same grid, on validation subjects; of recipes
that differ for transferred weights alone, random weights have the first.
*scratch_long* has random weights and one schedule as long as pre-training and fine-tuning together.
Differences are paired by seed and case; the interval is the 95 % percentile interval of a bootstrap of
{draws:,} draws of seeds and of subjects, each with all its cases; p is that of a two-sided sign-flip test
over the subjects, corrected by Holm's procedure for all arms and numbers of labels of a task and encoder;
of frozen features, for those of each reader.
It speaks of other subjects, the interval of other seeds, too. A verdict also needs a gain of {gains}.
One pre-training per arm serves all seeds. Curves are those of validation subjects."""


@dataclass(frozen=True, eq=False)
class Part:
    """One task with one encoder: its cells, results and arms in order."""

    task: StudyTask
    encoder: str
    cells: Sequence[StudyCell]
    rows: pd.DataFrame
    curves: pd.DataFrame
    arms: Sequence[str]
    fractions: Mapping[int, float]
    probes: pd.DataFrame
    missing: int

    @property
    def controls(self) -> list[str]:
        """The arms that others are compared with."""
        return [name for name in CONTROLS if name in self.arms]

    @property
    def probed(self) -> list[str]:
        """The arms whose frozen features were measured, in order."""
        there = list(self.probes["arm"].unique()) if len(self.probes) else []
        return [*(name for name in self.arms if name in there), *(n for n in there if n not in self.arms)]

    @cached_property
    def probe_tables(self) -> dict[str, pd.DataFrame]:
        """The summary of each reader of frozen features; {} without any."""
        return probe_tables(self.probes, self.probed) if self.probed else {}

    @property
    def title(self) -> str:
        """Name in headings."""
        return f"{self.task.name}, {self.encoder}"


def write_report(study: Study, cells: Cells, plans: Mapping[PlanPart, Plan], results: Results) -> Path:
    """Write RESULTS.md, its figures and scores.csv into the folder of the results; the path of the first.

    Args:
        study: Study.
        cells: Its cells.
        plans: Its plans, by task and encoder.
        results: Its results; cells without one are left out, and counted.
    """
    planned = planned_cells(cells, plans)
    lines = [f"# Study {study.name}", ""]
    done = [cell for cell in planned if results.has(cell)]
    seeds, rates = ", ".join(map(str, study.seeds)), ", ".join(f"{rate:g}" for rate in study.rates)
    recipes = f"; recipes {', '.join(study.recipes)}" if study.recipes != ("",) else ""
    lines += [f"{len(done)} of {len(planned)} cells. Seeds {seeds}; learning rates {rates}{recipes}.", ""]
    lines += mixed(study, done, results)
    parts = [part for part in parts_of(study, planned, results) if len(part.rows)]
    tables = {part.title: tables_of(part) for part in parts}
    lines += ["## Verdicts", ""]
    lines += [f"- {part.title}: {unfinished(part) or verdict(part, tables[part.title])}" for part in parts]
    measured = {(part.task.name, part.encoder) for part in parts}
    missing = [", ".join(part) for part in study.parts if part not in measured]
    if missing:
        part_of = f"{len(measured)} of {len(study.parts)} tasks with an encoder"
        lines.append(f"- The cells above are those of {part_of}; not measured yet: {'; '.join(missing)}.")
    lines.append("")
    lines += overview({part: tables[part.title] for part in parts}, study.results_dir)
    for part in parts:
        lines += section(study, part, tables[part.title])
    gains = " and ".join(f"{gain:g} in {TASKS[kind].title}" for kind, gain in LEAST_GAIN.items())
    lines += [*screening(study, plans), NOTES.format(draws=DRAWS, gains=gains)]
    study.results_dir.mkdir(parents=True, exist_ok=True)
    scores = [scores_of(study, part, tables[part.title]) for part in parts]
    if scores:
        text = pd.concat(scores).round(DIGITS).to_csv(index=False)
        write_whole(study.results_dir / SCORES, text)
    write_whole(study.results_dir / "RESULTS.md", "\n".join(lines) + "\n")
    return study.results_dir / "RESULTS.md"


def parts_of(study: Study, planned: Sequence[StudyCell], results: Results) -> list[Part]:
    """The tasks with their encoders."""
    found = []
    for task in study.tasks.values():
        for encoder in study.encoders:
            own = [cell for cell in planned if cell.part == (task.name, encoder)]
            rows, curves = results.tables([cell for cell in own if cell.task is not None])
            probes = results.probes([cell for cell in own if cell.task is None])
            rows, probes = (without_left_out(study, task, table) for table in (rows, probes))
            present = set(rows["arm"]) if len(rows) else set()
            names = [*CONTROLS, *(name for name in study.arms if name not in CONTROLS)]
            of_fractions = {
                results.head(cell)["labelled"]: cell.keys["label"]
                for cell in own
                if cell.task and not isinstance(cell.keys["label"], int) and results.has(cell)
            }
            arms = [name for name in names if name in present]
            missing = sum(not results.has(cell) for cell in own)
            found.append(Part(task, encoder, own, rows, curves, arms, of_fractions, probes, missing))
    return found


def without_left_out(study: Study, task: StudyTask, table: pd.DataFrame) -> pd.DataFrame:
    """A table of results without the subjects that the task leaves out.

    Raises:
        UserError: a subject that is not one of the table's.
    """
    if not task.left_out or table.empty:
        return table
    if strangers := sorted(set(task.left_out) - set(case_subjects(table).values())):
        raise UserError(
            f"{study.file}: tasks::{task.name}::left_out: found {strangers[0]!r}, expected test subjects of "
            "the task's results"
        )
    return task.kind.without(table, task.left_out)


def tables_of(part: Part) -> dict[str, pd.DataFrame]:
    """The summary with the differences to each control, by number of labels and arm."""
    return {
        control: summarise(part.rows, part.arms, control, task=part.task.kind, jointly=True).set_index(
            ["num_labelled", "arm"]
        )
        for control in part.controls or part.arms[:1]
    }


def leading(differences: pd.Series) -> list[str]:
    """The pre-training furthest above scratch on average; none where no difference is known.

    Args:
        differences: Mean differences to scratch, by number of labels and arm.

    Examples:
        >>> index = pd.MultiIndex.from_product([[2, 4], ["scratch_long", "cpc", "jigsaw"]], names=("", "arm"))
        >>> leading(pd.Series([0.5, 0.1, 0.0, 0.5, 0.1, 0.3], index))
        ['jigsaw']
    """
    means = differences.groupby("arm").mean().drop(list(CONTROLS), errors="ignore").dropna()
    return [str(means.idxmax())] if len(means) else []


def overview(parts: Mapping[Part, Mapping[str, pd.DataFrame]], folder: Path) -> list[str]:
    """The figure of the tasks and encoders that have one: the controls and the arm furthest above scratch."""
    panels = []
    for part, tables in parts.items():
        lead = leading(next(iter(tables.values()))["difference_mean"])
        if not lead:
            continue
        arms = [*part.controls, *lead]
        kind = part.task.kind
        cells = kind.per_cell(part.rows[part.rows["arm"].isin(arms)])
        panels.append(Panel(part.title, cells, arms, kind, part.fractions))
    if not panels:
        return []
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    with replacing(folder / "figures" / "overview.png") as draft:
        draw_overview(panels, draft)
    about = (
        "Random weights, and the arm with the largest mean difference to scratch. That arm is chosen here, "
        "on the test subjects, so its lead is optimistic; the verdicts are corrected for the choice."
    )
    return ["![all tasks](figures/overview.png)", "", about, ""]


def section(study: Study, part: Part, tables: Mapping[str, pd.DataFrame]) -> list[str]:
    """The section of one task and encoder; draws its figures."""
    kind, fractions, folder = part.task.kind, part.fractions, study.results_dir
    lines = [f"## {part.title}", ""]
    lines += [part.task.note, ""] if part.task.note else []
    if count := len(part.task.left_out):
        total = len(set(case_subjects(part.rows).values())) + count
        lines += [f"Without {count} of {total} test subjects, on whom something was chosen.", ""]
    lines += [*score_table(part, tables), ""]
    if own := own_settings(study, part):
        lines += [f"Settings of fine-tuning that single arms have: {'; '.join(own)}.", ""]
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    figure = f"{part.task.name}_{part.encoder}"
    with replacing(folder / "figures" / f"{figure}_labels.png") as draft:
        draw_efficiency(kind.per_cell(part.rows), part.arms, draft, kind, fractions)
    lines += [f"![score against labels](figures/{figure}_labels.png)", ""]
    first = next(iter(tables))
    metrics = main_table(tables[first].reset_index(), kind, first, fractions)
    lines += ["<details><summary>All metrics</summary>", "", *metrics, "", "</details>", ""]
    if len(part.curves):
        with replacing(folder / "figures" / f"{figure}_curves.png") as draft:
            draw_curves(part.curves, part.arms, draft, kind, fractions, "step")
        lines += [f"![score against steps](figures/{figure}_curves.png)", ""]
        speed = convergence(part.curves, part.arms, "scratch", kind.title, fractions, "step")
        lines += [f"#{speed[0]}", *speed[1:]]
    if len(part.probes):
        about = "Balanced accuracy on the test subjects; *intensities* has no network (`docs/probe.md`)."
        found = probe_lines(part.probe_tables, baseline_of(part.probed), fractions)
        lines += ["### Frozen features", "", about, "", *found, ""]
    return lines


def score_table(part: Part, tables: Mapping[str, pd.DataFrame]) -> list[str]:
    """Rows of arms; per number of labels the score, and the difference to each control."""
    first = next(iter(tables.values()))
    numbers = sorted(first.index.get_level_values("num_labelled").unique())
    header = ["arm"]
    for number in numbers:
        header += [f"{part.task.kind.title}, {amount(int(number), part.fractions)}"]
        header += [f"to {control}" for control in part.controls]
    rows = []
    for arm in part.arms:
        row = [arm]
        for number in numbers:
            known = (number, arm) in first.index
            score, std = part.task.kind.score, f"{part.task.kind.score}_std"
            row.append(spread(first[score][number, arm], first[std][number, arm], 3) if known else "")
            for control in part.controls:
                row.append(
                    difference_text(tables[control], int(number), arm)
                    if known
                    and arm not in ("scratch", control)  # scratch to scratch_long is the other's, turned
                    else ""
                )
        rows.append(row)
    return markdown(header, rows)


def own_settings(study: Study, part: Part) -> list[str]:
    """What single arms' fine-tuning has otherwise than scratch's, but for weights and screening's choice."""
    common = finetuning(study, part.task, part.encoder, study.arms["scratch"])
    found = []
    for name in part.arms:
        tuned = finetuning(study, part.task, part.encoder, study.arms[name])
        own = [f"{key} {value}" for key, value in tuned.items() if common.get(key) != value]
        found += [f"{name}: {', '.join(own)}"] * bool(own)
    return found


def difference_text(table: pd.DataFrame, number: int, arm: str) -> str:
    """A difference with its interval and its p-value."""
    row = table.loc[(number, arm)]
    return with_p(*(row[f"difference_{key}"] for key in ("mean", "low", "high", "p")))


def unfinished(part: Part) -> str:
    """That a part has no verdict yet, since cells are missing: p-values would be corrected for too few."""
    if not part.missing:
        return ""
    done = len(part.cells) - part.missing
    return f"no verdict before all cells are measured, and no p-value is final: {done} of {len(part.cells)}."


def verdict(part: Part, tables: Mapping[str, pd.DataFrame]) -> str:
    """One line: the arm that is above all controls, with its number of labels, or that there is none.

    Above means, for every control, a difference of at least LEAST_GAIN, an interval above 0, and a p-value
    below LEVEL that is corrected for all arms and numbers of labels. Of several such arms and numbers of
    labels, the one with the largest difference to its nearer control.
    """
    if part.controls != list(CONTROLS):
        missing = [name for name in CONTROLS if name not in part.controls]
        return f"no verdict without {', '.join(missing)}."
    least = LEAST_GAIN[part.task.kind.name]
    gains: dict[tuple[int, str], float] = {}
    proven: dict[tuple[int, str], float] = {}
    for place in tables["scratch"].index:
        lines = [table.loc[place] for table in tables.values() if place in table.index]
        if place[1] in CONTROLS or any(np.isnan(line["difference_mean"]) for line in lines):
            continue
        gains[place] = min(line["difference_mean"] for line in lines)
        large = gains[place] >= least
        if large and all(line["difference_low"] > 0 and line["difference_p"] < LEVEL for line in lines):
            proven[place] = gains[place]
    if not gains:
        return "no arm but the controls yet."
    number, arm = max(proven or gains, key=lambda place: (proven or gains)[place])
    texts = [f"{difference_text(table, number, arm)} to {control}" for control, table in tables.items()]
    found = f"{arm}, {amount(number, part.fractions)} labelled: {'; '.join(texts)}."
    if proven:
        return f"**{found}**"
    return f"no arm is {least:g} or more above {' and '.join(CONTROLS)}, proven; nearest is {found}"


def screening(study: Study, plans: Mapping[PlanPart, Plan]) -> list[str]:
    """The table of screening: the score of every point of the grid, the chosen one in bold."""
    points = [point.name for point in grid(study)]
    rows = []
    for part, plan in plans.items():
        for arm, choice in plan.choices.items():
            scores = {name: f"{score:.3f}" for name, score in choice.scores.items()}
            scores |= {choice.point.name: f"**{scores.get(choice.point.name, 'chosen')}**"}
            rows.append([*part, arm, *(scores.get(name, "") for name in points)])
    labels = ", ".join(f"{task.name} {task.screened.title}" for task in study.tasks.values())
    about = f"Scores of validation subjects, labelled: {labels}. In bold the point that confirmation has."
    chosen = [choice.point.rate for plan in plans.values() for choice in plan.choices.values()]
    low, high = (chosen.count(end(study.rates)) for end in (min, max))
    if len(study.rates) > 1 and (low or high):
        about += (
            f" Of {len(chosen)} chosen rates {low} are the lowest and {high} the highest of the grid: a "
            "better one may be beyond."
        )
    return ["## Screening", "", about, "", *markdown(["task", "encoder", "arm", *points], rows), ""]
