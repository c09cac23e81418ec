"""The study file: what it means, and the mistakes in it, each one line that names the file and the key."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pretext3d.commands.bundles import bundles_at_hand
from pretext3d.commands.compare.study.cells import Cells, places, screening_cells
from pretext3d.commands.compare.study.definition import read_study
from pretext3d.commands.compare.study.keys import finetuning, merged, pretraining
from pretext3d.commands.compare.study.reading import real_path
from pretext3d.errors import UserError
from pretext3d.networks.factory import ENCODERS
from pretext3d.networks.vit import plan_steps
from pretext3d.training.pretrained import read_record

STUDIES = Path(__file__).parents[2] / "docs" / "studies"


def content(**more: Any) -> dict[str, Any]:
    """A study of one task and two arms."""
    task = {"num_labelled": [1, 2], "overrides": {"roi_size": [32, 32, 32]}}
    arms = {"scratch_long": {"scratch": True, "as_long_as": "vp"}, "vp": {"bundle": "vectorpose"}}
    return {
        "pretrain": {"profile": "laptop", "max_steps": 20},
        "finetune": {"profile": "laptop", "max_steps": 10},
        "tasks": {"organs": task},
        "encoders": {"cnn": {"encoder": "unet4"}},
        "arms": arms,
        "rates": [0.001, 0.003],
        "always": ["scratch", "scratch_long"],
        "confirmation": {"best": 1},
        **more,
    }


def written(folder: Path, value: Any) -> Path:
    file = folder / "tiny.yaml"
    file.write_text(value if isinstance(value, str) else yaml.safe_dump(value, sort_keys=False))
    return file


def test_a_study_file(tmp_path: Path) -> None:
    study = read_study(written(tmp_path, content()))
    assert (study.name, study.results_dir.as_posix()) == ("tiny", str(Path("docs/studies/tiny").resolve()))
    assert list(study.arms) == ["scratch", "scratch_long", "vp"]
    assert (study.seeds, study.screening_seeds, study.rates) == ((0, 1, 2), (0,), (0.001, 0.003))
    task = study.tasks["organs"]
    assert (task.screened.value, task.kind.name) == (1, "segmentation")
    assert task.data["test_fraction"] == task.data["val_fraction"] == 0.2


def test_layers_of_overrides(tmp_path: Path) -> None:
    """Study, task, encoder, arm, arm in the task: later ones count; pre-training reads the same channels."""
    task = {
        "num_labelled": [1],
        "overrides": {"channels": [0], "num_workers": 4, "optimizer::lr": 0.1},
        "pretrain": {"roi_size": [24, 24, 24]},
    }
    encoder = {"encoder": "unet4", "precision": "fp32", "finetune": {"num_workers": 6}}
    vp = {
        "bundle": "vectorpose",
        "pretrain": {"num_vectors": 2},
        "finetune": {"transfer": "encoder"},
        "by_task": {"organs": {"pretrain": {"num_vectors": 5}, "finetune": {"num_workers": 8}}},
    }
    arms = {"vp": vp, "shapes": {"bundle": "avsdb"}}
    found = content(tasks={"organs": task}, encoders={"cnn": encoder}, arms=arms, always=["scratch"])
    study = read_study(written(tmp_path, found))
    tuned = finetuning(study, study.tasks["organs"], "cnn", study.arms["vp"])
    assert tuned["num_workers"] == 8
    assert (tuned["transfer"], tuned["precision"], tuned["max_steps"]) == ("encoder", "fp32", 10)
    assert finetuning(study, study.tasks["organs"], "cnn", study.arms["scratch"])["num_workers"] == 6
    trained = pretraining(study, study.tasks["organs"], "cnn", study.arms["vp"])
    assert (trained["num_vectors"], trained["channels"], trained["roi_size"]) == (5, [0], [24, 24, 24])
    assert (trained["val_fraction"], trained["test_fraction"]) == (0.2, 0.2)
    # one that generates its volumes has no data, and no split of them
    generated = pretraining(study, study.tasks["organs"], "cnn", study.arms["shapes"])
    assert not {"dataset_dir", "channels", "val_fraction"} & set(generated)
    assert generated["max_steps"] == 20
    assert merged({"optimizer::lr": 1, "loss": 2}, {"optimizer": {}}) == {"loss": 2, "optimizer": {}}


def test_pre_training_on_other_data(tmp_path: Path) -> None:
    """A task whose pre-training names a data set has the split of that one, not its own."""
    task = {"num_labelled": [1], "dataset_dir": "small", "pretrain": {"dataset_dir": "large"}}
    study = read_study(written(tmp_path, content(tasks={"organs": task})))
    found = pretraining(study, study.tasks["organs"], "cnn", study.arms["vp"])
    assert (found["dataset_dir"], "val_fraction" in found) == ("large", False)


def test_a_task_with_one_of_the_encoders(tmp_path: Path) -> None:
    encoders = {"cnn": {"encoder": "unet4"}, "transformer": {"encoder": "vit_tiny"}}
    found = content(encoders=encoders)
    found["tasks"]["other"] = {"num_labelled": [1], "encoders": ["transformer"], "tolerance_mm": 3}
    study = read_study(written(tmp_path, found))
    pairs = {(task.name, encoder) for task, encoder, _ in places(study)}
    assert pairs == {("organs", "cnn"), ("organs", "transformer"), ("other", "transformer")}
    assert study.tasks["other"].evaluation == {"tolerance_mm": 3.0}
    found["tasks"]["other"]["encoders"] = ["swin"]
    with pytest.raises(
        UserError, match="tasks::other::encoders: found 'swin', expected an encoder of this study"
    ):
        read_study(written(tmp_path, found))


def test_an_encoder_with_some_of_the_arms(tmp_path: Path) -> None:
    encoders = {"cnn": {"encoder": "unet4"}, "transformer": {"encoder": "vit_tiny"}}
    found = content(encoders=encoders)
    found["tasks"]["organs"]["encoders"] = {"cnn": None, "transformer": ["scratch", "vp"]}
    study = read_study(written(tmp_path, found))
    assert [arm.name for arm in study.arms_of("organs", "cnn")] == ["scratch", "scratch_long", "vp"]
    assert [arm.name for arm in study.arms_of("organs", "transformer")] == ["scratch", "vp"]
    for wrong, message in (
        ({}, "tasks::organs::encoders: found none, expected at least one encoder"),
        ({"swin": None}, "tasks::organs::encoders::swin: no such key; expected cnn, transformer"),
        ({"cnn": ["vq"]}, "tasks::organs::encoders::cnn: found 'vq', expected an arm of this study"),
    ):
        found["tasks"]["organs"]["encoders"] = wrong
        with pytest.raises(UserError, match=message):
            read_study(written(tmp_path, found))


def test_weights_by_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    encoders = {"cnn": {"encoder": "unet4"}, "transformer": {"encoder": "vit_tiny"}}
    arms = content()["arms"] | {"shipped": {"pretrained": {"transformer": "models/vit"}}}
    study = read_study(written(tmp_path, content(encoders=encoders, arms=arms)), data_root="elsewhere")
    shipped = study.arms["shipped"]
    assert shipped.pretrained == {"transformer": str(tmp_path / "models/vit")}
    assert (shipped.encoders, shipped.is_random, shipped.source) == (("transformer",), False, "")
    one = arms | {"shipped": {"pretrained": "models/vit", "encoders": ["transformer"]}}
    study = read_study(written(tmp_path, content(encoders=encoders, arms=one)))
    assert study.arms["shipped"].pretrained == shipped.pretrained
    arms["shipped"] = {"pretrained": "models/vit"}
    with pytest.raises(UserError, match="shipped::encoders: expected the one encoder that models/vit has"):
        read_study(written(tmp_path, content(encoders=encoders, arms=arms)))


@pytest.mark.parametrize("file", sorted(STUDIES.glob("*.yaml")))
def test_the_studies_of_the_repository(file: Path, tmp_path: Path) -> None:
    """Every key is one of a configuration, every profile one of its bundle; no name is there twice."""
    study = read_study(file)
    cells = Cells(study, tmp_path)
    names = [cell.name for cell in screening_cells(cells)]
    assert len(set(names)) == len(names) > 0
    for cell in [*cells.pretrainings.values(), *screening_cells(cells)]:
        run = next(iter(cell.runs.values()))
        profiles = yaml.safe_load(Path(run["config_file"]).read_text())["profiles"]
        assert run["profile"] in profiles
        assert run["encoder"] in ENCODERS


def test_overrides_of_a_task_with_one_encoder(tmp_path: Path) -> None:
    encoders = {"cnn": {"encoder": "unet4"}, "transformer": {"encoder": "vit_tiny"}}
    each = {"organs": {"pretrain": {"pixdim": 2}}, "organs/transformer": {"pretrain": {"pixdim": 3}}}
    arms = {**content()["arms"], "vp": {"bundle": "vectorpose", "by_task": each}}
    study = read_study(written(tmp_path, content(encoders=encoders, arms=arms)))
    found = [pretraining(study, study.tasks["organs"], name, study.arms["vp"])["pixdim"] for name in encoders]
    assert found == [2, 3]
    for key, message in (
        ("organs/swin", "found 'swin', expected an encoder"),
        ("x/cnn", "found 'x', expected a"),
    ):
        arms["vp"]["by_task"] = {key: each["organs"]}
        with pytest.raises(UserError, match=f"arms::vp::by_task::{key}: {message}"):
            read_study(written(tmp_path, content(encoders=encoders, arms=arms)))


def test_transformers_of_the_main_study_s_hearts_have_one_network() -> None:
    """Patches follow from the crops that a method sees: scratch's are those of the crops of fine-tuning."""
    study = read_study(STUDIES / "main.yaml")
    task = study.tasks["heart"]
    for arm in study.arms_of("heart", "transformer"):
        if arm.bundle:
            found = pretraining(study, task, "transformer", arm)
            steps = found.get("backbone::options", {}).get("steps") or plan_steps(found["roi_size"])
            assert steps == plan_steps(task.overrides["roi_size"]), arm.name


