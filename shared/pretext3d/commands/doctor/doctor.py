"""The findings of `pretext3d doctor`, from the files of a run and the record of its checkpoint."""

import argparse
import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from pretext3d.checking import brief
from pretext3d.commands.bundles import bundles_at_hand
from pretext3d.commands.curves import read_history
from pretext3d.commands.doctor.findings import (
    EARLY,
    FINAL,
    LONGER,
    SLOWER,
    Finding,
    beyond_air,
    fits,
    learning,
    longer,
)
from pretext3d.commands.saved_config import as_saved, read_config, settings_of
from pretext3d.errors import UserError
from pretext3d.messages import say
from pretext3d.training.arguments import LABELLED, read_value, typed

TASKS = ("segmentation", "classification")  # methods of a fine-tuned run
RUNNING = ("output_dir", "ckpt_dir", "resume", "device", "num_workers", "bundle_root")  # of no sample
READ = 5  # labelled images whose intensities are read


def probe_before(run: Path) -> dict[str, float]:
    """The figures of the probe before the first step, from the log; {} without any."""
    from pretext3d.training.probe import initial_figures

    log = run / "log.txt"
    return initial_figures(log.read_text(errors="replace")) if log.is_file() else {}


@contextlib.contextmanager
def quiet(name: str) -> Iterator[None]:
    """The warnings of a module are not shown within the block."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def bundle_of(record: Mapping[str, Any]) -> Path:
    """The bundle whose configurations the suggested commands have."""
    method = str(record["method"])
    found = bundles_at_hand("train.yaml").get("avsdb" if method == "vpcf" else method)
    return found or Path("bundles") / method


def config_of(class_file: str) -> str:
    """Name of the fine-tuning's configuration: a classification where there are classes."""
    return f"finetune{'_classification' * bool(class_file)}.yaml"


def grid_of(config: Path, profile: str | None, spatial_dims: int) -> dict[str, Any]:
    """Arguments of `prepare_cases` for the spacing that a fine-tuning has by default.

    Args:
        config: Path of its configuration; without it the median of the files is taken.
        profile: Profile of the pre-training; one of `DEVICE_PROFILES`, or that the file does not have = this
            machine's.
        spatial_dims: Number of spatial axes.
    """
    if not config.is_file():
        return {"pixdim": "median"}
    import torch

    from pretext3d.training.next_step import DEVICE_PROFILES
    from pretext3d.training.session import profile_settings, spatial_size

    profiles = yaml.safe_load(config.read_text())["profiles"]
    if profile in DEVICE_PROFILES or profile not in profiles:
        profile = "paper" if torch.cuda.is_available() else "laptop"
    settings = profile_settings(profile, profiles, spatial_dims)
    return {"pixdim": settings["pixdim"], "roi_size": spatial_size(settings["roi_size"], spatial_dims)}


def labelled(
    record: Mapping[str, Any], dataset_dir: str | list[str], config: Path, profile: str | None
) -> list[Finding]:
    """Whether the images of a folder are like those of the weights, see `fits` and `grid_of`."""
    from pretext3d.data.loading import LoadCased
    from pretext3d.data.normalisation import check_normalisation
    from pretext3d.data.prepare import prepare_cases
    from pretext3d.training.probe_inputs import evenly

    spatial_dims = (record.get("backbone") or {}).get("spatial_dims", 3)
    same = {key: record[key] for key in ("slices", "frames", "modalities") if key in record}
    same |= {"val_fraction": 0, "spatial_dims": spatial_dims}
    with quiet("pretext3d.data.subjects"):  # nothing is split
        cases = prepare_cases(dataset_dir, **grid_of(config, profile, spatial_dims), **same)
    given, inside = record.get("normalisation") or {}, None
    if "window" in given:
        load = LoadCased("image", spatial_dims, frames=cases["frames"])
        low, high = check_normalisation(given)[1:]
        parts = []
        for case in evenly(cases["train"], READ):
            image = np.asarray(load({"image": case["image"], "id": case["id"]})["image"])
            parts.append(((image > low) & (image < high)).mean())
        inside = float(np.mean(parts))
    return fits(record, cases["channels"], cases["pixdim"], inside)


def without_anatomy(run: Path, method: str, bundle: Path, table: pd.DataFrame) -> Finding:
    """What air and mean intensities reach in a run's task, on its cases, see `anatomy`.

    The configuration is the bundle's, with the plain keys that the run had otherwise; nothing of the run's
    own configuration is executed.
    """
    import torch
    from monai.bundle import ConfigParser

    from pretext3d.commands.doctor.anatomy import MEASURES, baseline

    if method not in MEASURES:
        return Finding(
            "note", f"{method}: no baseline without anatomy; its errors are relative to one that is flat"
        )
    say("measuring what air and mean intensities reach, on up to 1,600 samples")
    keys = {key: value for key, value in overrides_of(run, bundle).items() if key not in RUNNING}
    parser = ConfigParser()
    parser.read_config(str(bundle / "configs" / "train.yaml"))
    on_cpu = {"device": "$torch.device('cpu')", "num_workers": 0, "bundle_root": str(bundle)}
    parser.update({**keys, **on_cpu})
    torch.manual_seed(0)
    found = baseline(method, parser)
    given = "histograms of the intensities" if MEASURES[method].by_histogram else "air and mean intensities"
    return beyond_air(table, MEASURES[method].figure, found.value, found.text, given)


