"""For the tests of comparisons: cells that need no Python of their own."""

import threading
from collections.abc import Sequence
from typing import IO

import pytest
from pretext3d.commands.compare.processes import ProcessRunner

from tests.bundles.command import ROOT, SERVER, environment


@pytest.fixture
def forked_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells run in forks of a process that has imported MONAI, one at a time; the log receives their output.

    `test_compare` runs one comparison as users do, with a Python for each cell.
    """
    one_call = threading.Lock()

    def run(self: ProcessRunner, command: Sequence[str], log: IO[str]) -> int:
        module, *words = command[command.index("-m") + 1 :]
        with one_call:
            done = SERVER.run(module, words, ROOT, environment(), timeout=600)
        log.write(done.stdout + done.stderr)
        return done.returncode

    monkeypatch.setattr(ProcessRunner, "_run", run)
