"""A pretext task without anatomy: how far air and mean intensities alone go.

What the encoder sees (a cube, a patch, a rotated image) is described by a few numbers instead: for each half
along each axis (2^d parts) the share of air, and the mean of every channel. A linear model of them answers
the task. Air: the lowest 8 % of the range of the volume's first channel. Exemplar's views are turned and
mirrored, so that parts say nothing, and are described by the histogram of each channel instead, which no
rotation, brightness or contrast changes once it is standardised; the nearest neighbour answers. Fitted on
samples of the training cases, measured on those of the held-out ones. A network that is no better has
learned what needs no anatomy.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from monai.networks.layers.factories import Pool

from pretext3d.methods.cpc.context import in_context
from pretext3d.methods.exemplar.retrieval import LIMIT, RetrievalAccuracy, RetrievalChance

__all__ = ["MEASURES", "Baseline", "Sample", "baseline", "describe", "samples"]

AIR = 0.08  # share of the range
SAMPLES = {"train": 1200, "validate": 400}  # at least
DECAY = 1e-3  # of a linear model's weights
QUANTILES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.99)  # of a channel; the lower half is often air


class Baseline(NamedTuple):
    """How well a pretext task is answered without anatomy: the fraction that is right, and in words."""

    value: float
    text: str


class Sample(NamedTuple):
    """One sample: its number of a draw, the features of what the encoder sees (n, f), and the targets."""

    draw: int
    features: torch.Tensor
    targets: Mapping[str, torch.Tensor]


def describe(images: torch.Tensor, limit: float, parts: int, air_only: bool) -> torch.Tensor:
    """Shares of air and means of each channel in parts^d parts of images (n, c, *space): (n, f).

    Examples:
        >>> describe(torch.tensor([[[0.0, 0.0, 0.0, 1.0]]]).unsqueeze(2), 0.5, 1, False)
        tensor([[0.7500, 0.2500]])
    """
    air = (images[:, :1] < limit).float()
    shown = air if air_only else torch.cat([air, images.float()], dim=1)
    return Pool[Pool.ADAPTIVEAVG, images.ndim - 2](parts)(shown).flatten(1)


def histograms(images: torch.Tensor) -> torch.Tensor:
    """Quantiles of each channel of images (n, c, *space), standardised to mean 0 and deviation 1: (n, f).

    A change a x + b of a channel's intensities, for a > 0, leaves them as they are.

    Examples:
        >>> ramp = torch.arange(101.0).reshape(1, 1, 101)
        >>> torch.allclose(histograms(ramp), histograms(3 * ramp + 7), atol=1e-6)
        True
        >>> [round(float(q), 2) for q in histograms(ramp)[0]]
        [0.0, 0.34, 0.68, 1.02, 1.37, 1.67]
    """
    rows = images.float().flatten(2)
    rows = (rows - rows.mean(2, keepdim=True)) / rows.std(2, keepdim=True).clamp(min=1e-6)
    return rows.quantile(torch.tensor(QUANTILES), dim=2).permute(1, 2, 0).flatten(1)


def samples(
    parser: Any, part: str, features: Callable[[torch.Tensor, float], torch.Tensor], whole: bool = False
) -> list[Sample]:
    """The samples of a bundle's training or held-out cases, draw by draw.

    Args:
        parser: See `baseline`.
        part: `train` or `validate`.
        features: Function from images (n, c, *space) and the volume's limit of air to features (n, f).
        whole: Whether to take those of one pass, as many as a validation has.
    """
    dataset = parser.get_parsed_content(f"{part}#dataset")
    limits = []
    for case in range(dataset.num_cases):
        image = dataset.volume(case)["image"].as_tensor()[:1]
        limits.append(float(image.min() + AIR * (image.max() - image.min())))
    draws = dataset.crops_per_volume if whole else math.ceil(SAMPLES[part] / dataset.num_cases)
    found = []
    for key in range(draws * dataset.num_cases):
        draw, case = divmod(key, dataset.num_cases)
        sample = dict(dataset[key])
        shown = features(torch.as_tensor(sample.pop("image")), limits[case])
        found.append(Sample(draw, shown, sample))
    return found


# ------------------------------------------------------------------------------------------ linear models
def fit(x: torch.Tensor, y: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """A linear classifier of rows (n, f): of classes (n,), or of yes-or-no questions (n, q), y boolean."""
    mean, spread = x.mean(0), x.std(0).clamp(min=1e-6)
    binary = y.dtype == torch.bool
    linear = torch.nn.Linear(x.shape[1], y.shape[1] if binary else int(y.max()) + 1)
    torch.nn.init.zeros_(linear.weight)
    rows, target = (x - mean) / spread, y.float() if binary else y
    optimizer = torch.optim.LBFGS(linear.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        logits = linear(rows)
        error = F.binary_cross_entropy_with_logits if binary else F.cross_entropy
        total = error(logits, target) + DECAY * linear.weight.square().sum()
        total.backward()
        return total

    optimizer.step(loss)
    return lambda new: linear((new - mean) / spread).detach()


def linear_accuracy(
    rows: Callable[[Sample], tuple[torch.Tensor, torch.Tensor]],
) -> Callable[..., Baseline]:
    """A measure: the accuracy of a linear model on `rows(sample)`, features and answers."""

    def measure(train: Sequence[Sample], held_out: Sequence[Sample], parser: Any) -> Baseline:
        x, y = (torch.cat(part) for part in zip(*map(rows, train), strict=True))
        new, truth = (torch.cat(part) for part in zip(*map(rows, held_out), strict=True))
        logits = fit(x, y)(new)
        binary = truth.dtype == torch.bool
        answers = logits > 0 if binary else logits.argmax(1)
        right = float((answers == truth).float().mean())
        kind = "yes-or-no questions" if binary else f"answers out of {logits.shape[1]}"
        return Baseline(right, f"a linear model: {100 * right:.1f} % of {truth.numel()} {kind}")

    return measure


def half_turns(sample: Sample) -> tuple[torch.Tensor, torch.Tensor]:
    """Rubik's cube, the true order given: a linear map of its own for each cell that a cube comes from."""
    order = sample.targets["order"]
    cells = F.one_hot(order, len(order)).float()
    return (cells[:, :, None] * with_one(sample.features)[:, None]).flatten(1), sample.targets["turned"]


