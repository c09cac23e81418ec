"""Contrastive predictive coding: codes set by hand, causality, the loss's values, learning."""

import math
from typing import Any

import pytest
import torch
from pretext3d.errors import UserError
from pretext3d.methods.cpc.context import in_context
from pretext3d.methods.cpc.patches import PatchGrid, RandPatchGridd
from pretext3d.methods.cpc.pretext import CpcLoss, CpcNet, LocationAccuracy, validation_metrics
from pretext3d.networks.factory import build_backbone
from pretext3d.training.collapse import collapse

LINE = PatchGrid(grid=[1, 3], size=[2, 2], steps=1, spatial_dims=2)  # three rows of one patch
CUBE = PatchGrid(grid=[2, 3, 4], size=[4, 4, 4], steps=2)


def network_of(patches: PatchGrid, channels: int = 1, **options: Any) -> CpcNet:
    torch.manual_seed(0)
    dims = len(patches.grid)
    backbone = build_backbone("unet", channels, patches.size, dims, {"channels": [4, 8]}, encoder_only=True)
    return CpcNet(backbone, patches, **{"code_size": 6, "context_units": 5, **options})


# ----------------------------------------------------------------------------------------------- the network
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"context": "lstm"}, "context: found 'lstm', expected one of gru, masked_conv"),
        ({"context_units": 0}, "context_units: found 0"),
        ({"context_radius": -1}, "context_radius: found -1"),
        ({"code_size": 0}, "code_size: found 0"),
    ],
)
def test_impossible_networks(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        network_of(CUBE, **options)


@pytest.mark.parametrize("kind", ["gru", "masked_conv"])
@pytest.mark.parametrize(
    "patches", [CUBE, PatchGrid(grid=[3, 4], size=[4, 6], steps=3, spatial_dims=2)], ids=["3d", "2d"]
)
def test_network(kind: str, patches: PatchGrid) -> None:
    network = network_of(patches, channels=2, context=kind)
    calls: list[tuple[int, ...]] = []
    network.backbone.down[0].register_forward_hook(lambda module, given, out: calls.append(given[0].shape))
    count = len(patches.order)
    codes, predicted = network(torch.randn(2, count, 2, *patches.size))
    assert (codes.shape, predicted.shape) == ((2, count, 6), (2, len(patches.targets), 6))
    assert calls == [(2 * count, 2, *patches.size)]  # all patches of the batch in one call
    CpcLoss(patches)((codes, predicted), {"negative": torch.ones_like(patches.targets)}).backward()
    assert [n for n, p in network.named_parameters() if p.requires_grad and p.grad is None] == []
    assert not any(p.requires_grad for p in network.backbone.up.parameters())


def test_codes_are_in_the_order_of_locations() -> None:
    """Evaluated without batch statistics, the code of a location is that of its cell's patch alone."""
    network = network_of(CUBE).eval()
    x = torch.randn(1, 24, 1, 4, 4, 4)
    for location in (0, 5, 23):
        cell = int(CUBE.order[location])
        alone = network.code(network.patch_features(network.backbone, x[:, cell : cell + 1]))
        torch.testing.assert_close(network(x)[0][:, location], alone[:, 0])


def test_a_patch_changes_no_prediction_that_must_not_see_it() -> None:
    """4 rows of 2 x 3 cells: the lowest row enters no prediction, the highest one those of its pyramid."""
    network = network_of(CUBE).eval()
    x = torch.randn(1, 24, 1, 4, 4, 4)
    before = network(x)[1]
    for location in range(24):
        changed = x.clone()
        changed[:, CUBE.order[location]] += 1.0
        found = ((network(changed)[1] - before).abs() > 1e-6).any(-1)[0]
        for query, target in enumerate(CUBE.targets.tolist()):
            row, rest = divmod(target - int(CUBE.step_of[query]) * 6, 6)
            seen = in_context(CUBE.shape, (row, *divmod(rest, 3)), 2, "gru").flatten()
            assert bool(found[query]) == bool(seen[location])


def test_one_linear_map_per_step() -> None:
    network = network_of(CUBE)
    assert [list(linear.weight.shape) for linear in network.ahead] == [[6, 5], [6, 5]]
    assert all(linear.bias is None for linear in network.ahead)
    codes = torch.randn(1, 24, 6)
    contexts = network.context(codes.view(1, 4, 2, 3, 6))  # of rows 0, 1 and 2
    predicted = network.predict(codes)
    torch.testing.assert_close(predicted[:, :18], network.ahead[0](contexts).flatten(1, 3))
    torch.testing.assert_close(predicted[:, 18:], network.ahead[1](contexts[:, :2]).flatten(1, 3))


# -------------------------------------------------------------------------------------------------- the loss
CODES = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]])
TWO, THREE = math.log(2), math.log(3)
PREDICTED = torch.tensor([[[0.0, TWO], [THREE, TWO]]])  # of locations 1 and 2
ONE_ON = {"negative": torch.tensor([[1, 1]])}  # location 2 for 1, 0 for 2


