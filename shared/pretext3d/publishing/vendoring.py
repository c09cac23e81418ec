"""Configurations of a bundle that carries the package inside it.

In the repository the package is installed, and a configuration gets the bundle's folder from it. Inside an
unzipped bundle the package cannot be imported before that folder is on Python's path: there the
configuration finds the folder itself, and adds it to the path first.
"""

from collections.abc import Mapping

import yaml

from pretext3d.errors import UserError

__all__ = ["vendored"]

INSTALLED = "bundle_root:\n  _target_: pretext3d.training.workflow.bundle_root\n"
INSIDE = """# the package is in this bundle's folder, which has to be on Python's path before it is used
imports:
- $import inspect
- $import sys
bundle_root: "$next((str(i.frame.f_locals['self'].config_root_path.resolve().parent) for i in inspect.stack(0)
  if isinstance(i.frame.f_locals.get('self'), monai.bundle.ConfigWorkflow)), '.')"
"""
INITIALIZE = "\ninitialize:\n"
ON_PATH = "- $sys.path.insert(0, @bundle_root)"


def vendored(text: str, where: str) -> str:
    """A configuration for a bundle that carries the package; one that is already in that form is unchanged.

    Args:
        text: Text of the configuration in the template's form.
        where: Name of the file, for messages.

    Raises:
        UserError: `bundle_root` or `initialize` is present, but not in the template's form.
    """
    config = yaml.safe_load(text)
    if isinstance(config.get("bundle_root"), Mapping):
        text = _replaced(text, INSTALLED, INSIDE, where)
    steps = config.get("initialize") or []
    if steps and f"- {steps[0]}" != ON_PATH:
        text = _replaced(text, INITIALIZE, f"{INITIALIZE}{ON_PATH}\n", where)
    return text


def _replaced(text: str, there: str, here: str, where: str) -> str:
    """A text with one part replaced; an error where that part is not there just once."""
    if text.count(there) != 1:
        name = there.strip().partition(":")[0]
        raise UserError(f"{where}: found `{name}` in another form than the template's, expected that one")
    return text.replace(there, here)
