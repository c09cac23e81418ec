"""The pictures of `pretext3d preview`: the configuration of a bundle, of which only the data are built."""

import argparse
import logging
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.bundle import ConfigWorkflow

from pretext3d.commands.bundles import named_bundle
from pretext3d.commands.paths import unknown_key
from pretext3d.commands.preview.options import make_parser
from pretext3d.commands.saved_config import (
    as_saved,
    completed_profiles,
    encoders_in,
    read_config,
    settings_of,
)
from pretext3d.data.subjects import subject_count
from pretext3d.errors import UserError
from pretext3d.messages import say
from pretext3d.networks.factory import check_recorded
from pretext3d.training.arguments import as_configuration, typed
from pretext3d.training.checkpoint_io import load_checkpoint
from pretext3d.training.next_step import FILES, OF_DATA, fine_tuning, run_command
from pretext3d.training.overrides import check_entry
from pretext3d.training.pictures import file_name, predict, render, write_png
from pretext3d.training.preprocessing import AXES
from pretext3d.training.session import check_profile

logger = logging.getLogger(__name__)

# keys of a train.yaml; draw(volume, sample, pred, title) returns a figure
NEEDED = ("train", "validate", "draw")
MOST_PADDED = 2  # times a volume's length that a crop may have without a warning
THICK = "most of it is padding; expected a smaller --roi_size or a finer --pixdim along this axis"
METHOD = ("record::method", "record::task")  # of a pre-training's record, see `record`


class Preview(ConfigWorkflow):
    """A bundle's training configuration, of which only the data, and with a checkpoint the network, is built.

    Args:
        bundle: Folder of the bundle.
        overrides: Keys of the configuration and their new values.
        run_config: Configuration that a run has saved; its plain settings take precedence over the bundle's.
        recorded: Settings of a checkpoint's record; those that the configuration has no key for are left out.
    """

    def __init__(
        self,
        bundle: Path,
        overrides: dict[str, Any],
        run_config: dict[str, Any] | None = None,
        recorded: dict[str, Any] | None = None,
    ) -> None:
        files = [bundle / "configs" / "train.yaml"]
        if not files[0].is_file():
            raise UserError(
                f"bundle: {bundle}: has no configs/train.yaml; expected a folder such as bundles/vectorpose"
            )
        # no logging file, and files in two folders, are intended
        logging.getLogger("monai.bundle.workflows").setLevel(logging.ERROR)
        super().__init__([str(path) for path in files], workflow_type=None, logging_file=False)
        missing = [name for name in NEEDED if name not in self.parser.config]
        if missing:
            raise UserError(f"{files[0]}: has no {', '.join(missing)}; a preview needs {', '.join(NEEDED)}")
        for key, value in self.taken_over(run_config or {}, str(overrides.get("encoder", ""))).items():
            self.parser[key] = value
        known = {key: value for key, value in (recorded or {}).items() if key in self.parser.config}
        overrides = {**known, **overrides}
        for key, value in as_configuration(overrides).items():
            self.check(key, files[0])
            self.parser[key] = value
        profile = self.parser.config.get("profile")
        if not str(profile).startswith("$"):
            check_profile(profile, self.parser.config.get("profiles", {}))
        for part in ("train", "validate"):  # read the volumes that are drawn, not all of them
            dataset = self.parser.config[part]["dataset"]
            if str(dataset.get("_target_", "")).endswith(".CachedVolumes"):
                dataset["prepare"] = False
        sys.path.insert(0, str(bundle))
        self.parser.parse(reset=True)

    def taken_over(self, run_config: dict[str, Any], encoder: str) -> dict[str, Any]:
        """The plain settings of a run; a warning for those that would execute something.

        Raises:
            UserError: an encoder of one's own that the user has not named.
        """
        own = as_saved({key: value for key, value in self.parser.config.items() if key in run_config})
        found = settings_of({key: run_config[key] for key in own}, own)
        if found.other:
            logger.warning(
                "not taken over from the run's config.yaml, since it would be executed: %s",
                ", ".join(found.other),
            )
        if "profiles" in found.plain:
            completed = completed_profiles(found.plain["profiles"], self.parser.config["profiles"])
            found.plain["profiles"], added = completed
            if added:
                logger.warning(
                    "the profiles in the run's config.yaml lack %s, which a later version has added; the "
                    "bundle's values are used",
                    ", ".join(added),
                )
        for named in encoders_in(found.plain):
            check_recorded(named, encoder)
        return found.plain

    def check(self, key: str, file: Path) -> None:
        """Refuse an override of a missing key; a component may receive further arguments."""
        check_entry(key, self.parser.config)
        parent, nested, _ = key.rpartition("::")
        component = self.parser.get(parent) if nested else None
        if key in self.parser or (isinstance(component, dict) and "_target_" in component):
            return
        raise unknown_key(key, self.parser.config, make_parser(), file.name)

    def get(self, name: str) -> Any:
        """The configuration's parsed content of an id."""
        return self.parser.get_parsed_content(name)


