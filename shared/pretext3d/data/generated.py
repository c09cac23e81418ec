"""Samples that are generated, not read: an item is a function of (seed, key), in unlimited number."""

from collections.abc import Callable
from typing import Any

import numpy as np
from monai.transforms import Compose

from pretext3d.checking import integer
from pretext3d.data.keyed import KeyedItems
from pretext3d.errors import UserError

__all__ = ["GeneratedItems", "items_per_epoch"]


def items_per_epoch(steps_per_epoch: Any, batch_size: Any) -> int:
    """Number of items in an epoch; a training that reads no cases has no other length of one.

    Raises:
        UserError: a number that is not an integer from 1; names its key.

    Examples:
        >>> items_per_epoch(steps_per_epoch=100, batch_size=4)
        400
    """
    steps = integer("steps_per_epoch", steps_per_epoch, minimum=1, expected="an integer from 1")
    return steps * integer("batch_size", batch_size, minimum=1, expected="an integer from 1")


class GeneratedItems(KeyedItems):
    """A data set of samples from a function; the same key always gives the same sample, in every process.

    Item `key` is the result of `generate(rng, key)`, with a generator seeded for (seed, key), passed through
    the transforms, whose draws are seeded for the same key but independent of that generator. Keys are
    unlimited: with `EpochSampler` every epoch has new ones, for any number of workers and ranks, and a
    resumed run continues with those that it would have had. Without a sampler the keys are 0 to
    num_items - 1 in each epoch, as for a validation; they are also the first items for any larger num_items.

    Args:
        generate: Function of a `numpy.random.Generator`, the only source of its random numbers, and the key;
            returns a new dictionary. A named function or a callable object: workers may have to pickle it.
        num_items: Number of items in one pass, `len()` of the data set.
        transform: A `Compose` for every item; None = no transform.
        seed: Seed of every random draw.
        stream: Number of an independent sequence of items of this seed, which no other seed has: 0 for a
            training, 1 for its validation.

    Raises:
        UserError: If num_items is not an integer from 1, or `generate` cannot be called or returns something
            other than a dictionary.

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
        stream: int = 0,
    ) -> None:
        if not callable(generate):
            raise UserError(f"generate: found {generate!r}, expected a function of a generator and a key")
        integer("num_items", num_items, minimum=1, expected="an integer from 1")
        transform = transform if transform is not None else Compose([])
        super().__init__(data=range(num_items), transform=transform, random=transform, seed=seed)
        self.generate = generate
        self.stream = integer("stream", stream, minimum=0)

    def volume(self, case: int) -> dict[str, Any]:
        """The item of a key as pictures name and show it, with its `id`."""
        return {"id": f"item {case}", **self[case]}

    def _begin(self, key: int) -> dict[str, Any]:
        sequence = self._seed(int(key), stream=self.stream)
        sample = self.generate(np.random.default_rng(sequence.spawn(1)[0]), int(key))
        if not isinstance(sample, dict):
            raise UserError(f"generate: found {type(sample).__name__} for key {key}, expected a dictionary")
        return sample
