"""Configurations of a bundle that carries the package inside it.

In the repository the package is installed, and a configuration asks it for the bundle's folder. Inside an
unzipped bundle nothing of the package can be imported before that folder is on Python's path: there the
configuration finds the folder by itself, and puts it there first.
"""

from pretext3d.errors import UserError

__all__ = ["vendored"]

INSTALLED = "bundle_root:\n  _target_: pretext3d.training.workflow.bundle_root\n"
INSIDE = """# the package is in this bundle's folder, which has to be on Python's path before anything of it is used
imports:
- $import inspect
- $import sys
bundle_root: "$next((str(i.frame.f_locals['self'].config_root_path.resolve().parent) for i in inspect.stack(0)
  if isinstance(i.frame.f_locals.get('self'), monai.bundle.ConfigWorkflow)), '.')"
"""
INITIALIZE = "\ninitialize:\n"
WITH_PATH = "\ninitialize:\n- $sys.path.insert(0, @bundle_root)\n"


def vendored(text: str, where: str, overlay: bool = False) -> str:
    """A configuration as a bundle needs it that carries the package.

    Args:
        text: Text of the configuration, as the template has it.
        where: Name of the file, for messages.
        overlay: The file is read over another one, which has `bundle_root`.

    Raises:
        UserError: the configuration has not exactly one `bundle_root` or `initialize` as the template writes
            them.
    """
    changes = [(INITIALIZE, WITH_PATH)] if overlay else [(INSTALLED, INSIDE), (INITIALIZE, WITH_PATH)]
    for there, here in changes:
        if text.count(there) != 1:
            name = there.strip().partition(":")[0]
            raise UserError(
                f"{where}: found {text.count(there)} entries `{name}` in the template's form, expected one"
            )
        text = text.replace(there, here)
    return text
