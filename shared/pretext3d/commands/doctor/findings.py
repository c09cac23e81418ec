"""What the table of a pre-training and the record of its weights say, as sentences. Pure functions.

A figure counts as learned where it is at least a tenth of the way from what needs no learning to perfect:
below that, chance and a few held-out cases decide.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from pretext3d.data.normalisation import check_normalisation
from pretext3d.training.collapse import LEAST_SAMPLES, LEAST_STD, collapse
from pretext3d.training.preprocessing import differing_axes, in_mm

__all__ = ["EARLY", "FINAL", "LONGER", "SLOWER", "Finding", "beyond_air", "fits", "learning", "longer"]

FEW_STEPS = 100  # before which nothing can be expected to be learned
LEAST_LEARNED = 0.1  # of the way from chance to a perfect figure
STILL_FALLING = 0.02  # part by which the loss has to fall over the last quarter of a run
LEAST_IN_WINDOW = 0.1  # part of the voxels that are inside a window of intensities
DEFAULT = {"percentiles": [0.5, 99.5]}  # normalisation of every configuration

# the column that needs no learning, of accuracies that do not have `chance`
CHANCES = {
    "retrieval_accuracy": "retrieval_chance", "ordering_accuracy": "ordering_chance",
    "class_accuracy": "most_frequent_class", "orientation_accuracy": "",
}  # fmt: skip
# another pre-training: of more epochs, with a lower learning rate, or of enough epochs to be judged
LONGER, SLOWER, EARLY = "longer", "slower", "too early to tell"
PROBES = ("probe_knn_accuracy", "probe_dice")
FINAL = "checkpoints/final.pt"  # the weights of the last epoch, below the folder of a run


class Finding(NamedTuple):
    """One sentence.

    Attributes:
        state: good, wrong, or note: of what is no fault, or cannot be judged.
        text: The sentence.
        keys: Keys of a fine-tuning that take account of it.
        again: Kind of another pre-training that may correct it: longer, slower, too early to tell, or '' for
            none.
    """

    state: str
    text: str
    keys: Mapping[str, Any] = {}
    again: str = ""


def learning(table: pd.DataFrame, before: Mapping[str, float] | None = None) -> list[Finding]:
    """What a table of epochs says: the figures against chance, the probe, collapse, the length.

    Args:
        table: metrics.csv, one line per epoch.
        before: Figures of the probe before the first step, from the log.

    Examples:
        >>> learning(pd.DataFrame({"epoch": [1, 2], "rotation_accuracy": [0.1, 0.7], "chance": 0.1}))[0].text
        'learned: rotation_accuracy is 0.7 in epoch 2, without learning 0.1'
    """
    if "train_loss" in table and not math.isfinite(table["train_loss"].iloc[-1]):  # every epoch has one
        return [Finding("wrong", "train_loss is not finite in the last epoch", again=SLOWER)]
    return [*figures(table), *probed(table, before or {}), *collapsed(table), *length(table)]


def last(table: pd.DataFrame, name: str) -> tuple[float, int]:
    """The last figure of a column that is not empty, and its epoch; NaN and 0 without any."""
    found = table[table[name].notna()] if name in table else table[:0]
    if found.empty:
        return math.nan, 0
    return float(found[name].iloc[-1]), int(found["epoch"].iloc[-1])


def progress(table: pd.DataFrame, name: str) -> tuple[float, float]:
    """How far the last figure of a column is from one without learning to a perfect one, and the former.

    NaN where the column is no such figure, or has none.
    """
    value, _ = last(table, name)
    if name.startswith("relative_"):
        return 1 - value, 1.0
    if not name.endswith("accuracy") or name in PROBES:
        return math.nan, math.nan
    reference = last(table, CHANCES.get(name, "chance"))[0]
    return ((value - reference) / (1 - reference) if reference < 1 else math.nan), reference


def lowest_loss(table: pd.DataFrame) -> pd.DataFrame:
    """The line of the epoch that best.pt is of, that of the lowest val_loss; none without one."""
    losses = table["val_loss"].dropna() if "val_loss" in table else pd.Series(dtype=float)
    return table.loc[[losses.idxmin()]] if len(losses) else table[:0]


def figures(table: pd.DataFrame) -> list[Finding]:
    """Every accuracy with its chance, and every error relative to that of a prediction without learning.

    Of the last epoch, and, where best.pt is of another one that had not learned, of that.
    """
    found = []
    best = lowest_loss(table)
    for name in table:
        value, epoch = last(table, name)
        done, reference = progress(table, name)
        if math.isnan(done):
            continue
        if done >= LEAST_LEARNED > progress(best, name)[0]:
            then, at = last(best, name)
            text = f"best.pt, which fine-tuning takes, is of epoch {at}, of the lowest val_loss: {name} was"
            text += f" {then:.3g}, without learning {reference:.3g}. Take final.pt, of the last epoch"
            found.append(Finding("wrong", text, {"pretrained": FINAL}))
        steps = last(table, "step")[0]
        state, word, again = "good", "learned", ""
        if done < LEAST_LEARNED:
            early = steps < FEW_STEPS
            state, word, again = ("note", EARLY, EARLY) if early else ("wrong", "not learned", LONGER)
        text = f"{word}: {name} is {value:.3g} in epoch {epoch}, without learning {reference:.3g}"
        found.append(Finding(state, text + f"; {steps:.0f} steps" * (again == EARLY), again=again))
    if not found:
        found.append(Finding("note", "no figure with its chance or baseline: only the loss shows learning"))
    return found


def probed(table: pd.DataFrame, before: Mapping[str, float]) -> list[Finding]:
    """The probe's figure against that of the initial weights, and against its own best one."""
    found = []
    for name in PROBES:
        value, epoch = last(table, name)
        if math.isnan(value):
            continue
        best = float(table[name].max())
        at = int(table.loc[table[name].idxmax(), "epoch"])
        start = before.get(name)
        rise = "" if start is None else f", with the initial weights {start:.3g}"
        better = start is None or value > start
        text = f"{name} of the frozen features is {value:.3g} in epoch {epoch}{rise}"
        found.append(Finding("good" if better else "note", text if better else f"{text}: no gain"))
        if best > value and at < epoch:
            found.append(
                Finding("note", f"{name} was {best:.3g} in epoch {at}: later epochs did not help it")
            )
    return found


