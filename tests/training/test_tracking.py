"""Tests of what is added to an MLflow run; with a real store: tests/bundles/test_vectorpose_bundle.py."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from ignite.engine import Engine
from monai.bundle import ConfigParser
from monai.handlers import MLFlowHandler
from pretext3d.training.tracking import MLflowDetails, leaves, runs


def test_nested_parameters_have_dotted_names_and_short_values() -> None:
    values = {
        "profile": "laptop",
        "record": {"backbone": {"encoder": "unet"}, "data": {"train": ["x" * 999]}},
    }
    found = dict(leaves(values))
    assert list(found) == ["profile", "record.backbone.encoder", "record.data.train"]
    assert found["record.backbone.encoder"] == "unet"
    assert len(found["record.data.train"]) == 500


def test_parameters_of_a_resumed_run_are_written_once(tmp_path: Path, monkeypatch) -> None:
    asked = []
    monkeypatch.setattr("pretext3d.training.tracking.runs", lambda engine: asked.append(engine) or [])
    trainer = Engine(lambda engine, batch: batch)
    MLflowDetails({"profile": "laptop"}, str(tmp_path)).attach(trainer)
    trainer.load_state_dict({"epoch_length": 2, "max_epochs": 5, "iteration": 6})
    trainer.run([1, 2])
    assert len(asked) == 2  # parameters after epoch 4, pictures at the end


def test_a_run_that_is_not_tracked_goes_on(tmp_path: Path) -> None:
    trainer = Engine(lambda engine, batch: batch)
    MLflowDetails({"profile": "laptop"}, str(tmp_path)).attach(trainer)
    assert trainer.run([1, 2], max_epochs=2).epoch == 2


def test_runs_are_those_of_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """The handler that MONAI appends to the list is found there, once it has a run; others are left alone."""
    monkeypatch.setattr(MLFlowHandler, "__init__", lambda self, run_id: None)
    parser = ConfigParser(
        {"train": {"handlers": [{"_target_": "StatsHandler"}, {"_target_": "MLFlowHandler", "run_id": "7"}]}}
    )
    handler = parser.get_parsed_content("train::handlers")[1]
    handler.client, handler.cur_run = "client", None
    assert list(runs(parser)) == []
    handler.cur_run = SimpleNamespace(info=SimpleNamespace(run_id="7"))
    assert list(runs(parser)) == [("client", "7")]
    assert list(runs(ConfigParser({}))) == []
