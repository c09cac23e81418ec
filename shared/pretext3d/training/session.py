"""The start and the end of a bundle's run: checks of what the user typed, log, seeds, saved configuration.

`check_overrides` (or `check_profile`, which calls it) is the first thing every configuration's `initialize`
calls, then comes `begin`; `finish` is the last of its `finalize`.
"""

import difflib
import inspect
import logging
import math
import os
import random
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from pydoc import locate
from types import ModuleType
from typing import Any

import monai
import torch
import torch.distributed as dist
from monai.bundle import ComponentLocator, ConfigParser, ConfigWorkflow
from monai.bundle.utils import merge_kv
from monai.utils import set_determinism

import pretext3d
from pretext3d.errors import UserError, install_excepthook
from pretext3d.training.checkpointer import refuse_earlier_run

__all__ = ["begin", "check_launched", "check_overrides", "check_profile", "finish", "three_sizes"]

logger = logging.getLogger(__name__)

STOPPED = "stopped; the same command with --resume True goes on from the last finished epoch"

# Set from outside by `monai.bundle run` itself (experiment tracking), in no configuration file.
MONAI_KEYS = {
    "_meta_", "tracking_uri", "experiment_name", "run_name", "save_execute_config", "is_not_rank0"
}  # fmt: skip


def begin(
    output_dir: str,
    seed: int,
    profile: str = "",
    save_config: str = "config.yaml",
    counts: Mapping[str, Any] | None = None,
    device: torch.device | str = "cpu",
    ckpt_dir: str = "",
    resume: bool = False,
    rates: Mapping[str, Any] | None = None,
) -> None:
    """Check the values, open the log, seed everything, save the merged configuration in `output_dir`.

    Args:
        output_dir: the run's folder; made if it is not there.
        seed: of the network's initial weights and, with the rank added, of everything drawn later.
        profile: the name that runs, shown in the log; '' for a configuration without profiles.
        save_config: file name of the merged configuration.
        counts: keys whose value must be a whole number from 1; num_workers may be 0, steps_per_epoch None.
        device: must be there.
        rates: keys whose value must be a number above 0.
        ckpt_dir: of a training: holds no run yet, or `resume` is set; '' = not looked at.
        resume: the run goes on: an earlier one's configuration is kept, this one's goes to
            config_resume.yaml.

    Raises:
        UserError: for a value that is none of its kind, an earlier run in the way, or an `output_dir` that
            cannot be written. Nothing has been written then.
    """
    workflow = _running_workflow()
    resumable = workflow is not None and "resume" in workflow.parser.config
    install_excepthook(STOPPED if resumable else "stopped")
    # MONAI tries an optional GPU decoder at every LoadImage and tells of its absence each time
    warnings.filterwarnings("ignore", message="NvImgCodecPydicomReader")
    logging.getLogger("monai.data.nvimgcodec_pydicom_plugin").setLevel(logging.ERROR)
    for handler in logging.getLogger().handlers:  # the terminal's; the log file, opened below, has everything
        handler.addFilter(_shown)
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise UserError(f"seed: found {seed!r}, expected a whole number from 0")
    _check_counts(counts or {})
    for key, value in (rates or {}).items():
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < math.inf:
            raise UserError(f"{key}: found {value!r}, expected a number above 0")
    _check_device(device)
    if ckpt_dir and not resume:
        refuse_earlier_run(ckpt_dir)
    rank = dist.get_rank() if dist.is_initialized() else 0
    if rank > 0:  # one process tells
        for handler in logging.getLogger().handlers:
            handler.setLevel(logging.WARNING)
    if rank == 0:
        folder = Path(output_dir)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _open_log(folder / "log.txt")
        except OSError as error:
            raise UserError(f"output_dir: {folder} cannot be written: {error}") from error
        if resume and (folder / save_config).exists():
            save_config = "config_resume.yaml"
        if workflow is not None:
            ConfigParser.export_config_file(
                _plain(workflow.parser.config), str(folder / save_config), fmt="yaml", sort_keys=False
            )
    _leave_cores_to_workers(int((counts or {}).get("num_workers", 0)))
    set_determinism(seed=seed)
    random.seed(seed)
    versions = f"pretext3d {pretext3d.__version__}, MONAI {monai.__version__}, torch {torch.__version__}"
    logger.info("%s; run in %s%s", versions, output_dir, f"; profile {profile}" if profile else "")


