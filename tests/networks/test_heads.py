import torch
from pretext3d.networks.heads import PermutationHead


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
