"""Features that collapse: two figures worked out by hand, and one warning per run."""

import logging
import math
from types import SimpleNamespace

import pytest
import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import ValidationHandler
from pretext3d.training import report
from pretext3d.training.collapse import (
    CollapseWarning,
    EffectiveRank,
    FeatureStd,
    collapse,
    collapse_metrics,
)
from pretext3d.training.metrics import ValidationLoss
from torch import nn
from torch.utils.data import DataLoader


def figure(metric, features, batch_size=3):
    """The metric of an evaluator that sees the features in batches; the last one may be smaller."""
    evaluator = Engine(lambda engine, batch: batch)
    metric.attach(evaluator, "figure")
    return evaluator.run(torch.as_tensor(features).split(batch_size)).metrics["figure"]


def std(features, normalise=True):
    return figure(FeatureStd(lambda output: output, normalise), features)


def rank(features):
    return figure(EffectiveRank(lambda output: output), features)


def test_std_of_directions_by_hand():
    """(3, 0) and (0, 5) become (1, 0) and (0, 1): std 1/2 in both dimensions, times sqrt(2)."""
    assert std([[3.0, 0.0], [0.0, 5.0]]) == pytest.approx(math.sqrt(2) / 2)
    # one direction, whatever the lengths
    assert std([[1.0, 2.0], [10.0, 20.0]]) == pytest.approx(0, abs=1e-6)


def test_std_of_plain_features_by_hand():
    """Dimensions (1, 3), std 1, and (0, 6), std 3: their mean 2, times sqrt(2)."""
    assert std([[1.0, 0.0], [3.0, 6.0]], normalise=False) == pytest.approx(2 * math.sqrt(2))


def test_directions_spread_evenly_have_std_1_in_any_number_of_dimensions():
    """The 2 d ends of the axes: variance 1 / d per dimension."""
    for d in (1, 2, 7, 64):
        ends = torch.cat([torch.eye(d), -torch.eye(d)]) * torch.linspace(1, 9, 2 * d)[:, None]
        assert std(ends) == pytest.approx(1)


@pytest.mark.parametrize("constant", [[0.0, 0.0, 0.0], [0.1, -0.7, 1e3]])
def test_constant_features(constant):
    """Exactly 0, also where sums of 0.1 are rounded."""
    assert std([constant] * 50) == std([constant] * 50, normalise=False) == rank([constant] * 50) == 0


def test_rank_by_hand():
    """Centred, the singular values are in the ratio 3 to 1: p = 3/4, 1/4."""
    features = torch.tensor([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]]) + torch.tensor([5.0, -2.0])
    assert rank(features) == pytest.approx((4 / 3) ** (3 / 4) * 4 ** (1 / 4))


def test_rank_of_a_line_is_1_and_of_all_directions_d():
    line = torch.linspace(-2, 5, 11)[:, None] * torch.tensor([[1.0, -2.0, 0.5, 0.0]]) + 3
    assert rank(line) == pytest.approx(1, abs=1e-4)  # its points are rounded to float32
    for d in (1, 2, 7, 64):
        assert rank(torch.cat([torch.eye(d), -torch.eye(d)]) * 1e-3 + 1) == pytest.approx(d)


def test_rank_is_that_of_the_centred_matrix():
    """Roy & Vetterli's definition, on the singular values of the samples themselves."""
    features = torch.randn(40, 6, generator=torch.Generator().manual_seed(1)) * torch.arange(1, 7) + 2
    values = torch.linalg.svdvals(features.double() - features.double().mean(0))
    p = values / values.sum()
    assert rank(features) == pytest.approx(float((-(p * p.log()).sum()).exp()))
    assert rank(100 * features) == pytest.approx(rank(features))


def test_every_axis_but_the_last_is_of_samples_and_half_precision_is_summed_in_double():
    features = torch.randn(8, 5, 3, generator=torch.Generator().manual_seed(2))
    for of in (std, rank):
        assert of(features) == pytest.approx(of(features.flatten(0, 1)))
        assert of(features.bfloat16()) == pytest.approx(of(features.bfloat16().double()))


def test_starts_again_with_each_run_and_without_samples_is_nan():
    for metric in collapse_metrics(lambda output: output).values():
        assert math.isnan(metric.compute())
        metric.update(torch.tensor([[1.0, 9.0], [5.0, 0.0]], requires_grad=True))
        metric.reset()
        metric.update(torch.eye(2))
        other = type(metric)(lambda output: output)
        other.load_state_dict(metric.state_dict())
        assert other.compute() == metric.compute() != 0


def test_features_that_are_not_finite():
    assert math.isnan(rank([[1.0, math.nan], [0.0, 1.0]]))
    assert math.isnan(std([[1.0, math.inf], [0.0, 1.0]], normalise=False))


class Embedding(nn.Module):
    """Two features of an image; a head scaled to 0 gives all images the same ones."""

    def __init__(self, scale):
        super().__init__()
        self.encoder, self.scale = nn.Linear(4, 3), scale
        self.head = nn.Linear(3, 2)

    def forward(self, x):
        return self.scale * (self.head(torch.tanh(self.encoder(x)))) + 1


