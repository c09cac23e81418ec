"""The weights of a deployable bundle: a plain state dict in `models/model.pt`, with its provenance.

Other programs read that file (MONAI Label, `monai.bundle.load`, the exports), so it holds the tensors of
`network_def` and nothing else. The content of a checkpoint's record is in the bundle's configuration, in
`models/provenance.json` and in the header of `models/model.safetensors`.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
from torch import nn

from pretext3d.data.checks import check_cases, report_bad
from pretext3d.data.declared import NOTHING_DECLARED, allowed_values
from pretext3d.data.labels import LabelMap
from pretext3d.data.prepare import listing
from pretext3d.data.reader import check_frames
from pretext3d.data.slices import check_slices
from pretext3d.data.volumes import strip_extension
from pretext3d.errors import UserError, one_line
from pretext3d.publishing.provenance import MODEL, MODEL_CARD, read_provenance
from pretext3d.publishing.weights import (
    facts_of,
    metrics_at,
    write_model_file,
    write_provenance,
    write_weights,
)
from pretext3d.training.checkpoint_io import load_checkpoint, read_archive
from pretext3d.training.record_schema import check_finite, check_tensors
from pretext3d.training.safe_weights import SUFFIX, preferred, read_safetensors

__all__ = [
    "check_annotated",
    "check_channels",
    "load_weights",
    "provenance_of",
    "publish",
    "seen_cases",
]

logger = logging.getLogger(__name__)

PREVIOUS = "model_previous.pt"
SINCE = "; of the cases trained on since: not named"  # appended to the licence of the initial weights' data


def load_weights(network: nn.Module, path: str | Path) -> None:
    """Load a state dict into a network; every tensor has to fit.

    Args:
        network: Network to load the weights into, in place.
        path: Path of the state dict; '' = the network is unchanged.

    Raises:
        UserError: no such file, not a state dict, or one of another network.
    """
    if not path:
        return
    if not Path(path).is_file():
        raise UserError(f"{path}: not found; expected the weights of this bundle")
    try:
        file = preferred(Path(path))
        weights = read_safetensors(file)["network"] if file.suffix == SUFFIX else read_archive(file)
        if not isinstance(weights, Mapping):
            raise UserError(f"found a {type(weights).__name__}")
        check_tensors(weights, "weights")
        check_finite(weights, "weights")
        network.load_state_dict(weights)
    except Exception as error:  # whatever zip, pickle or torch raise for a foreign file
        raise UserError(
            f"{path}: {one_line(error)}; expected a state dict of this bundle's network"
        ) from error


def check_channels(found: int, expected: int) -> None:
    """Make sure that the images have as many channels as the network expects.

    Raises:
        UserError: they have more or fewer.
    """
    if found != expected:
        raise UserError(
            f"channels: found images of {found}, expected {expected}; choose by channels, e.g. [0]"
        )


def check_annotated(
    cases: Sequence[Mapping[str, Any]],
    in_channels: int,
    labels: Mapping[str, Any],
    channels: int | Sequence[int] | None = None,
    cache_dir: str = "",
    spatial_dims: int = 3,
    slices: Mapping[str, int] | None = None,
    frames: str | Sequence[int] | None = None,
) -> None:
    """Check images and labels that another program gives to a training, as `prepare_cases` checks a folder's.

    Args:
        cases: Cases with `image` and `label`; a case without `id` is named after its image.
        in_channels: Number of channels of the network.
        labels: Label map of the network, in plain form.
        channels: Indices of the channels to use; None = all.
        cache_dir: Folder where the results of the checks are cached.
        spatial_dims: Number of spatial axes of the network, 3 or 2.
        slices: Slices that volumes give in 2D; see `prepare_cases`.
        frames: Use of a fourth axis; see `prepare_cases`.

    Raises:
        UserError: no case, or bad ones, with the reason for each; images of another number of channels.
    """
    named = [{"id": strip_extension(Path(str(case["image"])).name), **case} for case in cases]
    if not named:
        raise UserError("found no labelled case to train on, expected one or more")
    cache = str(Path(cache_dir).expanduser()) if cache_dir else ""
    taken = check_slices(slices, spatial_dims)
    allowed = allowed_values(NOTHING_DECLARED, LabelMap.of(labels))
    checked = check_cases(
        named, channels, cache, True, allowed, spatial_dims=spatial_dims, slices=taken,
        frames=check_frames(frames), in_channels=in_channels,
    )  # fmt: skip
    report_bad(checked, len(named), "bad")
    if checked.bad:
        raise UserError(f"{len(checked.bad)} of {len(named)} labelled cases are bad: {listing(checked.bad)}")
    check_channels(checked.channels, in_channels)


def provenance_of(checkpoint: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    """The provenance of a fine-tuning's weights, from its checkpoint, without any path.

    Args:
        checkpoint: Path of the checkpoint, in a run's folder `checkpoints`.
        content: Content of the checkpoint.

    Returns:
        weights (final or best), data, number of cases, pretrained, epochs, steps (None where the run has no
        metrics.csv), seed, best_mean_dice and best_epoch of the validation (None without one), held_out with
        the same Dice ({} without), package versions.
    """
    data, best = content["record"].get("data") or {}, content.get("best_metric")
    at = metrics_at(checkpoint.parent.parent / "metrics.csv", content["epoch"])
    return {
        "weights": checkpoint.stem,
        "data": data.get("name", ""),
        "pretrained": data.get("pretrained", ""),
        **facts_of(content),
        "steps": at[0] if at else None,
        "best_mean_dice": best,
        "best_epoch": content.get("best_epoch"),
        "held_out": {} if best is None else {"best_validation_mean_dice": float(best)},
        "train": list(data.get("train") or []),
    }


def publish(ckpt_dir: str, models_dir: str, weights: str = "best") -> None:
    """Replace a bundle's weights by those of a finished training; the old ones stay as model_previous.pt.

    Args:
        ckpt_dir: Folder of the training's checkpoints.
        models_dir: Folder `models` of the bundle.
        weights: Checkpoint to publish: best, the epoch with the best validation (final where there was none),
            or final.

    Raises:
        UserError: another `weights`; no checkpoint; the weights cannot be written.
    """
    if weights not in ("best", "final"):
        raise UserError(f"weights: found {weights!r}, expected best or final")
    if idist.get_rank() > 0:
        return
    file, folder = Path(ckpt_dir) / f"{weights}.pt", Path(models_dir)
    file = file if file.is_file() else Path(ckpt_dir) / "final.pt"
    content = load_checkpoint(file)
    before = read_provenance(folder)
    if (folder / MODEL).is_file():
        write_model_file(folder / PREVIOUS, (folder / MODEL).read_bytes())
    digest = write_weights(folder / MODEL, content["network"], content["record"])
    provenance = {**before, **provenance_of(file, content), "sha256": digest}
    provenance["licence"] = str(before.get("licence", "not named")).removesuffix(SINCE) + SINCE
    provenance["trained_before"] = [
        *before.get("trained_before", []),
        {key: before[key] for key in ("data", "training_cases", "steps", "sha256") if key in before},
    ]
    provenance["train"] = sorted({*before.get("train", []), *provenance["train"]})
    write_provenance(folder, provenance)
    card = folder / MODEL_CARD
    text = card.read_text(encoding="utf-8") if card.is_file() else "# Weights\n"
    write_model_file(card, f"{text}\n{trained_on(provenance)}\n".encode())
    logger.info(
        "%s now holds the weights of %s; the previous ones are in %s", folder / MODEL, file.name, PREVIOUS
    )


def trained_on(provenance: Mapping[str, Any]) -> str:
    """A line for models/README.md about a further training."""
    return (
        f"Trained on with {provenance['training_cases']} cases ({provenance['data'] or 'not named'}), "
        f"{provenance['epochs']} epochs; SHA-256 of `{MODEL}` since: `{provenance['sha256']}`."
    )


def seen_cases(models_dir: str) -> dict[str, Any]:
    """The record of the cases that the bundle's weights were trained on, for `splits.check_unseen`."""
    return {"data": {"train": read_provenance(models_dir).get("train", [])}}
