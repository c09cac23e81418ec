"""Write the common blocks of tools/bundles/template into every bundle's files, or check that they are there.

python -m tools.bundles.sync            writes
python -m tools.bundles.sync --check    writes nothing; exit code 1 where a file differs
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from pretext3d.errors import UserError, install_excepthook

from tools.bundles.blocks import synced

__all__ = ["COPIED", "ROOT", "TEMPLATE", "configurations", "differences", "written_or_checked"]

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = Path(__file__).parent / "template"
# files that are the same in every bundle, and where they come from
COPIED = {"configs/logging.conf": TEMPLATE / "configs" / "logging.conf", "LICENSE": ROOT / "LICENSE"}


def configurations() -> list[str]:
    """The file names of the template's configurations."""
    return sorted(path.name for path in (TEMPLATE / "configs").glob("*.yaml"))


def differences(bundle: Path) -> dict[Path, str]:
    """The files of a bundle that are not as the template says, each with the text that it should have.

    Raises:
        UserError: a file of the template that the bundle lacks, or marks that do not fit.
    """
    wanted: dict[Path, str] = {bundle / name: source.read_text() for name, source in COPIED.items()}
    for name in configurations():
        path = bundle / "configs" / name
        if not path.is_file():
            raise UserError(
                f"{path}: not found; expected a file of the template, {TEMPLATE / 'configs' / name}"
            )
        template = (TEMPLATE / "configs" / name).read_text()
        wanted[path] = synced(path.read_text(), template, f"{bundle.name}/configs/{name}")
    return {path: text for path, text in wanted.items() if not path.is_file() or path.read_text() != text}


def main(words: Sequence[str] | None = None) -> int:
    """The command; the exit code."""

    def differing() -> dict[Path, str]:
        bundles = sorted(path.parents[1] for path in ROOT.glob("bundles/*/configs/metadata.json"))
        return {path: text for bundle in bundles for path, text in differences(bundle).items()}

    return written_or_checked(words, __doc__, differing, "every common block is the template's")


def written_or_checked(
    words: Sequence[str] | None, doc: str | None, differing: Callable[[], dict[Path, str]], same: str
) -> int:
    """A command that writes files that follow from others, or with `--check` reports those that differ.

    Args:
        words: Command line.
        doc: Description of the command.
        differing: Finds the files that differ, each with the text that it should have.
        same: What is printed where there is none.

    Returns:
        The exit code: 1 where `--check` finds a difference.
    """
    install_excepthook()
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--check", action="store_true", help="write nothing, report what differs")
    options = parser.parse_args(words)
    found = differing()
    for path, text in found.items():
        print(f"{'differs' if options.check else 'wrote'}: {path.relative_to(ROOT)}")
        if not options.check:
            path.write_text(text)
    if not found:
        print(same)
    return int(options.check and bool(found))


if __name__ == "__main__":
    sys.exit(main())
