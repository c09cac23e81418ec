"""Several processes: who starts them, and how a finished one ends."""

import sys
from types import SimpleNamespace

import pytest
import torch
from pretext3d.training import processes


def test_local_device_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert processes.local_device() == torch.device("cpu")


def test_a_finished_process_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not before its run is finished, not in a fork of it, and not after an uncaught exception."""
    ended: list[int] = []
    monkeypatch.setattr(processes.os, "_exit", ended.append)
    monkeypatch.setattr(processes, "_left", [])
    monkeypatch.setattr(processes, "logging", SimpleNamespace(shutdown=lambda: None))
    monkeypatch.delattr(sys, "last_value", raising=False)
    processes._end_at_once()
    processes.leave()  # one process alone
    processes._end_at_once()
    assert ended == []
    monkeypatch.setattr(processes.dist, "is_initialized", lambda: True)
    monkeypatch.setattr(processes.idist, "finalize", lambda: None)
    processes.leave()
    processes._end_at_once()
    assert ended == [0]
    monkeypatch.setattr(sys, "last_value", ValueError(), raising=False)
    processes._end_at_once()
    monkeypatch.delattr(sys, "last_value")
    monkeypatch.setattr(processes.os, "getpid", lambda: -1)
    processes._end_at_once()
    assert ended == [0]
