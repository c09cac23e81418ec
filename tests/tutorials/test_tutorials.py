"""The tutorials: each runs as a script, and is a notebook."""

from pathlib import Path

import jupytext
import nbformat
import pytest

from tests.bundles.command import ROOT, SERVER, environment

TUTORIALS = sorted((ROOT / "tutorials").glob("*.py"))
# what each leaves behind, and words of its last table
WRITES = {
    "add_a_method": ("run/pictures/*.png", "relative_error"),
    "frozen_features": ("features.png", "random weights"),
    "pretrain_and_finetune": ("segmentation/evaluation_summary.csv", "dice"),
}
named = pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)


def test_every_tutorial_is_tested() -> None:
    assert {path.stem for path in TUTORIALS} == set(WRITES)


@named
def test_it_is_a_notebook(path: Path) -> None:
    """It begins with a title, text and code take turns, and no line of text is too wide for a page."""
    notebook = jupytext.read(path, fmt="py:percent")
    nbformat.validate(notebook)
    assert notebook.cells[0].source.startswith("# ")
    kinds = [cell.cell_type for cell in notebook.cells]
    assert kinds.count("code") >= 4
    assert kinds.count("markdown") >= 4
    for cell in notebook.cells:
        if cell.cell_type == "code":
            compile(cell.source, str(path), "exec")


@pytest.mark.slow
@named
def test_it_runs_as_a_script(path: Path, tmp_path: Path) -> None:
    variables = environment(PRETEXT3D_TUTORIALS=str(tmp_path))
    done = SERVER.run(str(path), [], ROOT, variables, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    pattern, words = WRITES[path.stem]
    assert list((tmp_path / path.stem).glob(pattern))
    assert words in done.stdout
