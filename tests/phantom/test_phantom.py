"""The phantom's files: same bytes for the same seed, complete or absent, reused, rebuilt when damaged."""

import hashlib
import json
import multiprocessing
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from pretext3d.errors import UserError
from pretext3d.phantom import phantom
from pretext3d.phantom.phantom import phantom_affine, phantom_volume, write_phantom

SIZE = (24, 20, 24)


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }


def write(root: Path, num_cases: int = 2, seed: int = 0) -> Path:
    return write_phantom(root, num_cases, seed, SIZE, progress=False)


def test_a_case_is_a_function_of_seed_and_index() -> None:
    first, again = phantom_volume(5, 1, SIZE), phantom_volume(5, 1, SIZE)
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    np.testing.assert_array_equal(phantom_affine(5, 1, SIZE), phantom_affine(5, 1, SIZE))
    for other in (phantom_volume(5, 2, SIZE), phantom_volume(6, 1, SIZE)):
        assert other[0].shape != first[0].shape or (other[0] != first[0]).any()


def test_global_random_state_is_neither_used_nor_changed() -> None:
    np.random.seed(1)
    before = phantom_volume(0, 0, SIZE)[0]
    drawn = np.random.rand()
    np.random.seed(1)
    assert np.random.rand() == drawn
    np.testing.assert_array_equal(phantom_volume(0, 0, SIZE)[0], before)


def test_types_and_ranges() -> None:
    image, label = phantom_volume(0, 0, SIZE)
    assert image.dtype == np.float32
    assert label.dtype == np.uint8
    assert image.shape == label.shape
    assert image.min() >= 0
    assert image.max() <= 4000
    np.testing.assert_array_equal(image, np.rint(image))
    # within 8 % of the nominal size
    assert (np.abs(np.array(image.shape) / SIZE - 1) <= 0.08 + 0.5 / 20).all()


def test_affine_is_ras_in_the_spacing_asked_for() -> None:
    affine = phantom_affine(0, 3, (40, 32, 40))
    # 320 / 40, 256 / 32, 320 / 40 mm
    np.testing.assert_array_equal(affine[:3, :3], np.diag([8.0, 8.0, 8.0]))
    assert nib.aff2axcodes(affine) == ("R", "A", "S")
    middle = (
        affine[:3, :3] @ ((np.array(phantom_volume(0, 3, (40, 32, 40))[0].shape) - 1) / 2) + affine[:3, 3]
    )
    assert np.abs(middle).max() <= 8.1
    np.testing.assert_array_equal(np.diag(phantom_affine(0, 0, SIZE, (9, 8, 12)))[:3], [9, 8, 12])


def test_the_folder_is_a_decathlon_folder_with_the_volumes_in_it(tmp_path: Path) -> None:
    folder = write(tmp_path / "cache")
    about = json.loads((folder / "dataset.json").read_text())
    assert about["numTraining"] == len(about["training"]) == 2
    assert about["labels"] == {str(value): name for value, name in enumerate(phantom.LABELS)}
    assert about["modality"] == {"0": "MR"}
    assert about["name"]
    assert "CC0" in about["licence"]
    for index, case in enumerate(about["training"]):
        image, label = nib.load(folder / case["image"]), nib.load(folder / case["label"])
        expected = phantom_volume(0, index, SIZE)
        assert image.get_data_dtype() == np.int16
        assert label.get_data_dtype() == np.uint8
        np.testing.assert_array_equal(np.asarray(image.dataobj), expected[0])
        np.testing.assert_array_equal(np.asarray(label.dataobj), expected[1])
        # the header holds float32
        np.testing.assert_allclose(image.affine, phantom_affine(0, index, SIZE), atol=1e-4)
        np.testing.assert_array_equal(image.affine, label.affine)
        np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-4)
        assert image.header.get_xyzt_units()[0] == "mm"


def test_same_seed_same_bytes_and_a_longer_set_begins_with_a_shorter_one(tmp_path: Path) -> None:
    one, two = hashes(write(tmp_path / "a")), hashes(write(tmp_path / "b"))
    assert one == two
    longer, other = hashes(write(tmp_path / "a", 3)), hashes(write(tmp_path / "a", 2, seed=1))
    for name in one:
        if name.endswith(".nii.gz"):
            assert longer[name] == one[name]
            assert other[name] != one[name]


def test_a_complete_folder_is_reused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path)
    monkeypatch.setattr(phantom, "write_case", lambda *_: pytest.fail("written again"))
    assert write(tmp_path) == folder


@pytest.mark.parametrize("damage", ["cut", "changed", "missing", "no sums", "short sums", "empty folder"])
def test_a_damaged_folder_is_rebuilt(tmp_path: Path, damage: str) -> None:
    folder = write(tmp_path)
    whole = hashes(folder)
    image, sums = folder / "imagesTr" / "phantom_001.nii.gz", folder / "SHA256SUMS"
    if damage == "cut":
        image.write_bytes(image.read_bytes()[:500])
    elif damage == "changed":
        content = bytearray(image.read_bytes())
        content[len(content) // 2] ^= 1
        image.write_bytes(bytes(content))
    elif damage == "missing":
        (folder / "dataset.json").unlink()
    elif damage == "no sums":
        sums.unlink()
    elif damage == "short sums":
        sums.write_text("".join(sums.read_text().splitlines(keepends=True)[:1]))
    else:
        for name in whole:
            (folder / name).unlink()
    assert hashes(folder) != whole
    assert write(tmp_path) == folder
    assert hashes(folder) == whole
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_an_interrupted_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(folder: Path, seed: int, index: int, *_: object) -> None:
        if index == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(phantom, "write_case", stop)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_another_process_finished_first_stays(tmp_path: Path) -> None:
    folder = write(tmp_path)
    stamp = (folder / "dataset.json").stat().st_mtime_ns
    draft = tmp_path / "draft"
    draft.mkdir()
    (draft / "other").touch()
    phantom.put_in_place(draft, folder, 5)
    assert (folder / "dataset.json").stat().st_mtime_ns == stamp
    assert draft.exists()


def test_two_processes_at_once(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        first, second = pool.map(write, [tmp_path, tmp_path], chunksize=1)
    assert first == second
    assert [path.name for path in tmp_path.iterdir()] == [first.name]
    assert phantom.is_complete(first, 5)


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ({"num_cases": 0}, "num_cases of the phantom: found 0"),
        ({"seed": -1}, "seed of the phantom: found -1"),
        ({"size": (24, 20)}, r"size of the phantom: found \[24, 20\]"),
        ({"size": (24, 20, 4)}, r"size of the phantom: found \[24, 20, 4\]"),
        ({"spacing": (4.0, 0.0, 4.0)}, r"spacing of the phantom: found \[4.0, 0.0, 4.0\]"),
    ],
)
def test_a_bad_argument_is_named(tmp_path: Path, arguments: dict, found: str) -> None:
    with pytest.raises(UserError, match=found):
        write_phantom(tmp_path, progress=False, **arguments)


def test_a_root_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot be written to .*file"):
        write(tmp_path / "file")
