"""The shapes command: what is written is what a training generates; stopped, continued, refused."""

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import yaml
from monai.data import load_decathlon_datalist
from pretext3d.__main__ import main
from pretext3d.commands.shapes import shapes
from pretext3d.commands.shapes.options import ROI_2D, SIZES_2D, make_parser
from pretext3d.commands.shapes.shapes import file_of, write_shapes
from pretext3d.data.generated import GeneratedItems
from pretext3d.data.prepare import prepare_cases
from pretext3d.errors import UserError
from pretext3d.files import locked
from pretext3d.methods.avsdb.volumes import ShapeVolumes

ROOT = Path(__file__).parents[2]
SIZE = [20, 28, 16]
OPTIONS: dict[str, Any] = {
    "roi_size": SIZE,
    "xy_classes": ["ellipse", 3],
    "z_classes": 2,
    "num_shapes": 4,
    "render": "textured",
}


def arrays(folder: Path, key: int) -> list[np.ndarray]:
    return [np.asanyarray(nib.load(file_of(folder, key, kind)).dataobj) for kind in ("image", "label")]


def test_what_is_read_is_what_a_training_generates(tmp_path: Path) -> None:
    """To the last bit, with any number of processes; the spacing is in the affine alone."""
    write_shapes(tmp_path, 3, seed=5, pixdim=(2, 2.5, 4), num_workers=2, **OPTIONS)
    items = GeneratedItems(ShapeVolumes(**OPTIONS), 3, seed=5)
    for key in range(3):
        image, label = arrays(tmp_path, key)
        assert image.dtype == np.float32
        assert label.dtype == np.uint8
        np.testing.assert_array_equal(image, items[key]["image"][0])
        np.testing.assert_array_equal(label, items[key]["label"][0])
    affine = nib.load(file_of(tmp_path, 2, "label")).affine
    np.testing.assert_array_equal(affine, np.diag([2, 2.5, 4, 1]))


def test_names_and_keys_are_those_of_nnunet_and_msd(tmp_path: Path) -> None:
    write_shapes(tmp_path, 2, **OPTIONS)
    content = json.loads((tmp_path / "dataset.json").read_text())
    images = sorted(path.name for path in (tmp_path / "imagesTr").iterdir())
    labels = sorted(path.name for path in (tmp_path / "labelsTr").iterdir())
    ending = content["file_ending"]
    # nnU-Net: a file per case and channel, CASE_0000.nii.gz; a label file per case; labels by name
    assert labels == ["shapes_00000" + ending, "shapes_00001" + ending]
    assert images == [name.replace(ending, "_0000" + ending) for name in labels]
    assert content["numTraining"] == len(labels)
    assert list(content["channel_names"]) == ["0"]
    assert content["labels"] == {
        "background": 0, "ellipse prism": 1, "ellipse cone": 2, "triangle prism": 3, "triangle cone": 4,
    }  # fmt: skip
    # MSD: a list of cases, which MONAI reads
    cases = load_decathlon_datalist(str(tmp_path / "dataset.json"), data_list_key="training")
    assert [Path(case["image"]).name for case in cases] == images
    assert all(Path(case[key]).is_file() for case in cases for key in ("image", "label"))


@pytest.mark.parametrize("spatial_dims", [3, 2])
def test_a_fine_tuning_reads_the_folder(tmp_path: Path, spatial_dims: int) -> None:
    options = {**OPTIONS, "roi_size": SIZE[:spatial_dims], "spatial_dims": spatial_dims}
    options["z_classes"] = 2 if spatial_dims == 3 else None
    write_shapes(tmp_path / "set", 4, pixdim=[1.5], **options)
    cases = prepare_cases(
        str(tmp_path / "set"),
        purpose="finetuning",
        spatial_dims=spatial_dims,
        pixdim="median",
        roi_size=SIZE[:spatial_dims],
        cache_dir=str(tmp_path / "cache"),
    )
    assert cases["pixdim"] == [1.5] * spatial_dims
    assert (len(cases["train"]), len(cases["val"])) == (3, 1)
    names = ["ellipse", "triangle"] if spatial_dims == 2 else None
    assert cases["class_names"] == ["background", *names] if names else cases["num_classes"] == 5