def test_infonce_by_hand() -> None:
    """Products of (0, log 2) with the codes: 0, log 2, log 2; right is the second: -log(2 / (1 + 2 + 2)).

    Of (log 3, log 2): log 3, log 2, log 6; right is the third: -log(6 / (3 + 2 + 6)).
    """
    expected = -(math.log(2 / 5) + math.log(6 / 11)) / 2
    assert CpcLoss(LINE)((CODES, PREDICTED), ONE_ON).item() == pytest.approx(expected)


def test_negatives_of_the_batch_by_hand() -> None:
    """A second image with codes 0 and predictions 0: three more terms exp 0 = 1 in each sum of the first.

    Of the second image: products 0 with all six codes, log 6 twice.
    """
    codes, predicted = (torch.cat([part, torch.zeros_like(part)]) for part in (CODES, PREDICTED))
    target = {"negative": torch.ones(2, 2, dtype=torch.long), "subject_code": torch.tensor([3, 9])}
    expected = (-math.log(2 / 8) - math.log(6 / 14) + 2 * math.log(6)) / 4
    got = CpcLoss(LINE, negatives="batch")((codes, predicted), target)
    assert got.item() == pytest.approx(expected)
    image = (-math.log(2 / 5) - math.log(6 / 11) + 2 * math.log(3)) / 4
    assert CpcLoss(LINE)((codes, predicted), target).item() == pytest.approx(image)


def test_other_images_of_a_subject_are_no_negatives() -> None:
    """Images of subjects A, A, B; codes and predictions of the second and third are 0.

    Of the first image: its own three codes and the three of B, exp 0 each, as with two images alone.
    The second has its own and B's three, log 6 twice; the third has all nine, log 9 twice.
    """
    parts = (torch.cat([part, torch.zeros_like(part), torch.zeros_like(part)]) for part in (CODES, PREDICTED))
    codes, predicted = (part.clone().requires_grad_() for part in parts)
    target = {"negative": torch.ones(3, 2, dtype=torch.long), "subject_code": torch.tensor([4, 4, 8])}
    expected = (-math.log(2 / 8) - math.log(6 / 14) + 2 * math.log(6) + 2 * math.log(9)) / 6
    loss = CpcLoss(LINE, negatives="batch")((codes, predicted), target)
    assert loss.item() == pytest.approx(expected)
    loss.backward()
    assert codes.grad is not None
    assert (
        codes.grad[1].abs().sum() == 0
    )  # the first image's predictions, the only ones that are not 0, leave it out
    assert codes.grad[2].abs().sum() > 0
    assert predicted.grad is not None
    assert predicted.grad.isfinite().all()


