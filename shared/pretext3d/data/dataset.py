"""Volumes read once, cropped many times: the deterministic part of a pipeline as memory-mapped files.

`CachedVolumes` runs the deterministic first part of a MONAI `Compose` once per case and keeps its arrays as
uncompressed `.npy` files. A crop then reads only the pages it touches, memory does not grow with the number
of cases, and every worker, run and process on the machine shares the same files.

Every random draw is a function of (seed, key): the key that `EpochSampler` yields names the case and the
draw, so samples do not depend on the number of workers or ranks, nor on whether a run was interrupted.
"""

import copy
import copyreg
import errno
import hashlib
import json
import logging
import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import monai
import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Randomizable, Transform
from torch.utils.data.distributed import DistributedSampler

import pretext3d
from pretext3d.data.keyed import KeyedItems
from pretext3d.data.reader import files_of_volume
from pretext3d.errors import UserError
from pretext3d.files import discard_folder, new_folder, remove_old_drafts
from pretext3d.progress import Bar

__all__ = ["CachedVolumes", "EpochSampler", "UsableVolumes", "default_cache_dir"]

logger = logging.getLogger(__name__)

MAX_INLINE_ELEMENTS = 64  # arrays of up to this size are kept in case.json, not in a separate file
FORMAT = 4  # version of the cached files: a change here recomputes every cached volume
FILES = ("image", "label", "landmark_mask")  # the keys of a case that name files
NAMES = (  # no transform reads them
    "id", "name", "source", "source_name", "subject", "subject_scope", "split", "fold",
    "volume", "slice_every", "slice_count", "constant",
)  # fmt: skip


def default_cache_dir() -> str:
    """The folder for derived files: the environment variable PRETEXT3D_CACHE, else ~/.cache/pretext3d."""
    return str(Path(os.environ.get("PRETEXT3D_CACHE", "~/.cache/pretext3d")).expanduser())


