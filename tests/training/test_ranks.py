"""What the handlers of a run write in the second of several processes: nothing."""

from pathlib import Path

import pytest
from pretext3d.training import checkpointer, history

from tests.training import runs, test_history


@pytest.mark.parametrize("rank", [0, 1])
def test_checkpoints_are_the_first_ones_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rank: int
) -> None:
    monkeypatch.setattr(checkpointer.idist, "get_rank", lambda: rank)
    run = runs.Run(tmp_path / "run")()
    assert run.checkpointer.done_epoch == runs.EPOCHS
    assert (tmp_path / "run" / "final.pt").exists() == (rank == 0)
    assert (list(tmp_path.iterdir()) == []) == (rank == 1)


@pytest.mark.parametrize("rank", [0, 1])
def test_metrics_are_the_first_ones_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rank: int) -> None:
    monkeypatch.setattr(history.idist, "get_rank", lambda: rank)
    test_history.Run(tmp_path / "metrics.csv").train(2)
    lines = (tmp_path / "metrics.csv").read_text().splitlines() if rank == 0 else []
    assert len(lines) == (3 if rank == 0 else 0)
    assert (tmp_path / "metrics.csv").exists() == (rank == 0)
