"""Bundles as their users run them: `python -m monai.bundle run ...` in a process of its own.

`run`, `call`, `succeed` and `fail` fork it from one that has imported MONAI, see `fork_server`; where a test
is about signals, torchrun or the end of an interpreter, it starts a Python of its own.
"""

import atexit
import csv
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUNDLES = ROOT / "bundles"

# A network and a crop so small that a step takes milliseconds; every other setting is the laptop profile's.
TINY = {
    "profile": "laptop", "encoder": "unet", "roi_size": 16, "batch_size": 2, "num_workers": 0,
    "steps_per_epoch": 3, "max_epochs": 2,
}  # fmt: skip
# The same without pictures and probe, which take half of its time.
QUICK = {**TINY, "pictures": 0, "probe": None}
# One step of the paper's profile, as short as it can be.
PAPER_STEP = {
    "profile": "paper", "batch_size": 1, "max_epochs": 1, "steps_per_epoch": 1, "val_crops": 1,
    "num_workers": 0, "val_fraction": 0.05, "probe": None, "timeout": 600,
}  # fmt: skip
# The phantom's volumes have 80 x 64 x 80 voxels of 4 mm: at 8 mm a crop is not so small a part of them.
FINETUNE = {key: value for key, value in {**TINY, "pixdim": 8}.items() if key != "encoder"}


def arguments(config: str | list[str], bundle: str = "vectorpose", **keys: object) -> list[str]:
    """The command line of one run; configuration names are looked up in the bundle unless they are paths."""
    names = [config] if isinstance(config, str) else config
    files = [name if "/" in name else str(BUNDLES / bundle / "configs" / f"{name}.yaml") for name in names]
    command = ["-m", "monai.bundle", "run", "--config_file", files[0] if len(files) == 1 else str(files)]
    for key, value in keys.items():
        command += [f"--{key.replace('__', '::')}", str(value)]
    return command


def environment(**extra: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "default", **extra}


class ForkServer:
    """The process that `fork_server.py` describes, started at the first call and ended with this one."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None

    def stop(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None

    def _answer(self, deadline: float) -> list[int] | None:
        """The numbers in the next answer; None where there is none in time."""
        assert self.process is not None
        assert self.process.stdout is not None
        pipe, line = self.process.stdout.fileno(), b""
        while not line.endswith(b"\n"):
            if not select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))[0]:
                return None
            byte = os.read(pipe, 1)
            if not byte:  # the server has ended
                return None
            line += byte
        return [int(number) for number in line.split()]

    def run(
        self,
        module: str,
        words: list[str],
        cwd: Path,
        variables: dict[str, str],
        timeout: int,
        processes: int = 1,
    ) -> subprocess.CompletedProcess[str]:
        """As `subprocess.run` of `python -m module words`; of several processes, as torchrun starts them.

        Raises:
            subprocess.TimeoutExpired: it took too long, and was killed.
        """
        if self.process is None:
            command = [sys.executable, str(Path(__file__).with_name("fork_server.py"))]
            self.process = subprocess.Popen(
                command,
                env=environment(),
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            atexit.register(self.stop)
        with tempfile.NamedTemporaryFile("r") as stdout, tempfile.NamedTemporaryFile("r") as stderr:
            several = torchrun_variables(processes) if processes > 1 else [{}]
            call = {
                "module": module, "arguments": words, "cwd": str(cwd),
                "environments": [variables | more for more in several],
                "stdout": stdout.name, "stderr": stderr.name,
            }  # fmt: skip
            assert self.process.stdin is not None
            self.process.stdin.write(json.dumps(call).encode() + b"\n")
            deadline = time.monotonic() + timeout
            forks = self._answer(deadline + 120)  # the imports of the first call
            assert forks, "the server has not answered"
            codes = self._answer(deadline)
            if codes is None:
                for fork in forks:
                    os.kill(fork, signal.SIGKILL)
                self._answer(deadline + 60)
                raise subprocess.TimeoutExpired([module, *words], timeout)
            return subprocess.CompletedProcess([module, *words], codes[0], stdout.read(), stderr.read())


def torchrun_variables(processes: int) -> list[dict[str, str]]:
    """What torchrun puts into the environment of each of some processes on this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes, "MASTER_PORT": port}
    ranks = [common | {"RANK": rank, "LOCAL_RANK": rank} for rank in range(processes)]
    return [{key: str(n) for key, n in rank.items()} | {"MASTER_ADDR": "127.0.0.1"} for rank in ranks]


SERVER = ForkServer()


def run(
    config: str | list[str], cwd: Path = ROOT, timeout: int = 300, processes: int = 1, **keys: object
) -> subprocess.CompletedProcess[str]:
    """Run to the end, in a fork or in several; the output is for the caller to judge."""
    _, module, *words = arguments(config, **keys)
    return SERVER.run(module, words, cwd, environment(), timeout, processes)


def call(
    module: str, *words: object, cwd: Path = ROOT, timeout: int = 300
) -> subprocess.CompletedProcess[str]:
    """`python -m module words` to the end, in a fork."""
    return SERVER.run(module, [*map(str, words)], cwd, environment(), timeout)


def succeed(config: str | list[str], **keys: object) -> str:
    """Run, and expect exit code 0; the output, both streams."""
    done = run(config, **keys)  # type: ignore[arg-type]
    output = done.stdout + done.stderr
    assert done.returncode == 0, output[-4000:]
    return output


def fail(config: str | list[str], *expected: str, **keys: object) -> str:
    """Run, and expect one clear message that holds all of `expected`, no stack trace, an exit code not 0."""
    done = run(config, **keys)  # type: ignore[arg-type]
    output = done.stdout + done.stderr
    assert done.returncode != 0, output[-4000:]
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, output[-4000:]
    for text in expected:
        assert text in errors[0], errors[0]
    assert "Traceback" not in done.stderr, output[-4000:]
    return errors[0]


def history(folder: Path) -> list[dict[str, str]]:
    """The lines of a run's metrics.csv."""
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))