def test_a_stopped_set_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the label of the second volume: the first one stays, the second is written again."""
    written: list[str] = []
    original = shapes.write_nifti

    def stopping(path: Path, *more: Any) -> None:
        written.append(path.name)
        if len(written) == 4:
            path.write_bytes(b"half of a file")
            raise KeyboardInterrupt
        original(path, *more)

    monkeypatch.setattr(shapes, "write_nifti", stopping)
    with pytest.raises(KeyboardInterrupt):
        write_shapes(tmp_path, 3, **OPTIONS)
    assert not (tmp_path / "dataset.json").exists()
    assert [path.name for path in (tmp_path / "labelsTr").iterdir()] == ["shapes_00000.nii.gz"]
    (tmp_path / "imagesTr" / ".shapes_00001_0000.nii.gz.0a.tmp").write_bytes(b"of a killed process")
    first = file_of(tmp_path, 0, "image").stat().st_mtime_ns
    assert write_shapes(tmp_path, 3, **OPTIONS)[0] == 2
    assert file_of(tmp_path, 0, "image").stat().st_mtime_ns == first
    assert len([*tmp_path.rglob("*.*")]) == 2 + 2 * 3  # dataset.json, settings.json; no drafts, no lock
    write_shapes(tmp_path / "at_once", 3, **OPTIONS)
    for key in range(3):
        for found, expected in zip(arrays(tmp_path, key), arrays(tmp_path / "at_once", key), strict=True):
            np.testing.assert_array_equal(found, expected)


def test_a_larger_count_adds_volumes_and_a_smaller_one_is_refused(tmp_path: Path) -> None:
    assert write_shapes(tmp_path, 1, **OPTIONS)[0] == 1
    assert write_shapes(tmp_path, 3, **OPTIONS)[0] == 2
    assert json.loads((tmp_path / "dataset.json").read_text())["numTraining"] == 3
    with pytest.raises(UserError, match=r"count: found 2, expected 3 or more: .* has that many"):
        write_shapes(tmp_path, 2, **OPTIONS)


def test_other_folders_are_refused_and_stay_as_they_are(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    write_shapes(folder, 1, **OPTIONS)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.*")}
    with pytest.raises(UserError, match=r"seed: found 1, expected 0, with which the volumes in .* written"):
        write_shapes(folder, 2, seed=1, **OPTIONS)
    with pytest.raises(UserError, match=r"render: found 'filled', expected 'textured'"):
        write_shapes(folder, 2, **{**OPTIONS, "render": "filled"})
    with locked(folder / ".lock"), pytest.raises(UserError, match="in use by another process"):
        write_shapes(folder, 2, **OPTIONS)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.*")} == before
    (folder / "settings.json").write_text("{")
    with pytest.raises(UserError, match=r"settings\.json: is damaged"):
        write_shapes(folder, 2, **OPTIONS)
    other = tmp_path / "mine"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"found notes\.txt in .*, expected a new or an empty folder"):
        write_shapes(other, 1, **OPTIONS)
    assert [path.name for path in other.iterdir()] == ["notes.txt"]
    with pytest.raises(UserError, match=r"output_dir: .*notes\.txt.*: cannot be written"):
        write_shapes(other / "notes.txt", 1, **OPTIONS)


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, *more: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shapes, "write_nifti", full)
    with pytest.raises(UserError, match=r"shapes_00000_0000\.nii\.gz: cannot be written: No space left"):
        write_shapes(tmp_path, 1, **OPTIONS)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--count 0", "count: found 0"),
        ("--count 1 --seed -1", "seed: found -1"),
        ("--count 1 --num_workers -1", "num_workers: found -1"),
        ("--count 1 --pixdim 1 2", "pixdim: found [1.0, 2.0], expected one number or 3, in mm"),
        ("--count 1 --pixdim 0", "pixdim: found 0.0, expected a number above 0"),
        ("--count 1 --roi_size 32 32", "roi_size: found [32, 32]"),
        ("--count 1 --xy_classes circle", "xy_classes: found ['circle']"),
        ("--count 1 --max_overlap 1.5", "max_overlap: found 1.5"),
        ("--count 1 --render fill", "render: found 'fill', expected one of outline, filled, textured"),
        ("--count 1 --spatial_dims 4", "spatial_dims: found 4"),
        ("--count 1 --tries 0", "tries: found 0"),
        ("--count 1 --sizes {'box':[30,100]}", "sizes::box: found [30, 100]"),
        ("--count 1 --rendering {'noise':[0,50]}", "rendering::noise: found [0, 50]"),
        ("--count 1 --num_shapes 9 3", "num_shapes: found [9, 3]"),
    ],
)
def test_mistakes_are_one_line(
    words: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "set"
    assert main(["shapes", "--output_dir", str(folder), *words.split()]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"error: {message}")
    assert said.count("\n") == 1
    assert not folder.exists()


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["shapes", "--count", "2", "--output_dir", str(tmp_path / "images"), "--spatial_dims", "2"]
    words += ["--roi_size", "32", "24", "--xy_classes", "ellipse", "5", "--max_overlap", "none"]
    assert main([*words, "--num_shapes", "2", "3", "--num_workers", "0"]) == 0
    assert f"{tmp_path / 'images'}: 2 volumes, 2 written now" in capsys.readouterr().out
    image, label = arrays(tmp_path / "images", 1)
    assert image.shape == label.shape == (32, 24, 1)  # a slice, as nnU-Net's reader expects images
    made = json.loads((tmp_path / "images" / "dataset.json").read_text())
    assert made["labels"] == {"background": 0, "ellipse": 1, "pentagon": 2}
    assert made["shapes"]["max_overlap"] is None
    assert made["shapes"]["num_shapes"] == [2, 3]


def test_images_have_room_for_their_shapes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A plane is full sooner: sizes of `paper_2d`, where those of volumes would drop half of the shapes."""
    words = ["shapes", "--count", "4", "--output_dir", str(tmp_path / "images"), "--spatial_dims", "2"]
    assert main([*words, "--num_workers", "0"]) == 0
    assert "found no position" not in capsys.readouterr().out
    profiles = yaml.safe_load((ROOT / "bundles/avsdb/configs/train.yaml").read_text())["profiles"]
    assert profiles["paper_2d"]["sizes"] == SIZES_2D
    assert profiles["paper_2d"]["roi_size"] == ROI_2D
    known = vars(make_parser().parse_args(["--count", "1", "--output_dir", "x"]))
    paper = profiles["paper"]
    assert paper["roi_size"] == [96, 96, 96]
    assert [paper["num_shapes"], paper["xy_classes"]] == [20, 8]
    assert (known["num_shapes"], known["xy_classes"], known["render"]) == ([20], ["8"], paper["render"])


def test_one_number_is_the_size_along_every_axis_and_sizes_and_looks_can_be_given(tmp_path: Path) -> None:
    words = ["shapes", "--count", "1", "--output_dir", str(tmp_path), "--roi_size", "24", "--num_shapes", "2"]
    words += ["--sizes", "{box: [60, 80], min_radius: 25}", "--rendering", "{brightness: [0.5, 0.5]}"]
    assert main([*words, "--render", "filled", "--tries", "7", "--num_workers", "0"]) == 0
    image, _ = arrays(tmp_path, 0)
    assert image.shape == (24, 24, 24)
    assert np.unique(image).tolist() == [0, 0.5]
    made = json.loads((tmp_path / "settings.json").read_text())
    assert made["roi_size"] == [24, 24, 24]
    assert (made["tries"], made["sizes"]) == (7, {"box": [60, 80], "min_radius": 25})
    assert made["rendering"] == {"brightness": [0.5, 0.5]}
