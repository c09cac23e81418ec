"""Former names: one warning with the version and the replacement; later they are refused in one line."""

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import run
from monai.utils.deprecate_utils import DeprecatedError
from pretext3d import deprecation
from pretext3d.__main__ import main
from pretext3d.commands.parser import read_overrides
from pretext3d.deprecation import Renamed, current_keys, deprecated, renamed_argument
from pretext3d.errors import UserError
from pretext3d.training.arguments import typed_values

CONFIG = """
imports: [$import json, $import pathlib]
output_dir: somewhere
views: {zoom_range: 1}
initialize:
- {_target_: pretext3d.training.overrides.check_overrides}
rate: 0.1
run:
- $pathlib.Path(@output_dir, 'rate.json').write_text(json.dumps([@rate, @views]))
"""


@pytest.fixture(autouse=True)
def renamed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deprecation, "__version__", "0.5.0")
    table = {
        "speed": Renamed("rate", "0.4.0", "0.6.0"),
        "zoom": Renamed("views", "0.4.0", "0.6.0"),
        "pace": Renamed("rate", "0.2.0", "0.5.0"),
    }
    for key, entry in table.items():
        monkeypatch.setitem(deprecation.RENAMED_KEYS, key, entry)


def test_functions_and_classes() -> None:
    @deprecated("0.4.0", "0.6.0", "`new`")
    def old() -> int:
        return 3

    @deprecated("0.3.0", "0.5.0", "`new`")
    def older() -> int:
        return 3

    @deprecated("0.6.0", "0.7.0", "`new`")
    def later() -> int:
        return 3

    expected = r"since version 0\.4\.0\. It will be removed in version 0\.6\.0\. Use `new` instead\."
    with pytest.warns(FutureWarning, match=expected):
        assert old() == 3
    with pytest.raises(DeprecatedError, match=r"was removed in version 0\.5\.0\. Use `new` instead\."):
        older()
    assert later() == 3  # no warning: one is an error here


def test_arguments() -> None:
    @renamed_argument("speed", "rate", "0.4.0", "0.6.0")
    def train(rate: float = 0.1, **kwargs: Any) -> float:
        assert not kwargs
        return rate

    with pytest.warns(FutureWarning, match=r"`speed` has been deprecated .* Use `rate` instead\."):
        assert train(speed=0.5) == 0.5
    assert train(rate=0.7) == 0.7


@pytest.mark.parametrize("read", [read_overrides, typed_values])
def test_keys_on_every_command_line(read: Any) -> None:
    expected = r"--speed: has been --rate since version 0.4.0; 0.6.0 removes the former name"
    with pytest.warns(FutureWarning, match=expected):
        assert read(["--speed", "3", "--seed", "1"]).keys() == {"rate", "seed"}


def test_keys() -> None:
    with pytest.warns(FutureWarning, match="--zoom::0: has been --views::0 since version 0.4.0"):
        assert current_keys({"zoom::0": 2}) == {"views::0": 2}
    with pytest.raises(
        UserError, match=r"--pace: found a name that version 0.5.0 has removed, expected --rate"
    ):
        current_keys({"pace": 1})
    for both in ({"speed": 1, "rate": 2}, {"rate": 2, "speed": 1}):
        with (
            pytest.warns(FutureWarning),
            pytest.raises(UserError, match="--rate: found twice, once by its former name"),
        ):
            current_keys(both)


def test_the_warning_comes_once() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            current_keys({"speed": 1})
    assert len(caught) == 1


@pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")
@pytest.mark.parametrize("through", ["pretext3d", "monai"])
def test_a_run_takes_the_former_name(through: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where MONAI has merged the override before any of our code runs."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    (tmp_path / "configs").mkdir()
    file = tmp_path / "configs" / "train.yaml"
    file.write_text(CONFIG)
    words = ["run", "--config_file", str(file), "--output_dir", str(tmp_path), "--speed", "0.5"]
    keys = {"config_file": str(file), "output_dir": str(tmp_path), "speed": 0.5}
    with pytest.warns(FutureWarning, match="--speed: has been --rate"):
        main(words) if through == "pretext3d" else run(**keys)
    assert json.loads((tmp_path / "rate.json").read_text()) == [0.5, {"zoom_range": 1}]
