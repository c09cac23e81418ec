"""Put a pre-training run's weights into its bundle, with a model card that states their provenance.

Writes models/model.pt, which `--pretrained bundles/BUNDLE` fine-tunes from, the same weights as
models/model.safetensors, models/provenance.json and the model card, models/README.md. Ship only what the
licence of the training data allows. Further weights of a bundle, such as those of another encoder, go into a
folder of their own with --name: models/NAME, which `--pretrained bundles/BUNDLE/models/NAME` fine-tunes from.
Those of a 2D network go into models/2d.
"""

import argparse
import hashlib
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pretext3d.errors import UserError, install_excepthook
from pretext3d.messages import say
from pretext3d.publishing.archive import read_metadata
from pretext3d.publishing.contents import check_size
from pretext3d.publishing.provenance import MODEL, MODEL_CARD, SAFE_DIGEST, check_entries, check_provenance
from pretext3d.publishing.traces import machine_traces
from pretext3d.publishing.weights import (
    facts_of,
    half_precision,
    metrics_at,
    write_model_file,
    write_provenance,
)
from pretext3d.training.checkpoint_files import resolve_pretrained
from pretext3d.training.checkpoint_io import load_checkpoint
from pretext3d.training.safe_weights import is_installed, write_safetensors

EXAMPLES = """examples
  python tools/ship_weights.py runs/vp bundles/vectorpose --data "the embedded phantom" \\
      --licence Apache-2.0 --command "python -m monai.bundle run --config_file ... --max_epochs 8"
"""


def provenance_of_run(
    run: Path, bundle: Path, data: str, licence: str, command: str
) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    """The checkpoint to ship, its content, and its provenance.

    Raises:
        UserError: not a pre-training of this bundle's method.
    """
    file = resolve_pretrained(run)
    content = load_checkpoint(file)
    record = content["record"]
    if record.get("method") != bundle.name:
        raise UserError(f"run: {run}: found method {record.get('method')!r}, expected {bundle.name!r}")
    at = metrics_at(run / "metrics.csv", content["epoch"])
    if at is None:
        raise UserError(f"{run}: found no metrics.csv with epoch {content['epoch']}, expected a pre-training")
    provenance = {
        "data": data,
        "licence": licence,
        "command": command,
        **facts_of(content),
        "steps": at[0],
        "held_out": at[1],
        "spatial_dims": record["backbone"].get("spatial_dims", 3),
        "channels": record["channels"],
        "pixdim": record["pixdim"],
        "bundle_version": read_metadata(bundle / "configs" / "metadata.json").get("version"),
    }
    return file, content, provenance


def bytes_of(file: Path, content: dict[str, Any], half: bool) -> bytes:
    """The content of model.pt: the checkpoint as it is, or with its weights in 16 bits, in `content`, too.

    Raises:
        UserError: a value beyond 16 bits, or a file that is too large.
    """
    weights = file.read_bytes()
    if half:
        content["network"] = half_precision(content["network"])
        buffer = io.BytesIO()
        torch.save(content, buffer)
        weights = buffer.getvalue()
    check_size(file, len(weights))
    return weights


def model_card(source: str, again: str, provenance: dict[str, Any]) -> str:
    """README.md of the weights that `--pretrained SOURCE` fine-tunes from.

    Args:
        source: Path of the weights.
        again: Arguments of this tool that replace them.
        provenance: Content of their provenance.json.
    """
    axes = provenance["spatial_dims"]
    use = source + f" --spatial_dims {axes}" * (axes != 3)
    note = f"\n{provenance['note']}\n" if provenance.get("note") else ""
    held_out = "".join(f"| {metric} | {value:.4g} |\n" for metric, value in provenance["held_out"].items())
    rows = "".join(
        f"| {key.replace('_', ' ')} | {provenance[key]} |\n"
        for key in ("data", "licence", "training_cases", "seed", "epochs", "steps", "encoder",
                    "spatial_dims", "channels", "pixdim", "precision", "bundle_version", "pretext3d_version",
                    "torch_version", "sha256", SAFE_DIGEST)
    )  # fmt: skip
    return f"""# Weights

`model.pt` was pre-trained with this bundle and is meant for fine-tuning:
`finetune.yaml --pretrained {use}`. Without fine-tuning it cannot segment. It loads with
`torch.load(..., weights_only=True)`. `model.safetensors` holds the same tensors and record in a format that
cannot contain code, and is read in its place. `provenance.json` is this model card for programs.

| | |
|---|---|
{rows}
Held-out cases, at the epoch of these weights:

| metric | |
|---|---|
{held_out}{note}
    {provenance["command"]}

To replace them with the weights of your own run,
`python tools/ship_weights.py RUN {again} --force ...` writes all four files.
"""


def main(words: Sequence[str] | None = None) -> None:
    """Parse the command line, write, and report what was written."""
    install_excepthook()
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("run", type=Path, help="output_dir of a pre-training")
    add("bundle", type=Path, help="folder of the bundle")
    add("--data", required=True, help="name of the training data")
    add("--licence", required=True, help="licence of these data, under which the weights may be distributed")
    add("--command", required=True, help="command that trained the weights")
    add("--note", default="", help="what the metrics mean, such as chance, for the model card")
    add("--half", action="store_true", help="write kernels and matrices in 16 bits, half as large")
    add("--name", default="", help="folder in models/ for further weights: transformer, 2d")
    add("--force", action="store_true", help="replace existing weights")
    options = parser.parse_args(words)
    bundle = options.bundle.resolve()
    if not is_installed():
        raise UserError("found no package safetensors, which writes models/model.safetensors: pip install it")
    if not (bundle / "configs" / "metadata.json").is_file():
        raise UserError(f"bundle: {options.bundle}: found no configs/metadata.json, expected a bundle")
    for option in ("data", "licence", "command", "note"):
        if traces := machine_traces(getattr(options, option)):
            raise UserError(f"--{option}: found {traces[0]!r}, expected nothing specific to this machine")
    said = options.data, options.licence, options.command
    file, content, provenance = provenance_of_run(options.run, bundle, *said)
    if options.name and not re.fullmatch(r"[a-z0-9_]+", options.name):
        raise UserError(f"--name: found {options.name!r}, expected the name of a folder, e.g. 2d")
    place = "/".join(filter(None, ("models", options.name)))
    models = bundle / place
    if (models / MODEL).exists() and not options.force:
        raise UserError(f"bundle: {options.bundle}: found {place}/{MODEL} already, expected none, or --force")
    weights = bytes_of(file, content, options.half)
    provenance |= {"note": options.note} if options.note else {}
    provenance["precision"] = "float16" if options.half else "float32"
    provenance["sha256"] = hashlib.sha256(weights).hexdigest()
    check_entries(provenance, "the model card")
    write_model_file(models / MODEL, weights)
    write_safetensors(models / MODEL, content["network"], content["record"])
    complete = write_provenance(models, provenance)
    source = f"bundles/{bundle.name}"
    again = source + f" --name {options.name}" * bool(options.name) + " --half" * options.half
    source += f"/{place}" * bool(options.name)
    write_model_file(models / MODEL_CARD, model_card(source, again, complete).encode())
    check_provenance(models)
    files = "model.pt, model.safetensors, provenance.json, README.md"
    say(f"wrote {options.bundle}/{place}: {files}, of {file.name} of {options.run}")


if __name__ == "__main__":
    main()
