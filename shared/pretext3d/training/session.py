"""The start and the end of a bundle's run: checks of its values, log, seeds, saved configuration, profile.

`overrides.check_overrides` is the first thing every configuration's `initialize` calls, then comes `begin`;
`finish` is the last of its `finalize`. Both take arguments that are not given from the running configuration.
"""

import logging
import os
import random
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import monai
import torch
from monai.bundle import ConfigParser
from monai.utils import set_determinism

import pretext3d
from pretext3d.checking import integer, number, one_of, per_axis
from pretext3d.errors import UserError, install_excepthook
from pretext3d.ops.checks import check_spatial_dims
from pretext3d.training.checkpoint_files import epoch_files
from pretext3d.training.checkpointer import refuse_earlier_run
from pretext3d.training.early_checks import build_transforms
from pretext3d.training.length import check_length
from pretext3d.training.next_step import WROTE, judging, suggestion
from pretext3d.training.overrides import command_line
from pretext3d.training.precision import check_precision
from pretext3d.training.probe import check_probe
from pretext3d.training.processes import leave
from pretext3d.training.recipes import check_rates
from pretext3d.training.run_folder import close_folder, open_folder
from pretext3d.training.workflow import has_setting, running_workflow, setting

__all__ = ["begin", "finish", "profile_entries", "profile_rows", "profile_settings", "spatial_size"]

logger = logging.getLogger(__name__)

STOPPED = "stopped; the same command with --resume True continues from the last finished epoch"
STOPPED_EARLY = "stopped before the first epoch was saved; the same command starts from the beginning"

# Keys of a training that are integers, and the smallest value of each.
COUNTS = {
    "batch_size": 1, "max_epochs": 1, "max_steps": 1, "num_workers": 0, "steps_per_epoch": 1,
    "val_interval": 1, "val_crops": 1, "val_items": 1,
}  # fmt: skip
LENGTHS = ("max_epochs", "max_steps")  # of a run: a profile gives one of them
OPTIONAL = (*LENGTHS, "steps_per_epoch", "val_interval")  # counts that may be null
RATES = ("learning_rate",)  # keys of a training that are numbers above 0

# Keys of a recipe, where the configuration has them; see `recipes.check_rates`.
RECIPE = (
    "backbone_learning_rate",
    "freeze_encoder_epochs",
    "lr_scheduler#warmup",
    "lr_scheduler#final_lr_factor",
    "lr_scheduler#encoder_start",
)


def begin(
    output_dir: str | None = None,
    seed: int | None = None,
    profile: str | None = None,
    save_config: str = "config.yaml",
    counts: Mapping[str, Any] | None = None,
    device: torch.device | str | None = None,
    ckpt_dir: str | None = None,
    resume: bool | None = None,
    rates: Mapping[str, Any] | None = None,
    training: bool = True,
) -> None:
    """Check the values, open the log, seed everything, save the merged configuration in `output_dir`.

    A training holds its folders until `finish`, or until its process ends: see `run_folder`.

    An argument that is None takes the value of the running configuration's key of that name, if present.

    Args:
        output_dir: Folder of the run, created if it does not exist.
        seed: Seed of the network's initial weights and, with the rank added, of everything drawn later.
        profile: Name of the profile, shown in the log; '' for a configuration without profiles.
        save_config: File name of the merged configuration.
        counts: Keys whose value must be an integer from 1; num_workers may be 0; steps_per_epoch,
            val_interval and one of max_epochs and max_steps may be None.
        device: Device of the run, which must exist.
        ckpt_dir: Folder of a training's checkpoints, without a run unless `resume` is set; '' = not checked.
        resume: Whether the run continues: the earlier configuration is kept, this one is written to
            config_resume.yaml.
        rates: Keys whose value must be a number above 0.
        training: False for evaluation and inference, which do not check `ckpt_dir`, counts or rates.

    Raises:
        UserError: a value of the wrong type or out of range, an earlier run in `ckpt_dir`, another run that
            is writing there or into `output_dir`, or an `output_dir` that cannot be written. Nothing is
            written in these cases.
    """
    workflow = running_workflow()
    resumable = workflow is not None and "resume" in workflow.parser.config
    folder = Path(setting("ckpt_dir", "") if ckpt_dir is None else ckpt_dir)
    install_excepthook(partial(_stopped, folder) if resumable and training else "stopped")
    for handler in logging.getLogger().handlers:  # the terminal's; the log file, opened below, has everything
        handler.addFilter(_shown)
    output_dir = setting("output_dir", "") if output_dir is None else output_dir
    seed = setting("seed", 0) if seed is None else seed
    profile = setting("profile", "") if profile is None else profile
    device = setting("device", "cpu") if device is None else device
    integer("seed", seed, minimum=0, expected="an integer from 0")
    if profile and training:
        check_profile(profile, setting("profiles", {profile: {}}))
    counts = _settings(COUNTS, counts) if training else {}
    _check_counts(counts)
    for key, value in (_settings(RATES, rates) if training else {}).items():
        number(key, value, low=0, low_open=True)
    if training:
        check_probe(setting("probe"))
        check_rates({key.split("#")[-1]: value for key, value in _settings(RECIPE, None).items()})
        build_transforms()
    check_precision(setting("precision", "auto"))
    _check_device(device)
    resume = bool(setting("resume", False)) if resume is None else resume
    ckpt_dir = setting("ckpt_dir", "") if ckpt_dir is None else ckpt_dir
    starts = bool(ckpt_dir) and training and not resume
    rank = idist.get_rank()  # a collective call: every process has to make it
    if rank > 0 and starts:
        refuse_earlier_run(ckpt_dir)
    if rank > 0:  # one process reports
        for handler in logging.getLogger().handlers:
            handler.setLevel(logging.WARNING)
    if rank == 0:
        if resume and training and Path(output_dir, save_config).exists():
            save_config = "config_resume.yaml"
        open_folder(
            output_dir,
            held=[ckpt_dir or output_dir, output_dir] if training else [],
            configuration=", ".join(command_line()[0]),
            check=partial(refuse_earlier_run, ckpt_dir) if starts else lambda: None,
            written={} if workflow is None else {save_config: partial(_save_config, workflow.parser.config)},
        )
    _leave_cores_to_workers(int(counts.get("num_workers", 0)))
    set_determinism(seed=seed)
    random.seed(seed)
    versions = f"pretext3d {pretext3d.__version__}, MONAI {monai.__version__}, torch {torch.__version__}"
    logger.info("%s; run in %s%s", versions, output_dir, f"; profile {profile}" if profile else "")


