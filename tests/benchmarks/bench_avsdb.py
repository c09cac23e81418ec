"""Volumes of shapes against a slice-by-slice polygon drawing: `python tests/benchmarks/bench_avsdb.py`.

The plain way draws a shape slice by slice: it scales the cross-section's corners by the slice's ratio, fills
the polygon (skimage.draw.polygon), and finds its outline by a binary erosion of two pixels. `again` draws a
shape at every position that it tries, to compare it with what is filled; `once` draws it one time, in the box
around it, and moves it. Random numbers are ours, so that all draw the same volume: that they agree up to the
voxels on boundaries is checked. One thread, CPU time, which other programs' load disturbs less than the
clock. `--short` for small sizes only. The target: at least 40 times the plain way.

The last lines are of a `laptop` training on one thread whose volumes two workers make: the time of a step, of
one batch in one process, and what part of the training's time it waits for the next batch.
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[2]))
from pretext3d.methods.avsdb.placement import windows
from pretext3d.methods.avsdb.shapes import EDGE, Shapes
from pretext3d.methods.avsdb.volumes import ShapeVolumes, Volume
from pretext3d.training.precision import use_bfloat16
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
    shapes: Shapes, number: int, centre: Sequence[int], size: tuple[int, ...], scale: NDArray[np.float64]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """The voxels of a shape and of its outline, in a volume, or in a box, of some size."""
    voxels, outline = np.zeros(size, dtype=bool), np.zeros(size, dtype=bool)
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


def plain_volume(
    volume: Volume, size: tuple[int, ...], once: bool
) -> tuple[NDArray[np.int16], NDArray[np.bool_]]:
    """1 + the number of the shape at each voxel, and the outlines, drawn one slice of one shape at a time."""
    shapes, edges = volume.shapes, np.asarray(size)
    scale = edges / EDGE
    instances, outlines = np.zeros(size, dtype=np.int16), np.zeros(size, dtype=bool)
    reach = np.floor(shapes.reach * scale[:2])
    upright = np.floor(shapes.height / 2 * scale[2])
    for number in np.argsort(-shapes.volume, kind="stable").tolist():
        half = np.asarray([*reach[number], upright[number]]).astype(int)
        box = plain_solid(shapes, number, half.tolist(), tuple(2 * half + 1), scale) if once else None
        lowest = np.asarray([*reach[number], 3 * scale[2]])
        for position in volume.positions[number]:
            centre = np.rint(lowest + position * (edges - 1 - 2 * lowest)).astype(int).tolist()
            inside, own = windows(centre, half.tolist(), size)
            if box is None:
                drawn, inside = plain_solid(shapes, number, centre, size, scale), (slice(None),) * 3
            else:
                drawn = box[0][own], box[1][own]
            voxels, outline = drawn
            here, edge = instances[inside], outlines[inside]
            if (voxels & (here > 0)).sum() < 0.7 * voxels.sum():
                here[voxels], edge[voxels] = number + 1, False
                edge[outline] = True
                break
    return instances, outlines


def compare(size: tuple[int, int, int], samples: int) -> list[float]:
    """Median milliseconds per volume of the two plain ways and of ours."""
    generate = ShapeVolumes(size, z_classes=4)
    times = np.zeros((samples, 3))
    for n in range(samples):
        begin = time.process_time()
        volume: Volume = generate.draw(np.random.default_rng(n))
        sample = generate.render([volume])[0]
        times[n, 2] = time.process_time() - begin
        for way, once in enumerate((False, True)):
            begin = time.process_time()
            instances, outlines = plain_volume(volume, size, once)
            times[n, way] = time.process_time() - begin
            classes = generate.classes(volume.shapes)[::2]
            assert (classes[instances] != sample["label"][0].numpy()).mean() < 0.02
            assert (outlines != (sample["image"][0].numpy() > 0)).mean() < 0.03
    return [float(value) for value in np.median(times, axis=0) * 1e3]


def waiting(steps: int) -> tuple[float, float, float]:
    """Milliseconds of a laptop step and of its batch in one process; the part of a training that is waiting.

    Args:
        steps: Number of steps; the workers' start and the batches that they have made until then do not
            count.
    """
    parser = laptop_parser("avsdb")
    network, loss = parser.get_parsed_content("network_def"), parser.get_parsed_content("loss")
    data, size = parser.get_parsed_content("train#dataset"), parser.get_parsed_content("batch_size")
    bfloat16 = use_bfloat16("auto", torch.device("cpu"))
    items = [data[key] for key in range(size)]
    image, label = (torch.stack([item[key] for item in items]) for key in ("image", "label"))

    def step() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
            logits = network(image)
        loss(logits, {"label": label}).backward()

    def batch() -> None:
        for key in range(size):
            data[key]

    step_ms, batch_ms = medians(min(steps, 7), step, batch)
    loader = torch.utils.data.DataLoader(data, size, num_workers=WORKERS)
    batches, times = iter(loader), np.zeros((steps, 2))
    ahead = 2 * WORKERS  # batches that are ready before the first step ends
    for n in range(-ahead, steps):
        begin = time.perf_counter()
        next(batches)
        made = time.perf_counter()
        step()
        if n >= 0:
            times[n] = made - begin, time.perf_counter() - begin
    part = times.sum(axis=0)
    return step_ms, batch_ms, float(part[0] / part[1])


def main(short: bool = False) -> None:
    """Print milliseconds per volume and their ratios; then those of a step, of its batch, and the waiting."""
    torch.set_num_threads(1)
    print(f"{'size':>12} {'again':>9} {'once':>9} {'ours':>8} {'ratios':>12}")
    sizes = [(48, 48, 48)] if short else [(48, 48, 48), (96, 96, 96), (96, 96, 48), (128, 128, 128)]
    for size in sizes:
        again, once, ours = compare(size, 3 if short else 11)
        ratios = f"{again / ours:.1f}, {once / ours:.1f}"
        print(f"{'x'.join(map(str, size)):>12} {again:9.1f} {once:9.1f} {ours:8.2f} {ratios:>12}", flush=True)
    step, batch, part = waiting(5 if short else 60)
    print(f"laptop: step {step:.0f} ms, batch {batch:.0f} ms; with {WORKERS} workers {part:.1%} waiting")


if __name__ == "__main__":
    main("--short" in sys.argv)
