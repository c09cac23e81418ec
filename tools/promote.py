"""A fine-tuned run becomes a bundle that can be deployed: segment, evaluate, train on, serve by MONAI Label.

The bundle holds the run's settings as constants in its configuration, its weights as a plain state dict in
models/model.pt, where they come from in docs/README.md and models/provenance.json, and the package itself:
a program that has MONAI needs nothing else. Beside it: promote_configs.py, which writes the YAML.
"""

import argparse
import json
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pretext3d
import yaml
from pretext3d.errors import UserError, install_excepthook
from pretext3d.files import draft_folder
from pretext3d.publishing.archive import check_name, check_version
from pretext3d.publishing.deployment import provenance_of
from pretext3d.publishing.weights import write_provenance, write_weights
from pretext3d.training.checkpoint_io import load_checkpoint
from pretext3d.training.pretrained import load_segmentation, resolve_pretrained
from promote_configs import as_saved, evaluate_yaml, inference_yaml, multi_gpu_yaml, train_yaml
from promote_text import metadata, models_readme, readme

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = """examples:
  python tools/promote.py runs/vp_8 --name spleen_ct --labels spleen --licence "CC BY-SA 4.0"
  python tools/promote.py runs/vp_8 --name hippocampus_mr --labels anterior posterior \\
      --licence "ours, not to be passed on" --version 0.2.0
"""
# words in a bundle's name from which MONAI Label concludes on another task
OTHER_TASKS = ("deepedit", "deepgrow", "detection", "classification")


@dataclass(frozen=True)
class Run:
    """A fine-tuned run: its configuration, its weights and what they are.

    Attributes:
        config: the merged configuration that the run has saved.
        checkpoint: the file with its weights.
        content: what that file holds.
        bundle: the bundle whose finetune.yaml it ran.
        profile: the profile that ran.
    """

    config: dict[str, Any]
    checkpoint: Path
    content: dict[str, Any]
    bundle: Path
    profile: str

    @property
    def record(self) -> dict[str, Any]:
        """What the run was: network, spacing, normalisation, classes."""
        record: dict[str, Any] = self.content["record"]
        return record


def read_run(folder: Path, weights: str) -> Run:
    """A fine-tuned run from its folder.

    Raises:
        UserError: not a run, a run that does not segment, or one that has not reached its end.
    """
    saved = folder / "config.yaml"
    if not saved.is_file():
        raise UserError(f"run: {folder}: found no config.yaml, expected the output_dir of a finetune.yaml")
    checkpoint = folder / "checkpoints" / f"{weights}.pt"
    if not checkpoint.is_file():
        found = resolve_pretrained(folder).name if (folder / "checkpoints").is_dir() else "nothing"
        raise UserError(
            f"run: {folder}: found {found}, expected a finished run with checkpoints/{weights}.pt"
        )
    content = load_checkpoint(checkpoint)
    method = content["record"].get("method")
    if method != "segmentation":
        raise UserError(f"run: {folder}: found method {method!r}, expected a run of a finetune.yaml")
    config = as_saved(yaml.safe_load(saved.read_text()))
    return Run(config, checkpoint, content, bundle_of(content["record"], folder), profile_of(config, folder))


def bundle_of(record: dict[str, Any], folder: Path) -> Path:
    """The bundle whose finetune.yaml wrote a record.

    Raises:
        UserError: the record does not say, or names one that is not here.
    """
    names = sorted(path.parents[1].name for path in (ROOT / "bundles").glob("*/configs/finetune.yaml"))
    name = record.get("bundle")
    if name is None:
        raise UserError(
            f"run: {folder}: found no `bundle` in its checkpoint's record, expected the bundle whose "
            "finetune.yaml ran; fine-tune again with this version"
        )
    if name not in names:
        raise UserError(f"run: {folder}: found bundle {name!r}, expected one of {', '.join(names)}")
    return ROOT / "bundles" / str(name)


def profile_of(config: dict[str, Any], folder: Path) -> str:
    """The profile that a run used: as given, or as its log says where the machine decided."""
    profile = str(config.get("profile"))
    log = folder / "log.txt"
    if profile.startswith("$") and log.is_file():
        said = re.findall(r"; profile (\w+)$", log.read_text(), re.MULTILINE)
        profile = said[0] if said else profile
    if profile not in config.get("profiles", {}):
        raise UserError(
            f"run: {folder}: found profile {profile!r}, expected one of its config.yaml's profiles"
        )
    return profile


