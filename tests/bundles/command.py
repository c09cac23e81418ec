"""Bundles as their users run them: `python -m monai.bundle run ...` in a process of its own."""

import csv
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUNDLES = ROOT / "bundles"

# A network and a crop so small that a step takes milliseconds; every other setting is the laptop profile's.
TINY = {
    "profile": "laptop", "encoder": "unet", "roi_size": 16, "batch_size": 2, "num_workers": 0,
    "steps_per_epoch": 3, "max_epochs": 2,
}  # fmt: skip
# One step of the paper's profile, as short as it can be.
PAPER_STEP = {
    "profile": "paper", "batch_size": 1, "max_epochs": 1, "steps_per_epoch": 1, "val_crops": 1,
    "num_workers": 0, "val_fraction": 0.05, "timeout": 600,
}  # fmt: skip
FINETUNE = {key: value for key, value in TINY.items() if key != "encoder"}


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


def run(
    config: str | list[str], cwd: Path = ROOT, timeout: int = 300, **keys: object
) -> subprocess.CompletedProcess[str]:
    """Run to the end; the output is for the caller to judge."""
    command = [sys.executable, *arguments(config, **keys)]
    return subprocess.run(
        command, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=timeout, check=False
    )


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
