"""The cells of a comparison: one arm, number of labelled cases, seed and fold, each in its own process.

A cell's folder holds settings.json (its definition, written before it starts), output.log, what the two
bundle runs write, and, as the last file of all, done.json. A folder without done.json was interrupted: it
continues from its newest epoch. `python -m pretext3d.commands.compare.cells FOLDER` runs one cell; compare.py
calls it.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from pretext3d.commands.compare.folder import difference, read_json, write_json
from pretext3d.commands.compare.tasks import SEGMENTATION, Task
from pretext3d.commands.parser import top_key
from pretext3d.errors import UserError
from pretext3d.messages import say

BUILT_IN = ("scratch", "restart")
PACKAGE_PARENT = str(Path(__file__).resolve().parents[3])
NEVER_VALIDATE = 1_000_000_000  # val_interval: no validation during training
OTHER_DECODER = {"decoder", "transfer"}  # keys with which an arm has another decoder before its output layer


@dataclass(frozen=True)
class Arm:
    """The source of the initial weights: scratch, restart (a scratch cell), or a pre-trained checkpoint.

    An arm keeps the output layer of its weights where it is that of the comparison's segmentation: the same
    classes and decoder. So restart keeps it, as does the checkpoint of any such segmentation; pre-training
    has none to keep.
    """

    name: str
    pretrained: str = ""  # the checkpoint's path; '' for scratch and restart
    digest: str = ""  # sha256 of that file: the arm is the same wherever the file is
    head: tuple[str, ...] = ()  # of a segmentation's checkpoint: see `record.output_layer`
    overrides: Mapping[str, Any] = field(default_factory=dict)  # of this arm alone


@dataclass(frozen=True)
class Cell:
    """One arm with one number of labelled cases, one seed and, in a cross-validation, one fold."""

    arm: Arm
    num_labelled: int
    seed: int
    fold: int | None = None

    @property
    def place(self) -> str:
        """What the cells of different arms have in common."""
        fold = "" if self.fold is None else f"_fold{self.fold}"
        return f"n{self.num_labelled:03d}_seed{self.seed}{fold}"

    @property
    def name(self) -> str:
        """Name of the cell's folder."""
        return f"{self.arm.name}_{self.place}"

    @property
    def split(self) -> int:
        """What may decide on the held-out cases: the fold, or the seed."""
        return self.seed if self.fold is None else self.fold

    @property
    def needs(self) -> str:
        """Name of the cell that has to be done first, or ''."""
        return f"scratch_{self.place}" if self.arm.name == "restart" else ""

    @property
    def title(self) -> str:
        """Name in messages."""
        fold = "" if self.fold is None else f", fold {self.fold}"
        return f"{self.arm.name}, {self.num_labelled} labelled, seed {self.seed}{fold}"


