"""pretext3d/publishing/archive.py: names and versions, and what is not unpacked."""

import stat
import zipfile
from pathlib import Path

import pytest
from pretext3d.errors import UserError
from pretext3d.publishing.archive import (
    check_changelog,
    check_name,
    check_version,
    differing_files,
    requirements,
    split_archive_name,
    unpack,
    version_order,
)
from pretext3d.publishing.index import make_index

from tests.publishing.archives import NOISE, write_bundle


def hostile(folder: Path, member: str | zipfile.ZipInfo, content: bytes = b"x") -> Path:
    path = write_bundle(folder, extra={"tiny/docs/STRASSE": b"x", "tiny/docs/\u00e9.md": b"x"})
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


@pytest.mark.parametrize("version", ["1", "0.1", "v0.1.0", "0.1.0rc1", "0.1.\u0661", "0.1.0\n", None, 1])
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
    (tmp_path / "new" / "__pycache__" / "mine.txt").touch()
    assert differing_files(tmp_path / "new", files) == [
        "__pycache__/mine.txt",
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
        ("C:" + "/evil.py", "colon"),
        ("tiny/con\nfig", "control"),
        ("evil.py", "not in the folder tiny/"),
        ("tiny2/evil.py", "not in the folder tiny/"),
        ("tiny", "a file where the folder"),
        ("tiny/configs/Metadata.json", "twice"),
        ("tiny/docs/stra\u00dfe", "twice"),  # and tiny/docs/STRASSE
        ("tiny/docs/e\u0301.md", "twice"),  # and the same in one letter
        ("tiny/torch/__init__.py", "expected configs"),
        ("tiny/torch.py", "expected configs"),
        ("tiny/evil.exe", "expected configs"),
        ("tiny/.git/hooks/post-checkout", "hidden"),
        ("tiny/configs/.x", "hidden"),
        ("tiny/pretext3d/__pycache__/a.cpython-311.pyc", "left over"),
        ("tiny/pretext3d/a.pyc", "left over"),
        ("tiny/docs/evil.exe", "left over"),
        ("tiny/docs/runs/x.txt", "left over"),
        ("tiny/docs/Runs/x.txt", "left over"),
        ("tiny/pretext3d/a.so", "left over"),
        ("tiny/pretext3d/a.txt", "not a Python file"),
        ("tiny/docs/nul", "device"),
        ("tiny/docs/Con.txt", "device"),
        ("tiny/docs/COM1 .x", "device"),
        ("tiny/docs/a.", "ends with a dot"),
        ("tiny/docs /a", "ends with a dot"),
        ("tiny/docs/a\u202etxt.py", "format character"),
        ("tiny/docs/a?b", "no Windows name"),
        ("tiny/docs/" + "x" * 300, "a name of 310 bytes, expected 255"),
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
        unpack(path, tmp_path / "new", "tiny", max_bytes=10**6)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_bombs_that_lie_about_their_size_are_refused(tmp_path: Path, method: int) -> None:
    """What these two methods unpack is not held to the size that the zip states."""
    path = write_bundle(tmp_path)
    with zipfile.ZipFile(path, "a", method) as archive:
        archive.writestr("tiny/models/zeros", bytes(10**6))
    content = bytearray(path.read_bytes())
    at = content.rindex(b"PK\x01\x02")  # the list's entry of the last member
    content[at + 24 : at + 28] = (100).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(UserError, match="expected stored or deflated"):
        unpack(path, tmp_path / "new", "tiny", max_bytes=10**6)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("text", [b"[" * 200_000, b'{"a":' * 200_000])
def test_metadata_that_is_nested_without_end(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "tiny_v0.1.0.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny/configs/metadata.json", text)
    with pytest.raises(UserError, match=r"metadata.json: is nested too deeply"):
        unpack(path, tmp_path / "new", "tiny")


def test_damage_of_what_is_deflated(tmp_path: Path) -> None:
    path = write_bundle(tmp_path)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("tiny/docs/README.md", b"many words " * 1000)
        offset = archive.getinfo("tiny/docs/README.md").header_offset
    content = bytearray(path.read_bytes())
    begin = offset + 30 + len("tiny/docs/README.md")
    content[begin : begin + 10] = b"\xff" * 10
    path.write_bytes(content)
    with pytest.raises(UserError, match="not a complete zip: Error -3 while decompressing"):
        unpack(path, tmp_path / "new", "tiny")


def test_names_that_are_no_text(tmp_path: Path) -> None:
    path = write_bundle(tmp_path, extra={"tiny/docs/\u00e9": b"x"})
    path.write_bytes(path.read_bytes().replace("\u00e9".encode(), b"\xff\xff"))
    with pytest.raises(UserError, match="not a complete zip: 'utf-8' codec"):
        unpack(path, tmp_path / "new", "tiny")
    with pytest.raises(UserError, match="is not a complete zip"):
        make_index(tmp_path)


GOOD = {"monai_version": "1.6.1", "pytorch_version": "2.13.0", "numpy_version": "2.4.6"}


def test_requirements() -> None:
    assert requirements({**GOOD, "required_packages_version": {"fire": "0.7.1"}}) == [
        "fire==0.7.1", "monai==1.6.1", "numpy==2.4.6", "torch==2.13.0"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"required_packages_version": {"--index-url=https:x": "1"}}, "the name '--index-url"),
        ({"required_packages_version": {"a b": "1"}}, "the name 'a b'"),
        ({"required_packages_version": {"a": "1 --pre"}}, "version of a: found '1 --pre'"),
        ({"required_packages_version": ["a==1"]}, "found list, expected names and versions"),
        ({"required_packages_version": {"a": 1}}, "version of a: found 1"),
        ({"monai_version": None}, "version of monai: found None"),
    ],
)
def test_requirements_that_pip_would_misread(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=f"metadata.json: .*{message}"):
        requirements({**GOOD, **changes})


@pytest.mark.parametrize("changelog", [None, "0.1.0 first", ["0.1.0"], {}, {"0.2.0": "x"}])
def test_changelog_has_an_entry_of_the_version(changelog: object) -> None:
    with pytest.raises(UserError, match=r"there: (changelog|version): found"):
        check_changelog({"version": "0.1.0", "changelog": changelog}, "there")
    assert check_changelog({"version": "0.1.0", "changelog": {"0.1.0": "first"}}, "there") == "0.1.0"


def test_too_many_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pretext3d.publishing.archive.MAX_FILES", 1)
    with pytest.raises(UserError, match="found 2 files, expected 1 at most"):
        unpack(write_bundle(tmp_path), tmp_path / "new", "tiny")


def test_damaged_zips_are_refused(tmp_path: Path) -> None:
    path = write_bundle(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="not a complete zip"):
        unpack(path, tmp_path / "a", "tiny")
    flipped = bytearray(whole)
    flipped[whole.index(NOISE) + 50_000] ^= 1
    path.write_bytes(flipped)
    with pytest.raises(UserError, match="not a complete zip: Bad CRC"):
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
