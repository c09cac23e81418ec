"""Pages of all configuration keys: type, default, comment, read from the bundles' YAML files.

What is the same in every bundle is on one page, the rest on a page per bundle.
"""

import inspect
import pydoc
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tools.site.tables import cell, code, table

__all__ = ["Key", "bundle_page", "common_page", "read_keys", "shared_keys"]

FILES = (
    "train", "finetune", "finetune_classification", "evaluate", "evaluate_classification", "inference",
    "multi_gpu_train",
)  # fmt: skip
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the fast one, where there is one
KINDS = {
    bool: "true or false", int: "integer", float: "number", str: "text", list: "list", dict: "mapping",
    type(None): "null",
}  # fmt: skip
OF_PROFILE = re.compile(r"@settings(?:\['(\w+)'\]|\.get\('(\w+)')")
HEADING = re.compile(r" *# ---- (.+)")
BLOCK = re.compile(r" *# (?:>>>|<<<)")
MARK = re.compile(r" *# (?:>>>|<<<|----)")


@dataclass(frozen=True)
class Key:
    """A key of a configuration file.

    Attributes:
        name: As it is typed after `--`, nested ones as `optimizer::lr`.
        kind: Type of its default in words; of a component or an expression, that it is one.
        default: Default as Markdown.
        comment: Comment of the file, on the key's line or above it.
        heading: Heading of its part of the file, from a line `# ---- HEADING`.
        profile: Name of the setting of the profile that is its default; '' = none.
    """

    name: str
    kind: str
    default: str
    comment: str
    heading: str = ""
    profile: str = ""


def written(value: Any) -> str:
    """A plain value in one line of YAML."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6, sort_keys=False, allow_unicode=True)
    return text.removesuffix("...\n").strip() or "''"


def described(name: str, value: Any, comment: str, heading: str) -> Key:
    """A key with its value in words."""
    if isinstance(value, dict) and "_target_" in value:
        target = str(value["_target_"])
        shown = f"<code>{target.replace('.', '.<wbr>')}</code>"  # may be broken after a dot
        own = target.startswith("pretext3d.")
        meaning = comment or (summary(target) if own else "")
        return Key(name, "component", f"[{shown}][{target}]" if own else shown, meaning, heading)
    if isinstance(value, str) and value.startswith(("$", "@")):
        setting = OF_PROFILE.search(value)
        if setting:
            return Key(name, "", "from the profile", comment, heading, setting[1] or setting[2])
        if value.startswith("$@record["):
            return Key(name, "computed", "that of the training", comment, heading)
        same = re.fullmatch(r"@(\w+)", value)
        return Key(name, "computed", f"that of `{same[1]}`" if same else code(value), comment, heading)
    if isinstance(value, list) and any(isinstance(entry, dict | str) and is_part(entry) for entry in value):
        return Key(name, "list of components", "", comment, heading)
    if name == "profiles":
        return Key(name, "mapping", "see the bundle's page", comment, heading)
    if isinstance(value, dict) and any(isinstance(part, dict | list) for part in value.values()):
        return Key(name, "mapping of components", "", comment, heading)
    return Key(name, KINDS[type(value)], code(written(value)), comment, heading)


def summary(target: str) -> str:
    """What the documentation of a class or a function of the package says first.

    Examples:
        >>> summary("pretext3d.training.session.profile_settings")
        'The settings of a profile: those of its `profile_rows`, of which the later ones prevail.'
    """
    found = pydoc.locate(target)
    return " ".join((inspect.getdoc(found) or "").partition("\n\n")[0].split())


def is_part(entry: Any) -> bool:
    """Whether an entry of a list is a component or an expression."""
    return "_target_" in entry if isinstance(entry, dict) else str(entry).startswith(("$", "@"))


def plain(node: yaml.Node) -> Any:
    """The value of a node."""
    return yaml.constructor.SafeConstructor().construct_document(node)


def comment_of(key: yaml.Node, value: yaml.Node, lines: list[str]) -> str:
    """The comment of an entry, on its line or above it; '' = none."""
    block = isinstance(value, yaml.CollectionNode) and not value.flow_style
    end = key.end_mark if block else value.end_mark
    rest = lines[end.line][end.column :].lstrip(": ")
    found = [rest[1:].strip()] if rest.startswith("#") else []
    remarks: list[str] = []
    above = key.start_mark.line - 1
    while above >= 0 and lines[above].lstrip().startswith("#"):
        if MARK.match(lines[above]):
            break
        remarks.insert(0, lines[above].lstrip("# ").strip())
        above -= 1
    if above < 0 or ">>>" in lines[above]:  # these are of the file, or of the block
        remarks = []
    return " ".join([*remarks, *found])


def headings(lines: list[str]) -> list[str]:
    """The heading over each line: of the last line `# ---- HEADING` of its block; '' = none."""
    found, heading = [], ""
    for line in lines:
        title = HEADING.fullmatch(line)
        heading = title[1] if title else "" if BLOCK.match(line) else heading
        found.append(heading)
    return found


def entries(node: yaml.Node, lines: list[str], depth: int) -> Iterator[tuple[str, Any, str, int]]:
    """Name, value, comment and line of the entries of a mapping, and of those in its mappings."""
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        name = str(key.value)
        content = plain(value)
        if depth == 0 or not (isinstance(content, dict) or name.startswith("_")):
            yield name, content, comment_of(key, value, lines), key.start_mark.line
        if name != "profiles":
            for inner, *rest in entries(value, lines, depth + 1):
                yield f"{name}::{inner}", *rest


def read_keys(text: str) -> list[Key]:
    r"""The keys of a configuration file, in its order, with what of their components a user may override.

    Args:
        text: Text of the file.

    Examples:
        >>> (key,) = read_keys("# ---- the method\neta: 0.05  # section 2.1\n")
        >>> key.kind, key.default, key.comment, key.heading
        ('number', '`0.05`', 'section 2.1', 'the method')
    """
    lines = text.split("\n")
    found, over = [], headings(lines)
    top = yaml.compose(text, Loader=LOADER)
    own = {key.value for key, _ in top.value}
    for name, value, comment, line in entries(top, lines, 0):
        if name not in own and is_reference(value):
            continue  # the key that it refers to is the one to change
        found.append(described(name, value, comment, over[line]))
    return found


def is_reference(value: Any) -> bool:
    """Whether a nested value is made of other keys, and not of a profile's setting."""
    parts = value if isinstance(value, list) else [value]
    texts = [part for part in parts if isinstance(part, dict | str) and is_part(part)]
    return bool(texts) and not (isinstance(value, str) and OF_PROFILE.search(value))


