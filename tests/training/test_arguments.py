"""Text that a user types for a run reaches the components as it was typed."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import fire
import monai.bundle
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from monai.bundle import ConfigParser, ConfigWorkflow
from pretext3d.errors import UserError, find_user_error
from pretext3d.literals import literal
from pretext3d.training.arguments import (
    FOLDER_KEYS,
    TEXT_KEYS,
    as_configuration,
    at_home,
    typed_values,
)

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")

# `data` and `x` are keys, so that `@data` and `%x` would be replaced, not refused
CONFIG = """
dataset_dir: ''
output_dir: somewhere
decoder: ''
cache_dir: {_target_: pretext3d.training.workflow.dated_folder}
fold: 3
resume: false
optimizer: {_target_: builtins.dict, lr: 0.1}
data: other
x: another
imports: [$import json, $import pathlib]
values:
  dataset_dir: '@dataset_dir'
  cache_dir: $@cache_dir + '/cases'
  decoder: '@decoder'
  fold: '@fold'
  lr: $@optimizer['lr']
initialize:
- {_target_: pretext3d.training.overrides.check_overrides}
run:
- $pathlib.Path(@output_dir).write_text(json.dumps(@values))
"""


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "configs" / "tiny.yaml"
    path.parent.mkdir()
    path.write_text(CONFIG)
    return str(path)


@pytest.fixture
def command(config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The values that a typed command hands to components; Fire and MONAI read it as in their own program."""

    def values(*words: str) -> dict[str, object]:
        file = tmp_path / "values.json"
        typed = ["run", "--config_file", config, "--logging_file", "False", "--output_dir", str(file), *words]
        monkeypatch.setattr(sys, "argv", ["monai", *typed])
        main = SimpleNamespace(__spec__=SimpleNamespace(name="monai.bundle.__main__"))
        monkeypatch.setitem(sys.modules, "__main__", main)
        monkeypatch.setattr(sys, "excepthook", sys.excepthook)
        fire.Fire({"run": monai.bundle.run}, command=typed)
        found: dict[str, object] = json.loads(file.read_text())
        return found

    return values


NAMES = [
    "@data", "$HOME", "$1 + 1", "$import os", "%x", "2024", "1e5", "a,b", "scan #3", "None", "[x]", "{a: b}",
    "(1)", "it's", '"quoted"', "'quoted'", "a::b", "@#data", "back\\slash", "two words", "0x10", "@data/x",
    "50%", "",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_is_what_was_typed(command, name) -> None:
    found = command("--dataset_dir", name, f"--cache_dir={name}", "--decoder", name)
    assert (found["dataset_dir"], found["cache_dir"], found["decoder"]) == (name, f"{name}/cases", name)


def test_several_folders_are_a_list(command, monkeypatch, tmp_path) -> None:
    """For dataset_dir alone, and where no folder has the text for its name."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    typed = "['HEADS', '@data','~/$x','2024']"
    found = command("--dataset_dir", typed, "--cache_dir", "['a']", "--decoder", "['a']")
    assert found["dataset_dir"] == ["HEADS", "@data", f"{tmp_path}/$x", "2024"]
    assert (found["cache_dir"], found["decoder"]) == ("['a']/cases", "['a']")
    assert [command("--dataset_dir", text)["dataset_dir"] for text in ("[]", "[1]")] == ["[]", "[1]"]
    (tmp_path / "['a']").mkdir()
    assert command("--dataset_dir", "['a']")["dataset_dir"] == "['a']"


def test_home_folder(command, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    found = command("--dataset_dir=~/scans", "--cache_dir", "~", "--decoder", "~")
    assert (found["dataset_dir"], found["cache_dir"], found["decoder"]) == (
        f"{tmp_path}/scans", f"{tmp_path}/cases", "~",
    )  # fmt: skip
    assert at_home("--arms=~/runs") == f"--arms={tmp_path}/runs"


@pytest.mark.parametrize("nothing", ["None", "null"])
def test_none_is_none(command, nothing: str) -> None:
    found = command("--fold", nothing, f"--optimizer::lr={nothing}")
    assert (found["fold"], found["lr"]) == (None, None)


def test_settings_are_read_as_before(command) -> None:
    found = command("--fold", "$2 + 2", "--optimizer::lr", "0.5")
    assert (found["fold"], found["lr"]) == (4, 0.5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--dataset_dir", "--fold", "1"],
            "dataset_dir: found True, expected text: was a value forgotten behind --dataset_dir? "
            "A folder of that name is typed ./True",
        ),
        (["--decoder"], "decoder: found True, expected text: was a value forgotten behind --decoder?"),
        (["--resume", "None"], "resume: found None, expected True or False"),
        (["--resume", "null"], "resume: found None, expected True or False"),
        (["--fould", "None"], "--fould: no such key in tiny.yaml; did you mean --fold?"),
        (
            ["--values::fould", "None"],
            "--values::fould: no such key in tiny.yaml; did you mean --values::fold?",
        ),
    ],
)
def test_what_is_refused(command, words, message) -> None:
    with pytest.raises((RuntimeError, UserError)) as caught:
        command(*words)
    assert str(find_user_error(caught.value)) == message


def test_from_python_values_are_what_they_are(config, tmp_path) -> None:
    """There a caller can write what an expression means, and a path where none is meant."""
    keys = {"config_file": config, "logging_file": False, "output_dir": str(tmp_path / "values.json")}
    workflow = ConfigWorkflow(**keys, dataset_dir="$'a' + 'b'", decoder=["x"])
    workflow.initialize()
    assert workflow.parser.get_parsed_content("values::dataset_dir") == "ab"
    monai.bundle.run(**keys, **as_configuration({"dataset_dir": "@data", "cache_dir": "c", "fold": None}))
    found = json.loads((tmp_path / "values.json").read_text())
    assert (found["dataset_dir"], found["fold"]) == ("@data", None)


@given(st.text(st.sampled_from("a1@$%#:'\"\\ {}[]~/\n\u00e9"), max_size=8))
def test_an_entry_resolves_to_its_text(text: str) -> None:
    """Also after a run has saved its configuration, and another has read it."""
    config = {"a": {"deep": [literal(text)]}, "a1": 1}
    for content in (config, yaml.safe_load(yaml.safe_dump(config))):
        assert ConfigParser(content).get_parsed_content("a::deep::0") == text


def test_words_are_split_as_fire_splits_them() -> None:
    assert typed_values(["first", "--a=1=2", "--b-c", "x", "--a", "3", "--d"]) == {
        "run_id": "first", "a": "3", "b_c": "x", "d": "True"
    }  # fmt: skip


def test_every_text_of_a_bundle_is_known() -> None:
    """A key whose value in a bundle's file is text is one whose typed value stays text."""
    settings = {"arm", "jitter", "pixdim"}  # names that no one gives a folder, or numbers
    found = set()
    for file in ROOT.glob("bundles/*/configs/*.yaml"):
        for key, value in yaml.safe_load(file.read_text()).items():
            if isinstance(value, str) and not value.startswith(("$", "@")) and "::" not in key:
                found.add(key)
    assert found - settings <= TEXT_KEYS
    assert {"dataset_dir", "datalist", "output_dir", "subjects", "class_file"} <= found & FOLDER_KEYS
