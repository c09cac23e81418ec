"""The configuration files of a run by their names and keys; nothing heavy is imported."""

import re
from collections.abc import Sequence
from pathlib import Path

from pretext3d.checking import closest_hint
from pretext3d.errors import UserError

__all__ = ["MONAI_KEYS", "OVERLAYS", "as_files", "overlay_hint", "unknown_key"]

# Set by `monai.bundle run` itself (experiment tracking), not in any configuration file.
MONAI_KEYS = {
    "_meta_", "tracking_uri", "experiment_name", "run_name", "save_execute_config", "is_not_rank0"
}  # fmt: skip
# Files that change another one, which has to come before them; in a promoted bundle that is train.yaml.
OVERLAYS = {
    "evaluate.yaml": ("finetune.yaml", "train.yaml"),
    "evaluate_classification.yaml": ("finetune_classification.yaml",),
    "multi_gpu_train.yaml": ("train.yaml",),
}


def as_files(value: str | Sequence[str]) -> list[str]:
    """The paths in the value of `config_file`: one, several with commas, or a list.

    Examples:
        >>> as_files("finetune.yaml,evaluate.yaml"), as_files(("train.yaml",))
        (['finetune.yaml', 'evaluate.yaml'], ['train.yaml'])
    """
    if not isinstance(value, str):
        return [str(file) for file in value]
    return re.split(",", value) if "," in value and not Path(value).is_file() else [value]


def overlay_hint(files: Sequence[str]) -> str:
    """What to give where a file was run without the one that it changes; '' where that is not so.

    Args:
        files: Paths of the configuration files.
    """
    for file in map(Path, files):
        bases = OVERLAYS.get(file.name, ())
        if bases and not any(Path(other).name in bases for other in files):
            found = [file.with_name(base) for base in bases if file.with_name(base).is_file()]
            base = found[0] if found else file.with_name(bases[0])
            listed = "','".join(map(str, [base, *files]))
            return f"; {file.name} changes {base.name}, expected --config_file \"['{listed}']\""
    return ""


def unknown_key(key: str, names: set[str], files: Sequence[str]) -> UserError:
    """The error of a key that no configuration file has.

    Args:
        key: Key as typed.
        names: Keys that there are.
        files: Paths of the configuration files.
    """
    given = [Path(file).name for file in files]
    top = re.split("::|#", key)[0]
    line = re.compile(rf"^{re.escape(top)}:", re.MULTILINE)
    known = top in {name.split("::")[0] for name in names}  # only a part of it is not
    siblings = [] if known else sorted(Path(files[0]).parent.glob("*.yaml"))
    beside = [path for path in siblings if path.name not in given]
    others = [path.name for path in beside if line.search(path.read_text(encoding="utf-8", errors="replace"))]
    hint = f"; a key of {', '.join(others)}" if others else closest_hint(key, names, "; did you mean --{}?")
    return UserError(f"--{key}: no such key in {', '.join(given)}{hint}")
