"""pretext3d/publishing: downloads from a real HTTP server that breaks, lies and dies."""

import fcntl
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pretext3d
import pytest
from pretext3d.errors import UserError
from pretext3d.publishing import download as module
from pretext3d.publishing.download import download
from pretext3d.publishing.index import INDEX

from tests.publishing.archives import NOISE, write_bundle, write_index
from tests.publishing.calls import ZIP, get, leftovers, weights
from tests.publishing.server import FolderServer


# ------------------------------------------------------------------------------------------- when all is well
def test_download_is_the_bundle(server: FolderServer, tmp_path: Path) -> None:
    assert get(server, tmp_path / "there") == tmp_path / "there" / "tiny"
    assert weights(tmp_path / "there") == b"0.1.0" + NOISE
    assert leftovers(tmp_path / "there") == []
    assert server.requests == [(f"/{INDEX}", ""), (f"/{ZIP}", "")]


def test_reachable_from_the_package(folder: Path, tmp_path: Path) -> None:
    pretext3d.download("tiny", folder, tmp_path / "there", progress=False)
    assert weights(tmp_path / "there") == b"0.1.0" + NOISE
    with pytest.raises(AttributeError, match="downlaod"):
        _ = pretext3d.downlaod


def test_import_of_the_package_stays_light() -> None:
    heavy = ["urllib.request", "zipfile", "tqdm", "torch"]
    code = f"import sys, pretext3d; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_newest_version_or_the_one_asked_for(server: FolderServer, folder: Path, tmp_path: Path) -> None:
    write_bundle(folder, version="0.10.0")
    write_bundle(folder, version="0.9.0")
    write_index(folder)
    get(server, tmp_path / "a")
    get(server, tmp_path / "b", version="0.9.0")
    assert weights(tmp_path / "a").startswith(b"0.10.0")
    assert weights(tmp_path / "b").startswith(b"0.9.0")


def test_same_bundle_is_not_brought_twice(server: FolderServer, tmp_path: Path) -> None:
    get(server, tmp_path)
    (tmp_path / "tiny" / "__pycache__").mkdir()
    (tmp_path / "tiny" / "__pycache__" / "x.pyc").touch()
    get(server, tmp_path)
    assert [path for path, _ in server.requests].count(f"/{ZIP}") == 1


def test_new_version_replaces_the_old_one(server: FolderServer, folder: Path, tmp_path: Path) -> None:
    get(server, tmp_path / "there")
    write_bundle(folder, version="0.2.0", extra={"tiny/docs/new.md": b"new"})
    write_index(folder)
    get(server, tmp_path / "there")
    assert weights(tmp_path / "there").startswith(b"0.2.0")
    assert (tmp_path / "there" / "tiny" / "docs" / "new.md").is_file()
    assert leftovers(tmp_path / "there") == []


def test_index_elsewhere_than_the_zips(server: FolderServer, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "index").mkdir()
    write_index(folder, base_url=server.url)
    (folder / INDEX).rename(tmp_path / "index" / INDEX)
    download("tiny", tmp_path / "index" / INDEX, tmp_path / "there", progress=False)
    assert weights(tmp_path / "there") == b"0.1.0" + NOISE


# -------------------------------------------------------------------------------------- files that are not it
def test_truncated_zip_on_the_server(server: FolderServer, folder: Path, tmp_path: Path) -> None:
    whole = (folder / ZIP).read_bytes()
    (folder / ZIP).write_bytes(whole[:50_000])
    with pytest.raises(UserError, match=rf"found 50,000 bytes, expected {len(whole):,} as the index says"):
        get(server, tmp_path)


def test_wrong_hash_keeps_the_old_bundle(server: FolderServer, folder: Path, tmp_path: Path) -> None:
    get(server, tmp_path / "there")
    write_bundle(folder, version="0.2.0")
    index = write_index(folder)
    path = folder / "tiny_v0.2.0.zip"
    changed = bytearray(path.read_bytes())
    changed[5_000] ^= 1
    path.write_bytes(changed)
    expected = index["tiny_v0.2.0"]["sha256"]
    with pytest.raises(UserError, match=f"sha256: found [0-9a-f]{{64}}, expected {expected}"):
        get(server, tmp_path / "there")
    assert weights(tmp_path / "there").startswith(b"0.1.0")
    assert leftovers(tmp_path / "there") == []


def test_damaged_part_of_an_earlier_call_is_thrown_away(
    server: FolderServer, folder: Path, tmp_path: Path
) -> None:
    digits = json.loads((folder / INDEX).read_text())["tiny_v0.1.0"]["sha256"][:12]
    (tmp_path / f".tiny_v0.1.0.{digits}.part").write_bytes(b"z" * 20_000)
    get(server, tmp_path)
    assert [asked for path, asked in server.requests if path == f"/{ZIP}"] == ["bytes=20000-", ""]
    assert weights(tmp_path) == b"0.1.0" + NOISE


