"""What a run's log says of its validation: when, on which cases, and what evaluation will measure."""

import logging
from types import SimpleNamespace

import pytest
from ignite.engine import Engine
from pretext3d.training import report
from pretext3d.training.report import ValidationReport

CASES = [{"id": f"{who}_{phase}", "subject": who} for who in ("anna", "ben") for phase in ("ed", "es")]


def line(monkeypatch, caplog, epochs=54, held_out=CASES, measured=True, **settings) -> str:
    """What the log of a run with such settings says of its validation."""
    monkeypatch.setattr(report, "setting", lambda key, default=None: settings.get(key, default))
    monkeypatch.setattr(report, "built", settings.get)
    evaluator = SimpleNamespace(
        data_loader=SimpleNamespace(dataset=SimpleNamespace(data=held_out)),
        state=SimpleNamespace(key_metric_name="val_mean_dice"),
    )
    trainer = Engine(lambda *_: None)
    ValidationReport(evaluator, measured).attach(trainer)
    caplog.set_level(logging.INFO)
    trainer.run([0], max_epochs=epochs)
    return [text for text in caplog.messages if text.startswith("validation")][-1]


def test_a_quarter_of_the_epochs(monkeypatch, caplog) -> None:
    """54 // 4 = 13: after epochs 13, 26, 39 and 52."""
    assert line(monkeypatch, caplog) == (
        "validation after every 13 epochs, 4 in all, on 2 subjects (4 volumes); best.pt has the best "
        "val_mean_dice; evaluation measures these, too, best.pt too high: test_fraction sets others apart"
    )


def test_every_epoch_and_a_test_set(monkeypatch, caplog) -> None:
    settings = {"val_interval": 1, "cases": {"test": CASES[:1]}}
    said = line(monkeypatch, caplog, epochs=3, held_out=CASES[:2], **settings)
    assert "validation after every epoch, 3 in all, on 1 subject (2 volumes); " in said
    assert said.endswith("evaluation measures 1 subject of the test set")
    assert "evaluation" not in line(monkeypatch, caplog, epochs=3, measured=False, **settings)


@pytest.mark.parametrize(
    ("held_out", "interval", "why"),
    [(CASES, 100, "val_interval 100 of 54 epochs"), ([], 1, "no case is held out")],
)
def test_no_validation(monkeypatch, caplog, held_out, interval, why) -> None:
    said = line(monkeypatch, caplog, held_out=held_out, val_interval=interval)
    assert said == f"validation: none ({why}); there will be no best.pt"
