"""Volumes of fractals against a loop over points: `python tests/benchmarks/bench_fractals.py`.

The loop is the plain chaos game: one point, one map after the other, and its voxel. Ours iterates many chains
in one tensor operation per step. Both in turn in one run, on one thread; medians of CPU time.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))
from pretext3d.methods.avsdb.fractals import FractalVolumes

from tests.benchmarks.laptop import medians


def plain(generate: FractalVolumes, number: int, rng: np.random.Generator) -> np.ndarray:
    """An instance without changes, point by point."""
    matrices, offsets, weights = (part[number] for part in generate.systems)
    point, points = np.zeros(3), []
    for step in range(generate.points + 24):
        chosen = rng.choice(len(weights), p=weights)
        point = matrices[chosen] @ point + offsets[chosen]
        if step >= 24:
            points.append(point)
    found = np.asarray(points)
    found = (found - found.min(0)) / (found.max(0) - found.min(0))
    image = np.zeros(generate.size, dtype=np.float32)
    for point in found:
        image[tuple(np.minimum((point * generate.size).astype(int), np.array(generate.size) - 1))] = 1
    return image


def main() -> None:
    """Print milliseconds and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    print(f"{'points, size':20} {'loop ms':>9} {'ours ms':>9} {'ratio':>7}")
    for points, edge in ((10_000, 32), (10_000, 96), (50_000, 96)):
        generate = FractalVolumes((edge,) * 3, num_classes=4, num_points=points)
        rng = np.random.default_rng(0)
        loop, ours = medians(rounds, lambda: plain(generate, 0, rng), lambda: generate.instance(0, rng))  # noqa: B023
        print(f"{f'{points:,}, {edge}^3':20} {loop:9.1f} {ours:9.2f} {loop / ours:7.1f}", flush=True)


if __name__ == "__main__":
    main()
