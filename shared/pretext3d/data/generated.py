"""Samples that are made, not read: an item is a function of (seed, key), and there is no end of them."""

from collections.abc import Callable
from typing import Any

import numpy as np
from monai.transforms import Compose

from pretext3d.checking import whole_number
from pretext3d.data.keyed import KeyedItems
from pretext3d.errors import UserError

__all__ = ["GeneratedItems"]


class GeneratedItems(KeyedItems):
    """A data set of samples from a function; the same key gives the same sample always, in every process.

    Item `key` is what `generate(rng, key)` returns, with a generator seeded for (seed, key), then the
    transforms, whose draws are seeded for it too and independent of it. Keys have no end: with `EpochSampler`
    every epoch has new ones, in any number of workers and ranks, and a resumed run goes on with those that it
    would have had. Without a sampler the keys are 0 to num_items - 1 in each epoch, as for a validation; they
    are the first items of any larger num_items, too.

    Args:
        generate: function of a `numpy.random.Generator`, the only source of its random numbers, and the key;
            returns a new dictionary. A named function or a callable object: workers may have to pickle it.
        num_items: number of items in one pass, `len()` of the data set.
        transform: a `Compose` for every item; None = nothing is done.
        seed: seed of every random draw.

    Raises:
        UserError: num_items is no whole number from 1; `generate` cannot be called, or returns no dictionary.

    Examples:
        >>> items = GeneratedItems(lambda rng, key: {"key": key, "value": rng.integers(100)}, num_items=4)
        >>> len(items), items[7]["key"], items[7] == items[7]
        (4, 7, True)
    """

    def __init__(
        self,
        generate: Callable[[np.random.Generator, int], dict[str, Any]],
        num_items: int,
        transform: Compose | None = None,
        seed: int = 0,
    ) -> None:
        if not callable(generate):
            raise UserError(f"generate: found {generate!r}, expected a function of a generator and a key")
        whole_number("num_items", num_items, minimum=1, expected="a whole number from 1")
        transform = transform if transform is not None else Compose([])
        super().__init__(data=range(num_items), transform=transform, random=transform, seed=seed)
        self.generate = generate

    def _begin(self, key: int) -> dict[str, Any]:
        sequence = self._seed(int(key))
        sample = self.generate(np.random.default_rng(sequence.spawn(1)[0]), int(key))
        if not isinstance(sample, dict):
            raise UserError(f"generate: found {type(sample).__name__} for key {key}, expected a dictionary")
        return sample
