"""Files over HTTP, or from a folder: a transfer that breaks goes on where it stopped."""

import http.client
import time
import urllib.error
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from pretext3d.errors import UserError

__all__ = ["fetch", "is_url", "read_small"]

ATTEMPTS = 5
PAUSE = 1.0  # seconds before the second attempt; twice as long before each further one
TIMEOUT = 30.0  # seconds without a byte
BLOCK = 2**18
MOST_SMALL = 16 * 2**20


def is_url(source: str) -> bool:
    """Whether it is to be read over HTTP."""
    try:
        return urlsplit(source).scheme in ("http", "https")
    except ValueError:  # brackets that are no address
        return False


def read_small(source: str) -> bytes:
    """A whole file of at most 16 MiB, from a URL or a path.

    Raises:
        UserError: not there, not reachable, or larger.
    """
    try:
        if not is_url(source):
            path = Path(source)
            if path.is_file() and path.stat().st_size > MOST_SMALL:
                raise UserError(
                    f"{source}: found {path.stat().st_size:,} bytes, expected {MOST_SMALL:,} at most"
                )
            return path.read_bytes()
        with closing(_open(source, 0)) as response:
            content: bytes = response.read(MOST_SMALL + 1)
    except (OSError, http.client.HTTPException) as error:
        raise UserError(f"{source}: cannot be read: {_reason(error)}") from error
    if len(content) > MOST_SMALL:
        raise UserError(f"{source}: found more than {MOST_SMALL:,} bytes, expected {MOST_SMALL:,} at most")
    return content


def fetch(source: str, part: Path, size: int, progress: bool = True) -> None:
    """Bring a file to `part`, going on from the bytes that are there already.

    Args:
        source: URL or path.
        part: what has arrived; stays when the transfer fails, for the next call.
        size: bytes of the whole file.
        progress: show a bar.

    Raises:
        UserError: the server has no such file or one of another size, or the connection broke five times.
    """
    from tqdm import tqdm

    if part.is_file() and part.stat().st_size > size:
        part.unlink()
    part.touch()
    reason = ""
    with tqdm(total=size, unit="B", unit_scale=True, disable=not progress, desc=Path(source).name) as bar:
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(PAUSE * 2 ** (attempt - 1))
            try:
                _receive(source, part, size, bar)
                reason = "the connection broke"
            except urllib.error.HTTPError as error:
                if error.code < 500:
                    raise UserError(f"{source}: found HTTP status {error.code}, expected a file") from error
                reason = _reason(error)
            except (OSError, http.client.HTTPException) as error:
                if not is_url(source):
                    raise UserError(f"{source}: cannot be read: {_reason(error)}") from error
                reason = _reason(error)
            if part.stat().st_size == size:
                return
    raise UserError(
        f"{source}: {reason} after {part.stat().st_size:,} of {size:,} bytes, {ATTEMPTS} times; the same "
        "command goes on from there"
    )


def _reason(error: Exception) -> str:
    text = (
        str(getattr(error, "reason", "") or getattr(error, "strerror", "") or error) or type(error).__name__
    )
    return " ".join(text.split())


def _open(url: str, start: int) -> Any:
    """The response to a request of all bytes from `start` on."""
    address = quote(url, safe="%/:=&?~#+!$,;'@()*[]")  # spaces and letters beyond ASCII
    request = urllib.request.Request(address, headers={"Range": f"bytes={start}-"} if start else {})
    return urllib.request.urlopen(request, timeout=TIMEOUT)


def _receive(source: str, part: Path, size: int, bar: Any) -> None:
    """One attempt: append what comes until the file is whole or the connection ends."""
    start = part.stat().st_size
    if start == size:
        return
    if is_url(source):
        stream = _open(source, start)
        start = _begins(stream, start, size, source)
    else:
        found = Path(source).stat().st_size
        if found != size:
            raise UserError(f"{source}: found {found:,} bytes, expected {size:,} as the index says")
        stream = Path(source).open("rb")  # noqa: SIM115  closed below
        stream.seek(start)
    bar.n = start
    bar.refresh()
    with closing(stream), part.open("r+b") as file:
        file.truncate(start)
        file.seek(start)
        while block := stream.read(min(BLOCK, size - file.tell() + 1)):
            if file.tell() + len(block) > size:
                raise UserError(
                    f"{source}: found more than {size:,} bytes, expected {size:,} as the index says"
                )
            file.write(block)
            bar.update(len(block))


def _begins(response: Any, start: int, size: int, url: str) -> int:
    """The byte that a response begins with: `start`, or 0 where the server knows no ranges.

    Raises:
        UserError: its file is of another size.
        OSError: a part that was not asked for.
    """
    length = response.headers.get("Content-Length") or ""
    whole = length
    if response.status == http.HTTPStatus.PARTIAL_CONTENT:
        span, _, whole = (response.headers.get("Content-Range") or "").removeprefix("bytes ").partition("/")
        if span.partition("-")[0] != str(start):
            response.close()
            raise OSError(f"the server sent bytes {span}, asked for was {start}-")
    else:
        start = 0
    if whole.isdigit() and int(whole) != size:
        response.close()
        raise UserError(f"{url}: found {int(whole):,} bytes, expected {size:,} as the index says")
    return start
