"""A run of several processes: how they start, the device of each, and how their networks stay the same."""

import atexit
import logging
import os
import sys

import ignite.distributed as idist
import torch
import torch.distributed as dist
from torch import nn

from pretext3d.errors import UserError, install_excepthook

__all__ = ["check_launched", "distribute", "join", "leave", "local_device"]

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
