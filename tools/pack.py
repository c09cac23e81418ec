"""Pack bundles for others: one zip each with the package inside, its SHA-256 next to it, an index of all.

With --layout hub, a folder of the same files for a model hub instead, with a model card, see
`pretext3d.publishing.hub`.

The zip holds LICENSE, configs (train.json and inference.json in addition to the YAML: `monai.bundle.load`
reads JSON only), docs, models, requirements.txt with the packages of metadata.json, and the package
`pretext3d`: with those packages installed, it runs. The same files give the same zip, byte for byte: nothing
in it is compressed (that depends on the zlib version), and times, order and permissions are fixed.
"""

import argparse
import io
import json
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from pretext3d.checking import one_of
from pretext3d.commands.compare.study.of_bundle import bundle_results
from pretext3d.errors import UserError, as_error
from pretext3d.files import sha256_of, write_whole
from pretext3d.messages import printable, say
from pretext3d.publishing.archive import (
    archive_name,
    check_changelog,
    check_name,
    read_metadata,
    requirements,
)
from pretext3d.publishing.contents import PACKAGE, bad_name, check_size, leftover, package_files
from pretext3d.publishing.hub import hub_card, write_hub_folder
from pretext3d.publishing.index import INDEX, make_index
from pretext3d.publishing.provenance import check_provenance
from pretext3d.publishing.transfer import check_url
from pretext3d.publishing.vendoring import vendored
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
STUDY = ROOT / "docs" / "studies" / "main.yaml"
EXAMPLES = """examples:
  python tools/pack.py --all --output_dir dist
  python tools/pack.py bundles/vectorpose bundles/rubiks_cube --base_url https://example.org/bundles
  python -m http.server --directory dist 8000      serves them
  python -m tools.pack bundles/vectorpose --layout hub --output_dir hub
"""
REQUIRED = (
    "LICENSE",
    "configs/metadata.json",
    "configs/train.yaml",
    "configs/inference.yaml",
    "docs/README.md",
)
AS_JSON = ("train", "inference")
TIME = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip can store


@dataclass(frozen=True)
class Packed:
    """Result for one bundle: its file, the number of files in it, and `written`, `same` or `replaced`."""

    path: Path
    files: int
    state: str
    left_out: list[str]


def name_of_leftover(inner: Path) -> str:
    """The name to report for a file that is left out: the file, or its top folder if no bundle has that."""
    known = len(inner.parts) == 1 or not leftover(inner.parts[0], folder=True)
    return inner.as_posix() if known else inner.parts[0]


def read_file(path: Path, name: str) -> bytes:
    """A file's content.

    Raises:
        UserError: a link, since its target is not the bundle's; a name that not every system allows;
            more than 25 MB.
    """
    if path.is_symlink():
        raise UserError(f"{path}: found a link, expected a file")
    if bad := bad_name(name):
        raise UserError(f"{path}: found {bad}; expected a plain one")
    check_size(path)
    return path.read_bytes()


def collect(bundle: Path, package: Path) -> tuple[dict[str, bytes], list[str]]:
    """The files of a packed bundle, by their names in it, and what is left out.

    Raises:
        UserError: a required file is missing, a link or too large, or a configuration that is not YAML.
    """
    files: dict[str, bytes] = {}
    left_out: set[str] = set()
    for path in sorted(bundle.rglob("*")):
        inner = path.relative_to(bundle)
        name = inner.as_posix()
        if (path.is_dir() and not path.is_symlink()) or inner.parts[0] == PACKAGE:
            continue
        if not leftover(name):
            files[name] = read_file(path, name)
        elif not any(part.startswith(".") or part == "__pycache__" for part in inner.parts):
            left_out.add(name_of_leftover(inner))
    missing = [name for name in REQUIRED if name not in files and name.replace(".yaml", ".json") not in files]
    if missing:
        raise UserError(
            f"{bundle}: has no {', '.join(missing)}; expected a bundle such as bundles/vectorpose"
        )
    for name in [name for name in files if name.startswith("configs/") and name.endswith(".yaml")]:
        files[name] = with_package(files[name], f"{bundle}/{name}")
    for name in AS_JSON:
        if f"configs/{name}.yaml" in files:
            files[f"configs/{name}.json"] = as_json(
                files[f"configs/{name}.yaml"], f"{bundle}/configs/{name}.yaml"
            )
    for path in package_files(package):
        name = path.relative_to(package.parent).as_posix()
        files[name] = read_file(path, name)
    return files, sorted(left_out)


def with_package(text: bytes, where: str) -> bytes:
    """A configuration for a bundle with the package inside it.

    Raises:
        UserError: it is not YAML, or not in the template's form.
    """
    try:
        return vendored(text.decode(), where).encode()
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{where}: cannot be written as JSON: {' '.join(str(error).split())}") from error


def as_json(text: bytes, where: str) -> bytes:
    """A YAML configuration as JSON."""
    try:
        return (json.dumps(yaml.safe_load(text), indent=4) + "\n").encode()
    except (yaml.YAMLError, TypeError) as error:
        raise UserError(f"{where}: cannot be written as JSON: {' '.join(str(error).split())}") from error