def test_random_weights_of_the_main_study_have_the_network_of_the_shipped_ones() -> None:
    study = read_study(STUDIES / "main.yaml")
    shipped = study.arms["avsdb_shipped"]
    assert (shipped.source, set(shipped.pretrained)) == ("avsdb", {"transformer_8x8x4", "cnn"})
    for encoder, weights in shipped.pretrained.items():
        recorded = read_record(weights)["backbone"].get("options")
        for task in study.tasks.values():
            for arm in study.arms_of(task.name, encoder) if encoder in task.encoders else ():
                assert finetuning(study, task, encoder, arm).get("network_def::options") == recorded


@pytest.mark.parametrize("task", ["heart", "brain_structures", "brain_lesions"])
@pytest.mark.parametrize("arm", ["vectorpose", "genesis", "inpainting"])
def test_crops_of_the_main_study_have_one_spacing(task: str, arm: str) -> None:
    """Both stages read crops of the same spacing, by the study's keys or those of their profiles."""
    study = read_study(STUDIES / "main.yaml")
    spacings = []
    for bundle, file, overrides in (
        (study.arms[arm].bundle, "train.yaml", pretraining),
        (study.bundle, "finetune.yaml", finetuning),
    ):
        found = overrides(study, study.tasks[task], "cnn", study.arms[arm])
        profiles = yaml.safe_load((bundles_at_hand()[bundle] / "configs" / file).read_text())["profiles"]
        spacings.append(found.get("pixdim", profiles[found["profile"]]["pixdim"]))
    assert spacings[0] == spacings[1]


