"""How much of Rubik's cube recovery air gives away: `python tests/benchmarks/air_baseline.py dataset_dir`.

A linear map of eight numbers a cube, the share of air in each of its octants, to its two half turns, for each
cell that the cube may come from; the true order is given. The laptop profile's puzzles, the bundle's held-out
cases. Air: the lowest 8 % of the first channel's range.
"""

import sys
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.benchmarks.laptop import laptop_parser

AIR, TRAINING, HELD_OUT = 0.08, 40, 16  # share of the range; puzzles of a case


def octants(parser: Any, part: str, count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Shares of air (n, 8), cells (n,) and turns (n, 2) of the cubes of `count` puzzles of each case."""
    dataset = parser.get_parsed_content(f"{part}#dataset")
    puzzle = dataset.random.transforms[0].set_random_state(seed=0)
    shares, cells, turns = [], [], []
    for case in range(len(dataset.data)):
        image = dataset.volume(case)["image"].as_tensor()[:1]
        air = image < image.min() + AIR * (image.max() - image.min())
        for _ in range(count):
            sample = puzzle({"image": air.float()})
            shares.append(F.adaptive_avg_pool3d(sample["image"], 2).flatten(1))
            cells.append(sample["order"])
            turns.append(sample["turned"].float())
    return torch.cat(shares), torch.cat(cells), torch.cat(turns)


def main() -> None:
    """Fit on the training cases, print the accuracy on the held-out ones."""
    torch.manual_seed(0)
    overrides = {"dataset_dir": sys.argv[1]} if len(sys.argv) > 1 else {}
    parser = laptop_parser("rubiks_cube", **overrides)
    train, held_out = octants(parser, "train", TRAINING), octants(parser, "validate", HELD_OUT)
    count = int(train[1].max()) + 1
    linear = torch.nn.Linear(8, count * 2)

    def logits(shares: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
        return linear(shares).view(-1, count, 2)[torch.arange(len(shares)), cells]

    optimizer = torch.optim.Adam(linear.parameters(), 0.05)
    for _ in range(600):
        optimizer.zero_grad()
        F.binary_cross_entropy_with_logits(logits(*train[:2]), train[2]).backward()
        optimizer.step()
    for name, (shares, cells, turns) in (("training", train), ("held-out", held_out)):
        right = ((logits(shares, cells) > 0) == (turns > 0.5)).float().mean()
        print(
            f"{name} cases: {100 * right:.1f} % of the half turns from the air in eight octants of each cube"
        )


if __name__ == "__main__":
    main()
