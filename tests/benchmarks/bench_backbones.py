"""A training step of some encoders against that of unet4: `python tests/benchmarks/bench_backbones.py`.

One step is a forward and a backward pass of encoder and decoder in float32, all encoders in turn in one run
on one thread; medians of CPU time. Each line states the number of parameters, too.
"""

import argparse
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))
from pretext3d.networks.factory import build_backbone

from tests.benchmarks.laptop import medians

CASES = [(4, (64, 64, 8)), (2, (48, 48, 48)), (2, (64, 64, 64)), (8, (64, 64))]


def main() -> None:
    """Print milliseconds and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encoders", nargs="+", default=["vit_tiny"])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    names = ["unet4", *options.encoders]
    print(f"{'batch, size':16} {'encoder':12} {'parameters':>12} {'ms':>8} {'unet4 = 1':>10}")
    for batch, size in CASES:
        torch.manual_seed(0)
        images = torch.randn(batch, 1, *size)
        networks = [build_backbone(name, 1, size, len(size)) for name in names]
        steps = [lambda n=network, x=images: n(x).square().mean().backward() for network in networks]
        times = medians(options.rounds, *steps)
        for name, network, time in zip(names, networks, times, strict=True):
            count = sum(p.numel() for p in network.parameters())
            case = f"{batch}, {'x'.join(map(str, size))}"
            print(f"{case:16} {name:12} {count:12,} {time:8.0f} {time / times[0]:10.2f}", flush=True)


if __name__ == "__main__":
    main()
