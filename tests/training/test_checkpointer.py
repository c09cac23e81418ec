"""Runs of a tiny network, killed and resumed; see `runs`."""

import contextlib
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ignite.engine import Events
from monai.engines import Workflow
from pretext3d.errors import UserError
from pretext3d.training.checkpoint_files import epoch_files
from pretext3d.training.checkpoint_io import load_checkpoint, save_checkpoint
from pretext3d.training.checkpointer import newest_good

from tests.training.runs import EPOCHS, RECORD, STEPS, Kill, Killed, Run, assert_equal_files, names


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that was never killed, and its folder."""
    folder = tmp_path_factory.mktemp("whole") / "checkpoints"
    return Run(folder)(), folder


def test_a_run_leaves_the_newest_the_best_and_the_final(whole):
    run, folder = whole
    assert names(folder) == ["best.pt", "epoch_0003.pt", "epoch_0004.pt", "final.pt"]
    last = load_checkpoint(folder / "epoch_0004.pt")
    assert (last["epoch"], last["iteration"]) == (4, 4 * STEPS)
    assert last["lr_scheduler"]["last_epoch"] == 4 * STEPS  # after the scheduler's step
    assert last["record"] == RECORD
    final, best = load_checkpoint(folder / "final.pt"), load_checkpoint(folder / "best.pt")
    assert set(final) == set(best) == {"format", "record", "network", "epoch", "best_metric", "best_epoch"}
    assert all(torch.equal(v, run.weights[k]) for k, v in final["network"].items())
    assert best["best_metric"] == last["best_metric"] == run.evaluator.state.best_metric
    assert best["epoch"] == best["best_epoch"] == run.evaluator.state.best_metric_epoch


@pytest.mark.parametrize("scheduler", ["onecycle", "warmup", "warmup_cosine", "cosine", "multistep"])
@pytest.mark.parametrize("place", [0, 2])
def test_killed_and_resumed_equals_never_killed(tmp_path, scheduler, place):
    straight = Run(tmp_path / "a", scheduler=scheduler, place=place)()
    killed = Run(tmp_path / "b", Kill(3), scheduler=scheduler, place=place)()
    assert names(tmp_path / "b") == ["best.pt", "epoch_0001.pt", "epoch_0002.pt"]
    resumed = Run(tmp_path / "b", scheduler=scheduler, place=place, resume=True)()
    assert len(straight.losses.values) == EPOCHS * STEPS
    assert killed.losses.values == straight.losses.values[: 2 * STEPS + 2]
    assert resumed.losses.values == straight.losses.values[2 * STEPS :]
    assert names(tmp_path / "a") == names(tmp_path / "b")
    for name in names(tmp_path / "a"):
        assert_equal_files(tmp_path / "a" / name, tmp_path / "b" / name)


def test_the_test_would_see_a_difference(whole, tmp_path):
    """Without the generators' seeds, dropout differs: the comparison above is not empty."""
    Run(tmp_path, Kill(3), seed=7)()
    resumed = Run(tmp_path, resume=True, seed=8)()
    assert resumed.losses.values != Run(tmp_path / "b", seed=7)().losses.values[2 * STEPS :]


def test_data_loading_workers_do_not_matter(whole, tmp_path):
    Run(tmp_path, Kill(2), workers=1)()
    assert Run(tmp_path, resume=True, workers=0)().losses.values == whole[0].losses.values[STEPS:]


