"""Which bundles a command finds without being given a folder."""

from pathlib import Path

import pytest
from pretext3d.commands.bundles import bundles_at_hand, find_bundle
from pretext3d.errors import UserError

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
