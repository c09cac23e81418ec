"""Laws of stacks: random ones, each with one fault, are loaded at the true place or refused."""

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from pretext3d.data.dicom import find_stacks, open_stack, read_stack
from pretext3d.data.dicom_stacks import TOLERANCE
from pretext3d.data.loading import PlainSpacingd
from pretext3d.data.reader import load_volume
from scipy.spatial.transform import Rotation

from tests.data.dicom_files import CORONAL, Slice, item, off, stack, write, write_all, write_enhanced

ROUNDING = 1e-3  # voxels; positions are written with 16 characters at most


@st.composite
def stacks(draw: st.DrawFn, least: int = 5) -> list[Slice]:
    """Slices of any orientation, oblique ones among them, spacing, shape and shear."""
    axes = np.eye(3)[list(draw(st.permutations(range(3))))]
    if draw(st.booleans()):
        axes = (
            axes @ Rotation.from_euler("xyz", draw(st.tuples(*[st.integers(-80, 80)] * 3)), True).as_matrix()
        )
    row, column = axes[0] * draw(st.sampled_from([1, -1])), axes[1] * draw(st.sampled_from([1, -1]))
    spacing = draw(st.tuples(*[st.sampled_from([0.5, 0.9765625, 3.0])] * 2))
    step = np.cross(row, column) * draw(st.sampled_from([0.7, 2.5, 6.0]))
    step = step + draw(st.sampled_from([0.0, 0.0, 0.3])) * np.linalg.norm(step) * column  # a tilted gantry
    return stack(
        draw(st.integers(least, 9)),
        step,
        draw(st.tuples(*[st.sampled_from([-150.0, 0.0, 33.3])] * 3)),
        orientation=tuple(np.round([*row, *column], 12).tolist()),
        spacing=spacing,
        shape=draw(st.tuples(st.integers(2, 5), st.integers(2, 5))),
    )


def moved(one: Slice, mm: Sequence[float], **changes: object) -> Slice:
    return replace(one, position=tuple(np.add(one.position, mm).tolist()), **changes)


def scattered(draw: st.DataObject, folder: Path, slices: Sequence[Slice]) -> list[Path]:
    """Slices written in any order, into one folder or three, with and without suffix and preamble."""
    order = draw.draw(st.permutations(range(len(slices))))
    folders, bare = draw.draw(st.sampled_from([1, 3])), draw.draw(st.booleans())
    suffix = draw.draw(st.sampled_from([".dcm", "", ".1"]))
    return [
        write(folder / f"{n % folders}" / f"im{n:02d}{suffix}", slices[k], bare=bare)
        for n, k in enumerate(order)
    ]


def step_of(slices: Sequence[Slice]) -> np.ndarray:
    return np.subtract(slices[1].position, slices[0].position)


def again(slices: Sequence[Slice], times: int, **elements: Sequence[object]) -> list[list[Slice]]:
    """The stack several times at its positions, with other voxels, and elements that tell the times apart."""
    size = len(slices) * slices[0].stored().size
    return [
        [
            replace(s, first=s.first + t * size, elements={k: v[t] for k, v in elements.items()})
            for s in slices
        ]
        for t in range(times)
    ]


def flat(groups: Sequence[Sequence[Slice]]) -> list[Slice]:
    return [one for group in groups for one in group]


# fault: slices -> (all slices that are written, the stacks that are expected, the problems)
Fault = Callable[[list[Slice]], tuple[list[Slice], list[list[Slice]], list[str]]]


def none(slices: list[Slice]) -> tuple[list[Slice], list[list[Slice]], list[str]]:
    return slices, [slices], []


def scout(slices: list[Slice]) -> tuple[list[Slice], list[list[Slice]], list[str]]:
    row, column = np.reshape(slices[0].orientation, (2, 3))
    across = tuple(np.concatenate([row, np.cross(row, column)]).tolist())
    return [*slices, replace(slices[0], first=20000, orientation=across)], [slices], ["scouts"]


