"""Writing the bundle of a fine-tuned run: completely or not at all."""

import argparse
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import pretext3d
from pretext3d.commands.promote.configs import evaluate_yaml, inference_yaml, multi_gpu_yaml, train_yaml
from pretext3d.commands.promote.run import Run, read_run
from pretext3d.commands.promote.text import label_names, metadata, models_readme, readme
from pretext3d.errors import UserError
from pretext3d.files import draft_folder
from pretext3d.literals import check_literal
from pretext3d.messages import say
from pretext3d.publishing.contents import package_files
from pretext3d.publishing.deployment import provenance_of
from pretext3d.publishing.weights import write_provenance, write_weights
from pretext3d.training.pretrained import load_segmentation


def check_labels(labels: Sequence[str], own: Sequence[str]) -> None:
    """Check that there is one name per class of the run, or per region, in their order.

    Args:
        labels: Names that the user gives.
        own: Names in the run's record, without the background.

    Raises:
        UserError: more or fewer; the run's own names in another order.
    """
    if list(labels) != list(own) and sorted(labels) == sorted(own):
        raise UserError(
            f"--labels: found {', '.join(labels)}, expected the order of the run's classes: {', '.join(own)}"
        )
    if len(labels) != len(own):
        raise UserError(
            f"--labels: found {len(labels)} ({', '.join(labels)}), expected {len(own)}, for the run's "
            f"classes {', '.join(own)}"
        )


def own_labels(own: Sequence[str]) -> list[str]:
    """The names of the foreground classes as the datalist of the run gives them.

    Args:
        own: Names in the run's record, without the background.

    Raises:
        UserError: the datalist does not name each of them, or names one by what MONAI would evaluate.

    Examples:
        >>> own_labels(["anterior", "posterior"])
        ['anterior', 'posterior']
    """
    if any(re.fullmatch(r"label \d+", name) for name in own):
        raise UserError(
            f"--labels: found none, expected {len(own)} names: the run's datalist does not name the classes "
            f"{', '.join(own)}"
        )
    check_literal(list(own), "--labels: the names in the run's datalist", "give others by --labels")
    return list(own)


def promote(
    run: Run,
    name: str,
    labels: Sequence[str],
    given: dict[str, str],
    output_dir: Path,
    trusted: bool = False,
) -> Path:
    """Write the bundle, completely or not at all. Returns its folder.

    Args:
        run: Run that is promoted.
        name: Name of the bundle.
        labels: Names of the classes 1, 2, ...
        given: Entries bundle_version, licence and, where it is not the folder's name, data.
        output_dir: Folder that receives the bundle's folder.
        trusted: Whether to take over expressions and components of the run's configuration.

    Raises:
        UserError: another number of labels than the run has classes; a name of a class or of the data that
            MONAI would evaluate; a configuration that is not plain; a folder that cannot be written.
    """
    check_labels(labels, run.foreground)
    named = given.get("data") or run.record["data"].get("name", "")
    check_literal(named, "data: the name of the run's data set", "give another one by --data")
    check_literal(labels, "--labels")
    classes = ["background"] * (len(run.record["class_names"]) - len(run.foreground)) + list(labels)
    target = output_dir / name
    try:
        with draft_folder(target) as draft:
            fill(draft, run, name, classes, {**given, "data": named}, trusted)
            draft.rename(target)
    except OSError as error:
        raise UserError(f"--output_dir: {output_dir} cannot be written: {error}") from error
    return target


def fill(
    folder: Path, run: Run, name: str, classes: Sequence[str], given: dict[str, str], trusted: bool = False
) -> None:
    """Write a bundle's files.

    Args:
        folder: Folder of the bundle, empty.
        run: Run that is promoted.
        name: Name of the bundle.
        classes: Names of the classes, background first; or of the regions.
        given: Entries bundle_version, licence (of the data) and data of the provenance.
        trusted: Whether to take over expressions and components of the run's configuration.
    """
    for part in ("configs", "docs", "models"):
        (folder / part).mkdir()
    network = load_segmentation(run.pretrained)  # builds and loads, or reports what does not fit
    data = {**run.record["data"], "name": given["data"]}
    record = {**run.record, "class_names": list(classes), "data": data}
    digest = write_weights(folder / "models" / "model.pt", network.state_dict(), record)
    values = label_names(run.settings, classes)
    provenance = {"name": name, "labels": [one for value, one in values.items() if value]}
    provenance["method"] = run.bundle.name
    provenance |= {**provenance_of(run.checkpoint, run.content), **given, "sha256": digest}
    write_provenance(folder / "models", provenance)
    templates = run.bundle / "configs"
    configs = {
        "train.yaml": train_yaml(templates / "finetune.yaml", run, name, classes, trusted),
        "evaluate.yaml": evaluate_yaml(templates / "evaluate.yaml", name),
        "inference.yaml": inference_yaml(templates / "inference.yaml", run, name),
        "multi_gpu_train.yaml": multi_gpu_yaml(templates / "multi_gpu_train.yaml", name),
    }
    for file, text in configs.items():
        (folder / "configs" / file).write_text(text)
    own = json.loads((templates / "metadata.json").read_text())
    described = json.dumps(metadata(own, provenance, run.settings, values), indent=4)
    (folder / "configs" / "metadata.json").write_text(described + "\n")
    shutil.copy(templates / "logging.conf", folder / "configs" / "logging.conf")
    shutil.copy(run.bundle / "LICENSE", folder / "LICENSE")
    (folder / "docs" / "README.md").write_text(readme(provenance, run.settings, values))
    (folder / "models" / "README.md").write_text(models_readme(provenance))
    package = Path(pretext3d.__file__).parent
    for path in package_files(package):
        copy = folder / path.relative_to(package.parent)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)


def promote_run(options: argparse.Namespace) -> int:
    """Promote a run, report what was written and the next command. Returns the exit code."""
    run = read_run(options.run, options.weights, options.bundle)
    labels = options.labels or own_labels(run.foreground)
    given = {"bundle_version": options.version, "licence": options.licence}
    given |= {"data": options.data} if options.data else {}
    folder = promote(run, options.name, labels, given, options.output_dir, options.trust_config)
    say(f"wrote {folder}: {', '.join(labels)}; weights {run.checkpoint.name} of {run.bundle.name}")
    say(
        "next, or docs/monai-label.md:\n  python -m monai.bundle run --config_file "
        f"{folder}/configs/inference.yaml --dataset_dir SCANS"
    )
    return 0
