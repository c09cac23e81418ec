"""Checks of cases: which can be trained on, and the named reasons why the others cannot."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from pretext3d.checking import is_integer
from pretext3d.data.faults import (
    EMPTY,
    GEOMETRY,
    INF,
    MISSING,
    NAN,
    SINGLE_ROW,
    SINGLE_SLICE,
    UNREADABLE,
)
from pretext3d.data.labels import MAX_CLASSES
from pretext3d.data.reader import Frames
from pretext3d.data.scan import corner_distance
from pretext3d.data.slices import Slices, plane_axis
from pretext3d.data.volumes import VerdictCache, VolumeFacts
from pretext3d.errors import UserError
from pretext3d.progress import Bar
from pretext3d.ranks import is_first

__all__ = ["CheckResult", "as_channels", "check_cases", "of_any_size", "report_bad"]

logger = logging.getLogger(__name__)

Case = dict[str, Any]

CHANNELS = "wrong number of channels"
MODALITY = "missing modality"
CHANNEL_SHAPE = "channels of different shapes"
VOLUME = "volume"
USE_SLICES = "--slices \"{'axis': 2, 'every': 1}\""
NOT_A_SLICE = f"not a single slice; {USE_SLICES} uses its slices"
SLICE = "no such slice"
NO_LABEL = "no label"
LABEL_SHAPE = "label shape"
LABEL_GEOMETRY = "label geometry"
LABEL_VALUES = "label values"

HALF_A_VOXEL = 0.501  # along an axis, with the rounding error of float32


class CheckResult(NamedTuple):
    """What the checks found.

    Attributes:
        good: Cases that can be trained on, in the order given.
        bad: Remaining cases, each with its reason, "name: detail".
        shapes: Shape of each good case by id, voxels along the world axes x y z (after reorientation to
            RAS); in 2D along the plane's two axes.
        spacings: Spacing of each good case by id, mm along the same axes.
        channels: Number of channels that a good case gives the network.
        values: Values in the label of each good case by id; only where labels were requested.
        names: Names of label values that the label files state.
        timed: Whether a good case has an axis that its file calls time.
    """

    good: list[Case]
    bad: list[tuple[Case, str]]
    shapes: dict[str, list[int]]
    spacings: dict[str, list[float]]
    channels: int
    values: dict[str, list[int]]
    timed: bool = False
    names: dict[int, str] = {}  # noqa: RUF012  never changed


def as_channels(channels: int | Sequence[int] | None) -> list[int] | None:
    """The indices of the channels to use as a list; None for all.

    Raises:
        UserError: For anything other than distinct integers from 0.

    Examples:
        >>> as_channels(1), as_channels([2, 0]), as_channels(None)
        ([1], [2, 0], None)
    """
    if channels is None:
        return None
    found = [channels] if isinstance(channels, int) else list(channels)
    if not found or not all(is_integer(c) and c >= 0 for c in found) or len(set(found)) < len(found):
        raise UserError(
            f"channels: found {channels!r}, expected distinct indices from 0, or null for all channels"
        )
    return found


def check_cases(
    cases: Sequence[Case],
    channels: int | Sequence[int] | None = None,
    cache_dir: str = "",
    require_label: bool = False,
    label_values: Sequence[int] = (),
    progress: bool = True,
    spatial_dims: int = 3,
    slices: Slices | None = None,
    frames: Frames = None,
    in_channels: int | None = None,
) -> CheckResult:
    """Sort cases into good and bad ones: by their headers first, then by the voxels of the rest.

    Reasons, for images: missing modality (of a BIDS session), missing file, unreadable, wrong number of
    dimensions, single slice (one voxel along i, j or k), bad geometry, channels of different shapes, wrong
    number of channels, NaN, inf (or beyond float32), empty (every voxel of every used channel is equal). For
    labels: no label, missing file, unreadable, label shape, label geometry (a corner more than half a voxel
    from the image's), label values (not integers, negative, not in `label_values`, more than 256). A label
    without foreground is good: healthy controls are named in the log. In 2D: single row (one pixel along an
    axis of the plane) instead of single slice, volume (where `slices` is not set), no such slice (of an entry
    with `slice`); pictures of several pages have a wrong number of dimensions. Volumes are checked as such,
    not slice by slice.

    Args:
        cases: Cases with `id`, `image` and, for labels, `label`.
        channels: Indices of the channels to use, which every case must have. None: all, and every case needs
            `in_channels`, or the number of channels that most cases have.
        cache_dir: Folder whose sub-folder `checks` keeps the verdicts; '' = they are not kept.
        require_label: Check labels too.
        label_values: Values that a label may hold; () = any.
        progress: Show a progress bar when the checks take long (on rank 0 only).
        spatial_dims: Number of spatial axes: 3, or 2 for pictures, single slices and slices of volumes.
        slices: Slices taken from volumes in 2D; None: a volume is a bad case.
        frames: Use of a fourth axis of images, see `reader.select_frames`.
        in_channels: Number of channels of a network that is there already; None = there is none.

    Raises:
        UserError: If `channels` is invalid, or no case has these channels, or where both it and `in_channels`
            are None and two numbers of channels are equally frequent.
    """
    used = as_channels(channels)
    cache = VerdictCache(str(Path(cache_dir) / "checks") if cache_dir else "", spatial_dims, frames)
    hidden = not progress or not is_first()
    reasons: dict[str, str] = {}
    headers: dict[str, VolumeFacts] = {}
    for case in Bar(cases, desc="reading headers", disable=hidden, delay=2, leave=False):
        reason, facts = header_fault(case, cache)
        reasons[case["id"]] = reason or (plane_fault(case, facts, slices) if spatial_dims == 2 else "")
        headers[case["id"]] = facts
    counts = Counter(headers[i].channels for i, reason in reasons.items() if not reason)
    common = max(counts, default=1) if used else in_channels or common_channels(counts)
    needed = max(used) + 1 if used else common
    wanted_by = "as in most cases" if in_channels is None else "as the network has"
    if used and counts and max(counts) < needed:
        raise UserError(
            f"channels: found {used}, but no volume has more than {max(counts)} channel(s); expected indices "
            f"from 0 to {max(counts) - 1}, or null for all channels"
        )
    values: dict[str, list[int]] = {}
    names: dict[int, str] = {}
    for case in Bar(cases, desc="checking cases", disable=hidden, delay=2, leave=False):
        name = case["id"]
        found = headers[name].channels
        if not reasons[name] and (found < needed if used else found != needed):
            reasons[name] = f"{CHANNELS}: {found}, expected {needed} {'or more' if used else wanted_by}"
        reasons[name] = reasons[name] or voxel_fault(case, cache, used)
        if require_label and not reasons[name]:
            reasons[name], values[name] = label_fault(case, cache, headers[name], label_values)
            reasons[name] = reasons[name] or name_fault(cache.facts(case["label"], "label"), names)
    good = [c for c in cases if not reasons[c["id"]]]
    log_notes(good, cache, require_label)
    world = {c["id"]: headers[c["id"]].along_world() for c in good}
    if spatial_dims == 2:
        for case in good:
            shape, spacing = world[case["id"]]
            given = case.get("slice_axis", 2) if "slice" in case or slices is None else slices.axis
            normal = plane_axis(headers[case["id"]], given)
            del shape[normal], spacing[normal]
    return CheckResult(
        good=good,
        bad=[(c, reasons[c["id"]]) for c in cases if reasons[c["id"]]],
        shapes={name: shape for name, (shape, _) in world.items()},
        spacings={name: spacing for name, (_, spacing) in world.items()},
        channels=len(used) if used else common,
        values={c["id"]: values[c["id"]] for c in good if c["id"] in values},
        names=names,
        timed=any(headers[c["id"]].time for c in good),
    )


def common_channels(counts: Mapping[int, int]) -> int:
    """The number of channels that most cases have; 1 without cases.

    Args:
        counts: Number of cases by their number of channels.

    Raises:
        UserError: two numbers are equally frequent; names both and what `channels` may be.

    Examples:
        >>> common_channels({1: 2, 3: 5})
        3
    """
    most = max(counts.values(), default=0)
    usual = sorted(number for number, count in counts.items() if count == most)
    if len(usual) < 2:
        return usual[0] if usual else 1
    few, many = usual[:2]
    raise UserError(
        f"channels: found {most} case(s) with {few} channel(s) and as many with {many}, expected one number "
        f'that most cases have; --channels "{[*range(few)]}" uses the first {few} of every case, --channels '
        f'"{[*range(many)]}" the cases with {many}'
    )


def report_bad(checked: CheckResult, total: int, verb: str) -> None:
    """Log one line per rejected case, one for all volumes where 2D cases are expected, and their number."""
    volumes = [case["id"] for case, reason in checked.bad if reason.startswith(f"{VOLUME}:")]
    for case, reason in checked.bad:
        if len(volumes) < 2 or not reason.startswith(f"{VOLUME}:"):
            logger.warning("%s: %s: %s", verb, case["id"], reason)
    if len(volumes) > 1:
        logger.warning(
            "%s: %d volumes, not single slices (%s%s); %s uses their slices",
            verb, len(volumes), ", ".join(volumes[:3]), ", ..." if len(volumes) > 3 else "", USE_SLICES,
        )  # fmt: skip
    if checked.bad:
        logger.warning("%s: %d of %d cases", verb, len(checked.bad), total)


def of_any_size(reason: str) -> str:
    """A reason of a bad case, for volumes where 2D cases are expected without their size: one for all."""
    return f"{VOLUME}: {NOT_A_SLICE}" if reason.startswith(f"{VOLUME}:") else reason


def log_notes(cases: Sequence[Case], cache: VerdictCache, with_labels: bool) -> None:
    """One line per file in which the reader chose between contradicting statements, with the choice."""
    described: set[str] = set()
    for case in cases:
        files = [(path, "image", "") for path in files_of(case)]
        files += [(case["label"], "label", "label ")] if with_labels and "label" in case else []
        for path, kind, which in files:
            note = cache.facts(path, kind).note
            if note and path not in described:
                described.add(path)
                logger.warning("%s: %s%s: %s", case["id"], which, Path(path).name, note)


def files_of(case: Case) -> list[str]:
    """The files of an image: one, or one per channel."""
    image = case["image"]
    return list(image) if isinstance(image, list) else [image]


def named(facts: VolumeFacts, path: str = "") -> str:
    """A reason in full, with the file's name where the case has several files."""
    return f"{facts.problem}: {facts.detail}{f' in {Path(path).name}' if path else ''}"


def header_fault(case: Case, cache: VerdictCache) -> tuple[str, VolumeFacts]:
    """What the headers of a case's images show: '' or the reason, and the facts of all its files as one."""
    if case.get("fault"):
        return case["fault"], VolumeFacts()
    files = files_of(case)
    facts = [cache.facts(path, "header") for path in files]
    if case.get("missing"):
        return f"{MODALITY}: {', '.join(case['missing'])}", facts[0]
    for path, one in zip(files, facts, strict=True):
        if one.problem:
            return named(one, path if len(files) > 1 else ""), one
    for path, one in zip(files, facts, strict=True):
        if one.shape != facts[0].shape:
            return f"{CHANNEL_SHAPE}: {facts[0].shape} and {one.shape} in {Path(path).name}", one
        apart = displacement(facts[0], one)
        if apart and (one.axes != facts[0].axes or not close(one.spacing, facts[0].spacing)):
            return f"{GEOMETRY}: {Path(path).name} has other axes or spacing than {Path(files[0]).name}", one
        if apart:
            name, first = Path(path).name, Path(files[0]).name
            return f"{GEOMETRY}: {name} lies up to {apart:.3g} mm from {first}", one
    if len(files) > 1 and any(one.channels != 1 for one in facts):
        return f"{CHANNELS}: some of the {len(files)} files have several, expected one per file", facts[0]
    if len(files) == 1:
        return "", facts[0]
    return "", replace(facts[0], channels=len(files))


def plane_fault(case: Case, facts: VolumeFacts, slices: Slices | None) -> str:
    """What is wrong with a file as a source of 2D cases: the reason, or ''."""
    shape, _ = facts.along_world()
    if 1 in shape:
        return ""
    if "slice" not in case:
        size = "x".join(map(str, facts.shape))
        return "" if slices else f"{VOLUME}: {size} voxels, {NOT_A_SLICE}"
    axis, index = case.get("slice_axis", 2), case["slice"]
    if axis not in (0, 1, 2) or not is_integer(index) or not 0 <= index < shape[axis]:
        return f"{SLICE}: {index} along axis {axis}, the volume is {'x'.join(map(str, shape))} along x y z"
    return ""


def voxel_fault(case: Case, cache: VerdictCache, used: Sequence[int] | None) -> str:
    """What the voxels of the used channels show: '' or the reason."""
    mask = case.get("landmark_mask")
    if mask:
        facts = cache.facts(mask, "image")
        reason, detail = (facts.problem, facts.detail) if facts.problem else facts.states[0]
        if reason:
            return f"{reason}: landmark_mask, {detail}"
    files = files_of(case)
    states: list[list[str]] = []
    for path in files if used is None or len(files) == 1 else [files[c] for c in used]:
        facts = cache.facts(path, "image")
        if facts.problem:
            return named(facts, path if len(files) > 1 else "")
        states += facts.states
    if used is not None and len(files) == 1:
        states = [states[c] for c in used]
    for reason in (NAN, INF):
        for state, detail in states:
            if state == reason:
                return f"{reason}: {detail}"
    return f"{EMPTY}: {states[0][1]}" if all(state == EMPTY for state, _ in states) else ""


def displacement(one: VolumeFacts, other: VolumeFacts) -> float:
    """How far a corner of one lies from that of another of the same shape, mm; 0 within half a voxel."""
    voxels, distance = corner_distance(one.affine, other.affine, one.shape)
    return distance if voxels > HALF_A_VOXEL else 0.0


def close(one: Sequence[float], other: Sequence[float]) -> bool:
    """True where two spacings (mm) agree to 1 %, the rounding error of file converters."""
    return all(abs(a - b) <= 0.01 * max(a, b) for a, b in zip(one, other, strict=True))


def name_fault(facts: VolumeFacts, names: dict[int, str]) -> str:
    """What the names in a label file contradict: the reason, or ''; else they are added to `names`."""
    own = {int(value): str(name) for value, name in facts.names}
    for value, name in own.items():
        if names.get(value, name) != name:
            return f"{LABEL_VALUES}: {value} is {name}, and {names[value]} in another case"
    unknown = [value for value in facts.values if own and value and value not in own]
    if unknown:
        return f"{LABEL_VALUES}: {unknown[0]}, which no segment in its header has"
    names.update(own)
    return ""


def label_fault(
    case: Case, cache: VerdictCache, image: VolumeFacts, label_values: Sequence[int]
) -> tuple[str, list[int]]:
    """What a label shows compared with its image's header: the reason, or '', and its values."""
    if "label" not in case:
        return NO_LABEL, []
    facts = cache.facts(case["label"], "label")
    if facts.problem in (SINGLE_SLICE, SINGLE_ROW) and facts.shape:
        return f"{LABEL_SHAPE}: {facts.shape}, the image's is {image.shape}", []
    if facts.problem in (MISSING, UNREADABLE):
        return f"{facts.problem}: label, {facts.detail}", []
    if facts.problem:
        return f"{LABEL_SHAPE if facts.problem != GEOMETRY else LABEL_GEOMETRY}: {facts.detail}", []
    if facts.shape != image.shape or facts.channels != 1:
        channels = f" with {facts.channels} channels" if facts.channels != 1 else ""
        return f"{LABEL_SHAPE}: {facts.shape}{channels}, the image's is {image.shape}", []
    apart = displacement(image, facts)
    if apart and (facts.axes != image.axes or not close(facts.spacing, image.spacing)):
        ours, theirs = (f"{f.axes} {[round(s, 3) for s in f.spacing]} mm" for f in (facts, image))
        return f"{LABEL_GEOMETRY}: {ours}, the image's is {theirs}", []
    if apart:
        return f"{LABEL_GEOMETRY}: its corners lie up to {apart:.3g} mm from the image's", []
    fault = facts.states[0][1]
    if fault:
        return f"{LABEL_VALUES}: {fault}", []
    unknown = [value for value in facts.values if label_values and value not in label_values]
    if unknown:
        return f"{LABEL_VALUES}: {unknown[0]}, expected one of {', '.join(map(str, label_values))}", []
    if len(facts.values) > MAX_CLASSES:
        found = f"{len(facts.values)} different ones"
        return f"{LABEL_VALUES}: {found}, expected at most {MAX_CLASSES}; an image among the labels?", []
    if facts.values == [0]:
        logger.info("%s: no foreground: every voxel of its label is 0 (a healthy control?)", case["id"])
    return "", facts.values
