"""A checkpoint is read once, into its tensors, and every member's checksum is that of what was read."""

import subprocess
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch
from pretext3d.errors import UserError
from pretext3d.training.checked_zip import CheckedZip
from pretext3d.training.checkpoint_io import read_archive, save_checkpoint

# what loading a checkpoint reads, and how much memory it takes at most, as multiples of the file's size
MEASURE = """
import sys
from pathlib import Path
from pretext3d.training.checkpoint_io import load_checkpoint

def read():
    with open("/proc/self/io") as file:
        return int(file.readline().split()[1])  # rchar: bytes that were asked of the system

def memory(name):
    with open("/proc/self/status") as file:
        return 1024 * next(int(line.split()[1]) for line in file if line.startswith(name))

small, large = map(Path, sys.argv[1:])
load_checkpoint(small)  # imports what it needs
size, bytes_before, memory_before = large.stat().st_size, read(), memory("VmRSS")
content = load_checkpoint(large)
print((read() - bytes_before) / size, (memory("VmHWM") - memory_before) / size)
"""


@pytest.mark.skipif(not Path("/proc/self/io").is_file(), reason="the system does not count what is read")
def test_every_byte_is_read_once_and_held_once(tmp_path: Path) -> None:
    """64 MB in three tensors. Read twice it would be 2.0 of the file's size, copied in memory 2.0 as well."""
    network = {f"weight{i}": torch.randn(16, 1000, 1000 // 3) for i in range(3)}
    save_checkpoint(tmp_path / "small.pt", {"record": {}, "network": {"weight": torch.ones(1)}})
    save_checkpoint(tmp_path / "large.pt", {"record": {}, "network": network})
    words = [sys.executable, "-c", MEASURE, str(tmp_path / "small.pt"), str(tmp_path / "large.pt")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    read, held = map(float, done.stdout.split())
    assert 0.99 < read < 1.01
    assert 0.9 < held < 1.5


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def members(path: Path) -> dict[str, tuple[int, int]]:
    """Position and size of each member's bytes."""
    with zipfile.ZipFile(path) as archive, CheckedZip(path) as file:
        return {one.filename: (file._start(one), one.file_size) for one in archive.infolist()}


def test_a_wrong_byte_in_any_member_is_found(tmp_path: Path) -> None:
    """Also in those that torch does not read."""
    path = saved(tmp_path / "x.pt", {"a": torch.arange(6.0), "b": [torch.ones(300, dtype=torch.int64)]})
    whole, found = path.read_bytes(), members(path)
    assert len(found) >= 5
    for name, (start, size) in found.items():
        for place in {start, start + size // 2, start + size - 1}:
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            with pytest.raises(UserError) as caught:
                read_archive(path)
            assert str(caught.value) == f"found a damaged file (wrong checksum in {name})"
    path.write_bytes(whole)
    assert torch.equal(read_archive(path)["a"], torch.arange(6.0))


def test_a_member_that_is_only_in_the_index_is_found(tmp_path: Path) -> None:
    """The header before a member's bytes is overwritten."""
    path = saved(tmp_path / "x.pt", {"a": torch.ones(3)})
    with zipfile.ZipFile(path) as archive:
        last = archive.infolist()[-1]
    whole = bytearray(path.read_bytes())
    whole[last.header_offset : last.header_offset + 4] = b"none"
    path.write_bytes(whole)
    with pytest.raises(UserError, match=f"wrong checksum in {last.filename}"):
        read_archive(path)


def test_pieces_are_tallied_where_they_begin(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"0123456789")
    with CheckedZip(tmp_path / "x") as file:
        buffer = bytearray(4)
        file.seek(3)
        assert file.readinto(buffer) == 4
        assert bytes(buffer) == b"3456"
        assert file.readinto(buffer) == 3  # the file ends
        assert file.taken == {3: (4, zlib.crc32(b"3456")), 7: (3, zlib.crc32(b"789"))}


def test_a_zip_behind_other_bytes_is_not_read(tmp_path: Path) -> None:
    """torch would take its beginning for a file of torch before 1.6, which nothing here has checked."""
    path = saved(tmp_path / "x.pt", {"a": torch.ones(3)})
    path.write_bytes(b"\x80\x02" + path.read_bytes())
    with pytest.raises(UserError, match="found another kind of file"):
        read_archive(path)