def beyond_air(
    table: pd.DataFrame, name: str, value: float, text: str, given: str = "air and mean intensities"
) -> Finding:
    """A figure against what air and intensities alone reach, see `doctor.anatomy`.

    Args:
        table: metrics.csv, one line per epoch.
        name: Name of the figure.
        value: What is reached without anatomy, from 0 to 1.
        text: How, in words.
        given: From what, in words.

    Examples:
        >>> table = pd.DataFrame({"epoch": [1], "accuracy": [0.7]})
        >>> beyond_air(table, "accuracy", 0.4, "a linear model: 40 %").state
        'good'
    """
    reached, epoch = last(table, name)
    if math.isnan(reached):
        return Finding("note", f"{name} was not measured; without anatomy, {text}")
    found = f"{name} is {reached:.3g} in epoch {epoch}; without anatomy, from {given}, {text}"
    if reached - value >= LEAST_LEARNED * (1 - value):
        return Finding("good", f"beyond air and intensities: {found}")
    return Finding("wrong", f"no more than air and intensities: {found}", again=LONGER)


def collapsed(table: pd.DataFrame) -> list[Finding]:
    """Whether the features of the last two validations are the same, or vary along one direction.

    As in training, one validation is no proof, nor are two between which the features have spread: those of
    an untrained network are nearly equal.
    """
    measured = table[table["feature_std"].notna()] if "feature_std" in table else table[:0]
    faults, before = [], None
    for row in measured.tail(3).to_dict("records"):
        std, rank = row["feature_std"], row.get("effective_rank", math.nan)
        faults.append(collapse(std, None if math.isnan(rank) else rank, LEAST_SAMPLES, before))
        before = std
    if not faults:
        return []
    if len(faults) > 1 and all(faults[-2:]):
        return [Finding("wrong", faults[-1], again=SLOWER)]
    if faults[-1]:
        return [Finding("note", f"{faults[-1]}, in the last validation alone: go on, and look again")]
    if std < LEAST_STD:
        text = f"features differ more than before, but little: feature_std {std:.2g}: go on, and look again"
        return [Finding("note", text)]
    return [Finding("good", f"features differ: feature_std {std:.3g}, effective_rank {rank:.3g}")]


