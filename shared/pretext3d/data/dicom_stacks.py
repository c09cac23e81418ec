"""The law of a stack of slices: one slice per position, equal steps, and the grid that the positions span.

The frames of a series are divided by matrix, spacing and orientation, and, where positions repeat, by what
tells the repeated ones apart: time, echo, acquisition ... Each group is sorted by position along its normal.
It is a stack if a regular grid places every voxel within `TOLERANCE` of where the files place it; that grid
becomes the affine. Its third axis is the step from slice to slice, which need not be perpendicular to them:
for a tilted gantry the affine has the shear that the slices have. Every other group has a named fault.

Source: DICOM PS3.3 C.7.6.2.1.1 (position and orientation of a plane).
"""

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from pretext3d.data.dicom_headers import CLOCKS, MARKS, Frame
from pretext3d.data.faults import SINGLE_SLICE, BadFileError

__all__ = ["Stack", "grid", "shear_of", "stacks_of"]

TOLERANCE = 0.1  # voxels; the largest distance, along any axis, of a voxel from its place on the grid
PARALLEL = 1e-3  # largest difference of direction cosines, and of relative spacing, within one group
SAME_PLACE = 0.05  # of the smaller pixel spacing; slices that are closer are at one position
GAP = 1.5  # times the usual step; a larger one is a gap
LARGEST_SHEAR = 45.0  # degrees between the steps and the normal of the slices
SCOUT_SLICES, SCOUT_SHARE = (
    5,
    0.25,
)  # slices of another orientation are scouts if no more, absolute and relative

MISSING_SLICES = "missing slices"
UNEQUAL_STEPS = "unequal steps"
REPEATED = "repeated positions"
ORIENTATION = "varying orientation"
SHEAR = "sheared stack"
SCOUTS = "scouts"

NO_GRID = np.full((4, 4), np.nan)
TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])  # from DICOM's axes, left and posterior


