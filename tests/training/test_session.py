"""The start and the end of a run, with configurations as small as they can be."""

import logging
import random
import sys
from pathlib import Path

import monai.bundle
import numpy as np
import pytest
import torch
import yaml
from monai.bundle import ConfigParser, ConfigWorkflow
from pretext3d.errors import UserError, find_user_error
from pretext3d.training import run_folder, session
from pretext3d.training.processes import check_launched
from pretext3d.training.session import begin, finish, spatial_size

# MONAI says at each run that a configuration is code
pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")

CONFIG = """
imports: [$import pathlib]
output_dir: somewhere
seed: 7
max_epochs: 3
profile: small
profiles: {small: {epochs: 1, rate: 0.1}, large: {epochs: 9, rate: 0.2}}
settings: {_target_: pretext3d.training.session.profile_settings, profile: '@profile', profiles: '@profiles'}
stages: [{name: first}, {name: second}]
options: {_target_: builtins.dict, depth: {width: 2}}
resume: false
boundary: true
arm: left
ckpt_dir: "$@output_dir + '/checkpoints'"
initialize:
- {_target_: pretext3d.training.overrides.check_overrides}
- _target_: pretext3d.training.session.begin
  output_dir: '@output_dir'
  seed: '@seed'
  profile: '@profile'
  ckpt_dir: '@ckpt_dir'
  resume: '@resume'
  counts: {max_epochs: "$@max_epochs * @settings['epochs']"}
run:
- "$pathlib.Path(@output_dir, 'result.txt').write_text(str(@max_epochs))"
finalize:
- _target_: pretext3d.training.session.finish
  output_dir: '@output_dir'
  wrote: [result.txt (the number of epochs), missing.pt]
"""


@pytest.fixture(autouse=True)
def _as_before(monkeypatch):
    """What `begin` sets for the whole process is taken back."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    cudnn = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    seed = monai.utils.misc._seed
    yield
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = cudnn
    monai.utils.misc._seed = seed
    for handler in logging.getLogger().handlers:
        handler.removeFilter(session._shown)
    for folder in list(run_folder._open):
        run_folder.close_folder(folder)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "configs" / "tiny.yaml"
    path.parent.mkdir()
    path.write_text(CONFIG)
    return path


def run(config: Path | list[Path], **overrides) -> None:
    """As `python -m monai.bundle run` does; a double underscore in an override is MONAI's `::`."""
    files = [str(path) for path in config] if isinstance(config, list) else str(config)
    changes = {key.replace("__", "::"): value for key, value in overrides.items()}
    monai.bundle.run(config_file=files, logging_file=False, **changes)


def refusal(config: Path | list[Path], **overrides) -> str:
    """The message of the mistake that ends a run; nothing is written then."""
    folder = Path(config[0] if isinstance(config, list) else config).parent / "run"
    with pytest.raises((RuntimeError, UserError)) as caught:
        run(config, **{"output_dir": str(folder), **overrides})
    assert not folder.exists()
    return str(find_user_error(caught.value))


# ------------------------------------------------------------------------------------------ overrides
@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("max_epoch", "--max_epoch: no such key in tiny.yaml; did you mean --max_epochs?"),
        ("xyz", "--xyz: no such key in tiny.yaml"),
        (
            "profiles__small__epoch",
            "--profiles::small::epoch: no such key in tiny.yaml; did you mean --profiles::small::epochs?",
        ),
        (
            "options__depth__widths",
            "--options::depth::widths: no such key in tiny.yaml; did you mean --options::depth::width?",
        ),
        ("stages__0__nam", "--stages::0::nam: no such key in tiny.yaml; did you mean --stages::0::name?"),
    ],
)
def test_unknown_key(config, key, message) -> None:
    assert refusal(config, **{key: 5}) == message


