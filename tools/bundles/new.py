"""Make a bundle, its method and its test from the template: `python -m tools.bundles.new my_method`.

What is made trains at once (it denoises). Put the method's own targets, heads and loss in its place, then add
the row to README.md that is printed here.
"""

import argparse
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from pretext3d.errors import UserError, install_excepthook

from tools.bundles.sync import ROOT, TEMPLATE

__all__ = ["make"]

NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")


def make(name: str, root: Path = ROOT) -> list[Path]:
    """Write the bundle, the method and the test; nothing where one of them is there.

    Args:
        name: Name of the method, in lower case with underscores.
        root: Folder with bundles, shared and tests.

    Returns:
        The files that were written.

    Raises:
        UserError: another kind of name, or a folder or file of that name.
    """
    if not NAME.fullmatch(name):
        raise UserError(f"name: found {name!r}, expected lower case letters, digits and single underscores")
    bundle, method = root / "bundles" / name, root / "shared" / "pretext3d" / "methods" / name
    test = root / "tests" / "methods" / f"test_{name}.py"
    for place in (bundle, method, test):
        if place.exists():
            raise UserError(f"name: found {place} already, expected no such method")
    texts = {TEMPLATE / "test_method.py": test}
    for part, folder in (("docs", bundle / "docs"), ("configs", bundle / "configs"), ("method", method)):
        texts |= {path: folder / path.name for path in sorted((TEMPLATE / part).iterdir()) if path.is_file()}
    for source, target in texts.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(renamed(source.read_text(), name))
    shutil.copy(ROOT / "LICENSE", bundle / "LICENSE")
    return [*texts.values(), bundle / "LICENSE"]


def renamed(text: str, name: str) -> str:
    """The template's text with the method's name, in the three ways that it is written.

    Examples:
        >>> renamed("example_method: ExampleMethodNet, Example method", "deep_cut")
        'deep_cut: DeepCutNet, Deep cut'
    """
    words = name.split("_")
    for there, here in (
        ("example_method", name),
        ("ExampleMethod", "".join(word.capitalize() for word in words)),
        ("Example method", " ".join(words).capitalize()),
        ("the example method", f"the method {' '.join(words)}"),
    ):
        text = text.replace(there, here)
    return text


def main(words: Sequence[str] | None = None) -> int:
    """The command; the exit code."""
    install_excepthook()
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("name", help="of the method, e.g. my_method")
    name = parser.parse_args(words).name
    for path in make(name):
        print(f"wrote {path.relative_to(ROOT)}")
    print(
        f"next:\n  python -m monai.bundle run --config_file bundles/{name}/configs/train.yaml --max_epochs 1"
        f"\nand a row of README.md:\n  | [{name}](bundles/{name}) | TITLE (AUTHORS, VENUE YEAR) | ready |"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
