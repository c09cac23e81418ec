"""The documents, and the help of the commands themselves, type commands and options that exist."""

import importlib
import inspect
import re
import shlex
from pathlib import Path
from pydoc import locate

import pytest
import yaml
from pretext3d.__main__ import COMMANDS
from pretext3d.training.arguments import MONAI_ARGUMENTS

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/*.md", "bundles/*/docs/*.md", "bundles/*/models/*.md")
    for path in ROOT.glob(pattern)
)


def command_lines(text: str) -> list[list[str]]:
    """The words behind `pretext3d` of each command line in a text, whether in a fence or indented."""
    lines = re.sub(r"\\\n", " ", text).splitlines()
    found = [re.match(r"(?:.*&&)? *(?:python3? -m )?pretext3d (?=\w)(.*)", line) for line in lines]
    return [shlex.split(match[1], comments=True) for match in found if match]


def check_command(words: list[str]) -> None:
    """A command that there is, with options that it has, or keys of the configuration that they override."""
    name, given = words[0], {word.partition("=")[0] for word in words if word.startswith("--")}
    module = importlib.import_module(f"pretext3d.commands.{COMMANDS[name].module}")
    unknown = given - set(module.make_parser()._option_string_actions)
    tuned = "finetune_classification.yaml" if "classification" in words else "finetune.yaml"
    files = {"run": "train.yaml", "preview": "train.yaml", "compare": tuned}
    file = {**files, "probe": "finetune_classification.yaml"}.get(name)
    if file and unknown:
        bundle = words[words.index("--bundle") + 1] if "--bundle" in words else "vectorpose"
        named = words[words.index("--config_file") + 1] if "--config_file" in words else file
        files = re.findall(r"\w+\.yaml", named) or [file]
        configs = ROOT / "bundles" / Path(bundle).name / "configs"
        keys = {key for name in files for key in yaml.safe_load((configs / name).read_text())}
        unknown = {option for option in unknown if option[2:].split("::")[0] not in keys}
    assert not unknown, f"pretext3d {shlex.join(words)}: no {sorted(unknown)}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_and_options_exist(document: str) -> None:
    text = (ROOT / document).read_text()
    for words in command_lines(text):
        check_command(words)
    assert set(re.findall(r"`(?:python -m )?pretext3d ([a-z]\w*)", text)) <= set(COMMANDS)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_arguments_of_components_exist(document: str) -> None:
    """`--loss::include_background False`: an argument of a component, or an entry of a mapping."""
    bundle = Path(*Path(document).parts[:2]) if document.startswith("bundles/") else "bundles/vectorpose"
    for key, name in re.findall(r"--(\w+)::(\w+)", (ROOT / document).read_text()):
        targets = components(ROOT / bundle, key)
        if name in entries(ROOT / bundle, key):
            continue
        assert any(name in inspect.signature(locate(target)).parameters for target in targets), (
            f"{document}: --{key}::{name}: not an argument of {targets}"
        )


@pytest.mark.parametrize("document", [name for name in DOCUMENTS if name.startswith("bundles/")])
def test_keys_exist(document: str) -> None:
    """`--key` in a bundle's documents: a key of its configurations, or an option of a program."""
    known = {*MONAI_ARGUMENTS}
    for path in (ROOT / "tests" / "benchmarks").glob("*.py"):
        known |= set(re.findall(r"\B--([a-z_]\w*)", path.read_text()))
    for path in (ROOT / Path(*Path(document).parts[:2]) / "configs").glob("*.yaml"):
        known |= set(yaml.safe_load(path.read_text()))
    for command in COMMANDS.values():
        parser = importlib.import_module(f"pretext3d.commands.{command.module}").make_parser()
        known |= {option.removeprefix("--") for option in parser._option_string_actions}
    assert set(re.findall(r"--([a-z_]\w*)", (ROOT / document).read_text())) <= known


def entries(bundle: Path, key: str) -> set[str]:
    """The entries of a plain mapping in the training's configuration, or in its profiles."""
    config = yaml.safe_load((bundle / "configs" / "train.yaml").read_text())
    value = config.get(key)
    if isinstance(value, dict) and str(value.get("_target_")).endswith(".profile_entries"):
        return {name for profile in config["profiles"].values() for name in profile.get(key, ())}
    return set(value) if isinstance(value, dict) and "_target_" not in value else set()


def components(bundle: Path, key: str) -> list[str]:
    """The classes that a bundle's configurations have under a key."""
    configs = [yaml.safe_load(path.read_text()) for path in sorted((bundle / "configs").glob("*.yaml"))]
    entries = [config[key] for config in configs if isinstance(config.get(key), dict)]
    return [str(entry["_target_"]) for entry in entries if "_target_" in entry]


def test_readme_shows_them() -> None:
    shown = {words[0] for words in command_lines((ROOT / "README.md").read_text())}
    assert {"preview", "compare"} <= shown


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_of_a_command_have_its_options(name: str) -> None:
    module = importlib.import_module(f"pretext3d.commands.{COMMANDS[name].module}")
    found = command_lines(module.make_parser().epilog)
    assert found
    for words in found:
        assert words[0] == name
        check_command(words)


def test_wrong_commands_are_seen() -> None:
    text = "    pretext3d compare --arms a \\\n  --batch_size 2\n"
    text += "`pretext3d x`\ncd a && python -m pretext3d curves b\n"
    assert command_lines(text) == [["compare", "--arms", "a", "--batch_size", "2"], ["curves", "b"]]
    check_command(["compare", "--arms", "a", "--batch_size", "2", "--optimizer::lr=1"])
    with pytest.raises(AssertionError, match="--batchsize"):
        check_command(["compare", "--batchsize", "2"])
    with pytest.raises(AssertionError, match="--bundles"):
        check_command(["download", "x", "--bundles", "2"])
    with pytest.raises(KeyError):
        check_command(["previews"])
