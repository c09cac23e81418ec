"""pretext3d/publishing/archive.py: names and versions, and what is not unpacked."""

import stat
import zipfile
from pathlib import Path

import pytest
from pretext3d.errors import UserError
from pretext3d.publishing.archive import (
    check_name,
    check_version,
    differing_files,
    split_archive_name,
    unpack,
    version_order,
)

from tests.publishing.archives import NOISE, write_bundle


def hostile(folder: Path, member: str | zipfile.ZipInfo, content: bytes = b"x") -> Path:
    path = write_bundle(folder)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(member, content)
    return path


@pytest.mark.parametrize("name", ["", "a b", "../x", "1st", "spleen_vessels", "a/b", "a.b"])
def test_names_that_no_index_can_hold_are_refused(name: str) -> None:
    with pytest.raises(UserError, match="name: found"):
        check_name(name)


def test_names_and_versions_that_are_good() -> None:
    assert check_name("relative_patch_location") == "relative_patch_location"
    assert check_version("10.2.33") == "10.2.33"
    assert split_archive_name("rubiks_cube_v0.10.2.zip") == ("rubiks_cube", "0.10.2")
    assert [split_archive_name(n) for n in ("a.zip", "a_v1.zip", "a_v0.1.0.zip.sha256", "_v0.1.0.zip")] == [
        None
    ] * 4
    assert sorted(["0.10.0", "0.9.1", "0.9.10"], key=version_order) == ["0.9.1", "0.9.10", "0.10.0"]


@pytest.mark.parametrize("version", ["1", "0.1", "v0.1.0", "0.1.0rc1", None, 1])
def test_bad_versions_are_refused(version: object) -> None:
    with pytest.raises(UserError, match="metadata: found"):
        check_version(version, "metadata")


def test_unpacked_files_are_those_of_the_zip(tmp_path: Path) -> None:
    files = unpack(write_bundle(tmp_path), tmp_path / "new", "tiny", "0.1.0")
    assert set(files) == {"configs/metadata.json", "models/model.pt"}
    assert (tmp_path / "new" / "models" / "model.pt").read_bytes() == b"0.1.0" + NOISE
    assert differing_files(tmp_path / "new", files) == []
    (tmp_path / "new" / "models" / "model.pt").write_bytes(b"mine")
    (tmp_path / "new" / "configs" / "metadata.json").unlink()
    (tmp_path / "new" / "more.txt").touch()
    (tmp_path / "new" / "__pycache__").mkdir()
    (tmp_path / "new" / "__pycache__" / "a.pyc").touch()
    assert differing_files(tmp_path / "new", files) == [
        "configs/metadata.json",
        "models/model.pt",
        "more.txt",
    ]


@pytest.mark.parametrize(
    ("member", "reason"),
    [
        ("tiny/../../evil.py", "leads elsewhere"),
        ("../evil.py", "leads elsewhere"),
        ("/evil.py", "leads elsewhere"),
        ("tiny/./evil.py", "leads elsewhere"),
        ("tiny//evil.py", "leads elsewhere"),
        ("tiny\\..\\evil.py", "backslash"),
        ("C:/evil.py", "colon"),
        ("tiny/con\nfig", "control"),
        ("evil.py", "not in the folder tiny/"),
        ("tiny2/evil.py", "not in the folder tiny/"),
        ("tiny", "a file where the folder"),
        ("tiny/Configs/metadata.json", "twice"),
        ("tiny/models/model.pt/evil.py", "twice"),
    ],
)
def test_members_that_lead_elsewhere_are_refused(tmp_path: Path, member: str, reason: str) -> None:
    path = hostile(tmp_path / "a", member)
    with pytest.raises(UserError, match=reason):
        unpack(path, tmp_path / "b" / "new", "tiny")
    assert not (tmp_path / "b").exists()  # nothing was written, inside or outside
    assert not list(tmp_path.rglob("evil*"))


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_are_refused(tmp_path: Path, kind: int) -> None:
    member = zipfile.ZipInfo("tiny/models/link")
    member.create_system = 3
    member.external_attr = (kind | 0o777) << 16
    with pytest.raises(UserError, match="a link or device"):
        unpack(hostile(tmp_path, member, b"../../.."), tmp_path / "new", "tiny")


def test_bombs_are_refused_before_unpacking(tmp_path: Path) -> None:
    path = write_bundle(tmp_path)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("tiny/models/zeros", bytes(10**7))
    assert path.stat().st_size < 200_000
    with pytest.raises(UserError, match=r"10,1\d\d,\d\d\d bytes when unpacked, expected 1,000,000 at most"):
        unpack(path, tmp_path / "new", "tiny", most_bytes=10**6)
    assert not (tmp_path / "new").exists()


def test_too_many_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pretext3d.publishing.archive.MOST_FILES", 1)
    with pytest.raises(UserError, match="found 2 files, expected 1 at most"):
        unpack(write_bundle(tmp_path), tmp_path / "new", "tiny")


def test_damaged_zips_are_refused(tmp_path: Path) -> None:
    path = write_bundle(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="no whole zip"):
        unpack(path, tmp_path / "a", "tiny")
    flipped = bytearray(whole)
    flipped[whole.index(NOISE) + 50_000] ^= 1
    path.write_bytes(flipped)
    with pytest.raises(UserError, match="no whole zip: Bad CRC"):
        unpack(path, tmp_path / "b", "tiny")


def test_another_version_inside_is_refused(tmp_path: Path) -> None:
    path = write_bundle(tmp_path, version="0.2.0")
    with pytest.raises(UserError, match=r"version: found '0.2.0' in its metadata, expected '0.1.0'"):
        unpack(path, tmp_path / "new", "tiny", "0.1.0")


def test_zip_without_metadata_is_no_bundle(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "tiny_v0.1.0.zip", "w") as archive:
        archive.writestr("tiny/LICENSE", "x")
    with pytest.raises(UserError, match=r"has no tiny/configs/metadata.json"):
        unpack(tmp_path / "tiny_v0.1.0.zip", tmp_path / "new", "tiny")
