"""Requirements on a packed bundle's files: the checks of verify.py that run none of its code."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import jsonschema
import yaml
from pretext3d.errors import UserError
from pretext3d.files import sha256_of
from pretext3d.publishing.archive import (
    check_changelog,
    check_members,
    open_archive,
    read_metadata,
    requirements,
    split_archive_name,
)
from pretext3d.publishing.contents import MAX_FILE_BYTES, bad_name, leftover
from pretext3d.publishing.provenance import check_provenance
from pretext3d.publishing.traces import machine_traces, own_names

SCHEMA = Path(__file__).resolve().parent / "schema" / "meta_schema_20240725.json"
REQUIRED = (
    "LICENSE", "configs/metadata.json", "configs/train.yaml", "configs/train.json", "configs/inference.yaml",
    "configs/inference.json", "configs/logging.conf", "docs/README.md", "pretext3d/__init__.py",
    "requirements.txt",
)  # fmt: skip
RECORD = ".download.json"  # in a bundle that pretext3d.download has written


@dataclass(frozen=True)
class Result:
    """One check: its name, `passed`, `failed` or `skipped`, and what was found, and expected if it failed."""

    check: str
    status: str
    text: str


def reason(error: BaseException) -> str:
    """An exception on one line."""
    text = " ".join(str(error).split())[:300]
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"


def _listed(found: list[str], most: int = 3) -> str:
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(found[:most]) + more


def judge(check: str, wrong: list[str], expected: str, good: str) -> Result:
    """Failed with what is wrong and what was expected, or passed."""
    if wrong:
        return Result(check, "failed", f"found {_listed(wrong)}; expected {expected}")
    return Result(check, "passed", good)


def check_archive(path: Path) -> Result:
    """The zip itself: its name, one top folder, nothing hostile, the SHA-256 next to it."""
    name = split_archive_name(path.name)
    if name is None:
        return Result("archive", "failed", f"found the name {path.name}; expected <name>_v<version>.zip")
    with open_archive(path) as archive:
        count = len(check_members(archive, name[0]))
        damaged = archive.testzip()
    if damaged:
        return Result("archive", "failed", f"found {damaged} damaged; expected intact files")
    digest_file = path.with_name(path.name + ".sha256")
    if not digest_file.is_file():
        return Result("archive", "failed", f"found no {digest_file.name}; expected it next to the zip")
    digest = digest_file.read_text(encoding="utf-8").split()[:1]
    wrong = (
        [] if digest == [sha256_of(path)] else [f"{digest_file.name}: {digest[0] if digest else 'nothing'}"]
    )
    return judge("archive", wrong, sha256_of(path), f"{count} files in {name[0]}/, SHA-256 as stated")


def check_required(bundle: Path, files: list[str]) -> Result:
    """All files that a bundle needs, with equal content in JSON and YAML."""
    wrong = [f"no {name}" for name in REQUIRED if name not in files]
    if "LICENSE" in files and not (bundle / "LICENSE").read_text(encoding="utf-8").strip():
        wrong.append("an empty LICENSE")
    for name in ("train", "inference"):
        pair = [bundle / "configs" / f"{name}{suffix}" for suffix in (".yaml", ".json")]
        if all(path.is_file() for path in pair):
            texts = [path.read_text(encoding="utf-8") for path in pair]
            try:
                if yaml.safe_load(texts[0]) != json.loads(texts[1]):
                    wrong.append(f"configs/{name}.json that differs from {name}.yaml")
            except (yaml.YAMLError, ValueError) as error:
                wrong.append(f"configs/{name}: {' '.join(str(error).split())}")
    return judge("files", wrong, "what tools/pack.py writes", f"{len(files)} files, nothing is missing")


def check_unwanted(bundle: Path, files: list[str]) -> Result:
    """No leftovers of a run, an editor or Python, and no file that is too large."""
    faults = {name: bad_name(name) or leftover(name) for name in files if name != RECORD}
    wrong = [f"{name} ({what})" for name, what in faults.items() if what]
    wrong += [f"{name} (a link)" for name in files if (bundle / name).is_symlink()]
    sizes = {name: (bundle / name).lstat().st_size for name in files}
    wrong += [f"{name} ({size / 1e6:.0f} MB)" for name, size in sizes.items() if size > MAX_FILE_BYTES]
    good = f"largest file {max(sizes.values(), default=0) / 1e6:.1f} MB"
    return judge(
        "leftovers, sizes", wrong, f"a bundle's own files, each up to {MAX_FILE_BYTES // 10**6} MB", good
    )


def check_paths(bundle: Path, files: list[str]) -> Result:
    """No path of a machine, and no name of this one, in texts, pictures or weights."""
    found, names = [], own_names()
    for name in files:
        if not (bundle / name).is_symlink():
            found += [f"{trace} in {name}" for trace in machine_traces((bundle / name).read_bytes(), names)]
    return judge("machine paths", found, "none", f"none in {len(files)} files")


def check_weights(bundle: Path) -> Result:
    """The weights match their provenance."""
    summary = check_provenance(bundle / "models")
    return (
        Result("provenance", "passed", summary) if summary else Result("provenance", "skipped", "no weights")
    )


def check_metadata(bundle: Path) -> Result:
    """metadata.json against MONAI's schema, from the copy next to this tool."""
    metadata = read_metadata(bundle / "configs" / "metadata.json")
    schema = str(metadata.get("schema", ""))
    if schema.rsplit("/", 1)[-1] != SCHEMA.name:
        return Result("metadata schema", "failed", f"schema: found {schema!r}; expected one of {SCHEMA.name}")
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    errors = jsonschema.validators.validator_for(schema)(schema).iter_errors(metadata)
    wrong = [f"{'/'.join(map(str, error.absolute_path)) or 'metadata'}: {error.message}" for error in errors]
    return judge("metadata schema", wrong, f"what {SCHEMA.name} asks", f"valid by {SCHEMA.name}")


