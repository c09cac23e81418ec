import csv
import math

import numpy as np
import pandas as pd
import pytest
import torch
from ignite.engine import Engine
from pretext3d.errors import UserError
from pretext3d.training.classification import ClassMetrics, class_metrics, remarks


def test_metrics_by_hand():
    """Classes 0, 0, 1, 1 with p(1) = .1, .6, .4, .9.

    Predicted 0, 1, 0, 1: half is right, in each class too. Of the four pairs of a 1 and a 0 three are in
    order: .4 > .1, .9 > .1, .9 > .6; the area under the curve is 3/4.
    """
    second = np.array([0.1, 0.6, 0.4, 0.9])
    got = class_metrics(np.stack([1 - second, second], axis=1), np.array([0, 0, 1, 1]))
    assert got == pytest.approx({"accuracy": 0.5, "balanced_accuracy": 0.5, "auc": 0.75})


def test_area_under_the_curve_is_the_mean_of_three():
    """Classes 0, 0, 1, 2 against the rest, pairs in order.

    Class 0: .6 and .5 are above .1 and .2, 1. Class 1: .3 is above .2 and .1, not .7, 2/3. Class 2: .1 is
    below .2, .4 and .6, 0. The mean is 5/9.
    """
    rows = np.array([[0.6, 0.2, 0.2], [0.5, 0.1, 0.4], [0.1, 0.3, 0.6], [0.2, 0.7, 0.1]])
    assert class_metrics(rows, np.array([0, 0, 1, 2]))["auc"] == pytest.approx(5 / 9)


def test_balanced_accuracy_weighs_classes():
    """Three of class 0, all right; one of class 1, wrong: 3/4 and (1 + 0) / 2; class 2 does not occur."""
    got = class_metrics(np.eye(3)[[0, 0, 0, 0]], np.array([0, 0, 0, 1]))
    assert (got["accuracy"], got["balanced_accuracy"], got["auc"]) == pytest.approx((0.75, 0.5, 0.5))


def test_one_class_alone_has_no_curve():
    got = class_metrics(np.array([[0.9, 0.1]]), np.array([0]))
    assert got["accuracy"] == 1.0
    assert math.isnan(got["auc"])


def test_quadratic_weighted_kappa_of_made_up_grades():
    """Grades 0, 1, 2, 2 found as 0, 1, 2, 1, and grades 0, 0, 2 found as 2, 0, 0.

    First: one pair is one grade apart, 1 of 4 cases. Margins (1, 1, 2) and (1, 2, 1): expected
    (2*1 + 1*4 + 1*1 + 1*1 + 2*4 + 4*1) / 4 = 20 / 4 = 5; kappa 1 - 1 / 5. Second: two pairs are two grades
    apart, 2 * 4 = 8; margins (2, 0, 1) twice: (2*1*4 + 1*2*4) / 3 = 16 / 3; kappa 1 - 8 * 3 / 16 = -0.5,
    without a case of grade 1.
    """
    got = class_metrics(np.eye(3)[[0, 1, 2, 1]], np.array([0, 1, 2, 2]), ordered=True)
    assert got["quadratic_weighted_kappa"] == pytest.approx(0.8, abs=1e-6)
    got = class_metrics(np.eye(3)[[2, 0, 0]], np.array([0, 0, 2]), ordered=True)
    assert got["quadratic_weighted_kappa"] == pytest.approx(-0.5, abs=1e-6)
    assert got["balanced_accuracy"] == pytest.approx(0.25)  # of grades 0 and 2


def test_a_constant_prediction_has_no_kappa_and_half_the_balanced_accuracy():
    """Nine of grade 0 and one of grade 1, all found as 0: 0.9 right, (1 + 0) / 2, and kappa 1 - 1 / 1 = 0."""
    labels = np.array([0] * 9 + [1])
    got = class_metrics(np.tile([0.8, 0.1, 0.1], (10, 1)), labels, ordered=True)
    assert [got[n] for n in ("accuracy", "balanced_accuracy", "quadratic_weighted_kappa")] == pytest.approx(
        [0.9, 0.5, 0.0], abs=1e-6
    )


