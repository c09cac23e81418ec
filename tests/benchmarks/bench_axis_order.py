"""Training steps with the last axis and the longest one swapped, against plain ones.

`python tests/benchmarks/bench_axis_order.py`: `unet4` with a segmentation layer, AdamW, one thread, CPU time,
in bfloat16 where the CPU has it. `--short` for one size and few steps.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from monai.losses import DiceCELoss
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[2]))
from pretext3d.networks import unet
from pretext3d.networks.axis_order import LAST, axis_to_swap
from pretext3d.networks.factory import build_backbone
from pretext3d.networks.segmentation import SegmentationNet
from pretext3d.training.precision import AutocastInferer, to_device

from tests.benchmarks.laptop import medians

CLASSES = 4
SIZES = {(64, 64, 8): 4, (64, 32, 8): 4, (96, 96, 8): 2}  # with the batch size


def step(
    size: tuple[int, ...], batch_size: int, choose: Callable[[nn.Module, torch.Tensor], int]
) -> Callable[[], None]:
    """A training step that swaps the axis that `choose` returns."""
    torch.manual_seed(0)
    network = to_device(SegmentationNet(build_backbone("unet4", 1, size), CLASSES), "cpu")
    image, label = torch.randn(batch_size, 1, *size), torch.randint(CLASSES, (batch_size, 1, *size))
    loss, infer = DiceCELoss(to_onehot_y=True, softmax=True), AutocastInferer("auto", "cpu")
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)

    def run() -> None:
        unet.axis_to_swap = choose
        loss(infer(image, network), label).backward()
        optimizer.step()
        optimizer.zero_grad()

    return run


def main(short: bool = False) -> None:
    """Print milliseconds per step, plain and swapped, and their ratio."""
    torch.set_num_threads(1)
    sizes = {(16, 16, 8): 2} if short else SIZES
    for size, batch_size in sizes.items():
        plain, ours = medians(
            2 if short else 9,
            step(size, batch_size, lambda network, x: LAST),
            step(size, batch_size, axis_to_swap),
        )
        name, ratio = "x".join(map(str, size)), plain / ours
        print(f"{name:>10}: plain {plain:5.0f} ms, swapped {ours:5.0f} ms, {ratio:.2f}")


if __name__ == "__main__":
    main("--short" in sys.argv)