def check_version(bundle: Path, source: str) -> Result:
    """The version is in the changelog and in the zip's name; the required packages have exact versions."""
    metadata = read_metadata(bundle / "configs" / "metadata.json")
    wrong = []
    version = check_changelog(metadata, "metadata.json")
    named = split_archive_name(source)
    if named and named[1] != version:
        wrong.append(f"version {version} in {source}")
    pins = dict(line.split("==") for line in requirements(metadata))
    wrong += [f"{name} {pin}" for name, pin in pins.items() if not re.fullmatch(r"\d+(\.\d+)+", pin)]
    file = bundle / "requirements.txt"
    if file.is_file() and file.read_text(encoding="utf-8").split() != requirements(metadata):
        wrong.append("a requirements.txt that differs from metadata.json")
    expected = "the version in changelog and name, and exact versions"
    return judge("versions", wrong, expected, f"{version}; {len(pins)} packages pinned")


def check_files(bundle: Path, source: Path) -> Iterator[Result]:
    """All checks of an unpacked bundle's files.

    Args:
        bundle: Folder of the unpacked copy.
        source: Path of the zip or folder that it was copied from.
    """
    files = sorted(
        path.relative_to(bundle).as_posix()
        for path in bundle.rglob("*")
        if path.is_file() or path.is_symlink()
    )
    checks: dict[str, Callable[[], Result]] = {
        "files": lambda: check_required(bundle, files),
        "leftovers, sizes": lambda: check_unwanted(bundle, files),
        "machine paths": lambda: check_paths(bundle, files),
        "provenance": lambda: check_weights(bundle),
        "metadata schema": lambda: check_metadata(bundle),
        "versions": lambda: check_version(bundle, source.name),
    }
    if source.is_file():
        yield checked("archive", lambda: check_archive(source), bundle)
    for name, check in checks.items():
        yield checked(name, check, bundle)


def checked(name: str, check: Callable[[], Result], bundle: Path) -> Result:
    """A check's result; one that raises has failed. Files are named relative to the bundle."""
    try:
        return check()
    except Exception as error:
        return Result(name, "failed", reason(error).replace(f"{bundle}/", ""))