def length(table: pd.DataFrame) -> list[Finding]:
    """Whether the validation loss was still falling, or has risen again."""
    losses = table[["epoch", "val_loss"]].dropna() if "val_loss" in table else table[:0]
    if len(losses) < 4:
        return []
    quarter = len(losses) - max(1, len(losses) // 4)
    before, after = losses["val_loss"][:quarter].min(), losses["val_loss"][quarter:].min()
    best = int(lowest_loss(table)["epoch"].iloc[0])
    if before - after > STILL_FALLING * abs(before):
        text = f"val_loss still fell in the last quarter, from {before:.3g} to {after:.3g}"
        return [Finding("note", f"{text}: a longer run may gain", again=LONGER)]
    return [Finding("note", f"val_loss was lowest in epoch {best}: that epoch is best.pt")]


def fits(
    record: Mapping[str, Any],
    channels: int,
    spacing: Sequence[float],
    inside: float | None = None,
) -> list[Finding]:
    """Whether labelled images are like those that weights were trained on: channels, spacing, intensities.

    Args:
        record: Record of the weights.
        channels: Number of channels of the labelled images.
        spacing: Spacing that the fine-tuning has without further keys, mm along each axis; empty = that of
            each file.
        inside: Part of their voxels within the record's window; None = it has none.

    Examples:
        >>> [one.keys for one in fits({"channels": 1, "pixdim": [1.0, 1.0, 1.0]}, 1, [1.0, 1.0, 3.0])][1]
        {'pixdim': 'pretrained'}
    """
    found = []
    trained, wanted = record.get("channels"), record.get("channel_indices")
    if trained == channels:
        found.append(Finding("good", f"channels: {channels}, as in pre-training"))
    else:
        choice = {"channels": list(wanted)} if wanted and max(wanted) < channels else {}
        rest = "" if choice else ": the first convolution is adapted, which loses a part of what it knows"
        found.append(Finding("wrong", f"channels: found {channels}, trained on {trained}{rest}", choice))
    there = list(record.get("pixdim") or [])
    axes = differing_axes(there, spacing)
    here = f"{in_mm(spacing)} mm" if spacing else "the spacing of each file"
    text = f"spacing: the fine-tuning has {here}, trained at {in_mm(there)} mm"
    if not there:
        text = "spacing: trained at that of each file, or on a body of one size; nothing to compare"
        found.append(Finding("note", f"{text}. The fine-tuning has {here}"))
    elif not spacing:
        found.append(Finding("note", f"{text}: --pixdim pretrained takes that one", {"pixdim": "pretrained"}))
    elif axes:  # no fault of the data: the key takes account of it
        text = f"{text}: other along {', '.join(axes)}; --pixdim pretrained takes that one"
        found.append(Finding("note", text, {"pixdim": "pretrained"}))
    else:
        found.append(Finding("good", text))
    given = record.get("normalisation") or DEFAULT
    keys = {} if given == DEFAULT else {"normalisation": given}
    if inside is not None:
        low, high = check_normalisation(given)[1:]
        text = f"intensities: {inside:.0%} of the voxels are within the weights' window, {low:g} to {high:g}"
        state = "good" if inside >= LEAST_IN_WINDOW else "wrong"
        found.append(Finding(state, text, keys if state == "good" else {}))
    else:
        found.append(Finding("good", f"intensities: scaled by {next(iter(given))}, image by image", keys))
    return found


def longer(table: pd.DataFrame) -> int:
    """The epochs of a longer run: twice as many, and enough for FEW_STEPS.

    Examples:
        >>> longer(pd.DataFrame({"epoch": [1, 2], "step": [100, 200]}))
        4
        >>> longer(pd.DataFrame({"epoch": [1], "step": [22]}))
        5
    """
    epochs = int(table["epoch"].max())
    per_epoch = last(table, "step")[0] / epochs
    return 2 * epochs if math.isnan(per_epoch) else max(2 * epochs, math.ceil(FEW_STEPS / per_epoch))
