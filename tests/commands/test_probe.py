"""The probe of frozen features: whose cases it measures, what it reads, its tables and mistakes."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pretext3d.__main__ import main
from pretext3d.commands.probe import cases as of_probe
from pretext3d.commands.probe import features, options, probe
from pretext3d.data.prepare import prepare_cases
from pretext3d.data.splits import evaluation_cases
from pretext3d.errors import UserError
from pretext3d.networks.factory import build_backbone
from pretext3d.publishing.opening import load_pretrained
from pretext3d.training.checkpoint_io import save_checkpoint
from torch import nn

from tests.labelled import save

CONFIG = Path(__file__).resolve().parents[2] / "bundles" / "vectorpose" / "configs" / options.FILE
TINY = ["--profile", "laptop", "--roi_size", "16", "--pixdim", "native", "--datalist", "none"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve subjects of two volumes; those of class bright are brighter by 5 than those of class dark.

    Both have the same pattern, and each channel's percentiles become 0 and 1: a network cannot see it.
    """
    folder = tmp_path_factory.mktemp("classes")
    rows = []
    for number in range(24):
        pattern = np.random.default_rng(number // 2).normal(0, 1, (12, 10, 8))
        bright = number // 2 % 2
        save((pattern + 5 * bright).astype(np.float32), folder / "scans" / f"s{number:02}.nii.gz")
        rows.append((f"s{number:02}", "bright" if bright else "dark", f"p{number // 2}"))
    pd.DataFrame(rows, columns=["id", "class", "subject"]).to_csv(folder / "classes.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pre-trained run, of random weights."""
    folder = tmp_path_factory.mktemp("runs") / "first"
    torch.manual_seed(5)
    network = nn.Module()
    network.backbone = build_backbone("unet", 1, [16, 16, 16])
    record = {
        "method": "rotation", "channels": 1, "pixdim": [2.0, 3.0, 2.0], "backbone": network.backbone.record
    }  # fmt: skip
    content = {"network": network.state_dict(), "record": record}
    (folder / "checkpoints").mkdir(parents=True)
    save_checkpoint(folder / "checkpoints" / "best.pt", content)
    return folder


def of(data: Path, **more: Any) -> dict[str, Any]:
    file = str(data / "classes.csv")
    return {"dataset_dir": str(data / "scans"), "class_file": file, "subjects": file, **more}


def words(data: Path, *more: str) -> list[str]:
    return [*(word for key, value in of(data).items() for word in (f"--{key}", value)), *TINY, *more]


@pytest.fixture
def cases(data: Path, tmp_path: Path) -> of_probe.Cases:
    keys = {"roi_size": 16, "pixdim": "native", "datalist": "none", "profile": "laptop"}
    return of_probe.Cases(CONFIG, of(data, **keys, cache_dir=str(tmp_path)), "test")


def test_cases_are_those_of_a_fine_tuning(data: Path, cases: of_probe.Cases) -> None:
    for number, seed in ((2, 0), (2, 3), (7, 1), (10, 0)):
        keys = of(data, datalist="none", purpose="classification", pixdim="native", roi_size=16)
        found = prepare_cases(**keys, num_labelled=number, seed=seed)
        names = np.array([*cases.groups])
        assert set(names[cases.labelled(number, seed)]) == {case["id"] for case in found["train"]}
        assert set(names[cases.held_out]) == {case["id"] for case in evaluation_cases(found)}
    assert cases.pool == 10  # of 12 subjects 2 are held out
    assert not (cases.labelled(10, 0) & cases.held_out).any()
    assert set(of_probe.per_case(cases, np.zeros(4, int))["subject"]) <= {f"p{n}" for n in range(12)}


def test_features_are_what_the_output_layer_of_a_fine_tuning_reads(run: Path, cases: of_probe.Cases) -> None:
    found = features.network_features(cases, options.Source("first", str(run)), {"encoder": ""}, seed=0)
    read = features.resolved(CONFIG, {**cases.given, "pretrained": str(run)}, ["network_def"])["network_def"]
    seen: list[torch.Tensor] = []
    read.head.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    read.eval()
    for index in (0, 7, 23):
        read(cases.dataset.volume(index)["image"].as_tensor()[None])
        torch.testing.assert_close(found[index], seen.pop()[0].detach(), rtol=0.05, atol=0.02)  # bfloat16
    assert found.shape == (24, read.head.in_features)


@pytest.mark.parametrize("pixdim", [[2.0, 3.0, 2.0], [1.1, 0.9, 0.7]], ids=["padded", "cropped"])
def test_features_are_those_of_load_pretrained(
    data: Path, run: Path, tmp_path: Path, pixdim: list[float]
) -> None:
    """The window in the middle of a volume, at the same spacing: 16 voxels are longer than it, or shorter."""
    keys = {"roi_size": 16, "pixdim": pixdim, "datalist": "none", "profile": "laptop"}
    cases = of_probe.Cases(CONFIG, of(data, **keys, cache_dir=str(tmp_path)), "test")
    found = features.network_features(cases, options.Source("first", str(run)), {"encoder": ""}, seed=0)
    model = load_pretrained(run, pixdim=pixdim)
    for index in (0, 7, 23):
        image = model.preprocess(cases.dataset.data[index]["image"])["image"]
        assert (max(image.shape) > 16) == (pixdim[0] < 2)
        np.testing.assert_allclose(model.pooled(image, max_windows=1), found[index], rtol=1e-5, atol=1e-6)


def test_intensities_are_those_of_the_files(cases: of_probe.Cases) -> None:
    found = features.intensity_features(cases)
    bright = cases.classes == cases.class_names.index("bright")
    assert found.shape == (24, 2)
    assert found[torch.from_numpy(bright), 0].numpy() == pytest.approx(5.0, abs=0.15)
    assert found[torch.from_numpy(~bright), 0].numpy() == pytest.approx(0.0, abs=0.15)
    assert found[:, 1].numpy() == pytest.approx(1.0, abs=0.1)


def test_tables_of_a_run_random_weights_and_intensities(
    data: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["probe", "scratch", str(run), *words(data, "--output_dir", str(tmp_path / "out"))]
    assert main([*given, "--num_labelled", "4", "10", "--seeds", "0", "1", "--cache_dir", str(tmp_path)]) == 0
    table = pd.read_csv(tmp_path / "out" / "probe.csv")
    cells = table.groupby(["arm", "num_labelled", "seed", "reader"])
    assert len(cells) == 3 * 2 * 2 * 2
    assert (cells["case"].nunique() == 4).all()
    found = table[table["arm"] == "intensities"]
    assert (found["class"] == found["predicted"]).all()  # the class is in the mean, which no network sees
    whole = table[(table["num_labelled"] == 10) & (table["arm"] == "first")]
    assert (whole.groupby(["reader", "case"])["predicted"].nunique() == 1).all()  # one network, all labels
    text = (tmp_path / "out" / "probe.md").read_text()
    assert "4 held-out cases of 2 classes (chance 0.500)" in text
    assert "| linear probe | difference to scratch [95 %] | p | nearest" in text
    line = next(line for line in text.splitlines() if line.startswith("| 10 | intensities | 1.000 ± 0.000 |"))
    assert line.count("| 1.000 ± 0.000 |") == 2
    right = (table["class"] == table["predicted"]).astype(float)
    mean = right[(table["arm"] == "scratch") & (table["num_labelled"] == 10) & (table["reader"] == "linear")]
    assert f"{1 - mean.mean():+.3f} [" in line  # classes have as many held-out cases each
    assert text in capsys.readouterr().out + "\n"
    assert all((tmp_path / "out" / name).stat().st_size > 1000 for name in ("linear.png", "knn.png"))
    before = (tmp_path / "out" / "probe.csv").read_bytes()
    assert main(given) == 1  # nothing is overwritten
    assert "probe.csv, expected a folder without one" in capsys.readouterr().err
    assert (tmp_path / "out" / "probe.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--num_labelled", "11"], "--num_labelled: found 11, expected at most 10: the subjects that train"),
        (["--num_labelled", "4", "--label_fractions", "0.5"], "--label_fractions: found with --num_labelled"),
        (["--label_fractions", "0"], "--label_fractions: found [0.0], expected numbers above 0, up to 1"),
        (["--seeds", "1", "1"], "--seeds: found [1, 1], expected different integers from 0"),
        (["--neighbours", "0"], "--neighbours: found 0"),
        (["--measured", "train"], "--measured: found 'train', expected one of test, val"),
        (["--pretrained", "x"], "--pretrained: found as an override, expected it from the runs"),
        (
            ["--val_fractoin", "0.3"],
            "no such key in finetune_classification.yaml; did you mean --val_fr",
        ),
        (
            ["--bundle", "nowhere"],
            "--bundle: found nowhere, expected the folder of a bundle, or one of avsdb",
        ),
    ],
)
def test_mistakes(data: Path, tmp_path: Path, more: list[str], message: str) -> None:
    parsed, rest = options.make_parser().parse_known_args(
        ["scratch", *words(data, "--output_dir", str(tmp_path / "out"), "--cache_dir", str(tmp_path), *more)]
    )
    with pytest.raises(UserError) as caught:
        probe.probe(parsed, options.checked(parsed, rest))
    assert message in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_random_weights_have_the_network_of_the_runs(tmp_path: Path) -> None:
    """With the patches of a vision transformer, which would otherwise follow from the crops."""
    networks = {"a": {"steps": [[2, 2, 1], [2, 2, 2]]}, "b": {"steps": [[2, 2, 2], [2, 2, 2]]}}
    for name, own in networks.items():
        backbone = {"encoder": "vit_tiny", "options": own, "spatial_dims": 3}
        save_checkpoint(tmp_path / f"{name}.pt", {"record": {"backbone": backbone}, "network": {}})
    sources = [options.Source(name, str(tmp_path / f"{name}.pt")) for name in networks]
    scratch, found = options.Source("scratch", ""), options.network_of
    wanted = {"encoder": "vit_tiny", "network_def::options": networks["a"]}
    assert found([scratch, sources[0]], "", 3) == wanted
    assert found([scratch, sources[0]], "vit_tiny", 3) == wanted
    assert found([scratch, *sources], "unet", 3) == {"encoder": "unet"}
    assert found([scratch], "", 3) == {"encoder": ""}
    with pytest.raises(UserError, match=r"scratch: found runs of the networks vit_tiny .*1\].*, vit_tiny"):
        found([scratch, *sources], "", 3)


def test_weights_of_other_axes_are_refused_before_any_case_is_read(run: Path, tmp_path: Path) -> None:
    given = [str(run), "--dataset_dir", str(tmp_path), "--spatial_dims", "2"]
    parsed, rest = options.make_parser().parse_known_args(given)
    with pytest.raises(UserError, match="its network has spatial_dims 3, this one has spatial_dims 2"):
        probe.probe(parsed, options.checked(parsed, rest))


@pytest.mark.parametrize(
    "runs", [["scratch", "scratch"], ["a/x", "b/x"], ["intensities=a"], ["x="], ["=a"], ["x=a", "x=b"]]
)
def test_names_of_runs_differ(runs: list[str]) -> None:
    with pytest.raises(UserError, match="expected PATH or NAME=PATH with a name of its own"):
        options.read_sources(runs)


def test_runs_come_before_the_options(capsys: pytest.CaptureFixture[str]) -> None:
    """The value of an override, which is no option of the command, would be read as a run."""
    with pytest.raises(SystemExit, match="2"):
        main(["probe", "--spatial_dims", "2", "runs/a"])
    assert "expected the runs before the options" in capsys.readouterr().err
