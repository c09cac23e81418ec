"""What the benchmarks share: the laptop pipeline of a bundle's train.yaml, and timing in turn."""

import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigParser

BUNDLES = Path(__file__).parents[2] / "bundles"


def laptop_parser(bundle: str = "vectorpose", **overrides: Any) -> ConfigParser:
    """The configuration with the laptop profile on a CPU, one thread."""
    warnings.filterwarnings("ignore", message="NvImgCodecPydicomReader")
    torch.set_num_threads(1)
    parser = ConfigParser()
    parser.read_config(str(BUNDLES / bundle / "configs" / "train.yaml"))
    device = "$torch.device('cpu')"
    parser.update({"profile": "laptop", "device": device, "bundle_root": str(BUNDLES / bundle), **overrides})
    return parser


def medians(rounds: int, *functions: Callable[[], object]) -> tuple[float, ...]:
    """Median milliseconds of CPU time of each function, in turn, after one call of each."""
    times = np.zeros((rounds + 1, len(functions)))
    for n in range(rounds + 1):
        for f, function in enumerate(functions):
            begin = time.process_time()
            function()
            times[n, f] = time.process_time() - begin
    return tuple(float(value) for value in np.median(times[1:], axis=0) * 1e3)
