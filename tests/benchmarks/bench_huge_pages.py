"""Training steps on a CPU with pages of 2 MiB for tensors, as the package asks for, against pages of 4 KiB.

`python tests/benchmarks/bench_huge_pages.py`: `unet4` with a segmentation layer, AdamW, one thread, CPU time,
in turn. torch asks for such pages with THP_MEM_ALLOC_ENABLE=1, which a process reads at its first tensor:
each measurement is a fork. `--short` for one small size and few steps.
"""

import multiprocessing
import os
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))
from pretext3d.networks.axis_order import axis_to_swap

from tests.benchmarks.bench_axis_order import step
from tests.benchmarks.laptop import medians

SIZES = {(64, 64, 8): 4, (64, 64, 64): 2, (96, 96, 96): 1}  # with the batch size
PAGES = ("0", "1")  # 4 KiB, 2 MiB
KERNEL = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def measure(pages: str, size: tuple[int, ...], batch_size: int, steps: int) -> float:
    """Median milliseconds of a step; in a process that has made no tensor yet."""
    os.environ["THP_MEM_ALLOC_ENABLE"] = pages
    torch.set_num_threads(1)
    return medians(steps, step(size, batch_size, axis_to_swap))[0]


def main(short: bool = False) -> None:
    """Print milliseconds per step with both pages, and their ratio."""
    rounds, steps = (1, 1) if short else (3, 5)
    kernel = KERNEL.read_text().strip() if KERNEL.exists() else "not there"
    print(f"{KERNEL}: {kernel}")  # never: no difference
    forks = multiprocessing.get_context("fork")
    for size, batch_size in ({(16, 16, 8): 2} if short else SIZES).items():
        times = np.zeros((rounds, len(PAGES)))
        for one in times:
            for number, pages in enumerate(PAGES):
                with forks.Pool(1) as pool:
                    one[number] = pool.apply(measure, (pages, size, batch_size, steps))
        small, large = np.median(times, axis=0)
        name = "x".join(map(str, size))
        print(f"{name:>10}: 4 KiB {small:5.0f} ms, 2 MiB {large:5.0f} ms, {small / large:.2f}", flush=True)


if __name__ == "__main__":
    main("--short" in sys.argv)
