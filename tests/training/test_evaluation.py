"""Dice and distances worked out by hand on slabs and boxes; the tables."""

import csv
import logging
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ignite.engine import Engine
from monai.data import MetaTensor
from monai.metrics import (
    compute_average_surface_distance,
    compute_hausdorff_distance,
    compute_surface_dice,
)
from pretext3d.errors import UserError
from pretext3d.training.evaluation import CaseMetrics, case_metrics, check_classes

SHAPE, SPACING = (5, 6, 7), (1.0, 2.0, 3.0)


def class_metrics(
    pred: torch.Tensor, label: torch.Tensor, num_classes: int, spacing: tuple[float, ...]
) -> dict[int, dict[str, float]]:
    """The metrics of each class but the background."""
    return case_metrics(pred, label, {c: [c] for c in range(1, num_classes)}, spacing)


def slab(first: int, last: int, value: int = 1) -> torch.Tensor:
    """Voxels first to last (included) of axis 2, over the whole of the other axes."""
    volume = torch.zeros(1, *SHAPE, dtype=torch.uint8)
    volume[..., first : last + 1] = value
    return volume


def box(value: int, *corners: tuple[int, int]) -> torch.Tensor:
    volume = torch.zeros(1, *SHAPE, dtype=torch.uint8)
    volume[(0, *(slice(a, b) for a, b in corners))] = value
    return volume


def numbers(row: dict[str, float]) -> tuple[float, ...]:
    return row["dice"], row["hd95_mm"], row["surface_distance_mm"]


@pytest.mark.parametrize(
    ("pred", "label", "expected"),
    [
        # the same: every distance is 0
        ((2, 3), (2, 3), (1.0, 0.0, 0.0)),
        # thin slabs one voxel of 3 mm apart: every surface voxel is 3 mm from the other surface
        ((2, 2), (3, 3), (0.0, 3.0, 3.0)),
        # two voxels thick, shifted by one: half of each overlaps; half of the voxels are at 0, half at 3 mm
        ((2, 3), (3, 4), (0.5, 3.0, 1.5)),
        # at both ends of the axis, 6 voxels apart
        ((0, 0), (6, 6), (0.0, 18.0, 18.0)),
    ],
)
def test_slabs_by_hand(pred, label, expected) -> None:
    (row,) = class_metrics(slab(*pred), slab(*label), 2, SPACING).values()
    assert numbers(row) == pytest.approx(expected)


def test_spacing_of_each_axis() -> None:
    """Single voxels, (1, 1, 1) voxels apart: sqrt(1 + 4 + 9) mm."""
    a, b = box(1, (1, 2), (2, 3), (3, 4)), box(1, (2, 3), (3, 4), (4, 5))
    assert numbers(class_metrics(a, b, 2, SPACING)[1]) == pytest.approx((0, math.sqrt(14), math.sqrt(14)))
    assert numbers(class_metrics(a, b, 2, (1.0, 1.0, 1.0))[1]) == pytest.approx(
        (0, math.sqrt(3), math.sqrt(3))
    )


def test_each_class_on_its_own() -> None:
    pred = slab(1, 1, value=1) + slab(4, 5, value=2)
    label = slab(1, 1, value=1) + slab(5, 5, value=2)
    rows = class_metrics(pred, label, 3, SPACING)
    assert list(rows) == [1, 2]
    assert numbers(rows[1]) == (1, 0, 0)
    assert rows[2]["dice"] == pytest.approx(2 / 3)  # 2 * 1 / (2 + 1)
    # from the prediction: half at 3 mm, half at 0; from the label all at 0: (3 + 0 + 0) / 3
    assert rows[2]["surface_distance_mm"] == pytest.approx(1.0)
    assert rows[2]["nsd"] == pytest.approx(2 / 3)  # within 2 mm: one slice of two and one of one


def test_missing_classes() -> None:
    """1 in both, 2 in neither, 3 in the label alone, 4 in the prediction alone."""
    pred = slab(0, 1) + slab(5, 5, value=4)
    label = slab(0, 1) + slab(3, 3, value=3)
    rows = class_metrics(pred, label, 5, SPACING)
    assert numbers(rows[1]) == (1, 0, 0)
    assert np.isnan(numbers(rows[2])).all()
    assert np.isnan(rows[2]["nsd"])
    for c in (3, 4):
        assert (rows[c]["dice"], rows[c]["nsd"]) == (0, 0)
        assert np.isnan(numbers(rows[c])[1:]).all()