class Checkpoint:
    """A trained network of the bundle's kind.

    Args:
        file: Path of the checkpoint; its run's config.yaml is next to it or in the folder above.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.content = load_checkpoint(self.file)
        folders = (self.file.parent, self.file.parent.parent)
        saved = next((p / "config.yaml" for p in folders if (p / "config.yaml").is_file()), None)
        self.run_config = None if saved is None else read_config(saved)

    def settings(self, encoder: str = "") -> dict[str, Any]:
        """The keys in its record, for a checkpoint without its run.

        Args:
            encoder: Encoder that the user has named; needed for a class of one's own.

        Raises:
            UserError: the record names a class that the user has not named.
        """
        record = self.content["record"]
        backbone = record.get("backbone") or {}
        check_recorded(backbone.get("encoder", encoder), encoder)
        found = {name: backbone[name] for name in ("encoder", "roi_size", "spatial_dims") if name in backbone}
        found |= {
            name: record[name]
            for name in ("modalities", "slices", "frames", "normalisation")
            if name in record
        }
        found |= {"channels": record["channel_indices"]} if "channel_indices" in record else {}
        return found if "pixdim" not in record else {**found, "pixdim": record["pixdim"] or "native"}

    def network(self, workflow: Preview) -> torch.nn.Module:
        """The configuration's network with these weights."""
        network: torch.nn.Module = workflow.get("network_def")
        there, here = self.content["network"], network.state_dict()
        unfit = [
            n for n in {**there, **here} if n not in there or n not in here or there[n].shape != here[n].shape
        ]
        if unfit:
            raise UserError(
                f"checkpoint: {self.file}: {len(unfit)} of {len(here)} tensors do not fit the network, "
                f"{unfit[0]} for one; expected the settings that it was trained with"
            )
        network.load_state_dict(there)
        return network.to(workflow.get("device"))


def choose(train: int, held_out: int, num: int) -> list[tuple[str, int]]:
    """`num` cases, spread evenly over the training cases and then the held-out ones; all for 0."""
    cases = [("train", case) for case in range(train)] + [("validate", case) for case in range(held_out)]
    if num == 0 or num >= len(cases):
        return cases
    return [cases[int(index)] for index in (np.arange(num) + 0.5) * len(cases) / num]