@cache
def bundle_keys(bundle: Path) -> dict[str, list[Key]]:
    """The keys of a bundle's files, by the file's name without suffix."""
    paths = {name: bundle / "configs" / f"{name}.yaml" for name in FILES}
    return {name: read_keys(path.read_text()) for name, path in paths.items() if path.is_file()}


@cache
def shared_keys(bundles: tuple[Path, ...]) -> dict[str, list[Key]]:
    """The keys that all bundles, or all but one, have alike in default and comment.

    Args:
        bundles: Folders of the bundles.

    Returns:
        The keys by file.
    """
    all_keys = [bundle_keys(bundle) for bundle in bundles]
    found: dict[str, list[Key]] = {}
    for name in FILES:
        files = [{key.name: key for key in keys.get(name, [])} for keys in all_keys]
        longest = sorted(files, key=len, reverse=True)  # in the order of a bundle that has all of them
        for key in {key.name: key for file in longest for key in file.values()}.values():
            alike = Counter(untitled(file[key.name]) for file in files if key.name in file)
            most, number = alike.most_common(1)[0]
            same = [file[key.name] for file in files if untitled(file.get(key.name)) == most]
            if number >= max(len(files) - 1, 1):
                heading = Counter(each.heading for each in same).most_common(1)[0][0]
                found.setdefault(name, []).append(replace(same[0], heading=heading))
    return found


def untitled(key: Key | None) -> Key | None:
    """A key without its heading, which bundles word differently."""
    return None if key is None else replace(key, heading="")


@cache
def kinds_of_settings(bundles: tuple[Path, ...]) -> dict[str, str]:
    """The type of each setting of the profiles, from the values in all bundles."""
    found: dict[str, set[str]] = {}
    for bundle in bundles:
        for name in FILES:
            path = bundle / "configs" / f"{name}.yaml"
            top = yaml.compose(path.read_text(), Loader=LOADER) if path.is_file() else None
            profiles = [value for key, value in getattr(top, "value", []) if key.value == "profiles"]
            for profile in (value for node in profiles for value in plain(node).values()):
                for setting, value in profile.items():
                    found.setdefault(setting, set()).add(KINDS[type(value)])
    return {setting: " or ".join(sorted(kinds)) for setting, kinds in found.items()}


def typed(name: str) -> str:
    """A key's name as code, which may be broken between its parts."""
    if "::" not in name:
        return code(name)
    return f"<code>{name.replace('::', '::<wbr>')}</code>"