class Items(list):
    """A data set of cases."""

    data = property(list)


def run(scale, tmp_path, monkeypatch, caplog, watched=True, epochs=4):
    """The warnings of a run of four epochs with such a head."""
    torch.manual_seed(0)
    data = Items({"image": x, "label": x[:2]} for x in torch.randn(12, 4))
    network, device = Embedding(scale), torch.device("cpu")
    optimizer = torch.optim.SGD(network.parameters(), 0.01)
    metrics = collapse_metrics(lambda output: output["pred"], advice="--more_cases 9") if watched else {}
    key = {"val_loss": ValidationLoss(nn.MSELoss())}
    evaluator = SupervisedEvaluator(
        device,
        DataLoader(data, 5),
        network,
        decollate=False,
        key_val_metric=key,
        additional_metrics=metrics,
    )
    monkeypatch.setattr(report, "setting", lambda key, default=None: default)
    handlers = [
        ValidationHandler(1, evaluator),
        report.RunReport(str(tmp_path), optimizer, {"method": "toy"}, evaluator),
    ]
    trainer = SupervisedTrainer(
        device, epochs, DataLoader(data, 4), network, optimizer, nn.MSELoss(), train_handlers=handlers
    )
    caplog.set_level(logging.INFO)
    trainer.run()
    return [line.getMessage() for line in caplog.records if line.levelno >= logging.WARNING]


def test_a_run_that_collapses_warns_once(tmp_path, monkeypatch, caplog):
    found = run(0.0, tmp_path, monkeypatch, caplog)
    assert len(found) == 1
    assert found[0].startswith(
        "epoch 2: the features are the same for every sample (feature_std 0): collapse"
    )
    assert "; expected features that differ; try --more_cases 9; such weights" in found[0]
    table = (tmp_path / "metrics.csv").read_text().splitlines()
    assert len(table) == 5
    assert {"feature_std", "effective_rank"} < set(table[0].split(","))


def test_a_healthy_run_never_warns(tmp_path, monkeypatch, caplog):
    assert run(1.0, tmp_path, monkeypatch, caplog) == []
    assert run(0.0, tmp_path, monkeypatch, caplog, watched=False) == []  # a method without these metrics


def test_views_of_one_case_are_no_samples(caplog):
    """One held-out case with 16 views of the same anchor: equal features are right."""
    state = SimpleNamespace(epoch=0, metrics={"feature_std": 0.0, "effective_rank": 0.0})
    views = SimpleNamespace(data=[0], __len__=lambda: 16)
    trainer = Engine(lambda *_: None)

    @trainer.on(Events.EPOCH_COMPLETED)
    def validate(engine):
        state.epoch = engine.state.epoch

    loader = SimpleNamespace(dataset=views)
    CollapseWarning(SimpleNamespace(state=state, data_loader=loader)).attach(trainer)
    trainer.run([0], max_epochs=3)
    assert not caplog.messages


def test_a_rank_of_few_samples_says_nothing():
    """Two samples always lie on a line, and one has no deviation."""
    assert collapse(0.5, 1.0, samples=2) == collapse(0.0, 0.0, samples=1) == collapse(None, None, 99) == ""
    assert collapse(0.5, math.nan, samples=99) == collapse(math.nan, 3.0, samples=99) == ""
    assert "dimensional" in collapse(0.5, 1.0, samples=8)


def test_epochs_without_a_validation_say_nothing(caplog):
    state = SimpleNamespace(epoch=0, metrics={"feature_std": 0.0})
    loader = SimpleNamespace(dataset=range(9))
    trainer = Engine(lambda *_: None)

    @trainer.on(Events.EPOCH_COMPLETED(every=2))
    def validate(engine):
        state.epoch = engine.state.epoch

    CollapseWarning(SimpleNamespace(state=state, data_loader=loader)).attach(trainer)
    trainer.run([0], max_epochs=8)
    assert [text.split(":")[0] for text in caplog.messages] == ["epoch 4"]


def test_features_that_are_spreading_are_no_collapse(caplog):
    """Features of a network that has just begun are nearly equal; here they spread until epoch 3."""
    state = SimpleNamespace(epoch=0, metrics={})
    trainer = Engine(lambda *_: None)

    @trainer.on(Events.EPOCH_COMPLETED)
    def validate(engine):
        state.epoch = engine.state.epoch
        state.metrics = {"feature_std": (0.001, 0.003, 0.006, 0.006, 0.006)[state.epoch - 1]}

    loader = SimpleNamespace(dataset=range(9))
    CollapseWarning(SimpleNamespace(state=state, data_loader=loader)).attach(trainer)
    trainer.run([0], max_epochs=5)
    assert [text.split(":")[0] for text in caplog.messages] == ["epoch 5"]


def test_features_that_spread_along_one_line_are_a_collapse():
    assert "dimensional" in collapse(0.8, 1.03, samples=99, before=0.5)
    assert "collapse" in collapse(1e-6, 3.0, samples=99, before=0.0)
