"""What a study chooses, the plan that confirmation follows, and the report, worked out by hand."""

import io
import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from pretext3d.commands.compare.study.scores import read_scores
from pretext3d.errors import UserError

from tests.commands.study_runs import GAIN, builder
from tests.commands.test_study_reading import content


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    return builder(tmp_path, monkeypatch)


def test_confirmation_follows_a_plan_that_was_committed(study: Any, tmp_path: Path) -> None:
    """One that is not what screening chooses is refused, unless it is accepted."""
    study()("screening")
    file = tmp_path / "docs/studies/tiny/plan/organs/cnn.yaml"
    plan = yaml.safe_load(file.read_text())
    assert plan["choices"]["scratch"]["scores"] == {
        "lr0.001": pytest.approx(0.547),
        "lr0.003": pytest.approx(0.541),
    }
    plan["choices"]["scratch"]["learning_rate"] = 0.003
    plan["confirmation"]["labels"] = [1]
    file.write_text(yaml.safe_dump(plan))
    message = (
        r"cnn.yaml: organs, cnn, scratch: lr0.003 in the file, lr0.001 by screening; "
        r".*cnn.yaml: organs, cnn: labels 2 missing in the file: .*--accept"
    )
    for stage in ("screening", "report"):
        with pytest.raises(UserError, match=message):
            study()(stage)
    run = study(accept_plan=True)
    assert run() == 0
    arms = plan["confirmation"]["arms"]
    assert run.runner.ran == [
        f"confirmation/organs/cnn/{arm}_n001_seed{seed}" for arm in arms for seed in (0, 1)
    ]
    used = json.loads(
        (tmp_path / "runs/cells/confirmation/organs/cnn/scratch_n001_seed0/settings.json").read_text()
    )
    assert used["finetune"]["learning_rate"] == 0.003


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"study": "other"}, "study: found other, expected tiny"),
        ({"choices": {}}, "choices: found none"),
        ({"chosen": 1}, "chosen: no such key; .*Or remove the file to take what screening chooses"),
        ({"choices": {"x": {}}}, "choices::x: no such key; expected scratch, scratch_long, vp, cube"),
        ({"choices": {"vp": 3}}, "choices::vp: found 3, expected keys with values"),
        (
            {"choices": {"vp": {"learning_rate": 1, "recipe": "$x"}}},
            "choices::vp::recipe: found '.x', expected text that MONAI does not expand",
        ),
        (
            {"choices": {"vp": {"learning_rate": 0.002, "score": 0.5}}},
            "choices::vp: found lr0.002, expected a point of the study's grid: lr0.001, lr0.003",
        ),
        (
            {"choices": {"vp": {"learning_rate": 0.001, "score": "high"}}},
            "choices::vp::score: found 'high', expected",
        ),
        (
            {"choices": {"vp": {"learning_rate": 0.001, "score": 1, "scores": {"lr0.001": "x"}}}},
            "choices::vp::scores::lr0.001: found 'x', expected",
        ),
        ({"confirmation": 3}, "confirmation: found 3, expected keys with values"),
        ({"confirmation": {"arms": 3}}, "confirmation::arms: found 3, expected a list"),
        (
            {"confirmation": {"arms": ["cub"]}},
            "confirmation::arms: found 'cub', expected an arm that `choices` has: ",
        ),
        ({"confirmation": {"arms": [{"vp": 1}]}}, "confirmation::arms: found {'vp': 1}, expected an arm"),
        ({"confirmation": {"arms": ["vp", "vp"]}}, "confirmation::arms: found .*, expected different values"),
        (
            {"confirmation": {"arms": ["vp"], "labels": [3]}},
            "confirmation::labels: found 3, expected label counts of .*tiny.yaml: 1, 2",
        ),
        (
            {"confirmation": {"arms": ["vp"], "labels": [1], "seeds": [0, 7]}},
            "confirmation::seeds: found 7, expected seeds of .*tiny.yaml: 0, 1",
        ),
        (
            {"confirmation": {"arms": ["vp"], "labels": [1], "seeds": [0], "probe": "yes"}},
            "confirmation::probe: found 'yes', expected",
        ),
    ],
)
def test_mistakes_in_a_plan(study: Any, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    study()("screening")
    file = tmp_path / "docs/studies/tiny/plan/organs/cnn.yaml"
    file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), **change}))
    with pytest.raises(UserError, match=f"cnn.yaml: {message}"):
        study(accept_plan=True)()


