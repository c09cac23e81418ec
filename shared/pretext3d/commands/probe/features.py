"""The features of cases, by a frozen encoder or without a network, and what reads classes from them."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from pretext3d.commands.compare.plan import resolved
from pretext3d.commands.probe.cases import Cases
from pretext3d.commands.probe.options import Source
from pretext3d.errors import UserError
from pretext3d.training.checkpoint_files import resolve_pretrained

if TYPE_CHECKING:
    import torch

__all__ = ["intensity_features", "network_features", "predictions"]


def network_features(cases: Cases, source: Source, network: Mapping[str, Any], seed: int) -> "torch.Tensor":
    """The pooled features (n, d) of every case: the coarsest map of the frozen encoder, averaged over space.

    Slices of a volume are averaged, too. This is what the output layer of a fine-tuning reads.

    Args:
        cases: Cases.
        source: Weights.
        network: Keys of the network of random weights.
        seed: Seed of random weights.

    Raises:
        UserError: features that are not finite.
    """
    import torch

    from pretext3d.training.precision import AutocastInferer
    from pretext3d.training.preprocessing import check_spacing
    from pretext3d.training.pretrained import read_record
    from pretext3d.training.probe_inputs import FrozenEncoder

    keys = {**cases.given, "pretrained": source.path, **({"encoder": ""} if source.path else network)}
    torch.manual_seed(seed)  # of random weights
    names = ["network_def", "batch_size", "precision", "device", "spacing"]
    net, batch_size, precision, device, spacing = resolved(cases.config, keys, names).values()
    if source.path:
        there = read_record(source.path).get("pixdim") or []
        check_spacing(resolve_pretrained(source.path), there, spacing)
    backbone = net.to(device).backbone
    inferer = AutocastInferer(precision, device)
    reader = FrozenEncoder(backbone, inferer, device, batch_size=batch_size, max_windows=1)
    found = reader.pooled(cases.dataset, list(cases.groups.values()))
    if not bool(found.isfinite().all()):
        raise UserError(f"{source.name}: found features that are not finite, expected other weights")
    return found


def intensity_features(cases: Cases) -> "torch.Tensor":
    """The mean and the standard deviation of each channel of a case (n, 2 c), as its file has it."""
    import torch
    from monai.transforms import Compose

    from pretext3d.data.loading import LoadCased, SelectChannelsd

    steps = cases.dataset.deterministic.transforms
    load = Compose([step for step in steps if isinstance(step, LoadCased | SelectChannelsd)])
    rows = []
    for group in cases.groups.values():
        images = [load(dict(cases.dataset.data[index]))["image"].as_tensor().float() for index in group]
        values = torch.cat([image.flatten(1) for image in images], dim=1)
        rows.append(torch.cat([values.mean(1), values.std(1, correction=0)]))
    return torch.stack(rows)


def predictions(
    features: "torch.Tensor", cases: Cases, labelled: np.ndarray, neighbours: int
) -> Iterator[tuple[str, np.ndarray, float]]:
    """Name of each reader, the class numbers that it finds for the held-out cases, and its C."""
    import torch

    from pretext3d.training.probe_scores import logistic_classes, nearest_classes

    known, asked = features[torch.from_numpy(labelled)], features[torch.from_numpy(cases.held_out)]
    classes = torch.from_numpy(cases.classes[labelled])
    people = [person for person, taken in zip(cases.subjects, labelled, strict=True) if taken]
    allowed = torch.ones(len(asked), len(known), dtype=torch.bool)  # a split divides no subject
    found, strength = logistic_classes(asked, known, classes, people)
    yield "linear", found.numpy(), strength
    yield "knn", nearest_classes(asked, known, classes, allowed, neighbours).numpy(), np.nan