@pytest.mark.parametrize("moment", ["in an epoch", "in a write"])
def test_sigkill(whole, tmp_path, moment):
    """A process that is really killed, in an epoch or between a checkpoint's last byte and its name."""
    body = {
        "in an epoch": "Run(folder, Kill(3, by_signal=True))()",
        "in a write": "import os, signal, pathlib\n"
        "replace = pathlib.Path.replace\n"
        "def kill(path, target):\n"
        "    os.kill(os.getpid(), signal.SIGKILL) if 'epoch_0003' in target.name else replace(path, target)\n"
        "pathlib.Path.replace = kill\n"
        "Run(folder)()",
    }[moment]
    root = Path(__file__).parents[2]
    code = (
        f"import sys, torch; sys.path.insert(0, {str(root)!r}); torch.set_num_threads(1)\n"
        f"from tests.training.runs import Kill, Run\nfolder = {str(tmp_path)!r}\n{body}"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    drafts = [name for name in names(tmp_path) if name.endswith(".tmp")]
    assert len(drafts) == (moment == "in a write")
    resumed = Run(tmp_path, resume=True)()
    assert resumed.losses.values == whole[0].losses.values[2 * STEPS :]
    assert names(tmp_path) == names(whole[1])
    for name in names(tmp_path):
        assert_equal_files(tmp_path / name, whole[1] / name)


# A run that meets a full disk, or Ctrl-C, while torch.save writes its third checkpoint.
STOPPED = """
import resource, signal, sys
sys.path.insert(0, {root!r})
import torch
from pretext3d.errors import install_excepthook
from pretext3d.training import checkpoint_io
from tests.training.runs import Run

torch.set_num_threads(1)
signal.signal(signal.SIGINT, signal.default_int_handler)
install_excepthook("stopped; --resume True goes on")

class File:
    def __init__(self, file):
        self.file, self.writes = file, 0
    def write(self, data):
        self.writes += 1
        if "epoch_0003" in self.file.name and self.writes == 9:
            if sys.argv[2] == "interrupted":
                signal.raise_signal(signal.SIGINT)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1, 1))
        self.file.write(data)
        self.file.flush()

class Sink(checkpoint_io._Sink):
    def __init__(self, file):
        super().__init__(File(file))

checkpoint_io._Sink = Sink
Run(sys.argv[1])()
"""


@pytest.mark.parametrize(
    ("moment", "code", "line"),
    [
        ("interrupted", -signal.SIGINT, "stopped; --resume True goes on"),
        (
            "full",
            1,
            "error: {file}: the checkpoint cannot be written: File too large; stopped; --resume True goes on",
        ),
    ],
)
def test_stopped_while_torch_saves(whole, tmp_path, moment, code, line):
    """One line, exit code 1 or 130, no draft, and a resumed run goes on as if nothing had been."""
    root, folder = Path(__file__).parents[2], tmp_path / "run"
    command = [sys.executable, "-c", STOPPED.format(root=str(root)), str(folder), moment]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    left = names(folder)
    assert not [name for name in left if name.endswith(".tmp")]
    assert "epoch_0002.pt" in left
    assert "epoch_0003.pt" not in left
    expected = line.format(file=folder / "epoch_0003.pt")
    assert [text for text in done.stderr.splitlines() if text] == [expected]
    assert Run(folder, resume=True)().losses.values == whole[0].losses.values[2 * STEPS :]
    assert names(folder) == names(whole[1])
    for name in names(folder):
        assert_equal_files(folder / name, whole[1] / name)


def test_killed_between_best_and_first_epoch_checkpoint(whole, tmp_path):
    """best.pt is there and no epoch checkpoint: the resumed run starts again from the beginning."""
    Run(tmp_path, Kill(2))()
    (tmp_path / "epoch_0001.pt").unlink()
    assert Run(tmp_path, resume=True)().losses.values == whole[0].losses.values


@pytest.mark.parametrize("damage", ["truncated", "empty", "foreign", "no optimizer"])
def test_falls_back_to_the_previous_good_checkpoint(whole, tmp_path, caplog, damage):
    Run(tmp_path, Kill(3))()
    newest = tmp_path / "epoch_0002.pt"
    if damage == "no optimizer":
        save_checkpoint(newest, load_checkpoint(tmp_path / "best.pt"))
    elif damage == "foreign":
        torch.save({"conv.weight": torch.ones(1)}, newest)
    else:
        newest.write_bytes(newest.read_bytes()[: 1000 if damage == "truncated" else 0])
    resumed = Run(tmp_path, resume=True)()
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len([w for w in warnings if "epoch_0002.pt" in w and "falling back" in w]) == 1
    assert resumed.losses.values == whole[0].losses.values[STEPS:]
    assert names(tmp_path) == names(whole[1])


def test_no_good_checkpoint_left(tmp_path):
    Run(tmp_path, Kill(3))()
    for path in epoch_files(tmp_path):
        path.write_bytes(b"")
    with pytest.raises(
        UserError, match=r"no checkpoint can be resumed from: .*epoch_0002\.pt.*epoch_0001\.pt"
    ):
        Run(tmp_path, resume=True)()
    assert epoch_files(tmp_path)[0].read_bytes() == b""


def test_a_bad_newer_file_does_not_cost_the_good_ones(tmp_path):
    """keep = 2: epochs 1 and 2 stay next to a broken epoch 9."""
    Run(tmp_path, Kill(2))()
    (tmp_path / "epoch_0009.pt").write_bytes(b"")
    Run(tmp_path, Kill(3), resume=True)()
    assert [p.name for p in epoch_files(tmp_path)] == ["epoch_0001.pt", "epoch_0002.pt", "epoch_0009.pt"]


def test_nothing_to_resume_begins_anew(whole, tmp_path, caplog):
    run = Run(tmp_path / "new", resume=True)()
    assert "nothing to resume in" in caplog.text
    assert run.losses.values == whole[0].losses.values


def test_an_earlier_run_is_not_overwritten(whole):
    newest = whole[1] / "epoch_0004.pt"
    before = newest.read_bytes()
    advice = "--resume True goes on with that run, a new one needs another --output_dir"
    with pytest.raises(UserError, match=rf"holds a run already .*; {advice}"):
        Run(whole[1])()
    assert newest.read_bytes() == before


def test_all_epochs_are_done(tmp_path, caplog):
    first = Run(tmp_path, epochs=2)()
    (tmp_path / "final.pt").unlink()  # killed before it was written
    again = Run(tmp_path, epochs=2, resume=True)()
    assert again.losses.values == []
    assert "2 of 2 epochs are done, nothing is left to do" in caplog.text
    final = load_checkpoint(tmp_path / "final.pt")["network"]
    assert all(torch.equal(v, first.weights[k]) for k, v in final.items())


@pytest.mark.parametrize("scheduler", ["onecycle", "warmup", "warmup_cosine", "cosine"])
def test_more_epochs_than_before(tmp_path, scheduler):
    """The schedule's length is the new run's: one-cycle would else refuse the first further step."""
    Run(tmp_path, epochs=2, scheduler=scheduler)()
    run = Run(tmp_path, epochs=3, scheduler=scheduler, resume=True)()
    assert [epoch for epoch, *_ in run.losses.values] == [3] * STEPS
    assert load_checkpoint(tmp_path / "epoch_0003.pt")["lr_scheduler"]["last_epoch"] == 3 * STEPS


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "other"}, "method is 'toy' there, 'other' here"),
        ({"channels": 4}, "channels is 1 there, 4 here"),
        ({"backbone": {**RECORD["backbone"], "encoder": "x"}}, "backbone encoder is 'toy' there, 'x' here"),
    ],
)
def test_another_run_is_refused(tmp_path, change, message):
    Run(tmp_path, Kill(2))()
    with pytest.raises(UserError, match=message):
        Run(tmp_path, resume=True, record={**RECORD, **change})()


