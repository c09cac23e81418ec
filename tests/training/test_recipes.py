"""What is frozen does not change, what is released does, and a resumed run is the one never killed."""

import logging
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ignite.engine import Events
from monai.optimizers import WarmupCosineSchedule
from pretext3d.errors import UserError
from pretext3d.networks.classification import ClassificationNet
from pretext3d.networks.factory import build_backbone
from pretext3d.networks.segmentation import SegmentationNet
from pretext3d.training.checkpoint_io import load_checkpoint, unwrap
from pretext3d.training.freezing import FreezeEncoder
from pretext3d.training.pretrained import load_pretrained
from pretext3d.training.recipes import AUTO, choose_recipe, parameter_groups
from pretext3d.training.resume import schedule_state
from pretext3d.training.schedules import WarmupCosine, warmup_cosine
from pretext3d.training.transfer import mark_transferred
from torch import nn

from tests.training import runs
from tests.training.runs import CASES, EPOCHS, STEPS, Kill, assert_equal_files, names

ROI = (8, 8, 8)
ENCODER, DECODER = "backbone.down.", ("backbone.up.", "backbone.merge.")


def network_of(task="segmentation"):
    """The smallest U-Net that has batch norm in its encoder and its decoder, as if all was transferred."""
    backbone = build_backbone("unet", 1, ROI, options={"channels": [2, 4], "convolutions": 1})
    return ClassificationNet(backbone, 2) if task == "classification" else SegmentationNet(backbone, 1)


class Run(runs.Run):
    """A fine-tuning run whose network's states at the end of each epoch are kept."""

    def __init__(
        self,
        folder,
        *more,
        task="segmentation",
        freeze=0,
        rate=None,
        moved=None,
        wrap=None,
        recipe=None,
        **options,
    ):
        self.task, self.rate, self.moved, self.wrap, self.states = task, rate, moved, wrap, {}
        record = {"method": task, "freeze_encoder_epochs": freeze} | ({"recipe": recipe} if recipe else {})
        super().__init__(folder, *more, **{"scheduler": "warmup_cosine", "record": record, **options})
        own = self.schedule if isinstance(self.schedule, WarmupCosine) else None
        FreezeEncoder(self.network, freeze, own).attach(self.trainer)
        self.states[0] = self.weights
        self.trainer.add_event_handler(Events.EPOCH_COMPLETED, self.keep)

    def make_data(self):
        x = torch.randn(CASES, 1, *ROI)
        labels = torch.stack([x.mean((1, 2, 3, 4)), x.std((1, 2, 3, 4))], 1)
        return [
            {"image": x[i], "label": labels[i] if self.task == "classification" else x[i] ** 2}
            for i in range(CASES)
        ]

    def make_network(self):
        network = network_of(self.task)
        if self.moved is not None:
            mark_transferred(network, self.moved)
        return self.wrap(network) if self.wrap else network

    @property
    def weights(self):
        return {k: v.clone() for k, v in unwrap(self.network).state_dict().items()}

    def make_optimizer(self):
        return torch.optim.AdamW(parameter_groups(self.network, 0.05, self.rate), 0.05, weight_decay=0.1)

    def keep(self, engine):
        self.states[engine.state.epoch] = self.weights

    def changed(self, first, last):
        """Names of the tensors that differ in any bit between the ends of two epochs."""
        before, after = self.states[first], self.states[last]
        return {name for name in before if not torch.equal(before[name], after[name])}


def of(names, start):
    return {name for name in names if name.startswith(start)}


