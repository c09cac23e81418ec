"""Rotated versions of a batch against a loop of torch.rot90: `python tests/benchmarks/bench_rotation.py`.

The loop rotates one version after the other and stacks them. Both in turn in one run, on one thread; medians
of CPU time. On a CPU a mirrored version costs the loop three copies (`flip`, the rest of `rot90`, `stack`),
ours one; on a GPU (`--device cuda`) it starts kernels for each of batch x versions versions, ours for each
of ten rotations.

`--short` leaves out the large volumes.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))
from pretext3d.ops.rotations import rotated_versions, rotation_classes

ROUNDS = 9


def plain(images: torch.Tensor, classes: torch.Tensor, rotations: list[tuple[int, int]]) -> torch.Tensor:
    """One version after the other."""
    versions = []
    for image, row in zip(images, classes.tolist(), strict=True):
        for number in row:
            axis, turns = rotations[number]
            versions.append(torch.rot90(image, turns, (1 + (axis + 1) % 3, 1 + (axis + 2) % 3)))
    return torch.stack(versions).view(*classes.shape, *images.shape[1:])


def seconds(function: Callable[[], object], device: str) -> float:
    """Time of one call: of the CPU, or of the wall clock until the GPU is done."""
    if device == "cpu":
        begin = time.process_time()
        function()
        return time.process_time() - begin
    torch.cuda.synchronize()
    begin = time.perf_counter()
    function()
    torch.cuda.synchronize()
    return time.perf_counter() - begin


def main() -> None:
    """Print milliseconds and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--short", action="store_true", help="small volumes only")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rng = torch.Generator().manual_seed(0)
    print(f"{'batch, versions, channels, size':34} {'loop ms':>9} {'ours ms':>9} {'ratio':>7}")
    cases = [
        (1, 4, 1, (32,) * 3),
        (4, 4, 1, (32,) * 3),
        (16, 4, 1, (32,) * 3),
        (32, 4, 3, (64,) * 2),
        (1, 4, 1, (128,) * 3),
        (4, 4, 1, (128,) * 3),
    ]
    for batch, versions, channels, size in cases[:4] if options.short else cases:
        rotations = list(rotation_classes(len(size)))
        images = torch.rand(batch, channels, *size, generator=rng).to(options.device)
        classes = torch.randint(len(rotations), (batch, versions), generator=rng)
        ways = (
            lambda i=images, c=classes, r=rotations: plain(i, c, r),
            lambda i=images, c=classes, r=rotations: rotated_versions(i, c, r),
        )
        assert torch.equal(*(way() for way in ways))
        times = np.median([[seconds(way, options.device) for way in ways] for _ in range(ROUNDS)], axis=0)
        loop, ours = times * 1e3
        case = f"{batch}, {versions}, {channels}, {'x'.join(map(str, size))}"
        print(f"{case:34} {loop:9.2f} {ours:9.2f} {loop / ours:7.2f}", flush=True)


if __name__ == "__main__":
    main()
