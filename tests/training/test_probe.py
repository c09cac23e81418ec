"""The probe of a pre-training: its figures, and that nothing else changes."""

import csv
import itertools
import logging
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch
from ignite.engine import Events
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import ValidationHandler
from monai.transforms import Compose, SelectItemsd
from pretext3d.data.dataset import CachedVolumes, EpochSampler
from pretext3d.data.loading import LoadCased, PlainOrientationd, ScaleToUnitd
from pretext3d.errors import UserError
from pretext3d.networks.factory import build_backbone
from pretext3d.training import probe, report
from pretext3d.training.batches import PrepareTargets
from pretext3d.training.checkpointer import RunCheckpointer
from pretext3d.training.metrics import ValidationLoss
from pretext3d.training.precision import AutocastInferer
from pretext3d.training.probe import check_probe
from pretext3d.training.probe_tasks import find_classes
from pretext3d.transforms.crops import RandScaleCropd
from torch import nn
from torch.utils.data import DataLoader

from tests.labelled import save, write_labelled
from tests.training.runs import RECORD

CPU = torch.device("cpu")
EVERY_2 = {"every": 2, "max_windows": 8}


class Toy(nn.Module):
    """One number from the coarsest map, of dropout and batch norm: generators and statistics count."""

    def __init__(self, dims):
        super().__init__()
        self.backbone = build_backbone("unet4", 1, (16,) * dims, dims, encoder_only=True)
        self.backbone.train_encoder_only()
        self.head = nn.Sequential(nn.BatchNorm1d(self.backbone.feature_channels[-1]), nn.Dropout(0.5))
        self.out = nn.Linear(self.backbone.feature_channels[-1], 1)

    def forward(self, x):
        return self.out(self.head(self.backbone.encode_coarsest(x).flatten(2).mean(-1)))


class Seen:
    """Handler of a validation: what TensorBoard would get after each epoch."""

    def __init__(self):
        self.metrics = []

    def attach(self, engine):
        engine.add_event_handler(
            Events.EPOCH_COMPLETED, lambda engine: self.metrics.append(dict(engine.state.metrics))
        )


