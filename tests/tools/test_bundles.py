"""The template of bundles: blocks, what sync writes and refuses, and a new bundle that trains."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pretext3d.errors import UserError

from tests.bundles.command import ROOT, TINY, arguments, environment
from tools.bundles.blocks import blocks, synced
from tools.bundles.new import make, renamed
from tools.bundles.sync import TEMPLATE, configurations, differences, main

TEMPLATE_TEXT = """# of the template
# >>> data (common; written by tools/bundles/sync)
seed: 0
# <<<
profiles: {}
train:
  # >>> training (common; written by tools/bundles/sync)
  batch_size: 2
  # <<<
"""


def test_common_blocks_are_replaced_and_the_rest_stays() -> None:
    """A bundle's own lines, its own block and its comments stay; the common block is the template's."""
    own = TEMPLATE_TEXT.replace("seed: 0", "seed: 1  # changed").replace("# of the template", "# mine")
    own = own.replace("training (common; written by tools/bundles/sync)", "training (own: no batches)")
    own = own.replace("batch_size: 2", "batch_size: 9")
    result = synced(own, TEMPLATE_TEXT, "train.yaml")
    assert result == own.replace("seed: 1  # changed", "seed: 0")
    assert synced(result, TEMPLATE_TEXT, "train.yaml") == result


@pytest.mark.parametrize(
    ("there", "here", "message"),
    [
        (
            "# >>> data (common; written by tools/bundles/sync)\n",
            "",
            "line 3: found # <<<, expected the beginning",
        ),
        ("  # <<<\n", "", "found no end of block 'training', expected # <<<"),
        (
            "(common; written by tools/bundles/sync)\nseed",
            "(copied)\nseed",
            "line 2: found '# >>> data (copied)'",
        ),
        ("training (common", "data (common", "line 7: found block 'data' a second time"),
        (
            "training (common",
            "extra (common",
            "found no block 'training', expected the template's: data, training",
        ),
    ],
)
def test_marks_that_do_not_fit_are_named(there: str, here: str, message: str) -> None:
    assert there in TEMPLATE_TEXT
    with pytest.raises(UserError, match=re.escape(message)):
        synced(TEMPLATE_TEXT.replace(there, here, 1), TEMPLATE_TEXT, "train.yaml")


def test_a_block_of_no_template_is_named() -> None:
    extra = TEMPLATE_TEXT + "# >>> more (own: mine)\nx: 1\n# <<<\n"
    with pytest.raises(UserError, match="found block 'more', expected the template's: data, training"):
        synced(extra, TEMPLATE_TEXT, "train.yaml")


def test_check_reports_what_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    make("one", tmp_path)
    monkeypatch.setattr("tools.bundles.sync.ROOT", tmp_path)
    assert main(["--check"]) == 0
    path = tmp_path / "bundles" / "one" / "configs" / "inference.yaml"
    text = path.read_text()
    path.write_text(text.replace("overlap: 0.25", "overlap: 0.5"))
    assert main(["--check"]) == 1
    assert "differs: bundles/one/configs/inference.yaml" in capsys.readouterr().out
    assert "overlap: 0.5" in path.read_text()
    assert main([]) == 0
    assert path.read_text() == text


def test_every_configuration_of_the_template_is_made_of_blocks() -> None:
    for name in configurations():
        text = (TEMPLATE / "configs" / name).read_text()
        assert blocks(text, name), name
        common = [block for block in blocks(text, name).values() if block.common]
        assert not any("example_method" in line for block in common for line in block.lines), name


# ------------------------------------------------------------------------------------------------------- new
def test_a_new_bundle_is_in_step_with_the_template(tmp_path: Path) -> None:
    written = make("deep_cut", tmp_path)
    assert differences(tmp_path / "bundles" / "deep_cut") == {}
    assert all(path.is_file() for path in written)
    for path in written:
        assert not re.search("example.?method", path.read_text(), re.IGNORECASE), path
    config = yaml.safe_load((tmp_path / "bundles" / "deep_cut" / "configs" / "train.yaml").read_text())
    assert config["network_def"]["_target_"] == "pretext3d.methods.deep_cut.pretext.DeepCutNet"


def test_a_new_method_touches_four_places(tmp_path: Path) -> None:
    """As CONTRIBUTING.md says: the method's folder, its test, its bundle; and README's row, added by hand."""
    make("deep_cut", tmp_path)
    places = {path.relative_to(tmp_path).parts[:-1] for path in tmp_path.rglob("*") if path.is_file()}
    folders = {Path(*parts) for parts in places}
    assert folders == {
        Path("shared/pretext3d/methods/deep_cut"),
        Path("tests/methods"),
        *(Path("bundles/deep_cut", part) for part in ("", "configs", "docs")),
    }
    text = (ROOT / "CONTRIBUTING.md").read_text()
    listed = re.findall(
        r"^\d\. \*\*(.+?)\*\*", text.split("## Add a method")[1].split("\n## ")[0], re.MULTILINE
    )
    assert listed == ["The bundle", "The method", "The test", "The row"]


@pytest.mark.parametrize("name", ["DeepCut", "deep-cut", "_x", "1a", "a__b", ""])
def test_names_that_make_no_module_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"^name: found .*, expected lower case letters"):
        make(name, tmp_path)
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "bundles" / "deep_cut").mkdir(parents=True)
    with pytest.raises(UserError, match="already, expected no such method"):
        make("deep_cut", tmp_path)
    assert not (tmp_path / "shared").exists()


def test_the_name_in_every_spelling() -> None:
    assert renamed("ExampleMethodLoss of the example method", "vq_2d") == "Vq2dLoss of the method vq 2d"


@pytest.mark.slow
@pytest.mark.parametrize("dims", [3, 2])
def test_a_new_bundle_trains_and_passes_its_test(tmp_path: Path, dims: int) -> None:
    shutil.copytree(ROOT / "shared" / "pretext3d", tmp_path / "shared" / "pretext3d")
    make("deep_cut", tmp_path)
    env = environment(PYTHONPATH=str(tmp_path / "shared"))
    keys = {**TINY, "max_epochs": 1, "steps_per_epoch": 2, "spatial_dims": dims}
    if dims == 2:
        keys["slices"] = "{'axis':2,'every':16}"
    config = tmp_path / "bundles" / "deep_cut" / "configs" / "train.yaml"
    run = arguments(str(config), output_dir=tmp_path / "run", **keys)
    test = ["-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path / "tests" / "methods")]
    for words in (run, test) if dims == 3 else (run,):
        done = subprocess.run(
            [sys.executable, *words], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert (tmp_path / "run" / "checkpoints" / "best.pt").is_file()
    assert list((tmp_path / "run" / "pictures").glob("*.png"))
