"""`pretext3d compare --study FILE`: pre-training, screening, the plan, confirmation, report.

Each stage resumes: cells that are done, here or, by their results, on another machine, are not run again; a
pre-training is run only where a cell that starts from it is not done.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pretext3d.commands.compare.folder import lock
from pretext3d.commands.compare.options import engine_of
from pretext3d.commands.compare.processes import threads_each
from pretext3d.commands.compare.running import run_cells, run_rest
from pretext3d.commands.compare.study.cells import Cells, StudyCell, screening_cells
from pretext3d.commands.compare.study.checks import known_name
from pretext3d.commands.compare.study.choice import choose, planned_cells
from pretext3d.commands.compare.study.definition import Study, read_study
from pretext3d.commands.compare.study.plans import (
    Plan,
    PlanPart,
    plan_changes,
    plan_file,
    read_plans,
    write_plan,
)
from pretext3d.commands.compare.study.report import write_report
from pretext3d.commands.compare.study.results import Results
from pretext3d.commands.compare.study.runner import StudyRunner
from pretext3d.errors import UserError
from pretext3d.messages import say

__all__ = ["StudyRun", "run_study"]


class StudyRun:
    """A study under way.

    Args:
        study: Study.
        cells: Its cells.
        results: Its results.
        runner: Runner of the cells.
        jobs: Number of cells at once.
        accept_plan: Whether the plans hold although screening chooses something else.
        engine: What runs the cells, with the arguments of `running.run_cells`.
        parts: What is run, tasks with an encoder each; none = all.
    """

    def __init__(
        self,
        study: Study,
        cells: Cells,
        results: Results,
        runner: StudyRunner,
        jobs: int = 1,
        accept_plan: bool = False,
        engine: Callable[..., list[str]] = run_cells,
        parts: Sequence[tuple[str, str]] = (),
    ) -> None:
        self.study, self.cells, self.results, self.runner = study, cells, results, runner
        self.jobs, self.accept_plan, self.engine = jobs, accept_plan, engine
        self.parts = [part for part in study.parts if part in (parts or study.parts)]

    def __call__(self, stage: str = "report") -> int:
        """Run all stages up to one. Exit code 0, or 1 where a cell failed.

        Raises:
            UserError: a cell or a result of other settings; a plan that is not what screening chooses.
        """
        there = self.of_these(read_plans(self.study))
        screened = [cell for cell in screening_cells(self.cells) if cell.part in self.parts]
        if stage == "pretraining":
            new = [cell for cell in screened if cell.part not in there]
            return self.work("pretraining", self.first([*new, *planned_cells(self.cells, there)]))
        if code := self.work("screening", [*self.first(screened), *screened]):
            return code
        plans = self.plans()
        if stage == "screening":
            return 0
        planned = planned_cells(self.cells, self.of_these(plans))
        code = self.work("confirmation", [*self.first(planned), *planned])
        if any(self.results.has(cell) for cell in planned):
            say(f"wrote {write_report(self.study, self.cells, plans, self.results)}")
        return code

    def first(self, cells: Sequence[StudyCell]) -> list[StudyCell]:
        """The pre-trainings that those cells start from that are not done."""
        needed = {cell.needs for cell in cells if cell.needs and not self.runner.is_done(cell)}
        return [cell for cell in self.cells.pretrainings.values() if cell.name in needed]

    def work(self, stage: str, cells: Sequence[StudyCell]) -> int:
        """Run the cells of a stage that are not done; exit code."""
        done = {cell.name for cell in cells if self.runner.is_done(cell)}
        if len(done) < len(cells):
            self.runner.check([cell for cell in cells if cell.name not in done])
        failed = run_rest(
            cells,
            done,
            self.runner,
            self.jobs,
            place=f"{stage} of {self.study.name}",
            result=in_words,
            after=lambda: None,
            engine=self.engine,
        )
        if failed:
            names = ", ".join(failed)
            say(f"{len(failed)} cells failed: {names}; the same command tries them again", error=True)
        return 1 if failed else 0

    def of_these(self, plans: Mapping[PlanPart, Plan]) -> dict[PlanPart, Plan]:
        """Those plans of the parts that are run."""
        return {part: plan for part, plan in plans.items() if part in self.parts}

    def plans(self) -> dict[PlanPart, Plan]:
        """What confirmation follows: the plans that are there, and new ones of the parts that are run.

        Raises:
            UserError: one is not what screening chooses, and was not accepted.
        """
        there, changes = read_plans(self.study), []
        for part, chosen in choose(self.cells, self.results, self.parts).items():
            file = plan_file(self.study, part)
            if part in there:
                changes += [f"{file}: {line}" for line in plan_changes(part, there[part], chosen)]
                continue
            write_plan(self.study, part, chosen)
            there[part] = chosen
            cells = len(planned_cells(self.cells, {part: chosen}))
            say(f"wrote {file}: {cells} cells of confirmation of {', '.join(part)}")
        if changes and not self.accept_plan:
            raise UserError(
                f"{'; '.join(changes)}: not what screening chooses. Remove such a file to take the new "
                "choice, or follow it with --accept_plan"
            )
        return there


def in_words(cell: StudyCell, score: float) -> str:
    """What a finished cell has given."""
    if cell.task is not None:
        return f"{cell.task.title} {score:.3f}"
    return f"balanced accuracy of a linear probe {score:.3f}" if cell.has_result else "pre-trained"


def chosen_parts(study: Study, words: Sequence[str]) -> list[tuple[str, str]]:
    """The parts that `--tasks` names: a task with all of its encoders, or TASK/ENCODER.

    Raises:
        UserError: a task that the study does not have, or an encoder that the task does not have.
    """
    found = []
    for word in words:
        task, slash, encoder = word.partition("/")
        known_name("--tasks", task, study.tasks, f"a task of {study.file}")
        if slash:
            known_name(f"--tasks {task}/", encoder, study.tasks[task].encoders, f"an encoder of {task}")
        found += [part for part in study.parts if part[0] == task and encoder in ("", part[1])]
    return found


def run_study(options: argparse.Namespace) -> int:
    """Run the study of a command line. Exit code 0, or 1 where a cell failed.

    Args:
        options: Options of `pretext3d compare`; without `output_dir` the folder of the runs is runs/NAME.
    """
    study = read_study(Path(options.study), options.data_root)
    folder = Path(options.output_dir or f"runs/{study.name}").resolve()
    results = Results(study.results_dir)
    cells = Cells(study, folder / "cells")
    parts = chosen_parts(study, options.tasks)
    if options.report_only:  # also while it runs
        plans = read_plans(study)
        if not plans:
            raise UserError(
                f"{results.folder / 'plan'}: found no plan, expected what --stage screening writes"
            )
        say(f"wrote {write_report(study, cells, plans, results)}")
        return 0
    (folder / "cells").mkdir(parents=True, exist_ok=True)
    with lock(folder) as descriptors:
        threads = threads_each(options.threads, options.jobs)
        runner = StudyRunner(study, folder / "cells", results, threads, descriptors)
        engine = engine_of(options, folder)
        run = StudyRun(study, cells, results, runner, options.jobs, options.accept_plan, engine, parts)
        return run(options.stage)