def check_profile(profile: str, profiles: Mapping[str, Any]) -> None:
    """Refuse a profile that is not in the table; called before anything is looked up there.

    Raises:
        UserError: names the ones that are. Or for an override that no configuration file has.
    """
    check_overrides()
    if profile not in profiles:
        raise UserError(f"profile: found {profile!r}, expected one of {', '.join(profiles)}")


def check_overrides() -> None:
    """Refuse an override that no configuration file has, or whose value is of another kind than the file's.

    The merged configuration's keys are compared with those of the files. Under `monai.bundle run` the files
    and the overrides are known (they stand in its frame) and nested keys are checked too; elsewhere every
    configuration file beside the first one may have contributed.

    Raises:
        UserError: names the key, and the closest one that there is.
    """
    install_excepthook()
    workflow = _running_workflow()
    if workflow is None:
        return
    files, overrides = _command_line()
    if not files:
        files = [str(p) for p in sorted(Path(workflow.config_root_path).glob("*.yaml"))]
    entries = [entry for file in files for entry in ConfigParser.load_config_file(file).items()]
    _check_top_keys(workflow.parser.config, entries, files)
    known = ConfigParser(config={})
    for key, value in entries if overrides else []:
        merge_kv(known, key, value)
    for key in overrides:
        _check_nested(key, known.config, files)


def check_launched() -> None:
    """Refuse a run of several processes that torchrun has not started.

    Raises:
        UserError: says how to start it.
    """
    install_excepthook()
    if "RANK" not in os.environ:
        raise UserError(
            "multi_gpu_train.yaml is for several processes; start it by torchrun --nproc_per_node 2 -m "
            "monai.bundle run ..., or leave it out"
        )


def three_sizes(value: int | Sequence[int], key: str) -> tuple[int, int, int]:
    """One number or three as three; a UserError that names `key` for anything else."""
    sizes = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value] * 3
    if len(sizes) != 3 or not all(isinstance(n, int) and n > 0 for n in sizes):
        raise UserError(
            f"{key}: found {value!r}, expected one whole number of voxels or three, as 64 or [64,64,32]"
        )
    return sizes[0], sizes[1], sizes[2]


def _leave_cores_to_workers(num_workers: int) -> None:
    """One thread a core that the data loader's processes leave free, unless OMP_NUM_THREADS says otherwise.

    More threads than free cores wait for each other: ten times slower on a busy machine of two cores.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, torch.get_num_threads() - num_workers))


def _check_device(device: torch.device | str) -> None:
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
    for key, value in counts.items():
        least = 0 if key == "num_workers" else 1
        if value is None and key == "steps_per_epoch":
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise UserError(f"{key}: found {value!r}, expected a whole number from {least}")


def finish(output_dir: str, wrote: Sequence[str] = (), next_command: str = "") -> None:
    """Say what the run wrote and what to type next; end a distributed run; close the log."""
    if not dist.is_initialized() or dist.get_rank() == 0:
        lines = [f"done: {output_dir}"]
        lines += [f"  {name}" for name in wrote if any(Path(output_dir).glob(name.split()[0]))]
        if next_command:
            lines += ["next:", f"  {next_command}"]
        logger.info("%s", "\n".join(lines))
    if dist.is_initialized():
        dist.destroy_process_group()
    for handler in [h for h in logging.getLogger().handlers if isinstance(h, _RunLog)]:
        logging.getLogger().removeHandler(handler)
        handler.close()


def _shown(record: logging.LogRecord) -> bool:
    """Not the engine's own words on an error, traceback included: the end of the program shows it."""
    return "is terminating due to exception" not in str(record.msg)


