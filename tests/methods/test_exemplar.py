import itertools
import math

import pytest
import torch
from ignite.engine import Engine
from pretext3d.errors import UserError
from pretext3d.methods.exemplar import pretext
from pretext3d.methods.exemplar.pretext import (
    EmbeddingMemory,
    ExemplarLoss,
    ExemplarNet,
    contrastive_loss,
    triplet_loss,
    validation_metrics,
)
from pretext3d.networks.factory import build_backbone
from pretext3d.training.metrics import ValidationLoss

A, B, C = 11, 22, 33  # subjects


def pairs(*rows):
    """Embeddings (b, 2, f) from anchors and positives."""
    return torch.tensor(rows, dtype=torch.float32)


def target(*subjects):
    return {"subject_code": torch.tensor(subjects), "case_code": torch.arange(len(subjects))}


# Three pairs in the plane: anchors (0, 0), (3, 4), (0, 1), positives 1, 0 and 2 away from them.
PAIRS = pairs([[0, 0], [1, 0]], [[3, 4], [3, 4]], [[0, 1], [0, 3]])


# ------------------------------------------------------------------------------------------- Eq. 3, triplets
def test_triplet_loss_by_hand():
    """Distances of anchors: D01 = 5, D02 = 1, D12 = sqrt(9 + 9) = 4.243; of positives 1, 0, 2; margin 1.

    Anchor 0: max(0, 1 - 5 + 1) = 0, max(0, 1 - 1 + 1) = 1. Anchor 1: 0 - 5 + 1 and 0 - 4.243 + 1 are below 0.
    Anchor 2: max(0, 2 - 1 + 1) = 2, 2 - 4.243 + 1 is below 0. Sum 3 over 6 triplets.
    """
    loss = ExemplarLoss()(PAIRS, target(A, B, C))
    torch.testing.assert_close(loss, torch.tensor(3 / 6))
    # hardest: each anchor's nearest negative: 1, 0 and 2 over 3 triplets
    torch.testing.assert_close(ExemplarLoss(mining="hardest")(PAIRS, target(A, B, C)), torch.tensor(3 / 3))
    # margin 3: 1 - 5 + 3 < 0, 3 | 0 - 5 + 3 < 0, 0 - 4.243 + 3 < 0 | 4, 2 - 4.243 + 3 = 0.757
    wide = (3 + 4 + 5 - math.sqrt(18)) / 6
    assert ExemplarLoss(margin=3.0)(PAIRS, target(A, B, C)).item() == pytest.approx(wide, rel=1e-5)


def test_the_same_subject_is_never_a_negative():
    """0 and 2 of one subject: of the six triplets, 0-2 and 2-0 are none; those left have no loss, in 4."""
    same = target(A, B, A)
    assert ExemplarLoss()(PAIRS, same).item() == 0
    assert ExemplarLoss(mining="hardest")(PAIRS, same).item() == 0
    # 0 and 1 of one subject: left are 0-2 (1), 1-2 (0), 2-0 (2), 2-1 (0)
    torch.testing.assert_close(ExemplarLoss()(PAIRS, target(A, A, B)), torch.tensor(3 / 4))


def plain_triplet_loss(anchors, positives, subjects, margin):
    """Eq. 3, as it is written."""
    losses = []
    for i, j in itertools.product(range(len(anchors)), repeat=2):
        if subjects[i] != subjects[j]:
            near = math.dist(anchors[i].tolist(), positives[i].tolist())
            far = math.dist(anchors[i].tolist(), anchors[j].tolist())
            losses.append(max(0.0, near - far + margin))
    return sum(losses) / len(losses)


def plain_contrastive_loss(anchors, positives, subjects, temperature):
    """NT-Xent with a loop per term."""
    both, own, n = torch.cat([anchors, positives]), [*subjects, *subjects], len(anchors)

    def similarity(i, j):
        dot = float(both[i] @ both[j])
        return math.exp(dot / float(both[i].norm() * both[j].norm()) / temperature)

    total = 0.0
    for i in range(2 * n):
        alike = similarity(i, (i + n) % (2 * n))
        others = sum(similarity(i, j) for j in range(2 * n) if own[j] != own[i])
        total -= math.log(alike / (alike + others))
    return total / (2 * n)


