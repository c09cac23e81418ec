"""Memory does not grow with the number of cases in the datalist."""

import gc
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from monai.data import DataLoader
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, RandSpatialCropd, SelectItemsd
from pretext3d.data.dataset import CachedVolumes, EpochSampler
from pretext3d.data.prepare import prepare_cases

ENTRIES = 10_000
FILES = 5
EDGE = 64  # a volume is 1 MB: 10,000 of them in memory would be 10 GB


def resident_mb(pid: str = "self") -> float:
    """Resident memory of a process in MB, mapped files left out: the system can take those back."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return sum(float(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def write_list(root: Path, count: int) -> Path:
    """A folder of a few volumes whose dataset.json names them `count` times."""
    root.mkdir(parents=True)
    for n in range(FILES):
        volume = np.random.RandomState(n).rand(EDGE, EDGE, EDGE).astype(np.float32)
        nib.save(nib.Nifti1Image(volume, np.eye(4)), root / f"v{n}.nii")
    entries = [{"image": f"v{n % FILES}.nii"} for n in range(count)]
    (root / "dataset.json").write_text(json.dumps({"training": entries}))
    return root


def use_list(root: Path, cache: Path, num_workers: int = 0, samples: int = 50) -> Any:
    """Find and check the cases, fill the cache, draw samples; what stays in memory is returned."""
    cases = prepare_cases(str(root), cache_dir=str(cache), pixdim="native")
    steps = Compose(
        [
            LoadImaged("image"),
            EnsureChannelFirstd("image"),
            RandSpatialCropd("image", [16, 16, 16], random_size=False),
            SelectItemsd("image"),
        ]
    )
    dataset = CachedVolumes(cases["train"], steps, str(cache))
    loader = DataLoader(
        dataset,
        sampler=EpochSampler(dataset, num_samples=samples),
        batch_size=5,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
    )
    iterator = iter(loader)
    assert sum(len(batch["image"]) for batch in iterator) == samples
    gc.collect()
    return cases, dataset, loader, iterator


def two_lists(folder: Path, num_workers: int = 0) -> dict[int, Callable[[], Any]]:
    """A short list and a long one over equal files; the first use of all code comes before both."""
    use_list(write_list(folder / "warm", 10), folder / "cache_warm", num_workers)
    roots = {count: write_list(folder / str(count), count) for count in (10, ENTRIES)}
    return {
        count: lambda root=root, count=count: use_list(root, folder / f"cache{count}", num_workers)
        for count, root in roots.items()
    }


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="resident memory is read from /proc")
@pytest.mark.parametrize("num_workers", [0, 1])
def test_ten_thousand_entries_take_no_more_memory_than_ten(tmp_path: Path, num_workers: int) -> None:
    grown, workers = {}, {}
    for count, use in two_lists(tmp_path, num_workers).items():
        before = resident_mb()
        *_, iterator = held = use()
        grown[count] = resident_mb() - before
        processes = getattr(iterator, "_workers", [])
        workers[count] = sum(resident_mb(str(process.pid)) for process in processes)
        assert len(processes) == num_workers
        del held, iterator
        gc.collect()
    # an entry costs below 4 kB (its dictionary, its file's verdict, its folder in the cache), its volume 1 MB
    assert grown[ENTRIES] - grown[10] < 64
    assert workers[ENTRIES] - workers[10] < 64
