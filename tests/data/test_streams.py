"""Tests of reading bytes: checksums, ends, sizes that headers claim, and files that are only pointers."""

import bz2
import gzip
import io
import zlib

import numpy as np
import pytest
from pretext3d.data.faults import BadFileError
from pretext3d.data.streams import Stream, check_size, data_files, pointer, read_parts

DATA = np.random.RandomState(0).randint(0, 40, 300_000).astype(np.uint8).tobytes()
PACKED = {"raw": DATA, "gzip": gzip.compress(DATA), "zlib": zlib.compress(DATA), "bz2": bz2.compress(DATA)}


def read_whole(stream: Stream) -> None:
    stream.read(len(DATA))
    stream.expect_end()


@pytest.mark.parametrize("encoding", PACKED)
def test_every_encoding_is_read_to_its_end(encoding):
    stream = Stream(io.BytesIO(PACKED[encoding]), encoding)
    assert stream.read(348) == DATA[:348]
    assert stream.read(len(DATA)) == DATA[348:]  # all that is left
    stream.expect_end()
    with pytest.raises(BadFileError, match="more data than its header states"):
        Stream(io.BytesIO(PACKED[encoding]), encoding).expect_end()


def test_zeros_expand_without_pending_output_being_lost():
    zeros = bytes(9_000_000)  # a few kB of deflate give more than one block
    stream = Stream(io.BytesIO(gzip.compress(zeros)), "gzip")
    assert stream.read(len(zeros)) == zeros
    stream.expect_end()


def test_several_members_and_padding():
    two = gzip.compress(DATA[:1000]) + gzip.compress(DATA[1000:]) + bytes(512)
    stream = Stream(io.BytesIO(two), "gzip")
    assert stream.read(len(DATA)) == DATA
    stream.expect_end()


def test_every_flipped_bit_of_the_trailer_and_many_others_are_found():
    whole = PACKED["gzip"]
    trailer = range(len(whole) - 8, len(whole))  # CRC-32 and length
    others = np.random.RandomState(1).randint(20, len(whole) - 8, 24)
    for place in (*trailer, *others):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << (place % 8)
        stream = Stream(io.BytesIO(bytes(damaged)), "gzip")
        with pytest.raises(BadFileError, match=r"damaged|checksum|more data|too early"):
            read_whole(stream)


@pytest.mark.parametrize("encoding", ["gzip", "zlib", "bz2"])
@pytest.mark.parametrize("cut", [1, 4, 9, 1000])
def test_cut_streams(encoding, cut):
    stream = Stream(io.BytesIO(PACKED[encoding][:-cut]), encoding)
    with pytest.raises(BadFileError, match="too early"):
        read_whole(stream)


def test_sizes_are_compared_before_memory_is_taken():
    check_size((5, 6, 7), 2, 420)
    for available, found in ((419, "fewer data"), (421, "more data")):
        with pytest.raises(BadFileError, match=f"{found} than its header states: .* 5x6x7 voxels need 420 b"):
            check_size((5, 6, 7), 2, available)
    # 20 kB of deflate hold at most 1032 x 20,000 = 20.6 MB
    check_size((1000, 1000, 20), 1, 20_000, "gzip")
    with pytest.raises(BadFileError, match=r"1100x1100x1100 voxels, 5.32 GB, which 20 kB cannot hold"):
        check_size((1100, 1100, 1100), 4, 20_000, "gzip")
    with pytest.raises(BadFileError, match="more than 2,147,483,648 are not read"):
        check_size((2**11, 2**11, 2**9 + 1), 1, 2**31 + 2**22)
    with pytest.raises(BadFileError, match="no voxels, shape 5x0x7"):
        check_size((5, 0, 7), 2, 0)


def test_parts_of_several_files(tmp_path):
    truth = np.arange(4 * 3 * 2, dtype=">i2").reshape((4, 3, 2), order="F")
    files = []
    for k in range(2):
        path = tmp_path / f"{k}.raw"
        path.write_bytes(b"head" + truth[:, :, k].tobytes(order="F"))
        files.append((str(path), 4))
    np.testing.assert_array_equal(read_parts(files, np.dtype(">i2"), (4, 3, 2), "raw"), truth)
    (tmp_path / "0.raw").write_bytes(b"head")
    (tmp_path / "1.raw").write_bytes(b"head" + bytes(48))  # the sum is right, the parts are not
    with pytest.raises(BadFileError, match=r"fewer data than its header states in 0\.raw"):
        read_parts(files, np.dtype(">i2"), (4, 3, 2), "raw")


@pytest.mark.parametrize(
    "named",
    [
        "",
        "LIST",
        "s%d.raw a b c",
        "s%q.raw 1 2 1",
        "s%0100000d.raw 1 2 1",
        "s%*d.raw 1 2 1",
        "s%d%d 1 2 1",
        "s.raw\0",
    ],
)
def test_headers_that_name_no_data_file(named):
    with pytest.raises(BadFileError, match="names no data file"):
        data_files("a.mhd", named, [])


def test_a_header_names_few_files_below_its_folder():
    assert data_files("a/b.mhd", "c/../s%03d.raw 1 10000 1", [])[-1] == "a/c/../s10000.raw"
    for last in (10_001, 10**30):
        with pytest.raises(BadFileError, match=r"names more than 10,000 data files \('s%d\.raw 1"):
            data_files("a/b.mhd", f"s%d.raw 1 {last} 1", [])
    with pytest.raises(BadFileError, match="names 10,001 data files, expected at most 10,000"):
        data_files("a/b.mhd", "LIST", ["s.raw"] * 10_001)
    for name in ("/etc/passwd", "../b.raw", "c/../../b.raw", ".."):
        for named, listed in ((name, []), ("LIST", ["s.raw", name])):
            with pytest.raises(BadFileError, match="expected a data file in the header's folder"):
                data_files("a/b.mhd", named, listed)


def test_bzip2_is_counted_before_memory_is_taken(tmp_path, monkeypatch):
    path = tmp_path / "a.raw.bz2"
    path.write_bytes(PACKED["bz2"])
    whole = read_parts([(str(path), 0)], np.dtype("u1"), (299_997,), "bz2", 3)
    assert whole.tobytes() == DATA[3:]
    monkeypatch.setattr(np, "empty", lambda *_, **__: pytest.fail("memory was taken"))
    with pytest.raises(BadFileError, match=r"fewer data than its header states in a\.raw\.bz2"):
        read_parts([(str(path), 0)], np.dtype("u1"), (2000, 1000, 1000), "bz2")


def test_pointers(tmp_path):
    link = tmp_path / "a.nii.gz"
    link.symlink_to("../.git/annex/objects/aB/cD/MD5E-s9--0.nii.gz/MD5E-s9--0.nii.gz")
    assert "git annex get" in pointer(str(link))
    (tmp_path / "b.nii").write_text("/annex/objects/MD5E-s9--0.nii\n")
    assert "git annex get" in pointer(str(tmp_path / "b.nii"))
    (tmp_path / "c.nii").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    assert "git lfs pull" in pointer(str(tmp_path / "c.nii"))
    (tmp_path / "d.nii").write_bytes(bytes(400))
    assert pointer(str(tmp_path / "d.nii")) == pointer(str(tmp_path / "none")) == pointer("a\0b") == ""