def check_arguments(options: argparse.Namespace) -> None:
    """What can be said before the run is read.

    Raises:
        UserError: a bad name or version, no licence, labels twice, a folder that exists.
    """
    name, labels = check_name(options.name, "--name"), options.labels
    for task in OTHER_TASKS:
        if task in name.lower():
            raise UserError(
                f"--name: found {name!r}, expected one without {task!r}: MONAI Label would take it for that"
            )
    check_version(options.version, "--version")
    if not options.licence.strip():
        raise UserError("--licence: found nothing, expected that of the data that the run was trained on")
    lower = [label.strip().lower() for label in labels]
    if len({*lower, "background", ""}) != len(labels) + 2:
        raise UserError(f"--labels: found {labels}, expected different names, without background")
    if (options.output_dir / name).exists():
        raise UserError(f"--output_dir: found {options.output_dir / name} already, expected no such folder")


def check_labels(labels: Sequence[str], class_names: Sequence[str]) -> None:
    """One name for each class of the run.

    Raises:
        UserError: more or fewer.
    """
    own = list(class_names[1:])
    if len(labels) != len(own):
        raise UserError(
            f"--labels: found {len(labels)} ({', '.join(labels)}), expected {len(own)}, for the run's "
            f"classes {', '.join(own)}"
        )


def promote(run: Run, name: str, labels: Sequence[str], version: str, licence: str, output_dir: Path) -> Path:
    """Write the bundle; all of it or nothing. Returns its folder.

    Raises:
        UserError: another number of labels than the run has classes; a folder that cannot be written.
    """
    check_labels(labels, run.record["class_names"])
    classes = ["background", *labels]
    target = output_dir / name
    try:
        with draft_folder(target) as draft:
            fill(draft, run, name, classes, {"bundle_version": version, "licence": licence})
            draft.rename(target)
    except OSError as error:
        raise UserError(f"--output_dir: {output_dir} cannot be written: {error}") from error
    return target


def fill(folder: Path, run: Run, name: str, classes: Sequence[str], told: dict[str, str]) -> None:
    """Write a bundle's files.

    Args:
        folder: the bundle's, empty.
        run: what was trained.
        name: of the bundle.
        classes: names of the classes, background first.
        told: bundle_version, and licence of the data, as the user gives them.
    """
    for part in ("configs", "docs", "models"):
        (folder / part).mkdir()
    network = load_segmentation(str(run.checkpoint))  # builds and fits, or tells what does not
    digest = write_weights(folder / "models" / "model.pt", network.state_dict())
    story = {"name": name, **told, "labels": list(classes[1:]), "method": run.bundle.name}
    story |= {**provenance_of(run.checkpoint, run.content), "sha256": digest}
    write_provenance(folder / "models", story)
    templates = run.bundle / "configs"
    configs = {
        "train.yaml": train_yaml(templates / "finetune.yaml", run, name, classes),
        "evaluate.yaml": evaluate_yaml(templates / "evaluate.yaml", name),
        "inference.yaml": inference_yaml(templates / "inference.yaml", run, name),
        "multi_gpu_train.yaml": multi_gpu_yaml(templates / "multi_gpu_train.yaml", name),
    }
    for file, text in configs.items():
        (folder / "configs" / file).write_text(text)
    own = json.loads((templates / "metadata.json").read_text())
    described = json.dumps(metadata(own, story, run.record, classes), indent=4)
    (folder / "configs" / "metadata.json").write_text(described + "\n")
    shutil.copy(templates / "logging.conf", folder / "configs" / "logging.conf")
    shutil.copy(ROOT / "LICENSE", folder / "LICENSE")
    (folder / "docs" / "README.md").write_text(readme(story, run.record, classes))
    (folder / "models" / "README.md").write_text(models_readme(story))
    shutil.copytree(
        Path(pretext3d.__file__).parent,
        folder / "pretext3d",
        ignore=shutil.ignore_patterns("__pycache__", "*.pyc", ".*"),
    )


def main(words: Sequence[str] | None = None) -> None:
    """Parse the command line, promote, say what was written."""
    install_excepthook()
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("run", type=Path, help="the output_dir of a finetune.yaml of any bundle")
    add("--name", required=True, help="of the bundle and its folder, e.g. spleen_ct")
    add("--labels", nargs="+", required=True, metavar="LABEL", help="names of the classes 1, 2, ... in order")
    add(
        "--licence",
        required=True,
        help="of the data that the run was trained on: the weights inherit its terms",
    )
    add("--output_dir", type=Path, default=Path("bundles_out"), help="default: %(default)s")
    add("--version", default="0.1.0", help="default: %(default)s")
    add(
        "--weights",
        choices=("final", "best"),
        default="final",
        help="the last step's, which evaluate.yaml measures, or the best validation's; default: %(default)s",
    )
    options = parser.parse_args(words)
    check_arguments(options)
    run = read_run(options.run, options.weights)
    folder = promote(run, options.name, options.labels, options.version, options.licence, options.output_dir)
    print(f"wrote {folder}: {', '.join(options.labels)}; weights {run.checkpoint.name} of {run.bundle.name}")
    print(
        "next, or docs/monai-label.md:\n  python -m monai.bundle run --config_file "
        f"{folder}/configs/inference.yaml --dataset_dir SCANS"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
