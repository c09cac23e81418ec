"""The cells of a comparison: one arm, number of labelled cases, seed and fold, each in its own process.

A cell's folder holds settings.json (its definition, written before it starts), output.log, what the two
bundle runs write, and, as the last file of all, done.json. A folder without done.json was interrupted: it
continues from its newest epoch (see `processes`).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pretext3d.commands.compare.folder import finished, write_json
from pretext3d.commands.compare.processes import ProcessRunner
from pretext3d.commands.compare.tasks import SEGMENTATION, Task
from pretext3d.commands.parser import top_key

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


class CellRunner(ProcessRunner):
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
        super().__init__(threads, descriptors)
        self.pools = dict(pools or {})
        self.monte_carlo, self.head, self.task = monte_carlo, tuple(head), task
        self.replaced, self.validate_every, self.subjects = frozenset(replaced), validate_every, subjects
        self.cells_dir, self.configs = cells_dir, configs
        self.common, self.tuning, self.evaluation = dict(common), dict(tuning), dict(evaluation)

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
        return finished(self.cells_dir / cell.name, self.settings(cell))

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
        return self.finish(cell, self.run(self.folder(cell), self.job(cell)))

    def folder(self, cell: Cell) -> Path:
        """The folder of a cell."""
        return self.cells_dir / cell.name

    def finish(self, cell: Cell, seconds: float) -> float:
        """Write done.json, the last file of a cell; its score."""
        folder = self.folder(cell)
        score = self.task.cell_score(folder)
        found = {"settings": self.settings(cell), "seconds": round(seconds, 1), self.task.score: score}
        write_json(folder / "done.json", found)
        return score
