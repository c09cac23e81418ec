"""The training step against a bare loop: `python tests/benchmarks/bench_training.py [dataset_dir] [blocks]`.

train.yaml's trainer with the laptop profile, its data loader with one worker process, and every handler that
acts on a step, against the plain PyTorch loop: the same network, loss, optimizer, autocast and layout, on
tensors that are ready. Blocks of both in turn in one run; wall-clock medians. The target: a ratio under 1.10.

Left out, because they act once per epoch: validation, checkpoints, pictures.
"""

import sys
import tempfile
import time
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.benchmarks.laptop import laptop_parser

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
        self.batches = [(image.contiguous(memory_format=torch.channels_last_3d), y) for image, y in batches]
        self.next = 0

    def step(self) -> None:
        image, target = self.batches[self.next % len(self.batches)]
        self.next += 1
        self.optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.bfloat16):
            pred = self.network(image)
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


def main() -> None:
    """Print milliseconds per step and the ratio."""
    dataset_dir = sys.argv[1] if len(sys.argv) > 1 else ""
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 6
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        steps = rounds * (STEPS + UNTIMED) + 1
        parser = laptop_parser(
            dataset_dir=dataset_dir, output_dir=folder, num_workers=1, max_epochs=1, steps_per_epoch=steps
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
        blocks.attach(trainer)
        trainer.run()
    ms = {name: float(np.median(values)) * 1e3 for name, values in blocks.seconds.items()}
    shape = "x".join(map(str, bare.batches[0][0].shape))
    print(f"batch {shape}, {len(blocks.seconds['bare'])} steps of each")
    for clock, suffix in (("wall clock", ""), ("CPU time of the main process", " CPU")):
        ours, theirs = ms[f"trainer{suffix}"], ms[f"bare{suffix}"]
        print(f"{clock}: trainer {ours:.1f} ms, bare {theirs:.1f} ms a step: ratio {ours / theirs:.3f}")
    print(f"of the trainer's step, waiting for data: {ms['waiting for data']:.1f} ms")


if __name__ == "__main__":
    main()
