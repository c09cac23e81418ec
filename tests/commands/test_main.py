"""The command line `pretext3d`: its list of commands, and what it says of a mistake."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pretext3d
import pytest
import tomllib
from pretext3d import __main__ as command_line
from pretext3d.__main__ import COMMANDS, main
from pretext3d.commands.parser import option_names
from pretext3d.commands.shapes import options
from pretext3d.errors import UserError
from pretext3d.methods.avsdb.rendering import RENDERINGS

ROOT = Path(__file__).resolve().parents[2]
WITHOUT_OPTIONS = {"env", "completion"}


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_help_has_a_line_per_command(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    listed = lines[lines.index("commands:") + 1 :][: len(COMMANDS)]
    assert [line.split()[0] for line in listed] == [
        "run",
        "preview",
        "compare",
        "probe",
        "doctor",
        "curves",
        "shapes",
        "bundles",
        "promote",
        "download",
        "env",
        "completion",
    ]
    assert all(len(line) <= 100 for line in lines)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([name, "--help"])
    said = capsys.readouterr().out
    assert said.startswith(f"usage: pretext3d {name} ")
    assert f"  pretext3d {name} " in said.split("\nexamples", 1)[1]


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in WITHOUT_OPTIONS])
def test_a_mistyped_option_is_named(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Two letters of an option exchanged; next to what is missing, and where words are overrides, too."""
    module = importlib.import_module(f"pretext3d.commands.{COMMANDS[name].module}")
    meant = next(option for option in option_names(module.make_parser()) if option != "help")
    typed = meant[0] + meant[2] + meant[1] + meant[3:]
    bundle = {"preview": ["--bundle", str(ROOT / "bundles" / "rotation")]}.get(name, [])
    try:
        code: object = main([name, *bundle, f"--{typed}", "2"])
    except SystemExit as error:
        code = error.code
    assert code
    assert f"did you mean --{meant}?" in capsys.readouterr().err


def test_every_module_is_a_command() -> None:
    """No folder or module with `make_parser` that the list has not."""
    folder = ROOT / "shared" / "pretext3d" / "commands"
    found = {path for path in folder.rglob("*.py") if "\ndef make_parser(" in path.read_text()}
    assert found == {folder / f"{command.module.replace('.', '/')}.py" for command in COMMANDS.values()}


# what is wrong in a command line that argparse alone does not see, and a part of the message
MISTAKES = {
    "a key of run": ("run --bundle vectorpose --sede 3", "did you mean --seed?"),
    "a bundle of run": ("run --bundle vectorpos", "did you mean vectorpose?"),
    "a file of run": ("run --config_file nowhere.yaml", "found nowhere.yaml, which is no file"),
    "data of run": ("run --bundle vectorpose --dataset_dir nowhere", "dataset_dir: nowhere does not exist"),
    "weights of run": (
        "run --bundle vectorpose --config_file finetune.yaml --pretrained nowhere",
        "pretrained: nowhere: not found",
    ),
    "a key of preview": ("preview --bundle vectorpose --sede 3", "did you mean --seed?"),
    "data of preview": ("preview --bundle vectorpose --dataset_dir nowhere", "nowhere does not exist"),
    "weights of preview": (
        "preview --bundle vectorpose --checkpoint nowhere",
        "checkpoint: nowhere: not found",
    ),
    "a number of preview": ("preview --bundle vectorpose --num=-1", "num: found -1"),
    "a key of compare": ("compare --max_epohcs 3", "did you mean --max_epochs?"),
    "an arm of compare": ("compare --arms scratch vp=nowhere", "--arms vp: pretrained: nowhere: not found"),
    "data of compare": ("compare --dataset_dir nowhere", "dataset_dir: nowhere does not exist"),
    "classes of compare": (
        "compare --task classification --class_file nowhere.csv",
        "class_file: nowhere.csv not found",
    ),
    "a study": ("compare --study nowhere.yaml", "nowhere.yaml: cannot be read"),
    "numbers of compare": ("compare --seeds 1 1", "--seeds: found [1, 1]"),
    "a key of probe": ("probe scratch --val_fractoin 0.3", "did you mean --val_fraction?"),
    "a run of probe": ("probe nowhere", "pretrained: nowhere: not found"),
    "classes of probe": ("probe scratch --class_file nowhere.csv", "class_file: nowhere.csv not found"),
    "a run of doctor": ("doctor nowhere", "nowhere: does not exist"),
    "a run of curves": ("curves nowhere", "nowhere: does not exist"),
    "a number of shapes": ("shapes --count 0 --output_dir there", "count: found 0"),
    "drawing of shapes": ("shapes --count 1 --output_dir there --render x", "render: found 'x'"),
    "a bundle to copy": ("bundles --copy vectorpos", "did you mean vectorpose?"),
    "a name of promote": ("promote nowhere --name a/b --licence x", "--name: found 'a/b'"),
    "a run of promote": ("promote nowhere --name a --licence x", "run: nowhere: found no config.yaml"),
    "a folder of download": ("download x --source nowhere", "nowhere"),
}


