"""The rank of this process.

Once the processes have met (`torch.distributed.init_process_group`), `ignite.distributed` knows: its
`get_rank()`, `get_world_size()` and `barrier()` are used throughout, and also work without a group. A
configuration is read, and its data checked, before that. Which process reports is then known only from the
environment, where torchrun has set the rank.

The first such call after the processes have met exchanges host names and sizes between them, so every
process has to make it: `training.session.begin`, which all of them run, is a good place.

A group is ended by `ignite.distributed.finalize()`: after `torch.distributed.destroy_process_group()` ignite
still uses the group that no longer exists.
"""

import os

import ignite.distributed as idist

__all__ = ["is_first", "launched_rank"]


def launched_rank() -> int | None:
    """The rank that torchrun assigned to this process; None where torchrun did not start it."""
    rank = os.environ.get("RANK", "")
    return int(rank) if rank.isdigit() else None


def is_first() -> bool:
    """Whether this process does the reporting, also before the processes have met.

    Not for dividing work: that needs the rank and the number of processes of one group, from
    `ignite.distributed`.
    """
    return (idist.get_rank() if idist.backend() else launched_rank() or 0) == 0
