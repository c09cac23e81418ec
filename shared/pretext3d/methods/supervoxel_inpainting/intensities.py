"""Random brightness and gamma, the same for an image and for the region removed from it."""

from collections.abc import Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable

from pretext3d.checking import is_number, number, one_of
from pretext3d.errors import UserError

__all__ = ["RandBrightnessGammad"]

JITTERS = ("crop", "volume")


class RandBrightnessGammad(MapTransform, Randomizable):
    """x -> f_c * x^g for volumes or images (c, ...) scaled to [0, 1], with one draw for all keys.

    f_c is uniform in [1 - `brightness`, 1 + `brightness`], one per channel, with probability `prob`,
    otherwise 1; g is uniform in `gamma`, with probability `prob`, otherwise 1. It is a function of each
    voxel's value only, and keeps 0: a region that is 0 in one of the keys stays hidden, and elsewhere the
    keys stay equal. MONAI's `RandAdjustContrastd` scales each key by its own minimum and maximum, which the
    region changes.

    Args:
        keys: Keys of volumes with equal numbers of channels.
        brightness: Largest relative change, in [0, 1).
        gamma: Lowest and highest exponent, above 0.
        prob: Probability of each of the two.
        jitter: `crop`, a draw for each sample, or `volume`, one for all samples of a visit to a volume, which
            have the same `visit_seed` (see `UsableVolumes`).

    Raises:
        UserError: for a value out of range; when called, for a volume with values below 0, for which the
            power is undefined.
    """

    def __init__(
        self,
        keys: KeysCollection = ("image", "clean"),
        brightness: float = 0.3,
        gamma: Sequence[float] = (0.7, 1.5),
        prob: float = 0.5,
        jitter: str = "crop",
    ) -> None:
        MapTransform.__init__(self, keys)
        one_of("jitter", jitter, JITTERS)
        number("augment_prob", prob, 0, 1, expected="a probability from 0 to 1")
        number("brightness", brightness, 0, 1, high_open=True, expected="a number from 0 to below 1")
        limits = list(gamma) if isinstance(gamma, Sequence) and not isinstance(gamma, str) else [gamma]
        if len(limits) != 2 or not all(map(is_number, limits)) or not 0 < limits[0] <= limits[1]:
            raise UserError(f"gamma: found {gamma!r}, expected two exponents above 0, as [0.7,1.5]")
        self.brightness, self.limits, self.prob = float(brightness), (limits[0], limits[1]), float(prob)
        self.jitter = jitter
        self.factors, self.exponent = [1.0], 1.0

    def randomize(self, channels: int) -> None:
        """Draw `factors`, one per channel, and `exponent`."""
        changed = self.R.rand(2) < self.prob
        factors = 1 + self.brightness * self.R.uniform(-1, 1, channels)
        exponent = self.R.uniform(*self.limits)
        self.factors = factors.tolist() if changed[0] else [1.0] * channels
        self.exponent = float(exponent) if changed[1] else 1.0

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        """The sample with the same change in all its volumes."""
        d = dict(data)
        if self.jitter == "volume":
            self.set_random_state(seed=d["visit_seed"])
        self.randomize(len(d[self.keys[0]]))
        for key in self.key_iterator(d):
            lowest = float(d[key].min())
            if lowest < 0:
                raise UserError(
                    f"normalisation: found {key} with values down to {lowest:.3g}, brightness and gamma "
                    "expect 0 to 1, as {percentiles: [0.5, 99.5]} gives; augment_prob: 0 leaves them out"
                )
            factors = torch.tensor(self.factors, dtype=d[key].dtype, device=d[key].device)
            d[key] = factors.reshape(-1, *(1,) * (d[key].ndim - 1)) * d[key] ** self.exponent
        return d