def other_matrix(slices: list[Slice]) -> tuple[list[Slice], list[list[Slice]], list[str]]:
    return [*slices, replace(slices[0], first=20000, shape=(6, 7))], [slices], ["scouts"]


def missing(slices: list[Slice]) -> tuple[list[Slice], list[list[Slice]], list[str]]:
    return slices[:2] + slices[3:], [], ["missing slices"]


def end_missing(slices: list[Slice]) -> tuple[list[Slice], list[list[Slice]], list[str]]:
    return slices[1:-1], [slices[1:-1]], []


def times(slices: list[Slice]) -> tuple[list[Slice], list[list[Slice]], list[str]]:
    found = again(slices, 3, TemporalPositionIdentifier=[1, 2, 3])
    return flat(found), found, []


def echoes(slices: list[Slice]) -> tuple[list[Slice], list[list[Slice]], list[str]]:
    found = again(slices, 2, EchoTime=[4.5, 11.5])
    return flat(found), found, []


def echoes_in_time(slices: list[Slice]) -> tuple[list[Slice], list[list[Slice]], list[str]]:
    found = again(slices, 4, EchoTime=[4.5, 11.5] * 2, AcquisitionNumber=[1, 1, 2, 2])
    return flat(found), found, []


def clock(slices: list[Slice]) -> tuple[list[Slice], list[list[Slice]], list[str]]:
    """Each slice has a time of its own; the first images of all positions belong together."""
    found = [
        [replace(s, elements={"AcquisitionTime": f"1200{20 * t + k:02d}"}) for k, s in enumerate(group)]
        for t, group in enumerate(again(slices, 2))
    ]
    return flat(found), found, []


def heartbeats(slices: list[Slice]) -> tuple[list[Slice], list[list[Slice]], list[str]]:
    """A slower heart at every position: the third phase of one may be later than the fourth of another."""
    found = [
        [replace(s, elements={"TriggerTime": 10.0 * t * (1 + 0.2 * k)}) for k, s in enumerate(group)]
        for t, group in enumerate(again(slices, 4), 1)
    ]
    return flat(found), found, []


def clocks_that_interleave(slices: list[Slice]) -> tuple[list[Slice], list[list[Slice]], list[str]]:
    """Two stacks taken at the same time, in opposite order: the first image of a position is of either."""
    found = [
        [replace(s, elements={"AcquisitionTime": f"1200{n:02d}"}) for n, s in zip(order, group, strict=True)]
        for order, group in zip(
            (range(0, 2 * len(slices), 2), range(2 * len(slices) - 1, 0, -2)), again(slices, 2), strict=True
        )
    ]
    return flat(found), [], ["repeated positions"]


def two_with_one_uid(element: str, values: Sequence[str]) -> Fault:
    """Two stacks with one SeriesInstanceUID (a bad anonymisation), which another element tells apart."""

    def fault(slices: list[Slice]) -> tuple[list[Slice], list[list[Slice]], list[str]]:
        both, count = clocks_that_interleave(slices)[0], len(slices)
        groups = [
            [replace(one, elements={**one.elements, element: value}) for one in group]
            for value, group in zip(values, (both[:count], both[count:]), strict=True)
        ]
        return flat(groups), groups, []

    fault.__name__ = f"two_with_one_uid_{element}"
    return fault


def one_of_two_times_incomplete(slices: list[Slice]) -> tuple[list[Slice], list[list[Slice]], list[str]]:
    first, second = again(slices, 2, AcquisitionNumber=[1, 2])
    return [*first, *second[:1], *second[2:]], [first], ["missing slices"]


def repeated(slices: list[Slice]) -> tuple[list[Slice], list[list[Slice]], list[str]]:
    return flat(again(slices, 2)), [], ["repeated positions"]


