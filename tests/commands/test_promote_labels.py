"""The names of a promoted bundle's classes."""

from pathlib import Path

import pytest
import yaml
from pretext3d.commands.promote import options, promote
from pretext3d.errors import UserError

from tests.finished import LICENCE, finished_run


def test_names_of_the_datalist(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = finished_run(tmp_path / "run", "vectorpose", "unet", "")
    options.main([str(run), "--name", "x", *LICENCE, "--output_dir", str(tmp_path)])
    assert ": grey, white; weights" in capsys.readouterr().out
    own = yaml.safe_load((tmp_path / "x" / "configs" / "train.yaml").read_text())
    assert own["class_names"] == ["background", "grey", "white"]
    with pytest.raises(UserError, match=r"--labels: found none, expected 2 names: .* label 1, label 2"):
        promote.own_labels(["label 1", "label 2"])


def test_names_in_another_order_are_refused() -> None:
    with pytest.raises(
        UserError, match="--labels: found white, grey, expected the order of the run's classes"
    ):
        promote.check_labels(["white", "grey"], ["grey", "white"])
    promote.check_labels(["a", "b"], ["grey", "white"])
