import math

import pytest
import torch
from pretext3d.methods.exemplar import retrieval
from pretext3d.methods.exemplar.pretext import validation_metrics
from pretext3d.methods.exemplar.retrieval import own_is_nearest

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


@pytest.mark.parametrize("offset", [0.0, 100000.0])
def test_nearest_anchors_equal_plain_distances(offset):
    """Embeddings with whole coordinates up to 40, also far from the origin, where a square is 10^10.

    There float32 numbers are 1024 apart: without the mean taken off, most anchors would be equally near.
    """
    generator = torch.Generator().manual_seed(0)
    cases = torch.arange(1500) % 300
    anchors = torch.randint(0, 40, (1500, 3), generator=generator).float()
    views = anchors + torch.randint(-3, 4, (1500, 3), generator=generator)
    distances = (views[:, None].double() - anchors.double()).norm(dim=2)
    near = distances == distances.amin(1, keepdim=True)
    own = cases[:, None] == cases
    surely, possibly = (near & ~own).sum(1) == 0, (near & own).any(1)  # equal distances: any may be taken
    found = own_is_nearest(anchors + offset, views + offset, cases)
    assert surely.float().mean() <= found <= possibly.float().mean()
    assert 0.1 < surely.float().mean() < 0.9


def test_the_first_samples_of_all_processes_are_compared(monkeypatch):
    """Batches of two, of which the first three samples count, from one process or from two in turn.

    Views at 1, 5, 9; anchors of cases 0, 1, 0 at 0, 6, 2: views of cases 0 and 1 find their own, the third,
    of case 0, finds that of case 1. Chance: (2^2 + 1) / 9. The fourth sample and the last batch are beyond.
    """
    monkeypatch.setattr(retrieval, "LIMIT", 3)
    batches = [
        (pairs([[0], [1]], [[6], [5]]), [0, 1]),
        (pairs([[2], [9]], [[9], [9]]), [0, 5]),
        (pairs([[9], [9]], [[9], [9]]), [5, 5]),
    ]

    def measured(shares):
        found = {}
        for name in ("retrieval_accuracy", "retrieval_chance"):
            parts = []
            for share in shares:
                metric = validation_metrics()[name]
                for z, cases in share:
                    metric.update((z, {"case_code": torch.tensor(cases)}))
                parts.append(metric.batches)
            monkeypatch.setattr(retrieval, "gathered", lambda _, parts=parts: in_turn(parts))
            found[name] = metric.compute()
        return found

    def in_turn(parts):
        longest = max(map(len, parts))
        return [part[n] for n in range(longest) for part in parts if n < len(part)]

    expected = {"retrieval_accuracy": pytest.approx(2 / 3), "retrieval_chance": pytest.approx(5 / 9)}
    assert measured([batches]) == expected
    assert measured([batches[::2], batches[1::2]]) == expected


def test_a_long_validation_keeps_no_more_than_it_compares(monkeypatch):
    """Two batches of four suffice for five samples; chance needs no embeddings."""
    monkeypatch.setattr(retrieval, "LIMIT", 5)
    metrics = validation_metrics()
    for name, numbers in (("retrieval_accuracy", 8 * (2 * 16 + 1)), ("retrieval_chance", 8)):
        for _ in range(9):
            metrics[name].update((torch.zeros(4, 2, 16), {"case_code": torch.arange(4)}))
        assert sum(x.numel() for batch in metrics[name].batches for x in batch) == numbers
