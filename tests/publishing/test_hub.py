"""The folder for a model hub: its card as the hub's own classes read it, MONAI's source."""

import json
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import monai.bundle
import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from pretext3d.commands.compare.study.of_bundle import bundle_results
from pretext3d.errors import UserError
from pretext3d.networks.segmentation import SegmentationNet
from pretext3d.publishing.hub import BundleResult, front_matter, hub_card
from pretext3d.publishing.opening import load_pretrained

from tests.commands.study_runs import builder
from tests.finished import promoted
from tests.publishing.archives import write_bundle
from tools import pack

ROOT = Path(__file__).resolve().parents[2]
BUNDLE = ROOT / "bundles" / "vectorpose"
RESULT = BundleResult(
    "main", "heart", "cnn, 4 labelled subjects", "dice", "Dice", 0.51234,
    "+0.050 [+0.010, +0.090], p 0.020", "-0.010 [-0.050, +0.030], p 1.000",
)  # fmt: skip


def packed(bundle: Path, output_dir: Path, *words: str) -> Path:
    command = [str(bundle), "--layout", "hub", "--study", "", "--output_dir", str(output_dir), *words]
    assert pack.main(command) == 0
    return output_dir / bundle.name


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return packed(BUNDLE, tmp_path_factory.mktemp("hub"))


def test_card_of_a_bundle(folder: Path) -> None:
    card = ModelCard.load(folder / "README.md")
    assert card.data.license == "apache-2.0"
    assert card.data.library_name == "monai"
    assert card.data.pipeline_tag == "image-feature-extraction"
    assert {"monai", "self-supervised-learning", "vectorpose"} <= set(card.data.tags)
    assert card.data.eval_results is None
    assert card.data.metrics is None
    assert card.text.lstrip().startswith("# VectorPOSE: vector prediction")
    assert "--repo OWNER/vectorpose --name vectorpose" in card.text
    for link in ("models/README.md", "docs/README.md"):
        assert f"({link})" in card.text
        assert (folder / link).is_file()


def test_folder_has_the_files_of_the_zip_and_the_card(folder: Path, tmp_path: Path) -> None:
    zipped = pack.pack(BUNDLE, tmp_path).files
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert len(files) == zipped + 1
    assert {"README.md", "configs/metadata.json", "models/model.pt", "models/model.safetensors"} <= files
    found, expected = load_pretrained(folder), load_pretrained(BUNDLE)
    image = np.random.default_rng(0).random((1, 32, 32, 32), dtype=np.float32)
    np.testing.assert_array_equal(
        found.pooled(torch.from_numpy(image)), expected.pooled(torch.from_numpy(image))
    )


@pytest.mark.filterwarnings("ignore:parsing config_file")  # MONAI's notice that a configuration is code
def test_monai_downloads_it_and_builds_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its source huggingface_hub, with the hub's client in place of the network."""
    there = packed(promoted(tmp_path), tmp_path / "hub")
    asked: dict[str, Any] = {}

    def snapshot(repo_id: str, revision: str, local_dir: str) -> str:
        asked.update(repo_id=repo_id, revision=revision)
        return str(shutil.copytree(there, local_dir))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    keys = {"name": "two_sides", "source": "huggingface_hub", "repo": "lab/two_sides", "version": "main"}
    network = monai.bundle.load(
        **keys, bundle_dir=str(tmp_path / "new"), workflow_type="inference", device="cpu"
    )
    assert asked == {"repo_id": "lab/two_sides", "revision": "main"}
    model = load_pretrained(tmp_path / "new" / "two_sides")
    assert isinstance(model.network, SegmentationNet)
    for name, value in model.network.state_dict().items():
        assert torch.equal(value, network.state_dict()[name])
    card = ModelCard.load(tmp_path / "new" / "two_sides" / "README.md")
    assert card.data.license == "cc-by-4.0"
    assert card.data.pipeline_tag == "image-segmentation"
    assert card.data.datasets == ["scans"]
    assert "two_sides/configs/inference.yaml" in card.text


def test_results_of_a_study_are_in_the_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two seeds of vp at two numbers of labels, by the study's own files; none before all cells are there."""
    run = builder(tmp_path, monkeypatch)()
    run("screening")
    assert bundle_results(run.study.file, "vectorpose") == []
    run()
    found = bundle_results(run.study.file, "vectorpose")
    assert [(one.task, one.setting) for one in found] == [
        ("organs", "cnn, vp, 1 labelled subject"),
        ("organs", "cnn, vp, 2 labelled subjects"),
    ]
    # 0.5 + 0.1, the gain of vp, + 3 * 0.003, its rate, + 0.05, the mean of its cases
    assert [one.score for one in found] == pytest.approx([0.659, 0.659])
    assert all(one.difference.startswith("+0.112 [") for one in found)
    assert all(one.difference_long.startswith("+0.090 [") for one in found)  # scratch: 0.5 - 3 * 0.001 + 0.05
    assert bundle_results(run.study.file, "rotation") == []
    card = ModelCard(hub_card(BUNDLE, found))
    assert card.data.metrics == ["dice"]
    assert "| organs | cnn, vp, 1 labelled subject | Dice | 0.659 | +0.112" in card.text


