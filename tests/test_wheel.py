"""The wheel that `python -m build shared` makes: its files, and what works with it alone."""

import importlib.util
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from types import ModuleType

import nibabel
import numpy as np
import pretext3d
import pytest
from pretext3d.commands.bundles import bundles_at_hand
from pretext3d.publishing.contents import leftover, package_files

from tests.clean_environment import CleanEnvironment
from tools import pack

ROOT = Path(__file__).resolve().parents[1]
VERSION = pretext3d.__version__
BUNDLE = "supervoxel_inpainting"  # its weights are the smallest


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the wheel and of the source distribution that it was built from."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT / "shared")]
    subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    return built / f"pretext3d-{VERSION}-py3-none-any.whl"


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> CleanEnvironment:
    return CleanEnvironment(tmp_path_factory.mktemp("environment"), wheel)


def hatch_build() -> ModuleType:
    """The module shared/hatch_build.py."""
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "shared" / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def contents(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_an_index_would_take_both(built: Path, wheel: Path) -> None:
    files = sorted(map(str, built.iterdir()))
    assert len(files) == 2
    subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *files], check=True)
    metadata = contents(wheel)[f"pretext3d-{VERSION}.dist-info/METADATA"].decode()
    assert f"\nVersion: {VERSION}\n" in metadata
    assert "\nLicense-File: LICENSE\n" in metadata


def test_wheel_has_the_package_and_the_bundles_without_weights(wheel: Path) -> None:
    package = ROOT / "shared" / "pretext3d"
    expected = {f"pretext3d/{path.relative_to(package).as_posix()}" for path in package.rglob("*.py")}
    expected |= {"pretext3d/py.typed"}
    tracked = hatch_build().tracked_files(ROOT / "bundles")
    for name, folder in bundles_at_hand().items():
        files = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
        files = (
            one for one in files if one.parts[0] != "models" and (not tracked or folder / one in tracked)
        )
        names = [one.as_posix() for one in files if one.parts[0] != "models"]
        expected |= {f"pretext3d/bundles/{name}/{one}" for one in names if not leftover(one)}
    assert {name for name in contents(wheel) if name.startswith("pretext3d/")} == expected


def test_bundles_that_git_does_not_track_stay_out(tmp_path: Path) -> None:
    """In a checkout, a bundle and a page that were not added; elsewhere all files are taken."""
    names = ["a/configs/metadata.json", "a/docs/README.md", "a/docs/draft.md", "b/configs/metadata.json"]
    for name in names:
        file = tmp_path / "bundles" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("{}")
    bundle_files = hatch_build().bundle_files
    assert list(bundle_files(tmp_path / "shared")) == names  # no checkout
    git = ["git", "-C", str(tmp_path)]
    subprocess.run([*git, "init", "-q"], check=True)
    assert list(bundle_files(tmp_path / "shared")) == names  # unpacked in another repository
    subprocess.run([*git, "add", *(f"bundles/{name}" for name in names[:2])], check=True)
    assert list(bundle_files(tmp_path / "shared")) == names[:2]
    (tmp_path / "bundles" / "a" / "docs" / "README.md").write_text("changed")
    assert list(bundle_files(tmp_path / "shared")) == names[:2]
    assert list(bundle_files(tmp_path)) == names  # of an unpacked source distribution


def test_source_distribution_can_be_built(built: Path) -> None:
    with tarfile.open(built / f"pretext3d-{VERSION}.tar.gz") as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "hatch_build.py", "LICENSE", "README.md", "bundles/cpc/LICENSE"} <= names


