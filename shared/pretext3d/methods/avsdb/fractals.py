"""V-PCF: voxelised point clouds of fractals, with a classification as the pretext task.

The comparator of AVS-DB (Tadokoro et al., CVPRW 2023, section 3.5 and Table 4). It is PC-FractalDB as voxels:
Yamada R, Kataoka H, Chiba N, Domae Y, Ogata T. Point Cloud Pre-training with Natural 3D Structures, CVPR 2022

A class is an iterated function system: a few affine maps x -> A x + b, drawn at random, and kept if the
points that they produce spread along every axis. Its points follow

    x_{t + 1} = A_n x_t + b_n,    n drawn with probability p_n, which is proportional to |det A_n|.

An instance of a class has slightly different maps, and some of its points are those of another class (their
FractalNoiseMix). The network reads which voxels have a point in them, and says which class it is.

Deviates: every map contracts, so that the points of every instance are bounded; an instance has a size and a
position in its volume. The number of classes, maps and points, the variance and the changes of an instance
are keys: neither paper is their only source. In 2D the systems are of the plane.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from ignite.metrics import Metric

from pretext3d.annotations import Float, Int, Tensor
from pretext3d.checking import integer, number, ordered_pair, per_axis
from pretext3d.errors import UserError
from pretext3d.networks.backbone import Backbone
from pretext3d.networks.classification import ClassificationNet
from pretext3d.ops.checks import check_spatial_dims
from pretext3d.progress import Bar
from pretext3d.training.classes import class_metrics

__all__ = [
    "FractalNet", "FractalVolumes", "Systems", "fractal_metrics", "iterate", "occupancy", "variances",
]  # fmt: skip

SETTLE, KEPT = 24, 16  # steps until the points of a chain are the fractal's, and those that are kept
MIN_WEIGHT = 0.01  # of a map whose determinant is nearly 0: it has points, too
PROBE = 2_000  # points that a variance is estimated from
TRIES = 300  # systems that are drawn for one class: about one in four has the variance 0.15
TOGETHER = 32  # classes that are looked for at a time
# of an instance: with more, matrices that contract after every change are too rare to be drawn
MOST_CHANGE = 0.25
MOST_VARIANCE = 0.25  # of a class: one system of a hundred reaches it


# -------------------------------------------------------------------------------- iterated function systems
class Systems(NamedTuple):
    """Iterated function systems of m maps each; a system of fewer maps has some of probability 0.

    `matrices` (n, m, d, d), `offsets` (n, m, d), `probabilities` (n, m).
    """

    matrices: Float[np.ndarray, "n m d d"]
    offsets: Float[np.ndarray, "n m d"]
    probabilities: Float[np.ndarray, "n m"]


def iterate(
    matrices: Float[Tensor, "n m d d"], offsets: Float[Tensor, "n m d"], maps: Int[Tensor, "n t chains"]
) -> Float[Tensor, "n t chains d"]:
    """The points of chains that begin at 0, x_{t + 1} = A x_t + b, for all systems and chains together.

    Args:
        matrices: The matrices A of each system's maps.
        offsets: Their offsets b.
        maps: Number of the map that each step of each chain applies.

    Examples:
        >>> half, corners = torch.eye(1).expand(1, 2, 1, 1) / 2, torch.tensor([[[0.0], [1.0]]])
        >>> iterate(half, corners, torch.tensor([[[1], [0], [1]]])).flatten().tolist()
        [1.0, 0.5, 1.25]
    """
    system = torch.arange(len(maps), device=maps.device)[:, None]
    point = offsets.new_zeros(len(maps), maps.shape[2], offsets.shape[-1])
    points = []
    for chosen in maps.unbind(1):
        point = (matrices[system, chosen] @ point[..., None])[..., 0] + offsets[system, chosen]
        points.append(point)
    return torch.stack(points, dim=1)


def scaled(points: Float[Tensor, "n p d"]) -> Float[Tensor, "n p d"]:
    """Points from 0 to 1 along every axis.

    Examples:
        >>> scaled(torch.tensor([[[2.0], [3.0], [6.0]]])).flatten().tolist()
        [0.0, 0.25, 1.0]
    """
    low, high = points.amin(1, keepdim=True), points.amax(1, keepdim=True)
    return (points - low) / (high - low).clamp(min=torch.finfo(points.dtype).tiny)


def variances(points: Float[Tensor, "n p d"]) -> Float[Tensor, "n d"]:
    """Variance along each axis of points that are scaled from -1 to 1: 1/3 where they are uniform.

    Examples:
        >>> variances(torch.tensor([[[5.0], [5.0], [9.0], [9.0]]])).item()  # -1, -1, 1, 1
        1.0
    """
    return (2 * scaled(points)).var(1, unbiased=False)


def draw_system(
    rng: np.random.Generator, spatial_dims: int, maps: tuple[int, int], longest: float
) -> tuple[np.ndarray, np.ndarray]:
    """The matrices and offsets of a system, entries uniform in (-1, 1); each matrix is drawn until it fits.

    Args:
        rng: Source of the random numbers.
        spatial_dims: Number d of axes.
        maps: Range of the number of maps.
        longest: Largest spectral norm of a matrix.
    """
    count = int(rng.integers(maps[0], maps[1] + 1))
    found = np.empty((0, spatial_dims, spatial_dims))
    while len(found) < count:
        drawn = rng.uniform(-1, 1, (256, spatial_dims, spatial_dims))
        found = np.concatenate([found, drawn[np.linalg.norm(drawn, 2, axis=(1, 2)) < longest]])
    return found[:count], rng.uniform(-1, 1, (count, spatial_dims))


def probabilities(matrices: Float[np.ndarray, "m d d"]) -> Float[np.ndarray, "m"]:
    """Probability of each map: in proportion to the volume |det A| that it maps a unit of volume to.

    Examples:
        >>> probabilities(np.stack([np.eye(2) * 0.5, np.diag([0.75, 1.0])])).tolist()
        [0.25, 0.75]
    """
    weights = np.maximum(np.abs(np.linalg.det(matrices)), MIN_WEIGHT)
    return np.asarray(weights / weights.sum())


def joined(systems: Sequence[tuple[np.ndarray, np.ndarray]], maps: int) -> Systems:
    """Systems of some numbers of maps as one; maps that are missing have probability 0."""
    dims = systems[0][1].shape[-1]
    matrices = np.zeros((len(systems), maps, dims, dims))
    offsets, weights = np.zeros((len(systems), maps, dims)), np.zeros((len(systems), maps))
    for row, (matrix, offset) in enumerate(systems):
        matrices[row, : len(matrix)], offsets[row, : len(matrix)] = matrix, offset
        weights[row, : len(matrix)] = probabilities(matrix)
    return Systems(matrices, offsets, weights)


def draw_maps(
    rngs: Sequence[np.random.Generator], weights: Float[np.ndarray, "n m"], points: int
) -> Int[np.ndarray, "n t chains"]:
    """The maps that each step of each chain applies, for `points` points or a few more, once settled."""
    chains = -(-points // KEPT)
    drawn = np.stack([rng.random((SETTLE + KEPT, chains)) for rng in rngs])
    edges = np.cumsum(weights, axis=1)[:, :-1, None, None]
    return (drawn[:, None] >= edges).sum(1)  # weights of 0 at the end are never reached


def clouds(
    systems: Systems, maps: Int[np.ndarray, "n t chains"], points: int, device: torch.device | str = "cpu"
) -> Float[Tensor, "n points d"]:
    """Points of each system, without those of the first steps."""
    matrices, offsets = (torch.from_numpy(part).float().to(device) for part in systems[:2])
    found = iterate(matrices, offsets, torch.from_numpy(maps).to(device))[:, SETTLE:]
    return found.flatten(1, 2)[:, :points]


# ------------------------------------------------------------------------------------------------- voxels
def occupancy(
    points: Float[Tensor, "p d"], size: Sequence[int], box: float = 1.0, place: Sequence[float] = ()
) -> Float[Tensor, "1 *space"]:
    """1 in voxels that have a point in them, 0 elsewhere.

    Args:
        points: Points, scaled from 0 to 1 along each axis.
        size: Voxels along each axis.
        box: Part of the volume's edges that the points fill.
        place: Where that part is along each axis, from 0, at the first voxel, to 1; () = in the middle.

    Examples:
        >>> occupancy(torch.tensor([[0.0, 0.3], [1.0, 1.0]]), (2, 4))[0].tolist()
        [[0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
    """
    edges = points.new_tensor(size)
    shift = points.new_tensor(place or [0.5] * len(size)) * (1 - box)
    voxels = ((box * points + shift) * edges).long().minimum(edges.long() - 1)
    image = points.new_zeros(tuple(size))
    image[voxels.unbind(-1)] = 1
    return image[None]


class FractalVolumes:
    """Generator of volumes, in 2D images, of fractals; for `pretext3d.data.generated.GeneratedItems`.

    The call with (rng, key) returns `image` (1, *space), float32, 0 or 1, and `fractal` (1,), int64: the
    class. It depends on the generator and the classes alone, and these on `class_seed`: training and
    validation have different seeds, and the same classes.

    Args:
        roi_size: Voxels of a volume along each axis.
        spatial_dims: Number of spatial axes.
        num_classes: Number of classes.
        maps: Range of the number of maps of a system.
        min_variance: Smallest variance along an axis of a class's points, scaled from -1 to 1.
        num_points: Points of an instance.
        change: Largest change of a map's entries in an instance, as a fraction of them.
        noise: Largest fraction of an instance's points that are those of another class.
        box: Range of the part of the volume's edges that an instance fills.
        class_seed: Seed of the classes.

    Attributes:
        class_names: Names of the classes.

    Raises:
        UserError: for invalid arguments, or a variance that none of 300 systems of a class reaches.

    Examples:
        >>> generate = FractalVolumes((16, 24, 8), num_classes=3, num_points=500)
        >>> sample = generate(np.random.default_rng(0), 0)
        >>> sample["image"].shape, sample["image"].unique().tolist(), sample["fractal"].shape
        (torch.Size([1, 16, 24, 8]), [0.0, 1.0], torch.Size([1]))
    """

    def __init__(
        self,
        roi_size: Sequence[int],
        spatial_dims: int = 3,
        num_classes: int = 100,
        maps: Sequence[int] = (3, 8),
        min_variance: float = 0.15,
        num_points: int = 10_000,
        change: float = 0.1,
        noise: float = 0.2,
        box: Sequence[float] = (0.7, 1.0),
        class_seed: int = 0,
    ) -> None:
        check_spatial_dims(spatial_dims)
        self.spatial_dims = spatial_dims
        self.size = per_axis("roi_size", roi_size, spatial_dims)
        integer("fractals::num_classes", num_classes, 2, 2**16)
        fewest, most = per_axis("fractals::maps", maps, 2, minimum=2, single=False)
        if fewest > most or most > 64:
            raise UserError(
                f"fractals::maps: found {list(maps)}, expected two integers from 2 to 64, in order"
            )
        number("fractals::min_variance", min_variance, 0, MOST_VARIANCE)
        self.points = integer("fractals::num_points", num_points, minimum=1)
        self.change = number("fractals::change", change, 0, MOST_CHANGE)
        self.noise = number("fractals::noise", noise, 0, 1, high_open=True)
        self.box = ordered_pair("fractals::box", box, low_open=True, most=1)
        integer("fractals::class_seed", class_seed, minimum=0)
        # with entries changed by a fraction c, a spectral norm grows by c sqrt(d) of itself at most
        longest = 1 / (1 + self.change * spatial_dims**0.5)
        self.systems = find_systems(
            class_seed, num_classes, spatial_dims, (fewest, most), longest, min_variance
        )
        self.class_names = [f"fractal {number}" for number in range(num_classes)]

    def __call__(self, rng: np.random.Generator, key: int = 0) -> dict[str, Any]:
        """The item of a random generator: an instance of a class that is drawn, too."""
        return self.instance(int(rng.integers(len(self.class_names))), rng)

    def instance(
        self, number: int, rng: np.random.Generator, device: torch.device | str = "cpu"
    ) -> dict[str, Any]:
        """An instance of a class, a function of the class and the random generator.

        Args:
            number: Number of the class.
            rng: Source of the random numbers.
            device: Device of the result. Results of two devices differ where rounding moves a point into the
                next voxel.
        """
        other = (number + int(rng.integers(1, len(self.class_names)))) % len(self.class_names)
        pair = [number, other]
        matrices, offsets, weights = (part[pair] for part in self.systems)
        matrices = matrices * rng.uniform(1 - self.change, 1 + self.change, matrices.shape)
        offsets = offsets * rng.uniform(1 - self.change, 1 + self.change, offsets.shape)
        maps = draw_maps([rng, rng], weights, self.points)
        foreign = int(self.points * rng.uniform(0, self.noise))
        box, place = rng.uniform(*self.box), rng.random(self.spatial_dims).tolist()
        own, mixed = scaled(clouds(Systems(matrices, offsets, weights), maps, self.points, device))
        points = torch.cat([own[foreign:], mixed[:foreign]])
        classes = torch.tensor([number], device=device)
        return {"image": occupancy(points, self.size, box, place), "fractal": classes}


def find_systems(
    seed: int,
    count: int,
    spatial_dims: int,
    maps: tuple[int, int],
    longest: float,
    min_variance: float,
) -> Systems:
    """The systems of classes 0 to count - 1, each a function of the seed and its number.

    Systems are drawn for a class until the points of one have the variance along every axis. Many classes
    take long: a progress bar counts them.

    Raises:
        UserError: for the first class of which none of `TRIES` systems has.
    """
    found: list[tuple[np.ndarray, np.ndarray]] = []
    with Bar(total=count, desc="choosing fractals", unit="class", leave=False) as bar:
        for start in range(0, count, TOGETHER):
            numbers = range(start, min(start + TOGETHER, count))
            found += search(seed, numbers, spatial_dims, maps, longest, min_variance)
            bar.update(len(numbers))
    return joined(found, maps[1])


def search(
    seed: int,
    numbers: Sequence[int],
    spatial_dims: int,
    maps: tuple[int, int],
    longest: float,
    min_variance: float,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """The matrices and offsets of the systems of some classes, see `find_systems`."""
    rngs = {one: np.random.default_rng([seed, one]) for one in numbers}
    found: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    todo = list(numbers)
    for _ in range(TRIES):
        drawn = [draw_system(rngs[one], spatial_dims, maps, longest) for one in todo]
        systems = joined(drawn, maps[1])
        choices = draw_maps([rngs[one] for one in todo], systems.probabilities, PROBE)
        spread = variances(clouds(systems, choices, PROBE)).amin(1)
        fits = (spread > min_variance).tolist()
        found |= {one: system for one, system, fit in zip(todo, drawn, fits, strict=True) if fit}
        todo = [one for one, fit in zip(todo, fits, strict=True) if not fit]
        if not todo:
            return [found[one] for one in numbers]
    raise UserError(
        f"fractals::min_variance: found {min_variance}, which none of {TRIES} systems of class {todo[0]} "
        "reached along every axis; expected a smaller one, e.g. 0.15"
    )


# ---------------------------------------------------------------------------------------- the pretext task
class FractalNet(ClassificationNet):
    """A backbone's coarsest map, averaged over space, and a linear layer to one logit per class.

    Args:
        backbone: Network with `encode`; its decoder is not used.
        num_classes: Number of classes.
    """

    def __init__(self, backbone: Backbone, num_classes: int) -> None:
        super().__init__(backbone, num_classes)

    def forward(self, x: Float[Tensor, "b c *space"]) -> Float[Tensor, "b 1 classes"]:
        """The logits of the one answer, for `ClassLoss`."""
        return super().forward(x)[:, None]


def fractal_metrics() -> dict[str, Metric]:
    """The metrics of a validation: the fraction of volumes that are recognised, and that of a guess."""
    return class_metrics("fractal")
