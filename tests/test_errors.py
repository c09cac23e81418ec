"""What a user sees of a mistake and of Ctrl-C: one line, and the right exit code."""

import subprocess
import sys
from pathlib import Path

import pytest
from monai.bundle import ConfigParser
from monai.data import Dataset
from monai.transforms import Compose
from pretext3d.errors import UserError, find_user_error, peer_lost
from torch.utils.data import DataLoader


def end_of_program(tmp_path: Path, *lines: str) -> tuple[int, str]:
    """Exit code and standard error of a program that installs the hook first."""
    script = tmp_path / "program.py"
    script.write_text(
        "\n".join(
            ["from pretext3d.errors import UserError, install_excepthook", "install_excepthook()", *lines]
        )
    )
    done = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        start_new_session=True,  # a signal to the program's group is not one to the tests
    )
    return done.returncode, done.stderr


def test_wrapped_mistake_is_one_line(tmp_path: Path) -> None:
    code, shown = end_of_program(
        tmp_path,
        "try:",
        "    try:",
        "        raise UserError('roi_size: found 18, expected 16')",
        "    except UserError as error:",
        "        raise RuntimeError('Failed to instantiate') from error",
        "except RuntimeError as error:",
        "    raise RuntimeError('Failed to evaluate') from error",
    )
    assert code == 1
    assert shown.strip() == "error: roi_size: found 18, expected 16"


def test_other_errors_keep_their_traceback(tmp_path: Path) -> None:
    code, shown = end_of_program(tmp_path, "install_excepthook()", "{}['key']")
    assert code == 1
    assert "Traceback" in shown
    assert shown.strip().endswith("KeyError: 'key'")


@pytest.mark.parametrize(
    ("call", "line"), [("", "stopped"), ("install_excepthook('stopped; go on so')", "stopped; go on so")]
)
def test_interruption_is_one_line(tmp_path: Path, call: str, line: str) -> None:
    # what a shell runs in the background, this test perhaps, starts its programs with SIGINT ignored
    lines = ["import signal", "signal.signal(signal.SIGINT, signal.default_int_handler)"]
    code, shown = end_of_program(tmp_path, call, *lines, "signal.raise_signal(signal.SIGINT)")
    assert code == -2  # ended by SIGINT, which a shell reports as 128 + 2
    assert shown.strip() == line


def test_interruption_while_a_mistake_is_handled(tmp_path: Path) -> None:
    lines = ["try:", "    raise UserError('x')", "except UserError:", "    raise KeyboardInterrupt"]
    assert end_of_program(tmp_path, *lines)[1].strip() == "stopped"


def test_sigterm_is_one_line(tmp_path: Path) -> None:
    code, shown = end_of_program(
        tmp_path, "import os, signal, time", "os.kill(os.getpid(), signal.SIGTERM)", "time.sleep(9)"
    )
    assert code == 143
    assert shown.strip() == "stopped"


def test_sigterm_to_the_workers_too_is_one_line(tmp_path: Path) -> None:
    """As `timeout` and schedulers send it: to every process of the group."""
    code, shown = end_of_program(
        tmp_path,
        "import os, signal, time",
        "from torch.utils.data import DataLoader",
        "class Slow(list):",
        "    def __getitem__(self, index):",
        "        time.sleep(0.05 * (index > 0))",
        "        return index",
        "loader = iter(DataLoader(Slow(range(99)), num_workers=2))",
        "next(loader)",
        "try:",
        "    os.killpg(0, signal.SIGTERM)",
        "    while True:",
        "        next(loader)",
        "except Exception as error:",
        "    raise RuntimeError('Failed to evaluate') from error",
    )
    assert code == 143
    assert shown.strip() == "stopped"


def test_a_lost_process_is_one_line(tmp_path: Path) -> None:
    """As gloo reports it, wrapped by MONAI."""
    code, shown = end_of_program(
        tmp_path,
        "try:",
        "    raise RuntimeError('[/gloo/transport/tcp/pair.cc:1] Read error: Connection reset by peer')",
        "except RuntimeError as error:",
        "    raise RuntimeError('Failed to evaluate') from error",
    )
    assert code == 1
    assert shown.strip() == "error: another process of this run has ended, and so it is stopped"


@pytest.mark.parametrize("kind", ["torch.OutOfMemoryError", "MemoryError"])
def test_too_small_a_memory_is_one_line(tmp_path: Path, kind: str) -> None:
    lines = ["import torch", "try:", f"    raise {kind}('CUDA out of memory')", "except Exception as error:"]
    code, shown = end_of_program(tmp_path, *lines, "    raise RuntimeError('Failed to evaluate') from error")
    assert code == 1
    assert shown.strip().startswith("error: the memory is too small for this run; expected a smaller")


@pytest.mark.parametrize(
    ("raised", "line"),
    [
        (
            "OSError(errno.ENOSPC, 'No space left on device', 'metrics.csv')",
            "error: metrics.csv cannot be written: No space left on device; stopped",
        ),
        (
            "OSError(errno.EFBIG, 'File too large')",
            "error: a file cannot be written: File too large; stopped",
        ),
        (
            "UserError('x.pt: no space left on device')",  # it names the file better
            "error: x.pt: no space left on device; stopped",
        ),
    ],
)
def test_a_full_disk_is_one_line(tmp_path: Path, raised: str, line: str) -> None:
    code, shown = end_of_program(
        tmp_path,
        "import errno",
        "try:",
        f"    raise {raised} from OSError(errno.ENOSPC, 'No space left on device')",
        "except Exception as error:",
        "    raise RuntimeError('Failed to evaluate') from error",
    )
    assert code == 1
    assert shown.strip() == line


