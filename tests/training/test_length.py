"""Runs that end after a number of steps, also within an epoch, killed and resumed; an epoch has 3 steps."""

import logging

import pytest
from pretext3d.errors import UserError
from pretext3d.training.checkpoint_io import load_checkpoint
from pretext3d.training.length import RunLength

from tests.training.runs import STEPS, Kill, Run, assert_equal_files, names


def test_length_by_hand() -> None:
    """10 steps of epochs of 3 are 3 whole epochs and one of 1; a schedule of 2 epochs has 6 steps."""
    length = RunLength(max_epochs=7, max_steps=10, steps_per_epoch=3)
    assert (length.epochs, length.steps(4), length.steps(2)) == (4, 10, 6)
    assert [length.reached(n) for n in (9, 10, 11)] == [False, True, True]
    length = RunLength(max_epochs=7, max_steps=None, steps_per_epoch=3)
    assert (length.epochs, length.steps(7), length.reached(10**9)) == (7, 21, False)
    assert RunLength(None, 3, 3).epochs == RunLength(None, 1, 3).epochs == 1


@pytest.mark.parametrize(
    ("epochs", "steps", "message"),
    [
        (None, None, "max_epochs, max_steps: found null for both"),
        (0, None, "max_epochs: found 0"),
        (None, -1, "max_steps: found -1"),
    ],
)
def test_no_length(epochs, steps, message) -> None:
    with pytest.raises(UserError, match=message):
        RunLength(epochs, steps, 3)


@pytest.mark.parametrize(("steps", "last"), [(8, 2), (9, 3), (10, 1), (2, 2)])
def test_a_run_makes_exactly_so_many_steps(tmp_path, steps, last, caplog) -> None:
    caplog.set_level(logging.INFO)
    run = Run(tmp_path, epochs=99, max_steps=steps)()
    epochs = -(-steps // STEPS)
    assert [value[1] for value in run.losses.values] == list(range(1, steps + 1))
    assert len([value for value in run.losses.values if value[0] == epochs]) == last
    content = load_checkpoint(tmp_path / f"epoch_{epochs:04d}.pt")
    assert (content["epoch"], content["iteration"]) == (epochs, steps)
    assert ("ended_early" in content) == (last < STEPS)
    assert run.evaluator.state.epoch == epochs  # validated after the last step, too
    assert load_checkpoint(tmp_path / "final.pt")["epoch"] == epochs
    shorter = f", the last one of {last}" if last < STEPS else ""
    many = "1 epoch" if epochs == 1 else f"{epochs} epochs of 3 steps{shorter}"
    assert f"{steps} steps: {many}" in caplog.messages


@pytest.mark.parametrize("epoch", [2, 4])
def test_killed_and_resumed_equals_never_killed(tmp_path, epoch) -> None:
    """11 steps: the fourth epoch has two, and is killed after the second one."""
    straight = Run(tmp_path / "a", max_steps=11)()
    Run(tmp_path / "b", Kill(epoch), max_steps=11)()
    assert f"epoch_{epoch:04d}.pt" not in names(tmp_path / "b")
    resumed = Run(tmp_path / "b", max_steps=11, resume=True)()
    assert resumed.losses.values == straight.losses.values[(epoch - 1) * STEPS :]
    assert names(tmp_path / "a") == names(tmp_path / "b")
    for name in names(tmp_path / "a"):
        assert_equal_files(tmp_path / "a" / name, tmp_path / "b" / name)


@pytest.mark.parametrize("steps", [8, 7, 6])
def test_a_finished_run_has_nothing_left(tmp_path, steps, caplog) -> None:
    """Of 8 steps; with fewer than it has made, too."""
    Run(tmp_path, max_steps=8)()
    before = {name: (tmp_path / name).read_bytes() for name in names(tmp_path) if name != "final.pt"}
    resumed = Run(tmp_path, max_steps=steps, resume=True)()
    assert resumed.losses.values == []
    assert before == {name: (tmp_path / name).read_bytes() for name in names(tmp_path) if name != "final.pt"}
    assert "nothing is left to do" in caplog.text


@pytest.mark.parametrize("longer", [{"max_steps": 11}, {"max_steps": 9}, {"epochs": 4}])
def test_a_longer_run_equals_one_that_was_longer_from_the_start(tmp_path, longer) -> None:
    """8 steps end within epoch 3, which is trained again from the end of epoch 2, after step 6."""
    straight = Run(tmp_path / "a", scheduler="multistep", **longer)()
    Run(tmp_path / "b", scheduler="multistep", max_steps=8)()
    resumed = Run(tmp_path / "b", scheduler="multistep", resume=True, **longer)()
    assert resumed.losses.values == straight.losses.values[6:]
    assert names(tmp_path / "a") == names(tmp_path / "b")
    for name, value in straight.weights.items():
        assert resumed.weights[name].equal(value), name
    best, last = (load_checkpoint(tmp_path / "b" / name) for name in ("best.pt", "final.pt"))
    assert (best["best_metric"], best["best_epoch"]) == (last["best_metric"], last["best_epoch"])


def test_a_longer_run_of_one_epoch_begins_again(tmp_path, caplog) -> None:
    straight = Run(tmp_path / "a", scheduler="multistep", max_steps=5)()
    Run(tmp_path / "b", scheduler="multistep", max_steps=2)()
    resumed = Run(tmp_path / "b", scheduler="multistep", max_steps=5, resume=True)()
    assert resumed.losses.values == straight.losses.values
    assert "starting from the beginning" in caplog.text


def test_no_checkpoint_before_the_end_within_an_epoch(tmp_path) -> None:
    Run(tmp_path, max_steps=8, keep=1)()
    with pytest.raises(UserError, match=r"epoch_0003.pt: .* after 8 steps, .*; expected --max_steps 8"):
        Run(tmp_path, max_steps=11, keep=1, resume=True)()


def test_a_second_run_of_a_trainer_makes_no_step_more(tmp_path) -> None:
    """As in federated rounds: the client raises max_epochs and runs the same trainer again."""
    run = Run(tmp_path, max_steps=4)()
    run.trainer.state.max_epochs = 3
    run.trainer.run()
    assert len(run.losses.values) == 4
