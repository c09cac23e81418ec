"""The state of a run as plain data, and its file, which is written completely or not at all.

A checkpoint is `torch.save` of a plain dictionary (tensors, numbers, text, lists, tuples, dictionaries), so
that it loads with `weights_only=True`:

    format      "pretext3d-2"                 record     the run: method, backbone, channels, ...
    network     state dict, never wrapped     optimizer, lr_scheduler, scaler   state dicts or None
    rng         see `rng_state`               epoch, iteration                  numbers completed
    best_metric, best_epoch                   of the validation, None before the first one
    ended_early True in an epoch that `RunLength` ended before its last step, elsewhere missing

`best.pt` and `final.pt` hold format, record, network, epoch and the metric only.
"""

import hashlib
import pickle
import random
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import torch
from torch import nn

from pretext3d.data.labels import LabelMap
from pretext3d.errors import UserError, interrupted, one_line
from pretext3d.files import replacing
from pretext3d.training.checked_zip import CheckedZip
from pretext3d.training.record_schema import check_checkpoint
from pretext3d.training.safe_weights import SUFFIX, read_safetensors

__all__ = [
    "check_same_run",
    "load_checkpoint",
    "plain",
    "read_archive",
    "rng_state",
    "save_checkpoint",
    "set_rng_state",
    "unwrap",
]

FORMAT = "pretext3d-2"
ZIP = b"PK\x03\x04"  # the first bytes of a zip
IDENTITY = (
    "method",
    "arm",
    "channels",
    "channel_indices",
    "pixdim",
    "normalisation",
    "seed",
    "freeze_encoder_epochs",
    "recipe",
    "modalities",
    "slices",
    "frames",
    "decoder",
    "num_classes",
    "class_names",
)


def unwrap(network: nn.Module) -> nn.Module:
    """The network inside DistributedDataParallel, DataParallel or torch.compile."""
    if isinstance(network, nn.parallel.DistributedDataParallel | nn.DataParallel):
        return unwrap(network.module)
    inner = getattr(network, "_orig_mod", None)  # where torch.compile keeps it
    return network if inner is None else unwrap(inner)


def plain(value: Any, name: str = "checkpoint") -> Any:
    """Copy nested containers so that everything loads with `weights_only=True`; tensors move to the CPU.

    Raises:
        UserError: for any other object; names its position.
    """
    if value is None or type(value) in (bool, int, float, str, bytes):
        return value
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().as_subclass(torch.Tensor)
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy()) if value.dtype.kind in "biuf" else plain(value.tolist(), name)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Enum):
        return plain(value.value, name)
    if isinstance(value, Path | torch.device | torch.dtype):
        return str(value)
    if isinstance(value, str):  # an instance of a subclass, such as torch's version
        return str.__str__(value)
    if isinstance(value, Mapping):
        items = {plain(k, f"{name} key"): plain(v, f"{name}.{k}") for k, v in value.items()}
        return Counter(items) if isinstance(value, Counter) else items  # MultiStepLR's milestones
    if isinstance(value, Sequence):
        entries = [plain(v, f"{name}[{i}]") for i, v in enumerate(value)]
        return tuple(entries) if isinstance(value, tuple) else entries
    raise UserError(
        f"{name}: found {type(value).__qualname__}, expected tensors, numbers, text, lists or dicts"
    )