def turned(slices: list[Slice]) -> tuple[list[Slice], list[list[Slice]], list[str]]:
    """Each slice is turned by 10 degrees more about the row direction, as in a radial acquisition."""
    row, column = np.reshape(slices[0].orientation, (2, 3))
    turns = [Rotation.from_rotvec(np.radians(10 * k) * row).apply(column) for k in range(len(slices))]
    found = [replace(s, orientation=(*row, *turn.tolist())) for s, turn in zip(slices, turns, strict=True)]
    return found, [], ["varying orientation"]


def displaced(slices: list[Slice]) -> tuple[list[Slice], list[list[Slice]], list[str]]:
    row = np.asarray(slices[0].orientation[:3])
    return [moved(slices[0], row * slices[0].spacing[1]), *slices[1:]], [], ["unequal steps"]


def uneven(slices: list[Slice]) -> tuple[list[Slice], list[list[Slice]], list[str]]:
    return [*slices[:2], moved(slices[2], 0.4 * step_of(slices)), *slices[3:]], [], ["unequal steps"]


def rounded(slices: list[Slice]) -> tuple[list[Slice], list[list[Slice]], list[str]]:
    """Positions off by less than the tolerance."""
    found = [*slices[:2], moved(slices[2], 0.9 * TOLERANCE * step_of(slices)), *slices[3:]]
    return found, [found], []


def series_of_one(slices: list[Slice]) -> tuple[list[Slice], list[list[Slice]], list[str]]:
    return slices[:1], [slices[:1]], []


def cine(slices: list[Slice]) -> tuple[list[Slice], list[list[Slice]], list[str]]:
    found = again(slices[:1], 6, TriggerTime=[10.0 * t for t in range(6)])
    return flat(found), [], ["single slice"]


FAULTS: list[Fault] = [
    none, scout, other_matrix, missing, end_missing, times, echoes, echoes_in_time, clock,
    one_of_two_times_incomplete, repeated, turned, displaced, uneven, rounded, series_of_one, cine,
    heartbeats, clocks_that_interleave, two_with_one_uid("PatientID", ["a", "b"]),
    two_with_one_uid("StudyInstanceUID", ["1.2.1", "1.2.2"]),
    two_with_one_uid("FrameOfReferenceUID", ["1.2.1", "1.2.2"]),
]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
@given(slices=stacks(), data=st.data())
@settings(max_examples=6, deadline=None, derandomize=True)
def test_slices_are_loaded_at_the_true_place_or_refused(fault, slices, data):
    written, expected, problems = fault(slices)
    with tempfile.TemporaryDirectory() as folder:
        files = scattered(data, Path(folder), written)
        found = find_stacks(sorted(files), f"{folder}/cache")
        good = [stack for stack in found if not stack.reason]
        assert sorted(stack.reason.split(":")[0] for stack in found if stack.reason) == problems
        loaded = sorted((read_stack(stack.read) for stack in good), key=lambda pair: pair[0].min())
        assert len(loaded) == len(expected)
        limit = TOLERANCE if fault is rounded else ROUNDING
        assert all(off(*pair, true) < limit for pair, true in zip(loaded, expected, strict=True))
        assert len({stack.path for stack in found}) == len(found)


@given(
    slices=stacks(), data=st.data(), fault=st.sampled_from([none, times, missing, turned, repeated, uneven])
)
@settings(max_examples=20, deadline=None, derandomize=True)
def test_frames_of_one_file_obey_the_same_law(slices, data, fault):
    written, expected, problems = fault(slices)
    order = data.draw(st.permutations(range(len(written))))
    shuffled = [written[k] for k in order]
    marks = [item(TemporalPositionIndex=s.elements.get("TemporalPositionIdentifier", 1)) for s in shuffled]
    with tempfile.TemporaryDirectory() as folder:
        file = write_enhanced(Path(folder) / "scan.dcm", shuffled, marks)
        found = find_stacks([file], f"{folder}/cache")
        assert [stack.reason.split(":")[0] for stack in found if stack.reason] == problems
        loaded = [read_stack(stack.read) for stack in found if not stack.reason]
        loaded = sorted(loaded, key=lambda pair: pair[0].min())
        assert len(loaded) == len(expected)
        assert all(off(*pair, true) < ROUNDING for pair, true in zip(loaded, expected, strict=True))


