"""tools/pack.py: the same zip from the same files, nothing in it that others do not want, and an index."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from pretext3d.publishing.archive import unpack
from pretext3d.publishing.index import INDEX

from tools import pack

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A copy of a real bundle."""
    return Path(shutil.copytree(ROOT / "bundles" / "vectorpose", tmp_path / "vectorpose"))


def command(*words: object) -> int:
    return pack.main([str(word) for word in words])


def packed(bundle: Path, output_dir: Path, *words: object) -> Path:
    assert command(bundle, "--output_dir", output_dir, *words) == 0
    return output_dir / f"{bundle.name}_v0.1.0.zip"


def members(path: Path) -> set[str]:
    with zipfile.ZipFile(path) as archive:
        return set(archive.namelist())


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """Exit code 1, one line; that line."""
    capsys.readouterr()
    assert command(*words) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    return lines[0]


def change_metadata(bundle: Path, **changes: Any) -> None:
    file = bundle / "configs" / "metadata.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_zip_has_the_bundle_and_the_package(bundle: Path, tmp_path: Path) -> None:
    names = members(packed(bundle, tmp_path / "dist"))
    expected = {f"vectorpose/{p.relative_to(bundle).as_posix()}" for p in bundle.rglob("*") if p.is_file()}
    expected |= {"vectorpose/configs/train.json", "vectorpose/configs/inference.json"}
    expected.add("vectorpose/requirements.txt")
    package = ROOT / "shared" / "pretext3d"
    expected |= {f"vectorpose/pretext3d/{p.relative_to(package).as_posix()}" for p in package.rglob("*.py")}
    assert names == expected


def test_unzipped_bundle_has_the_commands(bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "vectorpose"
    unpack(packed(bundle, tmp_path / "dist"), folder, "vectorpose", "0.1.0")

    def run(*words: object) -> subprocess.CompletedProcess[str]:
        env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        command = [sys.executable, *map(str, words)]
        return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)

    # -S: no installed package at all, so what answers is in the bundle
    done = run("-S", "-m", "pretext3d", "--help")
    assert done.returncode == 0, done.stderr
    assert "\n  preview " in done.stdout
    # the default of compare is the bundle around the package, which alone has this key
    config = folder / "configs" / "finetune.yaml"
    config.write_text(config.read_text() + "only_here: 1\n")
    done = run("-m", "pretext3d", "compare", "--only_her", "2", "--output_dir", tmp_path / "out")
    assert done.returncode == 2
    assert done.stderr.strip().endswith("did you mean --only_here?")


def test_json_says_what_the_yaml_says(bundle: Path, tmp_path: Path) -> None:
    unpack(packed(bundle, tmp_path / "dist"), tmp_path / "new", "vectorpose", "0.1.0")
    for name in ("train", "inference"):
        written = json.loads((tmp_path / "new" / "configs" / f"{name}.json").read_text())
        assert written == yaml.safe_load((tmp_path / "new" / "configs" / f"{name}.yaml").read_text())


def test_configurations_find_the_package_inside(bundle: Path, tmp_path: Path) -> None:
    """Nothing but `bundle_root` and the first step of `initialize` differs from the repository's files."""
    unpack(packed(bundle, tmp_path / "dist"), tmp_path / "new", "vectorpose", "0.1.0")
    for path in sorted((bundle / "configs").glob("*.yaml")):
        own, new = (yaml.safe_load(f.read_text()) for f in (path, tmp_path / "new" / "configs" / path.name))
        assert new["initialize"] == ["$sys.path.insert(0, @bundle_root)", *own["initialize"]]
        if "bundle_root" in own:
            assert new["bundle_root"].startswith("$next(")
            assert new["imports"] == ["$import inspect", "$import sys"]
        same = own.keys() - {"bundle_root", "initialize"}
        assert {key: new[key] for key in same} == {key: own[key] for key in same}


def test_requirements_are_the_metadata_ones(bundle: Path, tmp_path: Path) -> None:
    unpack(packed(bundle, tmp_path / "dist"), tmp_path / "new", "vectorpose", "0.1.0")
    lines = (tmp_path / "new" / "requirements.txt").read_text().splitlines()
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    assert f"torch=={metadata['pytorch_version']}" in lines
    assert f"nibabel=={metadata['required_packages_version']['nibabel']}" in lines
    assert len(lines) == 3 + len(metadata["required_packages_version"])