class _RunLog(logging.FileHandler):
    """The log file of one run, told apart from handlers that others have installed."""


def _open_log(path: Path) -> None:
    handler = _RunLog(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.getLogger().addHandler(handler)


def _running_workflow() -> ConfigWorkflow | None:
    """The workflow that is evaluating `initialize`: the nearest one on the stack."""
    frame = inspect.currentframe()
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, ConfigWorkflow):
            return owner
        frame = frame.f_back
    return None


def _check_top_keys(
    config: Mapping[str, Any], entries: Sequence[tuple[str, Any]], files: Sequence[str]
) -> None:
    """Compare the merged configuration with the entries of the files."""
    names = {key.split("::")[0].lstrip("+") for key, _ in entries} | MONAI_KEYS
    booleans = {key for key, value in entries if isinstance(value, bool)}
    texts = {key for key, value in entries if isinstance(value, str) and not value.startswith(("$", "@"))}
    for key, value in config.items():
        if key not in names:
            raise UserError(_unknown(key, names, files))
        expression = isinstance(value, str) and value.startswith(("$", "@"))
        if key in texts and isinstance(value, bool):
            raise UserError(f"{key}: found {value}, expected text: was a value forgotten behind --{key}?")
        if key in booleans and not isinstance(value, bool) and not expression:
            raise UserError(f"{key}: found {value!r}, expected True or False")


def _check_nested(key: str, config: Any, files: Sequence[str]) -> None:
    """Follow an override, as optimizer::lr, into the configuration of the files."""
    parts = key.lstrip("+").replace("#", "::").split("::")
    node = config
    for depth, part in enumerate(parts):
        last = depth == len(parts) - 1
        if isinstance(node, Mapping) and part not in node and not (last and _takes(node, part)):
            if depth:
                raise UserError(_unknown(key, {"::".join([*parts[:depth], str(k)]) for k in node}, files))
            return  # unknown top-level keys are refused elsewhere; MONAI's own are not looked into
        if isinstance(node, list) and not (part.isdigit() and int(part) < len(node)):
            raise UserError(
                f"{key}: {'::'.join(parts[:depth])} has entries 0 to {len(node) - 1}, found {part}"
            )
        if last or not isinstance(node, Mapping | list):
            return
        node = node[int(part)] if isinstance(node, list) else node[part]


def _takes(component: Mapping[str, Any], argument: str) -> bool:
    """Whether a component's class has such an argument; what cannot be found out is left to MONAI."""
    target = component.get("_target_")
    if not isinstance(target, str):
        return False
    factory: Any = locate(target) or locate(ComponentLocator().get_component_module_name(target) or "")
    if isinstance(factory, ModuleType):  # MONAI's short names: the module that has the class
        factory = getattr(factory, target, None)
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):
        return True
    return argument in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def _unknown(key: str, names: set[str], files: Sequence[str]) -> str:
    close = difflib.get_close_matches(key, names, n=1)
    hint = f"; did you mean --{close[0]}?" if close else ""
    return f"--{key}: no such key in {', '.join(Path(f).name for f in files)}{hint}"


def _command_line() -> tuple[list[str], list[str]]:
    """The configuration files and override keys of the `monai.bundle run` that is under way, if one is."""
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code.co_name == "run" and frame.f_globals.get("__name__") == "monai.bundle.scripts":
            files = frame.f_locals.get("config_file") or []
            return [files] if isinstance(files, str) else list(files), list(
                frame.f_locals.get("override", {})
            )
        frame = frame.f_back
    return [], []


def _plain(value: Any) -> Any:
    """Overrides as the YAML writer takes them: tuples as lists, paths as text."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items() if k != "_meta_"}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value if isinstance(value, int | float | str | bool | None) else str(value)
