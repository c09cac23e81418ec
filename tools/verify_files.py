"""What a packed bundle's files must be: the checks of verify.py that run none of its code."""

import json
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import yaml
from pretext3d.errors import UserError
from pretext3d.publishing.archive import (
    check_members,
    read_metadata,
    requirements,
    sha256_of,
    split_archive_name,
)

SCHEMA = Path(__file__).resolve().parent / "schema" / "meta_schema_20240725.json"
REQUIRED = (
    "LICENSE", "configs/metadata.json", "configs/train.yaml", "configs/train.json", "configs/inference.yaml",
    "configs/inference.json", "configs/logging.conf", "docs/README.md", "pretext3d/__init__.py",
    "requirements.txt",
)  # fmt: skip
TOP = {"LICENSE", "README.md", "requirements.txt", "configs", "docs", "models", "scripts", "pretext3d"}
TOP |= {"large_files.yml", "large_files.yaml", "large_files.json", ".download.json"}
UNWANTED = re.compile(
    r"(^|/)(__pycache__|runs|mlruns|previews)/|\.(pyc|pth|tmp|part|log)$|(^|/)epoch_\d+\.pt$"
)
LARGEST = 25 * 10**6  # bytes of a file in MONAI's model zoo
# Folders of one machine; what stands behind a name, a dot or a variable is relative
_UNIX = re.compile(r"(?<![\w.~$}])/(?:tmp|work|root|farm|home|Users|opt|mnt|srv|var)/[^\s\"']*")
_WINDOWS = re.compile(r"(?<!\w)[A-Za-z]:\\{1,2}(?:Users|Documents|Program|Windows|[Tt]emp|[Dd]ata)[^\s\"']*")


@dataclass(frozen=True)
class Result:
    """One check: its name, `passed`, `failed` or `skipped`, and what was found, and expected if it failed."""

    check: str
    status: str
    text: str


def machine_paths(text: str) -> list[str]:
    """Absolute paths of somebody's machine."""
    return [match.group()[:60] for pattern in (_UNIX, _WINDOWS) for match in pattern.finditer(text)]


def _listed(found: list[str], most: int = 3) -> str:
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(found[:most]) + more


def judge(check: str, wrong: list[str], expected: str, good: str) -> Result:
    """Failed with what is wrong and what was expected, or passed."""
    if wrong:
        return Result(check, "failed", f"found {_listed(wrong)}; expected {expected}")
    return Result(check, "passed", good)


def check_archive(path: Path) -> Result:
    """The zip itself: its name, one top folder, nothing hostile, the SHA-256 beside it."""
    name = split_archive_name(path.name)
    if name is None:
        return Result("archive", "failed", f"found the name {path.name}; expected <name>_v<version>.zip")
    try:
        with zipfile.ZipFile(path) as archive:
            count = len(check_members(archive, name[0]))
            damaged = archive.testzip()
    except (zipfile.BadZipFile, UserError) as error:
        return Result("archive", "failed", str(error))
    if damaged:
        return Result("archive", "failed", f"found {damaged} damaged; expected whole files")
    beside = path.with_name(path.name + ".sha256")
    if not beside.is_file():
        return Result("archive", "failed", f"found no {beside.name}; expected it beside the zip")
    told = beside.read_text(encoding="utf-8").split()[:1]
    wrong = [] if told == [sha256_of(path)] else [f"{beside.name}: {told[0] if told else 'nothing'}"]
    return judge("archive", wrong, sha256_of(path), f"{count} files in {name[0]}/, SHA-256 as told")


def check_required(bundle: Path, files: list[str]) -> Result:
    """Everything that a bundle needs, and the same in JSON as in YAML."""
    wrong = [f"no {name}" for name in REQUIRED if name not in files]
    if "LICENSE" in files and not (bundle / "LICENSE").read_text(encoding="utf-8").strip():
        wrong.append("an empty LICENSE")
    for name in ("train", "inference"):
        pair = [bundle / "configs" / f"{name}{suffix}" for suffix in (".yaml", ".json")]
        if all(path.is_file() for path in pair):
            texts = [path.read_text(encoding="utf-8") for path in pair]
            try:
                if yaml.safe_load(texts[0]) != json.loads(texts[1]):
                    wrong.append(f"configs/{name}.json that says something else than {name}.yaml")
            except (yaml.YAMLError, ValueError) as error:
                wrong.append(f"configs/{name}: {' '.join(str(error).split())}")
    return judge("files", wrong, "what tools/pack.py writes", f"{len(files)} files, nothing is missing")