def test_losses_equal_plain_loops():
    generator = torch.Generator().manual_seed(0)
    for subjects in ([A, B, C, A, B], [A, A, A, A, B]):
        z = torch.randn(5, 2, 4, generator=generator)
        got = ExemplarLoss(margin=2.0)(z, target(*subjects)).item()
        assert got == pytest.approx(plain_triplet_loss(*z.unbind(1), subjects, 2.0), rel=1e-5)
        got = ExemplarLoss("contrastive", temperature=0.3)(z, target(*subjects)).item()
        assert got == pytest.approx(plain_contrastive_loss(*z.unbind(1), subjects, 0.3), rel=1e-5)


# ----------------------------------------------------------------------------------------------- contrastive
def test_contrastive_loss_by_hand():
    """Two pairs along the axes, of any length; t = 1 / log 2, so that exp(s / t) = 2^s.

    Each embedding: its counterpart has s = 1, 2; its two negatives have s = 0, 1 each: -log(2 / 4) = log 2.
    """
    z = pairs([[3, 0], [1, 0]], [[0, 1], [0, 5]])
    t = 1 / math.log(2)
    loss = ExemplarLoss("contrastive", temperature=t)(z, target(A, B))
    torch.testing.assert_close(loss, torch.tensor(math.log(2)))
    # a third pair opposite to the first, of the first's subject, counts for the second pair alone:
    # log 2 for four with the second pair's two; the second's have two and four negatives of s = 0: 2 / 6
    more = torch.cat([z, pairs([[-1, 0], [-2, 0]])])
    loss = ExemplarLoss("contrastive", temperature=t)(more, target(A, B, A))
    torch.testing.assert_close(loss, torch.tensor((4 * math.log(2) + 2 * math.log(3)) / 6))


def test_remembered_negatives_by_hand():
    """As above, and one remembered embedding along the first axis of subject B, one along it of A.

    The first pair: 2 / (2 + 1 + 1 + 2) = 1 / 3, the second: the remembered one of A has s = 0, 2 / 5.
    """
    z, memory = pairs([[3, 0], [1, 0]], [[0, 1], [0, 5]]), EmbeddingMemory(4, 2)
    memory.add(torch.tensor([[7.0, 0.0], [2.0, 0.0]]), torch.tensor([B, A]))
    loss = ExemplarLoss("contrastive", temperature=1 / math.log(2), memory=memory)(z, target(A, B))
    torch.testing.assert_close(loss, torch.tensor((2 * math.log(3) + 2 * math.log(2.5)) / 4))


# ---------------------------------------------------------------------------------------- degenerate batches
@pytest.mark.parametrize("objective", ["triplet", "contrastive"])
@pytest.mark.parametrize("mining", ["any", "hardest"])
@pytest.mark.parametrize("subjects", [(A, A, A), (A, A, B)])
def test_equal_embeddings_and_batches_of_one_subject_have_finite_gradients(objective, mining, subjects):
    """All distances are 0. With no negative the loss is 0; else the margin, or log(1 + negatives)."""
    z = torch.full((3, 2, 4), 0.5, requires_grad=True)
    loss = ExemplarLoss(objective, mining=mining)(z, target(*subjects))
    loss.backward()
    assert torch.isfinite(z.grad).all()
    if len(set(subjects)) == 1:
        assert loss.item() == 0
    elif objective == "triplet":
        assert loss.item() == pytest.approx(1.0)
    else:  # the subjects' embeddings: four of A have two negatives each, two of B have four
        assert loss.item() == pytest.approx((4 * math.log(3) + 2 * math.log(5)) / 6, rel=1e-5)


def test_an_embedding_of_zeros_has_a_finite_gradient():
    for objective in ("triplet", "contrastive"):
        z = torch.zeros(3, 2, 4, requires_grad=True)
        ExemplarLoss(objective)(z, target(A, B, C)).backward()
        assert torch.isfinite(z.grad).all()


def test_half_precision_is_computed_in_float32():
    z = torch.randn(4, 2, 8, generator=torch.Generator().manual_seed(1))
    for objective in ("triplet", "contrastive"):
        loss = ExemplarLoss(objective)
        assert loss(z.bfloat16(), target(A, B, C, A)).dtype == torch.float32
        torch.testing.assert_close(
            loss(z.bfloat16(), target(A, B, C, A)), loss(z, target(A, B, C, A)), atol=0.05, rtol=0.02
        )