edges = st.tuples(st.integers(0, 4), st.integers(1, 3)).map(lambda pair: (pair[0], pair[0] + pair[1]))
corners = st.tuples(edges, edges, edges)


@given(corners, corners)
def test_cropping_changes_no_distance(first, second) -> None:
    """The same as over the whole volume, for boxes inside and at its border."""
    pred, label = box(1, *first), box(1, *second)
    if not (pred.any() and label.any()):
        return
    row = class_metrics(pred, label, 2, SPACING)[1]
    whole = {"y_pred": pred[None], "y": label[None], "include_background": True, "spacing": list(SPACING)}
    assert row["hd95_mm"] == pytest.approx(float(compute_hausdorff_distance(percentile=95, **whole)))
    expected = float(compute_average_surface_distance(symmetric=True, **whole))
    assert row["surface_distance_mm"] == pytest.approx(expected)
    assert row["nsd"] == pytest.approx(float(compute_surface_dice(class_thresholds=[2.0], **whole)))


# ------------------------------------------------------------------------------------------- the handler
# an oblique grid: columns of length 1, 2 and 3 mm that are no world axes
TURN = torch.tensor([[0.6, -0.8, 0.0], [0.8, 0.6, 0.0], [0.0, 0.0, -1.0]], dtype=torch.float64)
AFFINE = torch.eye(4, dtype=torch.float64)
AFFINE[:3, :3] = TURN * torch.tensor(SPACING, dtype=torch.float64)
NAMES = ["background", "liver", "spleen"]

CASES = {
    "a": (slab(1, 2) + slab(4, 4, value=2), slab(2, 3) + slab(4, 4, value=2)),
    "b": (slab(2, 2) + slab(4, 4, value=2), slab(2, 2)),
}


def evaluate(folder, cases, **settings):
    """Run the handler over the cases, one a batch; its evaluator."""

    def infer(engine, batch):
        pairs = [cases[item["id"]] for item in batch]
        return [
            {"pred": MetaTensor(p, affine=torch.eye(4)), "label": MetaTensor(y, affine=AFFINE)}
            for p, y in pairs
        ]

    evaluator = Engine(infer)
    handler = CaseMetrics(str(folder), **{"class_names": NAMES, **settings})
    handler.attach(evaluator)
    evaluator.run([[{"id": name}] for name in cases])
    return evaluator, handler


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_tables(tmp_path, caplog) -> None:
    caplog.set_level(logging.INFO)
    evaluator, _ = evaluate(tmp_path / "new" / "run", CASES)
    folder = tmp_path / "new" / "run"
    assert sorted(path.name for path in folder.iterdir()) == ["evaluation.csv", "evaluation_summary.csv"]
    names = ("case", "class", "dice", "iou", "nsd", "hd95_mm", "surface_distance_mm")
    assert [tuple(row[name] for name in names) for row in table(folder / "evaluation.csv")] == [
        ("a", "liver", "0.5", "0.33333", "0.5", "3", "1.5"),  # Dice d is iou d / (2 - d)
        ("a", "spleen", "1", "1", "1", "0", "0"),
        ("b", "liver", "1", "1", "1", "0", "0"),
        ("b", "spleen", "0", "0", "0", "", ""),
    ]
    liver, spleen, mean = table(folder / "evaluation_summary.csv")
    assert [row["class"] for row in (liver, spleen, mean)] == ["liver", "spleen", "foreground mean"]
    # liver: Dice (0.5 + 1) / 2, distances (3 + 0) / 2 and (1.5 + 0) / 2
    # spleen: Dice (1 + 0) / 2, the distances of one case
    assert (liver["dice"], liver["hd95_mm"], liver["surface_distance_mm"]) == ("0.75", "1.5", "0.75")
    assert (spleen["dice"], spleen["hd95_mm"], spleen["surface_distance_mm"]) == ("0.5", "0", "0")
    assert (liver["dice_std"], spleen["dice_std"]) == ("0.35355", "0.70711")  # of a sample of two
    assert (liver["cases"], liver["no_distance"]) == ("2", "0")
    assert (spleen["cases"], spleen["no_distance"]) == ("2", "1")
    assert (mean["cases"], mean["no_distance"]) == ("2", "1")
    assert (mean["dice"], mean["hd95_mm"], mean["surface_distance_mm"]) == ("0.625", "0.75", "0.375")
    # iou: liver (1/3 + 1) / 2, spleen (1 + 0) / 2
    assert evaluator.state.metrics == pytest.approx(
        {
            "mean_dice": 0.625,
            "mean_iou": (2 / 3 + 1 / 2) / 2,
            "mean_nsd": 0.625,  # liver (0.5 + 1) / 2, spleen (1 + 0) / 2
            "mean_hd95_mm": 0.75,
            "mean_surface_distance_mm": 0.375,
        }
    )
    assert "evaluation of 2 cases" in caplog.text