def test_same_files_give_the_same_bytes(bundle: Path, tmp_path: Path) -> None:
    first = packed(bundle, tmp_path / "a").read_bytes()
    other = Path(shutil.copytree(bundle, tmp_path / "elsewhere" / "vectorpose"))
    for number, path in enumerate(sorted(other.rglob("*"), reverse=True)):
        os.utime(path, (10**9 + number, 10**9 + number))
        path.chmod(0o700)
    assert packed(other, tmp_path / "b").read_bytes() == first
    with zipfile.ZipFile(tmp_path / "a" / "vectorpose_v0.1.0.zip") as archive:
        infos = archive.infolist()
    assert {info.date_time for info in infos} == {(1980, 1, 1, 0, 0, 0)}
    assert {info.external_attr >> 16 for info in infos} == {0o100644}
    assert [info.filename for info in infos] == sorted(info.filename for info in infos)


def test_leftovers_stay_out(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clean = members(packed(bundle, tmp_path / "a"))
    for name in (
        "docs/runs/x.txt", "configs/runs/x.txt", "configs/train.yaml.orig", "docs/Thumbs.db",
        "models/model_previous.pt", "docs/a~", "torch/__init__.py",
        "runs/vectorpose/checkpoints/best.pt", "models/epoch_0003.pt", "models/draft.pth", "notes.txt",
        "models/.x.pt.1.tmp", "configs/__pycache__/a.pyc", ".ipynb_checkpoints/a", "docs/.DS_Store",
        "pretext3d/evil.py",
    ):  # fmt: skip
        (bundle / name).parent.mkdir(parents=True, exist_ok=True)
        (bundle / name).write_bytes(b"x")
    (bundle / "models" / "more.pt").write_bytes(b"weights")
    assert members(packed(bundle, tmp_path / "b")) - clean == {"vectorpose/models/more.pt"}
    output = capsys.readouterr().out
    assert (
        "left out: configs/runs/x.txt, configs/train.yaml.orig, docs/Thumbs.db, "
        "docs/a~, docs/runs/x.txt, models/draft.pth, models/epoch_0003.pt, models/model_previous.pt, "
        "notes.txt, runs, torch\n" in output
    )


def test_digest_beside_the_zip_is_what_sha256sum_reads(bundle: Path, tmp_path: Path) -> None:
    path = packed(bundle, tmp_path / "dist")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert (tmp_path / "dist" / f"{path.name}.sha256").read_text() == f"{digest}  {path.name}\n"


def test_index_has_the_whole_folder(bundle: Path, tmp_path: Path) -> None:
    packed(bundle, tmp_path / "dist")
    change_metadata(bundle, version="0.2.0", changelog={"0.1.0": "first", "0.2.0": "more"})
    url = "https://example.org/bundles"
    assert command(bundle, "--output_dir", tmp_path / "dist", "--base_url", url) == 0
    index = json.loads((tmp_path / "dist" / INDEX).read_text())
    assert list(index) == ["vectorpose_v0.1.0", "vectorpose_v0.2.0"]
    for key, entry in index.items():
        data = (tmp_path / "dist" / f"{key}.zip").read_bytes()
        assert entry["sha256"] == hashlib.sha256(data).hexdigest()
        assert entry["checksum"] == hashlib.sha1(data).hexdigest()
        assert entry["size"] == len(data) > entry["unpacked_size"] > 0
        assert entry["source"] == f"{url}/{key}.zip"


def test_a_version_is_published_once(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = packed(bundle, tmp_path / "dist")
    first = path.read_bytes()
    assert packed(bundle, tmp_path / "dist").read_bytes() == first  # the same again is no mistake
    (bundle / "docs" / "README.md").write_text("other words")
    words = refused(capsys, bundle, "--output_dir", tmp_path / "dist")
    assert "found other content under this version" in words
    assert path.read_bytes() == first
    assert packed(bundle, tmp_path / "dist", "--force").read_bytes() != first


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"version": "0.3.0"}, "found 0.3.0, expected one that `changelog` has: 0.1.0"),
        ({"version": "0.1"}, "version: found '0.1', expected three numbers"),
        ({"changelog": "0.1.0 first"}, "changelog: found str, expected an object"),
        ({"changelog": ["0.1.0"]}, "changelog: found list, expected an object"),
        ({"required_packages_version": {"--index-url=x": "1"}}, "found the name '--index-url=x'"),
        ({"changelog": {}}, "found 0.1.0, expected one that `changelog` has: it is empty"),
    ],
)
def test_bad_versions(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], expected: str
) -> None:
    change_metadata(bundle, **changes)
    assert expected in refused(capsys, bundle, "--output_dir", tmp_path / "dist")
    assert not list((tmp_path / "dist").glob("*"))