def sheet(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures (height, width, 3) side by side, in about a square."""
    height, width = (max(picture.shape[axis] for picture in pictures) for axis in (0, 1))
    columns = min(len(pictures), math.ceil(math.sqrt(len(pictures) * height / width)))
    rows = math.ceil(len(pictures) / columns)
    result = np.zeros((rows * height, columns * width, 3), dtype=np.uint8)
    result[:] = pictures[0][0, 0]
    for index, picture in enumerate(pictures):
        top, left = (index // columns) * height, (index % columns) * width
        result[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return result


def preview(known: argparse.Namespace, overrides: dict[str, Any], weights: Path | None) -> None:
    """Draw and write the pictures; report what was found and written.

    Args:
        known: Options of the command.
        overrides: Keys of train.yaml and their new values.
        weights: File of the checkpoint whose predictions are drawn; None = none.
    """
    checkpoint = Checkpoint(weights) if weights else None
    run_config = checkpoint.run_config if checkpoint else None
    recorded = None
    if checkpoint and not run_config:
        recorded = checkpoint.settings(str(overrides.get("encoder", "")))
    workflow = Preview(named_bundle(known.bundle), overrides, run_config, recorded)
    if checkpoint:
        found = checkpoint.content["record"].get("method")
        expected = workflow.get(next(key for key in METHOD if key in workflow.parser))
        if found != expected:
            raise UserError(f"checkpoint: {checkpoint.file}: found method {found}, expected {expected}")
    roi_size = list(workflow.get("crop_size")) if "crop_size" in workflow.parser else []
    cases = workflow.get("cases") if "cases" in workflow.parser else None  # where volumes are generated
    datasets = {part: workflow.get(f"{part}::dataset") for part in ("train", "validate")}
    draw = workflow.get("draw")
    network = checkpoint.network(workflow) if checkpoint else None
    pictures, padded = [], []
    chosen = choose(len(datasets["train"].data), len(datasets["validate"].data), known.num)
    for number, (part, case) in enumerate(chosen, start=1):
        volume, sample = datasets[part].volume(case), datasets[part][case]
        if cases is not None:
            file = str(np.ravel(datasets[part].data[case]["image"])[0])
            padded += padding(file, volume["image"].shape[1:], roi_size)
        pred = None
        if network is not None:
            pred = predict(network, workflow.get("validate::inferer"), [sample], workflow.get("device"))[0]
        name = str(volume.get("id", f"case {case}"))
        figure = draw(volume, sample, pred, f"{name} ({'training' if part == 'train' else 'held out'})")
        pictures.append(render(figure))
        if not known.output_file:
            path = Path(known.output_dir) / f"{number:0{len(str(len(chosen)))}d}_{file_name(name)}.png"
            write_png(path, pictures.pop())
            say(f"wrote {path}")
    if known.output_file:
        write_png(Path(known.output_file), sheet(pictures))
        say(f"wrote {known.output_file}: {len(chosen)} {'items' if cases is None else 'scans'}")
    if padded:
        others = f" (and {len(padded) - 1} more of the {len(chosen)} drawn)" if len(padded) > 1 else ""
        say(f"warning: {max(padded).text}{others}; {THICK}", error=True)
    if cases is not None:
        report(cases, datasets)
    settings = {key: workflow.get(key) for key in OF_DATA if key in workflow.parser.config}
    of_training = [] if cases is None else [*cases["train"], *cases["val"]]
    say(f"next:\n  {next_command(known, overrides, weights, settings, of_training)}")


class Padding(NamedTuple):
    """An axis along which a crop is much longer than a volume.

    Attributes:
        ratio: Length of the crop by that of the volume.
        text: The two lengths, in words.
    """

    ratio: float
    text: str


def padding(file: str, size: Sequence[int], roi_size: Sequence[int]) -> list[Padding]:
    """The worst axis along which more than half of a crop is padding; none where there is no such axis.

    Args:
        file: Path of the volume, for the message.
        size: Voxels of the volume at the network's spacing, one number per axis.
        roi_size: Voxels of the crop, one number per axis; [] = not known.

    Examples:
        >>> padding("a.nii", (64, 64, 12), (32, 32, 32))[0].text
        'a.nii: found 12 voxels along z for a crop of 32'
        >>> padding("a.nii", (64, 64, 16), (32, 32, 32))
        []
    """
    found = [
        Padding(crop / voxels, f"{file}: found {voxels} voxels along {axis} for a crop of {crop}")
        for axis, voxels, crop in zip(AXES, size, roi_size, strict=False)
        if crop > MOST_PADDED * voxels
    ]
    return [max(found)] if found else []


def next_command(
    known: argparse.Namespace,
    overrides: dict[str, Any],
    weights: Path | None,
    settings: Mapping[str, Any],
    cases: Sequence[Mapping[str, Any]],
) -> str:
    """The command to type next: a pre-training with these keys, or a fine-tuning of the previewed weights.

    Args:
        known: Options of the command.
        overrides: Keys of train.yaml and their new values.
        weights: File of the previewed weights; None = none.
        settings: Values of OF_DATA that the drawn cases have, those of a run among them.
        cases: Cases of the training; none where volumes are generated.
    """
    bundle = named_bundle(known.bundle)
    if weights:
        chosen = weights.parent.parent.name == "models"  # of a bundle's several
        keys: dict[str, Any] = {"pretrained": str(weights.parent) if chosen else known.checkpoint}
        step, data = fine_tuning(cases, settings)
        return f"{run_command(bundle, FILES[step][0])}{typed(keys | data)}"
    keys = {key: value for key, value in overrides.items() if key != "seed"}  # of the crops drawn
    return f"{run_command(bundle, ['train.yaml'])}{typed(keys)}"


def report(cases: dict[str, Any], datasets: dict[str, Any]) -> None:
    """Report what a training would use, and what it would reject."""
    spacing = "x".join(f"{edge:g}" for edge in cases["pixdim"]) + " mm" if cases["pixdim"] else "native"
    train, held_out = (list(dataset.data) for dataset in datasets.values())
    say(
        f"{subject_count([*train, *held_out], unit=True)}: {subject_count(train)} to train on, "
        f"{subject_count(held_out)} held out; "
        f"{cases['channels']} channel(s), spacing {spacing}"
    )
    if cases["bad"]:
        say(f"{len(cases['bad'])} cases rejected for training:")
        for name, reason in cases["bad"]:
            say(f"  {name}: {reason}")
