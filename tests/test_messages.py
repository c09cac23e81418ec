"""Names of files, servers and headers cannot act on the terminal: every door to it shows printable text."""

import importlib
import logging
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pretext3d.errors import UserError, as_error, one_line
from pretext3d.messages import plain_log, printable, say
from pretext3d.publishing import transfer
from pretext3d.publishing.transfer import read_small

from tests.publishing.archives import write_bundle, write_index
from tests.publishing.server import serving

# clear the screen, one-byte escape, bell, back over the line, right-to-left, a line's end, a lone surrogate
EVIL = "a\x1b[2J\x9b1m\a\rerror: b\u202e\u2028c\ud800.nii"
SHOWN = "a[2J1m\nerror: bc.nii"


@given(st.text(max_size=30))
def test_nothing_else_is_left(text: str) -> None:
    shown = printable(text)
    assert shown.replace("\n", "").replace("\t", "").isprintable()
    assert printable(shown) == shown
    if text.isprintable():
        assert shown == text
    assert len(one_line(text).splitlines()) <= 1


def test_errors_and_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert str(UserError(f"{EVIL}: empty")) == f"{SHOWN}: empty"
    assert as_error(UserError(EVIL)) == "error: a[2J1m\n  error: bc.nii"  # no second line that says error
    assert one_line(OSError(EVIL)) == "a[2J1m error: bc.nii"
    say(EVIL)
    say(EVIL, error=True)
    assert capsys.readouterr() == (f"{SHOWN}\n", f"{SHOWN}\n")


def test_the_log_and_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    factory = logging.getLogRecordFactory()
    try:
        plain_log()
        plain_log()  # a second call changes nothing
        make = logging.getLogRecordFactory()
        record = make("x", logging.INFO, "x.py", 1, "read %s", (EVIL,), None)
        assert logging.Formatter("%(message)s").format(record) == f"read {SHOWN}"
        try:
            raise ValueError(EVIL)
        except ValueError:
            record = make("x", logging.ERROR, "x.py", 1, "failed", (), sys.exc_info())
        assert "\x1b" not in logging.Formatter().format(record)
        assert "ValueError: a[2J1m" in logging.Formatter().format(record)
        assert "\x1b" not in warnings.formatwarning(EVIL, UserWarning, "x.py", 1)
    finally:
        logging.setLogRecordFactory(factory)


@pytest.mark.parametrize(("kind", "text"), [("UserError", "a\\x1b[2J"), ("OSError", "a\\x1b[2J")])
def test_the_end_of_a_program(kind: str, text: str) -> None:
    code = "from pretext3d.errors import UserError, install_excepthook\ninstall_excepthook()\n"
    line = [sys.executable, "-c", f"{code}raise {kind}('{text}')"]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "\x1b" not in done.stderr
    assert done.stderr.strip().endswith("rror: a[2J")


def test_what_a_server_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "PAUSE", 0.0)
    write_bundle(tmp_path)
    write_index(tmp_path)
    with serving(tmp_path) as server:
        server.status, server.reason = 503, "busy\x1b[2J\x07"
        with pytest.raises(UserError, match=r"busy\[2J after 0 of|cannot be read: busy\[2J"):
            read_small(f"{server.url}/tiny_v0.1.0.zip")


def test_a_progress_bar(capsys: pytest.CaptureFixture[str]) -> None:
    bar = transfer._bar(10, True, f"folder/{EVIL}".replace("\ud800", ""))
    bar.close()
    assert "\x1b[2J" not in capsys.readouterr().err
    assert bar.desc.startswith("a[2J1m")


def test_a_table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console
    from rich.table import Table

    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[1] / "tools")
    escape = importlib.import_module("verify").escape
    table = Table("bundle")
    table.add_row(escape(f"[red]{EVIL}"))
    Console(width=60).print(table)
    shown = capsys.readouterr().out
    assert "\x1b[2J" not in shown
    assert "[red]a[2J1m" in shown


def test_a_reader_that_has_gone_is_no_error() -> None:
    """As `head -1`: the first line is read, then the pipe is closed; the command goes on to its end."""
    code = (
        "import sys\nfrom pretext3d.messages import say\n"
        "for _ in range(10000): say('line')\n"
        "say('end', error=True)"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "line\n"
        process.stdout.close()
        assert process.stderr.read() == "end\n"
        assert process.wait() == 0