# ------------------------------------------------------------------------------------------------ the memory
def test_the_memory_keeps_the_newest():
    memory = EmbeddingMemory(3, 1)
    for first in (1, 3):
        memory.add(torch.tensor([[first], [first + 1.0]]), torch.tensor([first, first + 1]))
    assert memory.subjects.tolist() == [3, 4, 1]
    assert memory.embeddings.flatten().tolist() == [3, 4, 1]
    memory.add(torch.arange(5.0).reshape(5, 1), torch.arange(5))
    assert memory.subjects.tolist() == [0, 1, 2]  # a batch longer than the memory


def test_triplets_with_remembered_negatives_by_hand():
    """A batch of one pair, positive at distance 2, and a memory: B at distance 1, A (its own) at 0, an empty
    place. One triplet: 2 - 1 + 1 = 2.
    """
    for mining in ("any", "hardest"):
        memory = EmbeddingMemory(3, 1)
        memory.add(torch.tensor([[1.0], [0.0]]), torch.tensor([B, A]))
        loss = ExemplarLoss(mining=mining, memory=memory)
        assert loss(pairs([[0], [2]]), target(A)).item() == 2


@pytest.mark.parametrize("objective", ["triplet", "contrastive"])
def test_a_validation_neither_reads_nor_fills_the_memory(objective):
    """The same embeddings have the same validation loss, whatever the training has remembered.

    Measured as in a run: by the metric of the evaluator, whose update is without gradients.
    """
    memory = EmbeddingMemory(4, 2)
    memory.add(PAIRS[:2, 1], torch.tensor([B, C]))
    before = memory.subjects.tolist()

    def losses(loss):
        evaluator = Engine(lambda engine, batch: {"pred": PAIRS, "label": target(A, B, C)})
        ValidationLoss(loss).attach(evaluator, "val_loss")
        evaluator.run([0])
        return evaluator.state.metrics["val_loss"], loss(PAIRS, target(A, B, C)).item()

    plain, plain_step = losses(ExemplarLoss(objective))
    full, full_step = losses(ExemplarLoss(objective, memory=memory))
    assert full == plain == pytest.approx(plain_step)
    assert full_step != pytest.approx(plain_step)  # a training step reads it, and has filled it after
    assert before == [B, C, -1, -1]
    assert memory.subjects.tolist() == [A, B, C, B]


def test_training_fills_the_memory():
    memory = EmbeddingMemory(4, 2)
    loss = ExemplarLoss(memory=memory)
    z = PAIRS.clone().requires_grad_()
    first = loss(z, target(A, B, C))
    first.backward()  # after the memory has changed
    assert memory.subjects.tolist() == [A, B, C, -1]
    assert torch.equal(memory.embeddings[:3], PAIRS[:, 0])
    # the same batch again: each anchor's own copy in the memory is of its subject, so nothing new is nearer
    torch.testing.assert_close(loss(z, target(A, B, C)), first)


def test_the_memory_is_in_the_checkpoint():
    network = small(negatives="dataset", memory_size=5)
    loss = ExemplarLoss(memory=network.memory)
    loss(network(torch.rand(2, 2, 1, 8, 8, 8)), target(A, B))
    again = small(negatives="dataset", memory_size=5)
    again.load_state_dict(network.state_dict())
    assert again.memory.subjects.tolist() == [A, B, -1, -1, -1]
    assert torch.equal(again.memory.embeddings, network.memory.embeddings)
    assert "memory.embeddings" not in small().state_dict()


def test_every_process_remembers_the_anchors_of_all(monkeypatch):
    """Two processes, of which the other one has the same batch plus 10, of subjects plus 1."""
    monkeypatch.setattr(pretext.idist, "get_world_size", lambda: 2)
    monkeypatch.setattr(
        pretext.idist, "all_gather", lambda x: torch.cat([x, x + (10 if x.is_floating_point() else 1)])
    )
    memory = EmbeddingMemory(4, 1)
    memory.add(torch.tensor([[1.0]]), torch.tensor([5]))
    assert memory.subjects.tolist() == [5, 6, -1, -1]
    assert memory.embeddings.flatten().tolist() == [1, 11, 0, 0]


