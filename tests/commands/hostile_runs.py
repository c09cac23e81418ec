"""Finished runs whose configuration, names and record come from someone else: seeded, one change each."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pretext3d.training.checkpoint_io import load_checkpoint, save_checkpoint

from tests.finished import finished_run

# what MONAI would evaluate, import, follow, read or rewrite
EXPANDED = (
    "$1 / 0",
    "$import antigravity",
    "$not important",
    "@network_def",
    "@##x",
    "%stenosis",
    "a @#b",
    "scan #3",
)
# text that looks special to YAML or to a person, and that MONAI leaves alone
ODD = (
    "yes", "null", "1e5", "12:30", "a, b", "left: right", "50 %", "US$", "x@y", "'quoted'", '"both"',
    "back\\slash", "né", "- dash", "[list]", "{map}", "!tag", "&anchor", "*alias", "| pipe", "> fold", "~",
)  # fmt: skip
# places of a saved finetune.yaml that other values than the bundle's may be written to
PLACES: tuple[tuple[Any, ...], ...] = (
    ("batch_size",), ("normalisation",), ("optimizer", "lr"), ("optimizer", "_target_"), ("loss", "_target_"),
    ("loss",), ("flip_axes",), ("val_interval",), ("profiles", "laptop", "roi_size"), ("profiles", "$1 / 0"),
    ("train", "augmentation", 4, "prob"), ("train", "augmentation", 0, "_target_"), ("train", "dataloader"),
    ("validate", "inferer", "inferer", "mode"), ("validate", "key_metric"), ("load",), ("precision",),
    ("split_seed",),
)  # fmt: skip
CODE = (
    "$__import__('os').system('true')", "$import antigravity", "@run", "%evil.yaml", "scan #3",
    {"_target_": "os.system", "command": "true"}, ["$1 / 0"], {"a::b": 1}, {"_mode_": "debug"},
)  # fmt: skip


def hostile_configs(folder: Path, seed: int = 0, per_place: int = 2) -> Iterator[tuple[str, Path]]:
    """Runs with one wrong value in config.yaml each, and the place that has it."""
    draw = random.Random(seed)
    run = finished_run(folder / "run")
    valid = (run / "config.yaml").read_text()
    for place in PLACES:
        for value in draw.sample(CODE, per_place):
            config = yaml.safe_load(valid)
            node = config
            for key in place[:-1]:
                node = node[key]
            node[place[-1]] = value
            (run / "config.yaml").write_text(yaml.safe_dump(config))
            yield "::".join(map(str, place)), run


def renamed(run: Path, **data: str) -> Path:
    """The run with other names in the data of its record."""
    path = run / "checkpoints" / "final.pt"
    content = load_checkpoint(path)
    content["record"]["data"] |= data
    save_checkpoint(path, content)
    return run
