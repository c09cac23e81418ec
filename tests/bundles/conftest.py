"""What the tests of single bundles have in common."""

import os
from pathlib import Path

import pytest
from filelock import FileLock

from tests.bundles.command import TINY, succeed


def trained_once(bundle: str, factory: pytest.TempPathFactory) -> Path:
    """A finished run of a bundle, 2 epochs of 3 steps; every process of the tests only reads it."""
    base = factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "trained_once"
    shared.mkdir(exist_ok=True)
    folder = shared / bundle
    with FileLock(f"{folder}.lock"):
        if not folder.with_suffix(".done").exists():
            succeed("train", bundle=bundle, output_dir=folder, **TINY)
            folder.with_suffix(".done").touch()
    return folder


@pytest.fixture(scope="module")
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`trained_once` of the module's BUNDLE."""
    return trained_once(request.module.BUNDLE, tmp_path_factory)
