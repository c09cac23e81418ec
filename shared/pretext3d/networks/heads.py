"""Heads that several pretext tasks put on an encoder."""

from torch import nn

__all__ = ["PermutationHead"]


class PermutationHead(nn.Sequential):
    """Logits from the concatenated features of all cells: dropout, a hidden layer, ReLU, a linear layer.

    Takes (b, cells * features) and returns (b, outputs): the K permutations of Rubik's cube and jigsaw.

    Args:
        cells: Number m of cells.
        features: Number of features per cell.
        hidden: Number of units of the hidden layer.
        outputs: Number of logits.
        dropout: Probability with which a feature is dropped in training.
    """

    def __init__(self, cells: int, features: int, hidden: int, outputs: int, dropout: float = 0.0) -> None:
        super().__init__(
            nn.Dropout(dropout),
            nn.Linear(cells * features, hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, outputs),
        )
