"""tools/verify.py: a good bundle passes, and each thing that is wrong with a bad one is named."""

import argparse
import hashlib
import json
import shutil
import socket
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pretext3d.errors import UserError
from pretext3d.publishing.archive import unpack
from pretext3d.publishing.weights import write_weights
from pretext3d.training.checkpoint_io import load_checkpoint
from pretext3d.training.safe_weights import write_safetensors

from tests.labelled import write_labelled

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))  # as when the tool is run

import pack  # noqa: E402
import verify  # noqa: E402
import verify_files as files  # noqa: E402
import verify_runs as runs  # noqa: E402

CURRENT = argparse.Namespace(environment="current", dataset_dir="", files_only=False)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real bundle's zip."""
    folder = tmp_path_factory.mktemp("dist")
    return pack.pack(ROOT / "bundles" / "vectorpose", folder).path


@pytest.fixture
def bundle(packed: Path, tmp_path: Path) -> Path:
    """The same, unpacked."""
    unpack(packed, tmp_path / "vectorpose", "vectorpose")
    return tmp_path / "vectorpose"


def failed(bundle: Path, source: Path | None = None) -> dict[str, str]:
    """The checks of the files that fail, and what they say."""
    results = files.check_files(bundle, source or bundle)
    return {result.check: result.text for result in results if result.status == "failed"}


def change(bundle: Path, name: str = "configs/metadata.json", /, **changes: Any) -> None:
    file = bundle / name
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


# -------------------------------------------------------------------------------------------------- files
def test_good_bundle_passes(packed: Path, bundle: Path) -> None:
    assert failed(bundle, packed) == {}
    assert failed(bundle) == {}


