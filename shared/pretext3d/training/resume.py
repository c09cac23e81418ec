"""What a checkpoint has to hold so that a run can be resumed from it: its settings, states of its kind."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from pretext3d.checking import brief, is_number
from pretext3d.errors import UserError

__all__ = ["check_moments", "check_optimizer_settings", "check_same_settings", "schedule_state"]

BACKBONE_RATE = "backbone_learning_rate"
# the length of a learning-rate schedule is taken from the current configuration, not from the checkpoint
HORIZON = ("steps", "total_steps", "_schedule_phases", "t_total", "T_max", "total_iters")


def check_same_settings(path: Path, content: Mapping[str, Any], parts: Mapping[str, Any]) -> None:
    """Refuse to resume with another learning rate, weight decay, ...: the run's own would be restored.

    Raises:
        UserError: listing each difference.
    """
    there, here = _settings(content), _settings({n: p and p.state_dict() for n, p in parts.items()})
    if BACKBONE_RATE in {*there, *here}:  # without its own group the backbone is trained at learning_rate
        for found in (there, here):
            found.setdefault(BACKBONE_RATE, found.get("learning_rate"))
    differ = [f"{k} is {there[k]} there, {here[k]} here" for k in here if k in there and there[k] != here[k]]
    if differ:
        raise UserError(f"{path}: a run is resumed with its own settings: {'; '.join(differ)}")


def _settings(states: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of an optimizer and of a schedule that no step changes, under the user's key names."""
    found: dict[str, Any] = {}
    names = {"initial_lr": "learning_rate", "weight_decay": "weight_decay"}
    for index, group in enumerate((states.get("optimizer") or {}).get("param_groups", ())):
        if group.get("name") == "backbone" and "initial_lr" in group:  # see `recipes.parameter_groups`
            found[BACKBONE_RATE] = group["initial_lr"]
            continue
        here = f" of parameter group {index}" if index else ""
        found |= {name + here: group[key] for key, name in names.items() if key in group}
    schedule = states.get("lr_scheduler") or {}
    if "final_lr_factor" in schedule:  # `schedules.warmup_cosine`
        found["final_lr_factor"] = round(schedule["final_lr_factor"], 9)
    elif "end_lr" in schedule:
        found["final_lr_factor"] = round(schedule["end_lr"] / (found.get("learning_rate") or 1.0), 9)
    return found


def schedule_state(path: Path, stored: Mapping[str, Any], current: Mapping[str, Any]) -> dict[str, Any]:
    """The state of a schedule to go on from: the checkpoint's entries that this schedule has.

    torch's schedules take whatever entries they are given as their attributes.

    Raises:
        UserError: an entry of another type.
    """
    found = {key: stored[key] for key in current if key in stored and key not in HORIZON}
    for key, value in found.items():
        if is_number(current[key]) != is_number(value):
            raise UserError(
                f"{path}: lr_scheduler.{key}: found {brief(value)}, expected a value such as {current[key]!r}"
            )
    return {**current, **found}


def check_optimizer_settings(path: Path, state: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> None:
    """Make sure that an optimizer's stored state is one, with settings of its own types.

    Raises:
        UserError: another structure, or a setting of another type.
    """
    groups, moments = state.get("param_groups"), state.get("state")
    listed = isinstance(groups, Sequence) and all(map(_is_mapping, groups))
    if not listed or not isinstance(moments, Mapping) or not all(map(_is_mapping, moments.values())):
        raise UserError(f"{path}: optimizer: found {brief(dict(state))}, expected an optimizer's state")
    for index, (there, own) in enumerate(zip(groups, optimizer.param_groups, strict=False)):  # type: ignore[arg-type]
        for key in own:
            if key != "params" and key in there and is_number(own[key]) != is_number(there[key]):
                raise UserError(
                    f"{path}: optimizer.param_groups[{index}].{key}: found {brief(there[key])}, "
                    f"expected a value such as {own[key]!r}"
                )


def check_moments(path: Path, state: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> None:
    """Make sure that each tensor of an optimizer's stored state has its parameter's shape, or none.

    Raises:
        UserError: names the tensor.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, moments in state["state"].items():
        for key, value in moments.items() if index in range(len(parameters)) else ():
            shape = getattr(value, "shape", ())
            if shape and shape != parameters[index].shape:
                raise UserError(
                    f"{path}: optimizer.state[{index}].{key}: found shape {list(shape)}, expected "
                    f"{list(parameters[index].shape)}, its parameter's"
                )


def _is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping)
