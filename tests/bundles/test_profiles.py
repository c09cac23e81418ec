"""The profiles of every bundle: the paper's length in optimiser steps, with its arithmetic in the comment."""

import re
from pathlib import Path

import pytest
import torch
import yaml
from monai.bundle import ConfigParser

from tests.bundles.command import BUNDLES

TRAININGS = sorted(
    path
    for name in ("train", "finetune", "finetune_classification")
    for path in BUNDLES.glob(f"*/configs/{name}.yaml")
)
SUM = re.compile(
    r"^    max_steps: (\d+)  # .*?(\d+) epochs x (\d+) volumes(?: \([^)]*\))?"
    r"(?: x (\d+) \w+(?: \([^)]*\))?)? / batch (\d+)$",
    re.MULTILINE,
)


def identity(path: Path) -> str:
    return f"{path.parents[1].name}/{path.stem}"


@pytest.mark.parametrize("path", TRAININGS, ids=identity)
def test_a_papers_length_is_the_sum_in_its_comment(path: Path) -> None:
    text = path.read_text()
    profile = yaml.safe_load(text)["profiles"]["paper"]
    if path.stem == "finetune_classification":
        assert "max_steps" not in profile  # no paper gives its length
        return
    found = SUM.search(text)
    assert found is not None
    steps, epochs, volumes, crops, batch = (int(number or 1) for number in found.groups())
    assert epochs * volumes * crops == steps * batch
    assert (profile["max_steps"], profile["batch_size"]) == (steps, batch)
    assert "max_epochs" not in profile
    assert steps % profile["steps_per_epoch"] == 0  # whole epochs


@pytest.mark.parametrize("path", TRAININGS, ids=identity)
def test_an_override_of_either_length_decides(path: Path) -> None:
    def length(**keys: object) -> tuple[object, object]:
        parser = ConfigParser(yaml.safe_load(path.read_text()) | keys)
        return parser.get_parsed_content("max_epochs"), parser.get_parsed_content("max_steps")

    epochs, steps = length(profile="paper")
    assert (epochs is None) != (steps is None)
    assert length(profile="paper", max_epochs=3) == (3, None)
    assert length(profile="paper", max_steps=5)[1] == 5
    assert length(profile="laptop")[1] is None
    assert length(profile="laptop", max_steps=5)[1] == 5
    assert length(profile="paper", spatial_dims=2) == (epochs, steps)


@pytest.mark.parametrize("path", [path for path in TRAININGS if path.stem != "train"], ids=identity)
def test_an_override_of_the_optimizers_rate_reaches_its_groups(path: Path) -> None:
    parser = ConfigParser(yaml.safe_load(path.read_text()))
    parser.update({"profile": "laptop", "network": torch.nn.Linear(2, 1), "optimizer::lr": 0.25})
    assert [group["lr"] for group in parser.get_parsed_content("optimizer").param_groups] == [0.25]


def resolved(path: Path, key: str, **keys: object) -> object:
    """A key's value where some keys were overridden as MONAI does."""
    parser = ConfigParser(yaml.safe_load(path.read_text()))
    parser.update({name.replace("__", "::"): value for name, value in {"profile": "laptop", **keys}.items()})
    return parser.get_parsed_content(key)


@pytest.mark.parametrize("path", TRAININGS, ids=identity)
def test_every_entry_of_a_profiles_mapping_can_be_overridden(path: Path) -> None:
    """A mapping behind `$@settings[...]` has no entries for an override; `profile_entries` has."""
    config = yaml.safe_load(path.read_text())
    rows = config["profiles"].values()
    mappings = {key for row in rows for key, value in row.items() if isinstance(value, dict)}
    for key in mappings - {"pixdim"}:  # whose one entry is the kind of spacing
        assert config[key]["_target_"].endswith(".profile_entries"), key
        own = config["profiles"]["laptop"][key]
        assert resolved(path, key) == own
        for entry in own:
            assert resolved(path, key, **{f"{key}__{entry}": 7}) == {**own, entry: 7}
        assert resolved(path, key, **{f"{key}__another": 7}) == {**own, "another": 7}
        assert resolved(path, key, **{key: {"another": 7}}) == {"another": 7}
