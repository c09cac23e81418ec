"""Pack bundles for others: one zip each with the package inside, its SHA-256 beside it, an index of them all.

The zip holds LICENSE, configs (train.json and inference.json beside the YAML: `monai.bundle.load` reads JSON
only), docs, models, requirements.txt with what metadata.json asks for, and the package `pretext3d`: with
those packages installed, it runs. The same files give the same zip, byte for byte: nothing in it is
compressed (that depends on the zlib at hand), and times, order and permissions are fixed.
"""

import argparse
import io
import json
import os
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import yaml
from pretext3d.errors import UserError
from pretext3d.publishing.archive import (
    archive_name,
    check_name,
    check_version,
    read_metadata,
    requirements,
    sha256_of,
)
from pretext3d.publishing.index import INDEX, make_index
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = """examples:
  python tools/pack.py --all --output_dir dist
  python tools/pack.py bundles/vectorpose bundles/rubiks_cube --base_url https://example.org/bundles
  python -m http.server --directory dist 8000      serves them
"""
FOLDERS = ("configs", "docs", "models", "scripts")
FILES = ("LICENSE", "README.md", "large_files.yml", "large_files.yaml", "large_files.json")
REQUIRED = (
    "LICENSE",
    "configs/metadata.json",
    "configs/train.yaml",
    "configs/inference.yaml",
    "docs/README.md",
)
AS_JSON = ("train", "inference")
TIME = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can tell


@dataclass(frozen=True)
class Packed:
    """What became of one bundle: its file, how many are in it, and `written`, `same` or `replaced`."""

    path: Path
    files: int
    left_out: list[str]
    state: str


def is_draft(path: Path) -> bool:
    """Whether a file is none that others want: hidden, bytecode, or left over from a training."""
    parts = path.parts
    return (
        any(part.startswith(".") or part == "__pycache__" for part in parts)
        or path.suffix in (".pyc", ".pth", ".tmp", ".part", ".log", ".swp")
        or path.name.endswith("~")
        or (parts[0] == "models" and path.name.startswith("epoch_"))
    )


def read_file(path: Path, name: str) -> bytes:
    """A file's content; a link is refused, since what it leads to is not the bundle's."""
    if path.is_symlink():
        raise UserError(f"{name}: found a link, expected a file")
    return path.read_bytes()


def collect(bundle: Path, package: Path) -> tuple[dict[str, bytes], list[str]]:
    """The files of a packed bundle, by their names in it, and what is left out.

    Raises:
        UserError: a required file is missing, a link, or a configuration that is no YAML.
    """
    files: dict[str, bytes] = {}
    left_out = []
    for path in sorted(bundle.rglob("*")):
        inner = path.relative_to(bundle)
        top = inner.parts[0]
        if path.is_dir() and not path.is_symlink():
            continue
        if top == package.name or is_draft(inner):
            if top == "models" and not path.name.startswith("."):
                left_out.append(inner.as_posix())
            continue
        if top in (FOLDERS if len(inner.parts) > 1 else FILES):
            files[inner.as_posix()] = read_file(path, f"{bundle}/{inner.as_posix()}")
        elif top not in left_out:
            left_out.append(top)
    missing = [name for name in REQUIRED if name not in files and name.replace(".yaml", ".json") not in files]
    if missing:
        raise UserError(
            f"{bundle}: has no {', '.join(missing)}; expected a bundle such as bundles/vectorpose"
        )
    for name in AS_JSON:
        if f"configs/{name}.yaml" in files:
            files[f"configs/{name}.json"] = as_json(
                files[f"configs/{name}.yaml"], f"{bundle}/configs/{name}.yaml"
            )
    for path in sorted(package.rglob("*.py")):
        inner = path.relative_to(package.parent)
        if not is_draft(inner):
            files[inner.as_posix()] = read_file(path, str(path))
    return files, left_out


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


def write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        draft.write_bytes(content)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def pack(bundle: Path, output_dir: Path, force: bool = False, package: Path | None = None) -> Packed:
    """Pack one bundle.

    Args:
        bundle: its folder, whose name is the bundle's.
        output_dir: gets the zip and its .sha256.
        force: replace a zip of the same version that holds something else.
        package: what is packed beside the bundle; default: this repository's.

    Raises:
        UserError: what is no bundle, a version that its changelog does not have, or a zip of the same version
            that holds something else.
    """
    package = package or ROOT / "shared" / "pretext3d"
    bundle = bundle.resolve()
    name = check_name(bundle.name)
    metadata_file = bundle / "configs" / "metadata.json"
    metadata = read_metadata(metadata_file)
    version = check_version(metadata.get("version"), f"{metadata_file}: version")
    changelog = metadata.get("changelog") or {}
    if version not in changelog:
        raise UserError(
            f"{metadata_file}: version: found {version}, expected one that `changelog` has: "
            f"{', '.join(changelog) or 'it is empty'}"
        )
    files, left_out = collect(bundle, package)
    files["requirements.txt"] = "".join(f"{line}\n" for line in requirements(metadata)).encode()
    content = zip_of(name, files)
    path = output_dir / archive_name(name, version)
    state = "written"
    if path.exists():
        state = "same" if path.read_bytes() == content else "replaced"
    if state == "replaced" and not force:
        raise UserError(
            f"{path}: found other content under this version, expected the same; raise the version in "
            f"{metadata_file}, or give --force if nobody has it yet"
        )
    if state != "same":
        write(path, content)
    digest = sha256_of(path)
    write(path.with_name(path.name + ".sha256"), f"{digest}  {path.name}\n".encode())
    return Packed(path, len(files), left_out, state)


def chosen(bundles: Sequence[str], everything: bool) -> list[Path]:
    """The bundles' folders.

    Raises:
        UserError: none, one that is not there, or two of one name.
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
    """Pack what was asked for; write the index of the whole output folder; tell."""
    if known.base_url and urlsplit(known.base_url).scheme not in ("http", "https"):
        raise UserError(f"base_url: found {known.base_url!r}, expected http://... or https://...")
    output_dir = Path(known.output_dir)
    folders = chosen(known.bundles, known.all)
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        packed = [pack(folder, output_dir, known.force) for folder in folders]
        index = make_index(output_dir, known.base_url)
        write(output_dir / INDEX, (json.dumps(index, indent=4) + "\n").encode())
    except OSError as error:
        raise UserError(f"output_dir: {output_dir} cannot be written: {error}") from error
    table = Table("bundle", "files", "kB", "sha256", "")
    for one in packed:
        size = f"{one.path.stat().st_size / 1000:,.0f}"
        table.add_row(one.path.name, str(one.files), size, sha256_of(one.path)[:12], one.state)
    Console().print(table)
    for one in packed:
        if one.left_out:
            print(f"{one.path.name}: left out: {', '.join(one.left_out)}")
    print(f"wrote {output_dir / INDEX}: {len(index)} bundle{'s' * (len(index) != 1)}")


def main(words: Sequence[str] | None = None) -> int:
    """The command; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("bundles", nargs="*", help="folders of bundles")
    add("--all", action="store_true", help="every bundle of this repository")
    add("--output_dir", default="dist", help="default: %(default)s")
    add("--base_url", default="", help="where the zips will be served; default: beside the index")
    add("--force", action="store_true", help="replace a zip of the same version that holds something else")
    try:
        run(parser.parse_args(words))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
