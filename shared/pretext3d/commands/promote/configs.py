"""The configurations of a promoted bundle: those of the bundle that was fine-tuned, with this run's settings.

What a run finds in its data (channels, spacing, classes) are constants here, and no data set is asked for:
MONAI Label gives its own lists of cases. The files of the bundle are what tools/bundles wrote from its
template; an edit that finds nothing to change is an error.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from pretext3d.checking import brief
from pretext3d.commands.promote.document import Document
from pretext3d.commands.saved_config import as_saved, completed_profiles, of_this_machine, settings_of
from pretext3d.errors import UserError
from pretext3d.publishing.vendoring import vendored
from pretext3d.training.session import profile_rows

if TYPE_CHECKING:
    from pretext3d.commands.promote.run import Run

logger = logging.getLogger(__name__)

# keys of the machine or the experiment, not of the network: kept from the bundle's file
RESET = {
    "dataset_dir", "datalist", "output_dir", "ckpt_dir", "cache_dir", "resume", "device", "pretrained",
    "keep_head", "label_fraction", "num_labelled", "is_not_rank0", "bundle_root", "imports", "cases",
    "network_def",
    "initialize", "run", "finalize", "subjects", "freeze_encoder_epochs", "backbone_learning_rate", "regions",
}  # fmt: skip
# keys that evaluate.yaml takes from a run's checkpoint, and that the new train.yaml has
EVALUATED = (
    "weights", "checkpoint", "record", "spatial_dims", "channels", "modalities", "slices", "frames",
    "val_fraction", "test_fraction", "split_seed", "fold", "pixdim", "roi_size", "labels", "network_def",
)  # fmt: skip
DEPLOYMENT = "pretext3d.publishing.deployment"
MODEL, MODELS = "$@bundle_root + '/models/model.pt'", "$@bundle_root + '/models'"
LOAD_WEIGHTS = {"_target_": f"{DEPLOYMENT}.load_weights", "network": "@network_def", "path": "@pretrained"}
CHECK_CASES = {
    "_target_": f"{DEPLOYMENT}.check_annotated",
    "in_channels": "@in_channels",
    "labels": "@labels",
    "channels": "@channels",
    "cache_dir": "@cache_dir",
    "spatial_dims": "@spatial_dims",
    "slices": "@slices",
    "frames": "@frames",
    "cases": "$@train#dataset#data + @validate#dataset#data",
}
# the provenance that finalize extends is read before the training, not after it
READ_PROVENANCE = {"_target_": "pretext3d.publishing.provenance.read_provenance", "models_dir": MODELS}


def network(record: Mapping[str, Any]) -> dict[str, Any]:
    """The component `network_def` of a run's settings."""
    backbone = record["backbone"]
    built = {"_target_": "pretext3d.networks.factory.build_backbone", "encoder": backbone["encoder"]}
    built |= {key: backbone[key] for key in ("in_channels", "roi_size", "options") if key in backbone}
    if backbone.get("spatial_dims", 3) != 3:
        built["spatial_dims"] = backbone["spatial_dims"]
    return {
        "_target_": "pretext3d.networks.segmentation.SegmentationNet",
        "backbone": built,
        "num_classes": record["num_classes"],
        "decoder": record.get("decoder", ""),
    }


def take_over(document: Document, run: "Run", template: dict[str, Any], trusted: bool = False) -> None:
    """Set the run's plain settings wherever they differ from the bundle's own; log what is not taken over.

    Args:
        document: The bundle's finetune.yaml.
        run: Run that is promoted.
        template: Content of that file.
        trusted: Whether to take over expressions and components of the run's configuration, too.

    Raises:
        UserError: the run's configuration has an expression or component that the bundle's does not have,
            and is not trusted.
    """
    own, left = as_saved(template), []
    for key, value in run.config.items():
        if key in RESET or key not in own or value == own[key]:
            continue
        if key in document.content:
            found = settings_of(value, own[key], key)
            for path, setting in found.plain.items():
                if of_this_machine(setting):
                    left.append(f"{path} (a path of this machine)")
                else:
                    document.set(path, setting)
            handlers = {path for path in found.other if re.match(r"(train|validate)::handlers\b", path)}
            left += [f"{path} (the bundle's own handlers are kept)" for path in sorted(handlers)]
            for path in [path for path in found.other if path not in handlers]:
                if not trusted:
                    raise UserError(
                        f"run: config.yaml: {path}: found {brief(found.other[path])}, which the new "
                        "bundle would execute and finetune.yaml does not have; expected plain values, or "
                        "--trust_config if you have written this run's configuration yourself"
                    )
                document.set(path, found.other[path])
    if left:
        logger.warning("not taken over from the run's config.yaml: %s", ", ".join(left))


