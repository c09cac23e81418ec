"""Weights as safetensors, next to a file of `torch.save`: a format that holds tensors and text alone.

`model.safetensors` has the tensors of `model.pt` and, as JSON in its header, the record and the SHA-256 of
that file, which itself may hold tensors alone. It is what is read wherever it is there and safetensors is
installed; `model.pt` stays for programs that know no other (MONAI Label, `ckpt_export`). Where they were not
written together, neither is read.
"""

import importlib.util
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pretext3d.errors import UserError, one_line
from pretext3d.files import replacing, sha256_of

__all__ = [
    "SUFFIX",
    "check_same_weights",
    "is_installed",
    "preferred",
    "read_safetensors",
    "write_safetensors",
]

logger = logging.getLogger(__name__)

SUFFIX = ".safetensors"
KEY = "pretext3d"  # one entry, so that the same weights give the same bytes


def is_installed() -> bool:
    """Whether the package safetensors can be imported; MONAI Label's environment need not have it."""
    return importlib.util.find_spec("safetensors") is not None


def write_safetensors(
    path: Path, network: Mapping[str, torch.Tensor], record: Mapping[str, Any] | None = None
) -> Path | None:
    """Write the safetensors of a file of weights that has just been written, next to it.

    Args:
        path: Path of that file, model.pt.
        network: Its tensors by name.
        record: Record of the run, plain values.

    Returns:
        Path of the new file; None where safetensors is not installed.

    Raises:
        UserError: the file cannot be written.
    """
    target = path.with_suffix(SUFFIX)
    target.unlink(missing_ok=True)  # that of earlier weights
    if not is_installed():
        logger.info("%s: not written, since safetensors is not installed", target.name)
        return None
    from safetensors.torch import save

    header = {"record": record or {}, "sha256": sha256_of(path)}
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in network.items()}
    try:
        with replacing(target) as draft:
            draft.write_bytes(save(tensors, {KEY: json.dumps(header, sort_keys=True)}))
    except OSError as error:
        raise UserError(f"{target}: the weights cannot be written: {one_line(error)}") from error
    return target


def read_safetensors(path: Path, tensors: bool = True) -> dict[str, Any]:
    """The content of a file that `write_safetensors` wrote: record, network and sha256, not checked further.

    Args:
        path: Path of the file.
        tensors: Whether to read them; otherwise the network is empty.

    Raises:
        UserError: not such a file, or safetensors is not installed.
    """
    expected = "expected weights that Pretext3D has written"
    if not is_installed():
        raise UserError(f"{path}: needs the package safetensors: pip install safetensors")
    from safetensors import safe_open

    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get(KEY, "null"))
            names = file.keys() if tensors else ()
            network = {name: file.get_tensor(name) for name in names}
    except Exception as error:  # whatever safetensors and JSON make of a foreign file
        raise UserError(f"{path}: {one_line(error)}; {expected}") from error
    if not isinstance(header, dict) or not isinstance(header.get("record"), dict):
        raise UserError(f"{path}: found no record in its header, {expected}")
    return {"record": header["record"], "network": network, "sha256": header.get("sha256")}


def preferred(path: Path) -> Path:
    """The safetensors next to a file of weights, where they are there and can be read; otherwise that file.

    Raises:
        UserError: the two are not of the same writing.
    """
    safe = path.with_suffix(SUFFIX)
    if path.suffix == SUFFIX or not safe.is_file() or not path.is_file() or not is_installed():
        return path
    stated, found = read_safetensors(safe, tensors=False)["sha256"], sha256_of(path)
    if stated != found:
        raise UserError(
            f"{safe}: was written with another {path.name}: found SHA-256 {found} of that, expected "
            f"{stated}; write both again, or remove {safe.name} if {path.name} is the right one"
        )
    return safe


def check_same_weights(path: Path) -> None:
    """Make sure that a file of weights and the safetensors next to it hold the same tensors and record.

    Raises:
        UserError: other weights, another record, or safetensors without the file.
    """
    from pretext3d.training.checkpoint_io import read_archive

    safe = path.with_suffix(SUFFIX)
    if not safe.is_file():
        return
    if not path.is_file():
        raise UserError(f"{safe}: found no {path.name} next to it, which MONAI reads; expected both")
    if preferred(path) == path:
        return
    content, read = read_archive(path), read_safetensors(safe)
    there, here = content.get("network", content), read["network"]
    for name in sorted({*there, *here}):
        same = name in there and name in here and there[name].dtype == here[name].dtype
        if not same or not torch.equal(there[name], here[name]):
            raise UserError(
                f"{safe}: tensor {name} differs from that of {path.name}, expected the same weights"
            )
    if "network" not in content:  # tensors alone, for programs that know no record
        return
    record = content.get("record", {})
    if json.dumps(record, sort_keys=True) != json.dumps(read["record"], sort_keys=True):
        raise UserError(f"{safe}: the record differs from that of {path.name}, expected the same one")