def test_packed_bundles_have_the_same_package(wheel: Path, tmp_path: Path) -> None:
    """The package inside a packed bundle, and that of the wheel: the same files and version."""
    assert pack.main([str(ROOT / "bundles" / BUNDLE), "--output_dir", str(tmp_path)]) == 0
    (packed,) = tmp_path.glob("*.zip")
    inside = {
        name.partition("/")[2]: data
        for name, data in contents(packed).items()
        if name.startswith(f"{BUNDLE}/pretext3d/")
    }
    own = {name: data for name, data in contents(wheel).items() if name.endswith(".py")}
    assert inside == own
    assert f'__version__ = "{VERSION}"'.encode() in inside["pretext3d/version.py"]
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    promoted = package_files(tmp_path / "site" / "pretext3d")  # what a bundle gets from an installed package
    assert {path.relative_to(tmp_path / "site").as_posix() for path in promoted} == set(own)


@pytest.mark.slow
def test_it_declares_all_that_it_needs(environment: CleanEnvironment, tmp_path: Path) -> None:
    """Its modules can be imported where nothing else is installed, and come from the wheel."""
    environment.pip("check")
    code = (
        "import importlib, pkgutil, pretext3d\n"
        "print(pretext3d.__file__)\n"
        "for module in pkgutil.walk_packages(pretext3d.__path__, 'pretext3d.'):\n"
        "    if not module.name.endswith('__main__'): importlib.import_module(module.name)\n"
    )
    file = environment.run("python", "-W", "ignore", "-c", code, cwd=tmp_path).splitlines()[0]
    assert Path(file).is_relative_to(environment.site)


@pytest.mark.slow
def test_works_without_the_repository(environment: CleanEnvironment, tmp_path: Path) -> None:
    """Pictures of the phantom; a packed bundle with weights; their fine-tuning in a copy of the bundle."""
    cache = {"PRETEXT3D_CACHE": str(tmp_path / "cache")}
    words = ["preview", "--bundle", "vectorpose", "--num", "1", "--output_dir", "previews"]
    environment.run("pretext3d", *words, cwd=tmp_path, **cache)
    assert len(list((tmp_path / "previews").glob("*.png"))) == 1

    assert pack.main([str(ROOT / "bundles" / BUNDLE), "--output_dir", str(tmp_path / "dist")]) == 0
    words = ["download", BUNDLE, "--source", "dist", "--output_dir", "there"]
    assert f"--pretrained there/{BUNDLE}" in environment.run("pretext3d", *words, cwd=tmp_path)

    said = environment.run("pretext3d", "bundles", "--copy", BUNDLE, "--output_dir", "mine", cwd=tmp_path)
    assert "without weights" in said
    run = ["-m", "monai.bundle", "run", "--config_file", f"mine/{BUNDLE}/configs/finetune.yaml"]
    run += [
        "--pretrained",
        f"there/{BUNDLE}",
        "--profile",
        "laptop",
        "--num_labelled",
        "1",
        "--batch_size",
        "1",
    ]
    run += ["--max_epochs", "1", "--steps_per_epoch", "2", "--num_workers", "0", "--val_fraction", "0.05"]
    said = environment.run("python", *run, "--output_dir", "runs/tuned", cwd=tmp_path, **cache)
    assert f"mine/{BUNDLE}/configs/evaluate.yaml" in said
    assert (tmp_path / "runs" / "tuned" / "checkpoints" / "final.pt").is_file()


@pytest.mark.slow
def test_code_of_a_hub_folder_s_card_runs(environment: CleanEnvironment, tmp_path: Path) -> None:
    assert pack.main([str(ROOT / "bundles" / BUNDLE), "--layout", "hub", "--output_dir", str(tmp_path)]) == 0
    card = (tmp_path / BUNDLE / "README.md").read_text()
    (code,) = re.findall(r"```python\n(.+?)```", card, re.DOTALL)
    nibabel.save(nibabel.Nifti1Image(np.zeros((40, 48, 40), np.float32), np.eye(4)), tmp_path / "scan.nii.gz")
    code += "\nprint(vector.ndim, [one.ndim for one in maps][0])"
    assert environment.run("python", "-W", "ignore", "-c", code, cwd=tmp_path) == "1 4\n"
