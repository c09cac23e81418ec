"""Samples of relative patch location: `python tests/benchmarks/bench_relative_patch_location.py`.

Ours is the random part of the pipeline, on a cached body. Two plain ways with a loop over the patches: one
cuts all 27 from the same body, puts each at a random place in its cell and changes its brightness and
contrast with scikit-image; the other makes the complete sample each time, the body's box by scipy.ndimage
and its resize by scikit-image included, as a data set without a cache does. The paper's sizes are the
default: a body of 128^3, cells of 42, patches of 39; --edge 64 is the laptop's. One thread, CPU time; the two
short ways are called 20 times in a row, as the samples of a batch are made.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.ndimage
import skimage.exposure
import skimage.transform
import torch
from pretext3d.methods.relative_patch_location.pretext import RandRelativePatchesd

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.benchmarks.laptop import medians

THRESHOLD, CUES = 0.05, 0.2
CALLS = 20  # of a short way, timed together


def change(box: np.ndarray, random: np.random.RandomState) -> np.ndarray:
    """Brightness and contrast of one patch: its range is stretched about its mean, then moved."""
    low, high, mean = box.min(), box.max(), box.mean()
    factor, shift = random.uniform(1 - CUES, 1 + CUES), random.uniform(-CUES, CUES)
    limits = (mean + factor * (low - mean) + shift, mean + factor * (high - mean) + shift)
    return skimage.exposure.rescale_intensity(box, (low, high), limits)


def cut(
    body: np.ndarray, patch: int, gap: int, random: np.random.RandomState, cues: bool
) -> tuple[np.ndarray, int]:
    """All patches in a loop; the centre and one query of them, and the query's location."""
    cell, size = patch + gap, 3 * (patch + gap)
    corner = [random.randint(n - size + 1) for n in body.shape]
    patches = []
    for i in range(3):
        for j in range(3):
            for k in range(3):
                low = [c + n * cell + random.randint(gap + 1) for c, n in zip(corner, (i, j, k), strict=True)]
                box = body[tuple(slice(start, start + patch) for start in low)]
                patches.append(change(box, random) if cues else box.copy())
    query = random.randint(26)
    return np.stack([patches[13], patches[query + (query >= 13)]]), query


def whole(
    volume: np.ndarray, edge: int, patch: int, gap: int, random: np.random.RandomState, cues: bool
) -> np.ndarray:
    """From the volume as it is read to the two patches."""
    unit = (volume - volume.min()) / (volume.max() - volume.min())
    (box,) = scipy.ndimage.find_objects((unit > THRESHOLD).astype(np.uint8))
    body = skimage.transform.resize(unit[box], (edge,) * 3, order=1, anti_aliasing=True)
    return cut(body.astype(np.float32), patch, gap, random, cues)[0]


def repeat(make: Callable[[], object]) -> None:
    """Make some samples, one after the other."""
    for _ in range(CALLS):
        make()


def main(rounds: int = 7) -> None:
    """Print median times and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edge", type=int, default=128, help="of the body, in voxels")
    edge = parser.parse_args().edge
    torch.set_num_threads(1)
    gap = max(1, edge // 42)
    patch = edge // 3 - gap
    random = np.random.RandomState(0)
    volume = np.zeros((int(1.25 * edge),) * 3, dtype=np.float32)
    inside = (slice(edge // 8, -(edge // 8)),) * 3
    volume[inside] = 0.1 + random.rand(*volume[inside].shape).astype(np.float32)
    body = torch.rand(1, edge, edge, edge, generator=torch.Generator().manual_seed(0))
    array = body[0].numpy()
    for queries, cues in ((1, False), (7, False), (1, True), (7, True)):
        strength = CUES if cues else 0.0
        ours = RandRelativePatchesd(
            3, (patch,) * 3, gap, queries=queries, brightness=strength, contrast=strength
        ).set_random_state(seed=0)
        fast, loop, complete = medians(
            rounds,
            lambda: repeat(lambda: ours({"image": body})),  # noqa: B023
            lambda: repeat(lambda: cut(array, patch, gap, random, cues)),  # noqa: B023
            lambda: whole(volume, edge, patch, gap, random, cues),  # noqa: B023
        )
        fast, loop = fast / CALLS, loop / CALLS
        changed = ", brightness and contrast changed" if cues else ""
        print(
            f"body {edge}^3, patches {patch}^3, {queries} of 26 queries{changed}: ours {fast:.2f} ms; a loop "
            f"over the patches {loop:.2f} ms, {loop / fast:.1f} times; with the body's box and resize "
            f"{complete:.0f} ms, {complete / fast:.0f} times",
            flush=True,
        )


if __name__ == "__main__":
    main()
