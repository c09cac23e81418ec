"""Which of several processes this one is.

Once the processes have met (`torch.distributed.init_process_group`), `ignite.distributed` knows: its
`get_rank()`, `get_world_size()` and `barrier()` are used throughout, and work without a group, too. A
configuration is read, and its data looked at, before that. Who reports then is known from the environment
alone, where torchrun has put the rank.

The first such call after the processes have met exchanges host names and sizes between them, so that every
process has to make it: `training.session.begin`, which all of them run, is a good place.

A group is ended by `ignite.distributed.finalize()`: after `torch.distributed.destroy_process_group()` ignite
still asks the group that is gone.
"""

import os

import ignite.distributed as idist

__all__ = ["is_first", "launched_rank"]


def launched_rank() -> int | None:
    """The rank that torchrun gave this process; None where it was not started by torchrun."""
    rank = os.environ.get("RANK", "")
    return int(rank) if rank.isdigit() else None


def is_first() -> bool:
    """Whether this process does the reporting, also before the processes have met.

    Not for sharing work out: that needs the rank and the number of processes of one group, from
    `ignite.distributed`.
    """
    return (idist.get_rank() if idist.backend() else launched_rank() or 0) == 0
