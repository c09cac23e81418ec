"""A real HTTP server on the loopback device that serves a folder, and misbehaves as a test requires."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class FolderServer(ThreadingHTTPServer):
    """Serves the files of a folder, with ranges.

    Attributes:
        requests: path and Range header of each request.
        ranges: answer requests of a part with that part.
        dies_after: of each zip's body, send so many bytes, then close the connection; None = all of them.
        deaths: how many times it does so.
        dies_at: of each zip, never send anything beyond that byte; None = send it.
        stalls_after: of each zip's body, send so many bytes, then nothing until `goes_on` is set.
        status: what every request of a zip is answered with; 200 = as it should be.
        busy: how many requests of anything else are answered with 503 first.
        trickles: files that are sent byte by byte, one every 5 ms.
        hesitates: seconds before each header of an answer.
        reason: text of the status line.
        redirect: where requests of a zip are sent on to; '' = nowhere.
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), partial(_Handler, folder))
        self.requests: list[tuple[str, str]] = []
        self.ranges = True
        self.dies_after: int | None = None
        self.deaths = 1_000
        self.dies_at: int | None = None
        self.stalls_after: int | None = None
        self.goes_on = threading.Event()
        self.status = 200
        self.busy = 0
        self.redirect = ""
        self.trickles = ""
        self.hesitates = 0.0
        self.reason: str | None = None

    @property
    def url(self) -> str:
        host, port = self.server_address[:2]
        return "http:" + f"//{host!s}:{port}"


class _Handler(BaseHTTPRequestHandler):
    server: FolderServer

    def __init__(self, folder: Path, *arguments: object) -> None:
        self.folder = folder
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        asked = self.headers.get("Range", "")
        self.server.requests.append((self.path, asked))
        path = self.folder / self.path.lstrip("/")
        if not path.is_file():
            self.send_error(404)
            return
        body = path.read_bytes()
        is_zip = path.suffix == ".zip"
        if is_zip and self.server.status != 200:
            self.send_error(self.server.status, self.server.reason)
            return
        if not is_zip and self.server.busy > 0:
            self.server.busy -= 1
            self.send_error(503)
            return
        if is_zip and self.server.redirect:
            self.send_response(302)
            self.send_header("Location", self.server.redirect)
            self.end_headers()
            return
        self.server.goes_on.wait(self.server.hesitates)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.server.ranges else 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        part = body[start : self.server.dies_at if is_zip else None]
        self.close_connection = is_zip and self.server.dies_at is not None
        if is_zip and self.server.dies_after is not None and self.server.deaths > 0:
            self.server.deaths -= 1
            part = part[: self.server.dies_after]
            self.close_connection = True
        if is_zip and self.server.stalls_after is not None:
            self.wfile.write(part[: self.server.stalls_after])
            self.server.goes_on.wait(10)
            self.close_connection = True
            return
        for byte in part if self.path.endswith(self.server.trickles or "/") else b"":
            self.wfile.write(bytes([byte]))
            if self.server.goes_on.wait(0.005):
                return
        if not self.path.endswith(self.server.trickles or "/"):
            self.wfile.write(part)

    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def serving(folder: Path) -> Iterator[FolderServer]:
    """The server, up while the block runs."""
    with FolderServer(folder) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.goes_on.set()
            server.shutdown()
            thread.join()
