"""The last batch of an epoch, where it is smaller than the others: is it enough for batch norm?

Batch norm has no statistics of one value per channel. An epoch of n samples ends with a batch of n modulo the
batch size, which would end a run after most of an epoch's work.
"""

from collections.abc import Sized
from typing import Any, cast

from ignite.engine import Engine, Events
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader

from pretext3d.errors import UserError

__all__ = ["check_last_batch", "last_batch_size"]


def last_batch_size(loader: Any) -> int:
    """Number of samples of an epoch's last batch; 0 where the loader does not tell.

    Examples:
        >>> [last_batch_size(DataLoader(range(n), batch_size=4)) for n in (8, 9, 3)]
        [4, 1, 3]
    """
    if not isinstance(loader, DataLoader) or not loader.batch_size or loader.drop_last:
        return 0
    try:
        count = len(cast(Sized, loader.sampler))
    except TypeError:
        return 0
    return count % loader.batch_size or min(count, loader.batch_size)


def check_last_batch(engine: Engine) -> None:
    """Check within a run's first step whether its network can take the last batch, too.

    Called when a trainer starts. The values per channel that each batch norm has of the first batch show how
    many it has of a sample: several where a sample has voxels, patches or views.

    Args:
        engine: Trainer, with `network`.

    Raises:
        UserError: in the first step, if a batch norm that trains has one value per channel of the last batch.
    """
    loader, network = engine.state.dataloader, getattr(engine, "network", None)
    last = last_batch_size(loader)
    if not last or not isinstance(network, nn.Module):
        return
    samples, size = len(loader.sampler), loader.batch_size
    first = min(samples, size)

    def check(module: nn.Module, given: tuple[Any, ...]) -> None:
        values = given[0].numel() // given[0].shape[1]
        if module.training and values * last < 2 * first:
            raise UserError(
                f"batch_size: found {size} with {samples} samples in an epoch, whose last batch then has "
                f"{last}: too few for the network's batch norm, which needs 2 values per channel; expected "
                "another batch_size, or a number for steps_per_epoch"
            )

    layers = [
        m for m in network.modules() if isinstance(m, _BatchNorm) and not isinstance(m, nn.SyncBatchNorm)
    ]
    hooks = [layer.register_forward_pre_hook(check) for layer in layers]

    def end() -> None:
        for hook in hooks:
            hook.remove()
        after.remove()

    after = engine.add_event_handler(Events.ITERATION_COMPLETED, end)
