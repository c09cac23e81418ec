"""Ctrl-C, or a fault, while threads read volumes: one line, and the interpreter is not aborted."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from monai.transforms import Compose
from pretext3d.data import dataset
from pretext3d.data.dataset import CachedVolumes
from pretext3d.errors import UserError

# The threads of a pool that is only abandoned are in the middle of such a product when the interpreter ends.
PROGRAM = """
import os, signal, sys
import torch
from monai.transforms import Compose, Transform
from pretext3d.data.dataset import CachedVolumes
from pretext3d.errors import install_excepthook

class Product(Transform):
    def __call__(self, sample):
        if sample["number"] == 3 and sys.argv[2] == "interrupted":
            os.kill(os.getpid(), signal.SIGINT)
        for _ in range(20):
            product = torch.ones(1, 400, 400) @ torch.ones(1, 400, 400)
        return {"image": product}

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
install_excepthook()
torch.set_num_threads(1)
CachedVolumes([{"number": number} for number in range(200)], Compose([Product()]), sys.argv[1], num_workers=4)
print("not stopped")
"""


@pytest.mark.parametrize(
    ("fault", "code", "line"),
    [
        ("interrupted", -signal.SIGINT, "stopped"),  # 130 in a shell
        ("cannot be written", 1, "error: cache_dir: {cache}/volumes cannot be written: "),
    ],
)
def test_one_line_and_an_orderly_end(tmp_path: Path, fault: str, code: int, line: str) -> None:
    cache = tmp_path / "cache"
    if fault == "cannot be written":  # the system's administrator can write into a read-only folder
        cache.mkdir()
        (cache / "volumes").write_text("a file where the folder should be")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(cache), fault],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    lines = [text for text in done.stderr.splitlines() if text and "reading volumes" not in text]
    assert len(lines) == 1
    assert lines[0].startswith(line.format(cache=cache))
    assert done.stdout == ""


def test_an_entry_that_cannot_be_read_again_names_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = CachedVolumes([{"number": 0}], Compose([]), str(tmp_path))

    def broken(folder: Path) -> None:
        raise OSError("input/output error")

    monkeypatch.setattr(dataset, "_read_entry", broken)
    with pytest.raises(
        UserError, match=r"^cache_dir: .*volumes.* cannot be read after it was written: input"
    ):
        data.volume(0)