@pytest.mark.parametrize("task", ["segmentation", "classification"])
def test_the_encoder_is_frozen_for_two_epochs_and_then_trained(tmp_path, task, caplog):
    caplog.set_level(logging.INFO)
    run = Run(tmp_path, task=task, freeze=2)()
    frozen = run.changed(0, 2)
    assert not of(frozen, ENCODER)  # weights, running statistics and their counters
    decoder = of(run.states[0], DECODER)
    assert of(frozen, DECODER) == (decoder if task == "segmentation" else set())
    assert of(frozen, "head.") == {"head.weight", "head.bias"}
    assert of(run.changed(2, 3), ENCODER) == of(run.states[0], ENCODER)
    sizes = [p.numel() for n, p in run.network.named_parameters() if n.startswith(ENCODER)]
    lines = [message for message in caplog.messages if "encoder" in message]
    assert lines == [
        f"encoder frozen up to epoch 2: {sum(sizes)} transferred parameters in {len(sizes)} tensors",
        "encoder released: trained from epoch 3 on",
    ]


def test_sawtooth_trains_the_encoder_from_its_step_on(tmp_path, caplog):
    """Its first stage has 4 steps, one of them in the second epoch."""
    caplog.set_level(logging.INFO)
    run = Run(tmp_path, scheduler="sawtooth")
    changed = []

    def compare(engine):
        now = run.weights
        changed.append(any(not torch.equal(now[n], run.states[0][n]) for n in now if n.startswith(ENCODER)))

    run.trainer.add_event_handler(Events.ITERATION_COMPLETED, compare)
    run()
    # step 5 is the first of the second ramp, at a rate of 0: only running statistics move
    assert changed[:6] == [False, False, False, False, True, True]
    assert any("encoder frozen up to step 4" in message for message in caplog.messages)
    assert "encoder released: trained from step 5 on" in caplog.messages


def test_sawtooth_from_scratch_freezes_nothing(tmp_path, caplog):
    run = Run(tmp_path, scheduler="sawtooth", moved=())()
    assert of(run.changed(0, 1), ENCODER) == of(run.states[0], ENCODER)
    assert "frozen" not in caplog.text


def test_what_the_checkpoint_had_nothing_for_is_trained_in_the_frozen_epochs(tmp_path):
    moved = {name for name in network_of().state_dict() if not name.startswith("backbone.down.0")}
    run = Run(tmp_path, freeze=EPOCHS, moved=moved)()
    assert of(run.changed(0, EPOCHS), ENCODER) == of(run.states[0], "backbone.down.0")


def test_from_scratch_nothing_is_frozen(tmp_path, caplog):
    plain, run = Run(tmp_path / "a")(), Run(tmp_path / "b", freeze=EPOCHS, rate=0, moved=())()
    assert run.losses.values == plain.losses.values
    assert "freeze_encoder_epochs: nothing was transferred" in caplog.text
    assert "backbone_learning_rate: nothing was transferred" in caplog.text


@pytest.mark.parametrize("task", ["segmentation", "classification"])
@pytest.mark.parametrize("freeze", [0, 2])
def test_at_rate_zero_nothing_transferred_is_ever_trained(tmp_path, task, freeze):
    """Also with frozen epochs, whose end must not release what is frozen for good."""
    run = Run(tmp_path, task=task, rate=0, freeze=freeze)()
    assert run.changed(0, EPOCHS) == {"head.weight", "head.bias"}
    assert run.losses.values[-1] != run.losses.values[0]


OPTIONS = [{"freeze": 2}, {"freeze": 2, "rate": 0}, {"freeze": 1, "rate": 0.005}]


def test_distributed_data_parallel_gives_the_same(tmp_path):
    """It expects a gradient of every parameter in every step, frozen or not, and fails without one.

    In a process of its own, because Ignite keeps the process group that it once saw.
    """
    root = Path(__file__).parents[2]
    code = (
        f"import sys; sys.path.insert(0, {str(root)!r})\n"
        "import torch, torch.distributed as dist\n"
        "from tests.training.test_recipes import OPTIONS, Run\n"
        f"dist.init_process_group('gloo', init_method='file://{tmp_path}/store', rank=0, world_size=1)\n"
        "for number, options in enumerate(OPTIONS):\n"
        f"    Run(f'{tmp_path}/a{{number}}', wrap=torch.nn.parallel.DistributedDataParallel, **options)()\n"
        f"    Run(f'{tmp_path}/b{{number}}', **options)()\n"
        "dist.destroy_process_group()\n"
    )
    environment = {**os.environ, "LOCAL_RANK": "0", "OMP_NUM_THREADS": str(torch.get_num_threads())}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    for number in range(len(OPTIONS)):
        for name in ("best.pt", "final.pt"):  # at rate 0 the optimizers' states differ, with no effect
            assert_equal_files(tmp_path / f"a{number}" / name, tmp_path / f"b{number}" / name)


