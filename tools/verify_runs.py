"""The environment of a packed bundle, and its runs there: the checks of verify.py that train and segment."""

import csv
import hashlib
import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pretext3d.errors import UserError
from pretext3d.files import discard_folder, draft_folder, locked
from verify_files import Result

HERE = Path(__file__).resolve().parent
ITERATIONS = 2
STAMP = "verify_requirements.txt"  # in each environment that this tool has created
# Hides an editable pretext3d from every process of an environment that has one: the bundle's own is left.
HIDE = """\
import os
import sys

sys.meta_path = [one for one in sys.meta_path if "pretext3d" not in getattr(one, "__module__", "")]
sys.path = [
    path
    for path in sys.path
    if path.endswith("site-packages") or not os.path.isdir(os.path.join(path, "pretext3d"))
]
"""


@dataclass(frozen=True)
class Environment:
    """A Python to run bundles with, and the variables of its processes."""

    python: Path
    variables: dict[str, str]

    def run(self, words: list[str], cwd: Path, timeout: int) -> subprocess.CompletedProcess[str]:
        """Run to the end; the caller checks the output."""
        try:
            return subprocess.run(
                [str(self.python), *words], cwd=cwd, env=self.variables, capture_output=True, text=True,
                timeout=timeout, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(words, 124, "", f"not done after {timeout} s")


def clean_variables(work: Path) -> dict[str, str]:
    """This process' variables without those that lead Python to other packages; with a separate cache."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV", "CONDA"))}
    own = {"PYTHONNOUSERSITE": "1", "PYTHONDONTWRITEBYTECODE": "1", "PRETEXT3D_CACHE": str(work / "cache")}
    return {**kept, **own}


def current_environment(work: Path) -> Environment:
    """The Python that runs this, with an installed pretext3d hidden."""
    folder = work / "hide"
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(HIDE, encoding="utf-8")
    return Environment(Path(sys.executable), {**clean_variables(work), "PYTHONPATH": str(folder)})


def check_environments(folder: Path) -> None:
    """Make sure that a folder contains only environments of this tool.

    Raises:
        UserError: it contains something else.
    """
    if not folder.exists():
        return
    found = sorted(folder.iterdir()) if folder.is_dir() else [folder]
    others = [
        one.name for one in found if one.suffix not in (".lock", ".tmp") and not (one / STAMP).is_file()
    ]
    if others:
        raise UserError(
            f"environment: {folder}: found {others[0]}, which this tool has not made; expected its own "
            "environments, or a new folder"
        )


def clean_environment(folder: Path, packages: list[str], work: Path) -> Environment:
    """A virtual environment with these packages and what they need, nothing else: one per set.

    A finished one is never changed, so that several calls may use it; while one makes it, others wait.

    Args:
        folder: Folder of the environments.
        packages: Requirements in pip's form.
        work: Folder where pip runs.

    Raises:
        UserError: the folder is something else, or pip cannot install.
    """
    wanted = "\n".join(packages) + "\n"
    place = folder / hashlib.sha256(f"{sys.version}\n{wanted}".encode()).hexdigest()[:12]
    python = place / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp = place / STAMP  # what is installed; nothing in it = not finished
    check_environments(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(place.with_suffix(".lock")):  # another verify of the same requirements waits, then uses it
        if not stamp.is_file() or stamp.read_text(encoding="utf-8") != wanted:
            print(f"installing {len(packages)} packages in {place}", flush=True)
            discard_folder(place)
            with draft_folder(place) as draft:
                (draft / STAMP).write_text("", encoding="utf-8")
                draft.rename(place)
            subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
            made = Environment(python, clean_variables(work)).run(
                ["-m", "pip", "install", "--quiet", *packages], work, 3600
            )
            if made.returncode:
                raise UserError(
                    f"environment: {place}: pip: {last_line(made.stderr)}; it needs a package index, which "
                    "--environment current does not"
                )
            stamp.write_text(wanted, encoding="utf-8")
    return Environment(python.absolute(), clean_variables(work))


def last_line(text: str) -> str:
    """The last line of a program's output, or its `error:` line if there is one."""
    lines = [line.strip() for line in text.replace("\r", "\n").splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith("error:")]
    return ((errors or lines or ["no output"])[-1])[:300]


class Runs:
    """A bundle's runs, each through `python -m monai.bundle run` in a folder that is not the bundle's.

    Args:
        bundle: Folder of the unpacked bundle.
        environment: Environment that runs it.
        work: Folder for the runs' folders.
        dataset_dir: Folder of labelled volumes; '' = the embedded phantom.
        timeout: Limit per run in seconds.
    """

    def __init__(
        self, bundle: Path, environment: Environment, work: Path, dataset_dir: str = "", timeout: int = 1800
    ) -> None:
        self.bundle, self.environment, self.dataset_dir, self.timeout = (
            bundle,
            environment,
            dataset_dir,
            timeout,
        )
        self.output = work / f"{bundle.name}_runs"
        self.cache = work / "cache"
        self.output.mkdir(parents=True)

    def run(self, names: list[str], folder: str, **keys: object) -> tuple[str, float]:
        """The last line of a run that failed, or '', and its seconds."""
        configs = os.path.relpath(self.bundle / "configs", self.output)
        files = [f"{configs}/{name}.yaml" for name in names]
        words = ["-m", "monai.bundle", "run", "--config_file", files[0] if len(files) == 1 else str(files)]
        given = {**keys, "output_dir": folder}
        if self.dataset_dir:
            given = {"dataset_dir": self.dataset_dir, **given}
        for key, value in given.items():
            words += [f"--{key}", str(value)]
        start = time.monotonic()
        done = self.environment.run(words, self.output, self.timeout)
        failed = f"exit code {done.returncode}: {last_line(done.stderr)}" if done.returncode else ""
        return failed, time.monotonic() - start

    def small(self, name: str) -> dict[str, object]:
        """The overrides of a short training: two iterations, the laptop profile."""
        config = yaml.safe_load((self.bundle / "configs" / f"{name}.yaml").read_text(encoding="utf-8"))
        keys = {
            "profile": "laptop", "max_epochs": 1, "steps_per_epoch": ITERATIONS, "batch_size": 2,
            "num_workers": 0, "val_fraction": 0.1,
        }  # fmt: skip
        if "laptop" not in config.get("profiles", {}):
            keys.pop("profile")
        return {key: value for key, value in keys.items() if key in config}

    def trained(self, name: str, **keys: object) -> Result:
        """A short training: it ends well, its loss is a number, its checkpoint is there."""
        check = f"run: {name}"
        failed, seconds = self.run([name], name, **{**self.small(name), **keys})
        if failed:
            return Result(check, "failed", f"{failed}; expected {ITERATIONS} iterations")
        folder = self.output / name
        try:
            with (folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
                losses = [float(row["train_loss"]) for row in csv.DictReader(file)]
        except (OSError, KeyError, ValueError) as error:
            return Result(check, "failed", f"metrics.csv: {error}; expected a line with train_loss")
        if len(losses) != 1 or not math.isfinite(losses[0]):
            return Result(check, "failed", f"found losses {losses}; expected one finite number")
        if not list((folder / "checkpoints").glob("*.pt")):
            return Result(check, "failed", "found no checkpoint; expected one")
        return Result(check, "passed", f"{ITERATIONS} iterations in {seconds:.0f} s, loss {losses[0]:.3g}")

    def evaluated(self, base: str) -> Result:
        """The run that `base` has trained, on its held-out cases."""
        failed, seconds = self.run([base, "evaluate"], base, **self.small(base))
        table = self.output / base / "evaluation.csv"
        if failed or not table.is_file():
            return Result("run: evaluate", "failed", f"{failed or 'no evaluation.csv'}; expected a table")
        lines = len(table.read_text(encoding="utf-8").splitlines()) - 1
        return Result("run: evaluate", "passed", f"{lines} lines in evaluation.csv in {seconds:.0f} s")

    def segmented(self, own_weights: bool) -> Result:
        """Two volumes through inference.yaml; a segmentation of each."""
        folder = Path(self.dataset_dir).resolve() if self.dataset_dir else self.cache
        found = [path for path in sorted(folder.glob("**/images*/*.nii.gz")) if not path.name.startswith(".")]
        scans = self.output / "scans"
        scans.mkdir()
        for path in found[:2]:
            shutil.copy(path, scans / path.name)
        if not found:
            return Result("run: inference", "failed", f"found no images*/*.nii.gz in {folder}; expected some")
        keys: dict[str, object] = {"dataset_dir": "scans"}
        if own_weights:
            (self.output / "inference").mkdir()
            (self.output / "inference" / "own_weights").touch()  # for the checks inside
        else:
            keys["pretrained"] = "finetune"
        failed, seconds = self.run(["inference"], "inference", **keys)
        made = len(list((self.output / "inference").glob("*_seg.nii.gz")))
        expected = len(list(scans.iterdir()))
        if failed or made != expected:
            return Result(
                "run: inference", "failed", f"{failed or f'found {made}'}; expected {expected} volumes"
            )
        return Result("run: inference", "passed", f"{made} volumes in {seconds:.0f} s")

    def segments(self) -> bool:
        """Whether the bundle's own weights are of a segmentation; others are only pre-trained.

        A promoted bundle has nothing else: its train.yaml is a fine-tuning, and its weights a state dict.
        """
        file = self.bundle / "models" / "model.pt"
        if not file.is_file():
            return False
        if not (self.bundle / "configs" / "finetune.yaml").is_file():
            return True
        import torch

        try:
            content = torch.load(file, map_location="cpu", weights_only=True)
            return bool(content["record"]["method"] == "segmentation")
        except Exception:  # the check of the weights reports the fault
            return False

    def inside(self) -> list[Result]:
        """The checks that look at networks and weights from inside."""
        report = self.output / "report.json"
        words = ["-P", str(HERE / "verify_inside.py"), str(self.bundle), str(self.output), str(report)]
        words.append(self.dataset_dir)
        done = self.environment.run(words, self.output, self.timeout)
        if not report.is_file():
            return [Result("inside", "failed", f"exit code {done.returncode}: {last_line(done.stderr)}")]
        results: list[Any] = json.loads(report.read_text(encoding="utf-8"))
        return [Result(*one) for one in results]

    def all(self) -> Iterator[Result]:
        """Every check, in the order in which a user would run it."""
        yield self.trained("train")
        pretrains = (self.bundle / "configs" / "finetune.yaml").is_file()
        if pretrains:
            yield self.trained("finetune", pretrained="train")
        if (self.bundle / "configs" / "evaluate.yaml").is_file():
            yield self.evaluated("finetune" if pretrains else "train")
        yield self.segmented(self.segments())
        yield from self.inside()
