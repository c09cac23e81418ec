"""Crops per second, the cache, and memory: `python tests/benchmarks/bench_data.py [dataset_dir]`.

- The training pipeline of the laptop profile against MONAI's CacheDataset (defaults) with MONAI's crops, the
  plain noising, and boundaries by SciPy and scikit-image. The target: at least 4 times. The plain one does a
  little less: it accepts every crop and has no vectors.
- One crop of a volume in the cache: memory-mapped against MONAI's PersistentDataset.
- DICOM: headers of 10,000 files to stacks, against reading the UID of each file's series by pydicom.
- One volume read from gzip NIfTI, checksum included: against nibabel alone, and against MONAI's LoadImaged.
- Resident memory with 10 and with 10,000 entries that point at the same few files.

One thread, no worker processes; CPU time, which other programs' load disturbs less than the clock.
"""

import sys
import tempfile
import time
from pathlib import Path
from random import Random
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import scipy.ndimage
import skimage.filters
import torch
from monai.data import CacheDataset, DataLoader, PersistentDataset
from monai.transforms import (
    Compose,
    CopyItemsd,
    LoadImaged,
    RandFlipd,
    RandSpatialCropd,
    Resized,
    SelectItemsd,
    Transform,
)

sys.path.insert(0, str(Path(__file__).parents[2]))
from pretext3d.data.dataset import CachedVolumes
from pretext3d.data.dicom import find_stacks
from pretext3d.data.loading import LoadCased
from pretext3d.transforms.crops import RandScaleCropd
from pretext3d.transforms.noising import PRESETS

from tests.benchmarks.laptop import laptop_parser, medians
from tests.data.dicom_files import stack, write_all
from tests.data.test_memory import resident_mb, two_lists
from tests.reference.plain_noising import plain_genesis


class PlainBoundaryd(Transform):
    """The laptop profile's boundary target: three 1D medians by SciPy, Scharr by scikit-image."""

    def __init__(self, median_size: int, offset: float, gain: float) -> None:
        self.median_size, self.offset, self.gain = median_size, offset, gain

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        edges = np.stack([self.edges(channel) for channel in data["clean"].numpy()])
        return {**data, "boundary": torch.from_numpy(edges)}

    def edges(self, volume: np.ndarray) -> np.ndarray:
        for axis in range(3):
            size = [self.median_size if a == axis else 1 for a in range(3)]
            volume = scipy.ndimage.median_filter(volume, size)
        return np.clip((skimage.filters.scharr(volume) - self.offset) * self.gain, 0, 1)


class PlainNoised(Transform):
    """The plain noising with the probabilities of the preset `genesis`."""

    def __init__(self) -> None:
        self.draws = Random(0), np.random.RandomState(0)

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        settings, rand = PRESETS["genesis"], self.draws[0].random
        flags = (
            rand() < settings.shuffle_prob,
            rand() < settings.intensity_prob,
            rand() < settings.paint_prob,
            rand() < settings.inpaint_prob,
        )
        noised = plain_genesis(data["image"].numpy(), *flags, *self.draws)
        return {**data, "image": torch.from_numpy(np.ascontiguousarray(noised, dtype=np.float32))}


def monai_loader(parser: Any, dataset: CachedVolumes) -> DataLoader:
    """The same crops, targets and noise from MONAI's own pieces, behind the same deterministic transforms."""
    roi_size = parser.get_parsed_content("crop_size")
    low, high = parser.get_parsed_content("scale_range")
    smallest, largest = ([round(n * s) for n in roi_size] for s in (low, high))
    names = ("median_size", "offset", "gain")
    boundary = {name: parser.get_parsed_content(f"boundary_{name}") for name in names}
    steps = [
        RandSpatialCropd("image", roi_size=smallest, max_roi_size=largest, random_size=True),
        Resized("image", spatial_size=roi_size, mode="trilinear"),
        *(RandFlipd("image", prob=0.5, spatial_axis=a) for a in parser.get_parsed_content("flip_axes")),
        CopyItemsd("image", names="clean"),
        PlainBoundaryd(**boundary),
        PlainNoised(),
        SelectItemsd(["image", "clean", "boundary"]),
    ]
    cached = CacheDataset(
        dataset.data, Compose([*dataset.deterministic.transforms, *steps]), progress=False, num_workers=1
    )
    return DataLoader(cached, batch_size=parser.get_parsed_content("batch_size"), shuffle=True, num_workers=0)


