"""What a probe measures: nearest neighbours of classes, or a linear Dice of labels; see `probe.Probe`."""

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from pretext3d.annotations import Float, Int, Tensor
from pretext3d.data.classes import classified_cases
from pretext3d.data.dataset import CachedVolumes
from pretext3d.data.subjects import person_of, volume_of
from pretext3d.data.tables import read_column
from pretext3d.errors import one_line
from pretext3d.training.probe_inputs import FrozenEncoder, cell_fractions, evenly, label_on_grid
from pretext3d.training.probe_scores import LinearProbe, best_thresholds, nearest_classes, painted_dice

__all__ = ["LinearDice", "NearestNeighbours", "find_classes"]

logger = logging.getLogger(__name__)

MAX_VALUES = 256  # of labels: what has more is no label map
VALUES_PER_CASE = 2**18  # features that are kept of a training case's cells: 1 MB

TRAIN, HELD_OUT = 0, 1
Case = dict[str, Any]


def volumes_of(dataset: CachedVolumes) -> dict[str, list[int]]:
    """The indices of each case of a data set by its id; of a volume's slices, all under the volume's."""
    groups: dict[str, list[int]] = defaultdict(list)
    for index, case in enumerate(dataset.data):
        groups[volume_of(case)].append(index)
    return dict(groups)


def find_classes(
    datasets: Sequence[CachedVolumes], class_file: str = ""
) -> tuple[dict[str, int], list[str]] | None:
    """The class numbers of the cases by their ids, and the names of the classes; None where there are none.

    Args:
        datasets: Data sets of the training and the validation.
        class_file: Path of a CSV file with the columns id and class, also of cases that are in neither;
            '' = the field `class` of the cases.

    Raises:
        UserError: `class_file` cannot be read, or gives these cases fewer than two classes.
    """
    given = read_column("probe::class_file", class_file, "class") if class_file else {}
    known: list[list[Case]] = [[] for _ in datasets]
    for part, dataset in enumerate(datasets):
        for name, indices in volumes_of(dataset).items():
            case = dataset.data[indices[0]]
            shown = str(case.get("name", name))
            shown = shown.rsplit("/slice", 1)[0] if "volume" in case else shown
            found = [given[each] for each in (name, shown) if each in given]
            if found or (not class_file and "class" in case):
                known[part].append({"id": name, "class": found[0] if found else case["class"]})
    cases = [case for part in known for case in part]
    if not class_file and len({str(case["class"]) for case in cases}) < 2:
        return None
    classified, names = classified_cases(cases)
    return ({case["id"]: case["class"] for case in classified}, names) if all(known) else None


class NearestNeighbours:
    """The accuracy of nearest neighbours by the features of complete cases.

    Args:
        encoder: Encoder that is measured.
        datasets: Data sets of the training and the validation.
        classes: Class numbers of cases by their ids.
        names: Names of the classes.
        neighbours: Number of neighbours.
        max_cases: Largest number of cases of each part.
    """

    def __init__(
        self,
        encoder: FrozenEncoder,
        datasets: Sequence[CachedVolumes],
        classes: Mapping[str, int],
        names: Sequence[str],
        neighbours: int,
        max_cases: int,
    ) -> None:
        self.encoder, self.datasets, self.neighbours = encoder, datasets, neighbours
        self.groups: list[list[list[int]]] = []
        self.classes: list[Tensor] = []
        people = []
        for dataset in datasets:
            known = [(classes[name], group) for name, group in volumes_of(dataset).items() if name in classes]
            # evenly over the cases in the order of their classes: each class keeps its share
            taken = evenly(sorted(known, key=lambda entry: entry[0]), max_cases)
            self.classes.append(torch.tensor([number for number, _ in taken]))
            self.groups.append([evenly(group, encoder.max_windows) for _, group in taken])
            people.append([person_of(dataset.data[group[0]]) for _, group in taken])
        self.allowed = torch.tensor([[one != who for one in people[TRAIN]] for who in people[HELD_OUT]])
        commonest = self.classes[TRAIN].bincount(minlength=len(names)).argmax()
        logger.info(
            "probe_knn_accuracy: the fraction of %d held-out cases (%d classes) whose class most of their %d "
            "nearest training cases, of %d, have, by the encoder's features; the most frequent class for all "
            "gives %.3f",
            len(people[HELD_OUT]), len(names), neighbours, len(people[TRAIN]),
            float((self.classes[HELD_OUT] == commonest).float().mean()),
        )  # fmt: skip

    def measure(self) -> dict[str, float]:
        """The figure by its name; NaN where a feature is not finite."""
        known, asked = (self.pooled(part) for part in (TRAIN, HELD_OUT))
        if not bool(known.isfinite().all() and asked.isfinite().all()):
            return {"probe_knn_accuracy": float("nan")}
        found = nearest_classes(asked, known, self.classes[TRAIN], self.allowed, self.neighbours)
        return {"probe_knn_accuracy": float((found == self.classes[HELD_OUT]).float().mean())}

    def pooled(self, part: int) -> Float[Tensor, "n d"]:
        """The features of each case: the mean over all cells of its windows."""
        return self.encoder.pooled(self.datasets[part], self.groups[part])


