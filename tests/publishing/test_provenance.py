"""pretext3d/publishing/provenance.py: weights have a card, and it is theirs."""

import hashlib
import json
from pathlib import Path

import pytest
from pretext3d.errors import UserError
from pretext3d.publishing.provenance import check_provenance, read_provenance

DIGEST = hashlib.sha256(b"weights").hexdigest()
GOOD = {
    "data": "made-up bodies", "licence": "CC0", "seed": 0, "bundle_version": "0.1.0",
    "pretext3d_version": "0.1.0", "steps": 10, "epochs": 1, "held_out": {"dice": 0.5}, "sha256": DIGEST,
}  # fmt: skip


def write(models: Path, card: str = DIGEST, **changes: object) -> Path:
    models.mkdir(exist_ok=True)
    provenance = {key: value for key, value in {**GOOD, **changes}.items() if value != "gone"}
    (models / "model.pt").write_bytes(b"weights")
    (models / "provenance.json").write_text(json.dumps(provenance))
    (models / "README.md").write_text(f"sha256 {card}")
    return models


def test_good_card(tmp_path: Path) -> None:
    assert check_provenance(tmp_path / "nothing") == ""
    assert check_provenance(write(tmp_path / "a")) == "made-up bodies; CC0; SHA-256 as in the model card"
    assert check_provenance(write(tmp_path / "b", steps=None))
    assert check_provenance(write(tmp_path / "c", epochs="gone"))


@pytest.mark.parametrize(
    "key", ["data", "licence", "seed", "bundle_version", "pretext3d_version", "held_out", "sha256"]
)
def test_what_a_card_must_say(tmp_path: Path, key: str) -> None:
    with pytest.raises(UserError, match=rf"provenance\.json: {key}: found None, expected"):
        check_provenance(write(tmp_path, **{key: "gone"}))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"steps": None, "epochs": 0}, "steps, epochs: found neither"),
        ({"licence": " "}, "licence: found ' '"),
        ({"seed": True}, "seed: found True"),
        ({"held_out": {}}, "held_out: found {}"),
        ({"held_out": {"dice": "good"}}, "held_out: dice: found 'good'"),
        ({"sha256": "0" * 64}, f"sha256: found '0+', expected {DIGEST}"),
        ({"card": "another"}, r"README\.md: found no SHA-256 of model\.pt"),
    ],
)
def test_cards_of_other_weights(tmp_path: Path, changes: dict[str, object], expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        check_provenance(write(tmp_path, **changes))  # type: ignore[arg-type]


def test_missing_and_broken_cards(tmp_path: Path) -> None:
    (write(tmp_path) / "README.md").unlink()
    with pytest.raises(UserError, match=r"README\.md: not found"):
        check_provenance(tmp_path)
    (write(tmp_path) / "provenance.json").write_text('{"data": "ma')
    with pytest.raises(UserError, match=r"provenance\.json: is not JSON"):
        read_provenance(tmp_path)
    (tmp_path / "provenance.json").unlink()
    assert read_provenance(tmp_path) == {}
    with pytest.raises(UserError, match=r"provenance\.json: not found"):
        check_provenance(tmp_path)