def crops_per_second(dataset_dir: str, edge: int, batches: int) -> None:
    """Print both pipelines' rates and the ratio of the mean times; batches in turn."""
    parser = laptop_parser(
        dataset_dir=dataset_dir, roi_size=[edge] * 3, num_workers=0, steps_per_epoch=1000, noising="genesis"
    )
    dataset, loader = (parser.get_parsed_content(f"train#{name}") for name in ("dataset", "dataloader"))
    plain = monai_loader(parser, dataset)
    iterators: list[Any] = [iter(loader), None]
    times = np.zeros((batches + 1, 2))
    for n in range(batches + 1):
        for arm in range(2):
            begin = time.process_time()
            batch = next(iterators[arm], None) if iterators[arm] else None
            if batch is None:
                iterators[arm] = iter([loader, plain][arm])
                batch = next(iterators[arm])
            times[n, arm] = time.process_time() - begin
            if len(batch["image"]) != loader.batch_size:
                times[n, arm] *= loader.batch_size / len(batch["image"])
    ours, theirs = loader.batch_size / times[1:].mean(axis=0)
    shape = "x".join(map(str, batch["image"].shape[1:]))
    print(
        f"{shape:14} crops/s: ours {ours:7.1f}, MONAI {theirs:6.1f}: {ours / theirs:5.1f} times", flush=True
    )


def one_crop(dataset_dir: str, pixdim: str, rounds: int = 60) -> None:
    """Print the time of one crop of 32^3 from both kinds of cache on disk."""
    parser = laptop_parser(dataset_dir=dataset_dir, num_workers=0, pixdim=pixdim)
    dataset = parser.get_parsed_content("train#dataset")
    crop = RandScaleCropd("image", [32] * 3, scale_range=(1, 1))
    steps = Compose([*dataset.deterministic.transforms, crop])
    with tempfile.TemporaryDirectory() as folder:
        persistent = PersistentDataset(dataset.data, steps, cache_dir=folder)
        ours = CachedVolumes(dataset.data, steps, str(Path(dataset.folder).parent))
        for case in range(len(persistent)):
            persistent[case], ours[case]
        numbers = [iter(range(10**6)), iter(range(10**6))]
        mapped, stored = medians(
            rounds,
            lambda: ours[next(numbers[0])],
            lambda: persistent[next(numbers[1]) % len(persistent)],
        )
    shape = "x".join(map(str, dataset.volume(0)["image"].shape))
    print(
        f"{shape:14} one crop: memory-mapped {mapped:.2f} ms, PersistentDataset {stored:.2f} ms: "
        f"{stored / mapped:.1f} times",
        flush=True,
    )


def dicom_headers(count: int = 10_000, per_series: int = 40) -> None:
    """Print the time from DICOM files to stacks, and that of reading the UID of their series alone."""
    tags = ["SeriesInstanceUID", "SeriesNumber", "Rows"]
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for number in range(count // per_series):
            files += write_all(Path(folder) / f"{number}", stack(per_series), series=f"1.2.{number}")
        begin = time.process_time()
        assert len(find_stacks(files, f"{folder}/cache")) == count // per_series
        ours = time.process_time() - begin
        begin = time.process_time()
        uids = {
            str(pydicom.dcmread(file, stop_before_pixels=True, specific_tags=tags).SeriesInstanceUID)
            for file in files
        }
        assert len(uids) == count // per_series
        plain = time.process_time() - begin
    rates = [1e3 * seconds / count for seconds in (ours, plain)]
    print(f"DICOM headers: {rates[0]:.2f} ms per file, series alone {rates[1]:.2f}: {ours / plain:.1f} times")


def one_volume(rounds: int = 15) -> None:
    """Print the time of reading one .nii.gz: the reader, MONAI's loader, and nibabel without conversion."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "volume.nii.gz")
        smooth = scipy.ndimage.gaussian_filter(np.random.RandomState(0).randn(160, 192, 160), 2)
        nib.save(nib.Nifti1Image((smooth * 4000).astype(np.int16), np.diag([1.0, 1.0, 1.0, 1.0])), path)
        case, ours, monai = (
            {"image": path},
            LoadCased("image"),
            LoadImaged("image", ensure_channel_first=True),
        )
        found = medians(
            rounds, lambda: ours(case), lambda: monai(case), lambda: np.asarray(nib.load(path).dataobj)
        )
    mine, monais, plain = found
    print(
        f"160x192x160    one volume: ours {mine:.0f} ms, MONAI {monais:.0f} ms: {monais / mine:.2f} times; "
        f"nibabel {plain:.0f} ms: {plain / mine:.2f} times",
        flush=True,
    )


def memory() -> None:
    """Print what entries of a datalist cost."""
    with tempfile.TemporaryDirectory() as folder:
        for count, use in two_lists(Path(folder)).items():
            before, begin = resident_mb(), time.perf_counter()
            held = use()
            seconds = time.perf_counter() - begin
            print(f"{count:6} entries: {resident_mb() - before:+6.1f} MB, {seconds:.1f} s", flush=True)
            del held


def main() -> None:
    """Run all."""
    dataset_dir = sys.argv[1] if len(sys.argv) > 1 else ""
    for edge, batches in ((32, 12), (64, 5)):
        crops_per_second(dataset_dir, edge, batches)
    for pixdim in ("fit", "native"):
        one_crop(dataset_dir, pixdim)
    dicom_headers()
    one_volume()
    memory()


if __name__ == "__main__":
    main()
