"""The folder `models` of a bundle: weights, provenance.json and their facts about a run, in one place.

Used for the weights that a bundle ships (`tools/ship_weights.py`), for those of a promoted bundle and for
those that replace them after a further training (`deployment.publish`).
"""

import csv
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

import pretext3d
from pretext3d.errors import UserError, one_line
from pretext3d.files import replacing, sha256_of, write_whole
from pretext3d.publishing.provenance import MODEL, PROVENANCE, SAFE_DIGEST
from pretext3d.training.safe_weights import SUFFIX, write_safetensors

__all__ = [
    "facts_of",
    "half_precision",
    "metrics_at",
    "write_model_file",
    "write_provenance",
    "write_weights",
]

NO_METRICS = ("epoch", "step", "seconds", "train_loss", "learning_rate")  # other columns of metrics.csv


def facts_of(content: Mapping[str, Any]) -> dict[str, Any]:
    """What every provenance says about the run that wrote a checkpoint, without any path.

    Args:
        content: Content of the checkpoint.
    """
    record = content["record"]
    return {
        "training_cases": len((record.get("data") or {}).get("train") or []),
        "encoder": record["backbone"]["encoder"],
        "epochs": content["epoch"],
        "seed": record.get("seed"),
        "pretext3d_version": pretext3d.__version__,
        "torch_version": str(torch.__version__),
    }


def metrics_at(metrics: Path, epoch: int) -> tuple[int, dict[str, float]] | None:
    """Number of steps and the validation's metrics after an epoch; None where the table lacks that epoch.

    The probe's figures are not among them: they depend on labels and on other cases than the held-out ones.

    Args:
        metrics: Table metrics.csv of a run.
        epoch: Number of the epoch, from 1.
    """
    if not metrics.is_file():
        return None
    with metrics.open(newline="") as file:
        lines = [line for line in csv.DictReader(file) if int(float(line["epoch"])) == epoch]
    if not lines:
        return None
    numbers = {name: float(value) for name, value in lines[-1].items() if value}
    found = {
        name: value
        for name, value in numbers.items()
        if name not in NO_METRICS and not name.startswith("probe_")
    }
    return int(numbers["step"]), {name: value for name, value in found.items() if not math.isnan(value)}


def half_precision(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A state dict with its kernels and matrices in 16 bits, half as large; a network loads it into 32 again.

    Vectors (biases, scales and running statistics of norms) stay as they are: they are small, and variances
    may be smaller than what 16 bits resolve. Float16 rounds to 11 binary digits: a relative error of 0.0005.

    Args:
        weights: Tensors by name.

    Raises:
        UserError: a value beyond the range of 16 bits, 65504.

    Examples:
        >>> half_precision({"kernel": torch.ones(2, 2), "bias": torch.ones(2)})["kernel"].dtype
        torch.float16
    """
    halved = {}
    for name, value in weights.items():
        small = value.is_floating_point() and value.dim() > 1
        halved[name] = value.to(torch.float16) if small else value
        if small and not halved[name].isfinite().all():
            raise UserError(
                f"{name}: found values up to {value.abs().max():.3g}, expected at most 65504 in 16 bits"
            )
    return halved


def write_weights(
    path: Path, weights: Mapping[str, torch.Tensor], record: Mapping[str, Any] | None = None
) -> str:
    """Write a state dict, and its safetensors next to it. Returns the SHA-256 of the first.

    The name refers to the old file or the complete new one.

    Args:
        path: Path of the state dict.
        weights: Tensors by name.
        record: Record of the run, which only the safetensors can hold next to a plain state dict.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as draft:
            with draft.open("wb") as file:  # given a path, torch would write the draft's name into the file
                torch.save(dict(weights), file)
            digest = sha256_of(draft)
            path.with_suffix(SUFFIX).unlink(missing_ok=True)  # never next to weights that it is not of
    except (OSError, RuntimeError) as error:  # torch's writer raises RuntimeError on a full disk
        raise UserError(f"{path}: the weights cannot be written: {one_line(error)}") from error
    write_safetensors(path, weights, record)
    return digest


def write_provenance(models_dir: Path, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Write models/provenance.json, completely or not at all.

    Returns:
        What it holds: the entries given, and the SHA-256 of the safetensors in that folder, if any.

    Raises:
        UserError: the file cannot be written.
    """
    complete = {key: value for key, value in provenance.items() if key != SAFE_DIGEST}  # that of others
    safe = (models_dir / MODEL).with_suffix(SUFFIX)
    if safe.is_file():
        complete[SAFE_DIGEST] = sha256_of(safe)
    write_model_file(models_dir / PROVENANCE, (json.dumps(complete, indent=4) + "\n").encode())
    return complete


def write_model_file(path: Path, content: bytes) -> None:
    """Write a file of the folder models, completely or not at all.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {one_line(error)}") from error
