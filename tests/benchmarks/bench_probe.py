"""The cost of the probe next to that of training: `python tests/benchmarks/bench_probe.py`.

One probe of the laptop profile on the cases, from volumes in the cache, against the training steps of the two
epochs between two probes: the plain PyTorch loop on tensors that are ready, as in `bench_training`. CPU time
of the process on one thread; medians. Validation, pictures and loading are left out, so that the true share
is smaller.

`--bundles rotation` measures this one alone, `--dataset_dir` takes other cases than the phantom's.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))
from pretext3d.training.probe import Probe

from tests.benchmarks.bench_training import Bare
from tests.benchmarks.laptop import BUNDLES, laptop_parser

STEPS, PROBES = 6, 2  # timed


def cpu_seconds(function: Callable[[], object], count: int) -> float:
    """Median seconds of CPU time, after one call that is not timed."""
    function()
    seconds = []
    for _ in range(count):
        begin = time.process_time()
        function()
        seconds.append(time.process_time() - begin)
    return float(np.median(seconds))


def measure(bundle: str, dataset_dir: str) -> None:
    """Print the seconds and the share of one bundle."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        parser = laptop_parser(bundle, output_dir=folder, num_workers=0, dataset_dir=dataset_dir)
        handlers = [h for h in parser.get("train#handlers") if h["_target_"] == "LrScheduleHandler"]
        parser.set(handlers, "train#handlers")
        trainer, evaluator = (
            parser.get_parsed_content(name) for name in ("train#trainer", "validate#evaluator")
        )
        probe = Probe(parser.get_parsed_content("probe"), evaluator)
        assert probe.settings is not None
        task = probe.choose(trainer, probe.settings)
        if task is None:
            print(f"{bundle}: no case has a label or a class")
            return
        dataset, size = parser.get_parsed_content("train#dataset"), parser.get_parsed_content("batch_size")
        prepare = parser.get_parsed_content("train#prepare_batch")
        batch = torch.utils.data.default_collate([dataset[n] for n in range(size)])
        step = cpu_seconds(Bare(parser, [prepare(batch, torch.device("cpu"))]).step, STEPS)
        one = cpu_seconds(task.measure, PROBES)
        steps = probe.settings.every * parser.get_parsed_content("steps_per_epoch")
    print(
        f"{bundle}: a probe {one:.1f} s, {steps} steps {steps * step:.1f} s: "
        f"{one / (one + steps * step):.1%} of both",
        flush=True,
    )


def main() -> None:
    """Measure one bundle after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    names = sorted(path.name for path in BUNDLES.iterdir() if (path / "configs" / "train.yaml").is_file())
    parser.add_argument("--bundles", nargs="+", default=names, choices=names)
    parser.add_argument("--dataset_dir", default="")
    options = parser.parse_args()
    for bundle in options.bundles:
        measure(bundle, options.dataset_dir)


if __name__ == "__main__":
    main()
