"""A full Models Genesis sample against the plain implementation: `python tests/benchmarks/bench_noising.py`.

Each sample draws which operations it has, with the preset's probabilities; both variants do the same ones, in
turn, on one thread; CPU time, which other programs' load disturbs less than the clock. The targets: at least
8 times at 64^3, 6 times at 96^3.
"""

import sys
import time
from pathlib import Path
from random import Random

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))
from pretext3d.transforms.noising import RandGenesisNoised

from tests.reference.plain_noising import plain_genesis


def main(samples: int = 60) -> None:
    """Print mean times a sample and their ratio, for the mix of a preset and for single operations."""
    torch.set_num_threads(1)
    print(f"{'edge':>5} {'operations':24} {'plain ms':>9} {'ours ms':>9} {'ratio':>7}")
    for edge in (32, 64, 96):
        for name, overrides in {
            "full Genesis sample": {},
            "shuffling": {"shuffle_prob": 1, "intensity_prob": 0, "paint_prob": 0},
            "non-linear intensity": {"shuffle_prob": 0, "intensity_prob": 1, "paint_prob": 0},
            "in-painting": {"shuffle_prob": 0, "intensity_prob": 0, "paint_prob": 1, "inpaint_prob": 1},
            "out-painting": {"shuffle_prob": 0, "intensity_prob": 0, "paint_prob": 1, "inpaint_prob": 0},
        }.items():
            plain, ours = compare(edge, overrides, samples if not overrides else samples // 4)
            print(f"{edge:5} {name:24} {plain:9.2f} {ours:9.2f} {plain / ours:7.1f}", flush=True)


def compare(edge: int, overrides: dict[str, float], samples: int) -> tuple[float, float]:
    """Mean milliseconds a sample, plain and ours."""
    draws = Random(0), np.random.RandomState(0)
    image = draws[1].rand(1, edge, edge, edge).astype(np.float32)
    transform = RandGenesisNoised("image", preset="genesis", **overrides).set_random_state(1)
    volume = torch.from_numpy(image)
    for _ in range(5):
        transform({"image": volume})  # the bank of permutations is made once
    times = np.zeros((samples, 2))
    for n in range(samples):
        begin = time.process_time()
        transform({"image": volume})
        middle = time.process_time()
        draw = transform.draw
        inpainted = draw.paint is not None and not draw.paint.keep
        flags = (draw.windows is not None, draw.curve is not None, draw.paint is not None, inpainted)
        plain_genesis(image, *flags, *draws)
        times[n] = time.process_time() - middle, middle - begin
    plain, ours = times.mean(axis=0) * 1e3
    return plain, ours


if __name__ == "__main__":
    main()