def test_a_second_run_starts_again(tmp_path) -> None:
    evaluator, handler = evaluate(tmp_path, CASES)
    evaluator.run([[{"id": "b"}]], max_epochs=2)
    assert {row["case"] for row in handler.rows["evaluation"]} == {"b"}


def test_collated_batches_have_ids_too(tmp_path) -> None:
    pred, label = CASES["a"]
    evaluator = Engine(lambda engine, batch: [{"pred": MetaTensor(pred), "label": MetaTensor(label)}])
    CaseMetrics(str(tmp_path), NAMES).attach(evaluator)
    evaluator.run([{"id": ["a"]}])
    assert [row["case"] for row in table(tmp_path / "evaluation.csv")] == ["a", "a"]


@pytest.mark.parametrize(
    "batch",
    [{"id": ["a"], "subject": ["anna"]}, [{"id": "a", "subject": "anna"}]],
    ids=["collated", "listed"],
)
def test_the_subject_of_a_case_is_written_where_it_is_known(tmp_path, batch) -> None:
    pred, label = CASES["a"]
    evaluator = Engine(lambda engine, batch: [{"pred": MetaTensor(pred), "label": MetaTensor(label)}])
    CaseMetrics(str(tmp_path), NAMES).attach(evaluator)
    evaluator.run([batch])
    assert [(row["case"], row["subject"]) for row in table(tmp_path / "evaluation.csv")] == [
        ("a", "anna")
    ] * 2
    evaluator.run([{"id": ["a"]}])
    assert "subject" not in table(tmp_path / "evaluation.csv")[0]


def test_other_grid_is_refused(tmp_path) -> None:
    pred, label = CASES["a"]
    with pytest.raises(UserError, match=r"case a: prediction of shape \[1, 5, 6, 6\], label \[1, 5, 6, 7\]"):
        evaluate(tmp_path, {"a": (pred[..., :6], label)})


def test_planes_by_hand() -> None:
    """Pixels of 2 x 3 mm; two strips of one column, 3 mm apart, and a pixel (1, 2) pixels from another."""
    strips = [torch.zeros(1, 5, 6, dtype=torch.uint8) for _ in range(2)]
    strips[0][..., 2] = strips[1][..., 3] = 1
    (row,) = class_metrics(*strips, 2, (2.0, 3.0)).values()
    assert numbers(row) == pytest.approx((0.0, 3.0, 3.0))
    pixels = [torch.zeros(1, 5, 6, dtype=torch.uint8) for _ in range(2)]
    pixels[0][0, 1, 1] = pixels[1][0, 2, 3] = 1  # sqrt((1 * 2)^2 + (2 * 3)^2) mm
    (row,) = class_metrics(*pixels, 2, (2.0, 3.0)).values()
    assert numbers(row) == pytest.approx((0.0, math.sqrt(40), math.sqrt(40)))
    both = [torch.zeros(1, 5, 6, dtype=torch.uint8) for _ in range(2)]
    both[0][0, 1:3, 1:3], both[1][0, 1:3, 2:4] = 1, 1  # 4 pixels each, 2 in both: Dice 2 * 2 / 8, IoU 2 / 6
    (row,) = class_metrics(*both, 2, (2.0, 3.0)).values()
    assert (row["dice"], row["iou"]) == pytest.approx((0.5, 1 / 3))


