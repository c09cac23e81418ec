"""The workflow that evaluates a configuration: its bundle's folder, its keys, whether this process reports.

MONAI gives the components of a configuration no reference to their workflow. It is on the stack while they
are created, and is found there.
"""

import inspect
import time
from pathlib import Path
from typing import Any, TypeVar

from monai.bundle import ConfigParser, ConfigWorkflow
from monai.utils import ensure_tuple

from pretext3d.ranks import is_first

__all__ = [
    "built",
    "bundle_root",
    "dated_folder",
    "has_setting",
    "is_not_rank0",
    "running_parser",
    "running_workflow",
    "setting",
]


Owner = TypeVar("Owner")


def _on_the_stack(kind: type[Owner]) -> Owner | None:
    """The nearest object of a class one of whose methods is running."""
    frame = inspect.currentframe()
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, kind):
            return owner
        frame = frame.f_back
    return None


def running_workflow() -> ConfigWorkflow | None:
    """The workflow that is evaluating a configuration: the nearest one on the stack, None without one."""
    return _on_the_stack(ConfigWorkflow)


def running_parser() -> ConfigParser | None:
    """The parser that is evaluating a configuration, also without a workflow; None without one."""
    found = _on_the_stack(ConfigParser)
    workflow = running_workflow()
    return workflow.parser if found is None and workflow is not None else found


def setting(key: str, default: Any = None) -> Any:
    """The value of a key of the running configuration; `default` without one, or without that key."""
    parser = running_parser()
    return default if parser is None or key not in parser else parser.get_parsed_content(key)


def built(key: str) -> Any:
    """A component of the running configuration that has been built; None where nothing has needed it.

    A program that gives its own lists of cases (MONAI Label) leaves `cases` out: it must not be built for a
    report.
    """
    parser = running_parser()
    return None if parser is None else parser.ref_resolver.resolved_content.get(key)


def has_setting(key: str) -> bool:
    """Whether the running configuration has a key."""
    parser = running_parser()
    return parser is not None and key in parser


def bundle_root() -> str:
    """The folder of the bundle whose configuration is read.

    It is that of the workflow; or, in the verbs of `monai.bundle` that have none (`ckpt_export`,
    `verify_net_in_out`, ...), that of their first configuration file; otherwise `.`.
    """
    workflow = running_workflow()
    if workflow is not None:
        return str(workflow.config_root_path.resolve().parent)
    frame = inspect.currentframe()
    while frame is not None:
        file = frame.f_locals.get("config_file_", frame.f_locals.get("config_file"))
        if frame.f_globals.get("__name__") == "monai.bundle.scripts" and file:
            return str(Path(ensure_tuple(file)[0]).resolve().parent.parent)
        frame = frame.f_back
    return "."


def dated_folder() -> str:
    """A folder for one run, by date and time, in the bundle's folder `runs`."""
    return str(Path(bundle_root(), "runs", time.strftime("%Y%m%d_%H%M%S")))


def is_not_rank0() -> bool:
    """Whether another process does the reporting (MONAI's name for it); see `ranks`."""
    return not is_first()