def overrides_of(run: Path, bundle: Path) -> dict[str, Any]:
    """The keys of a run that are not those of its bundle's train.yaml; {} where it is not known."""
    file, own = run / "config.yaml", bundle / "configs" / "train.yaml"
    if not file.is_file() or not own.is_file():
        return {}
    saved, known = read_config(file), as_saved(yaml.safe_load(own.read_text()))
    both = [key for key in saved if key in known]  # a run of an earlier version lacks keys
    return settings_of({key: saved[key] for key in both}, {key: known[key] for key in both}).plain


def peak_rate(run: Path, table: pd.DataFrame) -> float:
    """The peak learning rate of a run: what its optimizer began with, by the newest checkpoint of an epoch.

    Without one it is the largest of metrics.csv, which has that of each epoch's end.
    """
    from pretext3d.training.checkpoint_files import epoch_files
    from pretext3d.training.checkpoint_io import load_checkpoint

    files = epoch_files(run / "checkpoints")
    if not files:
        return float(table["learning_rate"].max())
    group = load_checkpoint(files[-1])["optimizer"]["param_groups"][0]
    return float(group.get("initial_lr", group["lr"]))


def next_command(
    run: Path,
    record: Mapping[str, Any],
    findings: Sequence[Finding],
    options: argparse.Namespace,
    table: pd.DataFrame,
) -> str:
    """The one command to type next: another pre-training where that is wrong, else a fine-tuning."""
    from pretext3d.training.next_step import data_keys, run_command

    bundle = bundle_of(record)
    given = overrides_of(run, bundle)
    wrong = {one.again for one in findings if one.state == "wrong" or one.again == EARLY}
    kept = {key: value for key, value in given.items() if key not in ("output_dir", "resume", "ckpt_dir")}
    unfinished = any("pretrained" in one.keys for one in findings) and not (run / FINAL).is_file()
    if wrong & {SLOWER, LONGER, EARLY} or unfinished:
        file, keys = "train.yaml", {**kept, "output_dir": run}
        if SLOWER in wrong:
            keys |= {"output_dir": f"{run}_slower", "learning_rate": f"{peak_rate(run, table) / 3:.1g}"}
        elif unfinished:
            keys["resume"] = True
        else:
            keys.pop("max_steps", None)
            keys |= {"resume": True, "max_epochs": longer(table)}
    else:
        images = record["backbone"].get("spatial_dims") == 2 and "slices" not in record  # seldom have masks
        class_file = options.class_file or "CLASSES.csv" * (images and not options.dataset_dir)
        file = config_of(class_file)
        named = (record.get("data") or {}).get("name")
        on_phantom = named == "phantom" and "dataset_dir" not in given
        data = {} if on_phantom else {"dataset_dir": LABELLED}
        data |= {"dataset_dir": options.dataset_dir} if options.dataset_dir else {}
        keys = {"pretrained": "", **data_keys(data, given, class_file)}
        keys |= {key: value for one in findings for key, value in one.keys.items()}
        keys["pretrained"] = run / keys["pretrained"]
    return f"{run_command(bundle, [file])}{typed(keys)}"


def doctor(options: argparse.Namespace) -> int:
    """Print the findings and the next command. Returns the exit code."""
    from pretext3d.training.pretrained import read_pretrained

    run = Path(options.run)
    table = read_history(run)
    if table.empty or "epoch" not in table:
        raise UserError(f"{run / 'metrics.csv'}: found no epoch, expected one line per epoch")
    read = read_pretrained(run, key="run")
    method = str(read.record.get("method"))
    if method in TASKS:
        raise UserError(f"{run}: found a {method}, expected a pre-training run; its evaluation measures it")
    findings = learning(table, probe_before(run))
    if options.baseline:
        findings.insert(0, without_anatomy(run, method, bundle_of(read.record), table))
    if not (run / FINAL).is_file():
        findings.append(Finding("note", f"the run is not finished: there is no {FINAL}"))
    data = read.record.get("data") or {}
    trained = f"{len(data['train'])} cases of {brief(data.get('name'))}" if data.get("train") else "no scans"
    epochs = int(table["epoch"].max())
    say(f"{run}: {method}, {epochs} epoch{'s' * (epochs != 1)}, trained on {trained}")
    if options.dataset_dir:
        bundle = bundle_of(read.record)
        config = bundle / "configs" / config_of(options.class_file)
        profile = overrides_of(run, bundle).get("profile")
        folder = read_value("dataset_dir", options.dataset_dir)
        findings += labelled(read.record, folder, config, profile)
    for one in findings:
        say(f"  {one.state:<5}  {one.text}")
    say(f"next:\n  {next_command(run, read.record, findings, options, table)}")
    return int(options.strict and any(one.state == "wrong" for one in findings))
