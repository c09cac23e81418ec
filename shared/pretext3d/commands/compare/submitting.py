"""Runs cells as jobs of a cluster, by submitit: arrays on SLURM, each cell one task, requeued and resumed.

The tasks run the same processes as `--jobs` does on one machine, in the same folders, which all nodes have to
see; the results are the same. A task that is preempted or out of time ends its cell's process, is requeued by
submitit and continues from the newest epoch. This program waits, collects what is done, and submits what
depends on it. If it is killed, the tasks of SLURM go on; the same command later waits for those that have not
ended, whose ids are in the cells' folders, and submits the others.
"""

import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pretext3d.checking import brief, one_of
from pretext3d.commands.compare.folder import read_json, write_json
from pretext3d.commands.compare.processes import PACKAGE_PARENT, ProcessRunner, resumable, signal_all
from pretext3d.commands.compare.running import Unit
from pretext3d.errors import UserError, one_line
from pretext3d.extras import not_installed
from pretext3d.messages import say

__all__ = ["FolderTask", "read_engine_options", "submit_cells", "submitit_engine"]

C = TypeVar("C", bound=Unit)
CLUSTERS = ("slurm", "local", "debug")
PREFIXES = tuple(f"{cluster}_" for cluster in CLUSTERS)
# parameters that submitit has for every cluster; others have the cluster's name in front of them
SHARED = frozenset(
    {
        "name", "timeout_min", "mem_gb", "nodes", "cpus_per_task", "gpus_per_node", "tasks_per_node",
        "stderr_to_stdout",
    }
)  # fmt: skip
TIMEOUT = 24 * 60  # minutes of a task before it is requeued; submitit's own, 5, are too few for a cell
POLL = 1.0  # seconds between looks at the tasks
PATIENCE = 30.0  # seconds that a preempted cell has to end; submitit has 90 from SLURM
SUBMITTED = "submitted.json"  # in a cell's folder: the task that does its runs


class FolderTask:
    """A task: does the runs of a cell's folder, as its settings.json says.

    Args:
        threads: Number of threads of the process.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.runner: ProcessRunner | None = None

    def __call__(self, folder: str) -> tuple[float, str]:
        """Seconds, and the problem, '' for none: the end of the log of a process that failed."""
        self.runner = ProcessRunner(self.threads)
        begun = time.perf_counter()
        try:
            self.runner.run(Path(folder), read_json(Path(folder) / "settings.json"))
        except (RuntimeError, UserError, OSError) as error:
            return 0.0, str(error) or type(error).__name__
        return time.perf_counter() - begun, ""

    def checkpoint(self, folder: str) -> Any:
        """What submitit requeues where the task is preempted: the same, after the process has ended.

        Called by a signal's handler while `__call__` waits: the process is left for that to collect.
        """
        from submitit.helpers import DelayedSubmission

        for process in list(self.runner.processes) if self.runner else []:
            signal_all(process, signal.SIGTERM)
            if not has_ended(process.pid, PATIENCE):
                signal_all(process, signal.SIGKILL)
                has_ended(process.pid, PATIENCE)
        return DelayedSubmission(FolderTask(self.threads), folder)


def has_ended(pid: int, patience: float) -> bool:
    """Wait until a process has ended, at most so many seconds; it is left for its parent's `wait`."""
    until = time.monotonic() + patience
    while True:
        try:
            ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        except ChildProcessError:  # it has been waited for already
            return True
        if ended is not None or time.monotonic() > until:
            return ended is not None
        time.sleep(0.05)


def read_engine_options(text: str) -> dict[str, Any]:
    """The value of `--engine_options`, a mapping in YAML: `cluster`, and parameters of submitit's executor.

    Parameters of SLURM's may go without their `slurm_`.

    Raises:
        UserError: no mapping, or another cluster.

    Examples:
        >>> read_engine_options("{timeout_min: 120, partition: gpu}")
        {'timeout_min': 120, 'partition': 'gpu'}
    """
    import yaml

    try:
        found = yaml.safe_load(text) if text else {}
    except yaml.YAMLError as error:
        raise UserError(f"--engine_options: found {one_line(error)}, expected {{key: value, ...}}") from error
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise UserError(f"--engine_options: found {brief(found)}, expected {{key: value, ...}}")
    if "cluster" in found:
        one_of("--engine_options: cluster", found["cluster"], CLUSTERS)
    return found


def executor_of(folder: Path, options: Mapping[str, Any], jobs: int) -> Any:
    """The executor of submitit.

    Args:
        folder: Folder of its logs and pickles.
        options: See `read_engine_options`.
        jobs: Number of tasks of an array at once.

    Raises:
        UserError: submitit is not installed; there is no SLURM; a parameter that submitit does not have.
    """
    try:
        import submitit
    except ImportError as error:
        raise UserError(f"--engine: found submitit, which {not_installed('submitit')}") from error
    cluster = options.get("cluster", "slurm")
    given = {
        key if key in SHARED or key.startswith(PREFIXES) else f"{cluster}_{key}": value
        for key, value in options.items()
        if key != "cluster"
    }
    try:
        executor = submitit.AutoExecutor(folder, cluster=cluster)
        executor.update_parameters(
            **{"name": "pretext3d", "timeout_min": TIMEOUT, "slurm_array_parallelism": jobs, **given}
        )
    except (RuntimeError, ValueError, NameError, TypeError, AssertionError) as error:
        raise UserError(f"--engine_options: {one_line(error)}") from error
    return executor


