"""Peak memory of inference by classes: `python tests/benchmarks/bench_inference_memory.py [i j k]`.

A volume of 256 x 256 x 160 voxels of 1 mm, resampled to 1.1 mm, by MONAI's evaluator and a network of one
convolution. Each line is a process of its own; its memory is the largest resident size, less that before the
volume. Outputs on the network's grid take classes x voxels x 4 bytes; `at once` is MONAI's Invertd for all
classes, then argmax; `in turn` is `InvertToClassd`, as inference.yaml and evaluate.yaml have it.
"""

import resource
import subprocess
import sys
import time
from typing import Any

import torch
from monai.data import Dataset, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.inferers import SlidingWindowInferer
from monai.transforms import AsDiscreted, Compose, Invertd, Spacingd
from pretext3d.data.loading import PlainOrientationd
from pretext3d.transforms.labels import InvertToClassd
from torch.utils.data import DataLoader

SIZE, PIXDIM = (256, 256, 160), [1.1, 1.1, 1.1]
CLASSES = (3, 41)
AFFINE = torch.diag(torch.tensor([-1.0, -1.0, 1.0, 1.0], dtype=torch.float64))


def peak_gb() -> float:
    """The largest resident size of this process so far, GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def one(way: str, classes: int, size: tuple[int, ...]) -> None:
    """Run one inference, and print its memory and its time."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    before = peak_gb()
    steps = Compose([PlainOrientationd("image"), Spacingd("image", pixdim=PIXDIM, mode="bilinear")])
    turns = [InvertToClassd("pred", steps, "image", {"values": list(range(classes))})]
    inverse = Invertd("pred", steps, orig_keys="image", nearest_interp=False, to_tensor=True)
    after: list[Any] = turns if way == "in turn" else [inverse, AsDiscreted("pred", argmax=True)]
    image = MetaTensor(torch.rand(1, *size), affine=AFFINE)
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset([{"image": image}], steps), collate_fn=collate),
        network=torch.nn.Conv3d(1, classes, 1),
        inferer=SlidingWindowInferer((96, 96, 96), 1, 0.25, mode="gaussian"),
        postprocessing=Compose(after),
    )
    begin = time.process_time()
    evaluator.run()
    voxels = int(torch.tensor(size).prod())
    gb, seconds = peak_gb() - before, time.process_time() - begin
    times = gb * 1e9 / (4 * classes * voxels)
    print(
        f"{classes:3} classes, {way}: {gb:.2f} GB, {times:.1f} x classes x voxels x 4 bytes; {seconds:.0f} s"
    )


def collate(items: list[dict[str, Any]]) -> dict[str, Any]:
    """A batch of one, as MONAI's loader makes it, with what the inverse needs."""
    from monai.data.utils import list_data_collate

    return dict(list_data_collate(items))


def main(size: tuple[int, ...]) -> None:
    """Print one line for each way and number of classes."""
    for classes in CLASSES:
        for way in ("at once", "in turn"):
            words = [sys.executable, __file__, way, str(classes), *map(str, size)]
            subprocess.run(words, check=True)


if __name__ == "__main__":
    if len(sys.argv) == 6:
        one(sys.argv[1], int(sys.argv[2]), tuple(map(int, sys.argv[3:])))
    else:
        main(tuple(map(int, sys.argv[1:])) or SIZE)
