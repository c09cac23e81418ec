"""The schema of a checkpoint: which values a file may bring into a run.

A checkpoint may come from anyone. Its values choose the network, the preprocessing and the split of a run,
and are written into promoted bundles: each one that is read anywhere has its type and range here, and is
checked when the file is read. A new entry of a record is one line in RECORD.

Entries that are not listed, as another version of the package may write them, are no fault: they stay in what
`load_checkpoint` returns, and `known_entries` leaves them out of what configurations receive.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch

from pretext3d.checking import brief, is_integer, is_number
from pretext3d.data.labels import LabelMap
from pretext3d.data.normalisation import check_normalisation
from pretext3d.errors import UserError
from pretext3d.literals import is_literal

__all__ = ["Record", "check_checkpoint", "check_finite", "check_record", "check_tensors", "known_entries"]

MAX_COUNT = 2**16  # channels, classes, features of a network
MAX_WINDOW = 2**27  # voxels of a crop: 512 cubed
MAX_TEXT = 255  # characters
MAX_SPACING = 10_000  # mm
DTYPES = {
    torch.float16, torch.bfloat16, torch.float32, torch.float64,
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
}  # fmt: skip
RECIPE = re.compile(r"[a-z_]+ [\w.+-]+(, [a-z_]+ [\w.+-]+)*")
WORD = re.compile(r"[A-Za-z_]\w{0,63}", re.ASCII)
LABEL = re.compile(r"[\w.+-]{1,64}", re.ASCII)
DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)
DIGEST = re.compile(r"[0-9a-f]{1,64}")


class Entry(NamedTuple):
    """One value: what is expected, in words, and whether a value is that."""

    expected: str
    valid: Callable[[Any], bool]


Table = Mapping[str, "Entry | Table"]


def integer(low: int = 0, high: int = 2**63 - 1) -> Entry:
    """An integer from `low` to `high`."""
    top = f" to {high:,}" if high < 2**32 else ""
    return Entry(f"an integer from {low}{top}", lambda v: is_integer(v) and low <= v <= high)


def fraction() -> Entry:
    """A number in [0, 1)."""
    return Entry("a number in [0, 1)", lambda v: is_number(v) and 0 <= v < 1)


def text(pattern: re.Pattern[str] | None = None, expected: str = "text") -> Entry:
    """Text of at most 255 characters that matches a pattern."""

    def valid(value: Any) -> bool:
        short = isinstance(value, str) and len(value) <= MAX_TEXT
        return short and (pattern is None or pattern.fullmatch(value) is not None)

    return Entry(f"{expected} of at most {MAX_TEXT} characters", valid)


def listed(entry: Entry, low: int = 0, high: int = 2**24) -> Entry:
    """A list of `low` to `high` values, each of which is valid for `entry`."""
    count = f"{low} to {high}" if high < 2**16 else f"{low} or more"

    def valid(value: Any) -> bool:
        return isinstance(value, list | tuple) and low <= len(value) <= high and all(map(entry.valid, value))

    return Entry(f"a list of {count} values, each {entry.expected}", valid)


def either(*entries: Entry, null: bool = False) -> Entry:
    """What is valid for one of some entries; with `null` also None."""
    names = [entry.expected for entry in entries] + ["null"] * null
    return Entry(
        ", or ".join(names), lambda v: (null and v is None) or any(entry.valid(v) for entry in entries)
    )


def spacing() -> Entry:
    """The edge of a voxel in mm."""
    return Entry(
        f"a number of mm, above 0 and up to {MAX_SPACING:,}", lambda v: is_number(v) and 0 < v <= MAX_SPACING
    )


def is_window(value: Any) -> bool:
    """Whether a value is the size of a crop along two or three axes."""
    sizes = isinstance(value, list | tuple) and 2 <= len(value) <= 3
    return sizes and all(is_integer(n) and n > 0 for n in value) and math.prod(value) <= MAX_WINDOW


def is_normalisation(value: Any) -> bool:
    """Whether `ScaleToUnitd` takes a value."""
    try:
        check_normalisation(value)
    except UserError:
        return False
    return True


def is_label_map(value: Any) -> bool:
    """Whether a value is a `LabelMap` in plain form."""
    try:
        LabelMap.of(value)
    except UserError:
        return False
    return True


def is_option(value: Any, depth: int = 3) -> bool:
    """Whether a value may be an argument of an encoder: a number, a word, or lists of these."""
    if isinstance(value, list | tuple):
        return depth > 0 and len(value) <= 64 and all(is_option(v, depth - 1) for v in value)
    if value is None or isinstance(value, bool):
        return True
    if isinstance(value, str):
        return WORD.fullmatch(value) is not None
    return is_number(value) and abs(value) <= MAX_COUNT


def are_options(value: Any) -> bool:
    """Whether a value is the mapping of an encoder's further arguments."""
    words = isinstance(value, dict) and all(isinstance(k, str) and WORD.fullmatch(k) for k in value)
    return (
        words
        and is_literal(dict.fromkeys(value))
        and len(value) <= 64
        and all(map(is_option, value.values()))
    )


