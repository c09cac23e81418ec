"""`pretext3d run`: what `monai.bundle run` does, and one line for each mistake."""

import json
import sys
from pathlib import Path

import pytest
from pretext3d.__main__ import main

pytestmark = [
    pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning"),
    pytest.mark.filterwarnings("ignore:Can't merge entry:UserWarning"),
]

CONFIG = """
imports: [$import json, $import pathlib]
dataset_dir: ''
output_dir: somewhere
fold: 3
settings: {widths: [1, 2]}
widths: $@settings['widths']
optimizer: {_target_: builtins.dict, lr: 0.1}
values: {dataset_dir: '@dataset_dir', fold: '@fold', lr: "$@optimizer['lr']"}
initialize:
- {_target_: pretext3d.training.overrides.check_overrides}
run:
- $pathlib.Path(@output_dir, 'values.json').write_text(json.dumps(@values))
finalize:
- $pathlib.Path(@output_dir, 'end').touch()
"""


@pytest.fixture(autouse=True)
def _hook(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    folder = tmp_path / "liver" / "configs"
    folder.mkdir(parents=True)
    (folder / "train.yaml").write_text(CONFIG)
    return folder


def call(configs: Path, *words: str, file: str = "train.yaml") -> int:
    return main(["run", "--config_file", str(configs / file), "--output_dir", str(configs.parent), *words])


def test_runs_to_the_end(configs: Path) -> None:
    """Two files, and values that MONAI would drop, replace by another key, or evaluate."""
    (configs / "more.yaml").write_text("optimizer::lr: 0.5\n")
    files = f"['{configs / 'train.yaml'}','{configs / 'more.yaml'}']"
    words = ["--config_file", files, "--dataset_dir", "%fold", "--fold", "None"]
    assert call(configs, *words) == 0
    assert json.loads((configs.parent / "values.json").read_text()) == {
        "dataset_dir": "%fold", "fold": None, "lr": 0.5
    }  # fmt: skip
    assert (configs.parent / "end").exists()


def test_another_step_of_the_configuration(configs: Path) -> None:
    assert main(["run", "finalize", *arguments(configs)]) == 0
    assert not (configs.parent / "values.json").exists()


def test_files_of_a_bundle_that_is_named(configs: Path, tmp_path: Path) -> None:
    """By default its train.yaml; other files are named as in its folder, or by their paths."""
    words = ["run", "--bundle", str(configs.parent), "--output_dir", str(tmp_path)]
    assert main(words) == 0
    assert json.loads((tmp_path / "values.json").read_text())["lr"] == 0.1
    (configs / "more.yaml").write_text("optimizer::lr: 0.5\n")
    (tmp_path / "last.yaml").write_text("fold: 7\n")
    assert main([*words, "--config_file", f"['train.yaml','more.yaml','{tmp_path / 'last.yaml'}']"]) == 0
    assert json.loads((tmp_path / "values.json").read_text()) == {"dataset_dir": "", "fold": 7, "lr": 0.5}


def test_tracking_without_its_package(
    configs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (configs / "train.yaml").write_text(CONFIG + "bundle_root: .\ntrain: {trainer: {}, handlers: []}\n")
    monkeypatch.setitem(sys.modules, "mlflow", None)
    said = refusal(capsys, call(configs, "--tracking", "mlflow"))
    assert said == (
        "--tracking: found mlflow, which needs the package mlflow-skinny, which is not installed: pip "
        "install mlflow-skinny sqlalchemy alembic (extra mlflow)"
    )


def arguments(configs: Path) -> list[str]:
    return ["--config_file", str(configs / "train.yaml"), "--output_dir", str(configs.parent)]


def refusal(capsys: pytest.CaptureFixture[str], code: int) -> str:
    """The one line of an ended run."""
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert code == 1
    assert len(lines) == 1
    return lines[0].removeprefix("error: ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--optimzer::lr", "1"],
            "--optimzer::lr: found no key optimzer in train.yaml; did you mean --optimizer?",
        ),
        (["--fould", "1"], "--fould: no such key in train.yaml; did you mean --fold?"),
        (["--fold", "@fould"], "fold: found @fould, but train.yaml has no key fould; did you mean @fold?"),
        (
            ["--fold", "%fould"],
            "fold: found %fould, which MONAI replaces by the entry fould of the configuration; expected one "
            "that exists, or text that does not begin with %",
        ),
        (["--fold", "%zzzzzzzz/q.yaml::x"], "--fold: found zzzzzzzz/q.yaml, which is no file"),
        (
            ["--optimizer::_target_", "torch.optim.Adan"],
            "optimizer: found _target_ torch.optim.Adan, expected the name of a class or function",
        ),
        (
            ["--dataset_dir", "my", "scans"],
            "run_id: found 'scans', expected a key of the configuration, as run; a value with spaces needs "
            "quotes",
        ),
        (
            ["--fold::0", "1"],
            "--fold::0: found an entry of fold, which is 3; expected --fold with its complete value",
        ),
        (
            ["--widths::0", "1"],
            "--widths::0: found an entry of widths, which is \"$@settings['widths']\"; expected --widths "
            "with its complete value, or --profiles::NAME::widths::0 with NAME the profile's",
        ),
        (["--initialize", "$1 / 0"], "Failed to evaluate ConfigExpression: '$1 / 0': division by zero"),
    ],
)
def test_bad_overrides(configs, capsys, words, message) -> None:
    assert refusal(capsys, call(configs, *words)) == message