def test_the_handler_measures_planes_by_their_own_spacing(tmp_path) -> None:
    strips = [torch.zeros(1, 5, 6, dtype=torch.uint8) for _ in range(2)]
    strips[0][..., 2] = strips[1][..., 3] = 1
    affine = torch.diag(
        torch.tensor([2.0, 3.0, 7.0, 1.0])
    )  # a slice: its normal's spacing is not the plane's
    pred, label = (MetaTensor(strip, affine=affine) for strip in strips)
    engine = Engine(lambda *_: [{"pred": pred, "label": label}])
    CaseMetrics(str(tmp_path), ["background", "strip"]).attach(engine)
    engine.run([[{"id": "v/slice001"}]], max_epochs=1)
    assert engine.state.metrics["mean_hd95_mm"] == pytest.approx(3.0)


# ------------------------------------------------------------------------------- slices of volumes
GRID = (4, 5, 6)  # x, y, z, voxels of 1 x 2 x 3 mm


def stored(volume: torch.Tensor) -> torch.Tensor:
    """A volume (x, y, z) as its file has it: z, then y downwards, then x."""
    return volume.permute(2, 1, 0).flip(1)


def sliced(pred, label, axis=2, every=1, name="v", left_out=(), **more):
    """The cases and outputs of a volume's slices, with the meta data that `load_plane` gives."""
    affine = torch.zeros(4, 4, dtype=torch.float64)
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = 3, -2, 1, 1
    meta = {"volume_affine": affine, "volume_shape": torch.tensor(stored(pred).shape)}
    order = [*(w for w in range(3) if w != axis), axis]
    spacing = torch.tensor([*SPACING, 1.0], dtype=torch.float64)[[*order, 3]]
    indices = [i for i in range(0, GRID[axis], every) if i not in left_out]
    common = {"volume": name, "subject": name, "slice_axis": axis, "slice_every": every}
    common |= {"slice_count": len(indices), **more}
    items = []
    for i in indices:
        planes = (
            MetaTensor(v.select(axis, i)[None], affine=spacing.diag(), meta=dict(meta)) for v in (pred, label)
        )
        pair = dict(zip(("pred", "label"), planes, strict=True))
        items.append(({**common, "id": f"{name}/slice{i:03d}", "slice": i}, pair))
    return items


def measure(folder, items, names=("background", "organ")):
    """Run the handler over (case, output), one per batch; the evaluator."""
    outputs = {case["id"]: output for case, output in items}
    evaluator = Engine(lambda engine, batch: [outputs[case["id"]] for case in batch])
    CaseMetrics(str(folder), list(names)).attach(evaluator)
    evaluator.run([[case] for case, _ in items], max_epochs=1)
    return evaluator


def pairs(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randint(0, 2, GRID, generator=generator, dtype=torch.uint8) for _ in range(2))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_of_a_volume_are_measured_as_the_volume(tmp_path, axis) -> None:
    """In any order, and mixed with those of another volume: the rows are those of the volumes in 3D."""
    first, second = tuple(pairs(1)), tuple(pairs(2))
    items = sliced(*first, axis, name="a") + sliced(*second, axis, name="b")
    evaluator = measure(tmp_path, items[::2] + items[1::2])
    rows = table(tmp_path / "evaluation.csv")
    assert {(row["case"], row["subject"]) for row in rows} == {("a", "a"), ("b", "b")}
    assert len(rows) == 2
    for row, (pred, label) in zip(sorted(rows, key=lambda r: r["case"]), (first, second), strict=True):
        expected = class_metrics(pred[None], label[None], 2, SPACING)[1]
        assert {key: float(row[key]) for key in expected} == pytest.approx(expected, rel=1e-4)
    assert evaluator.state.metrics["mean_dice"] == pytest.approx(
        sum(float(r["dice"]) for r in rows) / 2, 1e-4
    )


def test_every_other_slice_is_measured_on_a_grid_of_these_slices(tmp_path) -> None:
    """Slices 0, 2, 4 of z: voxels (1, 1, 0) and (1, 1, 4) are two slices of 2 * 3 mm apart, Dice 0."""
    pred, label = torch.zeros(GRID, dtype=torch.uint8), torch.zeros(GRID, dtype=torch.uint8)
    pred[1, 1, 0] = label[1, 1, 4] = 1
    label[:, :, 1] = 1  # of a slice that is not taken
    measure(tmp_path, sliced(pred, label, every=2))
    (row,) = table(tmp_path / "evaluation.csv")
    assert (row["dice"], row["hd95_mm"]) == ("0", "12")
    # slice 2 is air: left out, and as far away as before
    measure(tmp_path, sliced(pred, label, every=2, left_out=[2]))
    assert table(tmp_path / "evaluation.csv") == [row]


