"""`pretext3d.load_pretrained`: the same network from a run, a checkpoint, a bundle and a packed bundle."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pretext3d
import pytest
import torch
from pretext3d.errors import UserError

from tests.publishing.archives import write_bundle
from tools.pack import pack

ROOT = Path(__file__).resolve().parents[2]
BUNDLE = ROOT / "bundles" / "vectorpose"


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(0).random((1, 24, 40, 33), dtype=np.float32)


def features(path: Path, image: np.ndarray) -> np.ndarray:
    model = pretext3d.load_pretrained(path, precision="fp32")
    return model.pooled(model.preprocess({"image": image})["image"])


def test_every_place_gives_the_same_features(tmp_path: Path, image: np.ndarray) -> None:
    expected = features(BUNDLE, image)
    assert expected.shape == (128,)
    assert np.ptp(expected) > 0.1
    run = tmp_path / "run" / "checkpoints"
    run.mkdir(parents=True)
    (run / "best.pt").write_bytes((BUNDLE / "models" / "model.pt").read_bytes())
    packed = pack(BUNDLE, tmp_path).path
    for path in (str(BUNDLE), BUNDLE / "models" / "model.pt", run.parent, run / "best.pt", packed):
        np.testing.assert_array_equal(features(path, image), expected)
    model = pretext3d.load_pretrained(packed)
    assert model.file == packed
    assert model.record["method"] == "vectorpose"
    assert model.preprocess.pixdim == [6.25, 6.25, 6.25]
    assert model.levels[-1].channels == 128


def test_importing_the_package_stays_fast() -> None:
    """Nothing heavy before a function is used; both are found by `dir`."""
    code = (
        "import sys, pretext3d\nassert {'download', 'load_pretrained'} <= set(dir(pretext3d))\n"
        "print([name for name in ('torch', 'monai', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    with pytest.raises(AttributeError, match="module 'pretext3d' has no attribute 'load'"):
        pretext3d.load  # noqa: B018


def test_a_path_without_weights_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=rf"path: {tmp_path}/no: not found; expected a checkpoint, a run or a b"
    ):
        pretext3d.load_pretrained(tmp_path / "no")
    with pytest.raises(
        UserError, match=rf"path: {tmp_path}: no checkpoint in this folder; looked for best\.pt"
    ):
        pretext3d.load_pretrained(tmp_path)
    torch.save({"weight": torch.ones(2)}, tmp_path / "model.pt")  # of another package
    with pytest.raises(
        UserError, match=r"model\.pt: found a dict with keys weight .*checkpoint written by Pretext"
    ):
        pretext3d.load_pretrained(tmp_path)
    (tmp_path / "model.pt").unlink()
    with pytest.raises(UserError, match=r"expected a packed bundle with the name NAME_vVERSION\.zip"):
        pretext3d.load_pretrained(write_bundle(tmp_path).rename(tmp_path / "tiny.zip"))


def test_messages_about_a_packed_bundle_name_it(tmp_path: Path) -> None:
    packed = write_bundle(tmp_path)  # its weights are noise
    with pytest.raises(UserError, match=rf"^{packed}/models/model\.pt: found another kind of file"):
        pretext3d.load_pretrained(packed)
