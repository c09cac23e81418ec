"""SLIC in torch against scikit-image: `python tests/benchmarks/bench_supervoxels.py`.

One thread; CPU time, which other programs' load disturbs less than the clock; the two in turn. Quality by
the regions that are known: of the phantom and, with PRETEXT3D_REAL_DATA, of the volumes there, and the means.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from pretext3d.ops.slic import slic
from pretext3d.phantom.phantom import phantom_volume
from pretext3d.transforms.supervoxels import plain_slic
from skimage.transform import resize

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.reference.supervoxel_quality import boundary_recall, under_segmentation_error

SIZE = (160, 216, 155)
REAL = {"brain_lesions": [1, 2], "brain_structures": [0]}  # FLAIR and T1 with contrast; the one there is


def main(rounds: int = 3) -> None:
    """Print median times, their ratio, and the quality of both for each volume."""
    torch.set_num_threads(1)
    print("ours / scikit-image; error: under-segmentation, recall: of borders, within a voxel")
    image, truth = (torch.from_numpy(each) for each in phantom())
    measure("phantom", image, truth.numpy(), (1.0, 1.0, 1.0), rounds)
    measure("phantom in a mask", image, truth.numpy(), (1.0, 1.0, 1.0), 1, truth > 0)
    folder = os.environ.get("PRETEXT3D_REAL_DATA", "")
    for dataset, channels in REAL.items() if folder else ():
        results = [measure(*case, 1) for case in volumes(Path(folder) / dataset, channels)]
        (e, f), (r, q) = np.mean(results, axis=0).tolist()
        print(f"{dataset}, mean: error {e:.4f} / {f:.4f}; recall {r:.4f} / {q:.4f}", flush=True)


def measure(
    name: str,
    image: torch.Tensor,
    truth: np.ndarray,
    spacing: tuple[float, ...],
    rounds: int,
    mask: torch.Tensor | None = None,
) -> tuple[list[float], list[float]]:
    """Print one line for one volume; give both errors and both recalls."""
    times = np.zeros((rounds, 2))
    labels = [np.zeros(0)] * 2
    for n in range(rounds):
        begin = time.process_time()
        labels[0] = slic(image, 400, 0.15, spacing, mask).numpy()
        times[n, 0] = time.process_time() - begin
        begin = time.process_time()
        labels[1] = plain_slic(image, 400, 0.15, spacing, mask)
        times[n, 1] = time.process_time() - begin
    ours, theirs = np.median(times, axis=0)
    error = [under_segmentation_error(each, truth) for each in labels]
    recall = [boundary_recall(each, truth, 1) for each in labels]
    print(
        f"{name} {list(image.shape)}: {ours:.2f} / {theirs:.2f} s, {theirs / ours:.1f} times;"
        f" {labels[0].max()} / {labels[1].max()}; error {error[0]:.4f} / {error[1]:.4f};"
        f" recall {recall[0]:.4f} / {recall[1]:.4f}",
        flush=True,
    )
    return error, recall


def volumes(
    root: Path, channels: list[int]
) -> Iterator[tuple[str, torch.Tensor, np.ndarray, tuple[float, ...]]]:
    """Names, images (c, i, j, k) from about 0 to 1, known regions, and spacing over its geometric mean."""
    for case in json.loads((root / "dataset.json").read_text())["training"]:
        nifti = nib.load(root / case["image"])
        array = np.asarray(nifti.dataobj, dtype=np.float32)
        array = np.moveaxis(array, -1, 0)[channels] if array.ndim == 4 else array[None]
        image = np.stack([np.clip(each / np.quantile(each, 0.999), 0, 1) for each in array])
        truth = np.asarray(nib.load(root / case["label"]).dataobj).astype(np.int64)
        lengths = np.linalg.norm(nifti.affine[:3, :3], axis=0)
        i, j, k = (lengths / lengths.prod() ** (1 / 3)).tolist()
        yield (
            Path(case["image"]).name.split(".")[0],
            torch.from_numpy(image.astype(np.float32)),
            truth,
            (i, j, k),
        )


def phantom() -> tuple[np.ndarray, np.ndarray]:
    """A subject of the phantom at 160 x 216 x 155 with a second, noisier channel."""
    image, truth = phantom_volume(0, 0)
    truth = resize(truth, SIZE, order=0, preserve_range=True, anti_aliasing=False).astype(np.int64)
    first = resize(image / image.max(), SIZE, order=1, anti_aliasing=False)
    second = np.sqrt(first) + 0.03 * np.random.RandomState(0).standard_normal(SIZE)
    return np.stack([first, second]).astype(np.float32), truth


if __name__ == "__main__":
    main()