def problem_of(folder: Path, slices: Sequence[Slice]) -> list[str]:
    return [stack.reason for stack in find_stacks(write_all(folder, slices), str(folder / "cache"))]


def test_reasons_are_in_the_users_terms(tmp_path):
    """16 mm where 7 slices are missing, 2 mm elsewhere; 3 times at 5 positions; 4 slices 10 degrees apart."""
    whole = stack(20, step=(0, 0, 2.0))
    assert problem_of(tmp_path / "a", whole[:6] + whole[13:]) == [
        "missing slices: 16 mm after slice 6, 2 mm elsewhere"
    ]
    assert problem_of(tmp_path / "b", flat(again(whole[:5], 3))) == [
        "repeated positions: 15 slices at 5 positions, which neither time, echo, acquisition nor anything "
        "else in their headers tells apart"
    ]
    assert problem_of(tmp_path / "c", turned(whole[:4])[0]) == [
        "varying orientation: 4 slices in 4 orientations, expected parallel ones"
    ]
    assert problem_of(tmp_path / "d", [*whole[:8], replace(whole[0], orientation=CORONAL)]) == [
        "",
        "scouts: 1 slice of another plane or size than the other 8",
    ]
    assert problem_of(tmp_path / "e", stack(5, step=(0, 4.0, 2.0))) == [
        "sheared stack: 63 degrees between steps and normal, expected 45 or less"
    ]
    assert problem_of(tmp_path / "f", uneven(whole[:6])[0]) == [
        "unequal steps: 1.2 to 2.8 mm from slice to slice"
    ]


def test_three_scouts_across_a_stack_are_none(tmp_path):
    """They are parallel, and would be a stack of three; the 40 axial slices are the volume."""
    scouts = stack(3, step=(0, 20.0, 0), first=20000, orientation=CORONAL)
    axial = stack(40)
    files = write_all(tmp_path / "p", [*scouts, *axial])
    good, bad = find_stacks(files, str(tmp_path / "cache"))
    assert (good.path, bad.path) == (tmp_path / "p", tmp_path / "p_scouts")
    assert bad.reason == "scouts: 3 slices of another plane or size than the other 40"
    assert off(*read_stack(good.read), axial) < ROUNDING


def test_two_stacks_of_a_series_in_two_planes(tmp_path):
    coronal = stack(8, step=(0, 3.0, 0), first=20000, orientation=CORONAL)
    files = write_all(tmp_path / "p", [*stack(9), *coronal])
    found = find_stacks(files, str(tmp_path / "cache"))
    assert [stack.path.name for stack in found] == ["p_axial", "p_coronal"]
    assert [open_stack(stack.read).shape for stack in found] == [(5, 4, 9), (5, 4, 8)]
    assert found[0].subject == found[1].subject != ""


