"""Overrides as a user types them (`--key value`), checked against the configuration files of the run."""

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from pydoc import locate
from types import ModuleType
from typing import Any

from monai.bundle import ComponentLocator, ConfigParser
from monai.bundle.utils import merge_kv

from pretext3d.checking import closest_hint
from pretext3d.errors import UserError, install_excepthook
from pretext3d.training.workflow import running_workflow

__all__ = ["check_overrides", "command_line"]

# Set by `monai.bundle run` itself (experiment tracking), not in any configuration file.
MONAI_KEYS = {
    "_meta_", "tracking_uri", "experiment_name", "run_name", "save_execute_config", "is_not_rank0"
}  # fmt: skip


def check_overrides() -> None:
    """Refuse an override of a key that no configuration file has, or of another type than the file's value.

    The merged configuration's keys are compared with those of the files. Under `monai.bundle run` the files
    and the overrides are known (they are in its frame) and nested keys are checked too; elsewhere every
    configuration file next to the first one may have contributed.

    Raises:
        UserError: names the key and the closest existing one.
    """
    install_excepthook()
    workflow = running_workflow()
    if workflow is None:
        return
    files, overrides = command_line()
    if not files:
        files = [str(p) for p in sorted(Path(workflow.config_root_path).glob("*.yaml"))]
    entries = [entry for file in files for entry in ConfigParser.load_config_file(file).items()]
    _check_top_keys(workflow.parser.config, entries, files)
    known = ConfigParser(config={})
    for key, value in entries if overrides else []:
        merge_kv(known, key, value)
    for key in overrides:
        _check_nested(key, known.config, files)


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
    """Follow an override, such as optimizer::lr, into the configuration of the files."""
    parts = key.lstrip("+").replace("#", "::").split("::")
    node = config
    for depth, part in enumerate(parts):
        last = depth == len(parts) - 1
        if isinstance(node, Mapping) and part not in node and not (last and _takes(node, part)):
            if depth:
                raise UserError(_unknown(key, {"::".join([*parts[:depth], str(k)]) for k in node}, files))
            return  # unknown top-level keys are refused elsewhere; MONAI's own are not checked
        if isinstance(node, list) and not (part.isdigit() and int(part) < len(node)):
            raise UserError(
                f"{key}: {'::'.join(parts[:depth])} has entries 0 to {len(node) - 1}, found {part}"
            )
        if last or not isinstance(node, Mapping | list):
            return
        node = node[int(part)] if isinstance(node, list) else node[part]


def _takes(component: Mapping[str, Any], argument: str) -> bool:
    """Whether a component's class has such an argument; True where that is unknown: MONAI then decides."""
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
    hint = closest_hint(key, names, "; did you mean --{}?")
    return f"--{key}: no such key in {', '.join(Path(f).name for f in files)}{hint}"


def command_line() -> tuple[list[str], list[str]]:
    """The configuration files and override keys of the `monai.bundle run` in progress, if there is one."""
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code.co_name == "run" and frame.f_globals.get("__name__") == "monai.bundle.scripts":
            files = frame.f_locals.get("config_file") or []
            return [files] if isinstance(files, str) else list(files), list(
                frame.f_locals.get("override", {})
            )
        frame = frame.f_back
    return [], []
