"""MONAI's other verbs on a bundle as it is shipped: each works, or ends in one line with the way out."""

import importlib.util
import math
from pathlib import Path

import pytest
from pretext3d.training.checkpoint_io import save_checkpoint

from tests.bundles.command import BUNDLES, SERVER, environment
from tests.training.hostile import valid_content

pytestmark = pytest.mark.slow


ONNX = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
needs_onnx = pytest.mark.skipif(bool(ONNX), reason=f"needs {' and '.join(ONNX)}: pip install onnx onnxscript")


def verb(*words: str, bundle: str = "vectorpose", **variables: str) -> tuple[int, str]:
    """Exit code and standard error of a verb, in the bundle's folder."""
    given = [*words, "--meta_file", "configs/metadata.json"]
    done = SERVER.run("monai.bundle", given, BUNDLES / bundle, environment() | variables, 300)
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


@needs_onnx
def test_onnx_of_a_segmentation(tmp_path: Path) -> None:
    """Input and output as the network's, and all of its weights."""
    onnx = pytest.importorskip("onnx")
    content, file = valid_content(), tmp_path / "model.onnx"
    del content["record"]["modalities"]  # of BIDS names, which the phantom's images do not have
    save_checkpoint(tmp_path / "checkpoints" / "final.pt", content)
    words = ["onnx_export", *export(file, "--config_file", "configs/inference.yaml")[1:]]
    words[words.index("models/model.pt")] = str(tmp_path / "checkpoints" / "final.pt")
    code, shown = verb(*words, "--key_in_ckpt", "network", "--pretrained", str(tmp_path))
    assert code == 0, shown[-2000:]
    onnx.checker.check_model(model := onnx.load(file))
    shapes = [
        [axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    ]
    assert shapes == [[1, 1, 32, 32, 32], [1, 3, 32, 32, 32]]
    stored = sum(math.prod(tensor.dims) for tensor in model.graph.initializer)
    weights = sum(value.numel() for name, value in content["network"].items() if "running" not in name)
    assert stored > 0.9 * weights  # scales of a batch norm are folded into the convolution before it


@needs_onnx
def test_operation_that_onnx_lacks_is_named() -> None:
    words = ["onnx_export", *export(Path("x.onnx"), "--config_file", "configs/train.yaml")[1:]]
    code, shown = verb(*words, "--key_in_ckpt", "network", "--profile", "laptop")
    assert code == 1
    assert "Traceback" not in shown
    assert "error: onnx_export: found the operation aten._adaptive_avg_pool3d in the network" in shown


@pytest.mark.skipif(not ONNX, reason="onnx and onnxscript are installed")
def test_missing_packages_are_named() -> None:
    words = ["onnx_export", *export(Path("x.onnx"), "--config_file", "configs/train.yaml")[1:]]
    code, shown = verb(*words, "--key_in_ckpt", "network", "--profile", "laptop")
    assert code == 1
    assert "Traceback" not in shown
    assert f"error: onnx_export: found no package {' and no '.join(ONNX)}; expected: pip install" in shown


def test_metadata_with_a_copy_of_the_schema_needs_no_network() -> None:
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), "http://127.0.0.1:9")
    schema = BUNDLES.parent / "tools" / "schema" / "meta_schema_20240725.json"
    code, shown = verb("verify_metadata", "--filepath", str(schema), **nowhere)
    assert code == 0, shown[-2000:]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (export(Path("x.ts"), "--config_file", "configs/train.yaml"), "expected --key_in_ckpt network"),
        (export(Path("x.ts"), "--config_file", "configs/inference.yaml"), "give that run by --pretrained"),
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