def test_the_order_in_a_plan_and_the_type_of_its_numbers_do_not_matter(study: Any, tmp_path: Path) -> None:
    study()("screening")
    file = tmp_path / "docs/studies/tiny/plan/organs/cnn.yaml"
    plan = yaml.safe_load(file.read_text())
    own = plan["confirmation"]
    own |= {"arms": own["arms"][::-1], "labels": [2.0, 1], "seeds": [1.0, 0]}
    file.write_text(yaml.safe_dump(plan))
    run = study()
    assert run() == 0
    assert len(run.runner.ran) == 12
    assert "confirmation/organs/cnn/scratch_n002_seed1" in run.runner.ran


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("plan.yaml", "plan.yaml: found one plan of all tasks, expected plan/TASK/ENCODER.yaml"),
        ("plan/organ/cnn.yaml", "plan/organ/cnn.yaml: found a plan of no task .*, expected organs/cnn.yaml"),
    ],
)
def test_a_plan_that_is_no_part_of_the_study(study: Any, tmp_path: Path, name: str, message: str) -> None:
    """It is not passed over, and nothing runs before that is said."""
    file = tmp_path / "docs/studies/tiny" / name
    file.parent.mkdir(parents=True)
    file.write_text("study: tiny\n")
    run = study()
    with pytest.raises(UserError, match=message):
        run()
    assert run.runner.ran == []


def test_a_probe_is_part_of_the_plan(study: Any, tmp_path: Path) -> None:
    """It measures test subjects, too: none is added after the plan, unless that is accepted."""
    groups = {"task": "classification", "num_labelled": [10, 20]}
    study(tasks={"groups": groups})("screening")
    with pytest.raises(UserError, match="groups, cnn: probe True missing in the file"):
        study(tasks={"groups": {**groups, "probe": True}})()
    run = study(tasks={"groups": {**groups, "probe": True}}, accept_plan=True)
    assert run() == 0
    assert not any("probe" in name for name in run.runner.ran)


def test_fractions_of_labels(study: Any, tmp_path: Path) -> None:
    """Of 40 training subjects 5 % are 2; the report names both."""
    run = study(tasks={"organs": {"label_fractions": [0.05, 0.25]}})
    assert run() == 0
    name = "confirmation/organs/cnn/vp_f0.05_seed0"
    made = json.loads((tmp_path / "runs/cells" / name / "settings.json").read_text())["finetune"]
    assert (made["label_fraction"], "num_labelled" in made) == (0.05, False)
    head = json.loads((tmp_path / f"docs/studies/tiny/{name}.csv").read_text().partition("\n")[0][2:])
    assert head["labelled"] == 2
    assert "| arm | Dice, 2 (5 %) |" in (tmp_path / "docs/studies/tiny/RESULTS.md").read_text()


