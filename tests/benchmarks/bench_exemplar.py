"""A pair of views against a plain loop with scipy.ndimage: `python tests/benchmarks/bench_exemplar.py`.

The plain loop goes over views and channels and rotates, zooms and shifts one after the other, as the
functions of scipy.ndimage do; `one affine` joins the three into one `affine_transform`, still per view and
channel. Both are linear, with the same parameters; that they agree is checked. One thread, CPU time, which
other programs' load disturbs less than the clock. `--short` for small sizes only. The target: at least 3
times the plain loop.
"""

import sys
import time

import numpy as np
import torch
from numpy.typing import NDArray
from pretext3d.methods.exemplar.views import RandViewsd, Views, apply_views
from scipy import ndimage


def plain_views(
    image: NDArray[np.float32], views: Views, joined: bool, mode: str = "constant"
) -> NDArray[np.float32]:
    """The views of an image (c, *space), one at a time."""
    results = []
    for matrix, contrast, brightness in zip(
        *(part.numpy().astype(np.float64) for part in views), strict=True
    ):
        centre = (np.asarray(image.shape[1:]) - 1) / 2
        channels = []
        for number, channel in enumerate(image):
            linear, offset = matrix[:, :-1], matrix[:, -1]
            steps = [(linear, offset)] if joined else separate(linear, offset)
            moved = channel
            for part, move in steps:
                at = centre - part @ centre + move
                moved = ndimage.affine_transform(moved, part, at, order=1, mode=mode)
            mean = moved.mean()
            channels.append((moved - mean) * contrast[number] + mean + brightness[number])
        results.append(np.stack(channels))
    return np.stack(results)


def separate(
    linear: NDArray[np.float64], offset: NDArray[np.float64]
) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Rotation with flips, zoom and shift, in the order in which the content undergoes them."""
    dims, none = len(linear), np.zeros(len(linear))
    scale = abs(np.linalg.det(linear)) ** (1 / dims)
    shift = np.linalg.solve(linear, offset)
    return [(linear / scale, none), (scale * np.eye(dims), none), (np.eye(dims), shift)]


def compare(shape: tuple[int, ...], samples: int) -> tuple[float, float, float]:
    """Mean milliseconds per pair of views: the plain loop, the loop with one affine, ours."""
    image = torch.rand(*shape, generator=torch.Generator().manual_seed(0))
    image = torch.from_numpy(ndimage.gaussian_filter(image.numpy(), [0, *[2] * (len(shape) - 1)]))
    transform = RandViewsd(anchor="view", per_channel=True).set_random_state(seed=0)
    times = np.zeros((samples, 3))
    for n in range(samples):
        begin = time.process_time()
        transform({"id": "case", "image": image})
        ours = time.process_time()
        assert transform.views is not None
        plain_views(image.numpy(), transform.views, joined=False)
        plain = time.process_time()
        plain_views(image.numpy(), transform.views, joined=True)
        times[n] = plain - ours, time.process_time() - plain, ours - begin
        found = apply_views(image.expand(2, *image.shape), transform.views).numpy()
        # as ours, this mode interpolates between the outermost voxels and the zeros outside; it is slower
        expected = plain_views(image.numpy(), transform.views, joined=True, mode="grid-constant")
        assert np.abs(found - expected).max() < 1e-3
    plain_ms, joined_ms, ours_ms = np.median(times, axis=0) * 1e3
    return float(plain_ms), float(joined_ms), float(ours_ms)


def main(short: bool = False) -> None:
    """Print milliseconds per pair of views, and the ratios."""
    torch.set_num_threads(1)
    print(f"{'shape':>18} {'plain':>9} {'one affine':>11} {'ours':>8} {'ratios':>12}")
    shapes = [(3, 64, 64), (3, 32, 32, 32), (1, 48, 48, 48)]
    for shape in shapes if short else [*shapes, (3, 192, 192), (1, 128, 128, 128)]:
        plain, joined, ours = compare(shape, 5 if short else 15)
        size = "x".join(map(str, shape))
        print(
            f"{size:>18} {plain:9.2f} {joined:11.2f} {ours:8.2f} {plain / ours:6.1f}{joined / ours:6.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main("--short" in sys.argv)