def zip_of(name: str, files: dict[str, bytes]) -> bytes:
    """The zip: one top folder, the same bytes on every machine."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for inner in sorted(files):
            member = zipfile.ZipInfo(f"{name}/{inner}", TIME)
            member.create_system = 3  # Unix, wherever this runs
            member.external_attr = 0o100644 << 16
            archive.writestr(member, files[inner])
    return stream.getvalue()


def contents(bundle: Path, package: Path | None = None) -> tuple[str, dict[str, bytes], list[str]]:
    """What others get of a bundle: its version, its files by their names in it, and what is left out.

    Args:
        bundle: Folder of the bundle, with its name.
        package: Folder of the package to pack with the bundle; None = this repository's.

    Raises:
        UserError: not a bundle, a version that its changelog does not have, or weights without their
            provenance.
    """
    check_name(bundle.name)
    metadata_file = bundle / "configs" / "metadata.json"
    metadata = read_metadata(metadata_file)
    version = check_changelog(metadata, str(metadata_file))
    check_provenance(bundle / "models")
    files, left_out = collect(bundle, package or ROOT / "shared" / "pretext3d")
    needed = requirements(metadata, str(metadata_file))
    files["requirements.txt"] = "".join(f"{line}\n" for line in needed).encode()
    return version, files, left_out


def pack(bundle: Path, output_dir: Path, force: bool = False, package: Path | None = None) -> Packed:
    """Pack one bundle.

    Args:
        bundle: Folder of the bundle, with its name.
        output_dir: Folder for the zip and its .sha256.
        force: Whether to replace a zip of the same version with other content.
        package: Folder of the package to pack with the bundle; None = this repository's.

    Raises:
        UserError: as `contents`, or a zip of the same version that holds something else.
    """
    bundle = bundle.resolve()
    version, files, left_out = contents(bundle, package)
    content = zip_of(bundle.name, files)
    path = output_dir / archive_name(bundle.name, version)
    state = "written"
    if path.exists():
        state = "same" if path.read_bytes() == content else "replaced"
    if state == "replaced" and not force:
        raise UserError(
            f"{path}: found other content under this version, expected the same; raise the version in "
            f"{bundle}/configs/metadata.json, or give --force if nobody has it yet"
        )
    if state != "same":
        write_whole(path, content)
    digest = sha256_of(path)
    write_whole(path.with_name(path.name + ".sha256"), f"{digest}  {path.name}\n".encode())
    return Packed(path, len(files), state, left_out)


def pack_folder(bundle: Path, output_dir: Path, force: bool = False, study: Path | None = None) -> Packed:
    """Write the folder of one bundle for a model hub.

    Args:
        bundle: Folder of the bundle, with its name.
        output_dir: Folder that receives the bundle's folder.
        force: Whether to replace a folder with other content, of a bundle alone.
        study: Path of a study whose results the card states; None = none.

    Raises:
        UserError: as `contents`; a folder with other content.
    """
    bundle = bundle.resolve()
    _, files, left_out = contents(bundle)
    results = bundle_results(study, bundle.name) if study else []
    files["README.md"] = hub_card(bundle, results).encode()
    state = write_hub_folder(output_dir / bundle.name, files, force)
    return Packed(output_dir / bundle.name, len(files), state, left_out)


def chosen(bundles: Sequence[str], everything: bool) -> list[Path]:
    """The bundles' folders.

    Raises:
        UserError: none, a missing one, or two of one name.
    """
    if everything == bool(bundles):
        raise UserError(f"bundles: found {list(bundles)} and --all {everything}, expected folders or --all")
    folders = sorted(path.parents[1] for path in (ROOT / "bundles").glob("*/configs/metadata.json"))
    folders = folders if everything else [Path(one).expanduser().resolve() for one in bundles]
    names = [folder.name for folder in folders]
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"bundles: {folder}: not found; expected a folder such as bundles/vectorpose")
        if names.count(folder.name) > 1:
            raise UserError(f"bundles: found two of the name {folder.name}, expected one")
    return folders


def run(known: argparse.Namespace) -> None:
    """Pack the chosen bundles, write the index of the complete output folder of zips, and report."""
    one_of("--layout", known.layout, ("zip", "hub"))
    if known.base_url and known.layout == "hub":
        raise UserError("--base_url: found with --layout hub, expected it with zips, whose index has it")
    if known.base_url:
        check_url(known.base_url, "base_url")
    output_dir = Path(known.output_dir)
    folders = chosen(known.bundles, known.all)
    study = Path(known.study) if known.study else None
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        if known.layout == "hub":
            report([pack_folder(folder, output_dir, known.force, study) for folder in folders])
            return
        report([pack(folder, output_dir, known.force) for folder in folders])
        index = make_index(output_dir, known.base_url)
        write_whole(output_dir / INDEX, (json.dumps(index, indent=4) + "\n").encode())
    except OSError as error:
        raise UserError(f"output_dir: {output_dir} cannot be written: {error}") from error
    say(f"wrote {output_dir / INDEX}: {len(index)} bundle{'s' * (len(index) != 1)}")


def report(packed: Sequence[Packed]) -> None:
    """Print what was written, and what was left out."""
    table = Table("bundle", "files", "kB", "sha256", "")
    for one in packed:
        zipped = one.path.is_file()
        size = sum(file.stat().st_size for file in ([one.path] if zipped else one.path.rglob("*")))
        digest = sha256_of(one.path)[:12] if zipped else ""
        table.add_row(printable(one.path.name), str(one.files), f"{size / 1000:,.0f}", digest, one.state)
    Console().print(table)
    for one in packed:
        if one.left_out:
            say(f"{one.path.name}: left out: {', '.join(one.left_out)}")


def main(words: Sequence[str] | None = None) -> int:
    """The command; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("bundles", nargs="*", help="folders of bundles")
    add("--all", action="store_true", help="every bundle of this repository")
    add("--output_dir", default="dist", help="default: %(default)s")
    add("--base_url", default="", help="where the zips will be served; default: next to the index")
    add("--layout", default="zip", help="zip, or hub: a folder for a model hub; default: %(default)s")
    add("--study", default=str(STUDY), help="study whose results a hub's card has; '' = none; default: main")
    add("--force", action="store_true", help="replace a zip or folder that holds something else")
    try:
        run(parser.parse_args(words))
    except UserError as error:
        print(as_error(error), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