def test_a_smaller_rate_moves_the_backbone_less(tmp_path):
    """AdamW's first step without decay moves each weight by its rate: 0.05 in the head, 0.001 elsewhere."""
    run = Run(tmp_path, rate=0.001, scheduler="cosine", moved=list(network_of().state_dict()))
    for group in run.optimizer.param_groups:
        group["weight_decay"] = 0.0
    run.trainer.add_event_handler(
        Events.ITERATION_COMPLETED(once=1),
        lambda engine: run.states.update(one=run.weights),
    )
    run()
    for name, parameter in run.network.named_parameters():
        moved = (run.states["one"][name] - run.states[0][name]).abs().max()
        expected = 0.05 if name.startswith("head.") else 0.001
        assert 0 < moved <= 1.001 * expected, name
        assert parameter.requires_grad


@pytest.mark.parametrize(
    ("epoch", "options"),
    [
        (2, {"freeze": 2}),  # killed in the frozen phase
        (3, {"freeze": 2}),  # in the first epoch behind it
        (2, {"freeze": 2, "rate": 0.005}),
        (2, {"rate": 0}),
        (3, {"freeze": 2, "task": "classification", "rate": 0.005}),
        (2, {"scheduler": "sawtooth"}),  # killed in the step after the first stage
    ],
)
def test_killed_and_resumed_equals_never_killed(tmp_path, epoch, options):
    straight = Run(tmp_path / "a", **options)()
    killed = Run(tmp_path / "b", Kill(epoch), **options)()
    assert killed.losses.values == straight.losses.values[: (epoch - 1) * STEPS + 2]
    resumed = Run(tmp_path / "b", resume=True, **options)()
    assert resumed.losses.values == straight.losses.values[(epoch - 1) * STEPS :]
    for name in names(tmp_path / "a"):
        assert_equal_files(tmp_path / "a" / name, tmp_path / "b" / name)


@pytest.mark.parametrize(
    ("there", "here", "message"),
    [
        ({"rate": 0.005}, {"rate": 0}, r"settings: backbone_learning_rate is 0\.005 there, 0 here$"),
        ({"rate": 0}, {}, r"settings: backbone_learning_rate is 0 there, 0\.05 here$"),
        ({}, {"rate": 0.005}, r"settings: backbone_learning_rate is 0\.05 there, 0\.005 here$"),
        ({"freeze": 1}, {"freeze": 2}, "freeze_encoder_epochs is 1 there, 2 here"),
        ({"recipe": "encoder_start 0.1"}, {}, "recipe is 'encoder_start 0.1' there, None here"),
        ({}, {"recipe": "warmup 0.1"}, "recipe is None there, 'warmup 0.1' here"),
    ],
)
def test_a_run_is_resumed_with_its_own_recipe(tmp_path, there, here, message):
    Run(tmp_path, Kill(2), **there)()
    with pytest.raises(UserError, match=message):
        Run(tmp_path, resume=True, **here)()


def test_the_same_rate_is_one_group_as_without_the_key(tmp_path):
    Run(tmp_path, Kill(2))()
    assert len(Run(tmp_path, resume=True, rate=0.05)().optimizer.param_groups) == 1
    groups = load_checkpoint(tmp_path / "final.pt")["network"], parameter_groups(network_of(), 0.05)
    assert [p.shape for p in groups[1][0]["params"]] == [p.shape for p in network_of().parameters()]


