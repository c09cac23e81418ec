"""Progress bars: one line every 30 s at most in a log, a moving line in a terminal."""

import io
import re
from pathlib import Path

import pretext3d
import pytest
from ignite.engine import Engine
from pretext3d import progress
from pretext3d.progress import Bar
from pretext3d.training.report import Progress


class Clock:
    """The time, advanced by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    monkeypatch.setattr(Bar, "written", float("-inf"))
    return clock


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_has_a_line_every_30_seconds(clock: Clock) -> None:
    """100 steps of 2 s each: lines at 0, 30, 60 ... s after the first step, of which 180 s is the last."""
    log = io.StringIO()
    for _ in Bar(range(100), desc="reading", file=log, mininterval=0):
        clock.now += 2
    lines = log.getvalue().splitlines()
    assert [line.split("/")[0].split("% ")[1] for line in lines] == ["1", "16", "31", "46", "61", "76", "91"]
    assert all(line.startswith("reading: ") for line in lines)
    assert "\r" not in log.getvalue()
    assert re.fullmatch(r"reading: 16% 16/100 \[[^|]*\]", lines[1])


def test_all_bars_share_the_interval(clock: Clock) -> None:
    log = io.StringIO()
    for _ in range(10):  # ten short bars in 10 s
        for _ in Bar(range(5), file=log, mininterval=0):
            pass
        clock.now += 1
    assert len(log.getvalue().splitlines()) == 1


def test_the_engines_bar_in_a_log(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    """Three epochs of 1000 steps, 0.1 s each: 300 s. ignite refreshes its bar twice in every step."""

    def step(engine: Engine, batch: int) -> None:
        clock.now += 0.1

    engine = Engine(step)
    Progress("training").attach(engine)
    engine.run(range(1000), max_epochs=3)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10
    assert lines[0].startswith("training [1/3]: [2/1000]")
    assert lines[-1].startswith("training [3/3]: ")


def test_the_bar_of_a_shorter_last_epoch_ends_with_it(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    """1,500 steps in epochs of 1,000, 0.1 s each."""

    def step(engine: Engine, batch: int) -> None:
        clock.now += 0.1
        if engine.state.iteration == 1500:
            engine.terminate_epoch()

    engine = Engine(step)
    Progress("training", 1500).attach(engine)
    engine.run(range(1000), max_epochs=2)
    totals = re.findall(r"/([0-9]+)\] [ 0-9]+%", capsys.readouterr().err)
    assert (set(totals[:-1]), totals[-1]) == ({"1000"}, "500")


def test_only_the_first_process_shows_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "1")
    engine = Engine(lambda engine, batch: None)
    Progress("training").attach(engine)
    engine.run(range(10))
    assert capsys.readouterr().err == ""


def test_a_terminal_has_tqdm_s_bar(clock: Clock) -> None:
    terminal = Terminal()
    for _ in Bar(range(3), file=terminal, mininterval=0):
        pass
    shown = terminal.getvalue()
    assert shown.count("\r") >= 4
    assert "100%" in shown
    assert shown.endswith("\n")


def test_there_is_one_class_of_bars() -> None:
    """tqdm's own would fill log files with every version of its line."""
    folder = Path(pretext3d.__file__).parent
    texts = {path.name: path.read_text() for path in folder.rglob("*.py")}
    assert [name for name, text in texts.items() if re.search(r"(import|from) tqdm", text)] == ["progress.py"]


def test_a_bar_that_is_disabled_or_has_not_advanced_shows_nothing(clock: Clock) -> None:
    log = io.StringIO()
    for _ in Bar(range(3), file=log, disable=True):
        pass
    bar = Bar(total=3, file=log)
    bar.clear()
    bar.close()
    bar.close()
    assert log.getvalue() == ""
