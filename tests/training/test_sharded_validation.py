"""A validation in two processes has the figures of one, whatever the number of cases."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from ignite.engine import Engine
from pretext3d.training import processes
from pretext3d.training.processes import ShareBuffers, ShareSampler, gathered, shares
from torch import nn

from tests.training.sharded import SIZES, figures


@pytest.mark.parametrize(
    ("size", "batch_size", "world", "expected"),
    [
        (5, 1, 2, [[0, 2, 4], [1, 3]]),
        (7, 2, 2, [[0, 1, 4, 5], [2, 3, 6]]),
        (4, 4, 1, [[0, 1, 2, 3]]),
        (3, 2, 3, [[0, 1, 2]] * 3),  # two batches, three processes
        (0, 2, 2, [[], []]),
    ],
)
def test_shares_by_hand(size: int, batch_size: int, world: int, expected: list[list[int]]) -> None:
    assert [list(shares(size, batch_size, rank, world)) for rank in range(world)] == expected


def test_sampler_of_one_process_is_the_plain_order() -> None:
    sampler = ShareSampler(range(5), batch_size=2)  # type: ignore[arg-type]
    assert list(sampler) == [0, 1, 2, 3, 4]
    assert len(sampler) == 5


def test_gathered_in_the_order_of_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches 0, 2, 4 of the first process, 1 and 3 of the second."""
    assert gathered([[1], [2]]) == [[1], [2]]
    parts = [["batch 0", "batch 2", "batch 4"], ["batch 1", "batch 3"]]
    monkeypatch.setattr(processes.idist, "all_gather", lambda own: parts)
    assert gathered(parts[0]) == [f"batch {n}" for n in range(5)]


def test_one_process_shares_nothing() -> None:
    ShareBuffers(nn.BatchNorm1d(2)).attach(engine := Engine(lambda engine, batch: None))
    engine.run([0])


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[list[dict[str, float]]], Path]:
    """The figures of two processes, for all SIZES, and the folder of their folders."""
    folder = tmp_path_factory.mktemp("two")
    command = [sys.executable, "-m", "tests.training.sharded"]
    port = str(free_port())
    running = [
        subprocess.Popen(
            [*command, str(rank), "2", port, str(folder / f"rank{rank}")],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
        )
        for rank in (0, 1)
    ]  # fmt: skip
    outputs = [process.communicate(timeout=300) for process in running]
    assert [process.returncode for process in running] == [0, 0], outputs
    lines = [out.splitlines()[-1] for out, _ in outputs]
    assert lines[0] == lines[1]  # every process knows them
    return json.loads(lines[0]), folder


@pytest.mark.parametrize("sizes", SIZES)
def test_two_processes_have_the_figures_of_one(
    two: tuple[list[list[dict[str, float]]], Path], tmp_path: Path, sizes: tuple[int, int]
) -> None:
    """Sums are taken in another order: float32's rounding."""
    alone, found = figures(*sizes, tmp_path), two[0][SIZES.index(sizes)]
    names = ["dice", "loss", "mean", "ignite", "accuracy", "balanced_accuracy", "auc"]
    names += ["feature_std", "effective_rank"]
    for one, both in zip(alone, found, strict=True):
        assert sorted(one) == sorted(both) == sorted(names)
        values = [[row[name] for name in names] for row in (one, both)]
        assert values[1] == pytest.approx(values[0], rel=1e-6, nan_ok=True)
    for name in names:  # the same epoch is the best
        series = [[epoch[name] for epoch in epochs] for epochs in (alone, found)]
        assert series[0].index(max(series[0])) == series[1].index(max(series[1]))
    assert not (two[1] / "rank1").exists()
    for name in ("classification.csv", "confusion_matrix.csv"):
        assert (two[1] / "rank0" / str(sizes[0]) / name).read_text() == (tmp_path / name).read_text()
