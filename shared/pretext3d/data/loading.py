"""Deterministic first steps that MONAI has no transform for."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from monai.transforms import MapTransform

from pretext3d.data.checks import as_channels
from pretext3d.errors import UserError

__all__ = ["SelectChannelsd"]


class SelectChannelsd(MapTransform):
    """Keep some channels of a channel-first volume, in the given order.

    Args:
        keys: volumes (c, ...).
        channels: one index or several, from 0; None keeps all.
    """

    def __init__(self, keys: Sequence[str] | str, channels: int | Sequence[int] | None = None) -> None:
        super().__init__(keys)
        self.channels = as_channels(channels)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The case with the chosen channels alone."""
        d = dict(data)
        if self.channels is not None:
            for key in self.key_iterator(d):
                if max(self.channels) >= d[key].shape[0]:
                    raise UserError(
                        f"channels: found {self.channels}, but case {d.get('id', '?')} has "
                        f"{d[key].shape[0]} channels"
                    )
                # a volume that has just these channels already is left as it is
                if self.channels != list(range(d[key].shape[0])):
                    d[key] = d[key][self.channels]
        return d