@pytest.fixture
def cases(tmp_path):
    """Six labelled volumes; in the last three the labelled voxels are twice as bright."""
    folder = write_labelled(tmp_path / "data", cases=6)
    found = []
    for n in range(6):
        files = {key: str(folder / f"{key}sTr" / f"case_{n}.nii.gz") for key in ("image", "label")}
        if n > 2:
            image = nib.load(files["image"])
            save(image.get_fdata(dtype=np.float32) * 2, Path(files["image"]), image.affine)
        found.append({"id": f"case_{n}", "name": f"case_{n}", **files})
    return found


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a training of two cases to train on and four held out, or the given ones."""

    def train(name, train, val, settings=EVERY_2, epochs=4, dims=3, **options):
        monkeypatch.setattr(report, "setting", lambda key, default=None: default)
        torch.manual_seed(0)
        steps = [
            LoadCased("image", spatial_dims=dims),
            PlainOrientationd("image"),
            ScaleToUnitd("image", {"window": [0, 4]}),
            RandScaleCropd("image", (16,) * dims, (1, 1)),
            SelectItemsd(["image", "crop_start"]),
        ]
        data = [CachedVolumes(part, Compose(steps), str(tmp_path / "cache"), 2) for part in (train, val)]
        network, folder = Toy(dims), tmp_path / name
        folder.mkdir(exist_ok=True)
        optimizer = torch.optim.Adam(network.parameters(), 1e-3)
        loss, inferer = nn.MSELoss(), AutocastInferer("fp32", CPU)
        prepare = PrepareTargets(["crop_start"])
        first = lambda pred, target: loss(pred[:, 0], target["crop_start"][:, 0])  # noqa: E731
        seen = Seen()
        evaluator = SupervisedEvaluator(
            CPU, DataLoader(data[1], 4), network, inferer=inferer, prepare_batch=prepare, decollate=False,
            key_val_metric={"val_loss": ValidationLoss(first)}, val_handlers=[seen],
        )  # fmt: skip
        handlers = [
            RunCheckpointer(
                str(folder / "checkpoints"), network, optimizer, RECORD, evaluator=evaluator, **options
            ),
            ValidationHandler(1, evaluator),
            report.RunReport(str(folder), optimizer, RECORD, evaluator, probe=settings),
        ]
        loader = DataLoader(data[0], 2, sampler=EpochSampler(data[0], 6))
        trainer = SupervisedTrainer(
            CPU, epochs, loader, network, optimizer, first, inferer=inferer, prepare_batch=prepare,
            decollate=False, train_handlers=handlers,
        )  # fmt: skip
        trainer.run()
        with (folder / "metrics.csv").open() as file:
            rows = list(csv.DictReader(file))
        return SimpleNamespace(rows=rows, network=network, seen=seen.metrics, draw=torch.rand(3))

    return train


def figures(found, name):
    return [row.get(name, "") for row in found.rows]


def lines(caplog):
    return [record.getMessage() for record in caplog.records if "probe" in record.getMessage()]


def test_dice_of_labels_every_second_epoch(cases, run, caplog):
    caplog.set_level(logging.INFO)
    found = run("labelled", cases[::2], cases[1::2])
    values = figures(found, "probe_dice")
    assert values[0] == values[2] == ""
    said = lines(caplog)
    assert said[0].startswith(
        "probe_dice: the mean Dice on 3 held-out cases (2 classes) of a linear map from the encoder's "
        "features to the label, fitted to 3 training cases; in cells of "
    )
    floor, ceiling = (float(said[0].rstrip().split(f"{word} ")[1][:5]) for word in ("gives", "painting"))
    assert said[1].startswith("probe before the first step, with the initial weights: probe_dice 0.")
    assert list(probe.initial_figures(said[1])) == ["probe_dice"]
    for value in (values[1], values[3]):
        assert floor < float(value) < ceiling
    # what TensorBoard's handler of the validation sees, too
    assert ["probe_dice" in epoch for epoch in found.seen] == [False, True, False, True]
    assert [epoch["probe_dice"] for epoch in found.seen[1::2]] == [float(v) for v in values[1::2]]


@pytest.mark.parametrize("classes", [False, True])
def test_nothing_else_changes(cases, run, classes):
    """Weights, running statistics, generators, order of the data, metrics: equal bit for bit."""
    if classes:
        cases = [{**case, "class": n % 2} for n, case in enumerate(cases)]
    without = run("without", cases[:4], cases[4:], None)
    probed = run("with", cases[:4], cases[4:], {"every": 1})
    for name, value in without.network.state_dict().items():
        assert torch.equal(value, probed.network.state_dict()[name]), name
    for one, other in zip(without.rows, probed.rows, strict=True):
        assert len(other) == len(one) + 1
        assert all(other[key] == one[key] for key in one if key != "seconds")
    assert torch.equal(without.draw, probed.draw)


def test_accuracy_of_classes(cases, run, caplog):
    """Bright and dim volumes: the features of any weights tell them apart."""
    caplog.set_level(logging.INFO)
    classed = [{**case, "class": "bright" if n > 2 else "dim"} for n, case in enumerate(cases)]
    found = run("classes", [classed[n] for n in (0, 1, 3, 4)], [classed[2], classed[5]], {"neighbours": 1})
    assert figures(found, "probe_knn_accuracy") == ["", "1.0", "", "1.0"]
    assert figures(found, "probe_dice") == [""] * 4
    assert lines(caplog)[0] == (
        "probe_knn_accuracy: the fraction of 2 held-out cases (2 classes) whose class most of their 1 "
        "nearest training cases, of 4, have, by the encoder's features; the most frequent class for all "
        "gives 0.500"
    )


def test_neighbours_are_of_other_subjects(cases, run):
    """The nearest training case of case 2 is case 2 itself, of another class; the next has its class."""
    held_out = {**cases[2], "class": "a", "subject": "anna"}
    train = [
        {**cases[2], "id": "again", "class": "b", "subject": "anna"},
        {**cases[0], "class": "a", "subject": "ben"},
    ]
    settings = {"every": 1, "neighbours": 1}
    assert figures(run("same", train, [held_out], settings, 1), "probe_knn_accuracy") == ["1.0"]
    train[0]["subject"] = "carl"
    assert figures(run("other", train, [held_out], settings, 1), "probe_knn_accuracy") == ["0.0"]


def test_classes_of_a_file(cases, run, tmp_path):
    """It may list cases that are neither trained on nor validated."""
    file = tmp_path / "classes.csv"
    rows = [f"case_{n},{'dim' if n < 3 else 'bright'}" for n in range(6)]
    file.write_text("\n".join(["id,class", *rows, "of_the_test_set,dim"]))
    settings = {"every": 1, "class_file": str(file), "neighbours": 1}
    train, val = [cases[n] for n in (0, 1, 3, 4)], [cases[2], cases[5]]
    assert figures(run("file", train, val, settings, 1), "probe_knn_accuracy") == ["1.0"]
    file.write_text("id,class\nnobody,dim\n")
    with pytest.raises(UserError, match="class_file: found 0 cases of 0 classes"):
        run("nobody", train, val, settings, 1)


def test_off_without_classes_and_labels(cases, run, caplog):
    caplog.set_level(logging.INFO)
    bare = [{key: case[key] for key in ("id", "image")} for case in cases]
    for name, train, val in (("none", bare[:3], bare[3:]), ("held out", cases[:3], bare[3:])):
        caplog.clear()
        found = run(name, train, val, epochs=2)
        assert "probe_dice" not in found.rows[1]
        assert lines(caplog) == [
            "probe: off, since no training and held-out cases have a class or a label to measure features "
            "by; see docs/probe.md"
        ]


def test_one_class_is_none(cases, run):
    same = [{**case, "class": 7} for case in cases]
    assert figures(run("one", same[:3], same[3:], {"every": 1}, 1), "probe_dice") != [""]


def test_a_bad_label_ends_no_training(cases, run, caplog):
    save(np.zeros((3, 3, 3), np.uint8), Path(cases[1]["label"]))
    Path(cases[2]["label"]).write_bytes(b"no volume")
    found = run("bad", cases[:3], cases[3:], epochs=2)
    assert float(figures(found, "probe_dice")[1]) > 0
    warned = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING and "probe" in r.msg]
    assert [text.split(" is left out: ")[0] for text in warned] == [
        f"probe: the label of case_{n}" for n in (1, 2)
    ]


def test_resumed_run_has_the_figures_of_one_that_was_not_stopped(cases, run):
    whole = run("whole", cases[:3], cases[3:])
    run("stopped", cases[:3], cases[3:], epochs=3)
    resumed = run("stopped", cases[:3], cases[3:], resume=True)
    assert figures(resumed, "probe_dice") == figures(whole, "probe_dice")
    assert figures(resumed, "val_loss") == figures(whole, "val_loss")


def test_only_the_first_process_measures(cases, run, monkeypatch):
    monkeypatch.setattr(probe, "is_first", lambda: False)
    assert "probe_dice" not in run("second", cases[:3], cases[3:], epochs=2).rows[1]


def test_slices_of_a_volume_are_one_case_in_2d(cases, run, caplog):
    caplog.set_level(logging.INFO)
    slices = [
        [
            {**case, "id": f"{case['id']}/slice{k:03d}", "volume": case["id"], "slice": k, "slice_axis": 2}
            for k in range(2, 20, 3)
        ]
        for case in cases
    ]
    train, val = (list(itertools.chain(*part)) for part in (slices[:4], slices[4:]))
    found = run("slices", train, val, dims=2, epochs=2)
    assert 0 < float(figures(found, "probe_dice")[1]) < 1
    assert lines(caplog)[0].startswith(
        "probe_dice: the mean Dice on 2 held-out cases (2 classes) of a linear"
    )
    assert "fitted to 4 training cases" in lines(caplog)[0]


def test_classes_of_slices_are_those_of_their_volume(tmp_path):
    """A file names the volume by its id, or its name."""
    volume = {"id": "set/a/slice001", "name": "a/slice001", "volume": "set/a"}
    data = [CachedVolumes([case], prepare=False) for case in (volume, {"id": "b", "name": "b"})]
    file = tmp_path / "classes.csv"
    for name in ("set/a", "a"):
        file.write_text(f"id,class\n{name},sick\nb,well\n")
        assert find_classes(data, str(file)) == ({"set/a": 0, "b": 1}, ["sick", "well"])
    file.write_text("id,class\na,sick\nx,well\n")
    with pytest.raises(UserError, match="found 1 cases of 1 classes"):
        find_classes(data, str(file))
    assert find_classes(data) is None


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (2, "probe: found 2, expected null or a mapping with every, class_file"),
        ({"evry": 2}, "found 'evry', expected .*; did you mean every?"),
        ({"every": 0}, "probe::every: found 0, expected an integer of 1 or more"),
        ({"every": True}, "probe::every: found True"),
        ({"neighbours": 2.5}, "probe::neighbours: found 2.5"),
        ({"level": None}, "probe::level: found None"),
        ({"class_file": None}, "probe::class_file: found None, expected the path"),
        ({"class_file": "missing.csv"}, "probe::class_file: missing.csv not found"),
    ],
)
def test_settings_that_are_wrong(value, message):
    with pytest.raises(UserError, match=message):
        check_probe(value)
