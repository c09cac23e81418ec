"""Heads that several pretext tasks put on an encoder."""

from torch import nn

__all__ = ["PermutationHead"]


class PermutationHead(nn.Sequential):
    """Logits from the concatenated features of all cells: dropout, then one or two fully connected layers.

    Takes (b, cells * features) and returns (b, outputs): the K permutations of Rubik's cube and jigsaw. With
    `hidden` units there is a hidden layer with ReLU before the logits, with 0 the logits are linear.

    Args:
        cells: Number m of cells.
        features: Number of features per cell.
        hidden: Number of units of the hidden layer; 0 = no hidden layer.
        outputs: Number of logits.
        dropout: Probability with which a feature is dropped in training.

    Examples:
        >>> [tuple(p.shape) for p in PermutationHead(cells=8, features=4, hidden=0, outputs=100).parameters()]
        [(100, 32), (100,)]
    """

    def __init__(self, cells: int, features: int, hidden: int, outputs: int, dropout: float = 0.0) -> None:
        joined = cells * features
        layers = (
            [nn.Linear(joined, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, outputs)]
            if hidden
            else [nn.Linear(joined, outputs)]
        )
        super().__init__(nn.Dropout(dropout), *layers)