def test_hostile_zip_keeps_the_old_bundle(server: FolderServer, folder: Path, tmp_path: Path) -> None:
    get(server, tmp_path / "there")
    write_bundle(folder, version="0.2.0", extra={"tiny/../../evil.py": b"x"})
    write_index(folder)
    with pytest.raises(UserError, match="leads elsewhere"):
        get(server, tmp_path / "there")
    assert weights(tmp_path / "there").startswith(b"0.1.0")
    assert leftovers(tmp_path / "there") == []
    assert not list(tmp_path.rglob("evil*"))


def test_more_than_the_index_says_is_not_unpacked(server: FolderServer, folder: Path, tmp_path: Path) -> None:
    write_bundle(folder, extra={"tiny/models/zeros": bytes(2 * 10**6)})
    write_index(folder, unpacked_size=1000)
    with pytest.raises(UserError, match="bytes when unpacked"):
        get(server, tmp_path)


def test_index_without_sizes_is_refused(server: FolderServer, folder: Path, tmp_path: Path) -> None:
    write_index(folder, size=0)
    with pytest.raises(UserError, match="size: found none in the index"):
        get(server, tmp_path)


def test_damage_inside_leaves_no_part(folder: Path, tmp_path: Path) -> None:
    """A zip that is the index's, hash and all, and yet cannot be unpacked: nothing to go on from."""
    path = folder / ZIP
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("tiny/docs/README.md", b"many words " * 1000)
        begin = archive.getinfo("tiny/docs/README.md").header_offset + 30 + len("tiny/docs/README.md")
    content = bytearray(path.read_bytes())
    content[begin : begin + 10] = b"\xff" * 10
    path.write_bytes(content)
    write_index(folder)
    with pytest.raises(UserError, match="not a complete zip"):
        download("tiny", folder, tmp_path / "there", progress=False)
    assert leftovers(tmp_path / "there") == []


def test_names_too_long_are_not_the_output_folders_fault(folder: Path, tmp_path: Path) -> None:
    write_bundle(folder, extra={"tiny/docs/" + "x" * 300: b"x"})
    write_index(folder)
    with pytest.raises(UserError, match=r"tiny_v0.1.0\..*part: .*a name of 310 bytes"):
        download("tiny", folder, tmp_path / "there", progress=False)


@pytest.mark.parametrize("size", ["size", "unpacked_size"])
def test_no_index_allows_more_than_a_bundle_has(folder: Path, tmp_path: Path, size: str) -> None:
    write_index(folder, **{size: 10**15})
    path = folder / ZIP
    content = bytearray(path.read_bytes())
    at = content.rindex(b"PK\x01\x02")
    content[at + 24 : at + 28] = (2**32 - 2).to_bytes(4, "little")
    path.write_bytes(content)
    write_index(folder, **{size: 10**15})
    with pytest.raises(UserError, match=r"expected (at most )?4,294,967,296"):
        download("tiny", folder, tmp_path / "there", progress=False)


# ----------------------------------------------------------------------------------- what is there already
def test_two_at_once(server: FolderServer, tmp_path: Path) -> None:
    with (tmp_path / ".tiny.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another download of tiny is under way"):
            get(server, tmp_path)
    get(server, tmp_path)
    assert leftovers(tmp_path) == []


