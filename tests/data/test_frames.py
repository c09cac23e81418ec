"""Tests of files over time: refused by name, used as `frames` says, and settled by a dataset.json."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from pretext3d.data.dataset import CachedVolumes
from pretext3d.data.loading import LoadCased
from pretext3d.data.prepare import inference_cases, prepare_cases
from pretext3d.errors import UserError

from .conftest import voxels


@pytest.fixture
def over_time(tmp_path: Path) -> Path:
    """Four MSD images of three volumes each, which state 2 s between their volumes."""
    entries = []
    (tmp_path / "msd/imagesTr").mkdir(parents=True)
    for n in range(4):
        image = nib.Nifti1Image(voxels((5, 6, 7, 3), seed=n), np.eye(4))
        image.header.set_xyzt_units("mm", "sec")
        image.header["pixdim"][4] = 2
        nib.save(image, tmp_path / f"msd/imagesTr/p{n}.nii.gz")
        entries.append({"image": f"imagesTr/p{n}.nii.gz"})
    (tmp_path / "msd/dataset.json").write_text(json.dumps({"training": entries}))
    return tmp_path / "msd"


def prepared(folder: Path, **settings):
    cache = str(folder.parent / "cache")
    return prepare_cases(str(folder), pixdim="native", cache_dir=cache, val_fraction=0.25, **settings)


def test_without_a_word_they_are_bad_cases(over_time):
    with pytest.raises(UserError, match=r"time axis: 3 time points, 2 s apart, not channels; frames: first"):
        prepared(over_time)


@pytest.mark.parametrize(("frames", "channels"), [("first", 1), ("mean", 1), ([2, 0], 2), ("channels", 3)])
@pytest.mark.parametrize("spatial_dims", [3, 2])
def test_as_the_user_says(over_time, frames, channels, spatial_dims):
    slices = {"axis": 2} if spatial_dims == 2 else None
    ready = prepared(over_time, frames=frames, spatial_dims=spatial_dims, slices=slices)
    assert (ready["channels"], ready["frames"]) == (channels, frames)
    assert "frames" not in ready["train"][0]
    load = LoadCased("image", spatial_dims, frames=frames)
    assert load(ready["train"][0])["image"].shape == (channels, 5, 6, 7)[: spatial_dims + 1]
    found = inference_cases(
        str(over_time), frames=frames, spatial_dims=spatial_dims, slices=slices,
        cache_dir=str(over_time.parent / "cache"),
    )  # fmt: skip
    assert found["channels"] == channels


def test_a_dataset_json_that_declares_channels(over_time, tmp_path):
    listed = over_time / "dataset.json"
    content = json.loads(listed.read_text())
    listed.write_text(json.dumps({**content, "modality": {"0": "T1", "1": "T2", "2": "FLAIR"}}))
    ready = prepared(over_time)
    assert (ready["channels"], ready["frames"]) == (3, "channels")
    # the loader of a configuration whose key `frames` is null follows the cases
    cached = CachedVolumes(ready["train"], cache_dir=str(tmp_path / "v"), transform=None)
    assert LoadCased("image")(cached.data[0])["image"].shape == (3, 5, 6, 7)
    listed.write_text(json.dumps({**content, "modality": {"0": "BOLD"}}))
    with pytest.raises(UserError, match="time axis"):
        prepared(over_time)


def test_a_data_set_without_time_records_nothing(tmp_path, volume):
    for n in range(4):
        volume(f"msd/imagesTr/p{n}.nii.gz", voxels((5, 6, 7, 2), seed=n))
    (tmp_path / "msd/dataset.json").write_text(
        json.dumps(
            {
                "training": [{"image": f"imagesTr/p{n}.nii.gz"} for n in range(4)],
                "modality": {"0": "T1", "1": "T2"},
            }
        )
    )
    ready = prepared(tmp_path / "msd")
    assert ready["frames"] is None
    assert "frames" not in ready["train"][0]