def test_groups_are_in_the_network_s_order():
    network = network_of()
    first = [name for name, _ in network.named_parameters() if name.startswith("backbone.down.0")]
    mark_transferred(network, [*reversed(first), "head.weight"])  # a kept head stays with the heads
    heads, moved = parameter_groups(nn.DataParallel(network), 0.1, 0.01)
    found = {id(p): name for name, p in network.named_parameters()}
    assert [found[id(p)] for p in moved["params"]] == first
    assert [found[id(p)] for p in heads["params"]] == [n for n in found.values() if n not in first]
    assert (heads["lr"], moved["lr"], moved["name"]) == (0.1, 0.01, "backbone")


def test_groups_of_a_loaded_network(tmp_path):
    """From scratch there is one group, even at a rate of its own."""
    network = load_pretrained("", "unet", 1, ROI, 2)
    assert [group["lr"] for group in parameter_groups(network, 0.1, 0.01)] == [0.1]
    assert all(p.requires_grad for p in network.parameters())


def test_a_longer_sawtooth_ends_at_the_end_of_its_decay():
    """The first stage is the one that the run had; what follows it ends with the last step."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], 0.5)
    stored = warmup_cosine(optimizer, 100, 0.1, encoder_start=0.3).state_dict()
    longer = warmup_cosine(torch.optim.SGD([nn.Parameter(torch.ones(1))], 0.5), 1000, 0.1, encoder_start=0.3)
    longer.load_state_dict(schedule_state(Path("epoch_0003.pt"), stored, longer.state_dict()))
    assert longer.encoder_start == 30
    assert longer.factor(30) == 0
    assert longer.factor(40) == 1
    factors = [longer.factor(step) for step in range(40, 1001)]
    assert factors == sorted(factors, reverse=True)
    assert factors[-1] == pytest.approx(0, abs=1e-12)


def test_stages_longer_than_the_run():
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], 0.5)
    with pytest.raises(UserError, match="found 30 and 80 of 100 steps, expected no more than all of them"):
        warmup_cosine(optimizer, 100, 0.3, encoder_start=0.8)


def test_the_log_says_which_recipe(caplog):
    caplog.set_level(logging.INFO)
    recipe = choose_recipe("sawtooth", pretrained="runs/vp")
    parameter_groups(network_of(), 0.1, recipe=recipe)
    assert caplog.messages == ["recipe sawtooth: warmup 0.1, encoder_start 0.1, rescale True"]
    assert str(choose_recipe("auto", pretrained="x")).startswith(f"recipe auto = {AUTO['pretrained']}")
    assert str(choose_recipe("auto")).startswith(f"recipe auto = {AUTO['scratch']}, from scratch")


def test_a_recipe_s_factor_is_of_the_learning_rate_and_the_key_goes_before_it():
    network = network_of()
    recipe = choose_recipe("tenth", {"tenth": {"backbone_factor": 0.125}}, "runs/vp")
    assert [g["lr"] for g in parameter_groups(network, 0.5, recipe=recipe)] == [0.5, 0.0625]
    assert [g["lr"] for g in parameter_groups(network, 0.5, 0.25, recipe)] == [0.5, 0.25]
    mark_transferred(network, ())
    scratch = choose_recipe("tenth", {"tenth": {"backbone_factor": 0.125}})
    assert [g["lr"] for g in parameter_groups(network, 0.5, recipe=scratch)] == [0.5]


@pytest.mark.parametrize(
    ("recipe", "recipes", "message"),
    [
        ("sawtoth", {}, "recipe: found 'sawtoth', expected one of auto, plain, warmup, sawtooth"),
        ("mine", {"mine": {"warm_up": 1}}, "recipes::mine: found 'warm_up', .*; did you mean warmup"),
        ("mine", {"mine": {"warmup": -1}}, "recipes::mine::warmup: found -1, expected a share"),
        ("mine", {"mine": {"rescale": "yes"}}, "recipes::mine::rescale: found 'yes'"),
        ("mine", {"mine": {"like": "yours"}}, "recipes::mine::like: found 'yours', expected one of plain"),
        ("mine", {"mine": 3}, "recipes::mine: found 3, expected entries"),
        ("mine", ["mine"], r"recipes: found \['mine'\], expected recipes by name"),
        ("plain", {"plain": {"warmup": 0.2}}, "recipes::plain: found the name of a built-in recipe"),
        ("auto", {"auto": {}}, "recipes::auto: found the name of a built-in recipe"),
        ("plain", {"mine": {"transfer": "decoder"}}, "recipes::mine::transfer: found 'decoder'"),
    ],
)
def test_mistakes_in_a_recipe(recipe, recipes, message):
    with pytest.raises(UserError, match=message):
        choose_recipe(recipe, recipes, "runs/vp")


@pytest.mark.parametrize("value", [-1, True])
def test_bad_freeze_encoder_epochs(value):
    with pytest.raises(UserError, match=rf"freeze_encoder_epochs: found {value!r}, expected an integer"):
        FreezeEncoder(network_of(), value)


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf, True])
def test_bad_rates(value):
    with pytest.raises(UserError, match=rf"backbone_learning_rate: found {value!r}, expected null"):
        parameter_groups(network_of(), 0.1, value)
    with pytest.raises(UserError, match=rf"learning_rate: found {value!r}, expected a number above 0"):
        parameter_groups(network_of(), value)


def test_an_encoder_that_is_not_named():
    network = network_of()
    network.backbone.outside_encoder = ()
    with pytest.raises(UserError, match="freeze_encoder_epochs: UNet does not say what is `outside_encoder`"):
        FreezeEncoder(network, 1)
    FreezeEncoder(network, 0)


def rates(schedule, optimizer, steps):
    found = []
    for _ in range(steps):
        found.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    return found


def optimizer_of(*values):
    return torch.optim.SGD([{"params": [nn.Parameter(torch.ones(1))], "lr": value} for value in values])


@pytest.mark.parametrize(("warmup", "factor"), [(0, 0.0), (0.05, 0.01), (3, 0.3), (0.25, 1.0), (1.0, 0.0)])
def test_one_group_has_the_rates_of_monai_s_schedule(warmup, factor):
    ours, theirs = optimizer_of(0.002), optimizer_of(0.002)
    steps = warmup if isinstance(warmup, int) else int(warmup * 40)
    reference = WarmupCosineSchedule(theirs, steps, 40, end_lr=0.002 * factor)
    assert rates(warmup_cosine(ours, 40, warmup, factor), ours, 44) == rates(reference, theirs, 44)


def test_each_group_ends_at_the_same_share_of_its_own_rate():
    optimizer = optimizer_of(0.1, 0.01, 0.0)
    found = rates(warmup_cosine(optimizer, 8, 2, 0.25), optimizer, 9)
    assert found[0] == [0.0, 0.0, 0.0]
    assert found[2] == [0.1, 0.01, 0.0]
    assert found[8] == [0.1 * 0.25, 0.01 * 0.25, 0.0]
    for heads, backbone, frozen in found:
        assert backbone == pytest.approx(heads / 10, rel=1e-12)
        assert frozen == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, "steps: found 0"),
        ({"warmup": -1}, "warmup: found -1"),
        ({"warmup": 1.5}, r"warmup: found 1\.5"),
        ({"final_lr_factor": 2}, "final_lr_factor: found 2"),
        ({"final_lr_factor": math.nan}, "final_lr_factor: found nan"),
    ],
)
def test_bad_schedules(arguments, message):
    with pytest.raises(UserError, match=message):
        warmup_cosine(optimizer_of(0.1), **{"steps": 10, **arguments})