def set_input(document: Document, record: Mapping[str, Any]) -> None:
    """Set what a network sees of a file: channels, BIDS modalities, slices and frames."""
    document.set("channels", record.get("channel_indices"))
    for key in ("modalities", "slices", "frames"):
        document.set(key, record.get(key))


def train_yaml(file: Path, run: "Run", name: str, classes: Sequence[str], trusted: bool = False) -> str:
    """The run's fine-tuning, starting from the bundle's weights and ending in them.

    Args:
        file: The finetune.yaml that was run.
        run: Run that is promoted.
        name: Name of the new bundle.
        classes: Names of the classes, background first; or of the regions.
        trusted: Whether to take over expressions and components of the run's configuration, too.
    """
    text, record = file.read_text(), run.settings
    header = (
        f"# {name}: training on, from models/model.pt, with the settings that it was fine-tuned with.\n"
        "# python -m monai.bundle run --config_file configs/train.yaml --dataset_dir labelled\n"
        "# At the end models/model.pt is this training's; those before are models/model_previous.pt.\n\n"
    )
    document = Document(text, header, str(file))
    take_over(document, run, yaml.safe_load(text), trusted)
    document.set("dataset_dir", "", "MSD or nnU-Net folder with labels; MONAI Label gives its own lists")
    document.set(
        "output_dir", {"_target_": "pretext3d.training.workflow.dated_folder"}, "a new folder each time"
    )
    document.set("pretrained", MODEL, "the weights to begin with; '' = from scratch")
    document.remove("keep_head")
    document.set("profile", run.profile, "")
    spatial_dims = record["backbone"].get("spatial_dims", 3)
    profiles, _ = completed_profiles(run.config["profiles"], yaml.safe_load(text).get("profiles"))
    rows = profile_rows(run.profile, profiles, spatial_dims)
    document.set("profiles", {row: profiles[row] for row in rows}, "")
    document.set("spatial_dims", spatial_dims, "")
    document.set("num_classes", record["num_classes"], "with background")
    document.set("encoder", record["backbone"]["encoder"], "of network_def")
    document.set("decoder", record.get("decoder", ""), "of network_def")
    document.set("roi_size", record["roi_size"], "voxels of a crop")
    document.set("pixdim", "$@spacing or 'native'", "")
    set_input(document, record)
    document.set("normalisation", record["normalisation"])
    document.set("in_channels", record["channels"], "")
    document.set("spacing", record["pixdim"] or [], "mm; [] = as the files have it")
    document.set("classes", "@num_classes", "")
    document.set("class_names", list(classes), "")
    document.set("labels", record["labels"], "the label value of each class, or the regions")
    document["cases"]["labels"] = "@labels"
    document.set("regions", None, "sets of label values that evaluate.yaml measures besides: {all: [1, 2]}")
    for key in ("regions_class_order", "merge_foreground"):
        document.remove(key)
        document.remove(f"cases::{key}")
    document.remove("cases::regions")
    document.insert_before("in_channels", {"weights": "best"})
    document.set(
        "weights", "best", "what models/model.pt becomes: best (by its validations) or final (the last)"
    )
    document.set("network_def", network(record))
    document["record"].update({"unnamed": "annotated cases", "pretrained": name})
    document["initialize"].extend([dict(READ_PROVENANCE), dict(LOAD_WEIGHTS), dict(CHECK_CASES)])
    document.set(
        "finalize",
        [
            {
                "_target_": f"{DEPLOYMENT}.publish",
                "ckpt_dir": "@ckpt_dir",
                "weights": "@weights",
                "models_dir": MODELS,
            },
            {
                "_target_": "pretext3d.training.session.finish",
                "wrote": [
                    "checkpoints/final.pt (last step)",
                    "metrics.csv (one line per epoch)",
                    "config.yaml",
                    "log.txt",
                ],
            },
        ],
    )
    return vendored(document.text(), f"{name}/configs/train.yaml")


