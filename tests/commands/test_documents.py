"""The documents, and the help of the commands themselves, type commands and options that exist."""

import argparse
import importlib
import inspect
import itertools
import re
import shlex
import textwrap
from pathlib import Path
from pydoc import locate

import nibabel as nib
import numpy as np
import pytest
import yaml
from pretext3d.__main__ import COMMANDS
from pretext3d.training.arguments import MONAI_ARGUMENTS

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in (
        "*.md",
        "shared/*.md",
        "docs/**/*.md",
        "tutorials/*.py",
        "bundles/*/docs/*.md",
        "bundles/*/models/**/*.md",
    )
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
        name = Path(bundle).name.replace("my_method", "vectorpose")  # one that `new` would make
        configs = ROOT / "bundles" / name / "configs"
        keys = {key for name in files for key in yaml.safe_load((configs / name).read_text())}
        unknown = {option for option in unknown if option[2:].split("::")[0] not in keys}
    assert not unknown, f"pretext3d {shlex.join(words)}: no {sorted(unknown)}"
    check_values(module.make_parser(), words[1:])


def check_values(parser: argparse.ArgumentParser, words: list[str]) -> None:
    """Every option has the value that it needs; placeholders such as RUN are values, too."""
    try:
        parser.parse_known_args([word for word in words if word != "..."])
    except SystemExit:
        pytest.fail(f"{parser.prog} {shlex.join(words)}: is refused")


def monai_lines(text: str) -> list[list[str]]:
    """The words behind `monai.bundle run` of each command line in a text, whether in a fence or indented."""
    lines = [part for line in re.sub(r"\\\n", " ", text).splitlines() for part in line.split("&&")]
    pattern = r"(?:.*; do)? *(?:srun )?(?:python3?|torchrun .*?) +-m monai\.bundle run (--.*?)(?:; done.*)?$"
    found = [re.match(pattern, line) for line in lines]
    return [shlex.split(match[1], comments=True) for match in found if match]


def check_run(words: list[str]) -> None:
    """A run of configuration files that there are, with keys that they or the profiles of MONAI have."""
    given = dict(itertools.pairwise(words))
    options = [word for word in words if word.startswith("--")]
    bare = [option for option in options if given.get(option, "--").startswith("--")]
    assert not bare, f"{shlex.join(words)}: no value of {bare}"
    named = re.findall(r"[\w./]+\.yaml", given["--config_file"])
    files = [ROOT / name.replace("there/", "bundles/").replace("my_bundles/", "bundles/") for name in named]
    assert files, words
    configs = [yaml.safe_load(path.read_text()) for path in files]
    for option in options:
        key, *nested = option[2:].split("::")
        if key in MONAI_ARGUMENTS:
            continue
        having = [config for config in configs if key in config]
        assert having, f"{shlex.join(words)}: no key {key} in {named}"
        bundle = next((path.parents[1] for path in files), None)
        if nested and nested[0] not in entries(bundle, key):
            parts = [config[key]["_target_"] for config in having if "_target_" in config[key]]
            assert any(nested[0] in inspect.signature(locate(part)).parameters for part in parts), option


@pytest.mark.parametrize("document", DOCUMENTS)
def test_runs_name_files_and_keys_that_exist(document: str) -> None:
    text = (ROOT / document).read_text()
    found = monai_lines(text)
    for words in found:
        check_run(words)
    fences = re.findall(r"^ *```sh\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
    shell = sum(len(re.findall(r"monai\.bundle run --", re.sub(r"\\\n", " ", fence))) for fence in fences)
    assert len(found) >= shell  # none is passed over


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
    for path in [*(ROOT / "tests" / "benchmarks").glob("*.py"), *(ROOT / "tools").glob("*.py")]:
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


def python_blocks(document: str) -> list[str]:
    """The blocks of Python in a document."""
    text = (ROOT / document).read_text()
    return [
        textwrap.dedent(code)
        for code in re.findall(r"^ *```python\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
    ]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_python_compiles(document: str) -> None:
    for code in python_blocks(document):
        compile(code, document, "exec")


@pytest.mark.parametrize("document", ["README.md", "docs/integrations.md"])
def test_weights_are_opened_as_documents_say(
    document: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The block with `load_pretrained`, where runs/vp is the bundle and its weights; scans of noise."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "vp").symlink_to(ROOT / "bundles" / "vectorpose")
    generator = np.random.default_rng(0)
    for name in ("a", "b", "c", "scan"):
        noise = generator.random((24, 24, 24), dtype=np.float32)
        nib.save(nib.Nifti1Image(noise, np.diag([4.0, 4.0, 4.0, 1.0])), tmp_path / f"{name}.nii.gz")
    monkeypatch.chdir(tmp_path)
    (code,) = [code for code in python_blocks(document) if "load_pretrained" in code]
    exec(code, {})


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
    with pytest.raises(pytest.fail.Exception, match="is refused"):
        check_command(["download", "x", "--source"])


def test_wrong_runs_are_seen() -> None:
    text = "```sh\npip install x && python -m monai.bundle run --a 1 \\\n    --b 2\n```\n"
    text += "    torchrun --n 2 -m monai.bundle run --c 3  # two\n"
    text += "    for d in A B; do python -m monai.bundle run --d $d; done\n"
    assert monai_lines(text) == [["--a", "1", "--b", "2"], ["--c", "3"], ["--d", "$d"]]
    train = "bundles/vectorpose/configs/train.yaml"
    check_run(["--config_file", train, "--max_epochs", "2", "--optimizer::lr", "0.1", "--probe::every", "5"])
    for wrong, match in (
        (["--maxepochs", "2"], "no key maxepochs"),
        (["--resume"], "no value"),
        (["--optimizer::rate", "1"], "optimizer::rate"),
    ):
        with pytest.raises(AssertionError, match=match):
            check_run(["--config_file", train, *wrong])
    with pytest.raises(FileNotFoundError):
        check_run(["--config_file", "bundles/vectorpose/configs/trian.yaml"])
