"""The merged configuration of a run, checked before anything is built: keys, types, references, targets."""

import inspect
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from pydoc import locate
from types import ModuleType
from typing import Any

from monai.bundle import ComponentLocator, ConfigParser, ConfigWorkflow, ReferenceResolver
from monai.bundle.utils import merge_kv

from pretext3d.checking import brief, closest_hint
from pretext3d.deprecation import RENAMED_KEYS, current_keys
from pretext3d.errors import UserError, install_excepthook
from pretext3d.extras import not_installed
from pretext3d.literals import NOTHING
from pretext3d.training.arguments import (
    MONAI_ARGUMENTS,
    forgotten_value,
    restore_typed,
    typed_words,
)
from pretext3d.training.config_files import MONAI_KEYS, OVERLAYS, as_files, overlay_hint, unknown_key
from pretext3d.training.workflow import running_workflow

__all__ = ["check_entry", "check_nested", "check_overrides", "command_line", "component_class", "walk"]


def check_overrides() -> None:
    """Check the merged configuration; give back to text keys what was typed for them.

    Every bundle calls it first of all, so that none of these mistakes ends in MONAI's trace: an override of a
    key that no configuration file has, or of another type than the file's value; an overlay without the file
    that it changes, or before it; a reference to a key, a component or a step to run that does not exist.

    Under `monai.bundle run` the files and the overrides are known (they are in its frame) and nested keys are
    checked, too; elsewhere every configuration file next to the first one may have contributed.

    Raises:
        UserError: names the key and the closest existing one.
    """
    install_excepthook()
    workflow = running_workflow()
    if workflow is None:
        return
    take_current_keys(workflow.parser)
    typed = restore_typed(workflow.parser, typed_words())
    files, overrides = command_line()
    if not files:
        files = [str(p) for p in sorted(Path(workflow.config_root_path).glob("*.yaml"))]
    entries = [entry for file in files for entry in ConfigParser.load_config_file(file).items()]
    if overrides is not None:
        _check_order(files)
    _check_top_keys(workflow.parser.config, entries, files)
    known = ConfigParser(config={})
    with warnings.catch_warnings():  # MONAI's, at a block that is not there; it has said so before
        warnings.simplefilter("ignore")
        for key, value in entries if overrides else []:
            merge_kv(known, key, value)
    for key in dict.fromkeys([*(overrides or ()), *typed]):
        check_nested(key, known.config, files)
    _check_steps(workflow)
    _check_references(workflow.parser, files)
    _check_targets(workflow.parser)


def take_current_keys(parser: ConfigParser) -> None:
    """Give the values of former names of keys to the names that they have now, see `deprecation`."""
    former = [key for key in parser.config if key in RENAMED_KEYS]
    values = {key: parser.config.pop(key) for key in former}
    for key, value in current_keys(values).items():
        parser[key] = value


def _check_order(files: Sequence[str]) -> None:
    """Refuse a file that changes another one and comes before it."""
    names = [Path(file).name for file in files]
    for index, name in enumerate(names):
        for base in set(OVERLAYS.get(name, ())) & set(names[index + 1 :]):
            raise UserError(f"config_file: found {name} before {base}, expected it after the file it changes")


def _check_steps(workflow: ConfigWorkflow) -> None:
    """Refuse a step that does not exist: the second word of a value with spaces becomes one."""
    if workflow.run_id not in workflow.parser:
        raise UserError(
            f"run_id: found {workflow.run_id!r}, expected a key of the configuration, as run; a value with "
            "spaces needs quotes"
        )


