"""What a comparison is about: arms and what they have seen."""

from pathlib import Path

import pytest
from pretext3d.commands.compare import plan
from pretext3d.commands.compare.cells import Arm
from pretext3d.data.splits import fingerprints
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
    record["data"] = {}
    assert "does not say what it was trained on" in plan.leak(arm, cases)
