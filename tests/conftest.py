"""Fixtures for every test: where the real volumes are, and one thread for torch."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

import tests.typecheck  # noqa: F401  the import hook asks for it by name

settings.register_profile("project", derandomize=True, deadline=None, max_examples=20)
settings.load_profile("project")
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with the real volumes; a test that asks for it is skipped where there is none."""
    folder = os.environ.get("PRETEXT3D_REAL_DATA", "")
    if not folder:
        pytest.skip("PRETEXT3D_REAL_DATA is not set: no real volumes here")
    return Path(folder)