def test_other_settings_are_refused(tmp_path):
    Run(tmp_path, scheduler="warmup", epochs=2)()
    run = Run(tmp_path, scheduler="warmup", epochs=4, resume=True)
    run.checkpointer.parts["optimizer"].param_groups[0] |= {"initial_lr": 0.5, "weight_decay": 0.1}
    with pytest.raises(UserError, match=r"learning_rate is 0\.05 there, 0\.5 here; weight_decay is 0\.01"):
        run.trainer.run()


def test_weights_that_do_not_fit_are_a_user_error(tmp_path):
    Run(tmp_path, Kill(2))()
    path = tmp_path / "epoch_0001.pt"
    content = load_checkpoint(path)
    save_checkpoint(path, {**content, "network": {"weight": torch.ones(1)}})
    with pytest.raises(UserError, match=r"epoch_0001\.pt: its network does not fit this run: Error"):
        Run(tmp_path, resume=True)()


@pytest.mark.parametrize(
    ("part", "change", "expected"),
    [
        ("optimizer", {"param_groups": "$1"}, "optimizer: found .*, expected an optimizer's state"),
        ("optimizer", {"param_groups": [3]}, "optimizer: found .*, expected an optimizer's state"),
        ("optimizer", {"param_groups": [{"lr": "1"}]}, r"param_groups\[0\]\.lr: found '1', expected a value"),
        ("optimizer", {"state": {0: 1}}, "optimizer: found .*, expected an optimizer's state"),
        (
            "optimizer",
            {"state": {0: {"exp_avg": torch.ones(3)}}},
            r"optimizer\.state\[0\]\.exp_avg: found shape \[3\], expected \[4, 1, 3, 3, 3\]",
        ),
        ("lr_scheduler", {"last_epoch": "$1"}, r"lr_scheduler\.last_epoch: found '\$1', expected a value"),
        ("rng", {"python": "x"}, "its rng does not fit this run"),
    ],
)
def test_states_of_another_kind_are_refused(tmp_path, part, change, expected):
    Run(tmp_path, Kill(2))()
    path = tmp_path / "epoch_0001.pt"
    content = load_checkpoint(path)
    save_checkpoint(path, {**content, part: {**content[part], **change}})
    with pytest.raises(UserError, match=rf"epoch_0001\.pt: .*{expected}"):
        Run(tmp_path, resume=True)()


