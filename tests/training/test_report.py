"""Which epochs a run validates, what its log says of it, and its progress."""

import logging
from types import SimpleNamespace

import pytest
import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedEvaluator
from monai.handlers import ValidationHandler
from pretext3d.progress import Bar
from pretext3d.training import report
from pretext3d.training.length import RunLength
from pretext3d.training.report import LastValidation, RunReport, ValidationReport, validated
from torch import nn
from torch.utils.data import DataLoader

CASES = [{"id": f"{who}_{phase}", "subject": who} for who in ("anna", "ben") for phase in ("ed", "es")]


def line(
    monkeypatch, caplog, epochs=54, held_out=CASES, measured=True, metric="val_mean_dice", **settings
) -> str:
    """What the log of a run with such settings says of its validation."""
    monkeypatch.setattr(report, "setting", lambda key, default=None: settings.get(key, default))
    monkeypatch.setattr(report, "built", settings.get)
    evaluator = SimpleNamespace(
        data_loader=SimpleNamespace(dataset=SimpleNamespace(data=held_out)),
        state=SimpleNamespace(key_metric_name=metric),
    )
    trainer = Engine(lambda *_: None)
    ValidationReport(evaluator, measured).attach(trainer)
    caplog.set_level(logging.INFO)
    trainer.run([0], max_epochs=epochs)
    return [text for text in caplog.messages if text.startswith("validation")][-1]


def test_a_quarter_of_the_epochs_and_the_last_one(monkeypatch, caplog) -> None:
    """54 // 4 = 13: after epochs 13, 26, 39, 52 and 54."""
    assert line(monkeypatch, caplog).splitlines() == [
        "validation: after every 13 epochs and the last one, 5 in all, on 2 subjects (4 volumes) not trained "
        "on",
        "best.pt: the weights with the highest val_mean_dice there; final.pt: those after the last step",
        "the evaluation will measure the cases of the validation: too high for best.pt, which was chosen by "
        "them, not for final.pt, the default; --test_fraction holds out others",
    ]


def test_the_lowest_loss(monkeypatch, caplog) -> None:
    said = line(monkeypatch, caplog, measured=False, metric="val_loss", epochs=1)
    assert said.splitlines()[1].startswith("best.pt: the weights with the lowest val_loss there")
    assert len(said.splitlines()) == 2


def test_every_epoch_and_a_test_set(monkeypatch, caplog) -> None:
    settings = {"val_interval": 1, "cases": {"test": CASES[:1]}}
    said = line(monkeypatch, caplog, epochs=3, held_out=CASES[:2], **settings)
    assert said.startswith(
        "validation: after every epoch, 3 in all, on 1 subject (2 volumes) not trained on\n"
    )
    assert said.endswith("\nthe evaluation will measure 1 subject of the test set")
    assert "evaluation" not in line(monkeypatch, caplog, epochs=3, measured=False, **settings)


@pytest.mark.parametrize(
    ("held_out", "interval", "why"),
    [(CASES, 100, "val_interval 100 of 54 epochs"), ([], 1, "no case is held out")],
)
def test_no_validation(monkeypatch, caplog, held_out, interval, why) -> None:
    said = line(monkeypatch, caplog, held_out=held_out, val_interval=interval)
    assert said == f"validation: none ({why}); final.pt will be the weights after the last step, no best.pt"


class Cases(list):
    """A data set of numbers."""

    @property
    def data(self) -> list:
        return self


def evaluator_of(cases: int = 2) -> SupervisedEvaluator:
    loader = DataLoader(Cases([{"image": torch.ones(1), "label": torch.ones(1)}] * cases))
    return SupervisedEvaluator(torch.device("cpu"), loader, nn.Identity(), decollate=False)


@pytest.mark.parametrize(
    ("interval", "epochs", "expected"),
    [(1, 3, [1, 2, 3]), (4, 10, [4, 8, 10]), (None, 9, [2, 4, 6, 8, 9]), (5, 5, [5]), (6, 5, [])],
)
def test_the_last_epoch_is_validated_once(monkeypatch, interval, epochs, expected) -> None:
    monkeypatch.setattr(report, "setting", lambda key, default=None: interval)
    evaluator, trainer, seen = evaluator_of(), Engine(lambda *_: None), []
    evaluator.add_event_handler(Events.COMPLETED, lambda engine: seen.append(engine.state.epoch))
    every = RunLength.interval(interval, epochs)
    ValidationHandler(every, evaluator).attach(trainer)
    LastValidation(evaluator).attach(trainer)
    trainer.run([0], max_epochs=epochs)
    assert seen == expected == validated(interval, epochs)
    trainer.state.max_epochs = epochs + 1  # a further round of a federated training
    trainer.run([0])
    assert seen[len(expected) :] == [epochs + 1] * ((epochs + 1) % every == 0)


def test_no_validation_of_no_case(monkeypatch) -> None:
    monkeypatch.setattr(report, "setting", lambda key, default=None: 1)
    evaluator, trainer = evaluator_of(cases=2), Engine(lambda *_: None)
    evaluator.data_loader.dataset.clear()
    LastValidation(evaluator).attach(trainer)
    trainer.run([0], max_epochs=2)
    assert evaluator.state.epoch == 0


def test_a_validation_shows_its_progress(tmp_path, monkeypatch) -> None:
    """A bar named validation, one step per batch, from 1 on in each validation."""
    shown: list[tuple[str, int, int]] = []
    monkeypatch.setattr(Bar, "update", lambda self, n=1: shown.append((self.desc, self.n + n, self.total)))
    evaluator, trainer = evaluator_of(cases=3), Engine(lambda *_: {"loss": 0.0})
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)
    ValidationHandler(1, evaluator).attach(trainer)
    RunReport(str(tmp_path), optimizer, {}, evaluator, title="fine-tuning").attach(trainer)
    trainer.run([0], max_epochs=2)
    validation = [(name, step, total) for name, step, total in shown if name.startswith("validation")]
    assert [name for name, _, _ in validation] == ["validation: "] * 6
    assert [total for _, _, total in validation] == [3] * 6
    assert any(name.startswith("fine-tuning [2/2]") for name, _, _ in shown)
