"""Tables of regions: of a network of regions, and of one of classes."""

import pytest
from pretext3d.errors import UserError
from pretext3d.training.evaluation import CaseMetrics

from tests.training.test_evaluation import CASES, NAMES, evaluate, table


def test_regions_of_a_network_of_classes_have_tables_of_their_own(tmp_path) -> None:
    """Of case a the label is 1 in slices 2 and 3 and 2 in slice 4, the prediction 1 in slices 1 and 2."""
    both = {"regions": {"organs": [1, 7], "spleen only": [7]}, "labels": {"values": [0, 1, 7]}}
    evaluator, _ = evaluate(tmp_path, {"a": CASES["a"]}, **both)
    rows = table(tmp_path / "evaluation.csv")
    assert [(row["class"], row["label_values"]) for row in rows] == [("liver", "1"), ("spleen", "7")]
    organs, spleen = table(tmp_path / "evaluation_regions.csv")
    # slices 1, 2, 4 and 2, 3, 4 of 30 voxels: Dice 2 * 2 / 6. Slice 1 is 3 mm from the label, and so
    # is the rim of slice 3, 18 voxels, from the prediction's: 3 * (30 + 18) / (90 + 78)
    assert (organs["class"], organs["label_values"], organs["dice"]) == ("organs", "1 7", "0.66667")
    assert (organs["hd95_mm"], organs["surface_distance_mm"]) == ("3", "0.85714")
    assert (spleen["class"], spleen["dice"]) == ("spleen only", "1")
    last = table(tmp_path / "evaluation_regions_summary.csv")[-1]
    assert (last["class"], last["dice"]) == ("region mean", "0.83333")
    assert evaluator.state.metrics["mean_dice"] == pytest.approx(0.75)  # of the classes


def test_a_network_of_regions_is_measured_on_its_regions(tmp_path) -> None:
    labels = {"values": [0, 1, 7], "regions": {"organs": [1, 7], "spleen": [7]}, "order": [1, 7]}
    settings = {"labels": labels, "class_names": ["organs", "spleen"]}
    # its own regions, as evaluate.yaml passes them, are not written a second time
    evaluate(tmp_path, {"a": CASES["a"]}, regions=labels["regions"], **settings)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evaluation.csv", "evaluation_summary.csv"]
    rows = table(tmp_path / "evaluation.csv")
    assert [(row["class"], row["dice"]) for row in rows] == [("organs", "0.66667"), ("spleen", "1")]
    assert table(tmp_path / "evaluation_summary.csv")[-1]["class"] == "region mean"


def test_wrong_regions_are_refused(tmp_path) -> None:
    with pytest.raises(
        UserError, match=r"regions: all is \[1, 2, 3\], expected some of the label values 1, 2"
    ):
        CaseMetrics(str(tmp_path), NAMES, regions={"all": [1, 2, 3]})
    merged = {"values": [0, 1], "merged": True}
    with pytest.raises(UserError, match="regions: found all, expected none: the network has one class"):
        CaseMetrics(str(tmp_path), ["background", "foreground"], merged, {"all": [1]})