def pairs(sample: Sample) -> tuple[torch.Tensor, torch.Tensor]:
    """Relative patch location: the centre's features and a query's."""
    centre, queries = sample.features[:1], sample.features[1:]
    return torch.cat([centre.expand_as(queries), queries], dim=1), sample.targets["location"]


def puzzle(sample: Sample) -> tuple[torch.Tensor, torch.Tensor]:
    """Jigsaw: the features of all patches, position by position, of each puzzle of a grid."""
    return sample.features[sample.targets["moves"]].flatten(1), sample.targets["permutation"]


def versions(sample: Sample) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotation: the features of each version."""
    return sample.features, sample.targets["rotation"]


# ---------------------------------------------------------------------------------------------- neighbours
def nearest_anchor(train: Sequence[Sample], held_out: Sequence[Sample], parser: Any) -> Baseline:
    """Exemplar: retrieval as a validation measures it: any anchor of a view's case, of any draw, is right."""
    both = torch.cat([sample.features for sample in train])
    mean, spread = both.mean(0), both.std(0).clamp(min=1e-6)
    rows = torch.stack([(sample.features - mean) / spread for sample in held_out])
    cases = torch.stack([sample.targets["case_code"] for sample in held_out])
    found = []
    for metric in (RetrievalAccuracy(), RetrievalChance()):
        metric.update((rows, {"case_code": cases}))
        found.append(float(metric.compute()))
    views = f"{100 * found[0]:.1f} % of {min(len(rows), LIMIT)} views; chance {100 * found[1]:.1f} %"
    return Baseline(found[0], f"the nearest histogram: {views}")


