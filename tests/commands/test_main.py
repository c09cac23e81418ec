"""The command line `pretext3d`: its list of commands, and what it says of a mistake."""

import importlib
import subprocess
import sys
from pathlib import Path

import pretext3d
import pytest
import tomllib
from pretext3d import __main__ as command_line
from pretext3d.__main__ import COMMANDS, main
from pretext3d.commands.parser import option_names
from pretext3d.errors import UserError

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
    listed = {folder / f"{command.module.replace('.', '/')}.py" for command in COMMANDS.values()}
    apart = {folder / name / f"{name}.py" for name in ("compare", "probe")}  # of these options.py has it
    assert found == (listed - apart) | {file.with_name("options.py") for file in apart}


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
