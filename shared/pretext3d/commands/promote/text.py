"""The texts of a promoted bundle: metadata.json, docs/README.md, models/README.md."""

from collections.abc import Mapping, Sequence
from typing import Any

from pretext3d.data.labels import LabelMap, recorded_labels
from pretext3d.errors import one_line

PLANES = ("sagittal", "coronal", "axial")
REQUIREMENTS = ("monai_version", "pytorch_version", "numpy_version", "required_packages_version")


def training_of(provenance: dict[str, Any]) -> list[tuple[str, str]]:
    """The provenance of the weights, as names and values for a table."""
    steps = "" if provenance["steps"] is None else f"{provenance['steps']} steps, "
    best = provenance["best_mean_dice"]
    dice = (
        "none was measured"
        if best is None
        else f"mean Dice {best:.4f} after epoch {provenance['best_epoch']}"
    )
    return [
        ("data", f"{provenance['data'] or 'not named'}, {provenance['training_cases']} labelled cases"),
        ("licence of the data", provenance["licence"]),
        ("first weights", provenance["pretrained"] or "random"),
        ("network", f"{provenance['encoder']}, fine-tuned with {provenance['method']}'s configuration"),
        ("length", f"{steps}{provenance['epochs']} epochs"),
        ("seed", str(provenance["seed"])),
        (
            "these weights",
            "of the best validation" if provenance["weights"] == "best" else "of the last step",
        ),
        ("best validation", dice),
        ("SHA-256 of models/model.pt", f"`{provenance['sha256']}`"),
        ("version", provenance["bundle_version"]),
        ("Pretext3D, torch", f"{provenance['pretext3d_version']}, {provenance['torch_version']}"),
    ]


def table(rows: Sequence[tuple[str, str]]) -> str:
    """A Markdown table without headings; names from elsewhere stay within their cell."""
    cells = [(name, one_line(value).replace("|", "\\|")) for name, value in rows]
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in cells)])


def input_of(record: Mapping[str, Any]) -> tuple[str, str, str]:
    """What a network segments (plural), one of it, and what its grid consists of.

    Examples:
        >>> input_of({"backbone": {"spatial_dims": 2}, "slices": {"axis": 2, "every": 1}})
        ('axial slices of volumes', 'volume', 'pixels')
    """
    if record["backbone"].get("spatial_dims", 3) == 3:
        return "volumes", "volume", "voxels"
    slices = record.get("slices")
    if not slices:
        return "images", "image", "pixels"
    return f"{PLANES[slices.get('axis', 2)]} slices of volumes", "volume", "pixels"


def label_names(record: Mapping[str, Any], classes: Sequence[str]) -> dict[int, str]:
    """The name of each label value that results have, ascending.

    Args:
        record: What the bundle holds of the run's record.
        classes: Names of the classes, background first; or of the regions.

    Examples:
        >>> label_names({"num_classes": 2, "labels": {"values": [0, 255]}}, ["background", "vessel"])
        {0: 'background', 255: 'vessel'}
    """
    labels = LabelMap.of(recorded_labels(record))
    named = dict(zip(labels.order or labels.values, classes, strict=True))
    return {0: "background", **dict(sorted(named.items()))}


def foreground(names: Mapping[int, str]) -> str:
    """The names of the label values above 0, in one line."""
    return ", ".join(name for value, name in names.items() if value)


