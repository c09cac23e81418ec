"""A jigsaw puzzle in memory and time: `python tests/benchmarks/bench_jigsaw.py [edge]`.

A body of edge^3 voxels (128: the paper's), 27 patches with gaps of 3, against a plain loop that cuts patch by
patch, stacks them and puts them in order. Memory: the peak of a call above what was resident before it, in
copies of the volume, the result included; a loop holds the patches twice. One thread, CPU time.
"""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))
from pretext3d.methods.jigsaw.pretext import RandJigsawd, scramble
from pretext3d.ops.permutations import far_permutations

from tests.benchmarks.laptop import medians
from tests.memory import peak_bytes

GAP, DEFAULT = 3, 128


def loop(
    volume: torch.Tensor, starts: torch.Tensor, order: torch.Tensor, size: tuple[int, ...]
) -> torch.Tensor:
    """Patch by patch, then in order."""
    patches = [
        volume[(slice(None), *(slice(s, s + n) for s, n in zip(start, size, strict=True)))]
        for start in starts.tolist()
    ]
    return torch.stack(patches)[order]


def main(edge: int) -> None:
    """Print copies of the volume, and the ratio of the two ways."""
    torch.set_num_threads(1)
    size = (edge // 3 - GAP,) * 3
    permutations = torch.from_numpy(far_permutations(27, 100))
    transform = RandJigsawd(permutations, 3, size, GAP).set_random_state(seed=0)
    volume = torch.rand(1, *[edge] * 3, generator=torch.Generator().manual_seed(0))
    sample = transform({"image": volume})
    starts, order = sample["starts"], sample["order"]
    del sample
    copy = volume.numel() * volume.element_size()
    got, ours = peak_bytes(lambda: scramble(volume, starts, order, size))
    assert torch.equal(got, loop(volume, starts, order, size))
    del got
    looped = peak_bytes(lambda: loop(volume, starts, order, size))[1]
    whole = peak_bytes(lambda: transform({"image": volume}))[1]
    patches = 27 * size[0] ** 3 / edge**3
    print(
        f"{edge}^3, 27 patches of {size[0]}^3, {patches:.2f} of the volume. At the peak, in copies of it: a "
        f"sample {whole / copy:.2f}, its patches alone {ours / copy:.2f}, by a loop {looped / copy:.2f}"
    )
    fast, slow = medians(
        9, lambda: scramble(volume, starts, order, size), lambda: loop(volume, starts, order, size)
    )
    print(f"cutting {fast:.1f} ms, a loop {slow:.1f} ms: {slow / fast:.2f} times")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT)
