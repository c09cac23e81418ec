"""Training in several processes: the same result as one, and what happens under torchrun when one dies.

Most runs are forks with torchrun's environment, which saves the imports; torchrun itself starts the one that
is killed.
"""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from tests.bundles.command import QUICK, ROOT, arguments, environment, history, run, succeed

pytestmark = pytest.mark.slow

# Group norm: a batch norm's statistics are of each process's own part of the batch on CPUs.
SAME = {**QUICK, "backbone__options": "{'norm': 'group'}", "precision": "fp32", "device": "cpu"}
TWO_EPOCHS = {**SAME, "steps_per_epoch": 40, "pictures": 1, "val_fraction": 0.2}


def torchrun(*more: str, **keys: object) -> list[str]:
    """The command line of a pre-training in two processes, with `more` configurations over it."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    return [*launcher, *arguments(["train", "multi_gpu_train", *more], **keys)]


def in_two(*more: str, **keys: object) -> str:
    """What `torchrun` would run, in two forks to the end; the output."""
    done = run(["train", "multi_gpu_train", *more], processes=2, **keys)  # type: ignore[arg-type]
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout + done.stderr


def weights(run: Path) -> dict[str, torch.Tensor]:
    return dict(torch.load(run / "checkpoints" / "final.pt", weights_only=True)["network"])


def test_two_processes_are_one_with_both_batches(tmp_path: Path) -> None:
    """Twelve samples an epoch either way: three steps of four, or of two in each of two processes.

    With plain gradient descent: AdamW's first steps go by the signs of the gradients, of which rounding
    decides the smallest. The first losses differ by 2e-7; a step makes of that up to ten times as much.
    """
    keys = {**SAME, "optimizer___target_": "torch.optim.SGD", "learning_rate": 0.01}
    succeed("train", output_dir=tmp_path / "one", **{**keys, "batch_size": 4, "steps_per_epoch": 3})
    in_two(output_dir=tmp_path / "two", **{**keys, "batch_size": 2, "steps_per_epoch": 6})
    one, two = history(tmp_path / "one"), history(tmp_path / "two")
    assert [row["step"] for row in one] == [row["step"] for row in two]
    for a, b in zip(one, two, strict=True):
        assert float(b["train_loss"]) == pytest.approx(float(a["train_loss"]), rel=5e-4)
        assert float(b["val_loss"]) == pytest.approx(float(a["val_loss"]), rel=1e-3)
    both = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name, weight in both[0].items():
        torch.testing.assert_close(both[1][name], weight, rtol=0, atol=5e-4, msg=name)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a run in two processes, whose output_dir are rank0 and rank1 in it; what it printed."""
    folder, configs = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("configs")
    own = configs / "own.yaml"  # what is typed as a folder is never evaluated
    own.write_text(f"output_dir: $'{folder}/rank' + __import__('os').environ['RANK']\n")
    return folder, in_two(str(own), **TWO_EPOCHS)


def test_only_the_first_process_writes(whole: tuple[Path, str]) -> None:
    """What the second one wrote would be seen."""
    folder, output = whole
    assert sorted(path.name for path in folder.iterdir()) == ["rank0"]
    written = {path.name for path in (folder / "rank0").iterdir()}
    assert {"checkpoints", "config.yaml", "log.txt", "metrics.csv"} <= written
    assert [row["epoch"] for row in history(folder / "rank0")] == ["1", "2"]
    for text in ((folder / "rank0" / "log.txt").read_text(), output):
        assert [text.count(f"epoch {epoch} of 2: ") for epoch in (1, 2)] == [1, 1]
        assert text.count("; run in ") == 1
        assert text.count("done: ") == 1


def test_a_killed_process_ends_the_run_and_resume_goes_on(whole: tuple[Path, str], tmp_path: Path) -> None:
    command = torchrun(output_dir=tmp_path / "killed", **TWO_EPOCHS)
    with (tmp_path / "log").open("w") as log:
        killed = subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=log, stderr=log)
    deadline = time.monotonic() + 240
    while not (tmp_path / "killed" / "checkpoints" / "epoch_0001.pt").exists():
        assert killed.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    ranks = {child.environ().get("RANK"): child for child in psutil.Process(killed.pid).children()}
    ranks["1"].send_signal(signal.SIGKILL)
    assert killed.wait(timeout=120) != 0
    output = (tmp_path / "log").read_text()
    assert "stopped; the same command with --resume True continues" in output
    assert "signal 9" in output.lower()  # torchrun's own table names the one that was killed
    assert not (tmp_path / "killed" / "checkpoints" / "final.pt").exists()
    in_two(output_dir=tmp_path / "killed", resume=True, **TWO_EPOCHS)
    assert [row["train_loss"] for row in history(tmp_path / "killed")] == [
        row["train_loss"] for row in history(whole[0] / "rank0")
    ]
    expected = weights(whole[0] / "rank0")
    for name, value in weights(tmp_path / "killed").items():
        assert torch.equal(value, expected[name]), name
