import csv
import logging
from types import SimpleNamespace

import pytest
import torch
from ignite.engine import Engine, Events
from pretext3d.training.history import History

STEPS = 3


class Run:
    """A trainer: loss 10 * epoch + 0, 1, 2, learning rate 1 / epoch, a validation every `interval` epochs."""

    def __init__(self, path, interval=1, metrics=("val_loss",)):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        evaluator = SimpleNamespace(state=SimpleNamespace(epoch=0, metrics={}))

        def step(engine, batch):
            optimizer.param_groups[0]["lr"] = 1 / engine.state.epoch
            return {"loss": torch.tensor(10.0 * engine.state.epoch + batch, requires_grad=True)}

        def validate(engine):
            if engine.state.epoch % interval == 0:
                evaluator.state.epoch = engine.state.epoch
                evaluator.state.metrics = {name: torch.tensor(0.5) for name in metrics}

        self.trainer = Engine(step)
        self.trainer.add_event_handler(Events.EPOCH_COMPLETED, validate)
        History(str(path), optimizer, evaluator).attach(self.trainer)

    def train(self, epochs, after=0):
        if after:
            state = {"epoch": after, "max_epochs": epochs, "epoch_length": STEPS}
            self.trainer.load_state_dict(state)
        self.trainer.run(range(STEPS), max_epochs=epochs, epoch_length=STEPS)


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_line_an_epoch(tmp_path, caplog) -> None:
    caplog.set_level(logging.INFO)
    path = tmp_path / "metrics.csv"
    Run(path).train(2)
    first, second = rows(path)
    assert list(first) == ["epoch", "step", "seconds", "train_loss", "learning_rate", "val_loss"]
    assert float(first.pop("seconds")) >= 0
    # the mean of 10, 11, 12
    assert first == {
        "epoch": "1",
        "step": "3",
        "train_loss": "11.0",
        "learning_rate": "1.0",
        "val_loss": "0.5",
    }
    assert (second["epoch"], second["step"], second["train_loss"]) == ("2", "6", "21.0")
    assert second["learning_rate"] == "0.5"
    assert "epoch 2 of 2: seconds " in caplog.text
    assert "train_loss 21, learning_rate 0.5, val_loss 0.5\n" in caplog.text
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.csv"]


def test_only_epochs_with_a_validation_have_its_metrics(tmp_path) -> None:
    path = tmp_path / "metrics.csv"
    Run(path, interval=2, metrics=("dice", "error")).train(4)
    assert [row["dice"] for row in rows(path)] == ["", "0.5", "", "0.5"]
    assert list(rows(path)[0])[-2:] == ["dice", "error"]


@pytest.mark.parametrize("after", [1, 2, 3])
def test_resume_drops_the_epochs_that_are_trained_again(tmp_path, after) -> None:
    path = tmp_path / "metrics.csv"
    Run(path).train(3)
    before = rows(path)
    Run(path, metrics=("val_loss", "new")).train(5, after=after)
    table = rows(path)
    assert [row["epoch"] for row in table] == ["1", "2", "3", "4", "5"]
    assert [row["train_loss"] for row in table] == ["11.0", "21.0", "31.0", "41.0", "51.0"]
    assert [{k: v for k, v in row.items() if k != "new"} for row in table[:after]] == before[:after]
    assert [row["new"] for row in table] == [""] * after + ["0.5"] * (5 - after)


@pytest.mark.parametrize(("after", "epochs"), [(1, "2, 3"), (2, "3"), (3, None)])
def test_epochs_that_are_trained_again_are_named(tmp_path, caplog, after, epochs) -> None:
    """As after a stop between an epoch's line and its checkpoint, or with a larger max_steps."""
    path = tmp_path / "metrics.csv"
    Run(path).train(3)
    caplog.set_level(logging.INFO)
    Run(path).train(4, after=after)
    line = f"{path}: epoch {epochs}: trained again"
    assert [message for message in caplog.messages if "again" in message] == ([line] if epochs else [])


def test_without_a_validation(tmp_path) -> None:
    trainer = Engine(lambda engine, batch: {"loss": torch.tensor(float(batch))})
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.25)
    History(str(tmp_path / "m.csv"), optimizer).attach(trainer)
    trainer.run([1, 3], max_epochs=1)
    (row,) = rows(tmp_path / "m.csv")
    assert (row["train_loss"], row["learning_rate"]) == ("2.0", "0.25")
