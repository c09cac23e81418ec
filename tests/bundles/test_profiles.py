"""The profiles of every bundle: the paper's length with its arithmetic, overrides, the small transformer."""

import math
import re
from pathlib import Path

import pytest
import torch
import yaml
from monai.bundle import ConfigParser
from pretext3d.networks.factory import build_backbone
from pretext3d.training.session import profile_settings, spatial_size

from tests.bundles.command import BUNDLES, history, succeed

TRAININGS = sorted(
    path
    for name in ("train", "finetune", "finetune_classification")
    for path in BUNDLES.glob(f"*/configs/{name}.yaml")
)
GRIDS = ("cpc", "jigsaw", "relative_patch_location", "rubiks_cube")  # their networks see cells, many per case
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


# ------------------------------------------------------------------------------------- laptop_transformer
def transformer(path: Path, spatial_dims: int) -> tuple[list[list[int]], int]:
    """Of the profile's network: the steps to a patch, and the number of tokens."""
    settings = profile_settings(
        "laptop_transformer", yaml.safe_load(path.read_text())["profiles"], spatial_dims
    )
    sizes = spatial_size(settings["roi_size"], spatial_dims)
    with torch.device("meta"):
        backbone = build_backbone(settings["encoder"], 1, sizes, spatial_dims)
    return backbone.options["steps"], math.prod(backbone.map_sizes(sizes)[-1])


@pytest.mark.parametrize("spatial_dims", [3, 2])
@pytest.mark.parametrize("path", TRAININGS, ids=identity)
def test_the_transformers_patches_are_those_of_fine_tuning(path: Path, spatial_dims: int) -> None:
    """A checkpoint keeps them, and more than 256 tokens of its patches would be slow to fine-tune."""
    steps, tokens = transformer(path, spatial_dims)
    tuned, _ = transformer(path.with_name("finetune.yaml"), spatial_dims)
    of_cells = path.stem == "train" and path.parents[1].name in GRIDS
    assert (16 if of_cells else 64) <= tokens <= 256
    assert steps == tuned


@pytest.mark.parametrize("spatial_dims", [3, 2])
@pytest.mark.parametrize("path", TRAININGS, ids=identity)
def test_the_transformer_has_every_setting_of_the_laptop(path: Path, spatial_dims: int) -> None:
    profiles = yaml.safe_load(path.read_text())["profiles"]
    settings = profile_settings("laptop_transformer", profiles, spatial_dims)
    assert settings.keys() == profile_settings("laptop", profiles, spatial_dims).keys()
    assert settings["encoder"] == "vit_tiny"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "spatial_dims"),
    [
        *((name, 3) for name in sorted({path.parents[1].name for path in TRAININGS})),
        *((name, 2) for name in GRIDS),  # their grids fit the body, which has another size in 2D
    ],
)
def test_a_step_of_the_transformer(name: str, spatial_dims: int, tmp_path: Path) -> None:
    keys = {"profile": "laptop_transformer", "spatial_dims": spatial_dims, "num_workers": 0, "probe": None}
    short = {"batch_size": 2, "max_epochs": 1, "steps_per_epoch": 1}
    held_out: dict[str, object] = {"val_items": 2} if name == "avsdb" else {"val_fraction": 0.05}
    if spatial_dims == 2:
        held_out |= {"slices": "{'axis': 2, 'every': 16}"}
    succeed("train", bundle=name, output_dir=tmp_path / "run", pictures=0, **held_out, **short, **keys)
    content = torch.load(tmp_path / "run" / "checkpoints" / "final.pt", weights_only=True)
    assert content["record"]["backbone"]["encoder"] == "vit_tiny"
    assert math.isfinite(float(history(tmp_path / "run")[-1]["train_loss"]))