def metadata(
    own: dict[str, Any], provenance: dict[str, Any], record: Mapping[str, Any], values: Mapping[int, str]
) -> dict[str, Any]:
    """metadata.json.

    Args:
        own: Metadata of the bundle that was fine-tuned.
        provenance: Provenance of the weights.
        record: What the bundle holds of the run's record.
        values: Name of each label value that results have.
    """
    channels, roi_size = record["channels"], list(record["roi_size"])
    low = -1 if "mean_maximum" in record["normalisation"] else 0
    names, segmented = foreground(values), input_of(record)[0]
    listed = ", ".join(f"{value} {name}" for value, name in values.items())
    outputs_are = "region, of logits" if recorded_labels(record).get("regions") else "class"
    common = {"type": "image", "spatial_shape": roi_size, "dtype": "float32", "is_patch_data": True}
    inputs = {
        **common, "format": "magnitude", "modality": "any", "num_channels": channels, "value_range": [low, 1],
        "channel_def": {str(i): "image" if channels == 1 else f"image {i}" for i in range(channels)},
    }  # fmt: skip
    outputs = {
        **common, "format": "segmentation", "num_channels": record["num_classes"], "value_range": [],
        "channel_def": {str(value): name for value, name in values.items()},
    }  # fmt: skip
    return {
        "schema": own["schema"],
        "version": provenance["bundle_version"],
        "changelog": {
            provenance[
                "bundle_version"
            ]: f"promoted from a run fine-tuned on {provenance['data'] or 'own data'}"
        },
        **{key: own[key] for key in REQUIREMENTS},
        "supported_apps": {"monai-label": ""},
        "name": provenance["name"],
        "task": f"Segmentation of {names} in {segmented}",
        "description": f"Segments {names} in {segmented}. A {provenance['encoder']} network, fine-tuned on "
        f"{provenance['training_cases']} labelled cases of {provenance['data'] or 'own data'}.",
        "authors": own["authors"],
        "copyright": own["copyright"],
        "data_source": f"{provenance['data'] or 'not named'} (licence: {provenance['licence']})",
        "data_type": "png, jpeg, tiff or nibabel" if segmented == "images" else own["data_type"],
        "image_classes": f"{channels} channel(s), scaled as configs/inference.yaml says",
        "label_classes": listed,
        "pred_classes": f"as label_classes, one channel per {outputs_are}",
        "intended_use": own["intended_use"],
        "references": own["references"],
        "network_data_format": {"inputs": {"image": inputs}, "outputs": {"pred": outputs}},
    }


def readme(provenance: dict[str, Any], record: Mapping[str, Any], names: Mapping[int, str]) -> str:
    """docs/README.md."""
    spacing = " x ".join(f"{edge:g}" for edge in record["pixdim"] or []) or ""
    segmented, one, elements = input_of(record)
    grid = f"at a spacing of {spacing} mm" if spacing else f"at each {one}'s own spacing"
    shape = [1, record["channels"], *record["roi_size"]]
    values = "\n".join(f"| {value} | {name} |" for value, name in names.items())
    run = "python -m monai.bundle run --config_file"
    return f"""# {provenance["name"]}

Segments {foreground(names)} in {segmented} of {record["channels"]} channel(s),
{grid}, with windows of {" x ".join(map(str, record["roi_size"]))} {elements}. Research; not for clinical use.

| value | class |
|---|---|
{values}

## Use

In the bundle's folder, with MONAI and the packages that configs/metadata.json names installed:

    {run} configs/inference.yaml --dataset_dir scans
    {run} "['configs/train.yaml','configs/evaluate.yaml']" --dataset_dir labelled
    {run} configs/train.yaml --dataset_dir labelled

The third trains on, as MONAI Label does with the labels that it has saved: models/model.pt is then the new
training's, model_previous.pt the one before. TorchScript is made by tracing:

    python -m monai.bundle ckpt_export network_def --filepath models/model.ts \\
        --ckpt_file models/model.pt --meta_file configs/metadata.json \\
        --config_file configs/inference.yaml --use_trace True --input_shape "{shape}"

## Where the weights come from

{table(training_of(provenance))}

The best validation is on cases that were held out of the training, but it also chose the epoch: an
evaluation on cases that played no part says more. Weights inherit the terms of the data that they were
trained on, {provenance["licence"]}: look them up before you pass this bundle on.
"""


def models_readme(provenance: dict[str, Any]) -> str:
    """models/README.md."""
    return f"""# Weights

`model.pt` is the state dict of `network_def` in `configs/inference.yaml`. `provenance.json` says where it
comes from, and is written again when `train.yaml` replaces the weights. At first they were:

{table(training_of(provenance))}
"""
