"""The boundary target of VectorPOSE as a transform; the computation is in `pretext3d.ops.edges`."""

from collections.abc import Sequence
from typing import Any

from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai.utils import convert_to_tensor

from pretext3d.checking import one_of
from pretext3d.errors import UserError
from pretext3d.ops.checks import check_volume_shape
from pretext3d.ops.edges import MEDIANS, boundary_target
from pretext3d.transforms.outputs import like, output_names

__all__ = ["BoundaryTargetsd"]


class BoundaryTargetsd(MapTransform):
    """Deterministic: adds the boundary target of volumes (c, i, j, k) or images (c, i, j) in [0, 1].

    boundary = clip((scharr(median(volume)) - `offset`) * `gain`, 0, 1), same shape as the volume. The target
    of a MetaTensor keeps the affine. The volume itself is unchanged.

    Args:
        keys: Keys of the clean volumes.
        output_key: Key of the target, one name per key.
        median_size: Voxels of the median's window along each axis, odd, 1 to 7; 1 = no median.
        offset: Scharr magnitude, intensity per two voxels, up to which there is no boundary.
        gain: 1 / (magnitude from `offset` to a full boundary), above 0.
        median: Kind of median, `exact` (the definition) or `separable` (three 1D medians, about a tenth of
            the time).
        allow_missing_keys: Skip keys that a sample lacks.

    Raises:
        UserError: For an argument outside its range and, when called, for a volume of another shape.
    """

    def __init__(
        self,
        keys: KeysCollection = "image",
        output_key: str | Sequence[str] = "boundary",
        median_size: int = 5,
        offset: float = 0.01,
        gain: float = 30.0,
        median: str = "exact",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.output_keys = output_names(self.keys, output_key)
        if median_size not in (1, 3, 5, 7):
            raise UserError(f"median_size: found {median_size}, expected 1 (no median), 3, 5 or 7 voxels")
        if not gain > 0:
            raise UserError(f"gain: found {gain}, expected a number above 0")
        if not offset >= 0:
            raise UserError(f"offset: found {offset}, expected 0 or more")
        one_of("median", median, MEDIANS)
        self.median_size, self.median = int(median_size), median
        self.offset, self.gain = float(offset), float(gain)

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        """The sample with its boundary targets."""
        d = dict(data)
        for key, output_key in self.key_iterator(d, self.output_keys):
            volume = convert_to_tensor(d[key], track_meta=False)
            check_volume_shape(key, volume)
            target = boundary_target(
                volume, self.median_size, self.offset, self.gain, self.median, spatial_dims=volume.ndim - 1
            )
            d[output_key] = like(target, d[key])
        return d