def test_the_report_by_hand(study: Any, tmp_path: Path) -> None:
    """scratch 0.5 - 0.003 + 0.05 = 0.547; vp 0.6 + 0.009 + 0.05 = 0.659; scratch_long 0.569.

    All eight subjects gain as much: p = 2 / 2^8 = 0.0078, of two arms and two numbers of labels four times
    that, 0.031.
    """
    tasks = {"organs": {"num_labelled": [1, 2], "note": "Of the phantom."}}
    assert study(tasks=tasks)() == 0
    folder = tmp_path / "docs/studies/tiny"
    lines = (folder / "RESULTS.md").read_text().splitlines()
    start = lines.index(
        "| arm | Dice, 1 | to scratch | to scratch_long | Dice, 2 | to scratch | to scratch_long |"
    )
    rows = lines[start + 2 : start + 5]
    gain, other = "+0.112 [+0.112, +0.112], p 0.031", "+0.090 [+0.090, +0.090], p 0.031"
    assert rows[2] == f"| vp | 0.659 ± 0.000 | {gain} | {other} | 0.659 ± 0.000 | {gain} | {other} |"
    assert rows[0] == "| scratch | 0.547 ± 0.000 |  |  | 0.547 ± 0.000 |  |  |"
    assert rows[1].startswith("| scratch_long | 0.569 ± 0.000 | +0.022 [+0.022, +0.022], p 0.031 |  |")
    text = "\n".join(lines)
    assert "12 of 12 cells. Seeds 0, 1; learning rates 0.001, 0.003." in text
    assert f"- organs, cnn: **vp, 1 labelled: {gain} to scratch; {other} to scratch_long.**" in text
    assert "Of the phantom." in text
    assert "| organs | cnn | scratch | **0.547** | 0.541 |" in text
    assert "| organs | cnn | cube | 0.603 | **0.609** |" in text
    # its second validation, after 10 steps, reaches the last one of scratch, 0.5
    assert (
        "| labelled | arm | after 25 % | after 50 % | after 100 % | steps to scratch's last score |" in text
    )
    assert "| 1 | vp | 0.300 | 0.300 | 0.600 | 10 |" in text
    for name in ("organs_cnn_labels.png", "organs_cnn_curves.png", "overview.png"):
        assert f"figures/{name}" in text
        assert (folder / "figures" / name).read_bytes()[:4] == b"\x89PNG"
    assert "Warning" not in text
    table = read_scores(folder / "scores.csv").set_index(["arm", "labelled"])
    row = table.loc["vp", 2]
    assert (row["task"], row["bundle"], row["reader"], row["missing"]) == ("organs", "vectorpose", "", 0)
    assert row["score"] == pytest.approx(0.659)
    wanted = [0.112, 0.112, 0.112, 0.0312]
    assert [row[f"to_scratch{end}"] for end in ("", "_low", "_high", "_p")] == pytest.approx(wanted, abs=1e-3)
    assert row["to_scratch_long"] == pytest.approx(0.09)
    assert table.loc["scratch", 1][["to_scratch", "fraction"]].isna().all()
    broken = (folder / "scores.csv").read_text().replace(",0.659", ",much", 1)
    (folder / "scores.csv").write_text(broken)
    with pytest.raises(UserError, match=r"scores.csv: found .*much.*, expected numbers in labelled"):
        read_scores(folder / "scores.csv")
    (folder / "scores.csv").write_text("task,score\n")
    with pytest.raises(UserError, match=r"scores.csv: found columns task, score, expected task, encoder"):
        read_scores(folder / "scores.csv")


def test_subjects_on_whom_something_was_chosen_are_left_out(study: Any, tmp_path: Path) -> None:
    """Without the last of eight, who scores 0.1 above the first, the mean falls from 0.547 by 0.05 / 7."""
    task = {"num_labelled": [1, 2], "left_out": ["c7"]}
    assert study(tasks={"organs": task})() == 0
    text = (tmp_path / "docs/studies/tiny/RESULTS.md").read_text()
    assert "Without 1 of 8 test subjects, on whom something was chosen." in text
    assert "| scratch | 0.540 ± 0.000 |" in text
    assert len(list((tmp_path / "docs/studies/tiny/confirmation").rglob("*.csv"))) == 12  # all keep them
    message = r"tiny.yaml: tasks::organs::left_out: found 'c8', expected test subjects of the task's results"
    with pytest.raises(UserError, match=message):
        study(tasks={"organs": {**task, "left_out": ["c7", "c8"]}})()


def test_versions_of_a_configuration_in_one_table_are_named(study: Any, tmp_path: Path) -> None:
    study()()
    file = next((tmp_path / "docs/studies/tiny/confirmation").rglob("*.csv"))
    file.write_text(re.sub(r'"configuration": "\w+"', '"configuration": "old"', file.read_text()))
    study()()
    text = (tmp_path / "docs/studies/tiny/RESULTS.md").read_text()
    assert "**Warning**: organs: its cells were measured with 2 versions of finetune.yaml." in text


