"""Check packed bundles before publication: MONAI's model zoo's requirements, and that they run elsewhere.

Files: the archive and its SHA-256, required files, leftovers, sizes, machine paths, metadata and versions.
Runs, in an environment with MONAI and what metadata.json requires, from another folder: two iterations of
pre-training, fine-tuning from them, evaluation and inference; then MONAI's properties, the network's input
and output, the transfer of every encoder weight, checkpoints with weights_only=True, TorchScript, ONNX.
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from pretext3d.errors import UserError, as_error
from pretext3d.messages import printable, say
from pretext3d.publishing.archive import read_metadata, requirements, split_archive_name, unpack
from rich.console import Console
from rich.markup import escape as escaped
from rich.table import Table
from verify_files import Result, check_archive, check_files, checked, reason
from verify_runs import Runs, check_environments, clean_environment, current_environment

EXAMPLES = """examples:
  python tools/verify.py dist/*.zip
  python tools/verify.py dist/vectorpose_v0.1.0.zip --environment ../clean      created once, then reused
  python tools/verify.py bundles/vectorpose --environment current --files_only
"""
COLOURS = {"passed": "green", "failed": "bold red", "skipped": "yellow"}


def check_source(source: Path) -> None:
    """Make sure that there is something to check.

    Raises:
        UserError: neither a zip of a bundle's name nor a folder.
    """
    if not source.is_dir() and (not source.is_file() or split_archive_name(source.name) is None):
        raise UserError(f"{source}: found no bundle; expected <name>_v<version>.zip or a folder")


def unpacked(source: Path, work: Path) -> Path:
    """A copy of the bundle in `work`.

    Raises:
        UserError: not a bundle, or a zip that must not be unpacked.
    """
    check_source(source)
    if source.is_dir():
        name = source.resolve().name
        return Path(
            shutil.copytree(source, work / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        )
    name = source.name.partition("_v")[0]
    unpack(source, work / name, name)
    return work / name


def verify(source: Path, work: Path, known: argparse.Namespace) -> Iterator[Result]:
    """Every check of one bundle.

    Args:
        source: Path of the zip or folder.
        work: Folder for this call.
        known: Options of the command.
    """
    try:
        bundle = unpacked(source, work)
    except Exception as error:
        found = checked("archive", lambda: check_archive(source), work) if source.is_file() else None
        failed = found is not None and found.status == "failed"
        yield found if failed else Result("archive", "failed", reason(error))
        return
    failed = False
    for result in check_files(bundle, source):
        failed = failed or result.status == "failed"
        yield result
    if known.files_only:
        return
    if failed:  # code of a bundle that failed its checks is not run
        yield Result("runs", "skipped", "its files failed")
        return
    if known.environment == "current":
        environment = current_environment(work)
    else:
        packages = requirements(read_metadata(bundle / "configs" / "metadata.json"))
        environment = clean_environment(environment_folder(known.environment), packages, work)
    yield from Runs(bundle, environment, work, known.dataset_dir).all()


def escape(text: str) -> str:
    """A text for a cell of the table: printable, and without rich's markup."""
    return escaped(printable(text))


def safely(results: Iterator[Result]) -> Iterator[Result]:
    """The results, and a failed one after an error."""
    try:
        yield from results
    except Exception as error:
        yield Result("verify", "failed", reason(error))


def environment_folder(given: str) -> Path:
    """Folder of the virtual environments; by default in the cache folder."""
    if given:
        return Path(given).expanduser().absolute()
    from pretext3d.data.dataset import default_cache_dir

    return Path(default_cache_dir()) / "verify_environments"


def run(known: argparse.Namespace) -> int:
    """Check every bundle and print a table. Returns the number of failed checks."""
    console = Console(width=None if sys.stdout.isatty() else 160)
    if known.dataset_dir and not Path(known.dataset_dir).is_dir():
        raise UserError(f"dataset_dir: {known.dataset_dir}: not found; expected a folder of labelled volumes")
    known.dataset_dir = str(Path(known.dataset_dir).resolve()) if known.dataset_dir else ""
    sources = [Path(one) for one in known.bundles]
    for source in sources:
        check_source(source)
    if known.environment != "current":
        check_environments(environment_folder(known.environment))
    table = Table("bundle", "check", "", "found")
    counts = dict.fromkeys(COLOURS, 0)
    with tempfile.TemporaryDirectory(prefix="verify_") as folder:
        for source in sources:
            for result in safely(verify(source, Path(folder).resolve(), known)):
                say(f"{source.name}: {result.check}: {result.status}", flush=True)
                counts[result.status] += 1
                status = f"[{COLOURS[result.status]}]{result.status}"
                table.add_row(escape(source.name), result.check, status, escape(result.text))
            table.add_section()
            for left in Path(folder).iterdir():  # the phantom stays for the next
                if left.name != "cache":
                    shutil.rmtree(left)
    console.print(table)
    say(", ".join(f"{count} {status}" for status, count in counts.items()))
    return counts["failed"]


def main(words: Sequence[str] | None = None) -> int:
    """The command; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("bundles", nargs="+", help="zips, as tools/pack.py writes them, or folders that were unpacked")
    add(
        "--environment",
        default="",
        help="folder of the virtual environments that they run in, one for each set of requirements, made if "
        "they are not there; `current`: the Python that runs this, with its own pretext3d hidden; default: "
        "in the cache folder",
    )
    add("--dataset_dir", default="", help="labelled volumes to run on; default: the embedded phantom")
    add("--files_only", action="store_true", help="run nothing")
    try:
        return 1 if run(parser.parse_args(words)) else 0
    except UserError as error:
        print(as_error(error), file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
