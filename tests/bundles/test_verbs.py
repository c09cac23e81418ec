"""MONAI's other verbs on a bundle as it is shipped: each works, or ends in one line with the way out."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.bundles.command import BUNDLES, environment

pytestmark = pytest.mark.slow


def verb(*words: str, bundle: str = "vectorpose") -> tuple[int, str]:
    """Exit code and standard error of a verb, in the bundle's folder."""
    command = [sys.executable, "-m", "monai.bundle", *words, "--meta_file", "configs/metadata.json"]
    done = subprocess.run(
        command,
        cwd=BUNDLES / bundle,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return done.returncode, done.stderr


def export(file: Path, *words: str) -> list[str]:
    shape = ["--use_trace", "True", "--input_shape", "[1,1,32,32,32]", "--ckpt_file", "models/model.pt"]
    return ["ckpt_export", "network_def", "--filepath", str(file), *shape, *words]


def test_export_of_the_pretrained_network(tmp_path: Path) -> None:
    file = tmp_path / "model.ts"
    words = export(file, "--config_file", "configs/train.yaml")
    code, shown = verb(*words, "--key_in_ckpt", "network", "--profile", "laptop")
    assert code == 0, shown[-2000:]
    assert file.stat().st_size > 1_000_000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (export(Path("x.ts"), "--config_file", "configs/train.yaml"), "expected --key_in_ckpt network"),
        (export(Path("x.ts"), "--config_file", "configs/inference.yaml"), "give its run by --pretrained"),
        (
            ["verify_net_in_out", "network_def", "--config_file", "configs/train.yaml"],
            "expected inference.yaml, with --pretrained RUN",
        ),
    ],
)
def test_what_cannot_work_is_one_line(words: list[str], message: str) -> None:
    code, shown = verb(*words, "--profile", "laptop")
    assert code == 1
    assert "Traceback" not in shown
    assert [message in line for line in shown.splitlines() if line.startswith("error: ")] == [True]
