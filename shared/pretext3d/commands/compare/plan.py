"""The plan of a comparison, checked before it runs: overrides, arms, cases, what an arm has seen."""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from pretext3d.commands.compare.arms import OF_WEIGHTS, read_arms
from pretext3d.commands.compare.cells import Arm
from pretext3d.commands.compare.tasks import SEGMENTATION, Task
from pretext3d.commands.parser import top_key
from pretext3d.data.splits import part_of
from pretext3d.errors import UserError, find_user_error
from pretext3d.training.checkpoint_files import resolve_pretrained

# the budget in the summary, as finetune.yaml resolves it
BUDGET = (
    "profile", "max_epochs", "max_steps", "steps_per_epoch", "batch_size", "roi_size", "val_fraction",
    "split_seed",
)  # fmt: skip


def read_configs(folder: Path, task: Task = SEGMENTATION) -> tuple[dict[str, Any], dict[str, Any], str]:
    """The task's two configurations, and a digest of what they say (comments do not count)."""
    contents = []
    for name in task.files:
        if not (folder / name).is_file():
            raise UserError(f"--bundle: {folder.parent} has no configs/{name}; expected a bundle's folder")
        contents.append(yaml.safe_load((folder / name).read_text()))
    digest = hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()[:16]
    return contents[0], contents[1], digest