class LinearDice:
    """The Dice of a linear map from the features of a cell to the classes in it.

    A label that cannot be used is left out with a warning; `usable` is False where too few are left.

    Args:
        encoder: Encoder that is measured.
        datasets: Data sets of the training and the validation.
        max_cases: Largest number of cases of each part.
    """

    def __init__(self, encoder: FrozenEncoder, datasets: Sequence[CachedVolumes], max_cases: int) -> None:
        self.encoder, self.datasets = encoder, datasets
        self.groups: list[list[list[int]]] = [[], []]
        found: list[list[dict[int, Tensor]]] = [[], []]
        for part, dataset in enumerate(datasets):
            labelled = [group for group in volumes_of(dataset).values() if "label" in dataset.data[group[0]]]
            for group in evenly(labelled, max_cases):
                chosen = evenly(group, encoder.max_windows)
                try:
                    found[part].append(self.fractions_of(dataset, chosen))
                    self.groups[part].append(chosen)
                except Exception as error:  # whatever is wrong with a file must not end a pre-training
                    name = volume_of(dataset.data[group[0]])
                    logger.warning("probe: the label of %s is left out: %s", name, one_line(error))
        self.values = sorted({value for case in found[TRAIN] for value in case} - {0})
        self.fractions = [[self.table(case) for case in part] for part in found]
        most = max(64, VALUES_PER_CASE // encoder.channels)
        self.rows = [sampled(len(one), most) for one in self.fractions[TRAIN]]
        self.usable = bool(self.values and self.fractions[HELD_OUT])
        if self.usable:
            everywhere = [painted_dice(torch.ones_like(y) > 0, y) for y in self.fractions[HELD_OUT]]
            best = [painted_dice(y > best_thresholds(y, y), y) for y in self.fractions[HELD_OUT]]
            logger.info(
                "probe_dice: the mean Dice on %d held-out cases (%d classes) of a linear map from the "
                "encoder's features to the label, fitted to %d training cases; in cells of %s voxels, so "
                "that every cell painted gives %.3f, and the best painting %.3f",
                len(self.fractions[HELD_OUT]), len(self.values), len(self.fractions[TRAIN]),
                "x".join(f"{n / c:g}" for n, c in zip(encoder.size, encoder.cells, strict=True)),
                mean_over_cases(everywhere), mean_over_cases(best),
            )  # fmt: skip

    def fractions_of(self, dataset: CachedVolumes, group: Sequence[int]) -> dict[int, Float[Tensor, "n"]]:
        """The part of each cell of a case that each label value takes."""
        encoder, found = self.encoder, []
        for case in group:
            label = label_on_grid(dataset, case)
            values = [int(value) for value in label.unique()]
            if len(values) > MAX_VALUES:
                raise ValueError(f"found {len(values)} values, expected a label map of at most {MAX_VALUES}")
            parts = cell_fractions(
                label, values, encoder.starts(label, len(group)), encoder.size, encoder.cells
            )
            found.append(dict(zip(values, parts.T, strict=True)))
        lengths = [len(next(iter(one.values()))) for one in found]
        return {
            value: torch.cat([one.get(value, torch.zeros(n)) for one, n in zip(found, lengths, strict=True)])
            for value in set().union(*found)
        }

    def table(self, case: Mapping[int, Tensor]) -> Float[Tensor, "n k"]:
        """The fractions of a case, one column for each of `values`."""
        nothing = torch.zeros_like(next(iter(case.values())))
        columns = [case.get(value, nothing) for value in self.values]
        return torch.stack(columns, dim=1) if columns else nothing[:, None][:, :0]

    def measure(self) -> dict[str, float]:
        """The figure by its name; NaN where a feature is not finite."""
        features = [rows[index] for rows, index in zip(self.features(TRAIN), self.rows, strict=True)]
        fractions = [y[index] for y, index in zip(self.fractions[TRAIN], self.rows, strict=True)]
        known = torch.cat(features)
        if not bool(known.isfinite().all()):
            return {"probe_dice": float("nan")}
        probe = LinearProbe(known, torch.cat(fractions))
        pairs = zip(self.features(HELD_OUT), self.fractions[HELD_OUT], strict=True)
        return {"probe_dice": mean_over_cases([painted_dice(probe.masks(x), y) for x, y in pairs])}

    def features(self, part: int) -> Any:
        """For each case in turn the features of its cells, (n, d)."""
        for one in self.encoder.maps(self.datasets[part], self.groups[part]):
            yield one.flatten(2).transpose(1, 2).flatten(0, 1)


def mean_over_cases(dice: Sequence[Float[Tensor, "k"]]) -> float:
    """The mean over each case's classes, then over the cases; NaN does not count."""
    return float(torch.stack([one.nanmean() for one in dice]).nanmean())


def sampled(count: int, most: int) -> Int[Tensor, "n"]:
    """At most `most` of `count` indices, always the same ones, ascending."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    return order[:most].sort().values
