"""`pretext3d env`: what a report of a bug needs, and nothing of the user's."""

import getpass
import sys
from pathlib import Path

import pretext3d
import pytest
import tomllib
from packaging.requirements import Requirement
from pretext3d.__main__ import main
from pretext3d.commands import env

ROOT = Path(__file__).resolve().parents[2]


def test_report(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PRETEXT3D_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(getpass, "getuser", lambda: ROOT.parts[1])
    assert main(["env"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"pretext3d: {pretext3d.__version__}, from a checkout\n")
    assert "\n  cache: ~/cache\n" in said
    assert f"\n  package: /<user>/{Path(*ROOT.parts[2:])}/shared/pretext3d\n" in said
    assert "\n  monai: 1." in said
    assert "\n  precision auto on cpu: " in said


def test_the_kernel_says_who_gets_large_pages(tmp_path: Path) -> None:
    file = tmp_path / "enabled"
    assert env.large_pages(file) == []
    file.write_text("always [madvise] never\n")
    assert env.large_pages(file) == [("large pages of memory", "madvise")]


def test_a_broken_installation_is_reported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "monai.config.deviceconfig", None)
    assert main(["env"]) == 0
    assert "  torch and MONAI: cannot be used: ModuleNotFoundError: " in capsys.readouterr().out


def test_packages_are_those_that_are_declared() -> None:
    project = tomllib.loads((ROOT / "shared" / "pyproject.toml").read_text())["project"]
    declared = {Requirement(line).name for line in project["dependencies"]}
    assert declared <= set(env.PACKAGES)


def test_places(tmp_path: Path) -> None:
    package = tmp_path / "vectorpose" / "pretext3d"
    package.mkdir(parents=True)
    assert env.place_of_package(package) == "unknown"
    (package.parent / "configs").mkdir()
    assert env.place_of_package(package) == "the bundle vectorpose"
    (package / "bundles").mkdir()
    assert env.place_of_package(package) == "a wheel"
