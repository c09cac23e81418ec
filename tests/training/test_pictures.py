"""The handler that draws: when, where to, and that training does not notice."""

import logging
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from matplotlib.figure import Figure
from matplotlib.image import imread
from monai.inferers import SimpleInferer
from pretext3d.data.dataset import CachedVolumes
from pretext3d.errors import UserError
from pretext3d.training import pictures as module
from pretext3d.training.pictures import Pictures, file_name, predict, render, write_png
from torch import nn


class Volumes(CachedVolumes):
    """Two cases, whose reading draws from every global generator."""

    def __init__(self) -> None:
        self.data = [{"id": "a/b c"}, {"id": "d"}]

    def volume(self, case: int) -> dict[str, Any]:
        return {**self.data[case], "image": torch.zeros(1, 4, 4, 4)}

    def __getitem__(self, key: int) -> dict[str, Any]:
        noise = torch.rand(()) + float(np.random.rand()) + random.random()
        return {"image": torch.full((1, 4, 4, 4), float(key)), "noise": noise}


class Net(nn.Module):
    """Dropout and batch norm: both differ between training and evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.drop = nn.BatchNorm3d(1), nn.Dropout(0.5)
        self.frozen = nn.Dropout(0.5).eval()

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, dict[str, Any]]:
        return self.drop(self.norm(x)).mean(dim=(1, 2, 3, 4)), {"map": self.frozen(x), "name": "x"}


class Drawn:
    """Stands in for a method's figure; keeps what it was asked to draw."""

    def __init__(self) -> None:
        self.calls: list[tuple[dict[str, Any], dict[str, Any], Any, str]] = []

    def __call__(self, volume: dict[str, Any], sample: dict[str, Any], pred: Any, title: str) -> Figure:
        self.calls.append((volume, sample, pred, title))
        return Figure(figsize=(1, 0.5), dpi=20, facecolor="red")


def handler(folder: Path, **more: Any) -> tuple[Pictures, Drawn]:
    drawn = Drawn()
    given = {"dataset": Volumes(), "network": Net(), "inferer": SimpleInferer(), "draw": drawn, **more}
    return Pictures(**given, output_dir=str(folder), device="cpu"), drawn


def train(pictures: Pictures, epochs: int, step: Any = lambda engine, batch: None) -> None:
    engine = Engine(step)
    pictures.attach(engine)
    engine.run([0, 1], max_epochs=epochs)


def test_first_every_interval_and_last(tmp_path: Path) -> None:
    pictures, _ = handler(tmp_path, interval=3)
    train(pictures, 7)
    names = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert names == [f"epoch_{epoch:04d}_{case}.png" for epoch in (1, 3, 6, 7) for case in ("a_b_c", "d")]
    picture = imread(tmp_path / "pictures" / names[0])
    assert picture.shape[:2] == (10, 20)
    np.testing.assert_allclose(picture[5, 5, :3], [1, 0, 0])


def test_what_is_drawn(tmp_path: Path) -> None:
    pictures, drawn = handler(tmp_path, num_cases=5)
    train(pictures, 2)
    expected = [f"{case} (held out), epoch {epoch}" for epoch in (1, 2) for case in ("a/b c", "d")]
    assert [title for _, _, _, title in drawn.calls] == expected
    assert drawn.calls[0][1] is drawn.calls[2][1]  # the same crops every time
    volume, sample, (value, parts), _ = drawn.calls[1]
    assert volume["id"] == "d"
    assert float(sample["image"].mean()) == 1.0
    # evaluation mode: no dropout; batch norm with mean 0, variance 1 + 1e-5
    assert float(value) == pytest.approx(1 / np.sqrt(1 + 1e-5), rel=1e-6)
    assert parts["map"].shape == (1, 4, 4, 4)
    assert parts["name"] == "x"


def test_training_is_not_disturbed(tmp_path: Path) -> None:
    def numbers(pictures: Pictures | None) -> list[float]:
        random.seed(1)
        np.random.seed(1)
        torch.manual_seed(1)
        seen = []

        def step(engine: Engine, batch: int) -> None:
            seen.extend([random.random(), float(np.random.rand()), float(torch.rand(()))])

        engine = Engine(step)
        if pictures is not None:
            pictures.attach(engine)
        engine.run([0, 1], max_epochs=3)
        return seen

    pictures, drawn = handler(tmp_path)
    network = pictures.network
    modes = [m.training for m in network.modules()]
    assert modes == [True, True, True, False]
    state = {name: value.clone() for name, value in network.state_dict().items()}
    assert numbers(pictures) == numbers(None)
    assert len(drawn.calls) == 6
    assert [m.training for m in network.modules()] == modes
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, state[name], rtol=0, atol=0)


def test_modes_come_back_after_an_error() -> None:
    network = Net()

    def fail(*_: Any) -> None:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        predict(network, fail, [{"image": torch.zeros(1, 2, 2, 2)}], "cpu")
    assert [m.training for m in network.modules()] == [True, True, True, False]


def test_tensorboard_has_them(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    pictures, _ = handler(tmp_path)
    train(pictures, 2)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert set(events.Tags()["images"]) == {"pictures/a_b_c", "pictures/d"}
    image = events.Images("pictures/d")
    assert [(one.step, one.height, one.width) for one in image] == [(1, 10, 20), (2, 10, 20)]


def test_without_matplotlib_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    pictures, drawn = handler(tmp_path)
    with caplog.at_level(logging.WARNING):
        train(pictures, 3)
    assert [record.message for record in caplog.records] == [
        "no pictures of the training: matplotlib is not installed"
    ]
    assert drawn.calls == []
    assert list(tmp_path.iterdir()) == []


def test_only_rank_0_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.idist, "get_rank", lambda: 1)
    pictures, drawn = handler(tmp_path)
    train(pictures, 1)
    assert drawn.calls == []


def test_a_full_disk_does_not_end_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(path: Path, pixels: np.ndarray) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(module, "write_png", full)
    pictures, _ = handler(tmp_path, num_cases=1)
    train(pictures, 1)
    assert "no space left" in caplog.text


def test_arguments() -> None:
    with pytest.raises(UserError, match="num_cases: found -1"):
        handler(Path(), num_cases=-1)
    with pytest.raises(UserError, match="interval: found 0"):
        handler(Path(), interval=0)


def test_png_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = render(Figure(figsize=(1, 1), dpi=10, facecolor="blue"))
    assert pixels.shape == (10, 10, 3)
    assert pixels[0, 0].tolist() == [0, 0, 255]
    path = tmp_path / "new" / "a.png"
    monkeypatch.setattr(Path, "replace", lambda self, target: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_png(path, pixels)
    assert not path.exists()
    monkeypatch.undo()
    write_png(path, pixels)
    assert [p.name for p in path.parent.iterdir()] == ["a.png"]
    np.testing.assert_allclose(imread(path)[..., :3] * 255, pixels)


def test_file_names() -> None:
    assert file_name("heads/MR 1:2.x-y") == "heads_MR_1_2.x-y"
