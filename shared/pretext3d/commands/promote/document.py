"""A configuration file that is edited entry by entry and keeps its comments."""

import io
import re
from collections.abc import Mapping
from typing import Any

import yaml

from pretext3d.errors import UserError

__all__ = ["Document"]

MARK = re.compile(r"^ *# (>>> .*|<<<)\n", re.MULTILINE)


class Document:
    """The entries of a YAML mapping; an entry that an edit names must exist.

    Args:
        text: Text of the file; marks of common blocks are removed.
        header: Comment lines that replace those at its top.
        where: Name of the file, for messages.
    """

    def __init__(self, text: str, header: str, where: str) -> None:
        from ruamel.yaml import YAML

        self.where = where
        self.yaml = YAML()
        self.yaml.width = 110
        self.yaml.preserve_quotes = True
        self.yaml.representer.add_representer(float, _float)
        self.yaml.representer.add_representer(type(None), _null)
        self.content = self.yaml.load(header + re.sub(r"\A(#[^\n]*\n)*", "", MARK.sub("", text)))

    def __getitem__(self, path: str) -> Any:
        """The entry `key` or `key::inner`."""
        node, last = self._node(path)
        return node[last]

    def _node(self, path: str) -> tuple[Any, Any]:
        if path in self.content:  # an overlay names nested entries by one key
            return self.content, path
        *outer, last = path.split("::")
        node: Any = self.content
        key: Any = last
        for name in (*outer, last):
            listed = isinstance(node, list) and name.isdigit() and int(name) < len(node)
            if not listed and (not isinstance(node, Mapping) or name not in node):
                raise UserError(f"{self.where}: found no entry {path}, expected the template's")
            key = int(name) if listed else name
            node, parent = node[key], node
        return parent, key

    def set(self, path: str, value: Any, comment: str | None = None) -> None:
        """Give an entry another value, and another comment if one is given.

        Raises:
            UserError: there is no such entry.
        """
        node, last = self._node(path)
        node[last] = as_yaml(value)
        remark = (node.ca.items.get(last) or [None] * 3)[2]
        if remark is not None:  # the line's comment includes the lines below it
            below = remark.value[remark.value.index("\n") :]
            kept = remark.value.split("\n")[0] if comment is None else f"# {comment}" * bool(comment)
            remark.value, remark.start_mark.column = kept + below, 0
        elif comment:
            node.yaml_add_eol_comment(comment, last, column=0)

    def remove(self, path: str) -> None:
        """Remove an entry, with the comment at the end of its line.

        Raises:
            UserError: there is no such entry.
        """
        node, last = self._node(path)
        del node[last]

    def insert_before(self, path: str, entries: Mapping[str, Any]) -> None:
        """Put further entries before one.

        Raises:
            UserError: there is no such entry, or one of the new ones already exists.
        """
        node, last = self._node(path)
        for name, value in entries.items():
            if name in node:
                raise UserError(f"{self.where}: found an entry {name}, expected none to be added to")
            node.insert(list(node).index(last), name, as_yaml(value))

    def step(self, path: str, target: str) -> Any:
        """The one component of a list, or of a Compose, whose target ends so.

        Raises:
            UserError: there is none, or more than one.
        """
        listed = self[path]
        listed = listed["transforms"] if isinstance(listed, Mapping) else listed
        found = [
            one
            for one in listed
            if isinstance(one, Mapping) and str(one.get("_target_", "")).rpartition(".")[2] == target
        ]
        if len(found) != 1:
            raise UserError(f"{self.where}: found {len(found)} of {target} in {path}, expected one")
        return found[0]

    def text(self) -> str:
        """The file's text.

        Raises:
            UserError: MONAI's YAML reader would read another value.
        """
        stream = io.StringIO()
        self.yaml.dump(self.content, stream)
        written = re.sub(r"\n{3,}", "\n\n", stream.getvalue())
        if yaml.safe_load(written) != plain(self.content):
            raise UserError(
                f"{self.where}: found a setting of the run that YAML would not read back unchanged"
            )
        return written


def as_yaml(value: Any) -> Any:
    """A value in the form for writing: text without needless quotes, a list of plain values on one line."""
    from ruamel.yaml.comments import CommentedSeq
    from ruamel.yaml.scalarstring import DoubleQuotedScalarString, PlainScalarString

    if isinstance(value, Mapping):
        return {key: as_yaml(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        listed = CommentedSeq([as_yaml(v) for v in value])
        if not any(isinstance(v, Mapping | list) for v in value):
            listed.fa.set_flow_style()
        return listed
    if not isinstance(value, str):
        return value
    return PlainScalarString(value) if _reads_back(value) else DoubleQuotedScalarString(value)


def _reads_back(text: str) -> bool:
    """Whether MONAI's YAML 1.1 takes text without quotes for the same text, as it does not `yes` or `1e5`."""
    try:
        return bool(yaml.safe_load(text) == text)
    except yaml.YAMLError:
        return False


def plain(value: Any) -> Any:
    """The same value with only dictionaries, lists, text, numbers and booleans."""
    if isinstance(value, Mapping):
        return {str(key): plain(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return value


def _float(representer: Any, value: float) -> Any:
    """A number as YAML 1.1 reads it: 1.0e-05, where 1e-05 would be text."""
    return representer.represent_scalar("tag:yaml.org,2002:float", yaml.safe_dump(value).split("\n")[0])


def _null(representer: Any, value: None) -> Any:
    return representer.represent_scalar("tag:yaml.org,2002:null", "null")