def test_metadata_needs_no_network(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The schema is the copy next to the tool."""

    def refused(*arguments: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    assert files.check_metadata(bundle).status == "passed"
    assert set(failed(ROOT / "bundles" / "vectorpose")) == {"files"}  # not packed, but its metadata are valid


def append(bundle: Path, name: str, text: str) -> None:
    (bundle / name).parent.mkdir(parents=True, exist_ok=True)
    with (bundle / name).open("a") as file:
        file.write(text)


def other_weights(bundle: Path) -> None:
    write_weights(bundle / "models" / "model.pt", {"x": torch.ones(1)})


def other_record(bundle: Path) -> None:
    content = load_checkpoint(bundle / "models" / "model.pt")
    write_safetensors(
        bundle / "models" / "model.pt", content["network"], {**content["record"], "channels": 2}
    )


SLASH = "/"
BROKEN: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "no licence": (lambda b: (b / "LICENSE").unlink(), "files", "no LICENSE"),
    "empty licence": (lambda b: (b / "LICENSE").write_text(" \n"), "files", "an empty LICENSE"),
    "no json": (lambda b: (b / "configs" / "train.json").unlink(), "files", "no configs/train.json"),
    "old json": (lambda b: append(b, "configs/train.yaml", "\nmore: 1\n"), "files", "json that differs"),
    "no package": (lambda b: shutil.rmtree(b / "pretext3d"), "files", "no pretext3d/__init__.py"),
    "runs": (lambda b: append(b, "runs/log.txt", "x"), "leftovers, sizes", "runs/log.txt"),
    "bytecode": (lambda b: append(b, "pretext3d/a.pyc", "x"), "leftovers, sizes", "pretext3d/a.pyc"),
    "draft": (lambda b: append(b, "models/epoch_0002.pt", "x"), "leftovers, sizes", "models/epoch_0002.pt"),
    "hidden": (lambda b: append(b, "docs/.x", "x"), "leftovers, sizes", "docs/.x"),
    "large": (lambda b: append(b, "models/large.pt", "x" * 26 * 10**6), "leftovers, sizes", "(26 MB)"),
    "home": (lambda b: append(b, "docs/a.md", f"in {SLASH}home/me/x"), "machine paths", f"{SLASH}home/me/x"),
    "windows": (lambda b: append(b, "docs/a.md", "C:" + r"\Users\me"), "machine paths", r"\Users\me in docs"),
    "scratch": (lambda b: append(b, "docs/a.md", f"{SLASH}scratch/me"), "machine paths", "scratch/me in"),
    "weights": (
        lambda b: torch.save({"data": f"{SLASH}tmp/run/x"}, b / "models" / "more.pt"),
        "machine paths",
        "in models/more.pt",
    ),
    "other weights": (
        lambda b: (b / "models" / "model.pt").write_bytes(b"x"), "provenance", "with another model.pt: found",
    ),
    "other weights in both forms": (other_weights, "provenance", "sha256: found"),
    "one form forgotten": (
        lambda b: (b / "models" / "model.safetensors").unlink(), "provenance", "expected none: there is no",
    ),
    "safetensors that no card has": (
        lambda b: change(b, "models/provenance.json", sha256_safetensors="0"), "provenance",
        "sha256_safetensors: found '0', expected",
    ),
    "another record": (other_record, "provenance", "the record differs from that of model.pt"),
    "no card": (lambda b: (b / "models" / "README.md").unlink(), "provenance", "models/README.md: not found"),
    "licence of the weights": (
        lambda b: change(b, "models/provenance.json", licence=""), "provenance", "licence: found ''",
    ),
    "latin-1 licence": (
        lambda b: (b / "LICENSE").write_bytes(b"\xe9\xe9"), "files", "'utf-8' codec can't decode",
    ),
    "link": (
        lambda b: (b / "docs" / "x.md").symlink_to("nowhere"), "leftovers, sizes", "docs/x.md (a link)",
    ),
    "shadow": (lambda b: append(b, "torch/__init__.py", "x"), "leftovers, sizes", "torch/__init__.py (exp"),
    "editor": (lambda b: append(b, "docs/a.md.orig", "x"), "leftovers, sizes", "docs/a.md.orig"),
    "before": (
        lambda b: append(b, "models/model_previous.pt", "x"), "leftovers, sizes", "models/model_previous.pt",
    ),
    "device": (lambda b: append(b, "docs/nul.md", "x"), "leftovers, sizes", "docs/nul.md (a device's"),
    "schema": (lambda b: change(b, task=None), "metadata schema", "task: None is not of type 'string'"),
    "other schema": (lambda b: change(b, schema="https://x.org/y.json"), "metadata schema", "schema: found"),
    "changelog": (lambda b: change(b, version="9.0.0"), "versions", "found 9.0.0, expected one that"),
    "changelog as text": (
        lambda b: change(b, changelog="0.1.0"), "versions; metadata schema", "changelog: found str",
    ),
    "option": (
        lambda b: change(b, required_packages_version={"--index-url=x": "1"}), "versions", "'--index-url=x'",
    ),
    "list": (
        lambda b: change(b, required_packages_version=["a==1"]), "versions; metadata schema", "found list",
    ),
    "no json at all": (
        lambda b: append(b, "configs/metadata.json", "}"), "metadata schema; versions", "is not JSON",
    ),
    "requirements": (lambda b: append(b, "requirements.txt", "x==1\n"), "versions", "a requirements.txt"),
    "range": (lambda b: change(b, monai_version=">=1.6"), "versions", "version of monai: found '>=1.6'"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_wrong_with_the_files_is_named(bundle: Path, name: str) -> None:
    spoil, check, expected = BROKEN[name]
    spoil(bundle)
    found = failed(bundle)
    checks = check.split("; ")
    assert set(found) == set(checks)
    assert expected in found[checks[0]]
    assert str(bundle) not in found[checks[0]]


def test_paths_that_are_relative_are_none(bundle: Path) -> None:
    paths = "data@home@x .@tmp@y $HOME@work@z https:@@example.org@home@x ~@tmp@x C:" + r"\n"
    append(bundle, "docs/a.md", paths.replace("@", "/"))  # not spelt out: they are no paths of this project
    assert failed(bundle) == {}


def test_zip_of_another_version_or_digest(packed: Path, bundle: Path, tmp_path: Path) -> None:
    other = Path(shutil.copy(packed, tmp_path / "vectorpose_v0.2.0.zip"))
    assert set(failed(bundle, other)) == {"archive", "versions"}  # no digest next to it
    (tmp_path / f"{other.name}.sha256").write_text(f"{'0' * 64}  {other.name}\n")
    assert hashlib.sha256(packed.read_bytes()).hexdigest() in failed(bundle, other)["archive"]


# ------------------------------------------------------------------------------------------------ the command
def called(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    """Exit code and table of a call in this process."""
    code = verify.main([*map(str, words), "--files_only"])
    return code, capsys.readouterr().out


def test_exit_code_and_table(packed: Path, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, table = called(capsys, packed)
    assert code == 0
    assert "7 passed, 0 failed, 0 skipped" in table
    (bundle / "LICENSE").unlink()
    code, table = called(capsys, bundle, packed)
    assert code == 1
    assert "12 passed, 1 failed, 0 skipped" in table
    assert "found no LICENSE; expected what tools/pack.py writes" in table


def test_table_is_printed_whatever_is_wrong(packed: Path, bundle: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken_v0.1.0.zip"
    broken.write_bytes(packed.read_bytes()[:10_000])
    (bundle / "configs" / "metadata.json").unlink()
    (bundle / "configs" / "metadata.json").mkdir()
    (bundle / "configs" / "inference.yaml").write_bytes(b"\xff\xfe\xfd")
    (bundle / "docs" / "x").symlink_to("nowhere")
    tool = [sys.executable, ROOT / "tools" / "verify.py", broken, bundle, packed, "--files_only"]
    done = subprocess.run(tool, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "is not a complete zip" in done.stdout
    assert "vectorpose_v0.1.0.zip: versions: passed" in done.stdout
    assert "5 failed" in done.stdout


def test_error_of_a_check_is_a_failed_one(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*arguments: object) -> None:
        raise KeyError("why")

    monkeypatch.setattr(verify, "Runs", breaks)
    found = list(verify.safely(verify.verify(packed, tmp_path, CURRENT)))
    assert found[-1] == files.Result("verify", "failed", "KeyError: 'why'")


def test_code_of_a_bad_zip_is_not_run(packed: Path, bundle: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(packed, tmp_path / packed.name))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../evil.py", "x")
    found = list(verify.verify(path, tmp_path / "work", CURRENT))
    assert [(one.check, one.status) for one in found] == [("archive", "failed")]
    assert "../evil.py" in found[0].text
    append(bundle, "runs/x.txt", "x")
    (tmp_path / "work").mkdir(exist_ok=True)
    found = list(verify.verify(bundle, tmp_path / "work", CURRENT))
    assert found[-1] == files.Result("runs", "skipped", "its files failed")


def test_mistakes_on_the_command_line(
    tmp_path: Path, packed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, expected in (
        ([tmp_path / "x.zip"], "x.zip: found no bundle"),
        ([packed, "--dataset_dir", tmp_path / "x"], "dataset_dir: "),
        ([packed, "--environment", ROOT / "bundles"], "which this tool has not made"),
    ):
        assert verify.main([str(word) for word in words]) == 1
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert expected in error


def test_environment_is_made_once_for_each_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []

    def fake(self: runs.Environment, words: list[str], cwd: Path, timeout: int) -> Any:
        calls.append(words)
        return subprocess.CompletedProcess(words, len(calls) == 3, "", "noise\nERROR: no such version\n")

    def venv(words: list[str], check: bool) -> None:
        (Path(words[-1]) / "bin").mkdir()
        (Path(words[-1]) / "bin" / "python").touch()

    monkeypatch.setattr(runs.Environment, "run", fake)
    monkeypatch.setattr(runs.subprocess, "run", venv)
    folder = tmp_path / "clean"
    one = runs.clean_environment(folder, ["a==1"], tmp_path)
    assert runs.clean_environment(folder, ["a==1"], tmp_path) == one
    assert "PYTHONPATH" not in one.variables
    two = runs.clean_environment(folder, ["a==2"], tmp_path)
    assert two.python.parents[1] != one.python.parents[1]  # nothing of the one is in the other
    assert {made.python.parents[2] for made in (one, two)} == {folder}
    assert calls == [["-m", "pip", "install", "--quiet", f"a=={version}"] for version in (1, 2)]
    with pytest.raises(UserError, match=r"pip: ERROR: no such version; .* --environment current does not"):
        runs.clean_environment(folder, ["a==3"], tmp_path)
    left = next(place for place in folder.iterdir() if not (place / runs.STAMP).read_text())
    (left / "half").touch()
    runs.clean_environment(folder, ["a==3"], tmp_path)  # the next call starts again
    assert calls[-1] == calls[-2]
    assert not (left / "half").exists()
    foreign = tmp_path / "mine"
    foreign.mkdir()
    (foreign / "pyvenv.cfg").touch()
    with pytest.raises(UserError, match=r"found pyvenv\.cfg, which this tool has not made"):
        runs.clean_environment(foreign, ["a==1"], tmp_path)


def test_an_environment_is_made_by_one_of_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two calls at once: the second waits until the first has finished it, and uses it."""
    folder, calls, second = tmp_path / "clean", [], threading.Thread()

    def install(self: runs.Environment, words: list[str], cwd: Path, timeout: int) -> Any:
        nonlocal second
        calls.append(words)
        runs.check_environments(folder)  # as at the start of a third
        second = threading.Thread(
            target=lambda: made.append(runs.clean_environment(folder, ["a==1"], tmp_path))
        )
        second.start()
        second.join(0.5)
        assert made == []
        return subprocess.CompletedProcess(words, 0, "", "")

    def again() -> None:
        made.append(runs.clean_environment(folder, ["a==1"], tmp_path))

    made: list[runs.Environment] = []
    monkeypatch.setattr(runs.Environment, "run", install)
    monkeypatch.setattr(runs.subprocess, "run", lambda words, check: None)
    one = runs.clean_environment(folder, ["a==1"], tmp_path)
    second.join()
    assert made == [one]
    assert len(calls) == 1
    runs.check_environments(folder)


# ------------------------------------------------------------------------------------------------------- runs
@pytest.fixture(scope="module")
def verified(packed: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[files.Result]]:
    """The folder in which a good bundle was tried out on four small volumes, and every result."""
    work, data = (tmp_path_factory.mktemp(name) for name in ("work", "data"))
    write_labelled(data, classes=[f"class {value}" for value in range(8)])  # as many as the phantom has
    options = argparse.Namespace(environment="current", dataset_dir=str(data), files_only=False)
    return work, list(verify.verify(packed, work, options))


def inside(
    verified: tuple[Path, list[files.Result]], tmp_path: Path, spoil: Callable[[Path], Any]
) -> dict[str, str]:
    """What fails within a spoilt copy of a bundle that has run."""
    work = verified[0]
    bundle = Path(shutil.copytree(work / "vectorpose", tmp_path / "vectorpose"))
    spoil(bundle)
    trial = runs.Runs(bundle, runs.current_environment(work), tmp_path)
    trial.output.rmdir()
    shutil.copytree(work / "vectorpose_runs", trial.output)
    (trial.output / "report.json").unlink()
    return {one.check: one.text for one in trial.inside() if one.status == "failed"}


@pytest.mark.slow
def test_good_bundle_runs_elsewhere(verified: tuple[Path, list[files.Result]]) -> None:
    found = {one.check: one.status for one in verified[1]}
    assert len(found) == 19
    onnx = found.pop("ONNX")
    assert onnx in ("passed", "skipped")
    assert set(found.values()) == {"passed"}, verified[1]


@pytest.mark.slow
def test_what_is_wrong_inside_is_named(verified: tuple[Path, list[files.Result]], tmp_path: Path) -> None:
    def spoil(bundle: Path) -> None:
        metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
        metadata["network_data_format"]["outputs"]["pred"]["num_channels"] = 9
        metadata["required_packages_version"]["nibabel"] = "1.0.0"
        change(bundle, **metadata)
        train = bundle / "configs" / "train.yaml"
        train.write_text(train.read_text().replace("  inferer:\n", "  inferrer:\n", 1))
        torch.save(torch.nn.Linear(1, 1), bundle / "models" / "model.pt")
        transfer = bundle / "pretext3d" / "training" / "transfer.py"
        transfer.write_text(
            transfer.read_text().replace('return "matched", source', 'return "matched", source * 2')
        )

    found = inside(verified, tmp_path, spoil)
    assert (
        "pred: found ((1, 8, 40, 56, 40), 'torch.float32'), expected ((1, 9, 40"
        in found["network in and out"]
    )
    assert "nibabel 5." in found["installed versions"]
    assert "instead of 1.0.0" in found["installed versions"]
    assert "weights_only" in found["weights"]
    assert "encoder tensors transferred" in found["transfer of weights"]
    assert "package" in found or "properties" in found  # the train.yaml without an inferer


@pytest.mark.slow
def test_package_of_the_bundle_is_what_runs(
    verified: tuple[Path, list[files.Result]], tmp_path: Path
) -> None:
    found = inside(verified, tmp_path, lambda bundle: shutil.rmtree(bundle / "pretext3d"))
    assert "Cannot locate class or function path: 'pretext3d." in found["package"]


@pytest.mark.slow
def test_run_that_fails_says_why(verified: tuple[Path, list[files.Result]], tmp_path: Path) -> None:
    work = verified[0]
    trial = runs.Runs(work / "vectorpose", runs.current_environment(work), tmp_path)
    result = trial.trained("train", encoder="unnet")
    assert result.status == "failed"
    assert "unnet" in result.text
    assert "expected 2 iterations" in result.text
