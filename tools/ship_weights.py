"""Put a pre-training run's weights into its bundle, with a card that says where they come from.

Writes models/model.pt, which `--pretrained bundles/NAME` fine-tunes from, models/provenance.json and the
card, models/README.md. Ship only what the licence of the training data allows.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pretext3d
import torch
from pretext3d.errors import UserError, install_excepthook
from pretext3d.files import sha256_of, write_whole
from pretext3d.publishing.archive import read_metadata
from pretext3d.publishing.contents import check_size
from pretext3d.publishing.provenance import CARD, MODEL, PROVENANCE, check_story
from pretext3d.publishing.traces import machine_traces
from pretext3d.training.checkpoint_io import load_checkpoint
from pretext3d.training.pretrained import resolve_pretrained

NUMBERS = ("epoch", "step", "seconds", "train_loss", "learning_rate")  # of metrics.csv, no metric
EXAMPLES = """examples
  python tools/ship_weights.py runs/vp bundles/vectorpose --data "the embedded phantom" \\
      --licence Apache-2.0 --command "python -m monai.bundle run --config_file ... --max_epochs 8"
"""


def metrics_at(run: Path, epoch: int) -> tuple[int, dict[str, float]]:
    """Steps done and the validation's metrics after an epoch, from a run's metrics.csv.

    Raises:
        UserError: the file is not there or has no such epoch.
    """
    path = run / "metrics.csv"
    if not path.is_file():
        raise UserError(f"{run}: found no metrics.csv, expected the output_dir of a pre-training")
    table = pd.read_csv(path).set_index("epoch", drop=False)
    if epoch not in table.index:
        raise UserError(f"{path}: found no epoch {epoch}, expected the one of the weights")
    row = table.loc[epoch].dropna()
    return int(row["step"]), {name: float(value) for name, value in row.items() if name not in NUMBERS}


def story_of(run: Path, bundle: Path, data: str, licence: str, command: str) -> tuple[Path, dict[str, Any]]:
    """The checkpoint to ship, and where it comes from.

    Raises:
        UserError: no pre-training of this bundle's method, or too large a file.
    """
    file = resolve_pretrained(run)
    content = load_checkpoint(file)
    record = content["record"]
    if record.get("method") != bundle.name:
        raise UserError(f"run: {run}: found method {record.get('method')!r}, expected {bundle.name!r}")
    check_size(file)
    steps, metrics = metrics_at(run, content["epoch"])
    return file, {
        "data": data,
        "licence": licence,
        "command": command,
        "training_cases": len(record["data"]["train"]),
        "seed": record["seed"],
        "epochs": content["epoch"],
        "steps": steps,
        "held_out": metrics,
        "encoder": record["backbone"]["encoder"],
        "channels": record["channels"],
        "pixdim": record["pixdim"],
        "bundle_version": read_metadata(bundle / "configs" / "metadata.json").get("version"),
        "pretext3d_version": pretext3d.__version__,
        "torch_version": str(torch.__version__),
        "sha256": sha256_of(file),
    }


def card(name: str, story: dict[str, Any]) -> str:
    """models/README.md."""
    held_out = "".join(f"| {metric} | {value:.4g} |\n" for metric, value in story["held_out"].items())
    rows = "".join(
        f"| {key.replace('_', ' ')} | {story[key]} |\n"
        for key in ("data", "licence", "training_cases", "seed", "epochs", "steps", "encoder", "channels",
                    "pixdim", "bundle_version", "pretext3d_version", "torch_version", "sha256")
    )  # fmt: skip
    return f"""# Weights

`model.pt`: pre-trained by this bundle, to be fine-tuned: `finetune.yaml --pretrained bundles/{name}`.
Without fine-tuning it cannot segment. It loads with `torch.load(..., weights_only=True)`; `provenance.json`
holds this card for programs.

| | |
|---|---|
{rows}
Held-out cases, at the epoch of these weights:

| metric | |
|---|---|
{held_out}
    {story["command"]}

Your own run's weights in their place: `python tools/ship_weights.py RUN bundles/{name} --force ...` writes
all three files.
"""


def main(words: Sequence[str] | None = None) -> None:
    """Parse the command line, write, say what was written."""
    install_excepthook()
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("run", type=Path, help="output_dir of a pre-training")
    add("bundle", type=Path, help="the bundle's folder")
    add("--data", required=True, help="what the weights were trained on")
    add("--licence", required=True, help="of these data, under which the weights may be given away")
    add("--command", required=True, help="what trained them")
    add("--force", action="store_true", help="replace weights that are there already")
    options = parser.parse_args(words)
    bundle = options.bundle.resolve()
    if not (bundle / "configs" / "metadata.json").is_file():
        raise UserError(f"bundle: {options.bundle}: found no configs/metadata.json, expected a bundle")
    for option in ("data", "licence", "command"):
        if traces := machine_traces(getattr(options, option)):
            raise UserError(f"--{option}: found {traces[0]!r}, expected nothing of this machine's alone")
    file, story = story_of(options.run, bundle, options.data, options.licence, options.command)
    models = bundle / "models"
    if (models / MODEL).exists() and not options.force:
        raise UserError(f"bundle: {options.bundle}: found models/model.pt already, expected none, or --force")
    check_story(story, "the card")
    contents = {
        MODEL: file.read_bytes(),
        PROVENANCE: (json.dumps(story, indent=4) + "\n").encode(),
        CARD: card(bundle.name, story).encode(),
    }
    try:
        models.mkdir(exist_ok=True)
        for name, content in contents.items():
            write_whole(models / name, content)
    except OSError as error:
        raise UserError(f"bundle: {models} cannot be written: {error}") from error
    print(
        f"wrote {options.bundle}/models: model.pt ({file.name} of {options.run}), provenance.json, README.md"
    )


if __name__ == "__main__":
    main()
