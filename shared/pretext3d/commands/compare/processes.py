"""A cell's process: a fine-tuning and its evaluation, or a pre-training, with its log, and how it ends.

`python -m pretext3d.commands.compare.processes FOLDER` runs the bundle runs of one cell, as its settings.json
says; `ProcessRunner` calls it. A folder without the last file of a run was interrupted: it continues from its
newest epoch.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from pretext3d.commands.compare.folder import read_json, write_json
from pretext3d.messages import say

__all__ = ["ProcessRunner", "command_line", "log_tail", "resumable", "run_one", "signal_all", "threads_each"]

PACKAGE_PARENT = str(Path(__file__).resolve().parents[3])
RUNS = ("pretrain", "finetune", "evaluate")  # of a cell's settings.json, in this order


def threads_each(threads: int, jobs: int) -> int:
    """The threads of each process; 0 = OMP_NUM_THREADS, otherwise the cores divided by `jobs`."""
    limit = os.environ.get("OMP_NUM_THREADS", "")
    cores = int(limit) if limit.isdigit() and int(limit) else (os.cpu_count() or 1) // jobs
    return threads or max(1, cores)


class ProcessRunner:
    """Runs cells' folders, each in its own process.

    Args:
        threads: Number of threads of each process, OMP_NUM_THREADS.
        descriptors: Open files that each process keeps open too (a lock on the comparison's folder).
    """

    def __init__(self, threads: int = 1, descriptors: Sequence[int] = ()) -> None:
        self.threads, self.descriptors = threads, descriptors
        self.lock, self.stopped = threading.Lock(), False
        self.processes: set[subprocess.Popen[str]] = set()

    def run(self, folder: Path, job: Mapping[str, Any]) -> float:
        """Do the runs of a job in a folder; seconds.

        Args:
            folder: Folder of the cell; created if it does not exist.
            job: Content of its settings.json: `settings`, and the runs by their names.

        Raises:
            RuntimeError: it failed, with the end of its log; or it was stopped.
        """
        folder.mkdir(parents=True, exist_ok=True)
        begun = time.perf_counter()
        write_json(folder / "settings.json", job)
        with (folder / "output.log").open("a") as log:
            code = self._run([sys.executable, "-P", "-m", __name__, str(folder)], log)
        if self.stopped:
            raise RuntimeError("stopped")
        if code:
            raise RuntimeError(
                f"exit code {code}; the end of {folder / 'output.log'}:\n{log_tail(folder / 'output.log')}"
            )
        return time.perf_counter() - begun

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


def resumable(job: Mapping[str, Any]) -> dict[str, Any]:
    """A job whose trainings continue from their newest epoch, where there is one.

    Args:
        job: See `ProcessRunner.run`.
    """
    return {
        name: {**run, "resume": True} if name in ("pretrain", "finetune") else run
        for name, run in job.items()
    }


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


def command_line(job: Mapping[str, Any]) -> str:
    """A bundle run as the equivalent command."""
    words = ["python", "-m", "monai.bundle", "run"]
    for key, value in job.items():
        words += [f"--{key}", str(value)]
    return shlex.join(words)


def run_one(folder: Path) -> None:
    """Do the runs of one cell in this process: MONAI is imported once for all."""
    jobs = read_json(folder / "settings.json")
    from monai.bundle import run

    from pretext3d.training.arguments import as_configuration

    if "probe" in jobs and not (folder / "probe.csv").exists():
        from pretext3d.commands.probe.options import main

        main(jobs["probe"]["words"])
    for name in (name for name in RUNS if name in jobs):
        say(f"$ {command_line(jobs[name])}", flush=True)
        if name == "evaluate" or not (folder / "checkpoints" / "final.pt").exists():
            run(**as_configuration(jobs[name]))


if __name__ == "__main__":
    run_one(Path(sys.argv[1]))
