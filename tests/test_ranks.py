"""Tests of which of several processes this one is, before and after they have met."""

import os
import subprocess
import sys

import pytest
from pretext3d.ranks import is_first, launched_rank

# two processes: what each knows before they meet, while they are a group, and after it
PROCESS = """
import os, sys
import torch.distributed as dist
import ignite.distributed as idist
from pretext3d.ranks import is_first, launched_rank
os.environ.update(RANK=sys.argv[1], LOCAL_RANK=sys.argv[1], WORLD_SIZE="2")
assert (idist.get_rank(), idist.get_world_size(), launched_rank()) == (0, 1, int(sys.argv[1]))
assert is_first() == (sys.argv[1] == "0")
dist.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=int(sys.argv[1]), world_size=2)
assert (idist.get_rank(), idist.get_world_size()) == (int(sys.argv[1]), 2)
os.environ["RANK"] = "7"
assert is_first() == (sys.argv[1] == "0")
idist.barrier()
idist.finalize()
assert (idist.get_rank(), idist.get_world_size()) == (0, 1)
"""


@pytest.mark.parametrize(("given", "rank", "first"), [(None, None, True), ("0", 0, True), ("3", 3, False)])
def test_before_the_processes_meet(
    monkeypatch: pytest.MonkeyPatch, given: str | None, rank: int | None, first: bool
) -> None:
    monkeypatch.delenv("RANK", raising=False)
    if given is not None:
        monkeypatch.setenv("RANK", given)
    assert launched_rank() == rank
    assert is_first() == first


def test_two_processes(tmp_path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    both = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", PROCESS, rank, str(tmp_path / "store")],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]
    errors = [process.communicate(timeout=120)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