def check_profile(profile: str, profiles: Mapping[str, Any]) -> None:
    """Refuse a profile that is not in the table.

    Raises:
        UserError: unknown profile; names the known ones.
    """
    known = [name for name in profiles if not name.endswith("_2d")]
    one_of("profile", profile, known)


class ProfileSettings(dict[str, Any]):
    """The settings of a profile; to read one that it lacks is a mistake in the table.

    Args:
        profile: Name of the profile.
        values: Its settings.
    """

    def __init__(self, profile: str, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self.profile = profile

    def __missing__(self, key: str) -> Any:
        """Raise the mistake."""
        raise UserError(
            f"profiles::{self.profile}: found no {key}, expected a value for every key that the "
            "configuration reads from its profile"
        )


def profile_rows(profile: str, profiles: Mapping[str, Any], spatial_dims: int = 3) -> list[str]:
    """The rows of the table that give a profile its settings, each over the ones before it.

    A row `like: laptop` inherits: laptop, then the row itself, and in 2D laptop_2d, then `<profile>_2d`.

    Args:
        profile: Name of a row.
        profiles: Table of the configuration.
        spatial_dims: Number of spatial axes, 3 or 2.

    Raises:
        UserError: no such profile, or no such one to be like; spatial_dims other than 2 or 3; 2D in a table
            without a row for it.

    Examples:
        >>> table = {"laptop": {}, "laptop_2d": {}, "mine": {"like": "laptop"}, "mine_2d": {}}
        >>> profile_rows("mine", table), profile_rows("mine", table, spatial_dims=2)
        (['laptop', 'mine'], ['laptop', 'mine', 'laptop_2d', 'mine_2d'])
    """
    check_profile(profile, profiles)
    check_spatial_dims(spatial_dims)
    names = [profile]
    if (like := profiles[profile].get("like")) is not None:
        bases = [n for n, row in profiles.items() if not n.endswith("_2d") and "like" not in row]
        names.insert(0, one_of(f"profiles::{profile}::like", like, bases))
    in_2d = [f"{name}_2d" for name in names if f"{name}_2d" in profiles]
    if spatial_dims == 2 and not in_2d:
        raise UserError(f"spatial_dims: found 2, expected 3: the table `profiles` has no row {profile}_2d")
    return names + in_2d if spatial_dims == 2 else names


def profile_settings(profile: str, profiles: Mapping[str, Any], spatial_dims: int = 3) -> ProfileSettings:
    """The settings of a profile: those of its `profile_rows`, of which the later ones prevail.

    A row gives the length of a training as max_epochs or as max_steps; the other one is None. To read a
    setting that the profile lacks raises a `UserError`.

    Args:
        profile: Name of a row.
        profiles: Table of the configuration.
        spatial_dims: Number of spatial axes, 3 or 2.

    Raises:
        UserError: see `profile_rows`; a row with both lengths.

    Examples:
        >>> table = {"laptop": {"max_steps": 400, "roi_size": 32}, "laptop_2d": {"roi_size": 64}}
        >>> profile_settings("laptop", table, spatial_dims=2)
        {'max_epochs': None, 'max_steps': 400, 'roi_size': 64}
    """
    settings: dict[str, Any] = {}
    for name in profile_rows(profile, profiles, spatial_dims):
        row = {key: value for key, value in profiles[name].items() if key != "like"}
        given = [key for key in LENGTHS if row.get(key) is not None]
        if len(given) > 1:
            raise UserError(f"profiles: {name} has max_epochs and max_steps, expected one of them")
        settings |= dict.fromkeys(LENGTHS if given else ()) | row
    return ProfileSettings(profile, settings)


def profile_entries(of_profile: Mapping[str, Any] | None, **changed: Any) -> dict[str, Any]:
    """A profile's value that has entries, with those given by themselves, as --sizes::box "[30, 60]".

    A value by an expression alone, `$@settings['sizes']`, has no entries that an override could reach.

    Args:
        of_profile: Value of the profile; None = no entries.
        changed: Entries that replace its own, or add to them.

    Examples:
        >>> profile_entries({"box": [50, 80], "min_radius": 20}, min_radius=10)
        {'box': [50, 80], 'min_radius': 10}
    """
    return {**(of_profile or {}), **changed}


def spatial_size(value: int | Sequence[int], spatial_dims: int = 3, key: str = "roi_size") -> tuple[int, ...]:
    """One number, or one per axis, as one per axis.

    Args:
        value: Number of voxels, or a list of them.
        spatial_dims: Number of axes.
        key: Name of the value in messages.

    Raises:
        UserError: for anything else; names `key`.

    Examples:
        >>> spatial_size(64), spatial_size([64, 32], spatial_dims=2)
        ((64, 64, 64), (64, 32))
    """
    words, example = {2: ("two", "[64,32]"), 3: ("three", "[64,64,32]")}[spatial_dims]
    return per_axis(key, value, spatial_dims, expected=f"one number of voxels or {words}, as 64 or {example}")


def _stopped(ckpt_dir: Path) -> str:
    """What an interrupted run says: whether there is an epoch to continue from."""
    return STOPPED if epoch_files(ckpt_dir) else STOPPED_EARLY


def finish(output_dir: str | None = None, wrote: Sequence[str] | None = None, next_step: str = "") -> None:
    """Report what the run wrote and what to type next; end a distributed run; close the log.

    Args:
        output_dir: Folder of the run; None = the running configuration's.
        wrote: File names or patterns in it, each with a remark after a space; those that exist are listed.
            None: those of the training that `next_step` follows.
        next_step: Step whose command is suggested, a key of `next_step.WROTE`; '' = none. Before it, after a
            pre-training, comes `pretext3d doctor`.
    """
    wrote = WROTE.get(next_step, ()) if wrote is None else wrote
    output_dir = setting("output_dir", "") if output_dir is None else output_dir
    if idist.get_rank() == 0:
        lines = [f"done: {output_dir}"]
        lines += [f"  {name}" for name in wrote if any(Path(output_dir).glob(name.split()[0]))]
        if next_step:
            lines += ["next:", *(f"  {command}" for command in (*judging(next_step), suggestion(next_step)))]
        logger.info("%s", "\n".join(lines))
    leave()
    close_folder(output_dir)


def _settings(keys: Sequence[str] | Mapping[str, int], given: Mapping[str, Any] | None) -> dict[str, Any]:
    """The values to check: the given ones, otherwise those of the running configuration."""
    return {key: setting(key) for key in keys if has_setting(key)} if given is None else dict(given)


def _leave_cores_to_workers(num_workers: int) -> None:
    """Use one thread per core that the data loader's processes leave free, unless OMP_NUM_THREADS is set.

    More threads than free cores wait for each other: ten times slower on a busy machine of two cores.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, torch.get_num_threads() - num_workers))


def _check_device(device: torch.device | str) -> None:
    """Check that a device is one, and that this machine has it."""
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise UserError(f"device: found {device!r}, expected cpu, cuda or cuda:0") from error
    if found.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device: found {device}, but torch sees no GPU; expected cpu")
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        names = ", ".join(f"cuda:{index}" for index in range(torch.cuda.device_count()))
        raise UserError(f"device: found {device}, expected one of {names}")


def _check_counts(counts: Mapping[str, Any]) -> None:
    if any(key in counts for key in LENGTHS):
        check_length(counts.get("max_epochs"), counts.get("max_steps"))
    for key, value in counts.items():
        minimum = COUNTS.get(key, 1)
        if value is None and key in OPTIONAL:
            continue
        integer(key, value, minimum, expected=f"an integer from {minimum}")


def _shown(record: logging.LogRecord) -> bool:
    """False for the engine's own report of an error, with traceback: the program reports it at its end."""
    return "is terminating due to exception" not in str(record.msg)


def _save_config(config: Mapping[str, Any], path: Path) -> None:
    ConfigParser.export_config_file(_plain(config), str(path), fmt="yaml", sort_keys=False)


def _plain(value: Any) -> Any:
    """Overrides as the YAML writer accepts them: tuples as lists, paths as text."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items() if k != "_meta_"}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value if isinstance(value, int | float | str | bool | None) else str(value)