def inference_yaml(file: Path, run: "Run", name: str) -> str:
    """The bundle's inference.yaml with this network, spacing, normalisation and window."""
    record = run.settings
    document = Document(
        file.read_text(),
        f"# {name}: segmentation of a folder of volumes or images; results on each input's own grid.\n"
        "# python -m monai.bundle run --config_file configs/inference.yaml --dataset_dir scans\n\n",
        str(file),
    )
    for key in ("weights", "checkpoint", "encoder"):
        document.remove(key)
    document.set("output_dir", f"runs/{name}_inference")
    document.set("pretrained", MODEL, "")
    kept = {"pixdim": record["pixdim"] or []} | {key: record[key] for key in ("normalisation", "roi_size")}
    document.set("record", kept, "")
    document.set("spatial_dims", record["backbone"].get("spatial_dims", 3))
    document.set("in_channels", record["channels"])
    set_input(document, record)
    document.set("labels", record["labels"], "the label value of each class, or the regions")
    document.set("network_def", network(record))
    check = {
        "_target_": f"{DEPLOYMENT}.check_channels",
        "found": "$@cases['channels']",
        "expected": record["channels"],
    }
    document["initialize"].extend([check, dict(LOAD_WEIGHTS)])
    return vendored(document.text(), f"{name}/configs/inference.yaml")


def evaluate_yaml(file: Path, name: str) -> str:
    """The bundle's evaluate.yaml, over the new train.yaml."""
    document = Document(
        file.read_text(),
        f"# {name}: evaluation of models/model.pt on test or held-out cases, over train.yaml:\n"
        "# python -m monai.bundle run --dataset_dir labelled \\\n"
        "#     --config_file \"['configs/train.yaml','configs/evaluate.yaml']\"\n"
        "# Predictions are brought back to each label's own grid; writes evaluation.csv (one line per case\n"
        "# and class) and evaluation_summary.csv.\n",
        str(file),
    )
    for key in EVALUATED:
        document.remove(key)
    seen = {"_target_": f"{DEPLOYMENT}.seen_cases", "models_dir": MODELS}
    trained = {"method": "segmentation", "num_classes": "@num_classes", "class_names": "@class_names"}
    document.step("initialize", "check_unseen")["record"] = seen
    document.step("initialize", "check_classes")["record"] = trained
    document.set("+validate", {}, "that of train.yaml; without that file the run ends in one line")
    document.step("validate::preprocessing", "ScaleToUnitd")["normalisation"] = "@normalisation"
    document.step("validate::handlers", "CaseMetrics")["class_names"] = "@class_names"
    document["initialize"].append(dict(LOAD_WEIGHTS))
    return vendored(document.text(), f"{name}/configs/evaluate.yaml")


def multi_gpu_yaml(file: Path, name: str) -> str:
    """The bundle's multi_gpu_train.yaml, over the new train.yaml.

    On a machine with several GPUs MONAI Label needs it; without it, it only logs that it does not train.
    """
    document = Document(
        file.read_text(),
        f"# {name}: training on in several processes, over train.yaml:\n"
        "# torchrun --nproc_per_node 2 -m monai.bundle run --config_file \\\n"
        "#     \"['configs/train.yaml','configs/multi_gpu_train.yaml']\" --dataset_dir labelled\n",
        str(file),
    )
    document["initialize"].extend([dict(READ_PROVENANCE), dict(LOAD_WEIGHTS), dict(CHECK_CASES)])
    return vendored(document.text(), f"{name}/configs/multi_gpu_train.yaml")