def test_scores_are_not_those_of_the_weights() -> None:
    """No entry `model-index`, which the hub would show as theirs; both controls are in the table."""
    card = ModelCard(hub_card(BUNDLE, [RESULT]))
    assert card.data.eval_results is None
    assert (
        "**not of the weights in this folder**: pre-trained for each task on its training subjects"
        in card.text
    )
    assert f"| 0.512 | {RESULT.difference} | {RESULT.difference_long} |" in card.text


def test_a_method_without_data_says_so() -> None:
    """No folder of scans in its command, which it would refuse, and no training subjects in its results."""
    card = ModelCard(hub_card(ROOT / "bundles" / "avsdb", [RESULT]))
    assert "avsdb/configs/train.yaml --output_dir runs/avsdb" in card.text
    assert "pre-trained on generated volumes, without any scan" in card.text
    assert "training subjects" not in card.text


@pytest.mark.parametrize(
    ("licence", "expected"),
    [
        ("CC BY-NC 4.0", {"license": "cc-by-nc-4.0"}),
        ("ours: do not pass on", {"license": "other", "license_name": "ours-do-not-pass-on"}),
    ],
)
def test_licence_of_weights_is_that_of_their_data(licence: str, expected: dict[str, str]) -> None:
    provenance = {"licence": licence, "data": "our 200 heads, of two hospitals"}
    front = front_matter("mine", {"models": provenance}, [])
    assert front.items() >= expected.items()
    assert "datasets" not in front  # words, no name of a data set


def test_further_weights_are_in_the_card(tmp_path: Path) -> None:
    """A bundle without weights of its own, then with both, of two licences."""
    bundle = Path(shutil.copytree(ROOT / "bundles" / "avsdb", tmp_path / "avsdb"))
    for file in (bundle / "models").glob("*.*"):
        file.unlink()
    card = ModelCard(hub_card(bundle))
    assert card.data.license == "apache-2.0"
    assert card.data.pipeline_tag == "image-feature-extraction"
    assert card.text.count("avsdb/models/transformer") == 2  # of --pretrained, and in Python
    assert "| [models/transformer](models/transformer/README.md) | none: textured shapes" in card.text
    assert "| [models/2d](models/2d/README.md) | none: " in card.text  # of a 2D network: last
    for file in (BUNDLE / "models").glob("*.*"):
        shutil.copy(file, bundle / "models")
    provenance = json.loads((bundle / "models" / "provenance.json").read_text())
    (bundle / "models" / "provenance.json").write_text(json.dumps({**provenance, "licence": "CC BY 4.0"}))
    both = ModelCard(hub_card(bundle))
    assert both.data.license == "other"
    assert both.data.license_name == "apache-2.0-and-cc-by-4.0"
    assert both.data.license_link == "models/README.md"
    assert "avsdb/models/transformer" not in both.text
    shutil.rmtree(bundle / "models")
    without = ModelCard(hub_card(bundle))
    assert without.data.license == "apache-2.0"  # the code's
    assert without.data.pipeline_tag is None
    assert "## Weights" not in without.text


def test_nothing_is_replaced_silently(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = Path(shutil.copytree(folder, tmp_path / "vectorpose"))
    words = [str(BUNDLE), "--layout", "hub", "--study", "", "--output_dir", str(tmp_path)]
    assert pack.main(words) == 0
    assert "same" in capsys.readouterr().out
    (place / "README.md").write_text("my own words")
    assert pack.main(words) == 1
    assert "found a folder with other content, expected none or the same" in capsys.readouterr().err
    assert (place / "README.md").read_text() == "my own words"
    (place / ".git").mkdir()
    assert pack.main([*words, "--force"]) == 1
    assert "found .git (hidden), expected a bundle alone" in capsys.readouterr().err
    (place / ".git").rmdir()
    assert pack.main([*words, "--force"]) == 0
    assert (place / "README.md").read_bytes() == (folder / "README.md").read_bytes()
    shutil.rmtree(place)
    place.write_text("a file")
    assert pack.main([*words, "--force"]) == 1
    assert place.read_text() == "a file"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--layout", "tar"], "--layout: found 'tar', expected one of zip, hub"),
        (["--layout", "hub", "--base_url", "https://x.org"], "--base_url: found with --layout hub"),
        (["--layout", "hub", "--study", "nowhere.yaml"], "nowhere.yaml: cannot be read"),
    ],
)
def test_mistakes(more: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pack.main([str(BUNDLE), "--output_dir", str(tmp_path), *more]) == 1
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_card_without_metadata_is_refused(tmp_path: Path) -> None:
    write_bundle(tmp_path)
    with pytest.raises(UserError, match=r"metadata\.json: not found"):
        hub_card(tmp_path)
