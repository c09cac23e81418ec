"""A study file's content: tasks, encoders, arms, the grid, screening and confirmation, each value checked.

Overrides of configurations are layers, of which later ones take precedence: those of the study, of the task,
of the encoder, of the arm, of the arm in this task, and what the study sets (data, labels, seeds, the grid).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pretext3d.checking import boolean, one_of
from pretext3d.commands.compare.study.arms import StudyArm, read_arm
from pretext3d.commands.compare.study.checks import (
    above_zero,
    bundle_name,
    dims,
    file_name,
    fraction,
    from_zero,
    known_in,
    known_name,
    positive,
    share,
    text,
)
from pretext3d.commands.compare.study.keys import INHERITED, STAGES, TASK_DATA, Layer, check_keys
from pretext3d.commands.compare.study.reading import Section, read_yaml, real_path
from pretext3d.commands.compare.tasks import TASKS, Task
from pretext3d.errors import UserError

__all__ = ["Label", "Study", "StudyTask", "read_study"]

TOP = (
    "name", "data_root", "results_dir", "bundle", "pretrain", "finetune", "tasks", "encoders", "arms",
    "rates", "recipes", "seeds", "validate_every", "screening", "confirmation", "always",
)  # fmt: skip
OF_TASK = (
    "task", "encoders", *TASK_DATA, "num_labelled", "label_fractions", "overrides", "pretrain",
    "probe", "tolerance_mm", "note", "test", "left_out",
)  # fmt: skip
OTHER_DATA = ("dataset_dir", "datalist", "class_file", "subjects")  # files of a task's data


@dataclass(frozen=True)
class Label:
    """How much is labelled: a number of training subjects, or a fraction of them."""

    value: float

    @property
    def override(self) -> dict[str, Any]:
        """The key of a fine-tuning that says so."""
        key = "num_labelled" if isinstance(self.value, int) else "label_fraction"
        return {key: self.value}

    @property
    def name(self) -> str:
        """Part of a cell's name.

        Examples:
            >>> Label(4).name, Label(0.05).name
            ('n004', 'f0.05')
        """
        return f"n{self.value:03d}" if isinstance(self.value, int) else f"f{self.value:g}"

    @property
    def title(self) -> str:
        """Name in tables.

        Examples:
            >>> Label(4).title, Label(0.05).title
            ('4', '5 %')
        """
        return str(self.value) if isinstance(self.value, int) else f"{100 * self.value:g} %"


@dataclass(frozen=True)
class StudyTask:
    """A labelled data set and what is measured on it.

    Attributes:
        name: Name of the task in the study.
        kind: Segmentation or classification.
        data: Keys of the data and of the split, as in the study file.
        labels: Numbers or fractions of labelled training subjects.
        overrides: Overrides of its fine-tuning.
        pretrain: Overrides of pre-training for it.
        evaluation: Overrides of its evaluation.
        tested: Overrides of confirmation's evaluation that name other data to measure, all of them; {} = the
            test subjects of the task's own.
        note: Text under its title in the report.
        left_out: Test subjects without whom the report is made, as something was chosen on them.
        screened: What is labelled in screening.
        arms: Names of the arms, by the encoders that it has.
        probe: Whether frozen features are measured, too, see `pretext3d probe`.
    """

    name: str
    kind: Task
    data: Mapping[str, Any]
    labels: tuple[Label, ...]
    overrides: Mapping[str, Any]
    pretrain: Mapping[str, Any]
    evaluation: Mapping[str, Any]
    tested: Mapping[str, Any]
    note: str
    left_out: tuple[str, ...]
    screened: Label
    arms: Mapping[str, Sequence[str]]
    probe: bool

    @property
    def encoders(self) -> tuple[str, ...]:
        """Names of the encoders that it has."""
        return tuple(self.arms)


@dataclass(frozen=True)
class Study:
    """A study file.

    Attributes:
        file: Path of the file.
        name: Name of the study.
        data_root: Folder of relative data paths.
        results_dir: Folder of the results.
        bundle: Name of the bundle whose fine-tuning all arms have.
        shared: Overrides of all cells, by stage.
        tasks: Tasks by name.
        encoders: Overrides by encoder's name and stage.
        arms: Arms by name.
        rates: Learning rates of the grid.
        recipes: Recipes of the grid; ('',) = the configuration's.
        seeds: Seeds of confirmation.
        screening_seeds: Seeds of screening.
        screening: Overrides of the fine-tunings of screening.
        validate_every: Epochs between validations of confirmation's curves; 0 = none.
        always: Arms that confirmation has in any case.
        confirmed: Further arms of confirmation by name.
        confirmed_in: Further arms of confirmation of one task and encoder.
        best: Number of arms of confirmation that screening puts first, besides.
    """

    file: Path
    name: str
    data_root: Path
    results_dir: Path
    bundle: str
    shared: Mapping[str, Layer]
    tasks: Mapping[str, StudyTask]
    encoders: Mapping[str, Mapping[str, Layer]]
    arms: Mapping[str, StudyArm]
    rates: tuple[float, ...]
    recipes: tuple[str, ...]
    seeds: tuple[int, ...]
    screening_seeds: tuple[int, ...]
    screening: Layer
    validate_every: int
    always: tuple[str, ...]
    confirmed: tuple[str, ...]
    confirmed_in: Mapping[tuple[str, str], tuple[str, ...]]
    best: int

    def path(self, text: str, key: str) -> str:
        """A path of the study file as one of this machine."""
        return real_path(text, self.data_root, f"{self.file}: {key}")

    @property
    def parts(self) -> list[tuple[str, str]]:
        """The tasks with their encoders."""
        return [
            (task.name, name)
            for task in self.tasks.values()
            for name in self.encoders
            if name in task.encoders
        ]

    def arms_of(self, task: str, encoder: str) -> list[StudyArm]:
        """The arms that are for a task and an encoder."""
        names = self.tasks[task].arms.get(encoder, ())
        arms = [arm for arm in self.arms.values() if arm.name in names]
        return [arm for arm in arms if task in arm.tasks and encoder in arm.encoders]


def read_study(file: Path, data_root: str = "") -> Study:
    """Read and check a study file.

    Args:
        file: Path of the file.
        data_root: Folder of relative data paths; '' = the file's `data_root`, otherwise the working folder.

    Raises:
        UserError: names the file and the key, what was found and what was expected.
    """
    top = Section(file, "", read_yaml(file), TOP)
    root = Path(real_path(data_root or top.text("data_root", ""), Path.cwd(), top.where("data_root")) or ".")
    name = top.value("name", file_name, file.stem)
    results = real_path(top.text("results_dir", f"docs/studies/{name}"), Path.cwd(), top.where("results_dir"))
    bundle = top.value("bundle", bundle_name, "vectorpose")
    seeds = tuple(top.listed("seeds", from_zero, [0, 1, 2]))
    screening = top.section("screening", ("num_labelled", "seeds", "max_steps"))
    labels = screening.section("num_labelled")
    encoders = {key: read_encoder(top.section("encoders"), key) for key in given(top, "encoders")}
    names = list(dict.fromkeys(["scratch", *given(top, "arms")]))
    tasks = {
        key: read_task(top.section("tasks"), key, labels, encoders, names) for key in given(top, "tasks")
    }
    for key in labels.values:
        known_name(labels.where(key), key, tasks, "a task")
    arms = {
        key: read_arm(top.section("arms"), key, list(tasks), list(encoders)) for key in given(top, "arms")
    }
    arms = {"scratch": StudyArm("scratch", tasks=tuple(tasks), encoders=tuple(encoders)), **arms}
    always = tuple(top.listed("always", known_in("an arm", arms), ["scratch"]))
    if "scratch" not in always:
        raise UserError(f"{top.where('always')}: found no scratch, which all arms are compared with")
    confirmation = top.section("confirmation", ("arms", "by_task", "best"))
    rates = top.listed("rates", above_zero)
    steps = screening.value("max_steps", positive) if "max_steps" in screening else 0
    study = Study(
        file=file,
        name=name,
        data_root=root.resolve(),
        results_dir=Path(results),
        bundle=bundle,
        shared={stage: top.section(stage).literal() for stage in STAGES},
        tasks=tasks,
        encoders=encoders,
        arms=arms,
        rates=tuple(rates),
        recipes=tuple(top.listed("recipes", text, [""])),
        seeds=seeds,
        screening_seeds=tuple(screening.listed("seeds", from_zero, [seeds[0]])),
        screening={"max_steps": steps} if steps else {},
        validate_every=top.value("validate_every", from_zero, 0),
        always=always,
        confirmed=tuple(
            confirmation.listed("arms", known_in("an arm", arms)) if "arms" in confirmation else ()
        ),
        confirmed_in=read_confirmed(confirmation.section("by_task"), tasks, arms),
        best=confirmation.value("best", from_zero, 0),
    )
    check_keys(study)
    return study


def read_task(
    section: Section,
    name: str,
    screened: Section,
    encoders: Mapping[str, Mapping[str, Layer]],
    arms: Sequence[str],
) -> StudyTask:
    """One of the tasks."""
    own = section.section(name, OF_TASK)
    kind = TASKS[own.value("task", lambda key, value: one_of(key, value, TASKS), "segmentation")]
    data: dict[str, Any] = {"dataset_dir": own.text("dataset_dir", "")}
    data |= {key: own.text(key) for key in ("datalist", "class_file", "subjects") if key in own}
    data |= {"spatial_dims": own.value("spatial_dims", dims, 3)}
    data |= {key: own.value(key, fraction, 0.2) for key in ("val_fraction", "test_fraction")}
    data |= {"split_seed": own.value("split_seed", from_zero, 0)}
    if "class_file" in data and kind.name != "classification":
        raise UserError(f"{own.where('class_file')}: found in a segmentation; expected task: classification")
    probe = own.value("probe", boolean, False)
    if probe and kind.name != "classification":
        raise UserError(f"{own.where('probe')}: found in a segmentation; expected task: classification")
    if ("num_labelled" in own) == ("label_fractions" in own):
        raise UserError(f"{own.where()}: expected either num_labelled or label_fractions")
    if "num_labelled" in own:
        labels = [Label(n) for n in own.listed("num_labelled", positive)]
    else:
        labels = [Label(float(part)) for part in own.listed("label_fractions", share)]
    wanted = screened.values.get(name, labels[(len(labels) - 1) // 2].value)
    if wanted not in [label.value for label in labels]:
        counts = ", ".join(f"{label.value:g}" for label in labels)
        raise UserError(f"{screened.where(name)}: found {wanted!r}, expected one of the task's: {counts}")
    overrides = own.section("overrides").literal()
    shape = {key: value for key, value in overrides.items() if key in INHERITED}
    return StudyTask(
        name=name,
        kind=kind,
        data=data,
        labels=tuple(labels),
        overrides=overrides,
        pretrain={**shape, **own.section("pretrain").literal()},
        evaluation={"tolerance_mm": own.value("tolerance_mm", above_zero)} if "tolerance_mm" in own else {},
        tested=read_tested(own, data),
        note=own.text("note", ""),
        left_out=tuple(own.listed("left_out", text)) if "left_out" in own else (),
        screened=next(label for label in labels if label.value == wanted),
        arms=read_encoders(own, encoders, arms),
        probe=probe,
    )


def read_encoders(
    task: Section, encoders: Mapping[str, Mapping[str, Layer]], arms: Sequence[str]
) -> dict[str, Sequence[str]]:
    """The arms of a task by encoder: all of those listed, or some, where an encoder has a list of its own."""
    if not isinstance(task.values.get("encoders"), Mapping):
        listed = task.listed("encoders", known_in("an encoder", encoders), list(encoders))
        return dict.fromkeys(listed, arms)
    own = task.section("encoders", encoders)
    if not own.values:
        raise UserError(f"{own.where()}: found none, expected at least one encoder")
    check = known_in("an arm", arms)
    return {key: arms if value is None else own.listed(key, check) for key, value in own.values.items()}


def read_tested(task: Section, data: Mapping[str, Any]) -> dict[str, Any]:
    """The data that a task's networks are tested on, where it is not a part of their own."""
    if "test" not in task:
        return {}
    own = task.section("test", (*OTHER_DATA, *INHERITED))
    found = {"dataset_dir": own.text("dataset_dir")}
    found |= {key: own.text(key) for key in OTHER_DATA if key in own}
    of_images = {key: own.values[key] for key in INHERITED if key in own}
    for key in ("channels", "modalities"):  # their order may differ there
        if key in task.section("overrides") and key not in own:
            raise UserError(
                f"{own.where(key)}: not found, expected that of these data: the task's own data have one"
            )
    # files of the task's own data do not describe the others
    without = {key: "" for key in OTHER_DATA if key in data and key not in found}
    return {**found, **Section(own.file, own.path, of_images).literal(), **without}