@pytest.mark.parametrize(
    ("overrides", "written"),
    [
        ({"profiles__small__rate": 0.5}, ("profiles", "small", "rate", 0.5)),
        ({"stages__1__name": "third"}, ("stages", 1, "name", "third")),
        ({"options__more": 4}, ("options", "more", 4)),  # an argument that the file leaves at its default
    ],
)
def test_known_nested_key(config, tmp_path, overrides, written) -> None:
    run(config, output_dir=str(tmp_path / "run"), **overrides)
    node = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    for part in written[:-1]:
        node = node[part]
    assert node == written[-1]


def test_unknown_key_without_the_command_line(config, tmp_path) -> None:
    """Another program's workflow: the keys of every file next to the first one are known."""
    (config.parent / "other.yaml").write_text("extra: 1\n")
    keys = {"config_file": str(config), "logging_file": False, "output_dir": str(tmp_path / "run")}
    workflow = ConfigWorkflow(**keys, extra=2)
    workflow.initialize()
    workflow.run()
    workflow.finalize()
    assert (tmp_path / "run" / "result.txt").read_text() == "3"
    with pytest.raises(RuntimeError) as caught:
        ConfigWorkflow(**keys, extras=2).initialize()
    message = str(find_user_error(caught.value))
    assert message == "--extras: no such key in other.yaml, tiny.yaml; did you mean --extra?"


# --------------------------------------------------------------------------------- profile, seed, folder
def test_unknown_profile(config) -> None:
    assert refusal(config, profile="medium") == "profile: found 'medium', expected one of small, large"


def test_an_earlier_run_is_refused_before_anything_is_written(config, tmp_path) -> None:
    folder = tmp_path / "run"
    run(config, output_dir=str(folder))
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "final.pt").write_bytes(b"")
    before = {p.name: p.read_bytes() for p in folder.glob("*.*")}
    message = refusal(config, output_dir=str(folder), max_epochs=9)
    assert message.endswith(
        "holds a run already (final.pt); --resume True goes on with that run, a new one needs another "
        "--output_dir"
    )
    assert {p.name: p.read_bytes() for p in folder.glob("*.*")} == before


def test_a_resumed_run_keeps_the_configuration_it_began_with(config, tmp_path) -> None:
    folder = tmp_path / "run"
    run(config, output_dir=str(folder), max_epochs=3)
    run(config, output_dir=str(folder), max_epochs=5, resume=True)
    kept, resumed = (yaml.safe_load((folder / f"config{x}.yaml").read_text()) for x in ("", "_resume"))
    assert (kept["max_epochs"], resumed["max_epochs"]) == (3, 5)


def test_several_processes_are_started_by_torchrun(monkeypatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(UserError, match="start it by torchrun"):
        check_launched()
    monkeypatch.setenv("RANK", "1")
    check_launched()


@pytest.mark.parametrize("seed", [-1, True])
def test_bad_seed(config, seed) -> None:
    assert refusal(config, seed=seed) == f"seed: found {seed}, expected an integer from 0"


@pytest.mark.parametrize("value", ["false", "True", 0])
def test_what_is_true_or_false_takes_nothing_else(config, value) -> None:
    assert refusal(config, boundary=value) == f"boundary: found {value!r}, expected True or False"


def test_a_forgotten_value(config) -> None:
    message = "arm: found True, expected text: was a value forgotten behind --arm?"
    assert refusal(config, arm=True) == message


def test_an_expression_may_be_true_or_false(config, tmp_path) -> None:
    run(config, output_dir=str(tmp_path / "run"), boundary="$1 > 2")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"device": "gpu"}, "device: found 'gpu', expected cpu, cuda or cuda:0"),
        ({"rates": {"learning_rate": 0}}, "learning_rate: found 0, expected a number above 0"),
        ({"rates": {"learning_rate": "0.1x"}}, "learning_rate: found '0.1x', expected a number above 0"),
        ({"counts": {"val_interval": 0}}, "val_interval: found 0, expected an integer from 1"),
    ],
)
def test_bad_values_are_refused_before_anything_is_written(tmp_path, arguments, message) -> None:
    with pytest.raises(UserError) as caught:
        begin(str(tmp_path / "run"), seed=0, **arguments)
    assert str(caught.value) == message
    assert not (tmp_path / "run").exists()


