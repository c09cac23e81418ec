"""Items by key: what data sets of volumes and of generated items have in common.

Every random draw is a function of (seed, key), so samples do not depend on the number of workers or ranks,
nor on whether a run was interrupted.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from monai.data import Dataset
from monai.transforms import Compose

__all__ = ["KeyedItems"]


class KeyedItems(Dataset, ABC):
    """A data set whose item is a function of (seed, key), for keys of any size; see `dataset.EpochSampler`.

    Args:
        data: Entries, one per case.
        transform: All transforms of the data set.
        random: Transforms that are applied to every item, seeded for its key.
        seed: Seed of every random draw.
    """

    def __init__(self, data: Sequence[Any], transform: Compose, random: Compose, seed: int) -> None:
        super().__init__(data=data, transform=transform)
        self.random = random
        self.seed = seed

    @property
    def num_cases(self) -> int:
        """Number of cases in one pass: keys from k * num_cases to (k + 1) * num_cases - 1 are one pass."""
        return len(self.data)

    def __getitem__(self, key: int) -> Any:
        return self.random(self._begin(key))

    def until(self, key: int, wanted: str) -> Any:
        """The value `wanted` of sample `key`, without the random transforms after the one that makes it."""
        sample = self._begin(key)
        for transform in self.random.transforms:
            if wanted in sample:
                break
            sample = transform(sample)
        return sample[wanted]

    @abstractmethod
    def _begin(self, key: int) -> dict[str, Any]:
        """The input of the random transforms of sample `key`, which are seeded for it."""

    def _seed(self, *words: int, stream: int = 0) -> np.random.SeedSequence:
        """Seed the random transforms by (seed, words), in another stream by its number, too.

        Returns the sequence, for other draws. A stream is a spawn key, so that no (seed, words) equals it.
        """
        sequence = np.random.SeedSequence([self.seed, *words], spawn_key=(stream,) if stream else ())
        self.random.set_random_state(seed=int(sequence.generate_state(1)[0]))
        return sequence