def describe(value: Any) -> Any:
    """A description of a transform or a setting that JSON can hold: equal for equal ones, in every process.

    An object is described by what `pickle` would store of it: its class, arguments and state. This leaves out
    what only its use adds, such as the flag of MONAI's transforms that each thread has for itself.

    Raises:
        UserError: For a lambda or a local function, whose meaning cannot be determined from outside.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Path | torch.dtype | torch.device | np.dtype):
        return str(value)
    if isinstance(value, np.ndarray | torch.Tensor):
        array = np.ascontiguousarray(value)
        return [str(array.dtype), list(array.shape), hashlib.sha256(array.tobytes()).hexdigest()]
    if isinstance(value, dict):
        return {str(k): describe(v) for k, v in sorted(value.items(), key=lambda item: str(item[0]))}
    if isinstance(value, list | tuple):
        return [describe(v) for v in value]
    if isinstance(value, set | frozenset):
        return sorted(str(describe(v)) for v in value)
    if isinstance(value, type) or (callable(value) and hasattr(value, "__qualname__")):
        if "<" in value.__qualname__:
            raise UserError(
                f"a deterministic transform holds {value.__qualname__}: its result cannot be cached, because "
                "a changed lambda would look the same; expected a named function or a transform class"
            )
        return f"{value.__module__}.{value.__qualname__}"
    if isinstance(value, np.random.RandomState):
        return None
    reduce = copyreg.dispatch_table.get(type(value))
    try:
        stored = reduce(value) if reduce else value.__reduce_ex__(4)
    except TypeError:  # a lock, an open file
        stored = (type(value), getattr(value, "__dict__", {}))
    return describe(stored)


def file_stamp(path: str) -> list[Any]:
    """Paths, sizes and times of change, which identify the version of all files of a volume.

    A data file that a header names and that is not there counts as empty.
    """
    stamps: list[Any] = []
    for number, file in enumerate(files_of_volume(path)):
        try:
            stamps.append(_stamp(file))
        except FileNotFoundError:
            if number == 0:
                raise
            stamps.append([os.path.realpath(file), 0, 0])
    return stamps


def _stamp(path: str) -> list[Any]:
    found = Path(path).stat()
    return [os.path.realpath(path), found.st_size, found.st_mtime_ns]


class CachedVolumes(KeyedItems):
    """A data set of cases whose deterministic transforms are cached on disk and shared by all processes.

    Item `key` is draw `key // n` of case `key % n` of the n cases: `dataset[i]` for i < n is the first draw
    of case i, and the same key always gives the same sample. `len()` is n * `crops_per_volume`.

    Args:
        data: Cases, dictionaries with file names under `image`, `label` ...
        transform: A `Compose`; everything before its first random transform is cached. None: no transform.
        cache_dir: Folder whose sub-folder `volumes` keeps the volumes; '' = `default_cache_dir()`.
        crops_per_volume: Number of samples drawn from each case in one pass.
        seed: Seed of every random draw.
        num_workers: Number of threads that fill the cache.
        prepare: Fill the cache now, with a progress bar; otherwise each case at its first use.
    """

    def __init__(
        self,
        data: Sequence[dict[str, Any]],
        transform: Compose | None = None,
        cache_dir: str = "",
        crops_per_volume: int = 1,
        seed: int = 0,
        num_workers: int = 2,
        prepare: bool = True,
    ) -> None:
        transform = transform if transform is not None else Compose([])
        if crops_per_volume < 1:
            raise UserError(
                f"crops_per_volume (in validation val_crops): found {crops_per_volume}, expected 1 or more"
            )
        first = transform.get_index_of_first(
            lambda t: isinstance(t, Randomizable) or not isinstance(t, Transform)
        )
        steps = transform.transforms
        # a copy: what use leaves in a transform, such as the names of files in MONAI's readers, is in no key
        self.deterministic = copy.deepcopy(Compose(steps[:first]))
        random = Compose(steps[first:] if first is not None else [])
        super().__init__(data=data, transform=transform, random=random, seed=seed)
        self.crops_per_volume = crops_per_volume
        self.folder = Path(cache_dir or default_cache_dir()) / "volumes"
        self.recipe = json.dumps(
            [FORMAT, pretext3d.__version__, monai.__version__, describe(list(steps[:first]))]
        )
        self.entries: dict[int, Path] = {}
        if prepare:
            self.prepare(num_workers)

    def __len__(self) -> int:
        return len(self.data) * self.crops_per_volume

    def _begin(self, key: int) -> dict[str, Any]:
        draw, case = divmod(int(key), self.num_cases)
        self._seed(draw, case)
        return self.volume(case)

    def volume(self, case: int) -> dict[str, Any]:
        """The deterministic result of case `case`, memory-mapped; writing to it does not reach the disk.

        Raises:
            UserError: If the case or the cache cannot be read, or the cache cannot be written.
        """
        folder, item = self.entry(case), self.data[case]
        try:
            result = _read_entry(folder) if folder.is_dir() else {}
        except Exception as error:  # whatever NumPy, JSON or the drive make of a damaged file
            logger.warning("%s is damaged and read again: %s", folder, error)
            discard_folder(folder)
            result = {}
        if not result:
            self._fill(case)
            try:
                result = _read_entry(folder)
            except Exception as error:
                raise UserError(
                    f"cache_dir: {folder} cannot be read after it was written: {error}"
                ) from error
        # names are the case's, which may have others than the case that filled the entry: a subject, for one
        kept = NAMES if "name" in result and "name" in item else [key for key in NAMES if key in result]
        plain = {key: value for key, value in result.items() if key not in NAMES}
        return plain | {key: item[key] for key in kept if key in item}

    def entry(self, case: int) -> Path:
        """The folder in the cache that holds case `case`: a hash of its files and of the transforms."""
        if case not in self.entries:
            item = self.data[case]
            files = {
                key: [item[key]] if isinstance(item[key], str) else item[key] for key in FILES if key in item
            }
            stamps = {key: [file_stamp(path) for path in paths] for key, paths in files.items()}
            rest = {key: value for key, value in item.items() if key not in (*FILES, *NAMES)}
            content = json.dumps([self.recipe, stamps, describe(rest)])
            self.entries[case] = self.folder / hashlib.sha256(content.encode()).hexdigest()[:32]
        return self.entries[case]

    def prepare(self, num_workers: int = 2) -> None:
        """Fill the cache: this rank's share of the cases that are not cached yet."""
        rank, world = idist.get_rank(), idist.get_world_size()
        distinct = {self.entry(case): case for case in range(len(self.data))}
        missing = [case for folder, case in distinct.items() if not folder.is_dir()][rank::world]
        if rank == 0:
            remove_old_drafts(self.folder, "*.*")
        if missing:
            logger.info("reading %d of %d cases into %s", len(missing), len(self.data), self.folder)
            pool = ThreadPoolExecutor(max(1, num_workers))
            try:
                futures = [pool.submit(self._fill, case) for case in missing]
                bar = {"total": len(missing), "desc": "reading cases", "unit": "case"}
                for future in Bar(as_completed(futures), disable=rank > 0, **bar):
                    future.result()
            finally:  # a thread that still computes while the interpreter ends would abort it
                pool.shutdown(cancel_futures=True)
            size = sum(file.stat().st_size for folder in distinct for file in folder.glob("*"))
            logger.info("these cases take %.0f MB; the folder may be removed at any time", size / 1e6)
        if world > 1:
            idist.barrier()

    def _fill(self, case: int) -> None:
        item = self.data[case]
        try:
            result = self.deterministic(dict(item))
        except Exception as error:
            raise UserError(
                f"case {item.get('id', case)} ({item.get('image')}): cannot be read: {error}"
            ) from error
        _write_entry(self.entry(case), result)


