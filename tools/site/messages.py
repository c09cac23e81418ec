"""The page of every error message that a user can meet, where it is raised and why; read from the source."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import griffe

from tools.site.tables import cell, code, table

__all__ = ["Message", "errors_page", "read_messages"]

EXCEPTION = "UserError"


@dataclass(frozen=True)
class Message:
    """A message of a `UserError`.

    Attributes:
        text: Message; what is inserted is in braces.
        place: Function or method, within its module.
        line: Line of the module.
        cause: What the docstrings of the function, and of what is around it, say of a user's mistake; if
            nothing, what the function does.
    """

    text: str
    place: str
    line: int
    cause: str


def template(node: ast.expr, assigned: dict[str, ast.expr]) -> str:
    """The text of a message with its insertions in braces."""
    if isinstance(node, ast.Name) and node.id in assigned:
        return template(assigned[node.id], {})
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(template(part, assigned) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        inner = node.value
        return f"{{{ast.unparse(inner)}}}"
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return template(node.left, assigned) + template(node.right, assigned)
    return f"{{{ast.unparse(node)}}}"


def causes(docstring: str) -> str:
    """What a docstring says of a user's mistake, in its *Raises*; '' without."""
    sections = griffe.Docstring(docstring).parse("google", warnings=False)
    raised = [
        item for part in sections if part.kind is griffe.DocstringSectionKind.raises for item in part.value
    ]
    return " ".join(item.description for item in raised if str(item.annotation).endswith(EXCEPTION))


def read_messages(text: str) -> list[Message]:
    r"""The messages of a module's `UserError`s.

    Args:
        text: Source of the module.

    Examples:
        >>> (found,) = read_messages('def f(n):\n    raise UserError(f"n: found {n!r}, expected 1")\n')
        >>> found.text, found.place
        ('n: found {n}, expected 1', 'f')
    """
    return list(_messages(ast.parse(text), (), "", ""))


def _messages(node: ast.AST, place: tuple[str, ...], cause: str, summary: str) -> Iterator[Message]:
    """Those of a node; functions inherit the cause of what is around them where they state none."""
    assigned = {
        target.id: child.value
        for child in ast.walk(node)
        if isinstance(child, ast.Assign) and isinstance(node, ast.FunctionDef)
        for target in child.targets
        if isinstance(target, ast.Name) and isinstance(child.value, ast.JoinedStr | ast.Constant | ast.BinOp)
    }
    for child in ast.iter_child_nodes(node):
        yield from _inside(child, place, cause, summary, assigned)


def _inside(
    node: ast.AST, place: tuple[str, ...], cause: str, summary: str, assigned: dict[str, ast.expr]
) -> Iterator[Message]:
    """Those of a node that belongs to the function at `place`."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        doc = ast.get_docstring(node) or ""
        first = " ".join(doc.partition("\n\n")[0].split())
        yield from _messages(node, (*place, node.name), causes(doc) or cause, first or summary)
        return
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == EXCEPTION:
        text = template(node.args[0], assigned) if node.args else ""
        yield Message(" ".join(text.split()), ".".join(place), node.lineno, cause or summary)
    for child in ast.iter_child_nodes(node):
        yield from _inside(child, place, cause, summary, assigned)


def errors_page(package: Path) -> str:
    """The page of the messages of a package.

    Args:
        package: Folder of the package.
    """
    parts = [
        "# Error messages\n",
        f"Every mistake that a user can make ends in one message, a `{EXCEPTION}`: what was found, what was "
        "expected. Here are all of them, with the function that raises each and what its documentation says "
        "of the cause, or what it does. In braces is what the message inserts. Search for the words of your "
        "message.\n",
    ]
    part = ""
    for path in sorted(package.rglob("*.py"), key=lambda path: (path.parent == package, path)):
        found = read_messages(path.read_text())
        if found:
            module = ".".join(path.relative_to(package.parent).with_suffix("").parts)
            rows = [
                [code(each.text), code(f"{each.place}, line {each.line}"), cell(each.cause)] for each in found
            ]
            top = module.split(".")[1] if path.parent != package else "The package itself"
            parts += [f"## {top}\n"] if top != part else []
            part = top
            parts += [f"**{module}**\n", table(["message", "raised by", "cause"], rows)]
    return "\n".join(parts)
