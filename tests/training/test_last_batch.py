"""An epoch's last batch of one sample: refused in the first step, where batch norm cannot take it."""

from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.engines import SupervisedTrainer
from pretext3d.errors import UserError
from pretext3d.networks.heads import FullyConnectedHead
from pretext3d.training.last_batch import last_batch_size
from pretext3d.training.length import RunLength
from torch import nn
from torch.utils.data import DataLoader

CPU = torch.device("cpu")


def trainer_of(
    network: nn.Module,
    samples: int,
    batch_size: int,
    max_steps: int | None = None,
    shape: tuple[int, ...] = (4,),
) -> Any:
    """A trainer of one epoch, or of `max_steps`, of random samples of a shape."""
    torch.manual_seed(0)
    data = [{"image": torch.randn(shape), "label": torch.zeros(2)} for _ in range(samples)]
    loader = DataLoader(data, batch_size=batch_size)
    length = RunLength(1, max_steps, len(loader))
    trainer = SupervisedTrainer(
        CPU, length.epochs, loader, network, torch.optim.SGD(network.parameters(), 0.1), nn.MSELoss()
    )
    length.attach(trainer)
    return trainer


class Pairs(nn.Module):
    """Two rows of the head per sample, as two views."""

    def __init__(self) -> None:
        super().__init__()
        self.head = FullyConnectedHead(2, 2, hidden=[3])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x.reshape(-1, 2)).unflatten(0, (len(x), 2)).mean(1)


def flat_map() -> nn.Module:
    """An encoder whose coarsest map has one voxel."""
    return nn.Sequential(nn.Conv2d(1, 2, 2), nn.BatchNorm2d(2), nn.Flatten())


def test_the_last_batch_by_hand() -> None:
    sizes = {n: last_batch_size(DataLoader(range(n), batch_size=4)) for n in (3, 4, 5, 8, 11)}
    assert sizes == {3: 3, 4: 4, 5: 1, 8: 4, 11: 3}
    assert last_batch_size(DataLoader(range(5), batch_size=4, drop_last=True)) == 0


@pytest.mark.parametrize(
    ("network", "shape"),
    [(FullyConnectedHead(4, 2, hidden=[3]), (4,)), (flat_map(), (1, 2, 2))],
    ids=["head", "map"],
)
def test_a_last_batch_of_one_is_refused_before_the_first_step(
    network: nn.Module, shape: tuple[int, ...]
) -> None:
    """5 samples in batches of 2: 2, 2, 1."""
    before = {name: value.clone() for name, value in network.state_dict().items()}
    trainer = trainer_of(network, 5, 2, shape=shape)
    trainer.logger.disabled = True
    with pytest.raises(
        UserError, match=r"batch_size: found 2 with 5 samples in an epoch, whose last batch .* has 1:"
    ):
        trainer.run()
    assert all(value.equal(before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("network", "batch_size", "max_steps", "steps"),
    [
        (FullyConnectedHead(4, 2, hidden=[3]), 3, None, 2),  # 3, 2
        (FullyConnectedHead(4, 2, hidden=[3]), 2, 2, 2),  # ends before the last batch
        (FullyConnectedHead(4, 2, hidden=[]), 2, None, 3),  # no batch norm
        (FullyConnectedHead(4, 2, hidden=[3]), 5, None, 1),
        (Pairs(), 2, None, 3),  # 4, 4, 2 rows
    ],
    ids=["two", "ends_before", "no_batch_norm", "one_batch", "views"],
)
def test_other_last_batches_train(
    network: nn.Module, batch_size: int, max_steps: int | None, steps: int
) -> None:
    trainer = trainer_of(network, 5, batch_size, max_steps)
    trainer.run()
    assert trainer.state.iteration == steps
    assert not any(module._forward_pre_hooks for module in network.modules())


def test_several_epochs_are_checked_once() -> None:
    network = Pairs()
    trainer = trainer_of(network, 5, 2, max_steps=6)
    hooks: list[int] = []
    trainer.add_event_handler(
        Events.ITERATION_STARTED,
        lambda: hooks.append(sum(len(module._forward_pre_hooks) for module in network.modules())),
    )
    trainer.run()
    assert hooks == [1, 0, 0, 0, 0, 0]
