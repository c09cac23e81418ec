"""What a comparison is about: arms and what they have seen."""

from pathlib import Path

import pytest
from pretext3d.commands.compare import arms, plan
from pretext3d.commands.compare.cells import Arm
from pretext3d.data.fingerprints import fingerprints
from pretext3d.errors import UserError


def test_arms_of_different_encoders_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pretrained = pytest.importorskip("pretext3d.training.pretrained")
    monkeypatch.setattr(pretrained, "read_record", lambda path: {"backbone": {"encoder": Path(path).stem}})
    for name in ("unet4", "resnet10"):
        (tmp_path / f"{name}.pt").write_text(name)
    arms = plan.Arms(["restart", f"a={tmp_path / 'unet4.pt'}"], [4], [0])
    assert arms.encoder == "unet4"
    assert arms.names == ["scratch", "restart", "a"]  # restart starts from scratch cells
    with pytest.raises(UserError, match=r"different encoders cannot be compared .a: unet4, b: resnet10"):
        plan.Arms([f"a={tmp_path / 'unet4.pt'}", f"b={tmp_path / 'resnet10.pt'}"], [4], [0])
    with pytest.raises(UserError, match="--encoder: unet"):
        plan.Arms([f"a={tmp_path / 'unet4.pt'}"], [4], [0], "unet")


def test_an_arm_with_a_pre_training_for_each_cell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pretrained = pytest.importorskip("pretext3d.training.pretrained")
    monkeypatch.setattr(pretrained, "read_record", lambda path: {"backbone": {"encoder": "unet"}})
    for number, seed in ((4, 0), (4, 1), (8, 0), (8, 1)):
        (tmp_path / f"n{number}_s{seed}.pt").write_text(f"{number} {seed}")
    arms = plan.Arms(["scratch", f"roi={tmp_path}/n{{num_labelled}}_s{{seed}}.pt"], [4, 8], [0, 1])
    assert Path(arms.at("roi", 8, 1).pretrained).name == "n8_s1.pt"
    assert len({arms.at("roi", n, s).digest for n in (4, 8) for s in (0, 1)}) == 4
    assert arms.at("scratch", 8, 1) == Arm("scratch")
    served = sorted((Path(arm.pretrained).name, seed) for arm, seed in arms.weights()["roi"])
    assert served == [("n4_s0.pt", 0), ("n4_s1.pt", 1), ("n8_s0.pt", 0), ("n8_s1.pt", 1)]
    one = plan.Arms([f"roi={tmp_path}/n4_s0.pt"], [4, 8], [0, 1])
    assert sorted(seed for _, seed in one.weights()["roi"]) == [0, 1]  # each seed may hold out other cases
    with pytest.raises(UserError, match=r"--arms roi: .*n16_s0\.pt"):
        plan.Arms([f"roi={tmp_path}/n{{num_labelled}}_s{{seed}}.pt"], [16], [0])


def test_a_pretraining_that_saw_the_held_out_cases_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pretrained = pytest.importorskip("pretext3d.training.pretrained")
    cases = []
    for name in "xyz":
        (tmp_path / f"{name}.nii").write_text(name)
        cases.append({"id": name, "image": str(tmp_path / f"{name}.nii")})
    record = {"data": {"train": fingerprints(cases[:2])}}
    monkeypatch.setattr(pretrained, "read_record", lambda path: record)
    arm = Arm("vp", "elsewhere/model.pt", "d1")
    assert "saw 1 of the 2 held-out cases (y ...)" in plan.leak(arm, cases[1:])
    assert plan.leak(arm, cases[2:]) == ""
    assert "with val_fraction 0.2 there, 0.3 here" in plan.leak(arm, cases[1:], {"val_fraction": 0.3})
    with pytest.raises(UserError, match=r"arm vp: its pre-training saw 1 of the 2 test cases \(y ...\)"):
        plan.leak(arm, cases[1:], tested=True)
    slices = [{**cases[1], "id": f"y/slice{n}", "volume": "y"} for n in range(3)]
    assert "saw 1 of the 1 held-out cases" in plan.leak(arm, slices)  # a volume
    record["data"] = {"train": []}  # of generated volumes
    assert plan.leak(arm, cases) == ""
    record["data"] = {}
    assert "does not say what it was trained on" in plan.leak(arm, cases)


# ------------------------------------------------------------------------------------------ keys of one arm
KNOWN = {
    "spatial_dims": 3,
    "slices": None,
    "encoder": "",
    "learning_rate": 1e-3,
    "optimizer": {},
    "pretrained": "",
}


