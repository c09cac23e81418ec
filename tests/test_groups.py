"""Groups of tests in several processes: pytest and xdist of the pinned versions have to go together."""

import os

import pytest


def test_tests_that_share_fixtures_are_in_one_process(request: pytest.FixtureRequest) -> None:
    """xdist puts the group at the end of a test's name; without it every process makes every fixture."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        pytest.skip("one process has all tests")
    assert request.node.nodeid.endswith("@test_groups.py")