def test_folder_that_cannot_be_written(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"output_dir: .*run cannot be written"):
        begin(str(tmp_path / "file" / "run"), seed=0)


def test_same_seed_same_draws(tmp_path) -> None:
    def draws(seed):
        begin(str(tmp_path), seed)
        return random.random(), np.random.rand(), float(torch.rand(()))

    first, other, again = draws(3), draws(4), draws(3)
    assert first == again
    assert all(a != b for a, b in zip(first, other, strict=True))


# ----------------------------------------------------------------------------------- what a run leaves
def test_merged_configuration_is_saved_and_runs(config, tmp_path) -> None:
    overlay = config.parent / "overlay.yaml"
    overlay.write_text("max_epochs: 4\nprofiles::small::rate: 0.3\n")
    run([config, overlay], output_dir=str(tmp_path / "run"), seed=9, stages=("a", Path("b")))
    saved = tmp_path / "run" / "config.yaml"
    content = ConfigParser.load_config_file(str(saved))
    expected = yaml.safe_load(CONFIG) | {"output_dir": str(tmp_path / "run"), "seed": 9, "max_epochs": 4}
    expected["profiles"]["small"]["rate"] = 0.3
    expected["stages"] = ["a", "b"]
    assert content == expected
    assert list(content)[1:4] == ["output_dir", "seed", "max_epochs"]  # in the file's order
    run(saved, output_dir=str(tmp_path / "again"))
    assert (tmp_path / "again" / "result.txt").read_text() == "4"


def test_finish_says_what_was_written(config, tmp_path, caplog) -> None:
    caplog.set_level(logging.INFO)
    folder = tmp_path / "run"
    run(config, output_dir=str(folder))
    message = f"done: {folder}\n  result.txt (the number of epochs)"
    assert caplog.messages[-1] == message
    log = (folder / "log.txt").read_text()
    assert log.endswith(f"INFO pretext3d.training.session: {message}\n")
    assert f"run in {folder}; profile small" in log
    logging.getLogger("pretext3d").warning("after the end")  # the log is closed
    assert (folder / "log.txt").read_text() == log


def test_finish_without_files(tmp_path, caplog) -> None:
    caplog.set_level(logging.INFO)
    finish(str(tmp_path))
    assert caplog.messages == [f"done: {tmp_path}"]


def test_interruption_says_how_to_continue(config, tmp_path, capsys) -> None:
    begin(str(tmp_path), seed=0)  # outside a configuration
    sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert capsys.readouterr().err == "\nstopped\n"
    run(config, output_dir=str(tmp_path / "run"))  # one with a key `resume`
    sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)
    early = "\nstopped before the first epoch was saved; the same command starts from the beginning\n"
    assert capsys.readouterr().err == early
    (tmp_path / "run" / "checkpoints").mkdir(exist_ok=True)
    (tmp_path / "run" / "checkpoints" / "epoch_0001.pt").touch()
    sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert "--resume True continues from the last finished epoch" in capsys.readouterr().err


def test_an_error_is_reported_once_in_the_terminal_and_kept_in_the_log(config, tmp_path, caplog) -> None:
    broken = (
        "broken: {_target_: ignite.engine.Engine, process_function: '$lambda engine, batch: 1 / batch'}\n"
    )
    config.write_text(CONFIG.replace("run:\n", broken + "run:\n- $@broken.run([0])\n"))
    with pytest.raises(RuntimeError, match="broken"):
        run(config, output_dir=str(tmp_path / "run"))
    assert not any("terminating" in message for message in caplog.messages)
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "ERROR ignite.engine.engine.Engine: Engine run is terminating due to exception: division" in log


# ---------------------------------------------------------------------------------------- three_sizes
@pytest.mark.parametrize(
    ("value", "sizes"), [(16, (16, 16, 16)), ([64, 64, 32], (64, 64, 32)), ((1, 2, 3), (1, 2, 3))]
)
def test_three_sizes(value, sizes) -> None:
    assert spatial_size(value) == sizes