class Arms:
    """The arms of a comparison: their names, encoders and overrides, and each one's weights for a cell.

    Arms of as many spatial axes have one network, unless an arm's overrides name an encoder of its own.
    Random weights have the encoder and the options of the pre-trained ones: the patches of a vision
    transformer are those of its pre-training, and would otherwise follow from the crops of the fine-tuning.

    Args:
        words: `scratch`, `restart` or NAME=PATH; {num_labelled}, {seed} and {fold} in a path stand for the
            cell's, where each cell has its own pre-training; the path `scratch` is random initial weights.
        numbers: Numbers of labelled cases.
        seeds: Seeds of the cells.
        encoder: Encoder of all arms; '' = the pre-trained arms'.
        spatial_dims: Number of spatial axes of the comparison, 3 or 2; 0 = not checked.
        folds: Folds of a cross-validation; (None,) = none.
        overrides: Overrides of single arms by their names, see `read_settings`.

    Raises:
        UserError: an arm that cannot be read, names used twice, different encoders, weights of another number
            of spatial axes, overrides of an arm that there is not.
    """

    def __init__(
        self,
        words: Sequence[str],
        numbers: Sequence[int],
        seeds: Sequence[int],
        encoder: str = "",
        spatial_dims: int = 0,
        folds: Sequence[int | None] = (None,),
        overrides: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.spatial_dims, self.overrides, self.named = spatial_dims, dict(overrides or {}), encoder
        paths = read_arms(words)
        for name in self.overrides:
            if name not in paths:
                raise UserError(f"--set: found the arm {name}, expected one of {', '.join(paths)}")
        wrong = sorted({top_key(key) for key in self.overrides.get("restart", {})} & OF_WEIGHTS)
        if wrong:
            raise UserError(
                f"--set restart {wrong[0]}: restart has the network of scratch; expected no such key"
            )
        self.names = list(paths)
        self.encoders: dict[int, dict[str, str]] = {spatial_dims: {"--encoder": encoder} if encoder else {}}
        self.options: dict[int, dict[str, Mapping[str, Any]]] = {}  # of the encoder, by axes and arm
        self.files: dict[Path, tuple[dict[str, Any], str]] = {}  # record and digest of each checkpoint
        self.cells = {
            (name, n, s, fold): self._read(name, paths[name], n, s, fold)
            for name in paths
            for n in numbers
            for s in seeds
            for fold in folds
        }
        for found in self.encoders.values():
            if len(set(found.values())) > 1:
                listed = ", ".join(f"{name}: {value}" for name, value in found.items())
                raise UserError(
                    f"--arms: different encoders cannot be compared ({listed}); expected one for all"
                )
        for own in self.options.values():
            if any(options != next(iter(own.values())) for options in own.values()):
                listed = ", ".join(f"{name}: {value or 'its defaults'}" for name, value in own.items())
                raise UserError(
                    f"--arms: weights of different networks cannot be compared ({listed}); expected the same "
                    "options of the encoder, or --set ARM encoder NAME for an arm that is meant to differ"
                )
        self.encoder = next(iter(self.encoders[spatial_dims].values()), "")

    def _read(self, name: str, path: str, num_labelled: int, seed: int, fold: int | None) -> Arm:
        from pretext3d.networks.factory import check_recorded
        from pretext3d.training.pretrained import check_spatial_dims, read_record
        from pretext3d.training.record import output_layer

        own = self.overrides.get(name, {})
        if path in ("", "scratch"):
            return Arm(name, overrides=own)
        try:
            filled = path.replace("{num_labelled}", str(num_labelled)).replace("{seed}", str(seed))
            filled = filled if fold is None else filled.replace("{fold}", str(fold))
            file = resolve_pretrained(filled).resolve()
            if file not in self.files:
                digest = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
                self.files[file] = read_record(file), digest
            record, digest = self.files[file]
            check_spatial_dims(file, record, self.axes(name))
            encoder = (record.get("backbone") or {}).get("encoder", "unknown")
            check_recorded(encoder, own.get("encoder") or self.named)
            if "encoder" not in own:
                self.encoders.setdefault(self.axes(name), {})[name] = encoder
                self.options.setdefault(self.axes(name), {})[name] = record["backbone"].get("options") or {}
        except UserError as error:
            raise UserError(f"--arms {name}: {error}") from error
        segments = record.get("method") == "segmentation"
        head = output_layer(str(record.get("decoder", "")), record) if segments else ()
        return Arm(name, str(file), digest, head, own)

    def axes(self, name: str) -> int:
        """Number of spatial axes of an arm."""
        return int(self.overrides.get(name, {}).get("spatial_dims", self.spatial_dims))

    def at(self, name: str, num_labelled: int, seed: int, fold: int | None = None) -> Arm:
        """An arm with its weights for one cell, and what its network has besides the comparison's keys."""
        arm, axes = self.cells[name, num_labelled, seed, fold], self.axes(name)
        if "encoder" in arm.overrides:
            return arm
        own: dict[str, Any] = {}
        if axes != self.spatial_dims:
            own["encoder"] = next(iter(self.encoders.get(axes, {}).values()), "")
        options = next(iter(self.options.get(axes, {}).values()), {})
        if options and not arm.pretrained and "network_def" not in map(top_key, arm.overrides):
            own["network_def::options"] = dict(options)
        return replace(arm, overrides={**own, **arm.overrides}) if own else arm

    def weights(self) -> dict[str, list[tuple[Arm, int]]]:
        """Each pre-trained arm's different checkpoints, each with every seed, or fold, that it serves."""
        found: dict[str, dict[tuple[str, int], tuple[Arm, int]]] = {}
        for (name, _, seed, fold), arm in self.cells.items():
            if arm.pretrained:
                split = seed if fold is None else fold
                found.setdefault(name, {})[arm.pretrained, split] = (arm, split)
        return {name: list(each.values()) for name, each in found.items()}


def resolved(config: Path, given: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """Entries of a configuration file under overrides, as a run would see them."""
    from monai.bundle import ConfigParser

    from pretext3d.training.arguments import as_configuration

    parser = ConfigParser()
    parser.read_config(str(config))
    parser.update(as_configuration(given))
    try:
        return {key: parser.get_parsed_content(key) for key in keys}
    except Exception as error:  # MONAI wraps all errors
        mistake = find_user_error(error)
        if mistake is None:
            raise
        raise mistake from error


def numbers_of(fractions: Sequence[float], pools: Collection[int]) -> dict[int, float]:
    """The numbers of labelled subjects that fractions are.

    A fraction below 1 is of the smallest training set, rounded down, so that all splits have as many. 1 is
    all subjects of each split, by the number of the largest one (see `CellRunner.labelled`).

    Args:
        fractions: Fractions above 0, up to 1.
        pools: Number of labelled training subjects of each split.

    Raises:
        UserError: two fractions that are the same number.

    Examples:
        >>> numbers_of([0.05, 0.25, 1.0], [56, 57])
        {2: 0.05, 14: 0.25, 57: 1.0}
    """
    found: dict[int, float] = {}
    smallest = min(pools)
    for fraction in fractions:
        number = max(pools) if fraction == 1 else part_of(smallest, fraction)
        if number in found:
            raise UserError(
                f"--label_fractions: found {found[number]:g} and {fraction:g}, both {number} of {smallest} "
                "subjects; expected fractions that differ"
            )
        found[number] = fraction
    return found


def leak(
    arm: Arm,
    held_out: Sequence[Mapping[str, Any]],
    split: Mapping[str, Any] | None = None,
    tested: bool = False,
) -> str:
    """Whether an arm's pre-training saw images that are held out here: a warning, or ''.

    A checkpoint's record has the fingerprints of the cases that it was trained on.

    Args:
        arm: Arm with a checkpoint.
        held_out: Cases that the comparison measures.
        split: Values of the keys that hold them out, to name those that differ.
        tested: Whether they are a test set.

    Raises:
        UserError: a case of a test set was seen.
    """
    from pretext3d.data.fingerprints import trained_on
    from pretext3d.data.splits import other_split
    from pretext3d.data.subjects import volume_of
    from pretext3d.training.pretrained import read_record

    record = read_record(arm.pretrained)
    if (record.get("data") or {}).get("train") is None:  # []: it read no scan
        return f"arm {arm.name}: its record does not say what it was trained on: cases held out here, perhaps"
    both = trained_on([dict(case) for case in held_out], record)
    if not both:
        return ""
    count = len({volume_of(case) for case in held_out})
    differ = other_split(record, split or {})
    text = (
        f"arm {arm.name}: its pre-training saw {len(both)} of the {count} {'test' if tested else 'held-out'} "
        f"cases ({both[0]} ...){f', with {differ}' if differ else ''}; pre-train with the val_fraction, "
        "test_fraction, fold and split_seed that you compare with"
    )
    if tested:
        raise UserError(text)
    return text
