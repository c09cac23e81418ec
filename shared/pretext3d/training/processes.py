"""A run of several processes: how they start, the device of each, and how their networks stay the same."""

import atexit
import itertools
import logging
import os
import sys
from collections.abc import Iterator, Sequence, Sized
from typing import Any, TypeVar

import ignite.distributed as idist
import torch
import torch.distributed as dist
from ignite.engine import Engine, Events
from torch import nn
from torch.utils.data import Sampler

from pretext3d.errors import UserError, install_excepthook

__all__ = [
    "ShareBuffers",
    "ShareSampler",
    "check_launched",
    "distribute",
    "gathered",
    "join",
    "leave",
    "local_device",
]

T = TypeVar("T")

_left: list[int] = []  # process that has finished its run; a fork of it has not


def local_device() -> torch.device:
    """The GPU of this process, by torchrun's LOCAL_RANK; the CPU where there is none."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def check_launched() -> None:
    """Refuse a run of several processes that torchrun has not started.

    Raises:
        UserError: says how to start it.
    """
    install_excepthook()
    if "RANK" not in os.environ:
        raise UserError(
            "multi_gpu_train.yaml is for several processes; start it by torchrun --nproc_per_node 2 -m "
            "monai.bundle run ..., or leave it out"
        )


def join(device: torch.device | str) -> None:
    """Join the other processes: by NCCL on GPUs, by Gloo on CPUs.

    Args:
        device: Device of this process.
    """
    gpu = torch.device(device).type == "cuda"
    if gpu:
        torch.cuda.set_device(device)
    dist.init_process_group(backend="nccl" if gpu else "gloo")
    if not gpu:
        atexit.register(_end_at_once)


def leave() -> None:
    """Part from the other processes, at the end of a run; nothing in a run of one process."""
    if dist.is_initialized():
        _left.append(os.getpid())
    idist.finalize()


def _end_at_once() -> None:
    """End a process whose run is finished before its interpreter takes Gloo's threads down.

    That aborts one process in six or so ("terminate called without an active exception", torch 2.13), also
    after an orderly end of the group, and torchrun then reports a finished run as failed.
    """
    if os.getpid() in _left and getattr(sys, "last_value", None) is None:
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def distribute(network: nn.Module, device: torch.device | str) -> nn.parallel.DistributedDataParallel:
    """The network on its device, with gradients averaged over all processes.

    On GPUs batch norm takes its statistics over all processes (SyncBatchNorm), which does not exist for CPUs.
    """
    if torch.device(device).type != "cuda":
        return nn.parallel.DistributedDataParallel(network)
    synchronised = nn.SyncBatchNorm.convert_sync_batchnorm(network.to(device))
    return nn.parallel.DistributedDataParallel(synchronised, device_ids=[device])


class ShareSampler(Sampler[int]):
    """Order of a validation, of which each process takes its share of the batches: every sample once.

    Process r of w takes the batches r, r + w, ... of a single process, unchanged, so that metrics that are
    reduced over the processes are those of a single process, also where they depend on the batch. Where there
    are fewer batches than processes, each process takes all: a metric needs one batch in every process.

    Args:
        dataset: Data set that is validated.
        batch_size: Number of samples in a batch, the data loader's.

    Examples:
        >>> [list(shares(5, batch_size=2, rank=rank, world=2)) for rank in (0, 1)]
        [[0, 1, 4], [2, 3]]
    """

    def __init__(self, dataset: Sized, batch_size: int) -> None:
        self.size = len(dataset)
        self.batch_size = batch_size

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __iter__(self) -> Iterator[int]:
        return shares(self.size, self.batch_size, idist.get_rank(), idist.get_world_size())


def shares(size: int, batch_size: int, rank: int, world: int) -> Iterator[int]:
    """The samples that one process of several validates; see `ShareSampler`."""
    batches = [range(first, min(first + batch_size, size)) for first in range(0, size, batch_size)]
    return itertools.chain.from_iterable(batches if len(batches) < world else batches[rank::world])


class ShareBuffers:
    """Handler of an evaluator: every process validates with the first one's running statistics.

    On CPUs a batch norm's are of each process' own batches; those of the first one are in the checkpoints.

    Args:
        network: Network that is validated, not wrapped for several processes.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def attach(self, engine: Engine) -> None:
        """Register with the evaluator."""
        engine.add_event_handler(Events.STARTED, self.start)

    def start(self, engine: Engine) -> None:
        """Take the first process' buffers."""
        if idist.get_world_size() > 1:
            for buffer in self.network.buffers():
                dist.broadcast(buffer, src=0)


def gathered(batches: Sequence[T]) -> list[T]:
    """What all processes have found, one entry per batch, in the order of a single process (`ShareSampler`).

    Every process has to make this call. Where each process took all batches, an entry is there several times.
    """
    parts: Any = idist.all_gather(list(batches))
    rounds = itertools.zip_longest(*([[entry] for entry in part] for part in parts), fillvalue=[])
    return [entry for one in rounds for single in one for entry in single]
