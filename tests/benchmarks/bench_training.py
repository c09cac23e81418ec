"""The training step of each bundle against a bare loop: `python tests/benchmarks/bench_training.py`.

train.yaml's trainer with the laptop profile, its data loader with one worker process, and every handler that
acts on a step, against the plain PyTorch loop: the same network, loss, optimizer, autocast and layout, on
tensors that are ready. Both compute the convolutions in float32 that oneDNN gets wrong in bfloat16
(`FaultsInFloat32`): a loop without it is faster on small patches, and wrong. Blocks of both in turn in one
run; medians. The mark: 1.05 times the bare loop's CPU time. Wall-clock time also contains what the worker
takes from the same core, and waiting for it.

`--ready` gives the trainer ready batches, too, without a worker: what is left of the ratio is the trainer's,
the rest is what a worker process costs through the cores and the memory that it shares with the training.

`--bundles rotation cpc` measures these alone, `--spatial_dims 2` images and slices, `--dataset_dir` other
cases than the phantom's, `--blocks` more of them. Left out, because they act once per epoch: validation,
checkpoints, pictures, the probe.
"""

import argparse
import sys
import tempfile
import time
from contextlib import nullcontext
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events

sys.path.insert(0, str(Path(__file__).parents[2]))
from pretext3d.training.precision import FaultsInFloat32

from tests.benchmarks.laptop import BUNDLES, laptop_parser

EPOCHLY = ("RunCheckpointer", "ValidationHandler")
STEPS, UNTIMED = 6, 3  # of a block; the worker process empties and fills its queue in the untimed ones


class Bare:
    """The loop without a framework."""

    def __init__(self, parser: Any, batches: list[Any]) -> None:
        self.network = deepcopy(parser.get_parsed_content("network")).train()
        self.loss = parser.get_parsed_content("loss")
        given = parser.get_parsed_content("optimizer")
        same = {key: given.defaults[key] for key in ("lr", "weight_decay", "fused")}
        self.optimizer = type(given)(self.network.parameters(), **same)
        self.bfloat16 = parser.get_parsed_content("train#inferer").enabled
        layouts = {4: torch.channels_last, 5: torch.channels_last_3d}  # as `to_device` sets it for images
        self.batches = [
            (x.contiguous(memory_format=layouts.get(x.ndim, torch.contiguous_format)), y, more, named)
            for x, y, more, named in (self.parts(batch) for batch in batches)
        ]
        self.next = 0

    @staticmethod
    def parts(batch: Any) -> tuple[Any, Any, Any, Any]:
        """Input, target and further arguments of the network, of what `prepare_batch` gives."""
        image, target, more, named = batch if len(batch) == 4 else (*batch, (), {})
        return image, target, more, named

    def step(self) -> None:
        image, target, more, named = self.batches[self.next % len(self.batches)]
        self.next += 1
        self.optimizer.zero_grad()
        guard = FaultsInFloat32() if self.bfloat16 else nullcontext()
        with guard, torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.bfloat16):
            pred = self.network(image, *more, **named)
        self.loss(pred, target).backward()
        self.optimizer.step()