def read_encoder(section: Section, name: str) -> dict[str, Layer]:
    """One of the encoders: overrides of both stages, and those of one stage in a section of its name."""
    own = section.section(name)
    both = {key: value for key, value in own.values.items() if key not in STAGES}
    Section(own.file, own.path, both).literal()
    if not isinstance(both.get("encoder"), str):
        raise UserError(
            f"{own.where('encoder')}: found {both.get('encoder')!r}, expected the name of an encoder, as "
            "unet4: profiles of different bundles have different ones"
        )
    return {stage: {**both, **own.section(stage).literal()} for stage in STAGES}


def read_confirmed(
    section: Section, tasks: Mapping[str, StudyTask], arms: Mapping[str, StudyArm]
) -> dict[tuple[str, str], tuple[str, ...]]:
    """The arms of confirmation by task and encoder."""
    found = {}
    for task in section.values:
        known_name(section.where(task), task, tasks, "a task")
        own = section.section(task, tasks[task].encoders)
        for encoder in own.values:
            found[task, encoder] = tuple(own.listed(encoder, known_in("an arm", arms)))
    return found


def given(top: Section, key: str) -> list[str]:
    """The names in a section that must have some."""
    found = top.section(key)
    if not found.values:
        raise UserError(f"{top.where(key)}: found none, expected at least one name with its keys")
    return [file_name(found.where(), name) for name in found.values]