def common_page(bundles: tuple[Path, ...]) -> str:
    """The page of the keys that are the same in every bundle.

    Args:
        bundles: Folders of the bundles.
    """
    kinds = kinds_of_settings(bundles)
    rows: dict[str, dict[str, list[tuple[str, Key]]]] = {}
    for file, keys in shared_keys(bundles).items():
        for key in keys:
            heading = "components" if "component" in key.kind else key.heading or "further keys"
            place = next((heading for heading, names in rows.items() if key.name in names), heading)
            rows.setdefault(place, {}).setdefault(key.name, []).append((file, key))
    parts = [
        "# Configuration keys\n",
        "Every key of every bundle, as `--key value` on the command line; nested ones as "
        "`--optimizer::lr 0.001`. This page has those that all bundles share (`avsdb` has none that choose "
        "or read data for its pre-training); the pages below it have those of each bundle, and its profiles. "
        "A *component* is an object that MONAI builds: its arguments are keys, too. *Computed* defaults "
        "follow from other keys.\n",
    ]
    last = ("further keys", "components")
    for heading, names in sorted(rows.items(), key=lambda row: row[0] in last and 1 + last.index(row[0])):
        lines = [common_row(name, found, kinds) for name, found in names.items()]
        parts.append(f"## {heading[:1].upper()}{heading[1:]}\n")
        parts.append(table(["key", "type, default", "meaning"], lines))
    return "\n".join(parts)


def common_row(name: str, found: list[tuple[str, Key]], kinds: Mapping[str, str]) -> list[str]:
    """A line of the table: what differs between files is named after them."""
    defaults: dict[str, list[str]] = {}
    for file, key in found:
        defaults.setdefault(key.default, []).append(file)
    shown = [f"{default} in {', '.join(files)}" for default, files in defaults.items()]
    kind = " or ".join(dict.fromkeys(kinds.get(key.profile, key.kind) for _, key in found))
    remarks = (remark for _, key in found for remark in key.comment.split("; ") if remark)
    comments = "; ".join(dict.fromkeys(remarks))
    whole = name.rpartition("::")[0]
    return [
        typed(name),
        "<br>".join([f"*{kind}*", *shown]),
        cell(comments) or (f"see {typed(whole)}" if whole else ""),
    ]


def bundle_page(bundle: Path, title: str, bundles: tuple[Path, ...]) -> str:
    """The page of the keys that a bundle has to itself, and of its profiles.

    Args:
        bundle: Folder of the bundle.
        title: Heading of the page.
        bundles: Folders of all bundles.
    """
    kinds = kinds_of_settings(bundles)
    shared = {(file, untitled(key)) for file, keys in shared_keys(bundles).items() for key in keys}
    parts = [
        f"# {title}: keys\n",
        "Keys of this bundle alone, and those whose default or meaning is its own.\n",
    ]
    for file, keys in bundle_keys(bundle).items():
        own = [key for key in keys if (file, untitled(key)) not in shared]
        profiles = profile_table((bundle / "configs" / f"{file}.yaml").read_text())
        if own or profiles:
            parts.append(f"## {file}.yaml\n")
        if own:
            kind = [kinds.get(key.profile, key.kind) for key in own]
            rows = [
                [typed(key.name), f"*{of}*<br>{key.default}".removesuffix("<br>"), cell(key.comment)]
                for key, of in zip(own, kind, strict=True)
            ]
            parts.append(table(["key", "type, default", "meaning"], rows))
        if profiles:
            parts += [f"### Profiles of {file}.yaml\n", profiles]
    return "\n".join(parts)


def profile_table(text: str) -> str:
    """The profiles of a file, one column each; '' where it has none."""
    top = yaml.compose(text, Loader=LOADER)
    lines = text.split("\n")
    node = next((value for key, value in top.value if key.value == "profiles"), None)
    if node is None:
        return ""
    notes, rows, names = [], dict[str, dict[str, str]](), []
    for key, value in node.value:
        names.append(key.value)
        comment = comment_of(key, value, lines)
        notes += [f"- `{key.value}`: {comment}"] if comment else []
        for setting, content in value.value:
            remark = "" if value.flow_style else comment_of(setting, content, lines)
            shown = code(written(plain(content)))
            rows.setdefault(setting.value, {})[key.value] = f"{shown} {cell(remark)}".strip()
    body = [[code(setting), *(values.get(name, "") for name in names)] for setting, values in rows.items()]
    return "\n".join([*notes, "", table(["setting", *map(code, names)], body)])