def test_weights_that_differ_within_an_arm_are_named(study: Any, tmp_path: Path) -> None:
    study()()
    file = next((tmp_path / "docs/studies/tiny/confirmation").rglob("vp*.csv"))
    file.write_text(re.sub(r'"weights": "\w+"', '"weights": "old"', file.read_text()))
    study()()
    text = (tmp_path / "docs/studies/tiny/RESULTS.md").read_text()
    assert "**Warning**: organs, cnn, vp: its cells started from 2 weights." in text
    assert text.count("**Warning**") == 1


def test_an_arm_of_another_network_than_scratch_is_named(study: Any, tmp_path: Path) -> None:
    """Its difference may be that of the networks; results of earlier versions do not tell theirs."""
    study()()
    arm, other = (
        sorted((tmp_path / "docs/studies/tiny/confirmation").rglob(f"{n}_n*.csv")) for n in ("vp", "scratch")
    )
    for file in arm:
        file.write_text(file.read_text().replace('"levels": 4', '"levels": 5'))
    study()()
    text = (tmp_path / "docs/studies/tiny/RESULTS.md").read_text()
    there, here = ({"encoder": "unet4", "options": {"levels": n}} for n in (5, 4))
    assert text.count("**Warning**") == 1
    assert f"**Warning**: organs, cnn, vp: its network, {there}, is not that of scratch, {here}." in text
    for file in other:
        file.write_text(re.sub(r'"network": \{.*?\}\}, ', "", file.read_text()))
    study()()
    assert "**Warning**" not in (tmp_path / "docs/studies/tiny/RESULTS.md").read_text()


def test_cells_of_another_precision_are_named(study: Any, tmp_path: Path) -> None:
    """Of two machines one may compute in bfloat16; results of earlier versions do not tell theirs."""
    study()()
    text = tmp_path / "docs/studies/tiny/RESULTS.md"
    for file in (tmp_path / "docs/studies/tiny/confirmation").rglob("vp_n*.csv"):
        file.write_text(file.read_text().replace("# {", '# {"precision": "fp32", ', 1))
    study()()
    assert text.read_text().count("**Warning**") == 1
    assert (
        "**Warning**: organs, cnn: its cells may not all have the same precision. not recorded: scratch (4), "
        "scratch_long (4); fp32: vp (4)."
    ) in text.read_text()


def test_cells_of_other_cases_are_named(study: Any, tmp_path: Path) -> None:
    study()()
    for file in (tmp_path / "docs/studies/tiny/confirmation").rglob("vp_n*.csv"):
        file.write_text(file.read_text().replace("c7,", "c9,"))
    study()()
    text = (tmp_path / "docs/studies/tiny/RESULTS.md").read_text()
    assert "**Warning**: organs: its cells were measured on different cases. with c7: scratch (4), " in text
    assert "scratch_long (4); without c7: vp (4)." in text


def test_settings_of_single_arms_and_rates_at_the_ends_are_named(study: Any, tmp_path: Path) -> None:
    arms = {**content()["arms"], "vp": {"bundle": "vectorpose", "finetune": {"transfer": "encoder"}}}
    study(arms=arms, rates=[0.001, 0.003, 0.01])()
    text = (tmp_path / "docs/studies/tiny/RESULTS.md").read_text()
    assert "\nSettings of fine-tuning that single arms have: vp: transfer encoder.\n" in text
    assert " Of 3 chosen rates 1 are the lowest and 2 the highest of the grid: " in text


@pytest.mark.parametrize(
    ("other", "counts", "proven"),
    [(0.06, [1, 2], True), (0.08, [1, 2], False), (0.06, [1, 2, 3, 4], False)],
)
def test_a_verdict_needs_a_large_gain_after_correction(
    study: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    other: float,
    counts: list[int],
    proven: bool,
) -> None:
    """vp is 0.04 above a scratch_long that gains 0.06; 0.02 are too few. With four counts p is 8 x 0.0078."""
    monkeypatch.setitem(GAIN, "scratch_long", other)
    study(tasks={"organs": {"num_labelled": counts}})()
    text = (tmp_path / "docs/studies/tiny/RESULTS.md").read_text()
    assert ("- organs, cnn: **vp, 1 labelled" in text) == proven
    assert ("no arm is 0.03 or more above scratch and scratch_long, proven; nearest is vp" in text) != proven
    assert "A verdict also needs a gain of 0.03 in Dice and 0.05 in balanced accuracy." in text


