"""pretext3d/publishing/traces.py: what identifies one machine, and what only looks so."""

import pytest
from pretext3d.publishing import traces
from pretext3d.publishing.traces import machine_traces, own_names

SLASH, BACK = "/", "\\"
FOLDERS = ["data", "workspace", "scratch", "nfs", "media", "Volumes", "gpfs", "usr", "private", "home", "tmp"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_folders(folder: str) -> None:
    path = f"{SLASH}{folder}{SLASH}scans"
    assert machine_traces(f"from '{path}'", []) == [path]
    assert machine_traces(f"..{path} x{path} $HOME{path} https://example.org{path}", []) == []


@pytest.mark.parametrize(
    "text",
    [
        rf"D:{BACK}scans", f"E:{SLASH}scans", rf"c:{BACK}users{BACK}me", BACK * 2 + rf"server{BACK}share",
        BACK * 4 + f"server{BACK * 2}share",
    ],
)  # fmt: skip
def test_drives_and_shares(text: str) -> None:
    assert len(machine_traces(f"in {text} it lies", [])) == 1
    assert machine_traces(f"a: b{SLASH}c, https:{SLASH * 2}x.org, 'X:{BACK}n', x{BACK}y", []) == []


def test_binary_files_need_more_than_three_letters() -> None:
    assert machine_traces(b"\0 D:" + b"/\x80 \0", []) == []
    assert len(machine_traces(b"\0 D:" + b"/scans/a.pt \0", [])) == 1


def test_addresses_and_hosts_of_private_networks() -> None:
    address, url = "10.1" + ".2.3", "http:" + SLASH * 2 + "builder/x"
    assert machine_traces(f"cd {SLASH}tmp/x", []) == [f"{SLASH}tmp/x"]
    assert machine_traces(f"ping {address}", []) == [address]
    assert machine_traces(url, []) == [url]
    assert machine_traces(f"\0 {address} {url}", []) == []  # digits by chance in a binary file
    text = "data/home/x ./var/x 1.2.840.10008.5.1 1.2.3.4 127.0.0.1 https://monai.io/x 5.4.7"
    assert machine_traces(f"{text} http:{SLASH * 2}localhost:8000/x", []) == []


def test_own_names(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv("HOME", f"{SLASH}people{SLASH}ada")
    monkeypatch.setattr(traces.getpass, "getuser", lambda: "lovelace")
    monkeypatch.setattr(traces.socket, "gethostname", lambda: "analytical7.example.org")
    assert own_names() == [f"{SLASH}people{SLASH}ada", "lovelace", "analytical7"]
    found = machine_traces(f"by lovelace@analytical7 in {SLASH}people{SLASH}ada{SLASH}x")
    assert sorted(found) == [f"{SLASH}people{SLASH}ada", "analytical7", "lovelace"]
    assert machine_traces("Lovelace, A. lovelaces unlovelace") == []
    assert machine_traces("by müller".encode(), ["müller"]) == ["müller".encode().decode("latin-1")]


@pytest.mark.parametrize("name", ["root", "Ubuntu", "me"])
def test_names_that_many_have(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("HOME", f"{SLASH}{name}")
    monkeypatch.setattr(traces.getpass, "getuser", lambda: name)
    monkeypatch.setattr(traces.socket, "gethostname", lambda: name)
    assert own_names() == []
