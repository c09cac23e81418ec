"""Files of results that are broken, cut or edited."""

import re
from pathlib import Path
from typing import Any

import pytest
from pretext3d.errors import UserError

from tests.commands.study_runs import builder


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    return builder(tmp_path, monkeypatch)


def test_a_broken_result_is_named(study: Any, tmp_path: Path) -> None:
    study()("screening")
    file = next((tmp_path / "docs/studies/tiny/screening").rglob("*.csv"))
    for text in ("", "# {}\ncase\n", "a,b\n1,2\n"):
        file.write_text(text)
        with pytest.raises(UserError, match=f"{file.name}: is no result of a cell"):
            study()("screening")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (r"c7,[^\n]*\n", ""),
        (r"c7,liver,0\.\d", "c7,liver,0.1"),
        (r"c7,liver,0\.\d+", "c7,liver,high"),
        (r"(case,[^\n]*\n)[\s\S]*", r"\1"),
    ],
)
def test_a_result_that_was_cut_or_edited_is_named(study: Any, tmp_path: Path, old: str, new: str) -> None:
    """The first line has the score, and the table has to give it."""
    study()("screening")
    file = next((tmp_path / "docs/studies/tiny/screening").rglob("vp*.csv"))
    changed = re.sub(old, new, file.read_text())
    assert changed != file.read_text()
    file.write_text(changed)
    with pytest.raises(UserError, match=f"{file.name}: found a table whose score is .*, expected 0.*first"):
        study()("screening")