def walk(config: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every entry of a configuration with its id, without MONAI's metadata.

    Args:
        config: Configuration, or a part of one.
        path: Id of that part.

    Examples:
        >>> list(walk({"a": [7]}))
        [('', {'a': [7]}), ('a', [7]), ('a::0', 7)]
    """
    yield path, config
    if isinstance(config, Mapping | list):
        for _, inner, value in ReferenceResolver.iter_subconfigs(path, config):
            if inner != ConfigParser.meta_key:
                yield from walk(value, inner)


def _check_references(parser: ConfigParser, files: Sequence[str]) -> None:
    """Refuse `@key` where there is no such key."""
    if ReferenceResolver.allow_missing_reference:
        return
    for path, value in walk(parser.config):
        for name in ReferenceResolver.match_refs_pattern(value) if isinstance(value, str) else ():
            if name not in parser:
                hint = overlay_hint(files) or closest_hint(name, parser.config, "; did you mean @{}?")
                listed = ", ".join(Path(file).name for file in files)
                raise UserError(f"{path}: found @{name}, but {listed} has no key {name}{hint}")


def _check_targets(parser: ConfigParser) -> None:
    """Refuse a component whose class or function does not exist, or needs a package that is missing."""
    for path, value in walk(parser.config):
        target = value.get("_target_") if isinstance(value, Mapping) else None
        if not isinstance(target, str) or value.get("_disabled_") is True or target.startswith(("$", "@")):
            continue
        if parser.locator.get_component_module_name(target) is None and locate(target) is None:
            raise UserError(f"{path}: found _target_ {target}, expected the name of a class or function")
        if target == "MLFlowHandler" and find_spec("mlflow") is None:
            raise UserError(f"--tracking: found mlflow, which {not_installed('mlflow-skinny')}")


def _check_top_keys(
    config: Mapping[str, Any], entries: Sequence[tuple[str, Any]], files: Sequence[str]
) -> None:
    """Compare the merged configuration with the entries of the files."""
    names = {key.split("::")[0].lstrip("+") for key, _ in entries} | MONAI_KEYS
    booleans = {key for key, value in entries if isinstance(value, bool)}
    texts = {key for key, value in entries if isinstance(value, str) and not value.startswith(("$", "@"))}
    for key, value in config.items():
        if key not in names:
            raise unknown_key(key, names, files)
        expression = isinstance(value, str) and value.startswith(("$", "@")) and value != NOTHING
        if key in texts and isinstance(value, bool):
            raise forgotten_value(key, value)
        if key in booleans and not isinstance(value, bool) and not expression:
            found = None if value == NOTHING else value
            raise UserError(f"{key}: found {found!r}, expected True or False")


def check_nested(key: str, config: Any, files: Sequence[str]) -> None:
    """Follow an override, such as optimizer::lr, into the configuration of the files.

    Args:
        key: Key as typed.
        config: Merged configuration of the files.
        files: Their paths, for messages.

    Raises:
        UserError: a part of the key does not exist; names the closest one.
    """
    parts = key.lstrip("+").replace("#", "::").split("::")
    node = config
    for depth, part in enumerate(parts):
        last = depth == len(parts) - 1
        if isinstance(node, Mapping) and part not in node and not (last and _takes(node, part)):
            if depth:
                raise unknown_key(key, {"::".join([*parts[:depth], str(k)]) for k in node}, files)
            return  # unknown top-level keys are refused elsewhere; MONAI's own are not checked
        if isinstance(node, list) and not (part.isdigit() and int(part) < len(node)):
            raise UserError(
                f"{key}: {'::'.join(parts[:depth])} has entries 0 to {len(node) - 1}, found {part}"
            )
        if last or not isinstance(node, Mapping | list):
            return
        node = node[int(part)] if isinstance(node, list) else node[part]


def check_entry(key: str, config: Any) -> None:
    """Refuse an override of an entry of what has no entries; MONAI would end in a trace.

    Args:
        key: Key as typed.
        config: Configuration before this override.

    Raises:
        UserError: names the key that can be overridden.

    Examples:
        >>> check_entry("optimizer::lr", {"optimizer": {"lr": 0.1}})
    """
    parts = key.lstrip("+").replace("#", "::").split("::")
    node = config
    for depth, part in enumerate(parts):
        if not isinstance(node, Mapping | list):
            outer = "::".join(parts[:depth])
            from_profile = re.fullmatch(r"\$@settings\['(\w+)'\]", node) if isinstance(node, str) else None
            row = ["profiles", "NAME", from_profile[1], *parts[depth:]] if from_profile else []
            hint = f", or --{'::'.join(row)} with NAME the profile's" if row else ""
            raise UserError(
                f"--{key}: found an entry of {outer}, which is {brief(node)}; expected --{outer} with its "
                f"complete value{hint}"
            )
        try:
            node = node[int(part)] if isinstance(node, list) else node[part]
        except (LookupError, ValueError):
            return  # a missing part is `check_nested`'s


def component_class(target: Any) -> Any:
    """The class or function of a component's `_target_`; None where there is none of that name.

    Args:
        target: Dotted path, or the short name of one of MONAI's.

    Examples:
        >>> component_class("SpatialPadd").__name__, component_class("collections.Countre")
        ('SpatialPadd', None)
    """
    if not isinstance(target, str):
        return None
    found: Any = locate(target) or locate(_monai_names().get_component_module_name(target) or "")
    # of a short name MONAI knows the module that has the class
    return getattr(found, target, None) if isinstance(found, ModuleType) else found


@lru_cache
def _monai_names() -> ComponentLocator:
    """MONAI's short names: it looks through all of its modules for the table of one locator."""
    return ComponentLocator()


def _takes(component: Mapping[str, Any], argument: str) -> bool:
    """Whether a component's class has such an argument; True where that is unknown: MONAI then decides."""
    factory = component_class(component.get("_target_"))
    if factory is None:
        return False
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):
        return True
    return argument in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def command_line() -> tuple[list[str], list[str] | None]:
    """The files and override keys of the `monai.bundle run` in progress; None for the keys without one."""
    frame = inspect.currentframe()
    while frame is not None:
        if (
            frame.f_code.co_name == "create_workflow"
            and frame.f_globals["__name__"] == "monai.bundle.scripts"
        ):
            files = frame.f_locals.get("config_file") or []
            given = frame.f_locals.get("_args") or {}
            return as_files(files), [key for key in given if key not in (*MONAI_ARGUMENTS, "workflow_name")]
        frame = frame.f_back
    return [], None
