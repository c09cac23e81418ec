"""What a probe reads: windows of complete volumes, features of a frozen encoder, labels in the same cells.

A volume is what the run's own deterministic transforms give, which `CachedVolumes` has on disk: oriented,
resampled, normalised, and for some methods cut to the body or stretched. It is read in a regular grid of
windows of the size that the encoder is trained on, so that features keep the scale that they were learned at:
crops (`vectorpose`), cubes (`rubiks_cube`), patches of a body (`jigsaw`, `cpc`,
`relative_patch_location`), or the complete body as one window. A label gets the grid of its volume by the
affine matrix, which these transforms keep up to date.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.data import MetaTensor
from monai.transforms import SpatialResample
from torch import nn

from pretext3d.annotations import Float, Shaped, Tensor
from pretext3d.data.dataset import CachedVolumes
from pretext3d.data.loading import LoadCased, OnImageGridd
from pretext3d.errors import UserError
from pretext3d.networks.backbone import Backbone
from pretext3d.training.pictures import evaluating
from pretext3d.transforms.crops import crop_resize

__all__ = ["FrozenEncoder", "cell_fractions", "evenly", "label_on_grid", "mean_of", "window_starts"]

POOL: dict[int, Callable[..., Tensor]] = {2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}


def evenly(items: Sequence[Any], most: int) -> list[Any]:
    """At most `most` of the items, evenly spaced.

    Examples:
        >>> evenly("abcdef", 2), evenly("abc", 5)
        (['b', 'e'], ['a', 'b', 'c'])
    """
    count = min(most, len(items))
    return [items[int((number + 0.5) * len(items) / count)] for number in range(count)]


def window_starts(shape: Sequence[int], size: Sequence[int], most: int) -> list[tuple[int, ...]]:
    """The lowest voxels of a regular grid of windows in a volume.

    Along each axis there are as many windows as cover it, each in the middle of an equal part of the axis;
    fewer along the axes that have most of them, where they would be more than `most` in all. A volume that is
    shorter than a window is in the middle of one, whose start is negative.

    Args:
        shape: Voxels of the volume along each axis.
        size: Voxels of a window along each axis.
        most: Largest number of windows.

    Examples:
        >>> window_starts((10, 3), (4, 4), most=9), window_starts((10, 4), (4, 4), most=2)
        ([(0, 0), (3, 0), (6, 0)], [(0, 0), (5, 0)])
    """
    counts = [-(-n // s) for n, s in zip(shape, size, strict=True)]
    while np.prod(counts) > most:
        counts[counts.index(max(counts))] -= 1
    axes = [
        [_start(number, count, n, s) for number in range(count)]
        for count, n, s in zip(counts, shape, size, strict=True)
    ]
    return list(itertools.product(*axes))


def _start(number: int, count: int, length: int, size: int) -> int:
    """The lowest voxel of a window in the middle of part `number` of `count` parts of an axis."""
    start = int(((number + 0.5) * length / count) - size / 2)
    return min(max(start, 0), length - size) if length >= size else -((size - length) // 2)


class EncoderMap(nn.Module):
    """One of the maps of a backbone's encoder.

    Args:
        backbone: Backbone.
        level: Index of the map, fine to coarse.
    """

    def __init__(self, backbone: Backbone, level: int) -> None:
        super().__init__()
        self.backbone, self.level = backbone, level

    def forward(self, x: Float[Tensor, "b c *space"]) -> Tensor:
        """The map."""
        last = self.level in (-1, len(self.backbone.feature_channels) - 1)
        return self.backbone.encode_coarsest(x) if last else self.backbone.encode(x)[self.level]


def mean_of(maps: Float[Tensor, "w d *cells"]) -> Float[Tensor, "d"]:
    """The mean over all cells of all windows: the features of one case."""
    return maps.flatten(2).mean((0, 2))


class FrozenEncoder:
    """A backbone's encoder in evaluation mode; its weights, modes and statistics do not change.

    Args:
        backbone: Backbone in training.
        inferer: Inferer that calls the network, as in validation.
        device: Device of the network.
        level: Map to read, an index of `Backbone.encode`'s maps, fine to coarse; -1 = the coarsest.
        batch_size: Number of windows that are encoded at once.
        max_windows: Largest number of windows of one volume, or of the slices of one.

    Raises:
        UserError: if the encoder has no such map.
    """

    def __init__(
        self,
        backbone: Backbone,
        inferer: Callable[..., Any],
        device: torch.device | str,
        level: int = -1,
        batch_size: int = 8,
        max_windows: int = 8,
    ) -> None:
        count = len(backbone.feature_channels)
        if not -count <= level < count:
            raise UserError(
                f"probe::level: found {level}, expected one of the {count} maps: {-count} to {count - 1}"
            )
        self.read, self.inferer, self.device = EncoderMap(backbone, level), inferer, torch.device(device)
        self.batch_size, self.max_windows = batch_size, max_windows
        self.channels = backbone.feature_channels[level]
        self.size = tuple(int(n) for n in backbone.record["roi_size"])
        self.cells = backbone.map_sizes(self.size)[level]

    def starts(self, image: Shaped[Tensor, "c *space"], share: int = 1) -> list[tuple[int, ...]]:
        """The windows of a volume; of a slice, `share` is the number of the slices of its volume."""
        return window_starts(image.shape[1:], self.size, max(1, self.max_windows // share))

    def windows(self, image: Shaped[Tensor, "c *space"], share: int = 1) -> list[Float[Tensor, "c *window"]]:
        """The voxels of these windows; outside the volume 0."""
        return [crop_resize(image, start, self.size, self.size) for start in self.starts(image, share)]

    def maps(
        self, dataset: CachedVolumes, groups: Sequence[Sequence[int]]
    ) -> Iterator[Float[Tensor, "w d *cells"]]:
        """For each group of cases (the slices of a volume) the maps of all its windows, on the CPU."""
        waiting: list[Tensor] = []
        lengths: list[int] = []
        for number, group in enumerate(groups, start=1):
            images = [dataset.volume(case)["image"].as_tensor() for case in group]
            windows = [window for image in images for window in self.windows(image, len(group))]
            waiting += windows
            lengths.append(len(windows))
            if len(waiting) >= self.batch_size or number == len(groups):
                yield from torch.split(self.encoded(waiting), lengths)
                waiting, lengths = [], []

    def pooled(self, dataset: CachedVolumes, groups: Sequence[Sequence[int]]) -> Float[Tensor, "n d"]:
        """The features of each group of cases: the mean over all cells of its windows."""
        return torch.stack([mean_of(one) for one in self.maps(dataset, groups)])

    def encoded(self, windows: Sequence[Float[Tensor, "c *window"]]) -> Float[Tensor, "w d *cells"]:
        """The maps of some windows, on the CPU."""
        batches = [
            torch.stack(list(windows[first : first + self.batch_size]))
            for first in range(0, len(windows), self.batch_size)
        ]
        with evaluating(self.read), torch.no_grad():
            return torch.cat([self.inferer(one.to(self.device), self.read).float().cpu() for one in batches])


def label_on_grid(dataset: CachedVolumes, case: int) -> Shaped[Tensor, "1 *space"]:
    """The label of a case on the grid of its cached volume: label values, by the nearest voxel; outside it 0.

    Args:
        dataset: Data set whose deterministic transforms begin with `LoadCased`.
        case: Index of a case with a label.

    Raises:
        UserError: if the label cannot be read, or has another shape than its image.
    """
    item, image = dataset.data[case], dataset.volume(case)["image"]
    loader = next(one for one in dataset.deterministic.transforms if isinstance(one, LoadCased))
    pair = LoadCased(["image", "label"], loader.spatial_dims, frames=loader.frames)(dict(item))
    label: MetaTensor = OnImageGridd("label")(pair)["label"][:1]
    resample = SpatialResample(mode="nearest", padding_mode="zeros", dtype=torch.float32)
    placed = resample(label, dst_affine=image.affine, spatial_size=list(image.shape[1:]))
    return placed.as_tensor().round()


def cell_fractions(
    label: Shaped[Tensor, "1 *space"],
    values: Sequence[int],
    starts: Sequence[Sequence[int]],
    size: Sequence[int],
    cells: Sequence[int],
) -> Float[Tensor, "n k"]:
    """The part of every cell of every window that has each label value, from 0 to 1.

    Args:
        label: Label values of a volume or an image.
        values: Label values, k of them.
        starts: Lowest voxels of the windows.
        size: Voxels of a window along each axis.
        cells: Cells of a window along each axis.

    Returns:
        One row per cell, window after window, in each the last axis fastest.

    Examples:
        >>> cell_fractions(torch.tensor([[[0, 1], [2, 2]]]), [1, 2], [(0, 0)], (2, 2), (2, 1)).tolist()
        [[0.5, 0.0], [0.0, 1.0]]
    """
    pool = POOL[len(size)]
    windows = torch.stack([crop_resize(label, start, size, size) for start in starts])
    parts = [pool((windows == value).float(), list(cells)).flatten() for value in values]
    return torch.stack(parts, dim=1)
