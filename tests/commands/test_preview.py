"""The preview command: pictures of any bundle's task, and clear words where there can be none."""

import logging
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch
from matplotlib.image import imread
from pretext3d.__main__ import main
from pretext3d.commands.bundles import bundles_at_hand
from pretext3d.commands.preview import options, preview
from pretext3d.methods.vectorpose.pretext import VectorPoseNet
from pretext3d.networks.factory import build_backbone
from pretext3d.training.checkpoint_io import save_checkpoint

from tests.bundles.command import BUNDLES, call

ROOT = Path(__file__).resolve().parents[2]
VECTORPOSE = str(ROOT / "bundles" / "vectorpose")
TINY = ["--profile", "laptop", "--encoder", "unet", "--roi_size", "16", "--pixdim", "native"]


@pytest.fixture(autouse=True)
def _levels_as_before() -> Iterator[None]:
    """The command sets how much the package reports, which other tests listen to."""
    names = ("pretext3d.data.prepare", "pretext3d.data.cases")
    levels = {name: logging.getLogger(name).level for name in names}
    yield
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


# Another bundle: its own figure, its own keys
MINI_YAML = """
dataset_dir: ''
cache_dir: {cache}
seed: 0
level: 0.5
profile: fast
profiles: {{fast: {{}}, slow: {{}}, fast_2d: {{}}}}
cases: {{_target_: pretext3d.data.prepare.prepare_cases, dataset_dir: '@dataset_dir', pixdim: native,
  cache_dir: '@cache_dir'}}
preprocessing:
  _target_: Compose
  transforms:
  - {{_target_: LoadImaged, keys: image, ensure_channel_first: true}}
  - {{_target_: RandShiftIntensityd, keys: image, prob: 1.0, offsets: '@level'}}
train:
  dataset: {{_target_: pretext3d.data.dataset.CachedVolumes, data: "$@cases['train']",
    transform: '@preprocessing', cache_dir: '@cache_dir', seed: '@seed'}}
validate:
  dataset: {{_target_: pretext3d.data.dataset.CachedVolumes, data: "$@cases['val']",
    transform: '@preprocessing', cache_dir: '@cache_dir', seed: '@seed'}}
draw: {{_target_: mini_preview_figure.draw, _mode_: callable}}
"""
MINI_FIGURE = """
from matplotlib.figure import Figure

SEEN = []

def draw(volume, sample, pred, title):
    SEEN.append((volume["id"], float(sample["image"].mean() - volume["image"].mean()), pred, title))
    return Figure(figsize=(1, 0.5), dpi=20, facecolor="red")
"""


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Five good volumes and a bad one."""
    folder = tmp_path / "scans"
    folder.mkdir()
    rng = np.random.RandomState(0)
    for case in range(6):
        volume = rng.uniform(100, 200, size=(20, 22, 24)).astype(np.float32)
        if case == 5:
            volume[3, 4, 5] = np.nan
        nib.Nifti1Image(volume, np.diag([2.0, 2.0, 2.0, 1.0])).to_filename(folder / f"scan {case}.nii.gz")
    return folder


@pytest.fixture
def mini(tmp_path: Path) -> Path:
    folder = tmp_path / "mini"
    (folder / "configs").mkdir(parents=True)
    (folder / "configs" / "train.yaml").write_text(MINI_YAML.format(cache=tmp_path / "cache"))
    (folder / "mini_preview_figure.py").write_text(MINI_FIGURE)
    return folder


@pytest.fixture(autouse=True)
def clean_imports(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "mini_preview_figure", raising=False)
    monkeypatch.setenv("PRETEXT3D_CACHE", str(tmp_path / "cache"))


def words(capsys: pytest.CaptureFixture[str], code: int, *arguments: object) -> str:
    """Run the command, check its exit code; what it printed."""
    assert main(["preview", *(str(a) for a in arguments)]) == code
    out, err = capsys.readouterr()
    return out if code == 0 else err


def test_any_bundle(mini: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "out"
    said = words(
        capsys,
        0,
        "--bundle",
        mini,
        "--dataset_dir",
        scans,
        "--output_dir",
        folder,
        "--num",
        0,
        "--level",
        "0.1",
    )
    seen = sys.modules["mini_preview_figure"].SEEN
    names = [f"{n}_{name.replace(' ', '_')}.png" for n, (name, *_) in enumerate(seen, start=1)]
    assert len(names) == 5
    assert sorted(p.name for p in folder.iterdir()) == names
    assert all(f"wrote {folder / name}" in said for name in names)
    assert [title.split("(")[1] for *_, title in seen] == ["training)"] * 4 + ["held out)"]
    assert all(0 < abs(change) <= 0.1 and pred is None for _, change, pred, _ in seen)
    assert "5 subjects: 4 to train on, 1 held out; 1 channel(s), spacing native" in said
    assert "1 cases rejected for training:\n  scan 5: NaN: 1 of 10560 voxels" in said
    assert imread(folder / names[0]).shape[:2] == (10, 20)


def test_the_next_command_has_the_same_keys(
    mini: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the seed, which only chose the crops that were drawn."""
    given = ["--dataset_dir", scans, "--level", "0.1", "--seed", "3"]
    said = words(capsys, 0, "--bundle", mini, *given, "--num", 1, "--output_dir", tmp_path / "out")
    assert said.splitlines()[-2] == "next:"
    command = shlex.split(said.splitlines()[-1])
    assert command[:5] == ["python", "-m", "monai.bundle", "run", "--config_file"]
    assert Path(command[5]).resolve() == mini / "configs" / "train.yaml"
    assert command[6:] == ["--dataset_dir", str(scans), "--level", "0.1"]


