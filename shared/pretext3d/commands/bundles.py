"""List the bundles that came with the package, or copy one: a folder of your own, to read and to change.

In a checkout these are the repository's, in an unzipped bundle it is that bundle.
"""

import argparse
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

from pretext3d.checking import closest_hint
from pretext3d.commands.parser import command_parser
from pretext3d.errors import UserError
from pretext3d.files import draft_folder
from pretext3d.messages import say
from pretext3d.publishing.contents import PACKAGE, leftover

__all__ = ["bundles_at_hand", "find_bundle", "named_bundle"]

EXAMPLES = """examples:
  pretext3d bundles
  pretext3d bundles --copy vectorpose --output_dir my_bundles
  python -m monai.bundle run --config_file my_bundles/vectorpose/configs/train.yaml
"""


def bundles_at_hand(config: str = "metadata.json", around: Path | None = None) -> dict[str, Path]:
    """The bundles of an installed package or of the repository, or the unzipped one around the package.

    Args:
        config: File in `configs` that a bundle must have.
        around: Folder that holds the package; default: this package's. It is site-packages, the
            repository's `shared`, or a bundle; in any other there are none.
    """
    around = around or Path(__file__).resolve().parents[2]
    if (around / "configs" / config).is_file():
        return {around.name: around}
    for folder in (around / PACKAGE / "bundles", around.parent / "bundles"):
        if found := sorted(folder.glob(f"*/configs/{config}")):
            return {path.parents[1].name: path.parents[1] for path in found}
    return {}


def named_bundle(given: str, key: str = "--bundle", around: Path | None = None) -> Path:
    """The folder of a bundle that a user names: by its folder, or by the name of one at hand.

    Args:
        given: What was typed. A folder that is a bundle is taken before a bundle at hand of that name.
        key: Option, for messages.
        around: See `bundles_at_hand`.

    Raises:
        UserError: neither; names the bundles at hand.
    """
    folder, found = Path(given).expanduser(), bundles_at_hand(around=around)
    if (folder / "configs").is_dir():
        return folder.resolve()
    if given in found:
        return found[given]
    what = f"{given}, which has no folder configs" if folder.is_dir() else given
    names = f", or one of {', '.join(found)}" if found else ""
    hint = closest_hint(given, found, "; did you mean {}?")
    raise UserError(f"{key}: found {what}, expected the folder of a bundle{names}{hint}")


def find_bundle(given: str, default: str = "vectorpose", around: Path | None = None) -> Path:
    """The folder of the bundle that a command works with.

    Args:
        given: Folder or name that the user has typed; '' = the default.
        default: Name of the bundle at hand to take; an unzipped bundle takes itself.
        around: See `bundles_at_hand`.

    Raises:
        UserError: no such bundle; none was named, and none is at hand.
    """
    if given:
        return named_bundle(given, around=around)
    found = bundles_at_hand(around=around)
    if not found:
        raise UserError("--bundle: found nothing, expected the folder of a bundle")
    return found.get(default) or next(iter(found.values()))


def copy_bundle(bundle: Path, output_dir: Path) -> Path:
    """Copy a bundle: its configurations, documents, licence and, where it has some, weights.

    Args:
        bundle: Folder of the bundle.
        output_dir: Folder that receives the copy as `output_dir/name`.

    Returns:
        The copy's folder.

    Raises:
        UserError: there is something of that name, or the folder cannot be written.
    """
    target = output_dir / bundle.name
    if target.exists():
        raise UserError(f"--output_dir: found {target} already, expected no such folder")
    try:
        with draft_folder(target) as draft:
            for path in sorted(bundle.rglob("*")):
                inner = path.relative_to(bundle)
                if path.is_file() and not leftover(inner.as_posix()):
                    (draft / inner).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(path, draft / inner)
            draft.rename(target)
    except OSError as error:
        raise UserError(f"--output_dir: {output_dir} cannot be written: {error}") from error
    return target


def make_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = command_parser("bundles", __doc__, EXAMPLES)
    add = parser.add_argument
    add("--copy", metavar="NAME", default="", help="copy this bundle; default: list them all")
    add(
        "--output_dir",
        type=Path,
        help="with --copy: the copy becomes a folder in it; default: the current folder",
    )
    return parser


def main(words: Sequence[str]) -> int:
    """The command: list the bundles, or copy one and report the next command."""
    options = make_parser().parse_args(words)
    if options.output_dir and not options.copy:
        raise UserError(
            f"--output_dir: found {options.output_dir} without --copy, which names a bundle to copy"
        )
    if options.copy:
        folder = copy_bundle(named_bundle(options.copy, "--copy"), options.output_dir or Path())
        weights = "" if (folder / "models").is_dir() else ", without weights"
        say(f"wrote {folder}{weights}")
        file = shlex.quote(str(folder / "configs" / "train.yaml"))
        command = f"python -m monai.bundle run --config_file {file}"
        say(f"next:\n  {command} --dataset_dir SCANS")
        return 0
    from pretext3d.publishing.archive import read_metadata

    found = bundles_at_hand()
    width = max(map(len, found), default=0)
    for name, folder in found.items():
        described = read_metadata(folder / "configs" / "metadata.json")
        say(f"{name:<{width}}  {described.get('version', '')}  {described.get('name', '')}")
    return 0