class Blocks:
    """After every block of the trainer's steps, a block of the bare loop's; the seconds of each."""

    def __init__(self, bare: Bare, rounds: int) -> None:
        self.bare, self.rounds, self.count = bare, rounds, 0
        self.marks: dict[str, float] = {}
        self.seconds: dict[str, list[float]] = {
            name: [] for name in ("trainer", "bare", "waiting for data", "trainer CPU", "bare CPU")
        }

    def attach(self, engine: Engine) -> None:
        """Register, behind all other handlers."""
        engine.add_event_handler(Events.GET_BATCH_STARTED, self.mark, "wait")
        engine.add_event_handler(Events.GET_BATCH_COMPLETED, self.waited)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.step_done)

    def mark(self, engine: Engine, name: str) -> None:
        self.marks[name] = time.perf_counter()

    def waited(self, engine: Engine) -> None:
        if self.count >= UNTIMED:
            self.seconds["waiting for data"].append(time.perf_counter() - self.marks["wait"])

    def step_done(self, engine: Engine) -> None:
        if self.count >= UNTIMED:
            self.keep("trainer")
        self.count += 1
        if self.count == UNTIMED + STEPS:
            for n in range(UNTIMED + STEPS):
                self.begin()
                self.bare.step()
                if n >= UNTIMED:
                    self.keep("bare")
            self.count = 0
            self.rounds -= 1
            if self.rounds == 0:
                engine.terminate()
        self.begin()

    def begin(self) -> None:
        self.marks["step"], self.marks["CPU"] = time.perf_counter(), time.process_time()

    def keep(self, name: str) -> None:
        self.seconds[name].append(time.perf_counter() - self.marks["step"])
        self.seconds[f"{name} CPU"].append(time.process_time() - self.marks["CPU"])


def measure(bundle: str, rounds: int, ready: bool = False, **keys: Any) -> None:
    """Print milliseconds per step and the ratio of one bundle.

    Args:
        bundle: Its name.
        rounds: Blocks of steps of either loop.
        ready: No worker process: the trainer's batches are made beforehand.
        keys: Values of train.yaml's keys.
    """
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        steps = rounds * (STEPS + UNTIMED) + 1
        parser = laptop_parser(
            bundle, output_dir=folder, num_workers=1, max_epochs=1, steps_per_epoch=steps, probe=None, **keys
        )
        handlers = parser.get("train#handlers")
        timed = [h for h in handlers if not h["_target_"].endswith(EPOCHLY)]
        for report in (h for h in timed if h["_target_"].endswith("RunReport")):
            report |= {"record": {}, "evaluator": None, "draw": None}
        parser.set(timed, "train#handlers")
        trainer = parser.get_parsed_content("train#trainer")
        dataset = parser.get_parsed_content("train#dataset")
        size = parser.get_parsed_content("batch_size")
        prepare = parser.get_parsed_content("train#prepare_batch")
        items = [
            torch.utils.data.default_collate([dataset[n * size + i] for i in range(size)]) for n in range(4)
        ]
        bare = Bare(parser, [prepare(batch, torch.device("cpu")) for batch in items])
        blocks = Blocks(bare, rounds)
        if ready:
            trainer.data_loader = [items[n % len(items)] for n in range(steps)]
        blocks.attach(trainer)
        trainer.run()
    ms = {name: float(np.median(values)) * 1e3 for name, values in blocks.seconds.items()}
    shape = "x".join(map(str, bare.batches[0][0].shape))
    print(f"{bundle}: batch {shape}, {len(blocks.seconds['bare'])} steps of each", flush=True)
    for clock, suffix in (("CPU time of the main process", " CPU"), ("wall clock", "")):
        ours, theirs = ms[f"trainer{suffix}"], ms[f"bare{suffix}"]
        print(f"  {clock}: trainer {ours:.1f} ms, bare {theirs:.1f} ms a step: ratio {ours / theirs:.3f}")
    print(f"  of the trainer's step, waiting for data: {ms['waiting for data']:.1f} ms", flush=True)


def main() -> None:
    """Measure one bundle after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    names = sorted(path.name for path in BUNDLES.iterdir() if (path / "configs" / "train.yaml").is_file())
    parser.add_argument("--bundles", nargs="+", default=names, choices=names)
    parser.add_argument("--dataset_dir", default="")
    parser.add_argument("--spatial_dims", type=int, default=3, choices=(2, 3))
    parser.add_argument("--blocks", type=int, default=6)
    parser.add_argument("--ready", action="store_true", help="batches of ready tensors for the trainer, too")
    options = parser.parse_args()
    for bundle in options.bundles:
        keys = {"dataset_dir": options.dataset_dir, "spatial_dims": options.spatial_dims}
        measure(bundle, options.blocks, options.ready, **keys)


if __name__ == "__main__":
    main()
