"""Runs of a tiny network that can be killed, for tests of what a resumed run gives.

The network has dropout and batch norm, the optimiser momentum, the order of the data changes from epoch to
epoch: whatever is not kept, or not a function of the epoch, makes a resumed run differ.
"""

import contextlib
import logging
import os
import random
import signal
from pathlib import Path

import numpy as np
import torch
from ignite.engine import Events
from ignite.metrics import Loss
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import LrScheduleHandler, ValidationHandler, from_engine
from monai.optimizers import WarmupCosineSchedule
from pretext3d.training.checkpoint_io import load_checkpoint
from pretext3d.training.checkpointer import RunCheckpointer
from pretext3d.training.length import RunLength
from pretext3d.training.schedules import warmup_cosine
from torch import nn
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

EPOCHS, CASES, BATCH = 4, 12, 4
STEPS = CASES // BATCH
RECORD = {"method": "toy", "channels": 1, "backbone": {"encoder": "toy", "roi_size": [4, 4, 4]}}


class Killed(BaseException):
    """Stands for a kill: not an Exception, so that nothing on the way tidies up after it."""


class Kill:
    """Handler that ends the run in the middle of epoch `epoch`."""

    def __init__(self, epoch, by_signal=False):
        self.iteration = (epoch - 1) * STEPS + 2
        self.by_signal = by_signal

    def attach(self, engine):
        engine.add_event_handler(Events.ITERATION_COMPLETED(once=self.iteration), self)

    def __call__(self, engine):
        if self.by_signal:
            os.kill(os.getpid(), signal.SIGKILL)
        raise Killed


class Losses:
    """Handler that collects the loss and what the global generators give in every iteration."""

    def __init__(self):
        self.values = []

    def attach(self, engine):
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine):
        state = engine.state
        loss = float(state.output[0]["loss"])
        self.values.append((state.epoch, state.iteration, loss, random.random(), np.random.rand()))


def schedule(name, optimizer, epochs):
    if name == "onecycle":
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=epochs * STEPS)
    if name == "warmup_cosine":
        return warmup_cosine(optimizer, epochs * STEPS, 2, 0.1)
    if name == "sawtooth":
        return warmup_cosine(optimizer, epochs * STEPS, 2, 0.1, encoder_start=4)
    if name == "warmup":
        return WarmupCosineSchedule(optimizer, 2, epochs * STEPS)
    if name == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * STEPS)
    return torch.optim.lr_scheduler.MultiStepLR(optimizer, [STEPS, 3 * STEPS])


class Run:
    """A complete run; everything is made again from fixed seeds, as by a new process."""

    def __init__(
        self,
        folder,
        *more,
        epochs=EPOCHS,
        max_steps=None,
        scheduler="onecycle",
        place=0,
        workers=0,
        interval=1,
        **options,
    ):
        torch.manual_seed(0)
        length = RunLength(epochs, max_steps, STEPS)
        epochs = length.epochs
        data = self.make_data()
        self.network = self.make_network()
        self.optimizer = optimizer = self.make_optimizer()
        self.schedule = lr_scheduler = schedule(scheduler, optimizer, epochs)
        sampler = DistributedSampler(data, num_replicas=1, rank=0, shuffle=True, seed=0)
        error = Loss(nn.MSELoss(), output_transform=batch_of(from_engine(["pred", "label"])))
        self.evaluator = SupervisedEvaluator(
            torch.device("cpu"),
            DataLoader(data[:4], batch_size=2),
            self.network,
            key_val_metric={"error": error},
            metric_cmp_fn=lambda new, best: new < best,
        )
        self.losses = Losses()
        arguments = {"record": RECORD, "lr_scheduler": lr_scheduler, "evaluator": self.evaluator}
        arguments |= {"negative_key_metric": True, "length": length, **options}
        self.checkpointer = RunCheckpointer(str(folder), self.network, optimizer, **arguments)
        handlers = [
            ValidationHandler(interval, self.evaluator),
            LrScheduleHandler(lr_scheduler, False, None, False),
        ]
        handlers.insert(place, self.checkpointer)
        self.trainer = SupervisedTrainer(
            torch.device("cpu"),
            epochs,
            DataLoader(data, batch_size=BATCH, sampler=sampler, num_workers=workers),
            self.network,
            optimizer,
            nn.MSELoss(),
            train_handlers=[*handlers, self.losses, *more],
        )
        self.trainer.logger.setLevel(logging.CRITICAL)

    def make_data(self):
        x = torch.randn(CASES, 1, 4, 4, 4)
        return [{"image": x[i], "label": x[i].mean((1, 2, 3))} for i in range(CASES)]

    def make_network(self):
        return nn.Sequential(
            nn.Conv3d(1, 4, 3), nn.BatchNorm3d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(32, 1)
        )

    def make_optimizer(self):
        return torch.optim.AdamW(self.network.parameters(), 0.05)

    def __call__(self):
        with contextlib.suppress(Killed):
            self.trainer.run()
        return self

    @property
    def weights(self):
        return {k: v.clone() for k, v in self.network.state_dict().items()}


def batch_of(transform):
    """Decollated (list of pred, list of label) as two batches."""
    return lambda output: tuple(torch.stack(list(part)) for part in transform(output))


def names(folder):
    return sorted(p.name for p in Path(folder).iterdir())


def assert_equal_files(first, second):
    """Every content of two checkpoints is equal bit for bit."""
    left, right = load_checkpoint(first), load_checkpoint(second)

    def compare(a, b, where):
        assert type(a) is type(b), where
        if isinstance(a, torch.Tensor):
            assert torch.equal(a, b), where
        elif isinstance(a, dict):
            assert list(a) == list(b), where
            for key in a:
                compare(a[key], b[key], f"{where}.{key}")
        elif isinstance(a, list | tuple):
            assert len(a) == len(b), where
            for i, (x, y) in enumerate(zip(a, b, strict=True)):
                compare(x, y, f"{where}[{i}]")
        else:
            assert a == b, where

    compare(left, right, "checkpoint")