# ----------------------------------------------------------------------------------------------- the network
def small(dims=3, **options):
    backbone = build_backbone("unet", 1, [8] * dims, spatial_dims=dims, encoder_only=True)
    return ExemplarNet(backbone, **{"features": 6, "hidden": [10], "dropout": 0.0, **options})


@pytest.mark.parametrize("dims", [2, 3])
def test_network(dims):
    network = small(dims)
    x = torch.randn(3, 2, 1, *[8] * dims, generator=torch.Generator().manual_seed(0))
    z = network(x)
    assert z.shape == (3, 2, 6)
    ExemplarLoss("contrastive")(z, target(A, B, C)).backward()
    missing = {n for n, p in network.named_parameters() if p.requires_grad and p.grad is None}
    assert missing == set()  # several processes wait for every gradient
    assert not any(p.requires_grad for p in network.backbone.up.parameters())


def test_anchors_and_views_share_encoder_and_head():
    """Exchanging an anchor and its view exchanges their embeddings; these are not bounded."""
    network = small().eval()
    x = torch.randn(2, 2, 1, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(network(x.flip(1)), network(x).flip(1))
    torch.testing.assert_close(
        network.head[-1](1e3 * torch.eye(10)) - network.head[-1].bias, 1e3 * network.head[-1].weight.T
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objective": "quadruplet"}, "objective: found 'quadruplet', expected one of triplet, contrastive"),
        ({"mining": "easy"}, "mining: found 'easy', expected one of any, hardest"),
        ({"margin": 0}, "margin: found 0, expected a number above 0"),
        ({"temperature": -1}, "temperature: found -1"),
    ],
)
def test_impossible_losses(options, message):
    with pytest.raises(UserError, match=message):
        ExemplarLoss(**options)


def test_arguments_of_the_other_objective_are_named(caplog):
    ExemplarLoss("contrastive", margin=3.0, mining="hardest")
    ExemplarLoss("triplet", temperature=0.5)
    ExemplarLoss("triplet", margin=3.0, mining="hardest")
    assert caplog.messages == [
        "margin: 3.0 has no effect with objective contrastive",
        "mining: hardest has no effect with objective contrastive",
        "temperature: 0.5 has no effect with objective triplet",
    ]


def test_what_to_try_after_a_collapse_is_not_set_already():
    assert "mining" not in ExemplarLoss("triplet").advice
    assert "--mining any" in ExemplarLoss("triplet", mining="hardest").advice
    assert "--negatives dataset" in ExemplarLoss("contrastive").advice
    assert "negatives" not in ExemplarLoss("contrastive", memory=EmbeddingMemory(4, 2)).advice
    assert validation_metrics("triplet", advice="this")["feature_std"].advice == "this"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"negatives": "nowhere"}, "negatives: found 'nowhere', expected one of batch, dataset"),
        ({"features": 0}, "embedding_size: found 0"),
        ({"negatives": "dataset", "memory_size": 0}, "memory_size: found 0"),
    ],
)
def test_impossible_networks(options, message):
    with pytest.raises(UserError, match=message):
        small(**options)


# ------------------------------------------------------------------------------------------------- learning
def test_a_few_images_are_learned():
    """Of eight random images, each view finds its anchor, of whom a guess finds one in eight."""
    torch.manual_seed(0)
    network = small(2, features=8)
    images = torch.rand(8, 1, 8, 8)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    loss = ExemplarLoss("contrastive")
    label = {"subject_code": torch.arange(8), "case_code": torch.arange(8)}

    def batch():
        return torch.stack([images, images.flip(3) + 0.1 * torch.rand(8, 1, 8, 8)], dim=1)

    for _ in range(60):
        optimizer.zero_grad()
        loss(network(batch()), label).backward()
        optimizer.step()
    metric = validation_metrics("contrastive")["retrieval_accuracy"]
    metric.update((network.eval()(batch()), label))
    assert metric.compute() >= 7 / 8


def test_free_functions_take_what_the_module_gives_them():
    anchors, positives = PAIRS.unbind(1)
    subjects = torch.tensor([A, B, C])
    negative = subjects[:, None] != subjects
    got = triplet_loss(anchors, positives, anchors, negative)
    torch.testing.assert_close(got, ExemplarLoss()(PAIRS, target(A, B, C)))
    torch.testing.assert_close(
        contrastive_loss(anchors, positives, subjects, 0.1),
        ExemplarLoss("contrastive")(PAIRS, target(A, B, C)),
    )
