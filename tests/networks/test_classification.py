import pytest
import torch
from pretext3d.errors import UserError
from pretext3d.networks.classification import ClassificationNet

from tests.networks.conftest import small_backbone


def test_logits_are_of_the_mean_of_the_coarsest_map(case):
    backbone, x = case
    net = ClassificationNet(backbone, 3).eval()
    logits = net(x)
    features = backbone.encode(x)[-1]
    torch.testing.assert_close(logits, net.head(features.flatten(2).mean(2)))
    assert logits.shape == (1, 3)
    logits.sum().backward()
    assert [n for n, p in net.named_parameters() if p.requires_grad and p.grad is None] == []


def test_one_class_is_none():
    with pytest.raises(UserError, match="num_classes: found 1"):
        ClassificationNet(small_backbone("unet"), 1)
