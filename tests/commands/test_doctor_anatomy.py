"""The baselines without anatomy, on features made by hand."""

from types import SimpleNamespace
from typing import Any

import torch
from monai.data import MetaTensor
from pretext3d.commands.doctor.anatomy import MEASURES, Sample, describe
from pretext3d.commands.doctor.anatomy import samples as samples_of


def measured(bundle: str, samples: list[Sample], parser: Any = None) -> str:
    return MEASURES[bundle].of(samples, samples, parser).text


def test_features_by_hand() -> None:
    """2 x 2 pixels of 2 channels, in halves: air where channel 0 is below 1, then the pixels."""
    image = torch.tensor([[[[0.0, 2.0], [3.0, 0.5]], [[5.0, 6.0], [7.0, 8.0]]]])
    assert describe(image, 1.0, 2, air_only=True).tolist() == [[1, 0, 0, 1]]
    assert describe(image, 1.0, 2, air_only=False).tolist() == [[1, 0, 0, 1, 0, 2, 3, 0.5, 5, 6, 7, 8]]
    assert describe(image, 1.0, 1, air_only=False).tolist() == [[0.5, 1.375, 6.5]]


def test_classes_that_a_feature_gives_away() -> None:
    """The location is the query's feature, whatever the centre's is; the rotation that of the version."""
    features = torch.tensor([[7.0], [0.0], [1.0], [2.0]])
    patches = [Sample(0, features + 0.01 * n, {"location": torch.tensor([0, 1, 2])}) for n in range(4)]
    assert "100.0 % of 12 answers out of 3" in measured("relative_patch_location", patches)
    images = [Sample(0, features[1:], {"rotation": torch.tensor([0, 1, 2])})] * 4
    assert "100.0 % of 12 answers out of 3" in measured("rotation", images)


def test_classes_that_no_feature_gives_away() -> None:
    """Two puzzles of each of four grids: patches all alike, or with their cell as their feature."""
    targets = {"moves": torch.tensor([[0, 1], [1, 0]]), "permutation": torch.tensor([0, 1])}
    alike = [Sample(0, torch.zeros(2, 1), targets) for _ in range(4)]
    assert "50.0 % of 8 answers out of 2" in measured("jigsaw", alike)
    cells = [Sample(0, torch.tensor([[0.0], [1.0 + n]]), targets) for n in range(4)]
    assert "100.0 % of 8 answers out of 2" in measured("jigsaw", cells)


def test_half_turns_are_read_for_the_cell_that_a_cube_comes_from() -> None:
    """A feature of 1 means rotated in cell 0, upright in cell 1."""
    samples = []
    for order in ([0, 1], [1, 0]):
        for feature in (0.0, 1.0):
            turned = torch.tensor([[(feature == 1) == (cell == 0)] for cell in order])
            targets = {"order": torch.tensor(order), "turned": turned}
            samples.append(Sample(0, torch.full((2, 1), feature), targets))
    assert "100.0 % of 8 yes-or-no questions" in measured("rubiks_cube", samples)


def test_nearest_anchors_by_hand() -> None:
    """Anchors 0, 10, 20; views 1, 9 are nearest to their own, view 12 of anchor 20 to that of 10.

    With a second draw of each case, of which the third one's anchor is at 13, view 12 is right, too, since
    any anchor of its case is: five of six; view 6 of the second case, at 10 and 30, is nearest to 3.
    """
    first = ([[0.0], [1.0]], [[10.0], [9.0]], [[20.0], [12.0]])
    second = ([[3.0], [2.0]], [[30.0], [6.0]], [[13.0], [21.0]])
    samples = [
        Sample(draw, torch.tensor(row), {"case_code": torch.tensor(case)})
        for draw, rows in enumerate((first, second))
        for case, row in enumerate(rows)
    ]
    assert "66.7 % of 3 views; chance 33.3 %" in measured("exemplar", samples[:3])
    assert "83.3 % of 6 views; chance 33.3 %" in measured("exemplar", samples)


def test_the_views_of_exemplar_are_those_of_a_validation() -> None:
    """Two cases with three draws each in one pass; without `whole`, enough draws for 400 samples."""
    volume = {"image": MetaTensor(torch.arange(4.0).reshape(1, 2, 2))}

    class Cases:
        num_cases, crops_per_volume = 2, 3

        def volume(self, case: int) -> dict[str, Any]:
            return volume

        def __getitem__(self, key: int) -> dict[str, Any]:
            return {"image": torch.zeros(2, 1, 2, 2), "case_code": torch.tensor(key % 2)}

    def halves(images: torch.Tensor, limit: float) -> torch.Tensor:
        return describe(images, limit, 2, air_only=False)

    parser = SimpleNamespace(get_parsed_content={"validate#dataset": Cases()}.get)
    found = samples_of(parser, "validate", halves, whole=True)
    assert [(one.draw, int(one.targets["case_code"])) for one in found] == [
        (draw, case) for draw in range(3) for case in range(2)
    ]
    assert len(samples_of(parser, "validate", halves)) == 400


def column(context: str) -> Any:
    """The keys of a grid of three rows of one patch, stored from the bottom up."""
    grid = SimpleNamespace(
        shape=(3, 1), steps=2, order=torch.tensor([2, 1, 0]), targets=torch.tensor([1, 2, 2]),
        step_of=torch.tensor([1, 1, 2]),
    )  # fmt: skip
    keys = {"patches": grid, "context": context, "context_radius": 0}
    return SimpleNamespace(get_parsed_content=keys.get)


def test_a_location_is_predicted_from_all_that_the_context_sees() -> None:
    """Rows a, 0 and 2 a: the last one follows from the first, which the GRU's pyramid has and a row does not.

    From the second row alone the mean, 4, is predicted, and of 3, 0 and 6 the nearest to it is the first.
    """
    samples = [Sample(0, torch.tensor([[2 * a], [0.0], [a]]), {}) for a in (1.0, 2.0, 3.0)]
    assert "100.0 % of 9 predictions" in measured("cpc", samples, column("gru"))
    assert "step 1 83.3 %, step 2 100.0 %" in measured("cpc", samples, column("masked_conv"))


def test_nearest_locations_by_hand() -> None:
    """Three rows of one patch, 0, 2 and 4 from the top, in a grid stored from the bottom up.

    With a last row of 2 instead, 2 is predicted below 2, which rows 1 and 2 have; the first of them is taken.
    Two rows ahead of the first one 2 is predicted, too, and row 1 is wrong.
    """
    parser = column("gru")
    for last, expected in (
        (4.0, "100.0 % of 9 predictions (step 1 100.0 %, step 2 100.0 %)"),
        (2.0, "33.3 % of 9 predictions (step 1 50.0 %, step 2 0.0 %)"),
    ):
        samples = [Sample(0, torch.tensor([[last], [2.0], [0.0]]), {}) for _ in range(3)]
        assert measured("cpc", samples, parser) == f"the nearest location: {expected}; chance 33.3 %"
