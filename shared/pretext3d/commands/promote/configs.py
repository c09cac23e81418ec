"""The configurations of a promoted bundle: those of the bundle that was fine-tuned, with this run's settings.

What a run finds in its data (channels, spacing, classes) are constants here, and no data set is asked for:
MONAI Label gives its own lists of cases. The text of the bundle's files is edited, not written anew: their
comments stay.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from pretext3d.commands.promote.run import Run, as_saved

# of the machine or of the experiment, not of the network: as the bundle's file has them
RESET = {
    "dataset_dir", "datalist", "output_dir", "ckpt_dir", "cache_dir", "resume", "device", "pretrained",
    "keep_head", "label_fraction", "num_labelled", "quiet", "bundle_root", "imports", "cases", "network_def",
    "initialize", "run", "finalize",
}  # fmt: skip
# what a run asks its data for, and the key that holds the answer here
FOUND = {
    "@cases['pixdim']": "@spacing",
    "@cases['num_classes']": "@num_classes",
    "@cases['class_names']": "@class_names",
    "@cases['channels']": "@in_channels",
}
# what evaluate.yaml takes from a run, and what the new train.yaml has
EVALUATED = (
    "weights", "record", "channels", "val_fraction", "split_seed", "fold", "pixdim", "roi_size",
    "network_def",
)  # fmt: skip
LOAD_WEIGHTS = (
    "\n- {_target_: pretext3d.publishing.deployment.load_weights, network: '@network_def', "
    "path: '@pretrained'}"
)
CHECK_CASES = (
    "\n- {_target_: pretext3d.publishing.deployment.check_annotated, in_channels: '@in_channels', "
    "num_classes: '@num_classes', channels: '@channels',\n"
    "   cache_dir: '@cache_dir', cases: \"$@train#dataset#data + @validate#dataset#data\"}"
)
# what finalize adds to is read before the training, not after it
READ_PROVENANCE = (
    "\n- {_target_: pretext3d.publishing.provenance.read_provenance, "
    "models_dir: \"$@bundle_root + '/models'\"}"
)
MODEL = "\"$@bundle_root + '/models/model.pt'\""


def dump(value: Any) -> str:
    """A value as YAML on one line, or more where it is long."""
    text = yaml.safe_dump(value, default_flow_style=True, width=110, sort_keys=False)
    return text.strip().removesuffix("...").strip()


class Document:
    """The text of a YAML mapping, whose entries can be replaced where they stand.

    Args:
        text: the file's.
        header: the comment lines that take the place of those at its top.
    """

    def __init__(self, text: str, header: str) -> None:
        self.text = header + re.sub(r"\A(#[^\n]*\n)*", "", text)

    def span(self, path: str) -> tuple[int, int]:
        """Where an entry `key` or `key::inner` begins and ends, its comment at the line's end left out."""
        node = yaml.compose(self.text)
        *outer, last = path.split("::")
        for name in outer:
            node = next(value for key, value in node.value if key.value == name)
        found = next((entry for entry in node.value if entry[0].value == last), None)
        if found is None:
            raise KeyError(path)
        start, end = found[0].start_mark.index, found[1].end_mark.index
        # a block's end lies at the next key: leave the comment lines between out
        end = start + len(re.sub(r"(\n[ \t]*(#[^\n]*)?)*$", "", self.text[start:end]))
        return start, end

    def entry(self, path: str) -> str:
        """An entry's text."""
        return self.text[slice(*self.span(path))]

    def set(self, path: str, value: str, comment: str | None = None) -> None:
        """Give an entry another value, as YAML text, and where it is given another comment."""
        start, end = self.span(path)
        rest = self.text[end:]
        if comment is not None:
            rest = ("  # " + comment if comment else "") + rest[rest.index("\n") :]
        space = "" if value.startswith("\n") else " "
        self.text = f"{self.text[:start]}{path.rpartition('::')[2]}:{space}{value}{rest}"

    def edit(self, path: str, change: Callable[[str], str]) -> None:
        """Change an entry's text."""
        start, end = self.span(path)
        self.text = self.text[:start] + change(self.text[start:end]) + self.text[end:]

    def remove(self, path: str) -> None:
        """Take an entry out, its line's comment too."""
        start, end = self.span(path)
        self.text = self.text[:start] + self.text[self.text.index("\n", end) + 1 :]

    def insert_before(self, path: str, lines: str) -> None:
        """Put further entries before one."""
        start, _ = self.span(path)
        self.text = self.text[:start] + lines + self.text[start:]

    def replace(self, changes: dict[str, str]) -> None:
        """Replace texts wherever they stand."""
        for old, new in changes.items():
            self.text = self.text.replace(old, new)


