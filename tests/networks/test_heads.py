import pytest
import torch
from pretext3d.errors import UserError
from pretext3d.networks.heads import FullyConnectedHead, PatchFeatures, PermutationHead

from tests.networks.conftest import small_backbone


def test_head_by_hand():
    """2 cells of 1 feature, 2 hidden units, 1 logit; all weights 1, biases 0, but one unit's sign."""
    head = PermutationHead(cells=2, features=1, hidden=2, outputs=1)
    for parameter in head.parameters():
        torch.nn.init.ones_(parameter) if parameter.ndim == 2 else torch.nn.init.zeros_(parameter)
    head[1].weight.data[1] = -1
    # 3 + 1 = 4, and -4, of which ReLU leaves 0
    torch.testing.assert_close(head(torch.tensor([[3.0, 1.0]])), torch.tensor([[4.0]]))
    assert list(head.state_dict()) == ["1.weight", "1.bias", "3.weight", "3.bias"]  # names in checkpoints


def test_dropout_in_training_alone():
    head = PermutationHead(8, 4, 16, 5, dropout=0.5)
    x = torch.ones(2, 32)
    assert not torch.equal(head(x), head(x))
    head.eval()
    assert torch.equal(head(x), head(x))


def test_the_fully_connected_head_by_hand():
    """1 feature, 2 hidden units without norm, 1 output; all weights 1 but one unit's -1, biases 0."""
    head = FullyConnectedHead(1, 1, hidden=[2], batch_norm=False).eval()
    for parameter in head.parameters():
        torch.nn.init.ones_(parameter) if parameter.ndim == 2 else torch.nn.init.zeros_(parameter)
    head[0].weight.data[1] = -1
    # ReLU(3) + ReLU(-3) = 3, and ReLU(-2) + ReLU(2) = 2
    torch.testing.assert_close(head(torch.tensor([[3.0], [-2.0]])), torch.tensor([[3.0], [2.0]]))


def test_the_papers_head():
    """2048 and 1024 units, batch norm, dropout 0.5: 256 * 2048 + 2048 * 1024 + 1024 * 10 weights."""
    layers = list(FullyConnectedHead(256, 10))
    weights = [layer.weight.numel() for layer in layers if isinstance(layer, torch.nn.Linear)]
    assert weights == [256 * 2048, 2048 * 1024, 1024 * 10]
    assert [layer.p for layer in layers if isinstance(layer, torch.nn.Dropout)] == [0.5, 0.5]
    assert sum(isinstance(layer, torch.nn.BatchNorm1d) for layer in layers) == 2


def test_batch_norm_needs_two_rows_in_training():
    row = torch.ones(1, 4)
    with pytest.raises(UserError, match="batch_size: found a batch of 1 for the head, expected 2 or more"):
        FullyConnectedHead(4, 2, hidden=[3])(row)
    assert FullyConnectedHead(4, 2, hidden=[3]).eval()(row).shape == (1, 2)
    assert FullyConnectedHead(4, 2, hidden=[])(row).shape == (1, 2)
    assert FullyConnectedHead(4, 2, hidden=[3], batch_norm=False)(row).shape == (1, 2)


@pytest.mark.parametrize(
    ("key", "arguments"),
    [
        ("head_units", {"hidden": 64}),
        ("head_units", {"hidden": [0]}),
        ("head_units", {"hidden": "64"}),
        ("head_dropout", {"dropout": 1.0}),
    ],
)
def test_a_wrong_head(key, arguments):
    with pytest.raises(UserError, match=rf"^{key}: found"):
        FullyConnectedHead(4, 2, **arguments)


@pytest.mark.parametrize("dims", [3, 2])
def test_features_of_patches_are_those_of_each_alone(dims):
    backbone = small_backbone("unet4", 1, roi_size=(16, 16, 16)[:dims], spatial_dims=dims).eval()
    patches = torch.randn(2, 3, 1, *(8, 16, 8)[:dims])
    features = PatchFeatures(backbone, pool_size=2)
    assert features.features == 128 * 2**dims
    assert list(features.parameters()) == []
    with torch.no_grad():
        together = features(backbone, patches)
        for i in range(2):
            for j in range(3):
                alone = features.pool(backbone.encode(patches[i, j][None])[-1]).flatten()
                torch.testing.assert_close(together[i, j], alone, rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match=r"^pool_size"):
        PatchFeatures(backbone, 0)


def test_a_map_is_not_pooled_to_more_than_it_has():
    """A crop of 24 x 16 x 8 has a coarsest map of 3 x 2 x 1 at stride 8."""
    backbone = small_backbone("unet4", in_channels=1)
    with pytest.raises(UserError, match=r"pool_size: found 2, expected at most 1: .* is \[3, 2, 1\]"):
        PatchFeatures(backbone, 2)
