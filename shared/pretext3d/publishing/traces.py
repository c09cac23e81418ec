"""Traces of the machine and the person that created a file: paths, addresses, home, user and host names."""

import getpass
import re
import socket
from pathlib import Path
from urllib.parse import urlsplit

__all__ = ["machine_traces", "own_names"]

# Folders of one machine; after a name, a dot or a variable they are relative.
_FOLDERS = (
    "tmp|work|root|farm|home|Users|opt|mnt|srv|var|data|workspace|scratch|nfs|media|Volumes|gpfs|lustre|usr"
    "|private"
)
# Each pattern begins with what is searched for and then looks back, so that `re` skips to it.
_UNIX = re.compile(rf"/(?<![\w.~$}}]/)(?!usr/bin/env\b)(?:{_FOLDERS})/[^\s\"']*")
# A drive; `X:\n` is the end of a line of source code.
_DRIVE = re.compile(r"(?<!\w)(?:[A-Z]:[\\/](?![nrt\"'](?!\w))|[a-z]:\\{1,2}(?=\w+\\))[^\s\"']*")
_SHARE = re.compile(r"(?<![\w\\])(?:\\\\|\\{4})[A-Za-z][\w.-]+(?:\\|\\\\)[A-Za-z][\w$.-]+")
# Compressed or binary files contain such letters by chance: there, a path has to be longer.
_LONG_DRIVE = re.compile(r"[A-Za-z]:(?<!\w[A-Za-z]:)[\\/]{1,2}[\w .-]{3,}[\\/][^\s\"'\0]*", re.ASCII)
# addresses of a private network; other groups of four numbers are versions or DICOM identifiers
_ADDRESS = re.compile(r"(?<![\w.])(?:10\.\d+|192\.168|172\.(?:1[6-9]|2\d|3[01]))\.\d{1,3}\.\d{1,3}(?![\w.])")
_URL = re.compile(r"https?://[^\s\"'<>)\]]+")
_PRIVATE_ENDINGS = (".internal", ".local", ".lan", ".corp")
# names that many machines have, and that occur in ordinary texts
COMMON = {
    "root", "user", "users", "admin", "guest", "default", "runner", "ubuntu", "debian", "docker", "jenkins",
    "build", "builder", "test", "tests", "nobody", "local", "localhost", "server", "train", "python", "data",
    "main", "work", "worker", "head", "node", "brain", "image", "label", "model", "monai", "torch", "home",
}  # fmt: skip


def own_names() -> list[str]:
    """This machine's home folder, and its user and host name where these identify it."""
    names = []
    home = str(Path.home())
    if len(Path(home).parts) > 2:
        names.append(home)
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in containers
        user = ""
    for name in (user, socket.gethostname().split(".")[0]):
        if len(name) >= 4 and name.lower() not in COMMON:
            names.append(name)
    return names


def private_urls(text: str) -> list[str]:
    """The URLs in a text whose hosts the public cannot reach; localhost does not count.

    Examples:
        >>> private_urls("see https://example.org and http://localhost:8000")
        []
    """
    found = []
    for url in _URL.findall(text):
        try:
            host = urlsplit(url).hostname or ""
        except ValueError:  # brackets that are not an address
            continue
        if host != "localhost" and ("." not in host or host.endswith(_PRIVATE_ENDINGS)):
            found.append(url)
    return found


def machine_traces(data: bytes | str, names: list[str] | None = None) -> list[str]:
    """Find the parts of a file that belong to one machine or its network, each cut at 60 characters.

    These are absolute paths and `names`; in texts also addresses of private networks and URLs of hosts that
    the public cannot reach.

    Args:
        data: Content of the file, text or not.
        names: Names of a machine; None = this one's `own_names`.

    Examples:
        >>> machine_traces("trained on build7", ["build7"])
        ['build7']
    """
    text = data if isinstance(data, str) else data.decode("latin-1")
    binary = "\0" in text
    patterns = [_UNIX, _LONG_DRIVE] if binary else [_UNIX, _DRIVE, _SHARE, _ADDRESS]
    names = own_names() if names is None else names
    if isinstance(data, bytes):  # as they look when UTF-8 is read as Latin-1
        names = [name.encode().decode("latin-1") for name in names]
    patterns += [re.compile(rf"{name}(?<![\w.-]{name})(?!\w)") for name in map(re.escape, names)]
    found = [match.group() for pattern in patterns for match in pattern.finditer(text)]
    return [trace[:60] for trace in [*found, *([] if binary else private_urls(text))]]
