"""pretext3d/publishing: downloads from a real HTTP server that breaks, lies and dies."""

import fcntl
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pretext3d
import pytest
from pretext3d.errors import UserError
from pretext3d.publishing import download as module
from pretext3d.publishing import transfer
from pretext3d.publishing.download import download
from pretext3d.publishing.index import INDEX

from tests.publishing.archives import NOISE, write_bundle, write_index
from tests.publishing.server import FolderServer, serving

ROOT = Path(__file__).resolve().parents[2]
ZIP = "tiny_v0.1.0.zip"


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "PAUSE", 0.0)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Packed bundles with their index."""
    write_bundle(tmp_path / "dist")
    write_index(tmp_path / "dist")
    return tmp_path / "dist"


@pytest.fixture
def server(folder: Path) -> Iterator[FolderServer]:
    with serving(folder) as server:
        yield server


def get(server: FolderServer, there: Path, **options: object) -> Path:
    return download("tiny", server.url, there, progress=False, **options)  # type: ignore[arg-type]


def leftovers(there: Path) -> list[str]:
    return sorted(path.name for path in there.iterdir() if path.name.startswith("."))


def weights(there: Path) -> bytes:
    return (there / "tiny" / "models" / "model.pt").read_bytes()


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


# ------------------------------------------------------------------------------------- transfers that break
def test_server_that_dies_in_the_middle_is_resumed_at_once(server: FolderServer, tmp_path: Path) -> None:
    server.dies_after, server.deaths = 30_000, 2
    get(server, tmp_path)
    assert weights(tmp_path) == b"0.1.0" + NOISE
    ranges = [asked for path, asked in server.requests if path == f"/{ZIP}"]
    assert ranges == ["", "bytes=30000-", "bytes=60000-"]


def test_next_call_goes_on_where_the_last_one_stopped(server: FolderServer, tmp_path: Path) -> None:
    server.dies_after = 10_000
    with pytest.raises(
        UserError, match=r"after 50,000 of 10\d,\d\d\d bytes, 5 times; the same command goes on"
    ):
        get(server, tmp_path)
    assert [name for name in leftovers(tmp_path) if name.endswith(".part")] == leftovers(tmp_path) != []
    assert not (tmp_path / "tiny").exists()
    server.dies_after = None
    (tmp_path / ".tiny_v0.0.9.0123456789ab.part").touch()  # of a version that was never finished
    get(server, tmp_path)
    assert server.requests[-1] == (f"/{ZIP}", "bytes=50000-")
    assert weights(tmp_path) == b"0.1.0" + NOISE
    assert leftovers(tmp_path) == []


def test_server_without_ranges_starts_again(server: FolderServer, tmp_path: Path) -> None:
    server.ranges, server.dies_after, server.deaths = False, 30_000, 1
    get(server, tmp_path)
    assert [asked for path, asked in server.requests if path == f"/{ZIP}"] == ["", "bytes=30000-"]
    assert weights(tmp_path) == b"0.1.0" + NOISE


def test_server_that_comes_back_in_time(server: FolderServer, tmp_path: Path) -> None:
    server.status = 503
    with pytest.raises(UserError, match="Service Unavailable after 0 of"):
        get(server, tmp_path)
    assert [path for path, _ in server.requests].count(f"/{ZIP}") == transfer.ATTEMPTS
    server.status = 200
    get(server, tmp_path)
    assert weights(tmp_path) == b"0.1.0" + NOISE


def test_missing_zip_is_not_asked_for_again(server: FolderServer, folder: Path, tmp_path: Path) -> None:
    (folder / ZIP).unlink()
    with pytest.raises(UserError, match="HTTP status 404"):
        get(server, tmp_path)
    assert [path for path, _ in server.requests].count(f"/{ZIP}") == 1


def test_nobody_there(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(UserError, match=f"127.0.0.1:{port}/{INDEX}: cannot be read"):
        download("tiny", f"http://127.0.0.1:{port}", tmp_path)


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


# ----------------------------------------------------------------------------------- what is there already
def test_two_at_once(server: FolderServer, tmp_path: Path) -> None:
    with (tmp_path / ".tiny.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another download of tiny is under way"):
            get(server, tmp_path)
    get(server, tmp_path)
    assert leftovers(tmp_path) == []


def test_files_of_the_users_are_not_destroyed(server: FolderServer, folder: Path, tmp_path: Path) -> None:
    get(server, tmp_path)
    mine = tmp_path / "tiny" / "runs" / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("weeks of work")
    write_bundle(folder, version="0.2.0")
    write_index(folder)
    with pytest.raises(UserError, match=r"found 1 files that no download has put there \(runs/mine.txt\)"):
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
    with pytest.raises(UserError, match="is no folder"):
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
        [sys.executable, *([] if module else [str(ROOT / "tools" / "download.py")]), *map(str, words)],
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
        (["tiny", "--source", "http:/" + "/[x"], f"has no {INDEX}"),
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