@pytest.mark.parametrize(("value", "sizes"), [(16, (16, 16)), ([64, 32], (64, 32))])
def test_two_sizes(value, sizes) -> None:
    assert spatial_size(value, spatial_dims=2) == sizes


@pytest.mark.parametrize("value", [0, -8, [], [16, 16], [16] * 4, [16, 0, 16]])
def test_other_sizes_are_refused_by_name(value) -> None:
    with pytest.raises(UserError, match=r"^roi_size: found .*, expected one number of voxels or three"):
        spatial_size(value)


def test_three_sizes_are_refused_in_2d() -> None:
    with pytest.raises(
        UserError, match=r"^roi_size: found \[8, 8, 8\], expected one .* or two, as 64 or \[64,32\]"
    ):
        spatial_size([8, 8, 8], spatial_dims=2)


# -------------------------------------------------------------------------- what is read from the workflow
READING = """
output_dir: somewhere
dataset_dir: ''
seed: 7
max_epochs: 3
max_steps: null
learning_rate: 0.1
backbone_learning_rate: null
freeze_encoder_epochs: 0
warmup: 0.1
lr_scheduler: {_target_: builtins.exit, warmup: '@warmup', final_lr_factor: 0.1}
precision: auto
device: cpu
profile: small
profiles: {small: {}}
resume: false
ckpt_dir: "$@output_dir + '/checkpoints'"
bundle_root: {_target_: pretext3d.training.workflow.bundle_root}
initialize:
- {_target_: pretext3d.training.overrides.check_overrides}
- {_target_: pretext3d.training.session.begin}
run: []
finalize:
- {_target_: pretext3d.training.session.finish, next_step: finetune}
"""


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("max_epochs", 0, "max_epochs: found 0, expected an integer from 1, or null"),
        ("max_steps", 0, "max_steps: found 0, expected an integer from 1, or null"),
        ("learning_rate", -1, "learning_rate: found -1, expected a number above 0"),
        ("device", "gpu", "device: found 'gpu', expected cpu, cuda or cuda:0"),
        ("profile", "large", "profile: found 'large', expected one of small"),
        ("seed", -1, "seed: found -1, expected an integer from 0"),
        ("precision", "fp16", "precision: found 'fp16', expected auto, bf16 or fp32"),
        ("freeze_encoder_epochs", -1, "freeze_encoder_epochs: found -1, expected an integer from 0"),
        (
            "backbone_learning_rate",
            "x",
            "backbone_learning_rate: found 'x', expected null (the recipe's) or a number from 0",
        ),
        ("warmup", 1.5, "warmup: found 1.5, expected a share from 0.0 to 1.0 or a number of steps"),
        (
            "lr_scheduler__final_lr_factor",
            2,
            "lr_scheduler::final_lr_factor: found 2, expected a number from 0 to 1",
        ),
    ],
)
def test_begin_checks_the_keys_of_its_configuration(config, key, value, message) -> None:
    config.write_text(READING)
    assert refusal(config, **{key: value}) == message


def test_a_run_needs_a_length(config) -> None:
    config.write_text(READING.replace("max_epochs: 3", "max_epochs: null"))
    message = "max_epochs, max_steps: found null for both, expected a number for one of them"
    assert refusal(config) == message


def test_begin_and_finish_read_the_configuration(config, tmp_path, caplog) -> None:
    caplog.set_level(logging.INFO)
    config.write_text(READING)
    folder = tmp_path / "a run"
    run(config, output_dir=str(folder), dataset_dir="scans")
    assert f"run in {folder}; profile small" in (folder / "log.txt").read_text()
    assert monai.utils.misc.get_seed() == 7
    command = caplog.messages[-1].splitlines()[-1]
    assert command.endswith(
        f"/configs/finetune.yaml --pretrained '{folder}' --dataset_dir LABELLED_FOLDER --profile small"
    )
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "final.pt").write_bytes(b"")
    with pytest.raises(RuntimeError) as caught:
        run(config, output_dir=str(folder))
    assert "holds a run already" in str(find_user_error(caught.value))
