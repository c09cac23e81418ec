"""Whether the fourth axis of a data set's files is time or channels, where the user has not said it.

NIfTI calls its fourth axis time, and programs write a unit of time whatever the axis holds. A dataset.json
that declares several channels for such files settles it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pretext3d.data.checks import CheckResult
from pretext3d.data.datalists import find_datalist, read_json
from pretext3d.data.paths import existing_folder
from pretext3d.data.reader import Frames, check_frames

__all__ = ["chosen_frames", "with_frames"]

CHANNELS = ("modality", "channel_names")  # keys of MSD's and nnU-Net's dataset.json


def chosen_frames(frames: Any, dataset_dir: str | Path | Sequence[str | Path], datalist: str = "") -> Frames:
    """The use of a fourth axis: as given, else `channels` where a dataset.json declares several; None.

    Args:
        frames: Value of the key `frames`, see `reader.select_frames`.
        dataset_dir: Folder or folders.
        datalist: Datalist, as in `find_cases`.

    Raises:
        UserError: For an invalid value.
    """
    given = check_frames(frames)
    if given is not None:
        return given
    folders = [dataset_dir] if isinstance(dataset_dir, str | Path) else list(dataset_dir)
    for folder in folders:
        listed = find_datalist(existing_folder(folder), datalist, alone=True)
        content = read_json(listed) if listed else {}
        if any(isinstance(content.get(key), dict) and len(content[key]) > 1 for key in CHANNELS):
            return "channels"
    return None


def with_frames(checked: CheckResult, given: Any, chosen: Frames) -> tuple[CheckResult, Frames]:
    """The checked cases with `frames`, where a dataset.json has decided on an axis called time; and the use.

    Args:
        checked: Result of the checks with `chosen`.
        given: Value of the key `frames`.
        chosen: Result of `chosen_frames`.
    """
    if given is not None or not checked.timed:
        return checked, check_frames(given)
    return checked._replace(good=[{**case, "frames": chosen} for case in checked.good]), chosen