def check_unwanted(bundle: Path, files: list[str]) -> Result:
    """Nothing that a run, an editor or Python has left, and no file that is too large."""
    wrong = [name for name in files if name.split("/")[0] not in TOP or UNWANTED.search(name)]
    wrong += [name for name in files if name != ".download.json" and re.search(r"(^|/)\.", name)]
    sizes = {name: (bundle / name).stat().st_size for name in files}
    wrong += [f"{name} ({size / 1e6:.0f} MB)" for name, size in sizes.items() if size > LARGEST]
    good = f"largest file {max(sizes.values(), default=0) / 1e6:.1f} MB"
    return judge("leftovers, sizes", wrong, f"a bundle's own files, each up to {LARGEST // 10**6} MB", good)


def check_paths(bundle: Path, files: list[str]) -> Result:
    """No path of the machine that made it, in texts, pictures or weights."""
    found = []
    for name in files:
        data = (bundle / name).read_bytes()
        found += [f"{trace} in {name}" for trace in machine_paths(data.decode("latin-1"))]
    return judge("machine paths", found, "none", f"none in {len(files)} files")


def check_metadata(metadata: dict[str, Any]) -> Result:
    """metadata.json against MONAI's schema, from the copy beside this tool."""
    told = str(metadata.get("schema", ""))
    if told.rsplit("/", 1)[-1] != SCHEMA.name:
        return Result("metadata schema", "failed", f"schema: found {told!r}; expected one of {SCHEMA.name}")
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    errors = jsonschema.validators.validator_for(schema)(schema).iter_errors(metadata)
    wrong = [f"{'/'.join(map(str, error.absolute_path)) or 'metadata'}: {error.message}" for error in errors]
    return judge("metadata schema", wrong, f"what {SCHEMA.name} asks", f"valid by {SCHEMA.name}")


def check_version(bundle: Path, metadata: dict[str, Any], source: str) -> Result:
    """The version is in the changelog and in the zip's name; the required packages have exact versions."""
    version, changelog = metadata.get("version"), metadata.get("changelog") or {}
    wrong = [] if version in changelog else [f"version {version}, changelog of {_listed(list(changelog))}"]
    named = split_archive_name(source)
    if named and named[1] != version:
        wrong.append(f"version {version} in {source}")
    pins = dict(line.split("==") for line in requirements(metadata))
    wrong += [f"{name} {pin}" for name, pin in pins.items() if not re.fullmatch(r"\d+(\.\d+)+", pin)]
    file = bundle / "requirements.txt"
    if file.is_file() and file.read_text(encoding="utf-8").split() != requirements(metadata):
        wrong.append("a requirements.txt that says something else than metadata.json")
    expected = "the version in changelog and name, and exact versions"
    return judge("versions", wrong, expected, f"{version}; {len(pins)} packages pinned")


def check_files(bundle: Path, source: Path) -> Iterator[Result]:
    """All checks of an unpacked bundle's files.

    Args:
        bundle: the unpacked copy.
        source: the zip or folder that it is of.
    """
    if source.is_file():
        yield check_archive(source)
    files = sorted(
        path.relative_to(bundle).as_posix()
        for path in bundle.rglob("*")
        if path.is_file() or path.is_symlink()
    )
    yield check_required(bundle, files)
    yield check_unwanted(bundle, files)
    yield check_paths(bundle, files)
    try:
        metadata = read_metadata(bundle / "configs" / "metadata.json")
    except UserError as error:
        yield Result("metadata schema", "failed", str(error))
        return
    yield check_metadata(metadata)
    yield check_version(bundle, metadata, source.name)