def save_checkpoint(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write a checkpoint atomically: the name refers to the old file or the complete new one, never a part.

    Args:
        path: Path of the file; its folder is created if it does not exist.
        content: Content to save; "format" is added. See `plain` for the types allowed.

    Raises:
        UserError: the file cannot be written (full disk, no permission), or the content is not plain.
    """
    path = Path(path)
    complete = plain({"format": FORMAT, **content})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, sync=True) as draft, draft.open("wb") as file:
            _Sink(file).save(complete)
    except OSError as error:
        reason = error.strerror or one_line(error)
        raise UserError(f"{path}: the checkpoint cannot be written: {reason}") from error


class _Sink:
    """A file for `torch.save` whose errors are its own, also Ctrl-C.

    torch's writer, which is not Python, fails in its own way after an error in `write`, and its message hides
    the cause. So the error is kept until torch has finished.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.error: BaseException | None = None

    def write(self, data: Any) -> int:
        """Write, unless a write has failed."""
        if self.error is None:
            try:
                self.file.write(data)
            except BaseException as error:
                self.error = error
        return len(data)

    def flush(self) -> None:
        """Nothing: the file is closed afterwards."""

    def save(self, content: Any) -> None:
        """`torch.save` into the file."""
        try:
            torch.save(content, cast(IO[bytes], self))
        except RuntimeError as error:
            if self.error is None and interrupted(error):
                raise KeyboardInterrupt from None
            raise (self.error or error) from None
        if self.error is not None:
            raise self.error


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint of this package, tensors on the CPU; its values are checked by `record_schema`.

    Raises:
        UserError: the file is missing, truncated, damaged or of another origin, or one of its values has a
            type or range that no run writes; reports what was found.
    """
    path = Path(path)
    if path.suffix == SUFFIX:
        content = {"format": FORMAT, **read_safetensors(path)}
        check_checkpoint(content, str(path))
        return content
    try:
        content = read_archive(path)
        if not isinstance(content, dict) or "format" not in content:
            keys = f" with keys {', '.join(map(str, list(content)[:4]))}" if isinstance(content, dict) else ""
            raise UserError(f"found a {type(content).__name__}{keys} and no key 'format'")
        if content["format"] != FORMAT or not {"record", "network"} <= set(content):
            raise UserError(f"found format {content['format']!r} with keys {', '.join(content)}")
    except Exception as error:  # whatever zip, pickle or torch make of a foreign file
        message = f"{path}: {one_line(error)}; expected a checkpoint written by Pretext3D, format {FORMAT!r}"
        raise UserError(message) from error
    check_checkpoint(content, str(path))
    return content


def read_archive(path: Path) -> Any:
    """The content of a file of `torch.save`: tensors, on the CPU, and plain containers, nothing else.

    Its members are stored, as torch writes them, and together no larger than the file. Each byte is read
    once, into its tensor, and each member's checksum is compared; the memory taken is about the file's size.

    Raises:
        UserError: not such a file; says what was found, without the path.
    """
    if not path.is_file():
        raise UserError(f"there is {'a folder of this name' if path.is_dir() else 'no such file'}")
    with CheckedZip(path) as file:
        start = file.read(len(ZIP))
        if start != ZIP or not zipfile.is_zipfile(file):  # torch looks at the beginning, zipfile at the end
            kind = "a truncated checkpoint" if start in (b"", ZIP) else "another kind of file"
            raise UserError(f"found {kind} ({file.size:,} bytes, beginning with {start!r})")
        with zipfile.ZipFile(file) as archive:
            _check_members(archive.infolist(), file.size)
            content, error = _load(file)
            damaged = file.damaged(archive)  # torch itself does not look at the checksums
    if damaged is not None:
        raise UserError(f"found a damaged file (wrong checksum in {damaged})") from error
    if isinstance(error, pickle.UnpicklingError):
        raise UserError("found a pickle of Python objects besides tensors and plain containers") from error
    if error is not None:
        raise error
    return content


def _load(file: CheckedZip) -> tuple[Any, Exception | None]:
    """The content, or the error: damage is looked for first, since it explains any other."""
    file.seek(0)
    try:
        return torch.load(cast(IO[bytes], file), map_location="cpu", weights_only=True), None
    except Exception as error:  # whatever pickle or torch make of a foreign or damaged file
        return None, error


def _check_members(members: Sequence[zipfile.ZipInfo], size: int) -> None:
    """Refuse a zip that unpacks to more than its own size, before any of it is read."""
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
            raise UserError(
                f"found the compressed member {member.filename!r}, {member.compress_size:,} bytes that are "
                f"{member.file_size:,}; expected stored ones, as torch.save writes them"
            )
    total = sum(member.file_size for member in members)
    if total > size:
        raise UserError(f"found members of {total:,} bytes in a file of {size:,}, expected no more than that")


def rng_state() -> dict[str, Any]:
    """The state of Python's, NumPy's and torch's global generators and of all CUDA devices, as plain data."""
    version, words, gauss = random.getstate()
    legacy: Any = np.random.get_state(legacy=True)
    return {
        "python": (version, torch.tensor(words, dtype=torch.int64), gauss),
        "numpy": (legacy[0], torch.from_numpy(legacy[1].astype(np.int64)), *map(plain, legacy[2:])),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
    }


def set_rng_state(state: Mapping[str, Any]) -> None:
    """Restore what `rng_state` returned."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words.tolist()), gauss))
    kind, key, *rest = state["numpy"]
    np.random.set_state((kind, key.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    for device, one in enumerate(state["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(one, device)


def check_same_run(path: Path, stored: Mapping[str, Any], current: Mapping[str, Any]) -> None:
    """Refuse to resume a run of another method, architecture, number of channels or meaning of the outputs.

    Args:
        path: Path of the checkpoint, for the message.
        stored: Record in the checkpoint.
        current: Record of this run.

    Raises:
        UserError: listing each difference.
    """
    old, new = _identity(stored), _identity(current)
    differ = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    if differ:
        listed = "; ".join(f"{key} is {old.get(key)} there, {new.get(key)} here" for key in differ)
        raise UserError(f"{path}: written by another run, it cannot be resumed: {listed}")


def _digest(names: Any) -> Any:
    """A short text that identifies a list of cases in any order."""
    if not isinstance(names, list | tuple):
        return names
    digest = hashlib.sha256("".join(sorted(map(str, names))).encode()).hexdigest()[:8]
    return f"{len(names)} cases ({digest})"


def _identity(record: Mapping[str, Any]) -> dict[str, str]:
    """What must be equal for a resume, as text in which a list and a tuple are the same."""
    parts = {key: record.get(key) for key in IDENTITY}
    parts["decoder"] = record.get("decoder") or None  # '' is the default, which a record may leave out
    labels = LabelMap.of(record["labels"]) if record.get("labels") else None
    parts["labels"] = None if labels is None or labels.is_identity else labels.plain()
    data = record.get("data") or {}
    parts["training cases"] = _digest(data.get("train"))
    parts |= {f"backbone {key}": value for key, value in (record.get("backbone") or {}).items()}
    return {key: repr(list(value) if isinstance(value, tuple) else value) for key, value in parts.items()}