def of_this_machine(value: Any) -> bool:
    """Whether a setting holds a path that other machines do not have."""
    if isinstance(value, dict | list):
        return any(of_this_machine(v) for v in (value.values() if isinstance(value, dict) else value))
    return isinstance(value, str) and Path(value).expanduser().is_absolute()


def network(record: dict[str, Any]) -> str:
    """The network of a record, as YAML under `network_def`."""
    backbone = record["backbone"]
    built = {"_target_": "pretext3d.networks.factory.build_backbone", "encoder": backbone["encoder"]}
    built |= {key: backbone[key] for key in ("in_channels", "roi_size", "options") if key in backbone}
    if backbone.get("spatial_dims", 3) != 3:
        built["spatial_dims"] = backbone["spatial_dims"]
    lines = [
        "_target_: pretext3d.networks.segmentation.SegmentationNet",
        f"backbone: {dump(as_lists(built))}".replace("\n", "\n  "),
        f"num_classes: {record['num_classes']}",
        f"decoder: {dump(record.get('decoder', ''))}",
    ]
    return "".join(f"\n  {line}" for line in lines)


def as_lists(value: Any) -> Any:
    """The same with lists for tuples, as YAML has them."""
    if isinstance(value, dict):
        return {key: as_lists(v) for key, v in value.items()}
    return [as_lists(v) for v in value] if isinstance(value, list | tuple) else value


def take_over(document: Document, run: Run, template: dict[str, Any]) -> None:
    """The run's settings wherever they differ from the bundle's own."""
    template = as_saved(template)
    for key, value in run.config.items():
        if key in RESET or key not in template or value == template[key] or of_this_machine(value):
            continue
        if key in ("train", "validate"):
            for inner, setting in value.items():
                if inner != "handlers" and setting != template[key].get(inner, setting):
                    document.set(f"{key}::{inner}", dump(setting))
        else:
            document.set(key, dump(value))


def train_yaml(file: Path, run: Run, name: str, classes: Sequence[str]) -> str:
    """The run's fine-tuning, starting from the bundle's weights and ending in them.

    Args:
        file: the finetune.yaml that was run.
        run: what was trained.
        name: of the new bundle.
        classes: names of the classes, background first.
    """
    text, record = file.read_text(), as_lists(run.record)
    header = (
        f"# {name}: training on, from models/model.pt, with the settings that it was fine-tuned with.\n"
        "# `python -m monai.bundle run --config_file configs/train.yaml --dataset_dir labelled`\n"
        "# At the end models/model.pt is this training's; the weights before are models/model_previous.pt.\n"
    )
    document = Document(text, header)
    document.replace(FOUND)
    take_over(document, run, yaml.safe_load(text))
    document.edit("imports", lambda entry: entry.removesuffix("]") + ", $import time]")
    document.set("dataset_dir", "''", "MSD or nnU-Net folder with labels; MONAI Label gives its own lists")
    document.set(
        "output_dir",
        "\"$@bundle_root + '/runs/' + time.strftime('%Y%m%d_%H%M%S')\"",
        "a new folder each time",
    )
    document.set("pretrained", MODEL, "the weights to begin with; '' = from scratch")
    document.remove("keep_head")
    document.set("profile", dump(run.profile), "")
    document.set("profiles", dump({run.profile: as_lists(run.config["profiles"][run.profile])}), "")
    document.set("num_classes", str(record["num_classes"]), "with background")
    document.set("encoder", dump(record["backbone"]["encoder"]), "of network_def")
    document.set("decoder", dump(record.get("decoder", "")), "of network_def")
    document.set("roi_size", dump(record["roi_size"]), "voxels of a crop")
    document.set("pixdim", "\"$@spacing or 'native'\"", "")
    document.insert_before(
        "crop_size",
        "# ---- found in the data that it was first trained on\n"
        f"spacing: {dump(record['pixdim'] or [])}    # mm; [] = as the volumes are\n"
        f"in_channels: {record['channels']}\n"
        f"class_names: {dump(list(classes))}\n"
        "weights: best    # what models/model.pt becomes: best (by its validations) or final (the last)\n\n",
    )
    document.set("network_def", network(record))
    document.set(
        "record::data",
        "{name: \"$os.path.basename(str(@dataset_dir).rstrip('/')) or 'annotated cases'\",\n"
        "    train: {_target_: pretext3d.data.splits.fingerprints, cases: '@train#dataset#data'}, "
        f"pretrained: {name}}}",
    )
    for key in ("lr_scheduler", "val_interval"):  # MONAI Label sets the trainer's
        document.edit(key, lambda entry: entry.replace("@max_epochs", "@train#trainer#max_epochs"))
    validation = "{_target_: ValidationHandler,"
    document.replace({validation: validation + ' _disabled_: "$not @validate#dataset#data",'})
    document.edit("initialize", lambda entry: entry + READ_PROVENANCE + LOAD_WEIGHTS + CHECK_CASES)
    document.set(
        "finalize",
        "\n- {_target_: pretext3d.publishing.deployment.publish, ckpt_dir: '@ckpt_dir', weights: '@weights',"
        " models_dir: \"$@bundle_root + '/models'\"}"
        "\n- {_target_: pretext3d.training.session.finish, output_dir: '@output_dir',"
        " wrote: [checkpoints/final.pt (last step), metrics.csv (a line an epoch), config.yaml, log.txt]}",
    )
    return document.text


