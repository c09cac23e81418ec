"""From a collated batch to the network's input and the loss's target."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["PrepareClasses", "PrepareTargets"]


class PrepareTargets:
    """A trainer's `prepare_batch` for losses that take several targets.

    Returns (batch[image_key], {key: batch[key] for target_keys}), on the trainer's device; with `input_keys`
    also () and {key: batch[key] for input_keys}, further arguments of the network.

    Args:
        target_keys: Keys that the loss and the metrics read.
        image_key: Key of the network's input.
        optional_keys: Subset of `target_keys` that a batch may lack.
        input_keys: Keys that the network takes as arguments of these names.
    """

    def __init__(
        self,
        target_keys: Sequence[str],
        image_key: str = "image",
        optional_keys: Sequence[str] = (),
        input_keys: Sequence[str] = (),
    ) -> None:
        self.image_key, self.target_keys = image_key, tuple(target_keys)
        self.optional_keys, self.input_keys = frozenset(optional_keys), tuple(input_keys)

    def __call__(
        self, batch: dict[str, Tensor], device: torch.device, non_blocking: bool = False, **kwargs: Any
    ) -> tuple[Any, ...]:
        """Move the input and the targets to the device."""
        move = {"device": device, "non_blocking": non_blocking, **kwargs}
        keys = [key for key in self.target_keys if key in batch or key not in self.optional_keys]
        image, targets = batch[self.image_key].to(**move), {key: batch[key].to(**move) for key in keys}
        if not self.input_keys:
            return image, targets
        return image, targets, (), {key: batch[key].to(**move) for key in self.input_keys}


class PrepareClasses:
    """A trainer's and evaluator's `prepare_batch` for classification: (batch["image"], batch["class"])."""

    def __call__(
        self, batch: dict[str, Tensor], device: torch.device, non_blocking: bool = False, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Move both to the device."""
        move = {"device": device, "non_blocking": non_blocking, **kwargs}
        return batch["image"].to(**move), torch.as_tensor(batch["class"]).to(**move)
