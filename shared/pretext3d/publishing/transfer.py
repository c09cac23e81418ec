"""Files over HTTP, or from a folder: an interrupted transfer resumes where it stopped."""

import http.client
import os
import queue
import re
import threading
import time
import urllib.error
import urllib.request
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote, urlsplit

from pretext3d.errors import UserError
from pretext3d.messages import printable

__all__ = ["LIMITS", "Limits", "check_url", "fetch", "is_url", "read_small", "without_password"]

ATTEMPTS = 5  # consecutive ones without progress
PAUSE = 1.0  # seconds before the second attempt; twice as long before each further one
TIMEOUT = 30.0  # seconds without a byte
BLOCK = 2**18


@dataclass(frozen=True)
class Limits:
    """How slow a transfer may be before it is given up.

    A minimum rate in every window, not one deadline for the file: it ends a transfer that trickles within a
    minute, whatever the size, and still bounds the time by the size (4 GiB take five days at the most). The
    received part stays, and the next call continues with it.

    Attributes:
        opening: Seconds until a server has answered with all headers.
        window: Seconds over which the rate is measured, breaks and pauses included.
        rate: Bytes per second that each window has to bring; a slow line of 1 Mbit/s brings 125,000.
    """

    opening: float = 60.0
    window: float = 60.0
    rate: float = 10_000.0


LIMITS = Limits()
MAX_SMALL_BYTES = 16 * 2**20
BUSY = (408, 429)  # statuses, besides 500 and above, that may change after a moment


def is_url(source: str) -> bool:
    """Whether a source is read over HTTP.

    Examples:
        >>> is_url("https://example.org/bundles"), is_url("bundles_out")
        (True, False)
    """
    return source.lower().startswith(("http://", "https://"))


def without_password(url: str) -> str:
    """A URL, or a message with URLs, without the user name and password before a host.

    Examples:
        >>> without_password("https://me:secret@example.org/x")
        'https://***@example.org/x'
    """
    return re.sub(r"(?<=://)[^/?#\s]*@", "***@", url)


def check_url(url: str, where: str = "source") -> str:
    """The URL, if it names a host and contains no user name or password.

    Raises:
        UserError: begins with `where`, and shows no password.
    """
    shown = without_password(url)
    try:
        parts = urlsplit(url)
        host, named, _ = parts.hostname, parts.username is not None, parts.port
    except ValueError as error:  # brackets that are not an address, a port that is not a number
        raise UserError(
            f"{where}: found {shown!r}, expected a URL, as https://example.org/bundles"
        ) from error
    if not is_url(url) or not host:
        raise UserError(f"{where}: found {shown!r}, expected http:// or https:// and a host")
    if named:
        raise UserError(f"{where}: found {shown!r}, expected a URL without user name and password")
    return url