def test_a_verdict_needs_an_interval_above_zero(study: Any, tmp_path: Path) -> None:
    """Of two seeds one loses 0.02 to scratch_long, the other gains 0.09: 0.035, and p is small."""
    study()()
    for file in (tmp_path / "docs/studies/tiny/confirmation").rglob("vp_n*_seed1.csv"):
        head, _, rest = file.read_text().partition("\n")
        table = pd.read_csv(io.StringIO(rest))
        table["dice"] -= 0.11
        score = re.sub(r'"score": [\d.]+', f'"score": {table["dice"].mean():.6f}', head)
        file.write_text(f"{score}\n{table.to_csv(index=False)}")
    study()()
    text = (tmp_path / "docs/studies/tiny/RESULTS.md").read_text()
    nearest = next(line for line in text.splitlines() if "nearest is vp" in line)
    assert "; +0.035 [-0.020, +0.090], p 0.031 to scratch_long." in nearest


def test_a_verdict_needs_both_controls(study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study(always=["scratch"])()
    text = (tmp_path / "docs/studies/tiny/RESULTS.md").read_text()
    assert "- organs, cnn: no verdict without scratch_long." in text
    monkeypatch.setitem(GAIN, "scratch_long", 0.2)
    for folder in ("docs", "runs"):
        (tmp_path / folder).rename(tmp_path / f"old_{folder}")
    study()()
    text = (tmp_path / "docs/studies/tiny/RESULTS.md").read_text()
    assert (
        "- organs, cnn: no arm is 0.03 or more above scratch and scratch_long, proven; nearest is vp" in text
    )


def test_a_classification_with_a_probe(study: Any, tmp_path: Path) -> None:
    """scratch finds 4 of 8 cases, vp 6, one more of four in each class: +0.25; so does the probe."""
    tasks = {"groups": {"task": "classification", "num_labelled": [10, 20], "probe": True}}
    run = study(tasks=tasks)
    assert run() == 0
    assert [name for name in run.runner.ran if "probe" in name] == [
        "probe/groups/cnn/scratch",
        "probe/groups/cnn/vp",
    ]
    job = json.loads((tmp_path / "runs/cells/probe/groups/cnn/vp/settings.json").read_text())
    words = job["probe"]["words"]
    assert words[:4] == [f"vp={tmp_path}/runs/cells/pretraining/groups/cnn/vp", "--num_labelled", "10", "20"]
    assert words[words.index("--measured") + 1] == "test"
    assert "--test_fraction=0.2" in words
    assert not any(word.startswith(("--max_steps", "--learning_rate")) for word in words)
    text = (tmp_path / "docs/studies/tiny/RESULTS.md").read_text()
    assert "| vp | 0.750 ± 0.000 | +0.250 [" in text
    features = text.partition("### Frozen features")[2]
    header = "| labelled | arm | linear probe | difference to scratch [95 %] | p | nearest neighbours |"
    assert f"{header} difference to scratch [95 %] | p |" in features
    rows = [line for line in features.splitlines() if line.startswith("| 10 | ")][:3]
    assert all(line.count(" ± 0.000 |") == 2 for line in rows)
    assert [line.split(" | ")[1:3] for line in rows] == [
        ["scratch", "0.500 ± 0.000"],
        ["vp", "0.750 ± 0.000"],
        ["intensities", "0.250 ± 0.000"],
    ]
    table = read_scores(tmp_path / "docs/studies/tiny/scores.csv")
    own = table[(table["arm"] == "vp") & (table["labelled"] == 10)].set_index("reader")["to_scratch_p"]
    assert rows[1].split(" | ")[4] == f"{own['linear']:.3f}"  # corrected for the intensities, too
    assert set(table["reader"]) == {"", "linear", "knn"}
    assert "intensities" not in (tmp_path / "docs/studies/tiny/probe/groups/cnn/vp.csv").read_text()
    again = study(runs="elsewhere", tasks=tasks)
    assert again() == 0
    assert again.runner.ran == []
    with pytest.raises(
        UserError, match="tasks::organs::probe: found in a segmentation; expected task: class"
    ):
        study(tasks={"organs": {"num_labelled": [1], "probe": True}})
