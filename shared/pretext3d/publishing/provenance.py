"""The provenance of a bundle's weights: models/provenance.json for programs, models/README.md for people."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pretext3d.checking import is_integer
from pretext3d.errors import UserError
from pretext3d.files import sha256_of
from pretext3d.publishing.archive import check_version, json_object

__all__ = [
    "MODEL",
    "MODEL_CARD",
    "PROVENANCE",
    "SAFE_DIGEST",
    "check_entries",
    "check_provenance",
    "read_provenance",
]

MODEL, PROVENANCE, MODEL_CARD = "model.pt", "provenance.json", "README.md"
SAFE_DIGEST = "sha256_safetensors"  # entry of a provenance: SHA-256 of model.safetensors, if that is there


def read_provenance(models_dir: str | Path) -> dict[str, Any]:
    """The provenance of a bundle's weights; {} without a provenance.json.

    Raises:
        UserError: the file is truncated or contains something else.
    """
    file = Path(models_dir) / PROVENANCE
    return json_object(file.read_bytes(), str(file)) if file.is_file() else {}


def check_provenance(models_dir: Path) -> str:
    """Make sure that the weights in a bundle's folder models, if any, are those of their provenance.

    Further weights of a bundle, such as those of another encoder, are in folders of that folder, each with
    its own provenance.

    Returns:
        A summary of the provenance, one per folder with weights; '' where there are no weights.

    Raises:
        UserError: no provenance, one without data, licence, seed, versions, length, metric or SHA-256, or one
            of other weights; or a model.safetensors of other weights, or one that is stated and missing.
    """
    folders = sorted(path.parent for path in models_dir.glob(f"*/{MODEL}"))
    return "; ".join(filter(None, map(_checked, [models_dir, *folders])))


def _checked(models_dir: Path) -> str:
    """`check_provenance` of one folder."""
    model = models_dir / MODEL
    safe = model.with_suffix(".safetensors")
    if safe.is_file():
        from pretext3d.training.safe_weights import check_same_weights

        check_same_weights(model)
    if not model.is_file():
        return ""
    file, model_card = models_dir / PROVENANCE, models_dir / MODEL_CARD
    for path in (file, model_card):
        if not path.is_file():
            raise UserError(f"{path}: not found; expected the provenance of the weights")
    provenance, digest = read_provenance(models_dir), sha256_of(model)
    check_entries(provenance, str(file))
    if provenance["sha256"] != digest:
        raise UserError(f"{file}: sha256: found {provenance['sha256']!r}, expected {digest} of {MODEL}")
    if digest not in model_card.read_text(encoding="utf-8", errors="replace"):
        raise UserError(f"{model_card}: found no SHA-256 of {MODEL}, expected {digest}")
    stated, found = provenance.get(SAFE_DIGEST), sha256_of(safe) if safe.is_file() else None
    if stated != found:
        raise UserError(
            f"{file}: {SAFE_DIGEST}: found {stated!r}, expected {found or f'none: there is no {safe.name}'}"
        )
    return f"{provenance['data']}; {provenance['licence']}; SHA-256 as in the model card"


def check_entries(provenance: Mapping[str, Any], where: str) -> None:
    """Make sure that a provenance.json is complete.

    Raises:
        UserError: it lacks data, licence, seed, versions, length, metric or SHA-256; begins with `where`.
    """
    for key in ("data", "licence", "sha256"):
        if not isinstance(provenance.get(key), str) or not provenance[key].strip():
            raise UserError(f"{where}: {key}: found {provenance.get(key)!r}, expected text")
    for key in ("bundle_version", "pretext3d_version"):
        check_version(provenance.get(key), f"{where}: {key}")
    if not _is_integer(provenance.get("seed"), 0):
        raise UserError(f"{where}: seed: found {provenance.get('seed')!r}, expected an integer")
    if not (_is_integer(provenance.get("steps"), 1) or _is_integer(provenance.get("epochs"), 1)):
        raise UserError(f"{where}: steps, epochs: found neither, expected an integer")
    metrics = provenance.get("held_out")
    if not isinstance(metrics, dict) or not metrics:
        raise UserError(f"{where}: held_out: found {metrics!r}, expected the metrics on held-out cases")
    for name, value in metrics.items():
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise UserError(f"{where}: held_out: {name}: found {value!r}, expected a number")


def _is_integer(value: Any, least: int) -> bool:
    return is_integer(value) and value >= least
