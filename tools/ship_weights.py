"""Put a pre-training run's weights into its bundle, with a model card that states their provenance.

Writes models/model.pt, which `--pretrained bundles/NAME` fine-tunes from, the same weights as
models/model.safetensors, models/provenance.json and the model card, models/README.md. Ship only what the
licence of the training data allows.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pretext3d.errors import UserError, install_excepthook
from pretext3d.files import sha256_of
from pretext3d.messages import say
from pretext3d.publishing.archive import read_metadata
from pretext3d.publishing.contents import check_size
from pretext3d.publishing.provenance import MODEL, MODEL_CARD, SAFE_DIGEST, check_entries, check_provenance
from pretext3d.publishing.traces import machine_traces
from pretext3d.publishing.weights import facts_of, metrics_at, write_model_file, write_provenance
from pretext3d.training.checkpoint_io import load_checkpoint
from pretext3d.training.pretrained import resolve_pretrained
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
        UserError: not a pre-training of this bundle's method, or a file that is too large.
    """
    file = resolve_pretrained(run)
    content = load_checkpoint(file)
    record = content["record"]
    if record.get("method") != bundle.name:
        raise UserError(f"run: {run}: found method {record.get('method')!r}, expected {bundle.name!r}")
    check_size(file)
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
        "channels": record["channels"],
        "pixdim": record["pixdim"],
        "bundle_version": read_metadata(bundle / "configs" / "metadata.json").get("version"),
        "sha256": sha256_of(file),
    }
    return file, content, provenance


def model_card(name: str, provenance: dict[str, Any]) -> str:
    """models/README.md."""
    held_out = "".join(f"| {metric} | {value:.4g} |\n" for metric, value in provenance["held_out"].items())
    rows = "".join(
        f"| {key.replace('_', ' ')} | {provenance[key]} |\n"
        for key in ("data", "licence", "training_cases", "seed", "epochs", "steps", "encoder", "channels",
                    "pixdim", "bundle_version", "pretext3d_version", "torch_version", "sha256",
                    SAFE_DIGEST)
    )  # fmt: skip
    return f"""# Weights

`model.pt` was pre-trained with this bundle and is meant for fine-tuning:
`finetune.yaml --pretrained bundles/{name}`. Without fine-tuning it cannot segment. It loads with
`torch.load(..., weights_only=True)`. `model.safetensors` holds the same tensors and record in a format that
cannot contain code, and is read in its place. `provenance.json` is this model card for programs.

| | |
|---|---|
{rows}
Held-out cases, at the epoch of these weights:

| metric | |
|---|---|
{held_out}
    {provenance["command"]}

To replace them with the weights of your own run,
`python tools/ship_weights.py RUN bundles/{name} --force ...` writes all four files.
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
    add("--force", action="store_true", help="replace existing weights")
    options = parser.parse_args(words)
    bundle = options.bundle.resolve()
    if not is_installed():
        raise UserError("found no package safetensors, which writes models/model.safetensors: pip install it")
    if not (bundle / "configs" / "metadata.json").is_file():
        raise UserError(f"bundle: {options.bundle}: found no configs/metadata.json, expected a bundle")
    for option in ("data", "licence", "command"):
        if traces := machine_traces(getattr(options, option)):
            raise UserError(f"--{option}: found {traces[0]!r}, expected nothing specific to this machine")
    said = options.data, options.licence, options.command
    file, content, provenance = provenance_of_run(options.run, bundle, *said)
    models = bundle / "models"
    if (models / MODEL).exists() and not options.force:
        raise UserError(f"bundle: {options.bundle}: found models/model.pt already, expected none, or --force")
    check_entries(provenance, "the model card")
    write_model_file(models / MODEL, file.read_bytes())
    write_safetensors(models / MODEL, content["network"], content["record"])
    complete = write_provenance(models, provenance)
    write_model_file(models / MODEL_CARD, model_card(bundle.name, complete).encode())
    check_provenance(models)
    files = "model.pt, model.safetensors, provenance.json, README.md"
    say(f"wrote {options.bundle}/models: {files}, of {file.name} of {options.run}")


if __name__ == "__main__":
    main()