def test_keys_of_one_arm() -> None:
    words = [
        ["flat", "slices", "{'axis':2,'every':1}"],
        ["flat", "--spatial_dims", "2"],
        ["vp", "optimizer::lr", "1e-4"],
    ]
    assert arms.read_settings(words, KNOWN) == {
        "flat": {"slices": {"axis": 2, "every": 1}, "spatial_dims": 2},
        "vp": {"optimizer::lr": 1e-4},
    }


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("max_epochs", "--set vp max_epochs: all arms have the same data, labels and number of epochs"),
        ("pretrained", "--pretrained: the comparison sets this itself"),
        ("learning_rat", "--learning_rat: no such option, .* did you mean --learning_rate"),
    ],
)
def test_keys_that_an_arm_cannot_have(key: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        arms.read_settings([["vp", key, "3"]], {**KNOWN, "max_epochs": 5})


def test_a_key_is_given_once() -> None:
    with pytest.raises(UserError, match="--set vp encoder: found twice"):
        arms.read_settings([["vp", "encoder", "unet"], ["vp", "encoder", "vgg"]], KNOWN)


def test_an_arm_of_other_axes_has_its_own_encoder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pretrained = pytest.importorskip("pretext3d.training.pretrained")
    records = {"deep": ("resnet10", 3), "flat": ("unet4", 2), "other": ("unet", 2)}
    for name in records:
        (tmp_path / f"{name}.pt").write_text(name)
    monkeypatch.setattr(
        pretrained,
        "read_record",
        lambda path: {
            "backbone": dict(zip(("encoder", "spatial_dims"), records[Path(path).stem], strict=True))
        },
    )
    words = ["scratch", f"deep={tmp_path}/deep.pt", f"flat={tmp_path}/flat.pt", "scratch_2d=scratch"]
    own = {"flat": {"spatial_dims": 2}, "scratch_2d": {"spatial_dims": 2}}
    arms = plan.Arms(words, [4], [0], spatial_dims=3, overrides=own)
    assert arms.encoder == "resnet10"
    assert arms.at("scratch_2d", 4, 0) == Arm("scratch_2d", overrides={"encoder": "unet4", "spatial_dims": 2})
    assert arms.at("flat", 4, 0).overrides == {"encoder": "unet4", "spatial_dims": 2}
    assert arms.at("scratch", 4, 0) == Arm("scratch")
    words.append(f"other={tmp_path}/other.pt")
    own["other"] = {"spatial_dims": 2}
    with pytest.raises(UserError, match=r"different encoders cannot be compared .flat: unet4, other: unet."):
        plan.Arms(words, [4], [0], spatial_dims=3, overrides=own)
    own["other"] = {"spatial_dims": 2, "encoder": "unet"}  # named: intended
    assert (
        plan.Arms(words, [4], [0], spatial_dims=3, overrides=own).at("other", 4, 0).overrides == own["other"]
    )
    with pytest.raises(UserError, match="--set: found the arm nobody, expected one of scratch, deep"):
        plan.Arms(words, [4], [0], spatial_dims=3, overrides={"nobody": {}})
    with pytest.raises(UserError, match="--set restart encoder: restart has the network of scratch"):
        plan.Arms(["restart"], [4], [0], overrides={"restart": {"encoder": "unet"}})
    with pytest.raises(UserError, match="its network has spatial_dims 2, this one has spatial_dims 3"):
        plan.Arms([f"flat={tmp_path}/flat.pt"], [4], [0], spatial_dims=3)


def test_random_weights_have_the_network_of_the_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Patches of a vision transformer are those of its pre-training, whatever the crops are."""
    pretrained = pytest.importorskip("pretext3d.training.pretrained")
    options = {"a": {"steps": [[2, 2, 1], [2, 2, 2]]}, "b": {"steps": [[2, 2, 2], [2, 2, 2]]}, "c": None}
    for name in options:
        (tmp_path / f"{name}.pt").write_text(name)

    def record(path: Path) -> dict[str, object]:
        found = options[Path(path).stem]
        return {"backbone": {"encoder": "vit_tiny", **({"options": found} if found else {})}}

    monkeypatch.setattr(pretrained, "read_record", record)
    words = ["scratch", "mine=scratch", f"a={tmp_path}/a.pt"]
    found = plan.Arms(words, [4], [0], overrides={"mine": {"network_def::options": {"num_layers": 2}}})
    assert found.at("scratch", 4, 0).overrides == {"network_def::options": options["a"]}
    assert found.at("mine", 4, 0).overrides == {"network_def::options": {"num_layers": 2}}
    assert found.at("a", 4, 0).overrides == {}
    for other in "bc":
        message = r"different networks cannot be compared \(a: .*steps.*1.*, " + other
        with pytest.raises(UserError, match=message):
            plan.Arms([*words, f"{other}={tmp_path}/{other}.pt"], [4], [0])
    named = {"b": {"encoder": "vit_tiny"}}  # intended
    assert plan.Arms([*words, f"b={tmp_path}/b.pt"], [4], [0], overrides=named).encoder == "vit_tiny"


def test_a_pre_training_for_each_fold(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pretrained = pytest.importorskip("pretext3d.training.pretrained")
    monkeypatch.setattr(pretrained, "read_record", lambda path: {"backbone": {"encoder": "unet"}})
    for fold in (0, 1):
        (tmp_path / f"fold{fold}.pt").write_text(str(fold))
    arms = plan.Arms([f"vp={tmp_path}/fold{{fold}}.pt"], [4], [0, 1], folds=[0, 1])
    assert Path(arms.at("vp", 4, 1, 0).pretrained).name == "fold0.pt"
    served = sorted((Path(arm.pretrained).name, fold) for arm, fold in arms.weights()["vp"])
    assert served == [("fold0.pt", 0), ("fold1.pt", 1)]
