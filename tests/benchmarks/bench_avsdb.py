"""Volumes of shapes against a slice-by-slice polygon drawing: `python tests/benchmarks/bench_avsdb.py`.

The plain way draws a shape slice by slice: it scales the cross-section's corners by the slice's ratio, fills
the polygon (skimage.draw.polygon), and finds its outline by a binary erosion of two pixels. It draws every
shape once for its volume, which decides the order, and at every position that it tries, to compare it with
what is filled. Random numbers are ours, so that both draw the same volume: that they agree up to the voxels
on boundaries is checked. One thread, CPU time, which other programs' load disturbs less than the clock.
`--short` for small sizes only. The target: at least 40 times the plain way.

The last line is a laptop step on one thread against the making of its batch by two workers.
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[2]))
from pretext3d.methods.avsdb.shapes import EDGE, Shapes
from pretext3d.methods.avsdb.volumes import ShapeVolumes, Volume
from scipy import ndimage
from skimage.draw import polygon

from tests.benchmarks.laptop import laptop_parser, medians

CORNERS = 180  # of the polygon that stands for an ellipse
WORKERS = 2


def corners(shapes: Shapes, number: int) -> NDArray[np.float64]:
    """Corners of a cross-section (p, 2), rotated, in voxels of a 96 x 96 x 96 volume."""
    if shapes.is_ellipse[number]:
        turn = np.linspace(0, 2 * np.pi, CORNERS, endpoint=False)
        points = shapes.semi_axes[number] * np.stack([np.cos(turn), np.sin(turn)], axis=1)
    else:
        points = shapes.vertices[number]
    cos, sin = np.cos(shapes.rotation[number]), np.sin(shapes.rotation[number])
    turned: NDArray[np.float64] = points @ np.asarray([[cos, sin], [-sin, cos]])
    return turned


def plain_solid(
    shapes: Shapes, number: int, centre: Sequence[int], size: tuple[int, ...]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """The voxels of a shape and of its outline, in a volume."""
    voxels, outline = np.zeros(size, dtype=bool), np.zeros(size, dtype=bool)
    scale = np.asarray(size) / EDGE
    points, height = corners(shapes, number), shapes.height[number] * scale[2]
    low, middle, high = shapes.ratios[number]
    for k in range(size[2]):
        place = 2 * (k - centre[2]) / height
        if abs(place) > 1:
            continue
        ratio = middle + abs(place) * ((low if place < 0 else high) - middle)
        drawn = points * ratio * scale[:2] + np.asarray(centre[:2])
        mask = np.zeros(size[:2], dtype=bool)
        mask[polygon(drawn[:, 0], drawn[:, 1], size[:2])] = True
        voxels[..., k] = mask
        outline[..., k] = mask & ~ndimage.binary_erosion(mask, iterations=2)
    return voxels, outline


def plain_volume(volume: Volume, size: tuple[int, ...]) -> tuple[NDArray[np.int16], NDArray[np.bool_]]:
    """1 + the number of the shape at each voxel, and the outlines, drawn one slice of one shape at a time."""
    shapes, edges = volume.shapes, np.asarray(size)
    instances, outlines = np.zeros(size, dtype=np.int16), np.zeros(size, dtype=bool)
    middle = [edge // 2 for edge in size]
    volumes = [plain_solid(shapes, number, middle, size)[0].sum() for number in range(len(shapes))]
    reach = np.floor(shapes.reach * edges[:2] / EDGE)
    for number in sorted(range(len(shapes)), key=lambda n: -volumes[n]):
        lowest = np.asarray([*reach[number], 3 * size[2] / EDGE])
        for position in volume.positions[number]:
            centre = np.rint(lowest + position * (edges - 1 - 2 * lowest)).astype(int).tolist()
            voxels, outline = plain_solid(shapes, number, centre, size)
            if (voxels & (instances > 0)).sum() < 0.7 * voxels.sum():
                instances[voxels], outlines[voxels] = number + 1, False
                outlines[outline] = True
                break
    return instances, outlines


def compare(size: tuple[int, int, int], samples: int) -> tuple[float, float, float]:
    """Median milliseconds per volume of the plain drawing and of ours, and their ratio."""
    generate = ShapeVolumes(size, z_classes=4)
    times = np.zeros((samples, 2))
    for n in range(samples):
        begin = time.process_time()
        volume: Volume = generate.draw(np.random.default_rng(n))
        sample = generate.render([volume])[0]
        ours = time.process_time()
        instances, outlines = plain_volume(volume, size)
        times[n] = time.process_time() - ours, ours - begin
        classes = generate.classes(volume.shapes)[::2]
        assert (classes[instances] != sample["label"][0].numpy()).mean() < 0.02
        assert (outlines != (sample["image"][0].numpy() > 0)).mean() < 0.03
    plain_ms, ours_ms = np.median(times, axis=0) * 1e3
    return float(plain_ms), float(ours_ms), float(plain_ms / ours_ms)


def waiting(rounds: int) -> tuple[float, float]:
    """Milliseconds of a laptop step on one thread, and of the making of its batch."""
    parser = laptop_parser("avsdb")
    network, loss = parser.get_parsed_content("network_def"), parser.get_parsed_content("loss")
    data, size = parser.get_parsed_content("train#dataset"), parser.get_parsed_content("batch_size")
    items = [data[key] for key in range(size)]
    image, label = (torch.stack([item[key] for item in items]) for key in ("image", "label"))

    def step() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = network(image)
        loss(logits, {"label": label}).backward()

    def batch() -> None:
        for key in range(size):
            data[key]

    step_ms, batch_ms = medians(rounds, step, batch)
    return step_ms, batch_ms


def main(short: bool = False) -> None:
    """Print milliseconds per volume and their ratio; then those of a step and of its batch."""
    torch.set_num_threads(1)
    print(f"{'size':>12} {'plain':>9} {'ours':>8} {'ratio':>7}")
    sizes = [(48, 48, 48)] if short else [(48, 48, 48), (96, 96, 96), (96, 96, 48), (128, 128, 128)]
    for size in sizes:
        plain, ours, ratio = compare(size, 3 if short else 11)
        print(f"{'x'.join(map(str, size)):>12} {plain:9.1f} {ours:8.2f} {ratio:7.1f}", flush=True)
    step, batch = waiting(2 if short else 7)
    print(f"laptop: step {step:.0f} ms, batch {batch:.0f} ms, by {WORKERS} workers {batch / WORKERS:.0f} ms")


if __name__ == "__main__":
    main("--short" in sys.argv)
