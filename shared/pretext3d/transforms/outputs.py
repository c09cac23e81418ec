"""Keys and form of what transforms add to a sample."""

from collections.abc import Sequence
from typing import Any

from monai.data import MetaTensor
from monai.utils import convert_to_dst_type

from pretext3d.annotations import Tensor
from pretext3d.errors import UserError

__all__ = ["like", "output_names"]


def output_names(keys: Sequence[Any], output_key: str | Sequence[str]) -> tuple[str, ...]:
    """The names of a transform's results, one for each of its keys.

    Raises:
        UserError: If there are more or fewer names than keys.

    Examples:
        >>> output_names(["image"], "boundary")
        ('boundary',)
    """
    names = (output_key,) if isinstance(output_key, str) else tuple(output_key)
    if len(names) != len(keys):
        raise UserError(f"output_key: found {list(names)}, expected one name for each of {list(keys)}")
    return names


def like(result: Tensor, volume: Any) -> Tensor:
    """The result with the meta data, if any, of the volume that it was made from."""
    if not isinstance(volume, MetaTensor):
        return result
    converted: Tensor = convert_to_dst_type(result, volume, dtype=result.dtype)[0]
    return converted