def test_a_key_of_another_configuration(configs, capsys) -> None:
    (configs / "finetune.yaml").write_text("pretrained: ''\n")
    message = "--pretrained: no such key in train.yaml; a key of finetune.yaml"
    assert refusal(capsys, call(configs, "--pretrained", "runs/vp")) == message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: 1\nb: [1\nc: 2\n", "line 3, column 2: expected ',' or ']', but got ':', expected YAML"),
        ("- a\n", "found list, expected keys and values"),
        ("", "found NoneType, expected keys and values"),
        ("train::dataset: {}\n", "found train::dataset, but no entry train to change"),
    ],
)
def test_bad_files(configs, capsys, content, message) -> None:
    (configs / "bad.yaml").write_text(content)
    assert refusal(capsys, call(configs, file="bad.yaml")) == f"{configs / 'bad.yaml'}: {message}"


@pytest.mark.parametrize("file", ["configs/trian.yaml", "confgis/train.yaml", "confgis/trian.yaml"])
def test_mistyped_path(configs, capsys, file) -> None:
    """A file is suggested, never a folder."""
    given, closest = configs.parent / file, configs / "train.yaml"
    (configs / "trian.yam").mkdir()
    message = f"--config_file: found {given}, which is no file; did you mean {closest}?"
    assert refusal(capsys, main(["run", "--config_file", str(given)])) == message


@pytest.mark.parametrize("file", ["configs", "configs/zzz", "zzz/train.yaml"])
def test_path_that_resembles_no_file(configs, capsys, file) -> None:
    message = f"--config_file: found {configs.parent / file}, which is no file"
    assert refusal(capsys, main(["run", "--config_file", str(configs.parent / file)])) == message


def test_without_a_file(capsys) -> None:
    assert refusal(capsys, main(["run", "--fold", "1"])).startswith(
        "--config_file: found none, expected a bundle"
    )


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["evaluate.yaml"], "evaluate.yaml changes finetune.yaml, expected --config_file \"['{0}','{1}']\""),
        (
            ["evaluate.yaml", "finetune.yaml"],
            "config_file: found evaluate.yaml before finetune.yaml, expected it after",
        ),
    ],
)
def test_an_overlay_needs_its_file_before_it(configs, capsys, files, message) -> None:
    paths = [configs / "finetune.yaml", configs / "evaluate.yaml"]
    paths[0].write_text(CONFIG)
    overlay = CONFIG.split("\ninitialize")[1].replace(":\n- {", "initialize:\n- {", 1)
    paths[1].write_text(f"+validate: {{}}\nvalidate::folder: '@output_dir'\n{overlay}")
    listed = str([str(configs / file) for file in files])
    said = refusal(capsys, main(["run", "--config_file", listed]))
    assert message.format(*paths) in said


def test_a_fault_of_ours_keeps_its_trace(configs, monkeypatch) -> None:
    def fault() -> None:
        raise KeyError("ours")

    monkeypatch.setattr("pretext3d.training.overrides.install_excepthook", fault)
    with pytest.raises(RuntimeError, match="overrides"):
        call(configs)
