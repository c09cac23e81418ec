"""What learns nothing, at supervoxel in-painting: `python tests/benchmarks/inpainting_baseline.py data`.

The laptop profile's held-out tiles, eight a case. Harmonic interpolation: each hidden voxel is the mean of
its six neighbours, from the visible voxels at the region's surface inwards. And how many of all cases'
regions are one connected part.
"""

import sys
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from skimage.measure import label

sys.path.insert(0, str(Path(__file__).parents[2]))
from pretext3d.methods.supervoxel_inpainting.pretext import masked_mse, mean_fill_mse, tile_fill_mse

from tests.benchmarks.laptop import laptop_parser

CROPS, SWEEPS = 8, 2000


def harmonic(tile: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The tile (1, c, i, j, k) with its hidden region filled in; the tile's faces are mirrors."""
    hidden = torch.nonzero(mask[0, 0])
    low, high = (hidden.amin(0) - 1).clamp(min=0).tolist(), (hidden.amax(0) + 2).tolist()
    box = (..., *(slice(a, b) for a, b in zip(low, high, strict=True)))
    x, inside = tile[box].clone(), mask[box]
    for _ in range(SWEEPS):
        near = F.pad(x, [1] * 6, mode="replicate")
        i, j, k = near[..., 1:-1, 1:-1], near[..., 1:-1, :, 1:-1], near[..., 1:-1, 1:-1, :]
        total = (
            i[..., 2:, :, :] + i[..., :-2, :, :] + j[..., 2:, :] + j[..., :-2, :] + k[..., 2:] + k[..., :-2]
        )
        x = torch.where(inside, total / 6, x)
    filled = tile.clone()
    filled[box] = x
    return filled


def connected(dataset: Any) -> tuple[int, int]:
    """Regions of one part, and all regions, of the cases of a data set."""
    regions = [dataset.volume(case)["regions"].numpy()[0] for case in range(len(dataset.data))]
    parts = [
        label(each == number, connectivity=1).max() for each in regions for number in range(1, each.max() + 1)
    ]
    return sum(part == 1 for part in parts), len(parts)


def main() -> None:
    """Print the errors and the counts."""
    overrides = {"dataset_dir": sys.argv[1]} if len(sys.argv) > 1 else {}
    parser = laptop_parser("supervoxel_inpainting", val_crops=CROPS, **overrides)
    dataset = parser.get_parsed_content("validate#dataset")
    errors = []
    for key in range(len(dataset)):
        label_of = {name: dataset[key][name][None] for name in ("clean", "mask", "inside")}
        fills = {"pred": harmonic(dataset[key]["image"][None], label_of["mask"]), "label": label_of}
        errors.append([float(each(fills)) for each in (masked_mse, mean_fill_mse, tile_fill_mse)])
    ours, flat, chance = torch.tensor(errors).mean(0).tolist()
    print(
        f"{len(errors)} regions: harmonic {ours:.4f}, {ours / flat:.2f} of a flat fill {flat:.4f}; "
        f"chance {chance:.4f}"
    )
    whole, count = map(
        sum, zip(connected(dataset), connected(parser.get_parsed_content("train#dataset")), strict=True)
    )
    print(f"{count - whole} of {count} regions are not connected")


if __name__ == "__main__":
    main()