def test_a_task_too_small_for_a_verdict_says_so() -> None:
    """Of n test subjects the least p is 2 / 2^n; two arms at least are corrected for."""
    study = read_study(STUDIES / "main.yaml")
    subjects = {"heart": 21, "brain_structures": 6, "brain_lesions": 11, "structures": 55}
    for name, tested in subjects.items():
        assert ("Descriptive" in study.tasks[name].note) == (2 * 2 / 2**tested >= 0.05)


def test_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCANS", "/scans")
    assert real_path("${SCANS}/heart", tmp_path, "x") == "/scans/heart"
    assert real_path("heart", tmp_path, "x") == str(tmp_path / "heart")
    assert real_path("", tmp_path, "x") == ""
    with pytest.raises(
        UserError, match=r"x: found \$\{NO_SUCH\}, expected an environment variable that is set"
    ):
        real_path("${NO_SUCH}/heart", tmp_path, "x")


def test_numbers_that_yaml_1_1_reads_as_text_are_numbers(tmp_path: Path) -> None:
    text = yaml.safe_dump(content()).replace("- 0.001", "- 1e-3")
    assert read_study(written(tmp_path, text)).rates[0] == 0.001


WRONG = [
    ({"rate": [1]}, r"tiny.yaml: rate: no such key; did you mean rates\?; expected name, data_root"),
    ({"rates": []}, "tiny.yaml: rates: found .., expected a list of values"),
    ({"rates": [0.1, 0.1]}, "rates: found .0.1, 0.1., expected different values"),
    ({"rates": ["fast"]}, "rates: found 'fast', expected a number above 0"),
    ({"tasks": {}}, "tasks: found none, expected at least one name"),
    ({"tasks": {"a/b": {}}}, "tasks: found 'a/b', expected a name of letters"),
    ({"tasks": {"a": [1]}}, "tasks::a: found .1., expected keys with values"),
    ({"tasks": {"a": {}}}, "tasks::a: expected either num_labelled or label_fractions"),
    ({"tasks": {"a": {"num_labelled": [0]}}}, "tasks::a::num_labelled: found 0, expected an integer of 1"),
    ({"tasks": {"a": {"label_fractions": [2]}}}, "tasks::a::label_fractions: found 2, expected a number in"),
    ({"tasks": {"a": {"num_labelled": [1], "test_fraction": 0}}}, "a::test_fraction: found 0, expected a"),
    ({"tasks": {"a": {"num_labelled": [1], "class_file": "c.csv"}}}, "class_file: found in a segmentation"),
    (
        {"tasks": {"a": {"num_labelled": [1], "overrides": {"batch_sizes": 1}}}},
        r"tasks::a::overrides::batch_sizes: no such key in the configuration; did you mean batch_size\?",
    ),
    (
        {"tasks": {"a": {"num_labelled": [1], "overrides": {"learning_rate": 1}}}},
        "overrides::learning_rate: found a key that the study sets itself",
    ),
    ({"finetune": {}}, "finetune::profile: found none for scratch with cnn in organs, expected one"),
    ({"pretrain": {}}, "pretrain::profile: found none for vp with cnn in organs, expected one"),
    ({"recipes": ["$1"]}, "recipes: found '.1', expected text that MONAI does not expand"),
    ({"finetune": {"seed": 1}}, "finetune::seed: found a key that the study sets itself"),
    (
        {"finetune": {"loss": {"_target_": "os.system"}}},
        "finetune::loss: found .'_target_': 'os.system'., expected text",
    ),
    ({"finetune": {"max_steps": "$import os"}}, "finetune::max_steps: found '.import os', expected text"),
    ({"encoders": {"cnn": {}}}, "encoders::cnn::encoder: found None, expected the name of an encoder"),
    ({"encoders": {"cnn": {"encoder": "unet4", "rate": 1}}}, "encoders::cnn::rate: no such key in the"),
    ({"arms": {"vp": {}}}, "arms::vp: found none of them, expected one of bundle, pretrained, scratch: true"),
    ({"arms": {"vp": {"bundle": "vectorpos"}}}, r"arms::vp::bundle: .* did you mean vectorpose\?"),
    (
        {"arms": {"vp": {"pretrained": {}}}},
        "arms::vp::pretrained: found none, expected a path, or one by enc",
    ),
    ({"arms": {"vp": {"pretrained": {"vit": "x"}}}}, "arms::vp::pretrained::vit: no such key; expected cnn"),
    ({"arms": {"vp": {"scratch": True, "pretrain": {}}}}, "vp::pretrain: found without a bundle"),
    ({"arms": {"vp": {"bundle": "cpc", "max_steps": 1}}}, "vp::max_steps: expected one such key, and only"),
    ({"arms": {"vp": {"bundle": "cpc", "tasks": ["x"]}}}, "vp::tasks: found 'x', expected a task of this"),
    (
        {"arms": {"vp": {"bundle": "cpc", "finetune": {"max_steps": 9}}}},
        "arms::vp::finetune::max_steps: found a key that the study sets itself",
    ),
    (
        {"arms": {"vp": {"bundle": "cpc", "pretrain": {"num_vectors": 1}}}},
        "arms::vp::pretrain::num_vectors: no such key in the configuration",
    ),
    ({"arms": {"vp": {"pretrained": "x"}}}, "pretrain: found without an arm that has a bundle"),
    ({"always": ["vp"]}, "always: found no scratch, which all arms are compared with"),
    (
        {"arms": {"vp": {"bundle": "vectorpose", "finetune": {"batch_size": 8}}}},
        "arms::vp::finetune::batch_size: found a key that the study sets itself, for all arms; expected it",
    ),
    ({"always": ["scratch", "vpp"]}, r"always: found 'vpp', expected an arm of this study: .* mean vp\?"),
    ({"screening": {"num_labelled": {"organs": 3}}}, "num_labelled::organs: found 3, expected one of"),
    ({"screening": {"num_labelled": {"organ": 1}}}, "num_labelled::organ: found 'organ', expected a task"),
    ({"confirmation": {"best": -1}}, "confirmation::best: found -1, expected an integer of 0 or more"),
    ({"data_root": "${NO_SUCH}"}, "data_root: found ..NO_SUCH., expected an environment variable"),
    ({"seeds": 3}, "seeds: found 3, expected a list of values"),
]


@pytest.mark.parametrize(("change", "message"), WRONG)
def test_mistakes_name_the_file_and_the_key(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    found = {**content(), "always": ["scratch"], **change}
    with pytest.raises(UserError) as error:
        read_study(written(tmp_path, found))
    assert str(tmp_path / "tiny.yaml") in str(error.value)
    assert "\n" not in str(error.value)
    assert re.search(message, str(error.value)), str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rates: [1", "expected YAML of plain data"),
        ("rates: [1]\nrates: [2]", "duplicate key"),
        ("rates: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("- 1", r"tiny.yaml: found \[1\], expected keys with values"),
        ("", "tiny.yaml: found None, expected keys with values"),
    ],
)
def test_what_is_no_study_file(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_study(written(tmp_path, text))
    with pytest.raises(UserError, match="cannot be read"):
        read_study(tmp_path / "none.yaml")