def submitit_engine(folder: Path, options: Mapping[str, Any]) -> Callable[..., list[str]]:
    """What takes the place of `running.run_cells`, see `submit_cells`."""
    return partial(submit_cells, folder=folder, options=options)


def submit_cells(
    cells: Sequence[C],
    done: set[str],
    runner: Any,
    jobs: int,
    finished: Callable[[C, float | None, str, float], None],
    folder: Path,
    options: Mapping[str, Any],
) -> list[str]:
    """Submit cells, each as soon as the one that it needs is done; what is ready at once is one array.

    Args:
        cells: Cells to run, in order.
        done: Names of the cells that are already done.
        runner: Runner, with `folder(cell)`, `job(cell)` and `finish(cell, seconds)`, which gives the score.
        jobs: Number of tasks at once: of each array on SLURM, of all otherwise.
        finished: See `running.run_cells`.
        folder: Folder of submitit's logs.
        options: See `read_engine_options`.

    Returns:
        Names of the cells that failed, or that need one that did.
    """
    executor = executor_of(folder, options, jobs)
    threads = int(options.get("cpus_per_task") or runner.threads)  # cores of a node, not of this machine
    cluster = options.get("cluster", "slurm")
    # a task finds this copy of the package, wherever it is
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [PACKAGE_PARENT, os.environ.get("PYTHONPATH")]))
    waiting, ready_after, failed = list(cells), set(done), []
    running = attached(folder, cluster, runner, cells)
    for _, cell in running:
        waiting.remove(cell)
    try:
        while waiting or running:
            for cell in [cell for cell in waiting if cell.needs in failed]:
                waiting.remove(cell)
                failed.append(cell.name)
                finished(cell, None, f"not run: {cell.needs} failed, whose weights it starts from", 0.0)
            ready = [cell for cell in waiting if not cell.needs or cell.needs in ready_after]
            ready = ready if cluster == "slurm" else ready[: max(0, jobs - len(running))]
            if ready:
                for cell in list(ready):
                    waiting.remove(cell)
                    try:
                        job = resumable(runner.job(cell))
                    except Exception as error:  # as below
                        ready.remove(cell)
                        failed.append(cell.name)
                        finished(cell, None, str(error) or type(error).__name__, 0.0)
                        continue
                    runner.folder(cell).mkdir(parents=True, exist_ok=True)
                    write_json(runner.folder(cell) / "settings.json", job)
                if not ready:
                    continue
                task = FolderTask(threads)
                submitted = executor.map_array(task, [str(runner.folder(cell)) for cell in ready])
                running += zip(submitted, ready, strict=True)
                for job, cell in zip(submitted, ready, strict=True):
                    content = {"job_id": job.job_id, "cluster": cluster}
                    write_json(runner.folder(cell) / SUBMITTED, content)
            ended = [pair for pair in running if pair[0].done()]
            if not ended and not running:
                break
            for job, cell in ended:
                running.remove((job, cell))
                (runner.folder(cell) / SUBMITTED).unlink(missing_ok=True)
                seconds, problem = result_of(job)
                score = None
                if not problem:
                    try:
                        score = runner.finish(cell, seconds)
                    except Exception as error:  # after any error in one cell the others continue
                        problem = str(error) or type(error).__name__
                if problem:
                    failed.append(cell.name)
                else:
                    ready_after.add(cell.name)
                finished(cell, score, problem, seconds)
            if not ended:
                time.sleep(POLL)
    except BaseException:
        for job, _ in running:
            job.cancel()
        raise
    return failed + [cell.name for cell in waiting]


def attached(folder: Path, cluster: str, runner: Any, cells: Sequence[C]) -> list[tuple[Any, C]]:
    """The tasks of an earlier command that still run or have given a result, each with its cell.

    Other tasks, which failed or were cancelled, are forgotten: their cells are submitted again.

    Raises:
        UserError: a task of another cluster, or one on this machine that still runs.
    """
    import submitit

    found: list[tuple[Any, C]] = []
    for cell in cells:
        file = runner.folder(cell) / SUBMITTED
        if not file.exists():
            continue
        task = read_json(file)
        known = f"{file}: found task {task['job_id']} of cluster {task['cluster']}"
        if task["cluster"] != cluster:
            raise UserError(f"{known}, expected {cluster}; remove the file when that task has ended")
        if cluster == "debug":  # ended with the earlier command
            continue
        job = (submitit.SlurmJob if cluster == "slurm" else submitit.LocalJob)(folder, task["job_id"])
        if cluster == "local" and not job.paths.result_pickle.exists() and is_alive(int(task["job_id"])):
            raise UserError(f"{known}, which still runs; expected none: wait for it, or end that process")
        if job.done(force_check=True) and result_of(job)[1]:
            file.unlink()
            continue
        found.append((job, cell))
    if found:
        say(f"{len(found)} tasks of an earlier command run or have ended, as {found[0][0].job_id}: not again")
    return found


def is_alive(pid: int) -> bool:
    """Whether there is a process with this id."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def result_of(job: Any) -> tuple[float, str]:
    """Seconds and the problem of a task that has ended, also of one that was killed."""
    try:
        seconds, problem = job.result()
    except Exception as error:  # submitit's, for a task that wrote no result
        return 0.0, one_line(error)
    return float(seconds), str(problem)
