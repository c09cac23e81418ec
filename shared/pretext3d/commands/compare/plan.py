"""The plan of a comparison, checked before it runs: overrides, arms, cases, what an arm has seen."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from pretext3d.checking import closest_hint
from pretext3d.commands.compare.cells import BUILT_IN, Arm
from pretext3d.errors import UserError, find_user_error

RESERVED = {
    "pretrained", "keep_head", "num_labelled", "label_fraction", "seed", "subset_seed", "output_dir",
    "ckpt_dir", "val_interval", "resume", "weights",
}  # fmt: skip
OPTIONS = ("arms", "seeds", "monte_carlo", "jobs", "threads", "bundle", "report_only")
# the budget in the summary, as finetune.yaml resolves it
BUDGET = (
    "profile", "max_epochs", "max_steps", "steps_per_epoch", "batch_size", "roi_size", "val_fraction",
    "split_seed",
)  # fmt: skip


def top_key(key: str) -> str:
    """The top-level key of an override.

    Examples:
        >>> top_key("optimizer::lr")
        'optimizer'
    """
    return re.split(r"::|#", key.lstrip("+"))[0]


def read_configs(folder: Path) -> tuple[dict[str, Any], dict[str, Any], str]:
    """finetune.yaml, evaluate.yaml, and a digest of what they say (comments do not count)."""
    contents = []
    for name in ("finetune.yaml", "evaluate.yaml"):
        if not (folder / name).is_file():
            raise UserError(f"--bundle: {folder.parent} has no configs/{name}; expected a bundle's folder")
        contents.append(yaml.safe_load((folder / name).read_text()))
    digest = hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()[:16]
    return contents[0], contents[1], digest


def check_overrides(given: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    """Refuse overrides that the comparison itself sets, or that finetune.yaml does not have."""
    for key in given:
        top = top_key(key)
        if top in RESERVED:
            raise UserError(
                f"--{key}: the comparison sets this itself, from --arms, --num_labelled and --seeds"
            )
        if top not in known:
            hint = closest_hint(top, [*known, *OPTIONS], "; did you mean --{}?")
            raise UserError(f"--{key}: no such option, and no such key in finetune.yaml{hint}")


class Arms:
    """The arms of a comparison: their names, the one encoder of all, and each one's weights for a cell.

    Args:
        words: `scratch`, `restart` or NAME=PATH; {num_labelled} and {seed} in a path stand for the cell's,
            where each cell has its own pre-training.
        numbers: Numbers of labelled cases.
        seeds: Seeds of the cells.
        encoder: Encoder of all arms; '' = the pre-trained arms'.
        spatial_dims: Number of spatial axes of the comparison, 3 or 2; 0 = not checked.

    Raises:
        UserError: an arm that cannot be read, names used twice, different encoders, weights of another number
            of spatial axes.
    """

    def __init__(
        self,
        words: Sequence[str],
        numbers: Sequence[int],
        seeds: Sequence[int],
        encoder: str = "",
        spatial_dims: int = 0,
    ) -> None:
        self.spatial_dims = spatial_dims
        paths: dict[str, str] = {}
        for word in words:
            name, equals, path = word.partition("=")
            if not equals and name not in BUILT_IN:
                raise UserError(
                    f"--arms: found {word}, expected scratch, restart or NAME=PATH of a trained run"
                )
            if equals and not path:
                raise UserError(f"--arms: found {word}, expected the path of a trained run after =")
            if equals and (name in BUILT_IN or not re.fullmatch(r"[A-Za-z0-9][\w.+-]*", name)):
                raise UserError(f"--arms: found {word}, expected another NAME: letters, digits, _ . + -")
            if name in paths:
                raise UserError(f"--arms: found {name} twice, expected different names")
            paths[name] = path
        if "restart" in paths and "scratch" not in paths:
            paths = {"scratch": "", **paths}  # what restart starts from
        self.names = list(paths)
        self.encoders = {"--encoder": encoder} if encoder else {}
        self.cells = {
            (name, n, s): self._read(name, paths[name], n, s)
            for name in paths
            for n in numbers
            for s in seeds
        }
        if len(set(self.encoders.values())) > 1:
            listed = ", ".join(f"{name}: {value}" for name, value in self.encoders.items())
            raise UserError(f"--arms: different encoders cannot be compared ({listed}); expected one for all")
        self.encoder = next(iter(self.encoders.values()), "")

    def _read(self, name: str, path: str, num_labelled: int, seed: int) -> Arm:
        from pretext3d.networks.factory import check_recorded
        from pretext3d.training.pretrained import check_spatial_dims, read_record, resolve_pretrained
        from pretext3d.training.record import output_layer

        if not path:
            return Arm(name)
        try:
            filled = path.replace("{num_labelled}", str(num_labelled)).replace("{seed}", str(seed))
            file = resolve_pretrained(filled).resolve()
            record = read_record(file)
            check_spatial_dims(file, record, self.spatial_dims)
            self.encoders[name] = (record.get("backbone") or {}).get("encoder", "unknown")
            check_recorded(self.encoders[name], self.encoders.get("--encoder", ""))
        except UserError as error:
            raise UserError(f"--arms {name}: {error}") from error
        segments = record.get("method") == "segmentation"
        head = output_layer(str(record.get("decoder", "")), record) if segments else ()
        return Arm(name, str(file), hashlib.sha256(file.read_bytes()).hexdigest()[:16], head)

    def at(self, name: str, num_labelled: int, seed: int) -> Arm:
        """An arm with its weights for one cell."""
        return self.cells[name, num_labelled, seed]

    def weights(self) -> dict[str, list[tuple[Arm, int]]]:
        """Each pre-trained arm's different checkpoints, each with every seed that it serves."""
        found: dict[str, dict[tuple[str, int], tuple[Arm, int]]] = {}
        for (name, _, seed), arm in self.cells.items():
            if arm.pretrained:
                found.setdefault(name, {})[arm.pretrained, seed] = (arm, seed)
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
    from pretext3d.data.splits import other_split, trained_on
    from pretext3d.data.subjects import volume_of
    from pretext3d.training.pretrained import read_record

    record = read_record(arm.pretrained)
    if not (record.get("data") or {}).get("train"):
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
