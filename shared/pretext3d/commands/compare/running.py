"""Runs cells at the same time, each as soon as the one that it needs is done, with one line per cell."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, Protocol, TypeVar, runtime_checkable

from pretext3d.messages import printable
from pretext3d.progress import Bar

__all__ = ["Unit", "clock", "run_cells", "run_rest"]


@runtime_checkable
class Unit(Protocol):
    """What is run: a cell of a comparison or of a study."""

    @property
    def name(self) -> str:
        """Name of its folder."""

    @property
    def title(self) -> str:
        """Name in messages."""

    @property
    def needs(self) -> str:
        """Name of the one that has to be done first, or an empty text."""


C = TypeVar("C", bound=Unit)


def clock(seconds: float) -> str:
    """A time as text.

    Examples:
        >>> clock(42), clock(720), clock(12600)
        ('42 s', '12 min', '3.5 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def run_cells(
    cells: Sequence[C],
    done: set[str],
    runner: Any,
    jobs: int,
    finished: Callable[[C, float | None, str, float], None],
) -> list[str]:
    """Run cells at the same time, each as soon as the one that it needs is done.

    Args:
        cells: Cells to run, in order.
        done: Names of the cells that are already done.
        runner: Callable of a cell, run in a thread; returns its score or raises. `stop()` ends running cells.
        jobs: Number of cells at once.
        finished: Callback after each cell: its score (None where it failed), the problem, seconds.

    Returns:
        Names of the cells that failed, or that need one that did.
    """
    waiting, done, failed = list(cells), set(done), []
    running: dict[Future[tuple[float, float]], C] = {}

    def timed(cell: C) -> tuple[float, float]:
        begun = time.perf_counter()
        return runner(cell), time.perf_counter() - begun

    with ThreadPoolExecutor(jobs) as pool:
        try:
            while waiting or running:
                for cell in list(waiting):
                    if cell.needs in failed:
                        waiting.remove(cell)
                        failed.append(cell.name)
                        finished(
                            cell, None, f"not run: {cell.needs} failed, whose weights it starts from", 0.0
                        )
                    elif len(running) < jobs and (not cell.needs or cell.needs in done):
                        waiting.remove(cell)
                        running[pool.submit(timed, cell)] = cell
                if not running:
                    break
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    cell = running.pop(future)
                    try:
                        score, seconds = future.result()
                    except Exception as error:  # after any error in one cell the others continue
                        failed.append(cell.name)
                        finished(cell, None, str(error) or type(error).__name__, 0.0)
                    else:
                        done.add(cell.name)
                        finished(cell, score, "", seconds)
        except BaseException:
            runner.stop()
            raise
    return failed + [cell.name for cell in waiting]


def run_rest(
    cells: Sequence[C],
    done: set[str],
    runner: Any,
    jobs: int,
    place: str,
    result: Callable[[C, float], str],
    after: Callable[[], object],
    engine: Callable[..., list[str]] = run_cells,
) -> list[str]:
    """Run what is not done yet, with a progress bar and one line per cell. Names of failed cells.

    Args:
        cells: All cells, in order.
        done: Names of those that are done.
        runner: Runner, see `run_cells`.
        jobs: Number of cells at once.
        place: Name of the folder, for the first line.
        result: Words for a finished cell and its score.
        after: Called after each finished cell.
        engine: What runs them, with the arguments of `run_cells`.
    """
    todo = [cell for cell in cells if cell.name not in done]
    Bar.write(printable(f"{len(cells)} cells, {len(done)} of them done already; in {place}"))
    times: list[float] = []
    ended: list[str] = []

    def finished(cell: C, score: float | None, problem: str, seconds: float) -> None:
        ended.append(cell.name)
        bar.update()
        head = f"[{len(done) + len(ended)}/{len(cells)}] {cell.title}:"
        if score is None:
            bar.write(printable(f"{head} FAILED: {problem}"))
            return
        times.append(seconds)
        rounds = -(-(len(todo) - len(ended)) // jobs)
        left = f"; about {clock(rounds * sum(times) / len(times))} to go" if rounds else ""
        bar.write(printable(f"{head} {result(cell, score)} in {clock(seconds)}{left}"))
        after()

    # in a log the lines of the cells are the progress
    with Bar(total=len(todo), unit="cell", disable=None, leave=False) as bar:
        return engine(todo, done, runner, jobs, finished)
