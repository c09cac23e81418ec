"""Models Genesis's corruption: local shuffling, non-linear intensity, in-painting or out-painting.

Zhou Z, Sodha V, Pang J, Gotway MB, Liang J. Models Genesis. Medical Image Analysis 2021, section 3.2; used as
T_I by VectorPOSE (ISBI 2023, section 2.2), whose author's settings are the preset `vectorpose`.

A draw (`draw_noising`: plain numbers from a RandomState) is separate from its application (`apply_noising`),
so it can be replayed, on any device, with the same result. All channels share one draw.

In 2D the same operations work on squares in an image, with the same numbers.

Deviates: a window is permuted by one of 2 to 32 stored permutations of its shape, drawn uniformly; the curve
of intensities is a table of 16,384 steps (exact at 0 and 1); the noise of out-painting is shared by the
channels, where the original draws it for each; the fill `constant` is one value per block, and a single value
for everything that out-painting hides.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, RandomizableTransform
from monai.utils import convert_to_tensor

from pretext3d.annotations import Float, Int, Tensor
from pretext3d.checking import closest_hint, is_number, number, one_of
from pretext3d.errors import UserError
from pretext3d.ops.checks import check_volume_shape
from pretext3d.ops.shuffling import Windows, shuffle_windows

__all__ = ["RandGenesisNoised"]

CURVE_STEPS = 2**14
NOISE_VOXELS = 2**15  # processed at a time on a CPU, so that the arrays stay in its cache
FILLS = ("uniform", "constant")


# --------------------------------------------------------------------------------------- settings
@dataclass(frozen=True)
class NoisingSettings:
    """Every number of the corruption; the defaults are those of Models Genesis. Ranges include both ends.

    Lengths are fractions of the volume's length along the axis, rounded down, at least 1 voxel.
    """

    shuffle_prob: float = 0.5  # probability of shuffling
    num_windows: int = 10_000  # windows shuffled
    window_size: float = 0.1  # largest side of a window, a fraction; the smallest is 1 voxel
    intensity_prob: float = 0.9  # probability of the non-linear intensity
    decreasing_prob: float = 0.5  # probability that the curve, if any, is decreasing
    paint_prob: float = 0.9  # probability of in- or out-painting
    inpaint_prob: float = 0.2  # probability that this is in-painting, else out-painting
    inpaint_blocks: int = 5  # largest number of blocks painted over
    inpaint_size: tuple[float, float] = (1 / 6, 1 / 3)  # a block's sides, fractions
    outpaint_windows: int = 5  # largest number of windows kept, at least one
    outpaint_margin: tuple[float, float] = (
        3 / 7,
        4 / 7,
    )  # volume length minus a kept window's side, fractions
    continue_prob: float = 0.95  # probability of one more block or window
    border: int = 3  # voxels between blocks or windows and the volume's border
    fill: str = "uniform"  # U(0, 1) per voxel; "constant": one U(0, 1) per block


PRESETS = {
    "genesis": NoisingSettings(),
    "vectorpose": NoisingSettings(
        shuffle_prob=0.25,
        num_windows=5_000,
        intensity_prob=0.5,
        paint_prob=0.75,
        inpaint_prob=0.5,
        inpaint_blocks=10,
        fill="constant",
    ),
}


def noising_settings(preset: str | Mapping[str, Any], **overrides: Any) -> NoisingSettings:
    """A preset with some of its numbers changed, checked.

    Args:
        preset: Name of the preset, or {preset: its name, num_windows: 1000, ...}.
        **overrides: Numbers of the preset to change, by the names in `NoisingSettings`.

    Raises:
        UserError: For an unknown preset or setting, or a value outside its range; states what is valid.

    Examples:
        >>> settings = noising_settings("vectorpose", num_windows=1000)
        >>> settings.num_windows, settings.fill
        (1000, 'constant')
    """
    if isinstance(preset, Mapping):
        overrides = {**{name: value for name, value in preset.items() if name != "preset"}, **overrides}
        preset = preset.get("preset", "")
    preset = one_of("preset", preset, PRESETS)
    names = [field.name for field in fields(NoisingSettings)]
    for name, value in overrides.items():
        if name not in names:
            hint = closest_hint(name, names, " (did you mean {}?)")
            raise UserError(f"{name}: no such setting of the noising{hint}; there are {', '.join(names)}")
        overrides[name] = _checked(name, value)
    return replace(PRESETS[preset], **overrides)


def _checked(name: str, value: Any) -> Any:
    """A setting of the noising that is of its kind and in its range, or an error."""
    if name == "fill":
        one_of("fill", value, FILLS)
        return value
    if name in ("inpaint_size", "outpaint_margin"):
        pair = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        if len(pair) != 2 or not all(map(is_number, pair)) or not 0 <= pair[0] <= pair[1] <= 1:
            raise UserError(f"{name}: found {value!r}, expected two fractions 0 <= low <= high <= 1")
        return (float(pair[0]), float(pair[1]))
    if name in ("num_windows", "inpaint_blocks", "outpaint_windows", "border"):
        least = 1 if name == "outpaint_windows" else 0
        if not is_number(value) or value != int(value) or value < least:
            raise UserError(f"{name}: found {value!r}, expected an integer of {least} or more")
        return int(value)
    kind = "fraction" if name == "window_size" else "probability"
    return number(name, value, 0, 1, expected=f"a {kind} from 0 to 1")


# ------------------------------------------------------------------------------------------- draw
@dataclass(frozen=True)
class Curve:
    """A cubic Bezier curve from (0, 0) to (1, 1) with two control points (x, y) in [0, 1]^2."""

    points: Float[np.ndarray, "2 2"]
    decreasing: bool


@dataclass(frozen=True)
class Paint:
    """Blocks to paint over (later over earlier ones) or windows to keep; `constants` None means noise."""

    keep: bool
    size: Int[np.ndarray, "n d"]
    start: Int[np.ndarray, "n d"]
    seed: int
    constants: Float[np.ndarray, "n"] | None


@dataclass(frozen=True)
class NoisingDraw:
    """One corruption; None where an operation is left out."""

    windows: Windows | None = None
    curve: Curve | None = None
    paint: Paint | None = None


def draw_noising(
    settings: NoisingSettings, shape: Sequence[int], random: np.random.RandomState
) -> NoisingDraw:
    """Draw a corruption of volumes of `shape` (i, j, k) or images of `shape` (i, j)."""
    shuffled, curved = random.rand() < settings.shuffle_prob, random.rand() < settings.intensity_prob
    painted, inpainted = random.rand() < settings.paint_prob, random.rand() < settings.inpaint_prob
    curve = Curve(random.rand(2, 2), bool(random.rand() < settings.decreasing_prob)) if curved else None
    return NoisingDraw(
        _draw_windows(settings, shape, random) if shuffled and settings.num_windows else None,
        curve,
        _draw_paint(settings, shape, random, not inpainted) if painted else None,
    )


def _draw_windows(settings: NoisingSettings, shape: Sequence[int], random: np.random.RandomState) -> Windows:
    n, limits = settings.num_windows, _fraction(shape, settings.window_size)
    size = np.stack([random.randint(1, limit + 1, size=n) for limit in limits], axis=1)
    start = (random.rand(n, len(shape)) * (np.array(shape) - size + 1)).astype(np.int64)
    permutation = random.randint(0, 2**16, size=n)
    return Windows(size, start, permutation, tuple(limits.tolist()))


def _draw_paint(
    settings: NoisingSettings, shape: Sequence[int], random: np.random.RandomState, keep: bool
) -> Paint:
    lengths = np.array(shape)
    low, high = settings.outpaint_margin if keep else settings.inpaint_size
    smallest, largest = _fraction(shape, low, least=0), _fraction(shape, high, least=0)
    most = settings.outpaint_windows if keep else settings.inpaint_blocks
    count = 1 if keep else 0
    while count < most and random.rand() < settings.continue_prob:
        count += 1
    size = random.randint(smallest, largest + 1, size=(count, len(shape)))
    size = np.clip(lengths - size if keep else size, 1, lengths)
    border = np.minimum(settings.border, (lengths - size) // 2)  # smaller where the volume is too small
    start = random.randint(border, lengths - size - border + 1)
    constants = random.rand(count) if settings.fill == "constant" else None
    return Paint(keep, size.astype(np.int64), start.astype(np.int64), int(random.randint(2**31)), constants)


def _fraction(shape: Sequence[int], fraction: float, least: int = 1) -> Int[np.ndarray, "d"]:
    """A fraction of each length, rounded down (1/3 written with six digits still counts as a third)."""
    return np.maximum(least, np.floor(np.array(shape) * fraction + 1e-4).astype(np.int64))


# --------------------------------------------------------------------------- non-linear intensity
def curve_table(curve: Curve, steps: int = CURVE_STEPS) -> Float[np.ndarray, "n"]:
    """The curve at `steps` equal steps of x from 0 to 1.

    With control points in [0, 1]^2 both X(t) and Y(t) increase: the increasing curve takes X(t) to Y(t) and
    the decreasing one X(t) to Y(1 - t).
    """
    t = np.linspace(0.0, 1.0, 4096)[:, None]
    x, y = (3 * t * (1 - t) ** 2 * curve.points[0] + 3 * t**2 * (1 - t) * curve.points[1] + t**3).T
    return np.interp(np.linspace(0.0, 1.0, steps), x, y[::-1] if curve.decreasing else y)


def bezier_intensity(volume: Float[Tensor, "c *space"], curve: Curve) -> Float[Tensor, "c *space"]:
    """Map intensities by a monotone Bezier curve: 0 and 1 stay, or are swapped if it decreases.

    Values outside [0, 1] count as 0 and 1.
    """
    table = torch.from_numpy(curve_table(curve)).to(volume.device, volume.dtype)
    step = volume.to(torch.promote_types(volume.dtype, torch.float32)) * (CURVE_STEPS - 1)
    index = step.add_(0.5).to(torch.int32).clamp_(0, CURVE_STEPS - 1)
    return table.index_select(0, index.reshape(-1)).view(volume.shape)


# --------------------------------------------------------------------------------------- painting
def uniform_noise(
    seed: int, shape: Sequence[int], start: Sequence[int], size: Sequence[int], device: torch.device
) -> Float[Tensor, "*size"]:
    """U(0, 1) noise, float32, a function of the seed and the voxel alone: the same in any box, on any device.

    A voxel's number in C order, times an odd constant, plus the seed, goes through MurmurHash3's finaliser.

    Args:
        seed: Seed of the noise.
        shape: Shape of the volume.
        start: Lowest voxel of the box.
        size: Voxels of the box.
        device: Device of the result.
    """
    noise = torch.zeros((), dtype=torch.int32, device=device)
    for length, low, n in zip(shape, start, size, strict=True):
        place = torch.arange(int(low), int(low) + int(n), dtype=torch.int32, device=device)
        noise = noise[..., None] * length + place
    noise.mul_(-1640531527).add_(seed)
    for bits, factor in ((16, -2048144789), (13, -1028477387), (16, 1)):
        noise.bitwise_xor_((noise >> bits).bitwise_and_(2 ** (32 - bits) - 1)).mul_(factor)
    return noise.bitwise_and_(2**24 - 1).to(torch.float32).mul_(2.0**-24)


def _box(start: Sequence[int], size: Sequence[int]) -> tuple[slice, ...]:
    return (slice(None), *(slice(int(s), int(s) + int(n)) for s, n in zip(start, size, strict=True)))


def inpaint_blocks(volume: Float[Tensor, "c *space"], paint: Paint) -> Float[Tensor, "c *space"]:
    """Paint over blocks, with noise or each with its constant."""
    result = volume.clone()
    shape = volume.shape[1:]
    for n, (start, size) in enumerate(zip(paint.start.tolist(), paint.size.tolist(), strict=True)):
        if paint.constants is None:
            result[_box(start, size)] = uniform_noise(paint.seed, shape, start, size, volume.device)
        else:
            result[_box(start, size)] = float(paint.constants[n])
    return result


def outpaint_windows(volume: Float[Tensor, "c *space"], paint: Paint) -> Float[Tensor, "c *space"]:
    """Paint over everything outside the union of the windows, with noise or the first constant."""
    result = torch.empty_like(volume, memory_format=torch.contiguous_format)
    shape = volume.shape[1:]
    ni, *plane = shape
    if paint.constants is not None:
        result.fill_(float(paint.constants[0]))
    else:
        slab = max(1, NOISE_VOXELS // math.prod(plane)) if volume.device.type == "cpu" else ni
        for low in range(0, ni, slab):
            start, size = (low, *[0] * len(plane)), (min(slab, ni - low), *plane)
            noise = uniform_noise(paint.seed, shape, start, size, volume.device)
            result[:, low : low + slab] = noise
    for start, size in zip(paint.start.tolist(), paint.size.tolist(), strict=True):
        result[_box(start, size)] = volume[_box(start, size)]
    return result


# ----------------------------------------------------------------------------------- all together
def apply_noising(volume: Float[Tensor, "c *space"], draw: NoisingDraw) -> Float[Tensor, "c *space"]:
    """Shuffling, then intensity, then painting; the volume itself where the draw has no operation."""
    if draw.windows is not None:
        volume = shuffle_windows(volume, draw.windows)
    if draw.curve is not None:
        volume = bezier_intensity(volume, draw.curve)
    if draw.paint is not None:
        volume = (outpaint_windows if draw.paint.keep else inpaint_blocks)(volume, draw.paint)
    return volume


class RandGenesisNoised(RandomizableTransform, MapTransform):
    """Corrupts volumes or images with intensities [0, 1] as Models Genesis does; all keys share one draw.

    The result has the volume's shape, dtype, device and, for a MetaTensor, affine. The volume is not changed.

    Args:
        keys: Keys of volumes (c, i, j, k) of one shape or, in 2D, images (c, i, j).
        preset: Preset `genesis` or `vectorpose`, or {preset: genesis, num_windows: 1000, ...}.
        prob: Probability of any corruption.
        allow_missing_keys: Skip keys that a sample lacks.
        overrides: Numbers of the preset to change, named as in `NoisingSettings`: `num_windows: 1000`.

    Raises:
        UserError: For a setting outside its range and, when called, for a volume of another shape or range.
    """

    def __init__(
        self,
        keys: KeysCollection,
        preset: str | Mapping[str, Any] = "genesis",
        prob: float = 1.0,
        allow_missing_keys: bool = False,
        **overrides: Any,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, _checked("prob", prob))
        self.settings = noising_settings(preset, **overrides)
        self.draw = NoisingDraw()

    def randomize(self, data: Sequence[int]) -> None:
        """Draw a corruption for volumes of a spatial shape."""
        super().randomize(None)
        self.draw = draw_noising(self.settings, data, self.R) if self._do_transform else NoisingDraw()

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        """The sample with its volumes corrupted."""
        d = dict(data)
        shape: Sequence[int] | None = None
        for key in self.key_iterator(d):
            volume = _checked_volume(key, convert_to_tensor(d[key], track_meta=False), shape)
            if shape is None:
                shape = volume.shape[1:]
                self.randomize(shape)
            result = apply_noising(volume, self.draw)
            d[key] = MetaTensor(result, meta=d[key].meta) if isinstance(d[key], MetaTensor) else result
        return d


def _checked_volume(key: str, volume: Tensor, shape: Sequence[int] | None) -> Tensor:
    """A volume of the first one's shape with intensities from 0 to 1, or an error."""
    check_volume_shape(key, volume)
    if shape is not None and volume.shape[1:] != shape:
        found = list(volume.shape[1:])
        raise UserError(f"{key}: found shape {found}, expected that of the first key, {list(shape)}")
    low, high = (float(value) for value in volume.aminmax())
    if not (low >= -1e-3 and high <= 1 + 1e-3):
        raise UserError(
            f"{key}: found intensities from {low:g} to {high:g}, expected 0 to 1 (scale them first)"
        )
    return volume
