"""The workflow that evaluates a configuration: its bundle's folder, its keys, whether this process reports.

MONAI gives the components of a configuration no handle on their workflow. It is on the stack while they are
made, and is found there.
"""

import inspect
import time
from pathlib import Path
from typing import Any

from monai.bundle import ConfigWorkflow

from pretext3d.ranks import is_first

__all__ = ["bundle_root", "dated_folder", "is_not_rank0", "running_workflow", "setting"]


def running_workflow() -> ConfigWorkflow | None:
    """The workflow that is evaluating a configuration: the nearest one on the stack, None without one."""
    frame = inspect.currentframe()
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, ConfigWorkflow):
            return owner
        frame = frame.f_back
    return None


def setting(key: str, default: Any = None) -> Any:
    """The value of a key of the running configuration; `default` without a workflow, or without that key."""
    workflow = running_workflow()
    if workflow is None or key not in workflow.parser:
        return default
    return workflow.parser.get_parsed_content(key)


def bundle_root() -> str:
    """The folder of the bundle whose configuration is run; `.` without a workflow."""
    workflow = running_workflow()
    return "." if workflow is None else str(workflow.config_root_path.resolve().parent)


def dated_folder() -> str:
    """A folder for one run, by date and time, in the bundle's folder `runs`."""
    return str(Path(bundle_root(), "runs", time.strftime("%Y%m%d_%H%M%S")))


def is_not_rank0() -> bool:
    """Whether another of several processes does the reporting (MONAI's name for it); see `ranks`."""
    return not is_first()