def test_a_crop_that_is_mostly_padding_is_a_warning(
    mini: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The volumes have 20 x 22 x 24 voxels: crops of 40 voxels are twice as long at most, 49 more than 24."""
    file = mini / "configs" / "train.yaml"
    arguments = ["preview", "--bundle", str(mini), "--dataset_dir", str(scans), "--num", "3"]
    for crop, count in (([40, 40, 48], 0), ([40, 40, 49], 1)):
        file.write_text(MINI_YAML.format(cache=tmp_path / "cache") + f"crop_size: {crop}\n")
        assert main([*arguments, "--output_dir", str(tmp_path / "out")]) == 0
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
        assert len(lines) == count
    assert re.fullmatch(
        rf"warning: {scans}/scan \d.nii.gz: found 24 voxels along z for a crop of 49 "
        r"\(and 2 more of the 3 drawn\); most of it is padding; expected a smaller --roi_size or a finer "
        "--pixdim along this axis",
        lines[0],
    )


def test_subjects_are_counted_and_slices_are_volumes(capsys: pytest.CaptureFixture[str]) -> None:
    """anna's two volumes of three slices each train, ben's one is held out."""

    def slices(volume: str, subject: str) -> list[dict[str, str]]:
        return [{"id": f"{volume}/slice{n}", "volume": volume, "subject": subject} for n in range(3)]

    parts = [*slices("a1", "anna"), *slices("a2", "anna")], slices("b", "ben")
    datasets = {
        part: SimpleNamespace(data=data) for part, data in zip(("train", "validate"), parts, strict=True)
    }
    preview.report({"pixdim": [], "channels": 1, "bad": []}, datasets)
    said = capsys.readouterr().out
    assert said == "2 subjects (3 volumes): 1 (2) to train on, 1 held out; 1 channel(s), spacing native\n"


def test_only_what_is_drawn_is_read(mini: Path, scans: Path, tmp_path: Path) -> None:
    assert (
        options.main(
            [
                "--bundle",
                str(mini),
                "--dataset_dir",
                str(scans),
                "--output_dir",
                str(tmp_path / "out"),
                "--num",
                "2",
            ]
        )
        == 0
    )
    assert len(list((tmp_path / "cache" / "volumes").iterdir())) == 2


def test_seed_gives_other_crops(mini: Path, scans: Path, tmp_path: Path) -> None:
    changes = []
    for seed in ("0", "0", "1"):
        sys.modules.pop("mini_preview_figure", None)
        common = ["--bundle", str(mini), "--dataset_dir", str(scans), "--output_dir", str(tmp_path / "out")]
        assert options.main([*common, "--num", "1", f"--seed={seed}"]) == 0
        changes.append(sys.modules["mini_preview_figure"].SEEN[0][1])
    assert changes[0] == changes[1] != changes[2]


def test_one_sheet(mini: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "sheets" / "x.png"
    said = words(capsys, 0, "--bundle", mini, "--dataset_dir", scans, "--output_file", file, "--num", 4)
    assert f"wrote {file}: 4 scans" in said
    # 4 pictures of 20 x 10 pixels: ceil(sqrt(4 / 2)) = 2 columns, 2 rows
    assert imread(file).shape[:2] == (20, 40)
    assert not Path("previews").exists()


def test_a_run_of_an_earlier_version_lacks_a_setting(
    mini: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The table that it saved has no `level`, which the bundle reads by now: the bundle's value is used."""
    file = mini / "configs" / "train.yaml"
    text = file.read_text().replace("fast: {}", "fast: {level: 0.7, rate: 1}")
    text = text.replace("level: 0.5\n", "level: $@profiles['fast']['level']\n")
    file.write_text(text)
    workflow = preview.Preview(mini, {}, {"profiles": {"fast": {"rate": 2}, "fast_2d": {}}})
    assert workflow.get("level") == 0.7
    assert workflow.get("profiles") == {"fast": {"level": 0.7, "rate": 2}, "slow": {}, "fast_2d": {}}
    assert any("lack level, which a later version has added" in line for line in caplog.messages)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--bundle", "nowhere"],
            "--bundle: found nowhere, expected the folder of a bundle, or one of avsdb",
        ),
        (["--levle", "1"], "--levle: no such option, and no such key in train.yaml; did you mean --level?"),
        (["--nmu", "1"], "--nmu: no such option, and no such key in train.yaml; did you mean --num?"),
        (["--level::0", "1"], "--level::0: found an entry of level, which is 0.5; expected --level with its"),
        (["--train::data", "1"], "--train::data: no such option, and no such key in train.yaml"),
        (["--profile", "fats"], "profile: found 'fats', expected one of fast, slow"),
        (["--profile", "fast_2d"], "profile: found 'fast_2d', expected one of fast, slow"),  # not a profile
        (["--dataset_dir", "nowhere"], "nowhere"),
        (["--num", "-1"], "num: found -1"),
        (["--output_file", "x.jpg"], "output_file: found x.jpg, expected a name that ends in .png"),
        (["--checkpoint", "nowhere"], "checkpoint: nowhere: not found"),
    ],
)
def test_mistakes(
    mini: Path, scans: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    said = words(capsys, 1, "--bundle", mini, "--dataset_dir", scans, *arguments)
    assert said.startswith("error: ")
    assert message in said
    assert said.count("\n") == 1


def test_empty_folder(mini: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert "no volumes found" in words(capsys, 1, "--bundle", mini, "--dataset_dir", tmp_path / "empty")


def test_bundle_without_a_figure(mini: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = mini / "configs" / "train.yaml"
    file.write_text(file.read_text().split("draw:")[0])
    assert "has no draw; a preview needs" in words(capsys, 1, "--bundle", mini)


def write_checkpoint(path: Path, method: str = "vectorpose", num_vectors: int = 9) -> None:
    torch.manual_seed(0)
    network = VectorPoseNet(build_backbone("unet", 1, (16, 16, 16)), num_vectors, pool_size=2)
    record = {"method": method, "backbone": network.backbone.record, "channels": 1, "pixdim": []}
    save_checkpoint(path, {"record": record, "network": network.state_dict(), "epoch": 1})


def test_vectorpose_without_training(scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--output_dir", tmp_path / "out", "--num", 1]
    said = words(capsys, 0, "--bundle", VECTORPOSE, "--dataset_dir", scans, *TINY, *out)
    assert "wrote " in said
    (path,) = (tmp_path / "out").iterdir()
    assert min(imread(path).shape[:2]) > 500


def test_vectorpose_with_a_checkpoint(
    scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "model.pt"
    write_checkpoint(file)
    drawn = []
    monkeypatch.setattr(
        preview, "render", lambda figure: drawn.append(figure) or np.zeros((1, 1, 3), np.uint8)
    )
    # encoder, crop and spacing come from the checkpoint
    common = ["--bundle", VECTORPOSE, "--dataset_dir", scans, "--profile", "laptop", "--num", 1]
    common += ["--output_dir", tmp_path / "out"]
    words(capsys, 0, *common, "--checkpoint", file)
    texts = [t.get_text() for t in drawn[0].legends[0].get_texts()]
    assert any(text.startswith("predicted:") for text in texts)
    assert "network's 16 × 16 × 16" in drawn[0].texts[2].get_text()  # noqa: RUF001
    write_checkpoint(file, num_vectors=1)
    assert "2 of " in words(capsys, 1, *common, "--checkpoint", file)
    words(capsys, 0, *common, "--checkpoint", file, "--num_vectors", 1)
    # a run's folder and split are those of the next command, too
    own = f"dataset_dir: {scans}\nval_fraction: 0.4\nsplit_seed: 4\nencoder: unet\nroi_size: [16, 16, 16]\n"
    (tmp_path / "config.yaml").write_text(own)
    drawn_of_run = [word for word in common if word not in ("--dataset_dir", scans)]
    write_checkpoint(file)
    said = words(capsys, 0, *drawn_of_run, "--checkpoint", file)
    assert "5 subjects: 3 to train on, 2 held out" in said
    assert said.endswith("--dataset_dir LABELLED_FOLDER --val_fraction 0.4 --split_seed 4\n")
    (tmp_path / "config.yaml").unlink()
    write_checkpoint(file, method="rotation")
    assert "found method rotation, expected vectorpose" in words(capsys, 1, *common, "--checkpoint", file)


def test_generated_volumes_with_the_shipped_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their record has channels, for which a bundle that generates its volumes has no key."""
    bundle = ROOT / "bundles" / "avsdb"
    weights = bundle / "models" / "transformer"
    common = ("--bundle", bundle, "--profile", "laptop_transformer", "--num", 1, "--output_dir", tmp_path)
    words(capsys, 0, *common, "--device", "cpu", "--checkpoint", weights)
    assert len(list(tmp_path.glob("*.png"))) == 1
    assert "no such key" in words(capsys, 1, *common, "--checkpoint", weights, "--channels", "[0]")


@pytest.mark.parametrize("bundle", sorted(path.parents[1] for path in BUNDLES.glob("*/configs/train.yaml")))
def test_the_method_that_a_checkpoint_must_have_is_known_before_anything_is_read(bundle: Path) -> None:
    workflow = preview.Preview(bundle, {"profile": "laptop"})
    workflow.parser["cases"] = "$1 / 0"
    (key,) = [key for key in preview.METHOD if key in workflow.parser]
    assert workflow.get(key) == bundle.name


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        options.main(["--help"])
    said = capsys.readouterr().out
    assert "examples:\n  pretext3d preview --bundle vectorpose\n" in said
    for line in said.split("examples:")[1].strip().splitlines():
        known, _ = options.parse_arguments(line.split()[2:])
        assert known.bundle in bundles_at_hand()


@pytest.mark.slow
def test_as_a_command(tmp_path: Path) -> None:
    done = call("pretext3d", "preview", "--bundle", "nowhere", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: --bundle: found nowhere, ")
    assert "Traceback" not in done.stderr