def are_slices(value: Any) -> bool:
    """Whether a value says which slices of a volume are taken."""
    known = (
        isinstance(value, dict) and set(value) <= {"axis", "every"} and all(map(is_integer, value.values()))
    )
    return known and value.get("axis", 2) in (0, 1, 2) and value.get("every", 1) >= 1


WINDOW = Entry(f"two or three integers from 1, of {MAX_WINDOW:,} voxels at most together", is_window)
DIGESTS = listed(text(DIGEST, "a hexadecimal number"))
COUNT = integer(1, MAX_COUNT)
SUFFIX = text(re.compile("[A-Za-z0-9]+"), "a BIDS suffix")

BACKBONE: Table = {
    "encoder": text(DOTTED, "the name of an encoder"),
    "in_channels": COUNT,
    "spatial_dims": Entry("2 or 3", lambda v: is_integer(v) and v in (2, 3)),
    "roi_size": WINDOW,
    "options": Entry("names with numbers, words or lists of these", are_options),
    "untrained": listed(text(DOTTED, "the name of a submodule"), high=64),
}
RECORD: Table = {
    "method": text(LABEL, "a method's name"),
    "arm": text(LABEL, "an arm's name"),
    "bundle": text(),
    "backbone": BACKBONE,
    "decoder": either(text(re.compile(""), "''"), text(WORD, "a decoder's name")),
    "channels": COUNT,
    "channel_indices": either(integer(0, MAX_COUNT), listed(integer(0, MAX_COUNT), 1, MAX_COUNT), null=True),
    "modalities": either(SUFFIX, listed(SUFFIX, high=64), null=True),
    "slices": either(Entry("{axis: 0, 1 or 2, every: 1 or more}", are_slices), null=True),
    "frames": either(
        Entry("first, mean or channels", lambda v: v in ("first", "mean", "channels")),
        listed(integer(0, MAX_COUNT), 1, MAX_COUNT),
        null=True,
    ),
    "pixdim": either(listed(spacing(), 0, 3), null=True),
    "normalisation": Entry(
        "{percentiles: [0.5, 99.5]}, {window: ...} or {mean_maximum: ...}", is_normalisation
    ),
    "precision": Entry("bf16 or fp32", lambda v: v in ("bf16", "fp32")),
    "seed": either(integer(), null=True),
    "roi_size": WINDOW,
    "num_classes": integer(0, MAX_COUNT),  # 0: of a training without labels
    "class_names": listed(text(), 0, MAX_COUNT),
    "ordered_classes": either(
        Entry("False", lambda v: v is False), listed(either(text(), integer(-(2**63))), 2, MAX_COUNT)
    ),
    "labels": Entry("the label values of the classes, or regions of them", is_label_map),
    "split": {
        "val_fraction": fraction(),
        "test_fraction": fraction(),
        "split_seed": integer(-(2**63)),
        "fold": either(integer(), null=True),
        "val": DIGESTS,
    },
    "freeze_encoder_epochs": integer(),
    "recipe": text(RECIPE, "entries of a recipe, as warmup 0.1, rescale True"),
    "data": {"name": text(), "train": DIGESTS, "pretrained": text()},
}
STATE = either(Entry("a state dictionary", lambda v: isinstance(v, dict)), null=True)
CHECKPOINT: Table = {
    "record": RECORD,
    "network": Entry("tensors by name", lambda v: isinstance(v, dict)),
    "epoch": integer(),
    "iteration": integer(),
    "ended_early": Entry("True", lambda v: v is True),
    "best_metric": either(Entry("a finite number", lambda v: is_number(v) and abs(v) < 2**63), null=True),
    "best_epoch": either(integer(), null=True),
    "optimizer": STATE,
    "lr_scheduler": STATE,
    "scaler": STATE,
    "rng": STATE,
}


class Record(dict[str, Any]):
    """A record whose entries, where a run needs one that is not there, are missed by name.

    Args:
        entries: Entries of the record, or of a part of it.
        where: Name of the file, and of the part, for messages.
    """

    def __init__(self, entries: Mapping[str, Any], where: str) -> None:
        super().__init__(entries)
        self.where = where

    def __missing__(self, key: str) -> Any:
        raise UserError(
            f"{self.where}: found no {key}, expected a record with it; {key} is written by a training with "
            "this version"
        )


def check_checkpoint(content: Mapping[str, Any], where: str) -> None:
    """Make sure that every known value of a checkpoint has a type and range that a run can use.

    Args:
        content: Content of the file, with a record and a network.
        where: Name of the file, for messages.

    Raises:
        UserError: names the file and the key, what was found and what was expected.

    Examples:
        >>> check_checkpoint({"record": {"split": {"val_fraction": "$1"}}, "network": {}}, "x.pt")
        Traceback (most recent call last):
        pretext3d.errors.UserError: x.pt: record.split.val_fraction: found '$1', expected a number in [0, 1)
    """
    check_record(content["record"], where)
    _check_table(content, CHECKPOINT, where, "")
    check_tensors(content["network"], f"{where}: network")