class CellRunner:
    """Fine-tunes and evaluates cells, each in its own process.

    Args:
        cells_dir: Folder of the cells' folders.
        configs: Folder with the task's two configurations.
        common: Settings that all cells share; a cell done with others is refused.
        tuning: Overrides of the fine-tuning.
        evaluation: Overrides of the evaluation.
        threads: Number of threads of each process, OMP_NUM_THREADS.
        descriptors: Open files that each process keeps open too (a lock on the comparison's folder).
        monte_carlo: Whether each seed has its own split.
        head: Decoder and classes of the comparison: an arm with the same ones keeps its output layer.
        task: Task of the comparison.
        replaced: Keys that the evaluation takes from the checkpoint, not from an arm's overrides.
        validate_every: Number of epochs between validations, which choose nothing; 0 = none.
        subjects: Path of the file of the folds, see `subjects.set_subjects`.
        pools: Number of labelled training subjects of each split, by its fold or seed.
    """

    def __init__(
        self,
        cells_dir: Path,
        configs: Path,
        common: Mapping[str, Any],
        tuning: Mapping[str, Any],
        evaluation: Mapping[str, Any],
        threads: int = 1,
        descriptors: Sequence[int] = (),
        monte_carlo: bool = False,
        head: Sequence[str] = (),
        task: Task = SEGMENTATION,
        replaced: Collection[str] = (),
        validate_every: int = 0,
        subjects: str = "",
        pools: Mapping[int, int] | None = None,
    ) -> None:
        self.pools = dict(pools or {})
        self.monte_carlo, self.head, self.task = monte_carlo, tuple(head), task
        self.replaced, self.validate_every, self.subjects = frozenset(replaced), validate_every, subjects
        self.cells_dir, self.configs = cells_dir, configs
        self.threads, self.descriptors = threads, descriptors
        self.common, self.tuning, self.evaluation = dict(common), dict(tuning), dict(evaluation)
        self.lock, self.stopped = threading.Lock(), False
        self.processes: set[subprocess.Popen[str]] = set()

    def settings(self, cell: Cell) -> dict[str, Any]:
        """The settings that identify a cell."""
        first = cell.needs or cell.arm.digest
        own = {
            "arm": cell.arm.name,
            "pretrained": first,
            "num_labelled": cell.num_labelled,
            "seed": cell.seed,
        }
        own |= {} if cell.fold is None else {"fold": cell.fold}
        own |= {"overrides": dict(cell.arm.overrides)} if cell.arm.overrides else {}
        own |= {"keep_head": True} if cell.arm.head and self.keeps_head(cell) else {}
        return {**own, "common": self.common}

    def keeps_head(self, cell: Cell) -> bool:
        """Whether the cell starts from the output layer of its weights, too (see `Arm`)."""
        if self.task is not SEGMENTATION or OTHER_DECODER & set(cell.arm.overrides):
            return False
        return bool(cell.needs) or (cell.arm.head != () and cell.arm.head == self.head)

    def labelled(self, cell: Cell) -> int:
        """The number of labelled subjects of a cell, at most those that its split has."""
        return min(cell.num_labelled, self.pools.get(cell.split, cell.num_labelled))

    def is_done(self, cell: Cell) -> bool:
        """Whether the cell is done; refuses one that was done, or started, with other settings."""
        folder = self.cells_dir / cell.name
        if not (folder / "settings.json").exists():
            return False
        lines = difference(read_json(folder / "settings.json")["settings"], self.settings(cell))
        if lines:
            raise UserError(
                f"{folder}: was run with other settings: {'; '.join(lines)}. Use another --output_dir, or "
                "remove that folder to run it again"
            )
        return (folder / "done.json").exists()

    def job(self, cell: Cell) -> dict[str, Any]:
        """The two bundle runs of a cell, as configuration files and overrides."""
        folder = self.cells_dir / cell.name
        first = (
            str(self.cells_dir / cell.needs / "checkpoints" / "final.pt")
            if cell.needs
            else cell.arm.pretrained
        )
        own: dict[str, Any] = {
            "num_labelled": self.labelled(cell),
            "seed": cell.seed,
            "subset_seed": cell.seed,
            "output_dir": str(folder),
        }
        own |= {"split_seed": cell.seed} if self.monte_carlo else {}
        own |= {} if cell.fold is None else {"fold": cell.fold, "subjects": self.subjects}
        arm = dict(cell.arm.overrides)
        tuning = {**self.tuning, **arm, **own, "val_interval": self.validate_every or NEVER_VALIDATE}
        arm = {key: value for key, value in arm.items() if top_key(key) not in self.replaced}
        tuning |= {"pretrained": first} if first else {}
        tuning |= {"keep_head": True} if self.keeps_head(cell) else {}
        tuning |= {"resume": True} if any((folder / "checkpoints").glob("epoch_*.pt")) else {}
        files = [str(self.configs / name) for name in self.task.files]
        return {
            "settings": self.settings(cell),
            "pretrained": first,
            "finetune": {"config_file": files[0], **tuning},
            "evaluate": {"config_file": files, **self.evaluation, **arm, **own, "weights": "final"},
        }

    def __call__(self, cell: Cell) -> float:
        """Run a cell to its end; its score. RuntimeError with the end of its log if it fails."""
        folder = self.cells_dir / cell.name
        folder.mkdir(parents=True, exist_ok=True)
        begun = time.perf_counter()
        write_json(folder / "settings.json", self.job(cell))
        with (folder / "output.log").open("a") as log:
            code = self._run([sys.executable, "-P", "-m", __name__, str(folder)], log)
        if self.stopped:
            raise RuntimeError("stopped")
        if code:
            raise RuntimeError(
                f"exit code {code}; the end of {folder / 'output.log'}:\n{log_tail(folder / 'output.log')}"
            )
        score = self.task.cell_score(folder)
        seconds = round(time.perf_counter() - begun, 1)
        found = {"settings": self.settings(cell), "seconds": seconds, self.task.score: score}
        write_json(folder / "done.json", found)
        return score

    def _run(self, command: Sequence[str], log: IO[str]) -> int:
        threads = str(self.threads)
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
            "PYTHONUNBUFFERED": "1",
            # this copy of the package, wherever it is: installed, in a repository or in an unzipped bundle
            "PYTHONPATH": os.pathsep.join(filter(None, [PACKAGE_PARENT, os.environ.get("PYTHONPATH")])),
        }
        with self.lock:
            if self.stopped:
                return 1
            # its own session: Ctrl-C reaches only this program, which then ends cells and their workers
            process = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                env=environment,
                start_new_session=True,
                pass_fds=tuple(self.descriptors),
            )
            self.processes.add(process)
        try:
            return process.wait()
        finally:
            with self.lock:
                self.processes.discard(process)

    def stop(self, patience: float = 10.0) -> None:
        """End all cells under way. Checkpoints are atomic: nothing is lost but the epoch under way."""
        with self.lock:
            self.stopped = True
            processes = list(self.processes)
        for process in processes:
            signal_all(process, signal.SIGTERM)
        until = time.monotonic() + patience
        for process in processes:
            try:
                process.wait(max(0.1, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                signal_all(process, getattr(signal, "SIGKILL", signal.SIGTERM))


def signal_all(process: subprocess.Popen[str], number: int) -> None:
    """Send a signal to a process and, where the system has process groups, to those it started."""
    if process.poll() is not None:
        return
    try:
        if hasattr(os, "killpg"):
            os.killpg(process.pid, number)
        else:
            process.terminate()
    except ProcessLookupError:
        pass


def log_tail(path: Path, lines: int = 12) -> str:
    """The end of a log without progress bars; of a traceback only where it was raised first, and what."""
    found = [line for line in re.split(r"[\r\n]+", path.read_text(errors="replace")) if line.strip()]
    kept = [line for line in found if not re.search(r"\d+%[ |]", line)]
    begun = [i for i, line in enumerate(kept) if line.startswith("$ ")]
    kept = kept[begun[-1] + 1 :] if begun else kept
    start = next((i for i, line in enumerate(kept) if line.startswith("Traceback")), None)
    if start is not None:  # what follows says only which entry of the configuration it was in
        raised = next((i for i in range(start + 1, len(kept)) if not kept[i].startswith(" ")), len(kept))
        kept = kept[: raised + 1]
    return "\n".join(f"    {line}" for line in kept[-lines:])


def run_cells(
    cells: Sequence[Cell],
    done: set[str],
    runner: Any,
    jobs: int,
    finished: Callable[[Cell, float | None, str, float], None],
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
    running: dict[Future[tuple[float, float]], Cell] = {}

    def timed(cell: Cell) -> tuple[float, float]:
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


def command_line(job: Mapping[str, Any]) -> str:
    """A bundle run as the equivalent command."""
    words = ["python", "-m", "monai.bundle", "run"]
    for key, value in job.items():
        words += [f"--{key}", str(value)]
    return shlex.join(words)


def run_one(folder: Path) -> None:
    """Fine-tune and evaluate one cell in this process: MONAI is imported once for both."""
    jobs = read_json(folder / "settings.json")
    from monai.bundle import run

    from pretext3d.training.arguments import as_configuration

    for name in ("finetune", "evaluate"):
        say(f"$ {command_line(jobs[name])}", flush=True)
        if name == "evaluate" or not (folder / "checkpoints" / "final.pt").exists():
            run(**as_configuration(jobs[name]))


if __name__ == "__main__":
    run_one(Path(sys.argv[1]))