class Stack(NamedTuple):
    """Slices of one volume in their order, or frames that are none, with the reason.

    Attributes:
        frames: Frames; of a stack, by position along the normal.
        label: What tells it apart from the other groups of its series, as in "time_2"; ''.
        affine: Affine (4, 4), voxel indices (i, j, k) to world mm in RAS; NaN for a fault.
        problem: Fixed name of the fault; ''.
        detail: What was found.
    """

    frames: tuple[Frame, ...]
    label: str = ""
    affine: NDArray[np.float64] = NO_GRID
    problem: str = ""
    detail: str = ""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along i, j, k: columns, rows, slices."""
        return self.frames[0].plane.columns, self.frames[0].plane.rows, len(self.frames)

    @property
    def channels(self) -> int:
        """Values per voxel: 1, or 3 for colour."""
        return self.frames[0].plane.channels

    @property
    def reason(self) -> str:
        """The fault in one clause; ''."""
        return f"{self.problem}: {self.detail}" if self.problem else ""


def stacks_of(frames: Sequence[Frame], spatial_dims: int = 3) -> list[Stack]:
    """The stacks of one series, and what of it is none.

    Args:
        frames: Frames of one series, in any order, one or more.
        spatial_dims: Number of spatial axes; in 2D a slice that is alone is an image.

    Returns:
        The stacks, the largest first; their order and labels do not depend on the order of the frames.
    """
    groups = sorted(parallel(frames), key=lambda group: (-len(group), min(f[2:4] for f in group)))
    usual = [group for group in groups if len(group) > 1 and not group[0].plane.scout]
    most = len(usual[0]) if usual else 0
    usual = [g for g in usual if spatial_dims == 2 or not is_scout(g, usual[0])]
    rest = [frame for group in groups if group not in usual for frame in group]
    labels = group_labels(usual)
    found = [
        stack._replace(label="_".join(filter(None, (label, stack.label))))
        for group, label in zip(usual, labels, strict=True)
        for stack in divided(group, spatial_dims)
    ]
    if not rest:
        return found
    if spatial_dims == 2 or len(frames) == 1:
        return found + singles(rest, "slice" if len(frames) > 1 else "")
    scouts = [frame for frame in rest if frame.plane.scout]
    if usual or scouts:
        what = (
            "by their own header"
            if len(scouts) == len(rest)
            else f"of another plane or size than the other {most}"
        )
        one = len(rest) == 1
        detail = f"{len(rest)} slice{'' if one else 's'} {what if not one else what.replace('their', 'its')}"
        return [*found, Stack(tuple(rest), "scouts" if found else "", NO_GRID, SCOUTS, detail)]
    directions = len({frame.plane.orientation for frame in rest})
    detail = f"{len(rest)} slices in {directions} orientations, expected parallel ones"
    if directions == 1:
        detail = f"{len(rest)} slices, no two of the same size and spacing"
    return [Stack(tuple(rest), "", NO_GRID, ORIENTATION, detail)]


def singles(frames: Sequence[Frame], name: str) -> list[Stack]:
    """Each frame as an image of its own."""
    ordered = sorted(frames, key=lambda frame: frame[2:4])
    return [
        Stack((frame,), f"{name}_{number}" if name else "", grid([frame]))
        for number, frame in enumerate(ordered, 1)
    ]


def parallel(frames: Sequence[Frame]) -> list[list[Frame]]:
    """Frames by matrix, channels, spacing and orientation; within `PARALLEL`, chains count as one group."""
    exact: dict[Any, dict[Any, list[Frame]]] = defaultdict(lambda: defaultdict(list))
    for frame in frames:
        plane = frame.plane
        key = plane.rows, plane.columns, plane.channels, plane.photometric, plane.scout
        exact[key][plane.orientation, plane.spacing].append(frame)
    groups = []
    for members in exact.values():
        points = np.array([[*directions, *np.log(spacing)] for directions, spacing in members]) / PARALLEL
        places, where = np.unique(np.round(points, 1), axis=0, return_inverse=True)
        pairs = cKDTree(places).query_pairs(1.0, p=np.inf, output_type="ndarray")
        links = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(places),) * 2)
        numbers = connected_components(links, directed=False)[1][where.ravel()]
        joined: dict[int, list[Frame]] = defaultdict(list)
        for number, found in zip(numbers, members.values(), strict=True):
            joined[int(number)] += found
        groups += list(joined.values())
    return groups


def normal_of(frames: Sequence[Frame]) -> NDArray[np.float64]:
    """The unit normal (3,) of slices, their mean row direction x column direction."""
    rows, columns = np.mean([frame.plane.orientation for frame in frames], axis=0).reshape(2, 3)
    normal = np.cross(rows, columns)
    return normal / np.linalg.norm(normal)


def is_scout(group: Sequence[Frame], largest: Sequence[Frame]) -> bool:
    """Whether a few slices lie across a larger stack of their series."""
    few = len(group) <= min(SCOUT_SLICES, SCOUT_SHARE * len(largest))
    return few and bool(abs(normal_of(group) @ normal_of(largest)) < 1 - PARALLEL)


def group_labels(groups: Sequence[Sequence[Frame]]) -> list[str]:
    """Names of groups that differ in their plane: axial, coronal, sagittal, numbered where they recur."""
    if len(groups) < 2:
        return [""] * len(groups)
    names = [("sagittal", "coronal", "axial")[int(np.abs(normal_of(group)).argmax())] for group in groups]
    return [
        name if names.count(name) == 1 else f"{name}_{names[: i + 1].count(name)}"
        for i, name in enumerate(names)
    ]


def divided(frames: Sequence[Frame], spatial_dims: int = 3) -> list[Stack]:
    """Parallel frames as stacks: one, or one per time, echo, acquisition ... where positions repeat."""
    heights = np.array([frame.position for frame in frames]) @ normal_of(frames)
    order = np.argsort(heights, kind="stable")
    frames, heights = [frames[i] for i in order.tolist()], heights[order]
    apart = np.diff(heights) > SAME_PLACE * min(frames[0].plane.spacing)
    places = np.concatenate([[0], np.cumsum(apart)])
    if places[-1] + 1 == len(frames):
        return [judged(frames)]
    if places[-1] == 0:
        if spatial_dims == 2:
            return singles(frames, "image")
        detail = f"{len(frames)} images of one slice"
        return [Stack(tuple(frames), "", NO_GRID, SINGLE_SLICE, detail)]
    best = min(divisions(frames, places), key=lambda found: found[0], default=None)
    if best is None:
        detail = (
            f"{len(frames)} slices at {places[-1] + 1} positions, which neither time, echo, acquisition nor "
            "anything else in their headers tells apart"
        )
        return [Stack(tuple(frames), "", NO_GRID, REPEATED, detail)]
    return best[1]


def judged(frames: Sequence[Frame], label: str = "") -> Stack:
    """Frames in order as a stack, or with the fault that makes them none."""
    if len(frames) == 1:
        return Stack(tuple(frames), label, grid(frames))
    try:
        return Stack(tuple(frames), label, grid(frames))
    except BadFileError as error:
        return Stack(tuple(frames), label, NO_GRID, error.problem, error.detail)


def divisions(frames: Sequence[Frame], places: NDArray[Any]) -> Iterator[tuple[tuple[int, ...], list[Stack]]]:
    """Ways to divide frames so that each group has one slice per position, with their costs.

    A cost is the number of groups that are no stacks, of groups, of marks, and the place in the order of
    `MARKS`. Marks are used alone and in combinations of up to three. Of a clock (trigger time, acquisition
    time), which may differ from slice to slice, the order at each position is used, too: the first images of
    all positions are one group, where all positions have equally many and the groups follow each other.

    Args:
        frames: Frames in order of their position.
        places: Number of each frame's position, ascending from 0.
    """
    columns = list(mark_columns(frames))
    values = [(name, ids) for name, ids, is_clock in columns if not is_clock]
    clocks = [(name, ids) for name, ids, is_clock in columns if is_clock]
    most, rank = int(np.bincount(places).max()), 0
    for size in range(4):
        for chosen in itertools.combinations(values, size):
            names, parts = [name for name, _ in chosen], [ids for _, ids in chosen]
            known = combined(parts, len(frames))
            used = clocks if size < 3 else []
            ranked = [(name, ordinal(ids, places, known, name != "phase")) for name, ids in used]
            for name, ids in [("", None), *(pair for pair in ranked if pair[1] is not None)]:
                rank += 1
                all_names = [*names, name] if ids is not None else names
                all_parts = [*parts, ids] if ids is not None else parts
                groups = combined(all_parts, len(frames))
                count = int(groups.max()) + 1
                distinct = len(np.unique(groups * len(frames) + places)) == len(frames)
                if not distinct or count > max(most, len(frames) // 2):
                    continue
                stacks = []
                for number in range(count):
                    members = np.flatnonzero(groups == number)
                    label = "_".join(
                        f"{n}_{p[members[0]] + 1}" for n, p in zip(all_names, all_parts, strict=True)
                    )
                    stacks.append(judged([frames[i] for i in members.tolist()], label))
                faults = sum(bool(stack.problem) or len(stack.frames) == 1 for stack in stacks)
                yield (faults, count, len(all_names), rank), stacks
                if not faults and count == most:
                    return


def mark_columns(frames: Sequence[Frame]) -> Iterator[tuple[str, NDArray[Any], bool]]:
    """Name, numbers (0 for the lowest value) and whether it is a clock, of each mark that varies."""
    length = max(len(frame.marks) for frame in frames)
    names = [*MARKS, *((f"index{i}", "", "") for i in range(1, length - len(MARKS) + 1))]
    table = [[*frame.marks, *(None,) * (length - len(frame.marks))] for frame in frames]
    for column, (name, classic, _) in enumerate(names):
        yield from numbered(name, [row[column] for row in table], classic in CLOCKS)
    normal = normal_of(frames)
    offsets = np.array([frame.position for frame in frames])
    offsets = np.rint((offsets - np.outer(offsets @ normal, normal)) / min(frames[0].plane.spacing))
    yield from numbered("place", [tuple(row) for row in offsets.tolist()], False)


def numbered(name: str, values: Sequence[Any], is_clock: bool) -> Iterator[tuple[str, NDArray[Any], bool]]:
    """Values as numbers of their order; nothing where all are equal."""
    if len(distinct := set(values)) > 1:
        ordered = sorted(
            distinct,
            key=lambda v: (v is not None, isinstance(v, str), v if isinstance(v, int | float) else 0, str(v)),
        )
        numbers = {value: number for number, value in enumerate(ordered)}
        yield name, np.array([numbers[value] for value in values]), is_clock and None not in distinct


def combined(parts: Sequence[NDArray[Any]], length: int) -> NDArray[Any]:
    """One number per frame from several, ascending in their order."""
    if not parts:
        return np.zeros(length, dtype=int)
    return np.unique(np.stack(parts, axis=1), axis=0, return_inverse=True)[1].ravel()


def ordinal(
    ids: NDArray[Any], places: NDArray[Any], known: NDArray[Any], of_day: bool = True
) -> NDArray[Any] | None:
    """The rank of each frame by a clock within its position and known group; None where it is unclear.

    It is unclear where times are equal, positions have unequally many frames, or, by the time of day, ranks
    overlap in time or take the positions in another order: stacks taken at the same time could be mixed.
    """
    cells = places * (int(known.max()) + 1) + known
    order = np.lexsort((ids, cells))
    first = np.r_[True, np.diff(cells[order]) > 0]
    if (np.diff(ids[order]) == 0)[~first[1:]].any():
        return None
    starts = np.flatnonzero(first)
    sizes = np.diff(np.r_[starts, len(order)])
    if len(set(sizes.tolist())) > 1 or sizes[0] == 1:
        return None
    ranks = np.empty(len(order), dtype=int)
    ranks[order] = np.arange(len(order)) - np.repeat(starts, sizes)
    if not of_day:  # a trigger time starts again at every heartbeat
        return ranks
    in_time = np.lexsort((-ranks, ids, known))
    falls = np.diff(ranks[in_time]) < 0
    in_turn = np.lexsort((ids, ranks, known))  # each group's positions in the order of their times
    groups = [places[in_turn][known[in_turn] == k].reshape(sizes[0], -1) for k in np.unique(known)]
    same_order = all(bool((turns == turns[0]).all()) for turns in groups)
    return ranks if same_order and not falls[np.diff(known[in_time]) == 0].any() else None


def grid(frames: Sequence[Frame]) -> NDArray[np.float64]:
    """The affine (4, 4) of the grid that slices span, voxel indices (columns, rows, slices) to mm in RAS.

    Origin and step are the least-squares line through the positions: position(k) = origin + k step. A single
    slice gets its thickness as step.

    Args:
        frames: Parallel slices in order of their position along the normal, at most one per position.

    Raises:
        BadFileError: If a voxel is further than `TOLERANCE` from its place on the grid: steps differ, slices
            are missing, displaced or turned; or if the steps are too far from the normal.
    """
    positions = np.array([frame.position for frame in frames])
    directions = np.array([frame.plane.orientation for frame in frames]).reshape(-1, 2, 3)
    spacings = np.array([frame.plane.spacing for frame in frames])[:, ::-1]  # along i, along j
    count, plane, normal = len(frames), frames[0].plane, normal_of(frames)
    mean = directions[0] if (directions == directions[0]).all() else directions.mean(axis=0)
    spacing = spacings[0] if (spacings == spacings[0]).all() else spacings.mean(axis=0)
    centred = np.arange(count) - (count - 1) / 2
    step = normal * plane.thickness
    if count > 1:
        check_steps(np.diff(positions @ normal))
        step = centred @ positions / (centred @ centred)
    affine = np.eye(4)
    affine[:3, :3] = np.stack([mean[0] * spacing[0], mean[1] * spacing[1], step], axis=1)
    affine[:3, 3] = positions.mean(axis=0) - step * (count - 1) / 2
    tilt = shear_of(affine)
    if tilt > LARGEST_SHEAR:
        limit = f"expected {LARGEST_SHEAR:.0f} or less"
        raise BadFileError(SHEAR, f"{tilt:.0f} degrees between steps and normal, {limit}")
    off = np.zeros(3)
    for u, v in itertools.product((0, plane.columns - 1), (0, plane.rows - 1)):
        found = positions + directions[:, 0] * spacings[:, :1] * u + directions[:, 1] * spacings[:, 1:] * v
        index = np.stack([np.full(count, u), np.full(count, v), np.arange(count)])
        expected = affine[:3, :3] @ index + affine[:3, 3:]
        off = np.maximum(off, np.abs(np.linalg.solve(affine[:3, :3], found.T - expected)).max(axis=1))
    if off.max() > TOLERANCE:
        if (directions != directions[0]).any():
            raise BadFileError(
                ORIENTATION, f"slices turned against each other by up to {off.max():.2g} voxels"
            )
        if off[2] == off.max():
            steps = np.diff(positions @ normal)
            raise BadFileError(
                UNEQUAL_STEPS, f"{steps.min():.3g} to {steps.max():.3g} mm from slice to slice"
            )
        raise BadFileError(UNEQUAL_STEPS, f"slices displaced sideways by up to {off.max():.2g} voxels")
    return TO_RAS @ affine


def shear_of(affine: NDArray[np.float64]) -> float:
    """The angle in degrees between the steps from slice to slice and the normal of the slices.

    Examples:
        >>> shear_of(np.array([[1.0, 0, 0, 0], [0, 1, 2, 0], [0, 0, 2, 0], [0, 0, 0, 1]]))
        45.0
    """
    step, normal = affine[:3, 2], np.cross(affine[:3, 0], affine[:3, 1])
    across = np.linalg.norm(np.cross(step, normal))
    return round(float(np.degrees(np.arctan2(across, abs(step @ normal)))), 6)


def check_steps(steps: NDArray[np.float64]) -> None:
    """Make sure that no step (mm) along the normal is a gap.

    Raises:
        BadFileError: Naming the gaps.

    Examples:
        >>> check_steps(np.array([2.0, 2.0, 16.0]))
        Traceback (most recent call last):
            ...
        pretext3d.data.faults.BadFileError: missing slices: 16 mm after slice 3, 2 mm elsewhere
    """
    usual = float(np.sort(steps)[(len(steps) - 1) // 2])
    gaps = np.flatnonzero(steps > GAP * usual)
    if not len(gaps):
        return
    low, high = steps[gaps].min(), steps[gaps].max()
    if len(gaps) > len(steps) / 4 and len(steps) > 3:
        raise BadFileError(UNEQUAL_STEPS, f"{steps.min():.3g} to {high:.3g} mm from slice to slice")
    size = f"{high:.3g} mm" if high - low < 0.01 * high else f"{low:.3g} to {high:.3g} mm"
    where = f"after slice {gaps[0] + 1}" if len(gaps) == 1 else f"at {len(gaps)} places"
    raise BadFileError(MISSING_SLICES, f"{size} {where}, {usual:.3g} mm elsewhere")