def check_record(record: Mapping[str, Any], where: str) -> None:
    """Make sure that every known entry of a record, and those that have to agree, are as a run writes them.

    A run checks its own record before it begins, so that it writes no checkpoint that cannot be read.

    Raises:
        UserError: names the file and the key, what was found and what was expected.
    """
    _check_table(record, RECORD, where, "record")
    _check_agreement(record, where)


def _check_table(content: Any, table: Table, where: str, name: str) -> None:
    """Check a table of a record, with those inside it: each key has the type that it must have."""
    if not isinstance(content, dict):
        raise UserError(f"{where}: {name}: found {brief(content)}, expected entries by name")
    for key, entry in table.items():
        place = f"{name}.{key}" if name else key
        if key in content and not isinstance(entry, Entry):
            _check_table(content[key], entry, where, place)
        elif key in content and not entry.valid(content[key]):  # type: ignore[union-attr]
            found, expected = brief(content[key]), entry.expected  # type: ignore[union-attr]
            raise UserError(f"{where}: {place}: found {found}, expected {expected}")


def _check_agreement(record: Mapping[str, Any], where: str) -> None:
    """Values that have to agree with each other."""
    dims = record.get("backbone", {}).get("spatial_dims")
    for key, sizes in (("roi_size", record), ("backbone.roi_size", record.get("backbone", {}))):
        found = sizes.get("roi_size", ())
        if dims and found and len(found) != dims:
            raise UserError(f"{where}: record.{key}: found {list(found)}, expected {dims} sizes")
    names, classes = record.get("class_names"), record.get("num_classes")
    if names is not None and classes is not None and len(names) != classes:
        raise UserError(
            f"{where}: record.class_names: found {len(names)}, expected {classes}, as num_classes"
        )
    twice = [name for name, count in Counter(names or ()).items() if count > 1]
    if twice:
        raise UserError(
            f"{where}: record.class_names: found {brief(twice[0])} twice, expected different names"
        )
    labels = record.get("labels")
    outputs = None if labels is None or classes is None else LabelMap.of(labels).channels
    if outputs not in (None, classes):
        raise UserError(
            f"{where}: record.labels: found those of {outputs} outputs, expected {classes}, as num_classes"
        )


def known_entries(record: Mapping[str, Any], where: str, table: Table = RECORD) -> Record:
    """The entries of a record that the schema lists, nested ones too.

    Args:
        record: Record, checked.
        where: Name of the file, for messages.
        table: Part of the schema.

    Examples:
        >>> known_entries({"method": "cpc", "from_the_future": 1, "data": {"name": "a", "more": 2}}, "x.pt")
        {'method': 'cpc', 'data': {'name': 'a'}}
    """
    found: dict[str, Any] = {}
    for key, value in record.items():
        entry = table.get(key)
        if isinstance(entry, Entry):
            found[key] = value
        elif entry is not None:
            found[key] = known_entries(value, f"{where}: record.{key}", entry)
    return Record(found, where if table is not RECORD else f"{where}: record")


def check_tensors(tensors: Mapping[Any, Any], where: str) -> None:
    """Make sure that a state dict holds plain tensors that the file really contains.

    A tensor whose strides repeat its values claims more memory, once it is copied, than its file has.

    Raises:
        UserError: names the tensor.
    """
    for name, value in tensors.items():
        if not isinstance(name, str):
            raise UserError(f"{where}: found the key {brief(name)}, expected names of tensors")
        if not isinstance(value, torch.Tensor):
            raise UserError(f"{where}.{name}: found {brief(value)}, expected a tensor")
        dense = value.layout == torch.strided and value.device.type == "cpu"
        if not dense or value.dtype not in DTYPES:
            raise UserError(
                f"{where}.{name}: found a {value.layout} tensor on {value.device} of {value.dtype}, expected "
                "a dense one of real numbers"
            )
        size, stored = value.numel() * value.element_size(), value.untyped_storage().nbytes()
        if size > stored:
            raise UserError(
                f"{where}.{name}: found shape {list(value.shape)}, {size:,} bytes, of which the file has "
                f"{stored:,}; expected all of them"
            )


def check_finite(tensors: Mapping[str, torch.Tensor], where: str) -> None:
    """Make sure that weights are finite.

    Raises:
        UserError: names the first tensor with NaN or infinity.
    """
    for name, value in tensors.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            count = int((~torch.isfinite(value)).sum())
            raise UserError(
                f"{where}: tensor {name}: found {count:,} of {value.numel():,} values that are NaN or "
                "infinite, expected finite weights"
            )