def test_a_mistake_is_reported_without_heavy_packages(tmp_path: Path) -> None:
    """Help, an unknown option and each of MISTAKES of every command, in a process that has no torch."""
    lines = {f"help of {name}": [name, "--help"] for name in COMMANDS}
    lines |= {f"option of {name}": [name, "--nonsense", "2"] for name in COMMANDS}
    lines |= {what: words.split() for what, (words, _) in MISTAKES.items()}
    code = (
        "import contextlib, io, json, sys\nfrom pretext3d.__main__ import main\nsaid = {}\n"
        "for what, words in json.loads(sys.argv[1]).items():\n"
        "    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out):\n"
        "        try:\n            code = main(words)\n"
        "        except SystemExit as error:\n            code = error.code\n"
        "    said[what] = code, out.getvalue(), sorted({'torch', 'monai'} & set(sys.modules))\n"
        "print(json.dumps(said))"
    )
    command = [sys.executable, "-c", code, json.dumps(lines)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    said = json.loads(done.stdout)
    assert {what: heavy for what, (_, _, heavy) in said.items() if heavy} == {}
    assert {what for what, (code, _, _) in said.items() if not code} == {f"help of {n}" for n in COMMANDS}
    assert {
        what: text for what, (_, text, _) in said.items() if MISTAKES.get(what, ("", ""))[1] not in text
    } == {}


def test_drawings_that_shapes_names_are_those_that_there_are() -> None:
    assert set(options.RENDERINGS) == set(RENDERINGS)


def test_list_comes_without_heavy_packages() -> None:
    heavy = ["torch", "monai", "numpy", "pandas", "argparse", "yaml"]
    code = (
        "import sys\nfrom pretext3d.__main__ import main\nmain(['--help'])\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"pretext3d {pretext3d.__version__}\n"


def test_unknown_command_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for word, hint in (("comapre", "; did you mean compare?\n"), ("zzz", "env, completion\n")):
        assert main([word, "--help"]) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"error: {word}: no such command, expected one of run, preview, compare, ")
        assert said.endswith(hint)
        assert said.count("\n") == 1


def test_a_wrapped_mistake_is_one_line_and_a_fault_is_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = importlib.import_module("pretext3d.commands.curves")

    def mistaken(words: list[str]) -> int:
        try:
            raise UserError(f"file: found {words}")
        except UserError as error:
            raise RuntimeError("in an expression") from error

    monkeypatch.setattr(command_line, "install_excepthook", lambda text: None)
    monkeypatch.setattr(module, "main", mistaken)
    assert main(["curves", "a", "b"]) == 1
    assert capsys.readouterr().err == "error: file: found ['a', 'b']\n"
    monkeypatch.setattr(module, "main", lambda words: {}["fault"])
    with pytest.raises(KeyError):
        main(["curves"])


def test_console_script_is_the_same_command_line() -> None:
    project = tomllib.loads((ROOT / "shared" / "pyproject.toml").read_text())["project"]
    module, _, function = project["scripts"]["pretext3d"].partition(":")
    assert getattr(importlib.import_module(module), function) is main


@pytest.mark.parametrize("words", [["completion", "bash"], ["--help"], ["--version"], ["env", "--help"]])
def test_a_reader_that_has_enough_is_no_mistake(words: list[str]) -> None:
    """As of `pretext3d completion bash | head -1`: no traceback."""
    command = [sys.executable, "-m", "pretext3d", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()  # before anything is written
        assert process.stderr.read() == b""
    assert process.returncode == 0
