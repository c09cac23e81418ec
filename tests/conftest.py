"""For every test: where the real volumes are, one thread for torch, and which tests share a process."""

import compileall
import logging
import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

import tests.typecheck  # noqa: F401  the import hook asks for it by name

settings.register_profile("project", derandomize=True, deadline=None, max_examples=20)
settings.load_profile("project")
torch.set_num_threads(1)


PACKAGE = Path(__file__).resolve().parents[1] / "shared" / "pretext3d"


def pytest_sessionstart(session: pytest.Session) -> None:
    """Compile the package once, not in each of the processes that tests start.

    They would compile it where PYTHONDONTWRITEBYTECODE is set, as in many containers: a quarter of the time
    of a short command line.
    """
    if not hasattr(session.config, "workerinput"):  # not in each process of xdist
        compileall.compile_dir(PACKAGE, quiet=2)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A file's tests of one bundle run in one process, in turn: they share their fixtures."""
    for item in items:
        bundle = getattr(item, "callspec", None) and item.callspec.params.get("bundle", "")
        item.add_marker(pytest.mark.xdist_group(f"{item.path.name} {bundle or ''}"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with the real volumes; a test that asks for it is skipped where there is none."""
    folder = os.environ.get("PRETEXT3D_REAL_DATA", "")
    if not folder:
        pytest.skip("PRETEXT3D_REAL_DATA is not set: no real volumes here")
    return Path(folder)


@pytest.fixture(autouse=True)
def _levels_of_logging() -> None:
    """Whatever level an earlier test of this process has set, each one starts with pytest's."""
    logging.getLogger().setLevel(logging.WARNING)
    for name, logger in logging.Logger.manager.loggerDict.items():
        if name.startswith("pretext3d") and isinstance(logger, logging.Logger):
            logger.setLevel(logging.NOTSET)
