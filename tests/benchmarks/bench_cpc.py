"""CPC's patches encoded in one call against a loop over patches: `python tests/benchmarks/bench_cpc.py`.

One thread; a training step's encoding, forward and backward, of the laptop profile's patches (64 of 16^3,
unet4) and of smaller ones; then the context vectors of all locations at once against a loop over locations.
CPU time, which other programs' load disturbs less than the clock; the variants in turn. --short: small sizes.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from pretext3d.methods.cpc.context import GruContext
from pretext3d.methods.cpc.patches import PatchGrid
from pretext3d.methods.cpc.pretext import CpcNet
from pretext3d.networks.factory import build_backbone

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.benchmarks.laptop import medians


def encoding(edge: int, batch: int) -> tuple[Callable[[], None], Callable[[], None]]:
    """Encode the patches of a batch in one call, and patch by patch."""
    patches = PatchGrid(4, [edge] * 3, edge // 2)
    backbone = build_backbone("unet4", 1, patches.size, encoder_only=True)
    network = CpcNet(
        backbone, patches, code_size=64, context_units=128
    ).eval()  # a loop has no batch statistics
    x = torch.rand(batch, 64, 1, *patches.size)

    def together() -> None:
        network.code(network.patch_features(backbone, x)).sum().backward()

    def one_by_one() -> None:
        for image in x:
            for patch in image:
                network.code(network.patch_features(backbone, patch[None, None])).sum().backward()

    return together, one_by_one


def contexts(batch: int) -> tuple[Callable[[], None], Callable[[], None]]:
    """The context vectors of all locations at once, and of one location after the other."""
    shape = (4, 4, 4)
    network = GruContext(features=64, units=128, shape=shape)
    codes = torch.rand(batch, *shape, 64)
    maps, cell = network.rows, network.cell

    def together() -> None:
        network(codes)

    def one_by_one() -> None:
        padded = torch.nn.functional.pad(codes, (0, 0, 2, 2, 2, 2))
        for i in range(3):
            for j in range(4):
                for k in range(4):
                    state = codes.new_zeros(batch, 128)
                    for row in range(i + 1):
                        w = min(i - row, 2)
                        seen = padded[:, row, j + 2 - w : j + 3 + w, k + 2 - w : k + 3 + w]
                        state = cell(maps[w](seen.permute(0, 3, 1, 2).flatten(1)), state)

    return together, one_by_one


def main() -> None:
    """Print median times and ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--short", action="store_true", help="small sizes, one round")
    short = parser.parse_args().short
    torch.set_num_threads(1)
    rounds = 1 if short else 5
    for edge in (8,) if short else (8, 16):
        ours, loop = medians(rounds, *encoding(edge, batch=1 if short else 2))
        print(
            f"encoding, {edge}^3: one call {ours:.0f} ms, loop {loop:.0f} ms: {loop / ours:.1f} times",
            flush=True,
        )
    ours, loop = medians(rounds, *contexts(batch=8))
    print(f"context of 48 locations: at once {ours:.1f} ms, loop {loop:.1f} ms: {loop / ours:.1f} times")


if __name__ == "__main__":
    main()
