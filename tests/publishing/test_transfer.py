"""pretext3d/publishing/transfer.py: transfers that break, stall, are sent elsewhere, or have no address."""

import socket
from io import BytesIO
from pathlib import Path
from urllib.request import Request

import pytest
from pretext3d.errors import UserError
from pretext3d.publishing import transfer
from pretext3d.publishing.download import download
from pretext3d.publishing.index import INDEX
from pretext3d.publishing.transfer import Limits

from tests.publishing.archives import NOISE
from tests.publishing.calls import ZIP, get, leftovers, weights
from tests.publishing.server import FolderServer


def test_server_that_dies_in_the_middle_is_resumed_at_once(server: FolderServer, tmp_path: Path) -> None:
    server.dies_after, server.deaths = 30_000, 2
    get(server, tmp_path)
    assert weights(tmp_path) == b"0.1.0" + NOISE
    ranges = [asked for path, asked in server.requests if path == f"/{ZIP}"]
    assert ranges == ["", "bytes=30000-", "bytes=60000-"]


def test_server_that_delivers_little_each_time(server: FolderServer, tmp_path: Path) -> None:
    """More connections than attempts: each one that brings something restarts their count."""
    server.dies_after = 10_000
    get(server, tmp_path)
    assert weights(tmp_path) == b"0.1.0" + NOISE
    assert [path for path, _ in server.requests].count(f"/{ZIP}") > 2 * transfer.ATTEMPTS


def test_server_that_stalls(server: FolderServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What came before a connection stalled is kept, though it is less than a block."""
    monkeypatch.setattr(transfer, "TIMEOUT", 0.1)
    server.stalls_after = 25_000
    get(server, tmp_path)
    assert weights(tmp_path) == b"0.1.0" + NOISE
    ranges = [asked for path, asked in server.requests if path == f"/{ZIP}"]
    assert ranges == ["", *(f"bytes={start}-" for start in (25_000, 50_000, 75_000, 100_000))]


@pytest.mark.parametrize("name", [ZIP, INDEX])
def test_server_that_trickles(server: FolderServer, tmp_path: Path, name: str) -> None:
    """200 bytes a second, for ever: ended after one window; what came is kept, and the next call goes on."""
    server.trickles = name
    slow = Limits(window=0.2, rate=2_000)
    with pytest.raises(
        UserError, match=rf"{name}: found \d+ bytes in 0 s, expected 2,000 per second at least"
    ):
        get(server, tmp_path, limits=slow)
    assert len([path for path, _ in server.requests if path == f"/{name}"]) == 1
    server.trickles = ""
    get(server, tmp_path, limits=slow)
    assert weights(tmp_path) == b"0.1.0" + NOISE
    if name == ZIP:
        assert server.requests[-1][1].startswith("bytes=")


def test_server_that_does_not_answer(server: FolderServer, tmp_path: Path) -> None:
    """It is asked again, as after a lost connection, and then reported."""
    server.hesitates = 5.0
    with pytest.raises(UserError, match=r"cannot be read: no answer after 0\.05 s"):
        get(server, tmp_path, limits=Limits(opening=0.05))
    server.goes_on.set()


def test_a_rate_is_measured_over_each_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """10 bytes per second over 10 s: 100 after 10 s are enough, 199 after 20 s are not."""
    clock = [0.0]
    monkeypatch.setattr(transfer.time, "monotonic", lambda: clock[0])
    pace = transfer._Pace("http:" + "//example.org/x", Limits(window=10, rate=10))
    for seconds, received in ((9.0, 0), (10.0, 100), (19.0, 100)):
        clock[0] = seconds
        pace.check(received)
    clock[0] = 20.0
    with pytest.raises(UserError, match="found 99 bytes in 10 s, expected 10 per second"):
        pace.check(199)
    transfer._Pace("folder/x.zip", Limits(window=0, rate=10)).check(0)


def test_server_without_ranges_that_always_dies_ends(server: FolderServer, tmp_path: Path) -> None:
    server.ranges, server.dies_after = False, 30_000
    with pytest.raises(UserError, match="after 30,000 of"):
        get(server, tmp_path)
    assert [path for path, _ in server.requests].count(f"/{ZIP}") == 1 + transfer.ATTEMPTS


def test_next_call_goes_on_where_the_last_one_stopped(server: FolderServer, tmp_path: Path) -> None:
    server.dies_at = 50_000
    with pytest.raises(
        UserError, match=r"after 50,000 of 10\d,\d\d\d bytes, 5 times; the same command continues"
    ):
        get(server, tmp_path)
    assert [name for name in leftovers(tmp_path) if name.endswith(".part")] == leftovers(tmp_path) != []
    assert not (tmp_path / "tiny").exists()
    server.dies_at = None
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


def test_index_of_a_busy_server_is_asked_for_again(server: FolderServer, tmp_path: Path) -> None:
    server.busy = transfer.ATTEMPTS - 1
    get(server, tmp_path)
    assert weights(tmp_path) == b"0.1.0" + NOISE
    server.busy, server.requests = transfer.ATTEMPTS, []
    with pytest.raises(UserError, match=rf"{INDEX}: cannot be read: Service Unavailable"):
        get(server, tmp_path)
    assert server.requests == [(f"/{INDEX}", "")] * transfer.ATTEMPTS


@pytest.mark.parametrize("status", [408, 429, 500])
def test_busy_servers_are_asked_again(server: FolderServer, tmp_path: Path, status: int) -> None:
    server.status = status
    with pytest.raises(UserError, match="after 0 of"):
        get(server, tmp_path)
    assert [path for path, _ in server.requests].count(f"/{ZIP}") == transfer.ATTEMPTS


def test_redirects_are_followed_to_the_web_alone(server: FolderServer, folder: Path, tmp_path: Path) -> None:
    server.redirect = "file:" + f"//{folder / ZIP}"
    with pytest.raises(UserError, match="HTTP status 302"):
        get(server, tmp_path)
    server.redirect = server.url.replace("//", "//me:secret@") + "/x"
    with pytest.raises(UserError, match=r"redirected: .* without user name and password") as refused:
        get(server, tmp_path)
    assert "secret" not in str(refused.value)
    (folder / "moved").write_bytes((folder / ZIP).read_bytes())
    server.redirect = f"{server.url}/moved"
    get(server, tmp_path)
    assert weights(tmp_path) == b"0.1.0" + NOISE


def test_redirects_from_https_to_http_are_not() -> None:
    request = Request("https:" + "//example.org/x")
    follow = transfer._Redirects().redirect_request
    assert follow(request, None, 302, "", {}, "https:" + "//example.com/y") is not None
    with pytest.raises(UserError, match="expected https:// as before"):
        follow(request, BytesIO(), 302, "", {}, "http:" + "//example.com/y")


@pytest.mark.parametrize("rest", ["//[x", "///x", "//a:b/", "//me:secret@example.org"])
def test_urls_that_are_none(rest: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="source: found 'https:") as refused:
        download("tiny", f"https:{rest}", tmp_path)
    assert "secret" not in str(refused.value)


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
