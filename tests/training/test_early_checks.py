"""Transforms are built, and so checked, before a scan is read."""

from pathlib import Path

import pytest
from monai.bundle import ConfigParser
from pretext3d.errors import UserError, find_user_error
from pretext3d.training.early_checks import build_transforms

from tests.bundles.command import BUNDLES

TRAININGS = ("train", "finetune", "finetune_classification")
FILES = sorted(path for name in TRAININGS for path in BUNDLES.glob(f"*/configs/{name}.yaml"))
TRANSFORM = "pretext3d.transforms.crops.RandFlipRotate90d"
CONFIG = {
    "read": [],  # grows where the cases are found
    "cases": "$@read.append(1) or {'axes': [0]}",
    "axes": "$@cases['axes']",
    "flip_axes": [1],
    "own": {"_target_": TRANSFORM, "keys": "image", "flip_axes": "@flip_axes"},
    "steps": [
        "@own",
        {"_target_": TRANSFORM, "keys": "image", "flip_axes": "@axes"},  # known from the cases alone
        {"_target_": "CastToTyped", "keys": "image", "dtype": "$torch.float32"},
        {"_target_": TRANSFORM, "keys": "image", "_mode_": "callable", "_disabled_": False},
    ],
    "network_def": {"_target_": "collections.Counter"},
}


def parser(**changes: object) -> ConfigParser:
    return ConfigParser({**CONFIG, "read": [], **changes})


def test_what_depends_on_no_case_is_built_once_and_no_case_is_read() -> None:
    found = parser()
    assert build_transforms(found) == ["own", "steps::2"]
    assert found["read"] == []
    steps = found.get_parsed_content("steps")
    assert steps[0] is found.get_parsed_content("own")
    assert steps[1].flip_axes == (0,)


def test_a_mistake_is_met_before_the_cases_are_read() -> None:
    found = parser(flip_axes=[3])
    with pytest.raises(RuntimeError) as caught:
        build_transforms(found)
    mistake = find_user_error(caught.value)
    assert isinstance(mistake, UserError)
    assert str(mistake) == "flip_axes: found [3], expected a list of axes out of 0, 1, 2"
    assert found["read"] == []


@pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("file", FILES, ids=lambda path: f"{path.parents[1].name}/{path.stem}")
def test_every_random_transform_of_every_training_is_checked_early(file: Path, dims: int) -> None:
    found = ConfigParser(ConfigParser.load_config_file(str(file)))
    found.update({"profile": "laptop", "spatial_dims": dims})
    found["cases"] = "$1 / 0"  # nothing may ask for it
    built = {path: found.get_parsed_content(path) for path in build_transforms(found)}
    random = {path for path, value in named(found.config) if value.rpartition(".")[2].startswith("Rand")}
    assert random <= set(built)
    with_axes = [one for one in built.values() if hasattr(one, "flip_axes")]
    assert all(one.spatial_dims == dims for one in with_axes)


def named(config: object, path: str = "") -> list[tuple[str, str]]:
    """The components of a configuration, each with its `_target_`."""
    found = []
    if isinstance(config, dict) and "_target_" in config and config.get("_mode_") is None:
        found.append((path, str(config["_target_"])))
    parts = (
        config.items() if isinstance(config, dict) else enumerate(config) if isinstance(config, list) else ()
    )
    for key, value in parts:
        found += named(value, f"{path}::{key}" if path else str(key))
    return found
