"""Scharr against scikit-image, medians against SciPy: `python tests/benchmarks/bench_edges.py`.

One thread; CPU time, which other programs' load disturbs less than the clock.
"""

import sys
from pathlib import Path

import scipy.ndimage
import skimage.filters
import torch
from pretext3d.ops.edges import boundary_target, scharr
from pretext3d.ops.medians import median_exact, median_separable

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.benchmarks.laptop import medians


def main(rounds: int = 9) -> None:
    """Print median times and ratios, the variants in turn."""
    torch.set_num_threads(1)
    for edge in (32, 64, 96):
        volume = torch.rand(edge, edge, edge, generator=torch.Generator().manual_seed(0))
        array = volume.numpy()
        ours, skimage_ = medians(
            rounds,
            lambda: scharr(volume),  # noqa: B023
            lambda: skimage.filters.scharr(array),  # noqa: B023
        )
        print(f"{edge}^3 scharr {ours:.2f} ms, scikit-image {skimage_:.2f} ms: {skimage_ / ours:.1f} times")
        exact, separable, target = medians(
            rounds,
            lambda: median_exact(volume),  # noqa: B023
            lambda: median_separable(volume),  # noqa: B023
            lambda: boundary_target(volume),  # noqa: B023
        )
        (scipy_,) = medians(1, lambda: scipy.ndimage.median_filter(array, 5))  # noqa: B023
        print(
            f"{edge}^3 median 5^3 exact {exact:.1f} ms, SciPy {scipy_:.0f} ms: {scipy_ / exact:.1f} times;",
            end=" ",
        )
        print(f"separable {separable:.1f} ms; boundary target {target:.1f} ms", flush=True)


if __name__ == "__main__":
    main()
