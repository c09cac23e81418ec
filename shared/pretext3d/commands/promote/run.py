"""A fine-tuned run that is promoted: its configuration, weights, bundle and profile."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pretext3d.commands.bundles import bundles_at_hand, find_bundle
from pretext3d.commands.promote.options import files_of_run
from pretext3d.commands.saved_config import read_config
from pretext3d.data.labels import recorded_labels
from pretext3d.errors import UserError
from pretext3d.literals import check_literal
from pretext3d.networks.factory import ENCODERS
from pretext3d.training.checkpoint_io import load_checkpoint
from pretext3d.training.pretrained import Pretrained
from pretext3d.training.record_schema import Record, known_entries

# entries of a record that the new bundle's files hold; names of classes and of the data are checked apart
SETTINGS = (
    "backbone", "decoder", "channels", "channel_indices", "modalities", "slices", "frames", "pixdim",
    "normalisation", "roi_size", "num_classes",
)  # fmt: skip


@dataclass(frozen=True)
class Run:
    """A fine-tuned run: its configuration, its weights and their record.

    Attributes:
        config: Merged configuration that the run has saved.
        pretrained: Its checkpoint, read once.
        content: Content of that file.
        settings: What the new bundle's files hold of the record; see `recorded_settings`.
        bundle: Folder of the bundle whose finetune.yaml it ran.
        profile: Name of its profile.
    """

    config: dict[str, Any]
    pretrained: Pretrained
    content: dict[str, Any]
    settings: Record
    bundle: Path
    profile: str

    @property
    def checkpoint(self) -> Path:
        """Path of the file with the run's weights."""
        return self.pretrained.file

    @property
    def record(self) -> dict[str, Any]:
        """The run's record: network, spacing, normalisation, classes."""
        record: dict[str, Any] = self.content["record"]
        return record

    @property
    def foreground(self) -> list[str]:
        """The names of the run's classes without the background, or of its regions."""
        names = list(self.record["class_names"])
        return names if recorded_labels(self.record).get("regions") else names[1:]


def as_lists(value: Any) -> Any:
    """A value with lists for tuples, as in YAML.

    Examples:
        >>> as_lists({"roi_size": (32, 32)})
        {'roi_size': [32, 32]}
    """
    if isinstance(value, dict):
        return {key: as_lists(v) for key, v in value.items()}
    return [as_lists(v) for v in value] if isinstance(value, list | tuple) else value


def recorded_settings(record: Mapping[str, Any], where: str) -> Record:
    """The entries of a record that the files of a bundle may hold, `labels` included: plain data alone.

    Configurations and metadata.json are made from these and from nothing else of a record.

    Args:
        record: Record of the run.
        where: Name of the checkpoint, for messages.

    Raises:
        UserError: MONAI would evaluate or replace a part of an entry.

    Examples:
        >>> recorded_settings({"num_classes": 2, "decoder": "%x"}, "final.pt")
        Traceback (most recent call last):
        pretext3d.errors.UserError: final.pt: record.decoder: found '%x', expected text that MONAI does ...
    """
    found = {key: as_lists(record[key]) for key in SETTINGS if key in record}
    found["labels"] = recorded_labels(record)
    for key, value in found.items():
        check_literal(value, f"{where}: record.{key}")
    return Record(found, f"{where}: record")


def read_run(folder: Path, weights: str, bundle: str = "") -> Run:
    """A fine-tuned run from its folder.

    Args:
        folder: Folder output_dir of the run.
        weights: Checkpoint to take, `final` or `best`.
        bundle: Folder of the bundle whose finetune.yaml ran; '' = looked up by the name in its record.

    Raises:
        UserError: not a run, a run that does not segment, or one that has not reached its end.
    """
    saved, checkpoint = files_of_run(folder, weights)
    content = load_checkpoint(checkpoint)
    method = content["record"].get("method")
    if method != "segmentation":
        more = ": only segmentations are promoted" if method == "classification" else ""
        raise UserError(f"run: {folder}: found method {method!r}, expected a run of a finetune.yaml{more}")
    record = known_entries(content["record"], str(checkpoint))
    if record["backbone"]["encoder"] not in ENCODERS:
        raise UserError(
            f"run: {folder}: found encoder {record['backbone']['encoder']!r}, expected one of "
            f"{', '.join(ENCODERS)}: a bundle carries this package, and no class of yours"
        )
    config = read_config(saved)
    own = bundle_of(record, folder, bundle)
    pretrained = Pretrained(checkpoint, record, content["network"])
    settings = recorded_settings(record, str(checkpoint))
    return Run(config, pretrained, {**content, "record": record}, settings, own, profile_of(config, folder))


def bundle_of(record: dict[str, Any], folder: Path, given: str = "") -> Path:
    """The bundle whose finetune.yaml wrote a record.

    Args:
        record: Record of a checkpoint.
        folder: Folder of the run, for messages.
        given: Folder of the bundle; '' = looked up among those at hand.

    Raises:
        UserError: the record names no bundle, or one that was not found.
    """
    name = record.get("bundle")
    if name is None:
        raise UserError(
            f"run: {folder}: found no `bundle` in its checkpoint's record, expected the bundle whose "
            "finetune.yaml ran; fine-tune again with this version"
        )
    if given:
        bundle = find_bundle(given)
        if not (bundle / "configs" / "finetune.yaml").is_file() or bundle.name != name:
            raise UserError(f"--bundle: found {bundle}, expected the bundle {name}, whose finetune.yaml ran")
        return bundle
    found = bundles_at_hand("finetune.yaml")
    if not found:
        raise UserError(f"--bundle: found nothing, expected the folder of the bundle {name!r}")
    if name not in found:
        raise UserError(f"run: {folder}: found bundle {name!r}, expected one of {', '.join(found)}")
    return found[name]


def profile_of(config: dict[str, Any], folder: Path) -> str:
    """The profile that a run used: as given, or from its log where the machine decided."""
    profile, profiles = str(config.get("profile")), config.get("profiles")
    log = folder / "log.txt"
    if profile.startswith("$") and log.is_file():
        said = re.findall(r"; profile (\w+)$", log.read_text(errors="replace"), re.MULTILINE)
        profile = said[0] if said else profile
    if not isinstance(profiles, dict) or profile not in profiles:
        raise UserError(
            f"run: {folder}: found profile {profile!r}, expected one of its config.yaml's profiles"
        )
    check_literal({profile: profiles}, f"run: {folder}: config.yaml: profiles")
    return profile