def test_lock_that_was_removed_meanwhile_keeps_nobody_out(
    server: FolderServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one before removes its file between our opening and locking it, and a third makes a new one."""
    flock, calls = fcntl.flock, []

    def late(descriptor: int, how: int) -> None:
        calls.extend([descriptor] if how & fcntl.LOCK_EX else [])
        if len(calls) == 1:
            (tmp_path / ".tiny.lock").unlink()
            (tmp_path / ".tiny.lock").touch()
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", late)
    get(server, tmp_path)
    assert len(calls) == 2  # locked the file that has the name
    assert leftovers(tmp_path) == []


def test_links_in_the_way_are_not_followed(server: FolderServer, folder: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text("weeks of work")
    digits = json.loads((folder / INDEX).read_text())["tiny_v0.1.0"]["sha256"][:12]
    for name in (".tiny.lock", f".tiny_v0.1.0.{digits}.part"):
        (tmp_path / name).symlink_to(mine)
        with pytest.raises(UserError, match=f"{name}: found a link"):
            get(server, tmp_path)
        (tmp_path / name).unlink()
    assert mine.read_text() == "weeks of work"


def test_older_index_does_not_replace_a_newer_bundle(
    server: FolderServer, folder: Path, tmp_path: Path
) -> None:
    write_bundle(folder, version="0.2.0")
    write_index(folder)
    get(server, tmp_path)
    (folder / "tiny_v0.2.0.zip").unlink()
    write_index(folder)
    with pytest.raises(UserError, match=r"found version 0.2.0, expected none newer than the index's, 0.1.0"):
        get(server, tmp_path)
    assert weights(tmp_path).startswith(b"0.2.0")
    get(server, tmp_path, version="0.1.0")
    assert weights(tmp_path).startswith(b"0.1.0")


@pytest.mark.parametrize("folder_of_mine", ["runs", "__pycache__"])
def test_files_of_the_users_are_not_destroyed(
    server: FolderServer, folder: Path, tmp_path: Path, folder_of_mine: str
) -> None:
    get(server, tmp_path)
    mine = tmp_path / "tiny" / folder_of_mine / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("weeks of work")
    write_bundle(folder, version="0.2.0")
    write_index(folder)
    with pytest.raises(
        UserError, match=rf"found 1 files that are not from a download \({folder_of_mine}/mine"
    ):
        get(server, tmp_path)
    assert mine.read_text() == "weeks of work"
    get(server, tmp_path, force=True)
    assert weights(tmp_path).startswith(b"0.2.0")


def test_damaged_bundle_is_mended(server: FolderServer, tmp_path: Path) -> None:
    get(server, tmp_path)
    (tmp_path / "tiny" / "models" / "model.pt").unlink()
    get(server, tmp_path)
    assert weights(tmp_path) == b"0.1.0" + NOISE


def test_failed_last_step_puts_the_old_bundle_back(
    server: FolderServer, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    get(server, tmp_path / "there")
    write_bundle(folder, version="0.2.0")
    write_index(folder)
    rename = Path.rename

    def fails(self: Path, target: Path) -> Path:
        if self.name == ".tiny.draft":
            raise OSError("disk full")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(UserError, match="disk full"):
        get(server, tmp_path / "there")
    assert weights(tmp_path / "there").startswith(b"0.1.0")


def test_what_a_killed_call_left_is_cleared(server: FolderServer, tmp_path: Path) -> None:
    get(server, tmp_path)
    (tmp_path / "tiny").rename(tmp_path / ".tiny.old")  # killed between the two last steps
    (tmp_path / ".tiny.draft").mkdir()
    get(server, tmp_path)
    assert weights(tmp_path) == b"0.1.0" + NOISE
    assert leftovers(tmp_path) == []
    assert [path for path, _ in server.requests].count(f"/{ZIP}") == 1


def test_place_that_is_a_file(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny").write_text("mine")
    with pytest.raises(UserError, match="is not a folder"):
        download("tiny", folder, tmp_path, progress=False)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        download("tiny", folder, tmp_path / "file", progress=False)


# ---------------------------------------------------------------------------------------------- the commands
def test_record_tells_what_was_downloaded(folder: Path, tmp_path: Path) -> None:
    record = json.loads((download("tiny", folder, tmp_path, progress=False) / module.RECORD).read_text())
    assert record["version"] == "0.1.0"
    assert set(record["files"]) == {"configs/metadata.json", "models/model.pt"}


def command(*words: object, module: bool = False) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *([] if module else ["-m", "pretext3d", "download"]), *map(str, words)],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def test_command_downloads(server: FolderServer, tmp_path: Path) -> None:
    done = command("tiny", "--source", server.url, "--output_dir", tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == f"tiny 0.1.0: {tmp_path / 'tiny'}"
    assert "100%" in done.stderr  # the progress bar


def test_command_tells_mistakes_in_one_line(server: FolderServer, tmp_path: Path) -> None:
    for words, expected in (
        (["tinny", "--source", server.url], "did you mean tiny?"),
        (["tiny", "--source", server.url, "--version", "7"], "version: found '7', expected three numbers"),
        (["tiny", "--source", tmp_path / "nothing"], f"has no {INDEX}"),
        (["tiny", "--source", "http:/" + "/[x"], "x', expected a URL"),
        (["tiny", "--source", f"{server.url}/näh re"], "cannot be read: Not Found"),
    ):
        done = command(*words, "--output_dir", tmp_path / "there")
        assert done.returncode == 1
        assert done.stderr.startswith("error: ")
        assert expected in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_monai_downloads_it_too(server: FolderServer, tmp_path: Path) -> None:
    words = ["-m", "monai.bundle", "download", "--name", "tiny", "--url", f"{server.url}/{ZIP}"]
    done = command(*words, "--bundle_dir", tmp_path, module=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert weights(tmp_path) == b"0.1.0" + NOISE