def test_mistakes_in_the_bundle(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--output_dir", tmp_path / "dist"]
    (bundle / "docs" / "link.md").symlink_to(ROOT / "README.md")
    assert "docs/link.md: found a link" in refused(capsys, bundle, *out)
    (bundle / "docs" / "link.md").unlink()
    (bundle / "docs" / "nul.txt").touch()
    assert "nul.txt: found a device's name on Windows" in refused(capsys, bundle, *out)
    (bundle / "docs" / "nul.txt").unlink()
    (bundle / "models" / "large.pt").write_bytes(bytes(25_000_001))
    assert "large.pt: found 25,000,001 bytes, expected 25,000,000" in refused(capsys, bundle, *out)
    (bundle / "models" / "large.pt").unlink()
    (bundle / "LICENSE").unlink()
    assert "has no LICENSE" in refused(capsys, bundle, *out)
    (bundle / "LICENSE").write_text("free")
    (bundle / "configs" / "train.yaml").write_text("a: [1")
    assert "train.yaml: cannot be written as JSON" in refused(capsys, bundle, *out)
    (bundle / "configs" / "metadata.json").write_text("{")
    assert "metadata.json: is not JSON" in refused(capsys, bundle, *out)


def test_weights_that_are_not_on_their_card(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (bundle / "models" / "model.pt").write_bytes(b"other weights")
    expected = "model.safetensors: was written with another model.pt: found SHA-256"
    assert expected in refused(capsys, bundle, "--output_dir", tmp_path)
    (bundle / "models" / "model.safetensors").unlink()
    assert "provenance.json: sha256: found" in refused(capsys, bundle, "--output_dir", tmp_path)
    (bundle / "models" / "provenance.json").unlink()
    assert "provenance.json: not found" in refused(capsys, bundle, "--output_dir", tmp_path)
    (bundle / "models" / "model.pt").unlink()
    packed(bundle, tmp_path)


def test_mistakes_on_the_command_line(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--output_dir", tmp_path / "dist"]
    assert "expected folders or --all" in refused(capsys, *out)
    assert "expected folders or --all" in refused(capsys, bundle, "--all", *out)
    assert "nowhere: not found" in refused(capsys, tmp_path / "nowhere", *out)
    assert "two of the name vectorpose" in refused(capsys, bundle, ROOT / "bundles" / "vectorpose", *out)
    assert "base_url: found 'ftp://x'" in refused(capsys, bundle, "--base_url", "ftp://x", *out)
    (tmp_path / "file").touch()
    assert "cannot be written" in refused(capsys, bundle, "--output_dir", tmp_path / "file")
    bundle.rename(tmp_path / "vector_values")  # MONAI's index reader would cut it at `_v`
    assert "name: found 'vector_values'" in refused(capsys, tmp_path / "vector_values", *out)


def test_all_bundles_by_the_command_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "pack.py"), "--all", "--output_dir", str(tmp_path)],
        capture_output=True, text=True, check=False, timeout=120, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    names = {path.parents[1].name for path in ROOT.glob("bundles/*/configs/metadata.json")}
    assert {key.split("_v")[0] for key in json.loads((tmp_path / INDEX).read_text())} == names
    assert {path.name.split("_v")[0] for path in tmp_path.glob("*.zip")} == names