def test_what_is_missing_is_said(tmp_path, caplog):
    """Two validations of two cases of class x: one warning of what is not defined, one of what is a part."""

    def step(engine, batch):
        return [{"pred": torch.tensor([1.0, 0.0, 0.0]), "label": torch.tensor(0)} for _ in batch]

    evaluator = Engine(step)
    ClassMetrics(str(tmp_path), ["x", "y", "z"], ordered=True).attach(evaluator)
    for _ in range(2):
        evaluator.run([[{"id": "a"}, {"id": "b"}]])
    rows = pd.read_csv(tmp_path / "classification_summary.csv").set_index("metric")
    assert rows["value"].to_dict() == pytest.approx(
        {"accuracy": 1, "balanced_accuracy": 1, "auc": math.nan, "quadratic_weighted_kappa": math.nan},
        nan_ok=True,
    )
    assert rows["remark"].fillna("").to_dict() == {
        "accuracy": "",
        "balanced_accuracy": "mean over 1 of 3 classes: no case is of class y, z",
        "auc": "not defined: all cases are of class x",
        "quadratic_weighted_kappa": "not defined: all cases are of class x",
    }
    assert [record.message for record in caplog.records] == [
        "balanced_accuracy: mean over 1 of 3 classes: no case is of class y, z",
        "auc, quadratic_weighted_kappa: not defined: all cases are of class x",
    ]
    assert remarks({"auc": 0.5}, np.array([0, 1]), ["x", "y"]) == {"auc": ""}


def test_the_key_metric_is_one_of_its_own(tmp_path):
    metrics = ClassMetrics(str(tmp_path), ["x", "y"])
    metrics.attach(Engine(lambda *_: None), "balanced_accuracy")
    with pytest.raises(UserError, match="key_metric: found 'quadratic_weighted_kappa', expected one of accu"):
        metrics.attach(Engine(lambda *_: None), "quadratic_weighted_kappa")


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_tables(tmp_path):
    logits = {"a": [0.0, math.log(3), -50.0], "b": [math.log(4), 0.0, -50.0]}
    labels = {"a": 1, "b": 2}

    def step(engine, batch):
        return [
            {"pred": torch.tensor(logits[c["id"]]), "label": torch.tensor(labels[c["id"]])} for c in batch
        ]

    evaluator = Engine(step)
    ClassMetrics(str(tmp_path / "run"), ["x", "y", "z"]).attach(evaluator)
    evaluator.run([[{"id": "a"}], [{"id": "b"}]])
    evaluator.run([[{"id": "a"}], [{"id": "b"}]])  # a second validation starts again
    rows = table(tmp_path / "run" / "classification.csv")
    assert [(r["case"], r["class"], r["predicted"]) for r in rows] == [("a", "y", "y"), ("b", "z", "x")]
    assert [float(rows[0][f"p_{n}"]) for n in "xyz"] == pytest.approx([0.25, 0.75, 0], abs=1e-4)
    matrix = table(tmp_path / "run" / "confusion_matrix.csv")
    assert [[row[n] for n in "xyz"] for row in matrix] == [["0"] * 3, ["0", "1", "0"], ["1", "0", "0"]]
    assert evaluator.state.metrics["accuracy"] == 0.5


def test_slices_of_a_volume_are_one_case(tmp_path):
    """p(1) of v's slices: 0.25, 0.25, 0.8 in two of three batches, mean 1.3 / 3; of the picture b 0.75."""
    chances = {"v/slice000": 0.25, "b": 0.75, "v/slice001": 0.25, "v/slice004": 0.8}
    cases = [{"id": name, **({"volume": "v", "subject": "anna"} if "/" in name else {})} for name in chances]

    def step(engine, batch):
        p = [chances[case["id"]] for case in batch]
        label = [0 if "/" in case["id"] else 1 for case in batch]
        return [
            {"pred": torch.tensor([math.log(1 - q), math.log(q)]), "label": y}
            for q, y in zip(p, label, strict=True)
        ]

    evaluator = Engine(step)
    ClassMetrics(str(tmp_path), ["x", "y"], cases).attach(evaluator)
    evaluator.run([cases[:2], cases[2:]], max_epochs=1)
    rows = table(tmp_path / "classification.csv")
    assert [(r["case"], r["class"], r["predicted"]) for r in rows] == [("v", "x", "x"), ("b", "y", "y")]
    assert [row["subject"] for row in rows] == ["anna", ""]
    assert [float(r["p_y"]) for r in rows] == pytest.approx([1.3 / 3, 0.75], abs=1e-4)
    assert evaluator.state.metrics["accuracy"] == 1.0  # of 4 slices 3 would be right
