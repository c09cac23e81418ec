"""Blocks of a configuration file: its text between marks, by name.

    # >>> training (common; written by tools/bundles/sync)
    ...
    # <<<

A block that is `common` has the template's text. One that is `own` is the bundle's, with the reason in its
mark: `# >>> backbone (own: the cubes meet the encoder alone)`. Everything outside of blocks is the bundle's.
"""

import re
from dataclasses import dataclass

from pretext3d.errors import UserError

__all__ = ["Block", "blocks", "synced"]

COMMON = "common; written by tools/bundles/sync"
BEGIN = re.compile(r"( *)# >>> (\w+) \((common; written by tools/bundles/sync|own: [^)]+)\)")
ANY_BEGIN, END = re.compile(r" *# >>>"), re.compile(r" *# <<<")


@dataclass(frozen=True)
class Block:
    """A block: its lines from mark to mark, where they begin, and whether they are the template's."""

    name: str
    common: bool
    start: int
    lines: tuple[str, ...]


def blocks(text: str, where: str) -> dict[str, Block]:
    r"""The blocks of a file by name, in their order.

    Args:
        text: Text of the file.
        where: Name of the file, for messages.

    Raises:
        UserError: a mark that cannot be read, one without its partner, or a name twice; names file and line.

    Examples:
        >>> text = "a: 1\n# >>> run (own: no training)\nrun: []\n# <<<\n"
        >>> blocks(text, "train.yaml")["run"].lines[1]
        'run: []'
    """
    found: dict[str, Block] = {}
    name, common, start = "", False, 0
    lines = text.split("\n")
    for number, line in enumerate(lines, start=1):
        place = f"{where}, line {number}"
        if ANY_BEGIN.match(line):
            match = BEGIN.fullmatch(line)
            if match is None or name:
                expected = (
                    f"the end of block {name!r}, # <<<" if name else f"# >>> NAME ({COMMON}), or (own: why)"
                )
                raise UserError(f"{place}: found {line.strip()!r}, expected {expected}")
            name, common, start = match[2], match[3] == COMMON, number
            if name in found:
                raise UserError(f"{place}: found block {name!r} a second time, expected it once")
        elif END.fullmatch(line):
            if not name:
                raise UserError(f"{place}: found # <<<, expected the beginning of a block before it")
            found[name] = Block(name, common, start - 1, tuple(lines[start - 1 : number]))
            name = ""
    if name:
        raise UserError(f"{where}: found no end of block {name!r}, expected # <<<")
    return found


def synced(text: str, template: str, where: str) -> str:
    """The text of a bundle's file with the common blocks of the template's.

    Args:
        text: Text of the bundle's file.
        template: Text of the template's file of that name.
        where: Name of the bundle's file, for messages.

    Raises:
        UserError: a block of the template that the file lacks, or one that the template does not have.
    """
    ours, theirs = blocks(text, where), blocks(template, "template")
    missing, unknown = [n for n in theirs if n not in ours], [n for n in ours if n not in theirs]
    if missing or unknown:
        found = f"no block {missing[0]!r}" if missing else f"block {unknown[0]!r}"
        raise UserError(f"{where}: found {found}, expected the template's: {', '.join(theirs)}")
    lines = text.split("\n")
    for block in sorted(ours.values(), key=lambda b: b.start, reverse=True):
        if block.common:
            lines[block.start : block.start + len(block.lines)] = theirs[block.name].lines
    return "\n".join(lines)