@pytest.mark.parametrize(
    "text", ["gloo: Address already in use", "NCCL: Duplicate GPU detected", "timed out"]
)
def test_other_errors_of_the_network_keep_their_cause(text: str) -> None:
    assert not peer_lost(RuntimeError(text))


def test_outermost_mistake_is_found() -> None:
    inner, outer = UserError("inner"), UserError("outer")
    outer.__cause__ = ValueError("between")
    outer.__cause__.__cause__ = inner
    assert find_user_error(outer) is outer  # the one that knows which file or case it was
    assert find_user_error(ValueError("x")) is None
    assert find_user_error(None) is None
    inner.__cause__ = outer  # a circle ends, too
    assert find_user_error(RuntimeError()) is None
    assert find_user_error(outer) is outer


def refuse(item: int) -> int:
    raise UserError(f"case {item}: found 2 channels,\nexpected 1")


def stumble(item: int) -> int:
    raise ValueError("a bug, not a UserError: of the user")


class Refusing(Dataset):
    def __getitem__(self, index: int) -> int:
        return refuse(index)


@pytest.mark.parametrize(
    "dataset", [Refusing([0]), Dataset([0], Compose([refuse]))], ids=["as it is", "wrapped by a transform"]
)
def test_mistake_in_a_worker_is_its_message_alone(dataset: Dataset) -> None:
    with pytest.raises((UserError, RuntimeError), match="Original Traceback") as caught:
        list(DataLoader(dataset, num_workers=1))
    mistake = find_user_error(caught.value)
    assert str(mistake) == "case 0: found 2 channels,\nexpected 1"


def test_other_error_in_a_worker_is_no_mistake() -> None:
    with pytest.raises(RuntimeError, match="Original Traceback") as caught:
        list(DataLoader(Dataset([0], Compose([stumble])), num_workers=1))
    assert find_user_error(caught.value) is None


def refused(share: float = 0.0, low: float = 0.0) -> None:
    raise UserError(f"share: found {share}, expected 0 to 1" if share else f"low: found {low}, expected 0")


class Worker:
    """A component that finds its mistake when it is called."""

    def __init__(self, share: float) -> None:
        self.share = share

    def __call__(self, item: int) -> int:
        if self.share > 1:
            refused(self.share)
        return item


WORKER = {"_target_": "tests.test_errors.Worker"}
CHAIN = {"chain": {"_target_": "monai.transforms.Compose", "transforms": "@steps"}, "run": "$@chain(0)"}
REFUSED = {"_target_": "tests.test_errors.refused"}


@pytest.mark.parametrize(
    ("config", "key"),
    [
        ({"views": REFUSED | {"share": 7}, "run": "@views"}, "views::share"),
        ({"other": {"share": 7}, "views": REFUSED | {"share": 7}, "run": ["@views"]}, "views::share"),
        ({"chance": 7, "views": REFUSED | {"share": "@chance"}, "run": "@views"}, "chance"),
        ({"share": 7, "views": REFUSED | {"share": "@share"}, "run": "@views"}, "share"),
        ({"share": 7, "all": "$@share", "views": REFUSED | {"share": "@all"}, "run": "@views"}, "share"),
        ({"steps": [REFUSED | {"share": 7}], "run": "@steps"}, "steps::0::share"),
        # found later, by a component that has been built
        ({"views": {"share": 7}, "run": "$__import__('tests').test_errors.refused(7)"}, "views::share"),
        (
            {"a": {"share": 7}, "b": {"share": 1}, "run": "$__import__('tests').test_errors.refused(7)"},
            "share",
        ),
        ({"views": REFUSED, "run": "@views"}, "low"),  # not in the file
        # of another component that has this key, and of the top level's, which it does not read
        ({"other": {"low": 7}, "views": REFUSED, "run": "@views"}, "low"),
        ({"share": 1, "views": REFUSED | {"share": 7}, "run": "@views"}, "views::share"),
        ({"all": {"chance": 7}, "views": REFUSED | {"share": "@all#chance"}, "run": "@views"}, "all::chance"),
        # while it works, in another component; built first, the other one with the same key
        (CHAIN | {"steps": [WORKER | {"share": 1}, WORKER | {"share": 7}]}, "steps::1::share"),
        (CHAIN | {"share": 1, "worker": WORKER | {"share": 7}, "steps": ["@worker"]}, "worker::share"),
    ],
)
def test_a_nested_key_is_named_as_it_is_typed(config: dict, key: str) -> None:
    parser = ConfigParser(config)
    with pytest.raises(RuntimeError) as caught:
        parser.get_parsed_content("run")
    mistake = str(find_user_error(caught.value))
    value = "0.0, expected 0" if key == "low" else "7, expected 0 to 1"
    assert mistake == f"{key}: found {value}"