def test_pairs_by_hand() -> None:
    """Sigmoid(log a) = a / (1 + a). Location 1: right log 2, 2/3; wrong is location 2, log 2, 1 - 2/3.

    Location 2: right log 6, 6/7; wrong is location 0 = (2 + 1) mod 3, log 3, 1 - 3/4.
    """
    expected = -(math.log(2 / 3) + math.log(1 / 3) + math.log(6 / 7) + math.log(1 / 4)) / 4
    got = CpcLoss(LINE, loss_form="pairwise")((CODES, PREDICTED), ONE_ON)
    assert got.item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("options", "count"),
    [({}, 24), ({"negatives": "batch"}, 48), ({"loss_form": "pairwise"}, 2)],
    ids=["image", "batch", "pairwise"],
)
def test_what_says_nothing_costs_log_n(options: dict[str, str], count: int) -> None:
    codes, nothing = torch.randn(2, 24, 5), torch.zeros(2, len(CUBE.targets), 5)
    target = {"negative": torch.ones(2, len(CUBE.targets), dtype=torch.long), "subject_code": torch.arange(2)}
    assert CpcLoss(CUBE, **options)((codes, nothing), target).item() == pytest.approx(math.log(count))


@pytest.mark.parametrize("options", [{}, {"negatives": "batch"}, {"loss_form": "pairwise"}])
def test_perfect_predictions_reach_the_minimum(options: dict[str, str]) -> None:
    """Codes at the corners of a simplex, each prediction the code of its location: 0."""
    corners = 12 * (torch.eye(48) - 1 / 48).view(2, 24, 48)
    right = corners[:, CUBE.targets]
    target = {"negative": torch.randint(1, 24, (2, len(CUBE.targets))), "subject_code": torch.arange(2)}
    scale = 100.0  # the product with a wrong code is only -144 / 48
    loss = CpcLoss(CUBE, **options)
    assert loss((corners, scale * right), target).item() == pytest.approx(0, abs=1e-5)
    assert loss((corners, scale * right.roll(1, 1)), target).item() > 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss_form": "nce"}, "loss_form: found 'nce', expected one of infonce, pairwise"),
        ({"negatives": "all"}, "negatives: found 'all', expected one of image, batch"),
        (
            {"negatives": "batch", "loss_form": "pairwise"},
            "negatives: found 'batch' with loss_form 'pairwise'",
        ),
    ],
)
def test_impossible_losses(options: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        CpcLoss(CUBE, **options)


def test_what_to_try_after_a_collapse_is_possible() -> None:
    assert CpcLoss(CUBE).advice.endswith(", --negatives batch")
    assert CpcLoss(CUBE, loss_form="pairwise").advice.endswith(", --loss_form infonce")
    assert "--negatives" not in CpcLoss(CUBE, negatives="batch").advice
    assert validation_metrics(CUBE, advice="this")["feature_std"].advice == "this"


# ----------------------------------------------------------------------------------------------- the metrics
def test_accuracies_by_hand() -> None:
    """Four rows of one patch, codes along four axes: of 3 + 2 predictions the 1st, 2nd and 4th are right."""
    column = PatchGrid(grid=[1, 4], size=[2, 2], steps=2, spatial_dims=2)
    found = torch.tensor([1, 2, 0, 2, 1])  # right: 1, 2, 3 one row ahead, 2 and 3 two rows ahead
    codes = torch.eye(4)[None].expand(2, -1, -1)
    predicted = torch.stack([torch.eye(4)[found], torch.eye(4)[column.targets]])
    output = {"pred": (codes, predicted)}
    assert LocationAccuracy(column)(output).tolist() == pytest.approx([3 / 5, 1])
    assert LocationAccuracy(column, step=1)(output).tolist() == pytest.approx([2 / 3, 1])
    assert LocationAccuracy(column, step=2)(output).tolist() == pytest.approx([1 / 2, 1])
    metrics = validation_metrics(column)
    for metric in metrics.values():
        metric.update(metric._output_transform(output))
    assert metrics["accuracy"].compute() == pytest.approx(0.8)
    assert metrics["chance"].compute() == pytest.approx(0.25)
    assert metrics["effective_rank"].compute() == pytest.approx(3)  # of four corners around their mean


def test_collapsed_codes_are_reported() -> None:
    """A network whose code layer is zero gives every patch the same code, and is never right."""
    network = network_of(CUBE).eval()
    torch.nn.init.zeros_(network.code.weight)
    output = {"pred": network(torch.randn(3, 24, 1, 4, 4, 4))}
    metrics = validation_metrics(CUBE)
    assert set(metrics) == {
        "accuracy", "accuracy_step_1", "accuracy_step_2", "chance", "feature_std", "effective_rank",
    }  # fmt: skip
    for metric in metrics.values():
        metric.update(metric._output_transform(output))
    values = {name: metric.compute() for name, metric in metrics.items()}
    assert values["feature_std"] == pytest.approx(0, abs=1e-6)
    assert values["accuracy"] == 0
    assert "collapse" in collapse(values["feature_std"], values["effective_rank"], samples=3)


def test_a_vector_added_to_all_codes_is_no_collapse() -> None:
    """It changes no product by more than a constant of the prediction, and neither loss nor figures."""
    codes, predictions = torch.randn(2, 24, 5), torch.randn(2, len(CUBE.targets), 5)
    found = []
    for offset in (0.0, 300.0):
        output = {"pred": ((codes + offset).double(), predictions.double())}
        metrics = validation_metrics(CUBE)
        for metric in metrics.values():
            metric.update(metric._output_transform(output))
        values = {name: float(metric.compute()) for name, metric in metrics.items()}
        found.append({**values, "loss": float(CpcLoss(CUBE)(output["pred"], {}))})
    assert found[0] == pytest.approx(found[1], abs=1e-4)
    assert not collapse(found[1]["feature_std"], found[1]["effective_rank"], samples=48)


@pytest.mark.parametrize("kind", ["gru", "masked_conv"])
def test_a_few_images_are_learned(kind: str) -> None:
    """Smooth images, no overlap, 8 samples: far over the chance of 1 / 9 after 60 steps."""
    torch.manual_seed(0)
    patches = PatchGrid(grid=3, size=[8, 8], steps=1, spatial_dims=2)
    coarse = torch.rand(4, 1, 6, 6)
    images = torch.nn.functional.interpolate(coarse, (26, 26), mode="bilinear")
    transform = RandPatchGridd(patches).set_random_state(seed=0)
    samples = [transform({"image": images[n % 4]}) for n in range(8)]
    x, negative = (torch.stack([sample[key] for sample in samples]) for key in ("image", "negative"))
    network = network_of(patches, code_size=16, context_units=32, context=kind)
    loss, optimizer = CpcLoss(patches), torch.optim.Adam(network.parameters(), 0.01)
    for _ in range(60):
        optimizer.zero_grad()
        loss(network(x), {"negative": negative}).backward()
        optimizer.step()
    assert LocationAccuracy(patches)({"pred": network(x)}).mean() > 0.7
    network.eval()  # each patch alone, without the statistics of its batch
    assert LocationAccuracy(patches)({"pred": network(x)}).mean() > 0.7


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_gives_what_the_cpu_gives() -> None:
    network = network_of(CUBE).eval()
    x = torch.randn(2, 24, 1, 4, 4, 4)
    target = {"negative": torch.randint(1, 24, (2, len(CUBE.targets)))}
    here = [CpcLoss(CUBE, form)(network(x), target) for form in ("infonce", "pairwise")]
    network, there = network.cuda(), {"negative": target["negative"].cuda()}
    for form, value in zip(("infonce", "pairwise"), here, strict=True):
        got = CpcLoss(CUBE, form)(network(x.cuda()), there)
        torch.testing.assert_close(got.cpu(), value, atol=1e-3, rtol=1e-3)  # TF32 convolutions
