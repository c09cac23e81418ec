"""A pretext task without anatomy: `python tests/benchmarks/air_baseline.py BUNDLE [--key value ...]`.

What `pretext3d doctor --baseline` measures (see `pretext3d.commands.doctor.anatomy`), without a run, with
the laptop profile. --parts 3 describes thirds instead of halves, --air_only True leaves the means out; every
other --key value overrides a key of train.yaml: --dataset_dir HEADS, --spatial_dims 2.
"""

import sys
from pathlib import Path

import torch
from pretext3d.commands.doctor.anatomy import MEASURES, baseline
from pretext3d.commands.parser import read_overrides
from pretext3d.errors import install_excepthook

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.benchmarks.laptop import laptop_parser

OWN = {"parts": 2, "air_only": False}  # options of this program, and their defaults


def main() -> None:
    """Print the measure of one bundle on one data set."""
    install_excepthook()
    words = sys.argv[1:]
    if not words or words[0] not in MEASURES:
        sys.exit(f"{__doc__}\nbundles: {', '.join(MEASURES)}")
    options = {**OWN, **read_overrides(words[1:])}
    own = {name: options.pop(name) for name in OWN}
    torch.manual_seed(0)
    print(f"{words[0]}, held-out cases: {baseline(words[0], laptop_parser(words[0], **options), **own).text}")


if __name__ == "__main__":
    main()