def nearest_location(train: Sequence[Sample], held_out: Sequence[Sample], parser: Any) -> Baseline:
    """CPC: a linear map from what the context sees to a patch some rows ahead; is the nearest patch that one?

    It sees what the network's context does (`in_context`): the features of all patches of the inverted
    pyramid, and the location, for each of which there is a map of its own. For each number of rows ahead:
    with `overlap`, patches one row apart have voxels in common.
    """
    grid = parser.get_parsed_content("patches")
    kind, radius = parser.get_parsed_content("context"), parser.get_parsed_content("context_radius")
    sources = grid.targets - math.prod(grid.shape[1:]) * grid.step_of
    ordered, new = (torch.stack([s.features[grid.order] for s in part]) for part in (train, held_out))
    mean, spread = ordered.mean((0, 1)), ordered.std((0, 1)).clamp(min=1e-6)
    ordered, new = ((rows - mean) / spread for rows in (ordered, new))
    hits: dict[int, list[torch.Tensor]] = {step: [] for step in range(1, grid.steps + 1)}
    for source in sources.unique():
        location = torch.unravel_index(source, grid.shape)
        seen = in_context(grid.shape, [int(place) for place in location], radius, kind).flatten()
        x, asked = (with_one(rows[:, seen].flatten(1)) for rows in (ordered, new))
        targets = grid.targets[sources == source]  # of each number of rows ahead
        ridge = x.T @ x + DECAY * len(x) * torch.eye(x.shape[1])
        maps = torch.linalg.solve(ridge, x.T @ ordered[:, targets].flatten(1))
        predicted = (asked @ maps).unflatten(1, (len(targets), -1))
        right = torch.cdist(predicted, new).argmin(-1) == targets
        for step, found in zip(grid.step_of[sources == source].tolist(), right.T, strict=True):
            hits[step].append(found)
    each_step = {step: torch.cat(found) for step, found in hits.items()}
    every = torch.cat(list(each_step.values()))
    right = float(every.float().mean())
    each = ", ".join(f"step {step} {100 * found.float().mean():.1f} %" for step, found in each_step.items())
    return Baseline(
        right,
        f"the nearest location: {100 * right:.1f} % of {len(every)} predictions ({each}); "
        f"chance {100 / new.shape[1]:.1f} %",
    )


def with_one(rows: torch.Tensor) -> torch.Tensor:
    """The rows (..., f) with a last feature of 1, for an intercept."""
    return F.pad(rows, (0, 1), value=1.0)


class Measure(NamedTuple):
    """A method's baseline.

    Attributes:
        figure: Column of metrics.csv that it compares with.
        of: Measures training and held-out samples.
        whole: Whether it depends on the number of held-out samples, and so needs those of a validation.
        by_histogram: Whether images are described by `histograms`, and not by their parts.
    """

    figure: str
    of: Callable[[Sequence[Sample], Sequence[Sample], Any], Baseline]
    whole: bool = False
    by_histogram: bool = False


MEASURES = {
    "rubiks_cube": Measure("orientation_accuracy", linear_accuracy(half_turns)),
    "relative_patch_location": Measure("location_accuracy", linear_accuracy(pairs)),
    "jigsaw": Measure("permutation_accuracy", linear_accuracy(puzzle)),
    "rotation": Measure("rotation_accuracy", linear_accuracy(versions)),
    "cpc": Measure("accuracy", nearest_location),
    "exemplar": Measure("retrieval_accuracy", nearest_anchor, whole=True, by_histogram=True),
}


def baseline(method: str, parser: Any, parts: int = 2, air_only: bool = False) -> Baseline:
    """The baseline of one of `MEASURES`.

    Args:
        method: Name of the method.
        parser: The `ConfigParser` of its train.yaml, with the data and the keys of the run.
        parts: Number of parts along each axis, of a description by parts.
        air_only: Whether mean intensities are left out of it.
    """
    measure = MEASURES[method]

    def features(images: torch.Tensor, limit: float) -> torch.Tensor:
        return histograms(images) if measure.by_histogram else describe(images, limit, parts, air_only)

    train = samples(parser, "train", features)
    return measure.of(train, samples(parser, "validate", features, whole=measure.whole), parser)