def test_a_localizer_by_its_header_is_a_scout(tmp_path):
    slices = stack(6, elements={"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]})
    assert problem_of(tmp_path, slices) == ["scouts: 6 slices by their own header"]


def test_two_slabs_that_overlap_are_told_apart_by_acquisition(tmp_path):
    """5 + 5 slices 4 mm apart; the last position of the first slab is the first of the second."""
    first = stack(5, elements={"AcquisitionNumber": 1})
    second = stack(5, start=(10, -20, 46), first=1000, elements={"AcquisitionNumber": 2})
    found = find_stacks(write_all(tmp_path / "p", [*first, *second]), str(tmp_path / "cache"))
    assert [stack.path.name for stack in found] == ["p_acquisition_1", "p_acquisition_2"]
    assert off(*read_stack(found[1].read), second) < ROUNDING


def test_two_stacks_side_by_side_are_told_apart_by_place(tmp_path):
    left, right = stack(5), stack(5, start=(110, -20, 30), first=1000)
    found = find_stacks(write_all(tmp_path / "p", [*left, *right]), str(tmp_path / "cache"))
    loaded = sorted((read_stack(stack.read) for stack in found), key=lambda pair: pair[0].min())
    assert off(*loaded[0], left) < ROUNDING
    assert off(*loaded[1], right) < ROUNDING


def test_acquisitions_without_repeated_positions_are_one_stack(tmp_path):
    slices = [replace(s, elements={"AcquisitionNumber": k // 3}) for k, s in enumerate(stack(6))]
    (found,) = find_stacks(write_all(tmp_path / "p", slices), str(tmp_path / "cache"))
    assert open_stack(found.read).shape == (5, 4, 6)


def test_copies_of_files_are_left_out_and_other_images_at_their_place_are_not(tmp_path, caplog):
    caplog.set_level("INFO")
    files = write_all(tmp_path / "p", stack(4))
    (tmp_path / "q").mkdir()
    copies = [Path(shutil.copy(file, tmp_path / "q")) for file in files]
    (found,) = find_stacks(files + copies, str(tmp_path / "cache"))
    assert (found.path, found.reason) == (tmp_path / "p", "")
    assert "4 DICOM files are copies of others" in caplog.text
    content = bytearray(copies[0].read_bytes())
    content[-1] ^= 1
    copies[0].write_bytes(bytes(content))
    (found,) = find_stacks(files + copies, str(tmp_path / "cache"))
    assert found.reason.startswith("repeated positions: 5 slices at 4 positions")


def test_the_stated_step_is_that_of_the_positions(tmp_path):
    """SpacingBetweenSlices and thickness are often wrong: the positions are 4 mm apart."""
    slices = stack(4, elements={"SpacingBetweenSlices": 1.5})
    affine = read_stack(write_all(tmp_path / "p", slices)[0].parent)[1]
    # columns 3 mm towards the patient's left, rows 2 mm to the back; the first voxel at (10, -20, 30) in LPS
    expected = [[-3, 0, 0, -10], [0, -2, 0, 20], [0, 0, 4, 30], [0, 0, 0, 1]]
    np.testing.assert_allclose(affine, expected, atol=1e-12)


def test_resampling_removes_the_shear_of_a_tilted_gantry(tmp_path, caplog):
    """Values that grow linearly in the world, 10 x + 20 y + 30 z, still do on the straight grid of 2.5 mm."""
    caplog.set_level("INFO")
    slices = stack(12, step=(0.0, 1.5, 4.0), shape=(12, 10))
    files = [write(tmp_path / f"p/{n}.dcm", one) for n, one in enumerate(slices)]
    for file, one in zip(files, slices, strict=True):
        data = pydicom.dcmread(file)
        values = one.places() @ (10, 20, 30)
        data.PixelData = np.rint(values).astype("<i2").tobytes()
        data.save_as(file)
    (found,) = find_stacks(files, str(tmp_path / "cache"))
    assert "1 DICOM stacks are sheared by up to 21 degrees" in caplog.text  # atan(1.5 / 4) = 20.6
    volume = PlainSpacingd("image", pixdim=[2.5] * 3, mode="bilinear")({"image": load_volume(found.read)})[
        "image"
    ]
    affine = volume.affine.numpy()
    np.testing.assert_allclose(affine[:3, :3].T @ affine[:3, :3], np.eye(3) * 2.5**2, atol=1e-6)
    index = np.indices(volume.shape[1:]).reshape(3, -1)
    places = affine[:3, :3] @ index + affine[:3, 3:]
    stored = read_stack(found.read)[1]
    inside = np.linalg.solve(stored[:3, :3], places - stored[:3, 3:])
    kept = ((inside >= 0) & (inside <= np.array([[9], [11], [11]]))).all(axis=0)
    assert kept.sum() > 300
    expected = np.array([10, 20, 30]) @ places
    np.testing.assert_allclose(
        volume.numpy().ravel()[kept], expected[kept], atol=0.51
    )  # rounded when written
