"""Which bundles a command finds without being given a folder, or by their name; copies of them."""

from pathlib import Path

import pytest
from pretext3d.__main__ import main
from pretext3d.commands import bundles
from pretext3d.commands.bundles import bundles_at_hand, find_bundle, named_bundle
from pretext3d.errors import UserError

from tests.finished import finished_run

ROOT = Path(__file__).resolve().parents[2]


def make(folder: Path, *configs: str) -> Path:
    (folder / "configs").mkdir(parents=True)
    for name in ("metadata.json", *configs):
        (folder / "configs" / name).touch()
    return folder


def test_those_of_this_repository() -> None:
    names = [path.parents[1].name for path in sorted(ROOT.glob("bundles/*/configs/metadata.json"))]
    assert list(bundles_at_hand()) == names
    assert find_bundle("") == ROOT / "bundles" / "vectorpose"


def test_repository_bundle_around_the_package_or_neither(tmp_path: Path) -> None:
    a = make(tmp_path / "repository" / "bundles" / "a", "finetune.yaml")
    b = make(tmp_path / "repository" / "bundles" / "b")
    shared = tmp_path / "repository" / "shared"
    assert bundles_at_hand(around=shared) == {"a": a, "b": b}
    assert bundles_at_hand("finetune.yaml", shared) == {"a": a}
    assert find_bundle("", "b", shared) == b
    alone = make(tmp_path / "unzipped" / "c")
    assert bundles_at_hand(around=alone) == {"c": alone}
    assert find_bundle("", around=alone) == alone
    with pytest.raises(UserError, match="--bundle: found nothing"):
        find_bundle("", around=tmp_path / "site-packages")
    assert find_bundle(str(b), around=tmp_path / "site-packages") == b


def test_those_of_an_installed_package(tmp_path: Path) -> None:
    """A folder `bundles` next to site-packages is not of this package."""
    place = tmp_path / "site-packages"
    a = make(place / "pretext3d" / "bundles" / "a")
    make(tmp_path / "bundles" / "b")
    assert bundles_at_hand(around=place) == {"a": a}


def test_a_folder_comes_before_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert named_bundle("rotation") == ROOT / "bundles" / "rotation"
    (tmp_path / "rotation").mkdir()  # a run's, and no bundle
    assert named_bundle("rotation") == ROOT / "bundles" / "rotation"
    (tmp_path / "rotation" / "configs").mkdir()
    assert named_bundle("rotation") == tmp_path / "rotation"


@pytest.mark.parametrize(
    "words",
    [
        ["run"],
        ["preview"],
        ["compare"],
        ["probe", "scratch"],
        ["promote", "RUN", "--name", "x", "--licence", "x"],
    ],
    ids=lambda words: words[0],
)
def test_a_mistaken_name_lists_those_there_are(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    if words[0] == "promote":
        words = [str(finished_run(tmp_path / "run", "vectorpose")) if w == "RUN" else w for w in words]
    assert main([*words, "--bundle", "rotaton"]) in (1, 2)
    said = capsys.readouterr().err
    assert said == (
        "error: --bundle: found rotaton, expected the folder of a bundle, or one of "
        f"{', '.join(bundles_at_hand())}; did you mean rotation?\n"
    )


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bundles"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(bundles_at_hand())
    assert lines[0].split() == ["avsdb", "0.1.0", "AVS-DB"]


def test_a_broken_description_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine" / "configs").mkdir(parents=True)
    (tmp_path / "mine" / "configs" / "metadata.json").write_text("{")
    monkeypatch.setattr(bundles, "bundles_at_hand", lambda: {"mine": tmp_path / "mine"})
    assert main(["bundles"]) == 1
    assert f"{tmp_path / 'mine' / 'configs' / 'metadata.json'}: " in capsys.readouterr().err


def test_copy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All that belongs to a bundle, once: a copy that has been changed is not replaced."""
    words = ["bundles", "--copy", "rotation", "--output_dir", str(tmp_path / "my own")]
    own, copy = ROOT / "bundles" / "rotation", tmp_path / "my own" / "rotation"
    assert main(words) == 0
    assert (
        f"monai.bundle run --config_file '{copy}/configs/train.yaml' --dataset_dir" in capsys.readouterr().out
    )
    for name in (
        "LICENSE",
        "configs/train.yaml",
        "configs/metadata.json",
        "docs/README.md",
        "models/model.pt",
    ):
        assert (copy / name).read_bytes() == (own / name).read_bytes()
    (copy / "configs" / "train.yaml").write_text("changed")
    assert main(words) == 1
    assert capsys.readouterr().err == f"error: --output_dir: found {copy} already, expected no such folder\n"
    assert main(["bundles", *words[3:]]) == 1
    assert "found " + words[-1] + " without --copy" in capsys.readouterr().err
    assert (copy / "configs" / "train.yaml").read_text() == "changed"
