"""How far apart 100 permutations are: `python tests/benchmarks/permutation_distances.py`.

Smallest Hamming distances of those that `far_permutations` gives, of a greedy choice out of 20,000 random
ones, and of random ones, mean of 300 sets.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "shared"))
from pretext3d.ops.permutations import POOL, far_permutations, minimum_distance

COUNT, SETS = 100, 300


def random_permutations(cells: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """(count, cells), each drawn by itself."""
    return rng.permuted(np.tile(np.arange(cells), (count, 1)), axis=1)


def greedy(pool: np.ndarray, count: int) -> np.ndarray:
    """One after the other, each with the largest minimum distance to those before."""
    chosen, nearest = [0], (pool != pool[0]).sum(1)
    while len(chosen) < count:
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, (pool != pool[chosen[-1]]).sum(1))
    return pool[chosen]


def main() -> None:
    """Print a line for each grid."""
    for cells in (8, 27):
        rng = np.random.default_rng(0)
        ours = minimum_distance(far_permutations(cells, COUNT))
        pool = minimum_distance(greedy(random_permutations(cells, POOL, rng), COUNT))
        drawn = np.mean([minimum_distance(random_permutations(cells, COUNT, rng)) for _ in range(SETS)])
        print(f"{cells} cells: {ours}; greedy over random ones {pool}; random {drawn:.1f}")


if __name__ == "__main__":
    main()