def inference_yaml(file: Path, run: Run, name: str) -> str:
    """The bundle's inference.yaml with this network, spacing, normalisation and window."""
    record = as_lists(run.record)
    document = Document(
        file.read_text(),
        f"# {name}: segmentation of a folder of volumes; NIfTI out, on each input's own grid.\n"
        "# `python -m monai.bundle run --config_file configs/inference.yaml --dataset_dir scans`\n",
    )
    document.remove("weights")
    document.set("channels", dump(as_lists(run.config.get("channels"))))
    document.set("output_dir", f"runs/{name}_inference")
    document.set("pretrained", MODEL, "")
    document.set("network_def", network(record))
    kept = {"pixdim": record["pixdim"] or []} | {key: record[key] for key in ("normalisation", "roi_size")}
    document.set("record", dump(kept), "as in training: spacing in mm, intensities, voxels of a window")
    document.replace({"{_target_: Spacingd,": "{_target_: pretext3d.data.loading.PlainSpacingd,"})
    argmax = "\n  - {_target_: AsDiscreted, keys: pred, argmax: true}"
    document.replace({argmax: argmax + "\n  - {_target_: CastToTyped, keys: pred, dtype: $torch.uint8}"})
    check = (
        "\n- {_target_: pretext3d.publishing.deployment.check_channels, found: \"$@cases['channels']\", "
        f"expected: {record['channels']}}}"
    )
    document.edit("initialize", lambda entry: entry + check + LOAD_WEIGHTS)
    return document.text


def evaluate_yaml(file: Path, name: str) -> str:
    """The bundle's evaluate.yaml, over the new train.yaml."""
    document = Document(
        file.read_text(),
        f"# {name}: evaluation of models/model.pt on a labelled folder's held-out cases, over train.yaml:\n"
        "# `python -m monai.bundle run --config_file \"['configs/train.yaml','configs/evaluate.yaml']\" "
        "--dataset_dir labelled`\n"
        "# Predictions are brought back to each label's own grid; writes evaluation.csv (a line per case and "
        "class) and evaluation_summary.csv.\n",
    )
    for key in EVALUATED:
        document.remove(key)
    seen = "{_target_: pretext3d.publishing.deployment.seen_cases, models_dir: \"$@bundle_root + '/models'\"}"
    document.replace({"record: '@record'}": f"record: {seen}}}", **FOUND})
    document.edit("initialize", lambda entry: entry + LOAD_WEIGHTS)
    return document.text


def multi_gpu_yaml(file: Path, name: str) -> str:
    """The bundle's multi_gpu_train.yaml, over the new train.yaml.

    On a machine of several GPUs MONAI Label asks for it; without it, it does not train and only logs so.
    """
    document = Document(
        file.read_text(),
        f"# {name}: training on in several processes, over train.yaml:\n"
        "# `torchrun --nproc_per_node 2 -m monai.bundle run --config_file "
        "\"['configs/train.yaml','configs/multi_gpu_train.yaml']\" --dataset_dir labelled`\n",
    )
    document.edit("initialize", lambda entry: entry + READ_PROVENANCE + LOAD_WEIGHTS + CHECK_CASES)
    return document.text