def test_weights_that_are_not_finite_fall_back_to_the_checkpoint_before(tmp_path, caplog):
    Run(tmp_path, Kill(3))()
    path = tmp_path / "epoch_0002.pt"
    content = load_checkpoint(path)
    content["network"]["0.bias"][0] = float("nan")
    save_checkpoint(path, content)
    assert [path.name for path in epoch_files(tmp_path)] == ["epoch_0001.pt", "epoch_0002.pt"]
    found, _ = newest_good(epoch_files(tmp_path))
    assert found.name == "epoch_0001.pt"
    assert "tensor 0.bias: found 1 of 4 values that are NaN" in caplog.text


def test_terminated_in_an_epoch_writes_no_final(tmp_path):
    run = Run(tmp_path)
    run.trainer.add_event_handler(
        Events.ITERATION_COMPLETED(once=STEPS + 1), lambda engine: engine.terminate()
    )
    run()
    assert names(tmp_path) == ["best.pt", "epoch_0001.pt"]


@pytest.mark.parametrize(("negative", "expected"), [(True, 2), (False, 3)])
def test_best_is_the_lowest_error_or_the_highest_score(tmp_path, negative, expected):
    """Metrics 2, 1, 3, NaN after epochs 1 to 4: the best are 1 (lowest, epoch 2) and 3 (highest, epoch 3)."""
    run = Run(tmp_path, negative_key_metric=negative)

    def fake(engine):
        engine.state.metrics["error"] = [2.0, 1.0, 3.0, float("nan")][engine.state.epoch - 1]

    run.evaluator.add_event_handler(Events.EPOCH_COMPLETED, fake)
    run()
    best = load_checkpoint(tmp_path / "best.pt")
    assert (best["epoch"], best["best_metric"]) == (expected, [2.0, 1.0, 3.0][expected - 1])


@pytest.mark.parametrize(
    ("negative", "interval", "expected"), [(True, 1, 3), (True, 2, 2), (False, 1, 1), (False, 2, 2)]
)
def test_of_equal_errors_the_latest_that_was_measured_is_the_best(tmp_path, negative, interval, expected):
    """0 after epochs 1 to 3, NaN after 4: as triplets whose margins all hold; of equal scores the first one.

    With a validation after every second epoch, epoch 3 has none: the 0 of epoch 2 does not stand for it.
    """
    run = Run(tmp_path, negative_key_metric=negative, interval=interval)

    def fake(engine):
        engine.state.metrics["error"] = float("nan") if engine.state.epoch == 4 else 0.0

    run.evaluator.add_event_handler(Events.EPOCH_COMPLETED, fake)
    run()
    best = load_checkpoint(tmp_path / "best.pt")
    assert (best["epoch"], best["best_epoch"], best["best_metric"]) == (expected, expected, 0.0)


def test_without_a_validation_there_is_no_best(tmp_path):
    Run(tmp_path, evaluator=None, keep=1)()
    assert names(tmp_path) == ["epoch_0004.pt", "final.pt"]


def test_constructor_refuses(tmp_path):
    for bad, message in [({"keep": 0}, "keep: found 0"), ({"seed": -1}, "seed: found -1")]:
        with pytest.raises(UserError, match=message):
            Run(tmp_path, **bad)
    with pytest.raises(UserError, match="key_metric: found 'dice', expected one of error"):
        Run(tmp_path, key_metric="dice")()


class Scaler:
    """A gradient scaler's interface, without a GPU."""

    def __init__(self, scale):
        self.scale = scale

    def state_dict(self):
        return {"scale": self.scale}

    def load_state_dict(self, state):
        self.scale = state["scale"]


def test_scaler_of_the_trainer(tmp_path):
    """MONAI's trainer makes its scaler only in run(): it is found there, kept, and given its state back."""
    scalers = [Scaler(2.0), Scaler(64.0)]
    for scaler, run in zip(scalers, [Run(tmp_path, Kill(2)), Run(tmp_path, resume=True)], strict=True):
        run.trainer.scaler = scaler
        with contextlib.suppress(Killed):
            Workflow.run(run.trainer)  # what Trainer.run calls once it has made the scaler
    assert scalers[1].scale == 2.0
