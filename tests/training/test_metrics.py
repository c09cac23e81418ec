import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ignite.engine import Engine
from pretext3d.training.metrics import SampleMean

numbers = st.lists(st.floats(-1000, 1000, width=32), min_size=1, max_size=20)


def mean_of(values: torch.Tensor, batch_size: int) -> float:
    """The metric of an evaluator that sees the values in batches; the last one may be smaller."""
    evaluator = Engine(lambda engine, batch: {"error": batch})
    SampleMean(lambda output: output["error"]).attach(evaluator, "mean_error")
    return evaluator.run(values.split(batch_size)).metrics["mean_error"]


def test_smaller_last_batch_by_hand() -> None:
    # batches (1, 2, 3) and (10): (1 + 2 + 3 + 10) / 4 = 4; the batches' means have the mean (2 + 10) / 2 = 6
    assert mean_of(torch.tensor([1.0, 2.0, 3.0, 10.0]), 3) == 4


@given(numbers, st.integers(1, 7))
def test_same_as_numpy_for_any_batch_size(values, batch_size) -> None:
    tensor = torch.tensor(values, dtype=torch.float32)
    # summed in float64: only the order of the additions differs
    expected = np.mean(tensor.double().numpy())
    assert mean_of(tensor, batch_size) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_starts_again_with_each_run_and_is_nan_without_samples() -> None:
    metric = SampleMean(lambda output: output)
    assert math.isnan(metric.compute())
    metric.update(torch.tensor([4.0, 6.0], requires_grad=True))
    assert metric.compute() == 5
    metric.reset()
    metric.update(torch.tensor([1.0]))
    assert metric.compute() == 1


def test_goes_on_from_a_saved_state() -> None:
    first, second = SampleMean(lambda output: output), SampleMean(lambda output: output)
    first.update(torch.tensor([1.0, 2.0]))
    second.load_state_dict(first.state_dict())
    second.update(torch.tensor([6.0]))
    assert second.compute() == 3


def test_whole_numbers_and_half_precision() -> None:
    """Sums that the samples' own type cannot hold: 100 + 100 in int8, 60000 + 60000 in float16."""
    for values in (torch.tensor([100, 100], dtype=torch.int8), torch.tensor([60000.0, 60000.0]).half()):
        metric = SampleMean(lambda output: output)
        metric.update(values)
        assert metric.compute() == pytest.approx(float(values[0]))
