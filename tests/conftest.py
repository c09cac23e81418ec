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


def group_of(item: pytest.Item) -> str:
    """The tests of a file that share their fixtures: all, or those of one bundle."""
    callspec = getattr(item, "callspec", None)
    return f"{item.path.name} {callspec.params.get('bundle', '') if callspec else ''}".strip()


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A group runs in one process, in turn; the slow ones begin, so that none is left at the end."""
    for item in items:
        item.add_marker(pytest.mark.xdist_group(group_of(item)))
    slow = {group_of(item) for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: group_of(item) not in slow)


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
