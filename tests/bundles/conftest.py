"""What the tests of single bundles have in common."""

from pathlib import Path

import pytest

from tests.bundles.command import TINY, succeed


@pytest.fixture(scope="module")
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the module's BUNDLE: 2 epochs of 3 steps."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    succeed("train", bundle=request.module.BUNDLE, output_dir=folder, **TINY)
    return folder
