"""Cases for losses whose negatives are images of other subjects."""

import logging
from collections.abc import Sequence

from pretext3d.data.subjects import Case, by_subject, interleaved
from pretext3d.errors import UserError

__all__ = ["held_out_cases", "training_cases"]

logger = logging.getLogger(__name__)


def training_cases(cases: Sequence[Case], negatives: str = "batch", batch_size: int = 2) -> list[Case]:
    """The training cases, if there can be negatives among them.

    Args:
        cases: Training cases.
        negatives: Source of negatives: `batch` or `dataset`, of other subjects; `image`, parts of the same
            image, which any cases have.
        batch_size: Number of samples in a batch.

    Raises:
        UserError: negatives of other subjects where all cases are of one; negatives from batches of one
            sample.
    """
    if negatives == "image":
        return list(cases)
    if len(by_subject(cases)) < 2:
        raise UserError(
            f"dataset_dir: found {len(cases)} training case{'s' * (len(cases) != 1)} of one subject, after "
            "the held-out ones were taken; expected two training subjects or more, since a negative is an "
            "image of another subject: add data, lower --val_fraction or --test_fraction, or correct "
            "--subjects"
        )
    if negatives == "batch" and batch_size < 2:
        raise UserError(
            f"batch_size: found {batch_size} with negatives: batch, expected 2 or more, or another "
            "--negatives"
        )
    return list(cases)


def held_out_cases(cases: Sequence[Case], negatives: str = "batch") -> list[Case]:
    """The held-out cases, subjects in turn: batches have negatives as long as two subjects are left.

    Where one subject has more cases than all others, the last batches are its own and have no negatives of
    other subjects, the same in every epoch. Cases of one subject alone give a warning.

    Args:
        cases: Held-out cases.
        negatives: Source of negatives, as in `training_cases`; with `image` the order is left as it is.
    """
    if negatives == "image":
        return list(cases)
    if cases and len(by_subject(cases)) < 2:
        logger.warning(
            "val_fraction: the held-out cases are of one subject, expected two or more: the validation loss, "
            "which chooses best.pt, then has no negatives of other subjects"
        )
    return interleaved(cases)
