"""The learning rate over the steps of a run: linear warmup, cosine decay, and a first stage of its own."""

from typing import Any

import torch
from monai.optimizers import WarmupCosineSchedule

from pretext3d.checking import integer, is_integer, is_number, number
from pretext3d.errors import UserError

__all__ = ["WarmupCosine", "check_schedule", "warmup_cosine"]


def check_schedule(warmup: Any = 0, final_lr_factor: Any = 0.0, encoder_start: Any = 0) -> None:
    """Check the values of a schedule, see `warmup_cosine`.

    Raises:
        UserError: names the key.

    Examples:
        >>> check_schedule(warmup=-1)
        Traceback (most recent call last):
        pretext3d.errors.UserError: warmup: found -1, expected a share from 0.0 to 1.0 or a number of steps
    """
    for key, value in (("warmup", warmup), ("encoder_start", encoder_start)):
        if not is_number(value) or value < 0 or (value > 1 and not is_integer(value)):
            raise UserError(f"{key}: found {value!r}, expected a share from 0.0 to 1.0 or a number of steps")
    number("final_lr_factor", final_lr_factor, 0, 1, expected="a number from 0 to 1")


class WarmupCosine(WarmupCosineSchedule):
    """MONAI's linear warmup and cosine decay, ending at the same share of each group's own rate.

    MONAI's `end_lr` is one number for all groups: a group at a tenth of the rate, or at 0, would also end
    there. See `warmup_cosine`.

    Attributes:
        encoder_start: Number of steps of the first stage; `freezing.FreezeEncoder` reads it.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        steps: int,
        warmup_steps: int,
        final_lr_factor: float,
        encoder_start: int = 0,
    ) -> None:
        self.final_lr_factor, self.encoder_start, self.steps = final_lr_factor, encoder_start, steps
        super().__init__(optimizer, warmup_steps=warmup_steps, t_total=steps - encoder_start)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state; a longer run has a longer decay behind the first stage that it had."""
        super().load_state_dict(state_dict)
        self.t_total = self.steps - self.encoder_start

    def factor(self, step: int) -> float:
        """The factor of a step, before final_lr_factor."""
        if step < self.encoder_start:
            return step / self.encoder_start
        return float(self.lr_lambda(step - self.encoder_start))

    def get_lr(self) -> list[float]:
        """One rate per parameter group."""
        factor = self.factor(self.last_epoch)
        if self.last_epoch < self.encoder_start + self.warmup_steps:
            return [base * factor for base in self.base_lrs]
        return [max(base * self.final_lr_factor, base * factor) for base in self.base_lrs]


def warmup_cosine(
    optimizer: torch.optim.Optimizer,
    steps: int,
    warmup: float = 0,
    final_lr_factor: float = 0.0,
    encoder_start: float = 0,
) -> WarmupCosine:
    """A learning-rate schedule that is stepped once per iteration.

    With E first and W warmup steps of S, the factor of step s is s / E for s < E, then (s - E) / W for
    s < E + W, then the larger of final_lr_factor and (1 + cos(pi (s - E - W) / (S - E - W))) / 2. Each
    group's rate is its own initial one times the factor.

    Args:
        optimizer: Optimizer whose groups have the initial rates.
        steps: Number of steps S of the run.
        warmup: Fraction of the steps, 0.0 to 1.0, or their number W as an integer.
        final_lr_factor: Smallest factor after the warmup, 0 to 1; 1 = constant.
        encoder_start: Fraction of the steps, or their number E, before a transferred encoder is trained.

    Raises:
        UserError: a value of the wrong type or out of range, or more first and warmup steps than there are.

    Examples:
        >>> optimizer = torch.optim.SGD([{"params": [torch.nn.Parameter(torch.ones(1))], "lr": 0.5}])
        >>> [round(warmup_cosine(optimizer, 4, 1, 0.1).factor(step), 2) for step in range(5)]
        [0.0, 1.0, 0.75, 0.25, 0.0]
        >>> [round(warmup_cosine(optimizer, 8, 2, 0.1, 2).factor(step), 2) for step in range(9)]
        [0.0, 0.5, 0.0, 0.5, 1.0, 0.85, 0.5, 0.15, 0.0]
    """
    integer("steps", steps, minimum=1, expected="an integer from 1")
    check_schedule(warmup, final_lr_factor, encoder_start)
    warmup_steps, first = (int(x) if is_integer(x) else int(x * steps) for x in (warmup, encoder_start))
    if first + warmup_steps > steps:
        raise UserError(
            f"warmup, encoder_start: found {warmup_steps} and {first} of {steps} steps, expected no more "
            "than all of them; 1 is one step, 1.0 is all"
        )
    return WarmupCosine(optimizer, steps, warmup_steps, final_lr_factor, first)