class UsableVolumes(CachedVolumes):
    """`CachedVolumes` for a method that cannot use every volume; its samples state which draw they are.

    A deterministic transform that cannot use a volume gives the reason in `unusable`; '' or a missing key
    means that the volume is usable. Unusable cases are left out, each with a warning. Every sample has
    `draw`, the number of its draw, from 0, before its first random transform, and `visit_seed`, which
    `crops_per_volume` successive draws of a case have in common.

    Args:
        data: Cases; for these and all other arguments see `CachedVolumes`. All volumes are prepared at once.
        transform: A `Compose`, see `CachedVolumes`.
        part: Name of these cases in messages, e.g. training or held-out.
        **settings: Further arguments of `CachedVolumes`.

    Raises:
        UserError: If no case is left; gives the reasons.
    """

    def __init__(
        self,
        data: Sequence[dict[str, Any]],
        transform: Compose | None = None,
        part: str = "",
        **settings: Any,
    ) -> None:
        super().__init__(data, transform, **settings)
        cases = list(data)
        reasons = [str(self.volume(case).get("unusable") or "") for case in range(len(cases))]
        names = [str(item.get("id", case)) for case, item in enumerate(cases)]
        found = [f"{name}: {reason}" for name, reason in zip(names, reasons, strict=True) if reason]
        for line in found:
            logger.warning("left out: %s", line)
        if found and len(found) == len(cases):
            more = f"; and {len(found) - 4} more" if len(found) > 4 else ""
            who = f"none of {len(found)} {part} cases" if part else f"none of {len(found)} cases"
            raise UserError(f"dataset_dir: {who} can be used: {'; '.join(found[:4])}{more}")
        self.data = [item for item, reason in zip(cases, reasons, strict=True) if not reason]
        self.entries = {}

    def _begin(self, key: int) -> dict[str, Any]:
        draw, case = divmod(int(key), self.num_cases)
        words = [self.seed, draw // self.crops_per_volume, case, 1]  # `_seed` has three: another sequence
        visit_seed = int(np.random.SeedSequence(words).generate_state(1)[0])
        return {**super()._begin(key), "draw": draw, "visit_seed": visit_seed}


def _write_entry(folder: Path, result: dict[str, Any]) -> None:
    """Write one case; the first writer wins, and a partial case never appears under its final name."""
    try:
        with new_folder(folder, sync=True) as draft:
            _write_draft(draft, result)
    except OSError as error:
        raise UserError(f"cache_dir: {folder.parent} cannot be written: {error}") from error


def _write_draft(draft: Path, result: dict[str, Any]) -> None:
    """Write the files of one case."""
    plain: dict[str, Any] = {}
    for key, value in result.items():
        if isinstance(value, torch.Tensor | np.ndarray):
            array = np.asarray(value)
            entry: dict[str, Any] = {"dtype": str(array.dtype), "shape": list(array.shape)}
            if isinstance(value, MetaTensor):
                entry["affine"] = value.affine.tolist()
                entry["file"] = str(value.meta.get("filename_or_obj", ""))
            if array.size <= MAX_INLINE_ELEMENTS:
                entry["values"] = array.tolist()
            else:
                _save_array(draft / f"{key}.npy", array)
            plain[key] = {"array": entry}
        else:
            plain[key] = {"value": value}
    (draft / "case.json").write_text(json.dumps(plain))


def _save_array(path: Path, array: np.ndarray) -> None:
    try:
        np.save(path, np.ascontiguousarray(array))
    except OSError as error:
        if error.errno is not None:
            raise
        # NumPy says "1024 requested and 128 written"
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error


def _read_entry(folder: Path) -> dict[str, Any]:
    """The content of an entry; any error where a file of it is missing, short or damaged."""
    content = json.loads((folder / "case.json").read_text())
    if not content:
        raise ValueError("case.json is empty")
    result: dict[str, Any] = {}
    for key, stored in content.items():
        if "value" in stored:
            result[key] = stored["value"]
            continue
        entry = stored["array"]
        if "values" in entry:
            array = np.asarray(entry["values"], dtype=entry["dtype"]).reshape(entry["shape"])
        else:
            # mode 'c': torch needs a writable array, and what is written stays in this process's memory
            array = np.lib.format.open_memmap(folder / f"{key}.npy", mode="c")
            if [str(array.dtype), list(array.shape)] != [entry["dtype"], entry["shape"]]:
                expected = f"{entry['dtype']} {entry['shape']}"
                raise ValueError(f"{key}.npy: found {array.dtype} {list(array.shape)}, expected {expected}")
        tensor = torch.from_numpy(array)
        if "affine" in entry:
            meta = {"filename_or_obj": entry["file"]} if entry["file"] else {}
            tensor = MetaTensor(tensor, affine=torch.tensor(entry["affine"], dtype=torch.float64), meta=meta)
        result[key] = tensor
    return result


class EpochSampler(DistributedSampler[Any]):
    """Keys of one epoch for a data set of keyed items: every pass in a new order, every visit a new draw.

    Key = case + n * draw, with draw = epoch * passes + pass: a function of (seed, epoch, position) alone. The
    draws of one case in one epoch are consecutive, so that a transform can deal out the parts of a case
    without repetition. Rank r of w takes positions r, r + w, ...: the ranks' batches together are the batch
    that a single process with the same global batch size would take. MONAI's trainer calls `set_epoch`.

    Args:
        dataset: `CachedVolumes`, `GeneratedItems`, ...
        num_samples: Number of samples per epoch over all ranks, more or fewer than the cases; None =
            `len(dataset)`.
        seed: Seed of the order.
    """

    def __init__(self, dataset: KeyedItems, num_samples: int | None = None, seed: int = 0) -> None:
        rank, world = idist.get_rank(), idist.get_world_size()
        super().__init__(dataset, num_replicas=world, rank=rank, shuffle=True, seed=seed)
        if num_samples is not None and num_samples < 1:
            raise UserError(f"num_samples: found {num_samples}, expected 1 or more")
        self.cases = dataset.num_cases
        self.total_size = math.ceil((num_samples or len(dataset)) / world) * world
        self.num_samples = self.total_size // world

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng([self.seed, self.epoch])
        passes = math.ceil(self.total_size / self.cases)
        order = np.concatenate([rng.permutation(self.cases) for _ in range(passes)])[: self.total_size]
        draws = self.epoch * passes + np.arange(self.total_size) // self.cases
        keys = order + self.cases * draws
        return iter(keys[self.rank :: self.num_replicas].tolist())
