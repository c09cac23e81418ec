"""The weights of a deployable bundle: a plain state dict in `models/model.pt`, its provenance beside it.

Other programs read that file (MONAI Label, `monai.bundle.load`, the exports), so it holds the tensors of
`network_def` and nothing else. What a checkpoint's record tells is in the bundle's configuration and in
`models/provenance.json`.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from torch import nn

from pretext3d.data.checks import check_cases
from pretext3d.data.prepare import listing
from pretext3d.data.volumes import strip_extension
from pretext3d.errors import UserError
from pretext3d.publishing.provenance import CARD, MODEL, read_provenance
from pretext3d.publishing.weights import (
    facts_of,
    metrics_at,
    write_model_file,
    write_provenance,
    write_weights,
)
from pretext3d.training.checkpoint_io import load_checkpoint, one_line

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
SINCE = "; of the cases trained on since: not named"  # after the licence of the first weights' data


def load_weights(network: nn.Module, path: str | Path) -> None:
    """Load a state dict into a network; every tensor has to fit.

    Args:
        network: what is loaded, in place.
        path: the state dict's file; '' = leave the network as it is.

    Raises:
        UserError: no such file, no state dict, or one of another network.
    """
    if not path:
        return
    if not Path(path).is_file():
        raise UserError(f"{path}: not found; expected the weights of this bundle")
    try:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # whatever zip, pickle or torch make of a foreign file
        raise UserError(
            f"{path}: {one_line(error)}; expected a state dict of this bundle's network"
        ) from error


def check_channels(found: int, expected: int) -> None:
    """Make sure that the images have as many channels as the network takes.

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
    num_classes: int,
    channels: int | Sequence[int] | None = None,
    cache_dir: str = "",
) -> None:
    """Check the images and labels that a training was given from outside, as `prepare_cases` does its own.

    Args:
        cases: with `image` and `label`; a case without `id` is called after its image.
        in_channels: of the network.
        num_classes: of the network, background included.
        channels: indices of the channels to use; None = all.
        cache_dir: verdicts are kept there.

    Raises:
        UserError: no case, or bad ones, with the reason for each; images of another number of channels.
    """
    named = [{"id": strip_extension(Path(str(case["image"])).name), **case} for case in cases]
    if not named:
        raise UserError("found no labelled case to train on, expected one or more")
    cache = str(Path(cache_dir).expanduser()) if cache_dir else ""
    checked = check_cases(named, channels, cache, require_label=True, max_label=num_classes - 1)
    if checked.bad:
        raise UserError(f"{len(checked.bad)} of {len(named)} labelled cases are bad: {listing(checked)}")
    check_channels(checked.channels, in_channels)


def provenance_of(checkpoint: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    """What a fine-tuning's checkpoint tells of its weights, without any path.

    Args:
        checkpoint: its file, in a run's folder `checkpoints`.
        content: what it holds.

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
    """Make a finished training's weights those of its bundle; the ones before stay as model_previous.pt.

    Args:
        ckpt_dir: the training's checkpoints.
        models_dir: the bundle's folder models.
        weights: best, the epoch with the best validation, final where there was none; or final.

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
    digest = write_weights(folder / MODEL, content["network"])
    story = {**before, **provenance_of(file, content), "sha256": digest}
    story["licence"] = str(before.get("licence", "not named")).removesuffix(SINCE) + SINCE
    story["trained_before"] = [
        *before.get("trained_before", []),
        {key: before[key] for key in ("data", "training_cases", "steps", "sha256") if key in before},
    ]
    story["train"] = sorted({*before.get("train", []), *story["train"]})
    write_provenance(folder, story)
    card = folder / CARD
    told = card.read_text(encoding="utf-8") if card.is_file() else "# Weights\n"
    write_model_file(card, f"{told}\n{trained_on(story)}\n".encode())
    logger.info("%s holds the weights of %s now; those before are in %s", folder / MODEL, file.name, PREVIOUS)


def trained_on(story: Mapping[str, Any]) -> str:
    """A line of models/README.md on a further training."""
    return (
        f"Trained on with {story['training_cases']} cases ({story['data'] or 'not named'}), "
        f"{story['epochs']} epochs; SHA-256 of `{MODEL}` since: `{story['sha256']}`."
    )


def seen_cases(models_dir: str) -> dict[str, Any]:
    """The record of the cases that the bundle's weights were trained on, for `splits.check_unseen`."""
    return {"data": {"train": read_provenance(models_dir).get("train", [])}}
