import math

import torch
from pretext3d.methods.exemplar.pretext import validation_metrics

from tests.methods.test_exemplar import A, B, pairs, target


def test_validation_metrics_by_hand():
    """Two batches. Views at 0.9, 5.2, 5.1 and 2.9; anchors of cases 0 to 3 at 0, 2, 5, 9.

    The nearest anchors are those of cases 0, 2, 2 and 1: two of four are their own.
    """
    metrics = validation_metrics()
    batches = pairs([[0], [0.9]], [[2], [5.2]]), pairs([[5], [5.1]], [[9], [2.9]])
    for n, z in enumerate(batches):
        label = {"subject_code": torch.tensor([A, A]), "case_code": torch.tensor([2 * n, 2 * n + 1])}
        for name in ("retrieval_accuracy", "retrieval_chance"):
            metric = metrics[name]
            metric.update(metric._output_transform({"pred": z, "label": label}))
    assert metrics["retrieval_accuracy"].compute() == 0.5
    assert metrics["retrieval_chance"].compute() == 0.25
    assert {"feature_std", "effective_rank"} <= set(metrics)


def test_retrieval_by_direction():
    """By L2 distance the view (4, 0.1) is nearest to the anchor (4, 2), by cosine to its own, (1, 0).

    The other one, (8, 4.5), is nearest to its own, (4, 2), by both.
    """
    z = pairs([[1, 0], [4, 0.1]], [[4, 2], [8, 4.5]])
    found = {}
    for objective in ("triplet", "contrastive"):
        metric = validation_metrics(objective)["retrieval_accuracy"]
        metric.update((z, target(A, B)))
        found[objective] = metric.compute()
        metric.reset()
        assert math.isnan(metric.compute())
    assert found == {"triplet": 0.5, "contrastive": 1.0}


def test_several_samples_of_a_case_share_their_anchors():
    """Three samples of case 0 and one of case 1, all anchors where they are: chance (9 + 1) / 16."""
    z = pairs([[0], [0.1]], [[0], [0.2]], [[5], [4.9]], [[0], [0.3]])
    label = {"case_code": torch.tensor([0, 0, 1, 0])}
    metrics = validation_metrics()
    found = {}
    for name in ("retrieval_accuracy", "retrieval_chance"):
        metrics[name].update((z, label))
        found[name] = metrics[name].compute()
    assert found == {"retrieval_accuracy": 1.0, "retrieval_chance": 10 / 16}