def read_small(source: str, limits: Limits = LIMITS) -> bytes:
    """A complete file of at most 16 MiB, from a URL or a path; a busy server is asked up to five times.

    Args:
        source: URL or path.
        limits: How slow the server may be.

    Raises:
        UserError: the file is missing, unreachable or larger, or arrives too slowly.
    """
    try:
        if not is_url(source):
            path = Path(source)
            if path.is_file() and path.stat().st_size > MAX_SMALL_BYTES:
                raise UserError(
                    f"{source}: found {path.stat().st_size:,} bytes, expected {MAX_SMALL_BYTES:,} at most"
                )
            return path.read_bytes()
        content, pace = b"", _Pace(source, limits)
        with closing(_open_patiently(source, limits)) as response:
            while len(content) <= MAX_SMALL_BYTES and (block := response.read1(BLOCK)):
                content += block
                pace.check(len(content))
    except (OSError, http.client.HTTPException, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{source}: cannot be read: {_reason(error)}") from error
    if len(content) > MAX_SMALL_BYTES:
        raise UserError(
            f"{source}: found more than {MAX_SMALL_BYTES:,} bytes, expected {MAX_SMALL_BYTES:,} at most"
        )
    return content


def fetch(source: str, part: Path, size: int, progress: bool = True, limits: Limits = LIMITS) -> None:
    """Transfer a file to `part`, continuing after the bytes that are already there.

    Args:
        source: URL or path.
        part: File with the received bytes; kept for the next call when the transfer fails.
        size: Size of the complete file in bytes.
        progress: Whether to show a progress bar.
        limits: How slow the server may be.

    Raises:
        UserError: the server has no such file or one of another size; five consecutive attempts without
            progress; a rate below the limit; `part` is a link.
    """
    with _part(part) as file, _bar(size, progress, source) as bar:
        if file.seek(0, os.SEEK_END) > size:
            file.truncate(0)
        furthest, failures, reason = file.seek(0, os.SEEK_END), 0, ""
        pace = _Pace(source, limits)
        while failures < ATTEMPTS:
            try:
                _receive(source, file, size, bar, pace)
                reason = "the connection was lost"
            except urllib.error.HTTPError as error:
                error.close()
                if not _busy(error):
                    raise UserError(f"{source}: found HTTP status {error.code}, expected a file") from error
                reason = _reason(error)
            except (OSError, http.client.HTTPException) as error:
                if not is_url(source):
                    raise UserError(f"{source}: cannot be read: {_reason(error)}") from error
                reason = _reason(error)
            here = file.seek(0, os.SEEK_END)
            if here == size:
                return
            failures = 0 if here > furthest else failures + 1
            furthest = max(here, furthest)
            if failures < ATTEMPTS:
                time.sleep(PAUSE * 2 ** max(failures - 1, 0))
        raise UserError(
            f"{source}: {reason} after {here:,} of {size:,} bytes, {ATTEMPTS} times; the same command "
            "continues from there"
        )


def _bar(size: int, progress: bool, source: str) -> Any:
    from pretext3d.progress import Bar

    return Bar(total=size, unit="B", unit_scale=True, disable=not progress, desc=printable(Path(source).name))


def _part(path: Path) -> BinaryIO:
    """The file of the received bytes, open for reading and writing; created if it does not exist.

    Raises:
        UserError: it is a link, whose target must not be written.
    """
    if path.is_symlink():
        raise UserError(f"{path}: found a link, expected what an earlier transfer left, or nothing")
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    return os.fdopen(os.open(path, flags, 0o666), "r+b", buffering=0)


def _reason(error: Exception) -> str:
    text = (
        str(getattr(error, "reason", "") or getattr(error, "strerror", "") or error) or type(error).__name__
    )
    return without_password(" ".join(text.split()))


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http(s) addresses only, and never from https to http."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        """The request for the new address.

        Raises:
            UserError: the redirect must not be followed.
        """
        try:
            check_url(newurl, f"{req.full_url}: redirected")
            if req.type == "https" and newurl.lower().startswith("http:"):
                raise UserError(f"{req.full_url}: redirected: found {newurl!r}, expected https:// as before")
        except UserError:
            fp.close()
            raise
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(url: str, start: int) -> Any:
    """The response to a request for all bytes from `start` on."""
    address = quote(check_url(url), safe="%/:=&?~#+!$,;'@()*[]")  # spaces and letters beyond ASCII
    request = urllib.request.Request(address, headers={"Range": f"bytes={start}-"} if start else {})
    return urllib.request.build_opener(_Redirects).open(request, timeout=TIMEOUT)


def _open_in_time(url: str, start: int, limits: Limits) -> Any:
    """The response, or an error after `limits.opening`: a server may send its headers byte by byte.

    Raises:
        TimeoutError: it has not answered.
    """
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
    given_up = threading.Event()

    def ask() -> None:
        try:
            answers.put(_open(url, start))
        except BaseException as error:
            answers.put(error)
        if given_up.is_set():
            _discard(answers)

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=limits.opening)
    except queue.Empty as error:
        given_up.set()
        _discard(answers)
        raise TimeoutError(f"no answer after {limits.opening:g} s") from error
    if isinstance(answer, BaseException):
        try:
            raise answer
        finally:
            del answer  # its traceback has this frame: without a circle it is gone at once, with its socket
    return answer


def _discard(answers: queue.SimpleQueue[Any]) -> None:
    """Close a response that came too late."""
    with suppress(queue.Empty):
        answer = answers.get_nowait()
        if hasattr(answer, "close"):
            answer.close()


def _open_patiently(url: str, limits: Limits) -> Any:
    """The response to a request for the complete file, retried while the server is busy."""
    for failures in range(1, ATTEMPTS + 1):
        try:
            return _open_in_time(url, 0, limits)
        except urllib.error.HTTPError as error:
            error.close()
            if not _busy(error) or failures == ATTEMPTS:
                raise
        time.sleep(PAUSE * 2 ** (failures - 1))
    raise AssertionError("unreachable")


class _Pace:
    """The rate of a transfer, window by window; a copy from a folder is not measured."""

    def __init__(self, source: str, limits: Limits) -> None:
        self.source, self.limits, self.bytes = source, limits, 0
        self.start = time.monotonic()

    def check(self, received: int) -> None:
        """Compare the bytes received so far with those at the beginning of the window.

        Args:
            received: Number of bytes of the file; a smaller number than before begins again.

        Raises:
            UserError: too few.
        """
        now = time.monotonic()
        seconds, brought = now - self.start, received - self.bytes
        if brought >= 0 and (seconds < self.limits.window or not is_url(self.source)):
            return
        if 0 <= brought < self.limits.rate * seconds:
            raise UserError(
                f"{self.source}: found {brought:,} bytes in {seconds:.0f} s, expected "
                f"{self.limits.rate:,.0f} per second at least; the same command continues from there"
            )
        self.start, self.bytes = now, received


def _busy(error: urllib.error.HTTPError) -> bool:
    """Whether the answer may change after a moment."""
    return error.code >= 500 or error.code in BUSY


def _receive(source: str, file: BinaryIO, size: int, bar: Any, pace: _Pace) -> None:
    """One attempt: append the data as it arrives, until the file is complete or the connection ends."""
    start = file.seek(0, os.SEEK_END)
    if start == size:
        return
    if is_url(source):
        stream = _open_in_time(source, start, pace.limits)
        start = _begins(stream, start, size, source)
    else:
        found = Path(source).stat().st_size
        if found != size:
            raise UserError(f"{source}: found {found:,} bytes, expected {size:,} as the index says")
        stream = Path(source).open("rb")  # noqa: SIM115  closed below
        stream.seek(start)
    bar.n = start
    bar.refresh()
    with closing(stream):
        file.truncate(start)
        file.seek(start)
        # read1 returns what is there: a stalled connection loses none of it
        while block := stream.read1(min(BLOCK, size - file.tell() + 1)):
            if file.tell() + len(block) > size:
                raise UserError(
                    f"{source}: found more than {size:,} bytes, expected {size:,} as the index says"
                )
            file.write(block)
            bar.update(len(block))
            if file.tell() < size:
                pace.check(file.tell())


def _begins(response: Any, start: int, size: int, url: str) -> int:
    """The byte that a response begins with: `start`, or 0 where the server does not support ranges.

    Raises:
        UserError: the file on the server has another size.
        OSError: a range that was not requested.
    """
    length = response.headers.get("Content-Length") or ""
    whole = length
    if response.status == http.HTTPStatus.PARTIAL_CONTENT:
        span, _, whole = (response.headers.get("Content-Range") or "").removeprefix("bytes ").partition("/")
        if span.partition("-")[0] != str(start):
            response.close()
            raise OSError(f"the server sent bytes {span}, expected {start}-")
    else:
        start = 0
    if whole.isdigit() and int(whole) != size:
        response.close()
        raise UserError(f"{url}: found {int(whole):,} bytes, expected {size:,} as the index says")
    return start
