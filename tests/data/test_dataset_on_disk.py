"""The cache of volumes on disk: damaged entries, a power failure, a full disk, what killed processes left."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from pretext3d.data.dataset import CachedVolumes
from pretext3d.errors import UserError
from pretext3d.files import remove_old_drafts

from tests.data.cached import pipeline


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-16])


def zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def another_array(path: Path) -> None:
    np.save(path, np.zeros((1, 7, 6, 5), dtype=np.float32))


def a_zip(path: Path) -> None:
    np.savez(path.with_suffix(""), array=np.ones(3))
    path.with_suffix(".npz").replace(path)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("image.npy", shorten),  # mmap length is greater than file size
        ("image.npy", lambda path: path.write_bytes(b"")),  # EOFError
        ("image.npy", zeros),  # as after a power failure
        ("image.npy", another_array),
        ("image.npy", a_zip),
        ("image.npy", Path.unlink),
        ("case.json", shorten),
        ("case.json", lambda path: path.write_bytes(b"")),
        ("case.json", zeros),
        ("case.json", lambda path: path.write_text('{"image": []}')),
        ("case.json", lambda path: path.write_text("{}")),
        ("case.json", Path.unlink),
    ],
)
def test_damaged_entry_is_made_again(
    cases: list[dict], tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, damage: Callable
) -> None:
    data = CachedVolumes(cases, pipeline(), str(tmp_path / "cache"))
    expected = data.volume(1)["image"].clone()
    damage(data.entry(1) / name)
    again = CachedVolumes(cases, pipeline(), str(tmp_path / "cache"))
    assert torch.equal(again.volume(1)["image"], expected)
    assert f"{data.entry(1)} is damaged and read again: " in caplog.text
    caplog.clear()
    assert torch.equal(again.volume(1)["image"], expected)
    assert caplog.text == ""
    assert len(list((tmp_path / "cache" / "volumes").iterdir())) == 3


def test_entries_reach_the_disk_before_they_have_their_name(
    cases: list[dict], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("the system does not name open files")
    done: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def noted_fsync(descriptor: int) -> None:
        done.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    def noted_rename(path: Path, target: Path) -> Path:
        done.append("renamed")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "rename", noted_rename)
    entry = CachedVolumes(cases[:1], pipeline(), str(tmp_path / "cache")).entry(0)
    assert set(done[:2]) == {"image.npy", "case.json"}
    assert done[2].startswith(f".{entry.name}.")
    assert done[3:] == ["renamed", "volumes"]


def test_full_disk_is_one_line(cases: list[dict], tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(UserError, match="cache_dir"):
        CachedVolumes(cases, pipeline(), str(tmp_path / "cache"))


def test_numpy_s_words_for_a_full_disk(
    cases: list[dict], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short(path: Path, array: np.ndarray) -> None:
        raise OSError("1024 requested and 128 written")

    monkeypatch.setattr(np, "save", short)
    with pytest.raises(UserError, match=r"cache_dir: .*volumes cannot be written: .*No space left on device"):
        CachedVolumes(cases, pipeline(), str(tmp_path / "cache"))


def test_what_killed_processes_left_is_removed_in_time(cases: list[dict], tmp_path: Path) -> None:
    data = CachedVolumes(cases, pipeline(), str(tmp_path / "cache"))
    kept = set(data.folder.iterdir())
    old, new = data.folder / "0123.draft", data.folder / "4567.draft"
    for folder in (old, new):
        folder.mkdir()
        (folder / "image.npy").write_bytes(b"half")
    os.utime(old, (0, 0))
    remove_old_drafts(data.folder, "*.*")
    assert set(data.folder.iterdir()) == kept | {new}
