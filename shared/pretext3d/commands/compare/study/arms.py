"""An arm of a study: where a fine-tuning's initial weights come from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pretext3d.checking import boolean
from pretext3d.commands.bundles import bundles_at_hand
from pretext3d.commands.compare.study.checks import bundle_name, known_in, known_name, positive
from pretext3d.commands.compare.study.keys import STAGES, Layer
from pretext3d.commands.compare.study.reading import Section, real_path
from pretext3d.errors import UserError

__all__ = ["StudyArm", "read_arm"]

OF_ARM = (
    "bundle", "pretrained", "scratch", "as_long_as", "max_steps", "pretrain", "finetune", "by_task", "tasks",
    "encoders",
)  # fmt: skip


@dataclass(frozen=True)
class StudyArm:
    """A source of initial weights.

    Attributes:
        name: Name of the arm.
        bundle: Name of the bundle that pre-trains it; '' = none.
        pretrained: Paths of weights by encoder; {} = none. Without a bundle and these, weights are random.
        as_long_as: Name of an arm whose pre-training's steps the fine-tuning has, too; '' = none.
        max_steps: Steps of its fine-tuning; 0 = those of the others.
        overrides: Overrides by stage.
        by_task: Overrides by TASK or TASK/ENCODER, and stage.
        tasks: Names of the tasks that it is for.
        encoders: Names of the encoders that it is for.
    """

    name: str
    bundle: str = ""
    pretrained: Mapping[str, str] = field(default_factory=dict)
    as_long_as: str = ""
    max_steps: int = 0
    overrides: Mapping[str, Layer] = field(default_factory=dict)
    by_task: Mapping[str, Mapping[str, Layer]] = field(default_factory=dict)
    tasks: tuple[str, ...] = ()
    encoders: tuple[str, ...] = ()

    def layers(self, stage: str, task: str, encoder: str) -> list[Layer]:
        """Its overrides of a stage: those of everywhere, of the task, of the task with this encoder."""
        places = [self.overrides, self.by_task.get(task, {}), self.by_task.get(f"{task}/{encoder}", {})]
        return [place.get(stage, {}) for place in places]

    @property
    def source(self) -> str:
        """Name of the bundle that pre-trains it, or whose folder has its weights; '' = none."""
        for path in self.pretrained.values():
            for name, folder in bundles_at_hand().items():
                if Path(path).is_relative_to(folder.resolve()):
                    return name
        return self.bundle

    @property
    def is_random(self) -> bool:
        """Whether its fine-tuning starts from random weights."""
        return not (self.bundle or self.pretrained)


def read_arm(section: Section, name: str, tasks: Sequence[str], encoders: Sequence[str]) -> StudyArm:
    """One of the arms.

    Args:
        section: The file's arms.
        name: Name of the arm.
        tasks: Names of the study's tasks.
        encoders: Names of the study's encoders.

    Raises:
        UserError: a key or value that no arm can have.
    """
    own = section.section(name, OF_ARM)
    sources = [key for key in ("bundle", "pretrained", "scratch") if key in own]
    if len(sources) != 1 or ("scratch" in own and not own.value("scratch", boolean)):
        found = ", ".join(sources) or "none of them"
        raise UserError(f"{own.where()}: found {found}, expected one of bundle, pretrained, scratch: true")
    if "pretrain" in own and "bundle" not in own:
        raise UserError(f"{own.where('pretrain')}: found without a bundle that pre-trains")
    longer = [key for key in ("as_long_as", "max_steps") if key in own]
    if longer and ("scratch" not in own or len(longer) > 1):
        raise UserError(f"{own.where(longer[0])}: expected one such key, and only with scratch: true")
    if name == "scratch" and longer:
        raise UserError(f"{own.where(longer[0])}: scratch has the steps of the others; expected another name")
    for_encoders = own.listed("encoders", known_in("an encoder", encoders), list(encoders))
    pretrained = read_weights(own, for_encoders) if "pretrained" in own else {}
    per_task = own.section("by_task")
    for key in per_task.values:
        task, _, encoder = key.partition("/")
        known_name(per_task.where(key), task, tasks, "a task")
        if encoder or key != task:
            known_name(per_task.where(key), encoder, encoders, "an encoder of this study")
    each = {key: per_task.section(key, STAGES) for key in per_task.values}
    arms = [key for key in section.values if key != name]
    return StudyArm(
        name=name,
        bundle=own.value("bundle", bundle_name) if "bundle" in own else "",
        pretrained=pretrained,
        as_long_as=own.value("as_long_as", known_in("an arm", arms)) if "as_long_as" in own else "",
        max_steps=own.value("max_steps", positive) if "max_steps" in own else 0,
        overrides={stage: own.section(stage).literal() for stage in STAGES},
        by_task={key: {stage: one.section(stage).literal() for stage in STAGES} for key, one in each.items()},
        tasks=tuple(own.listed("tasks", known_in("a task", tasks), list(tasks))),
        encoders=tuple(pretrained or for_encoders),
    )


def read_weights(arm: Section, encoders: Sequence[str]) -> dict[str, str]:
    """The paths of an arm's weights by encoder: one path for its one encoder, or a path for each."""
    if isinstance(arm.values["pretrained"], str):
        if len(encoders) > 1:
            raise UserError(
                f"{arm.where('encoders')}: expected the one encoder that {arm.text('pretrained')} has"
            )
        texts = {encoders[0]: arm.text("pretrained")}
        where = {encoders[0]: arm.where("pretrained")}
    else:
        each = arm.section("pretrained", encoders)
        texts = {encoder: each.text(encoder) for encoder in each.values}
        where = {encoder: each.where(encoder) for encoder in each.values}
        if not texts:
            raise UserError(f"{arm.where('pretrained')}: found none, expected a path, or one by encoder")
    return {encoder: real_path(text, Path.cwd(), where[encoder]) for encoder, text in texts.items()}