def test_constant_slices_count_as_inference_leaves_them(tmp_path) -> None:
    """Two voxels, one in a constant slice: the network's own guess there is not used."""
    pred, label = torch.zeros(GRID, dtype=torch.uint8), torch.zeros(GRID, dtype=torch.uint8)
    label[1, 1, 2] = pred[1, 1, 2] = label[1, 1, 5] = pred[1, 1, 5] = 1
    items = sliced(pred, label)
    items[5][0]["constant"] = True
    measure(tmp_path, items)
    assert table(tmp_path / "evaluation.csv")[0]["dice"] == "0.66667"  # 2 * 1 / (1 + 2)


def test_a_volume_without_all_its_slices_is_an_error(tmp_path) -> None:
    items = sliced(*pairs())[:-1]
    with pytest.raises(
        UserError, match="found 5 slices of v, and 1 such volumes in all; expected all slices"
    ):
        measure(tmp_path, items)


def test_means_count_subjects(tmp_path) -> None:
    """Dice 1, 0.5, 0.5 of anna and 0 of bob, without a distance: (2 / 3 + 0) / 2, not 2 / 4.

    The half: 1 voxel of 3 is found, 2 * 1 / (1 + 3).
    """
    empty = torch.zeros(1, *SHAPE, dtype=torch.uint8)
    three, one = box(1, (0, 3), (0, 1), (0, 1)), box(1, (0, 1), (0, 1), (0, 1))
    cases = {"a1": (three, three), "a2": (one, three), "a3": (one, three), "b1": (empty, one)}
    items = [
        (
            {"id": name, "subject": {"a": "anna", "b": "bob"}[name[0]]},
            {"pred": MetaTensor(p), "label": MetaTensor(y)},
        )
        for name, (p, y) in cases.items()
    ]
    evaluator = measure(tmp_path, items)
    organ, mean = table(tmp_path / "evaluation_summary.csv")
    for row in (organ, mean):
        assert (row["dice"], row["cases"], row["subjects"]) == ("0.33333", "4", "2")
        assert row["dice_std"] == "0.4714"  # |2 / 3 - 0| / sqrt(2)
    assert organ["no_distance"] == "1"
    assert evaluator.state.metrics["mean_dice"] == pytest.approx(1 / 3)


def test_subjects_of_the_same_name_in_two_data_sets_are_two(tmp_path) -> None:
    pred, label = CASES["a"]
    output = {"pred": MetaTensor(pred), "label": MetaTensor(label)}
    named = {"subject": "p01"}
    items = [
        ({"id": "1", "source_name": "heart", **named}, output),
        ({"id": "2", "source_name": "heads", **named}, output),
        ({"id": "3", "source_name": "heads", "subject_scope": "", **named}, output),
    ]
    measure(tmp_path, items, NAMES)
    found = {row["case"]: row["subject"] for row in table(tmp_path / "evaluation.csv")}
    assert found == {"1": "heart/p01", "2": "heads/p01", "3": "p01"}


# ------------------------------------------------------------------------------------------- check_classes
def test_other_classes_than_those_of_the_training_are_refused() -> None:
    record = {"method": "classification", "num_classes": 2, "class_names": ["b", "c"]}
    check_classes({"num_classes": 2, "class_names": ["b", "c"]}, record)
    with pytest.raises(UserError, match="found the classes x, y, expected those of the training: b, c"):
        check_classes({"num_classes": 2, "class_names": ["x", "y"]}, record)
    record = {"method": "segmentation", "num_classes": 2, "class_names": ["background", "liver"]}
    check_classes({"num_classes": 1, "class_names": ["background"]}, record)
    three = record | {"num_classes": 3, "class_names": ["background", "liver", "spleen"]}
    with pytest.raises(
        UserError, match="labels: found the classes background, spleen, liver, expected them in"
    ):
        check_classes({"num_classes": 3, "class_names": ["background", "spleen", "liver"]}, three)
    with pytest.raises(UserError, match="labels: found 3 classes, background included, expected at most 2"):
        check_classes({"num_classes": 3, "class_names": ["background", "a", "b"]}, record)
