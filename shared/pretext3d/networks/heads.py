"""Features of patches, and heads that several pretext tasks put on an encoder."""

from collections.abc import Sequence
from typing import Any

from monai.networks.layers.factories import Pool
from torch import nn

from pretext3d.annotations import Float, Tensor
from pretext3d.checking import integer, number
from pretext3d.errors import UserError
from pretext3d.networks.backbone import Backbone, channels_last

__all__ = ["FullyConnectedHead", "PatchFeatures", "PermutationHead"]


class PatchFeatures(nn.Module):
    """The features of any number of patches: their coarsest maps, average-pooled, all encoded in one call.

    It has no parameters. The backbone, which is trained without its decoder, stays a submodule of the network
    that uses it, and is passed to `forward`.

    Args:
        backbone: Network with `encode`.
        pool_size: Edge of the pooled map; with 2 or more, features say where in the patch something is.

    Attributes:
        features: Length of a patch's feature vector: channels of the coarsest map * pool_size^d.

    Raises:
        UserError: pool_size is not an integer of 1 or more, or larger than the coarsest map.
    """

    def __init__(self, backbone: Backbone, pool_size: int = 1) -> None:
        super().__init__()
        integer("pool_size", pool_size, minimum=1)
        if backbone.record:
            coarsest = backbone.map_sizes(backbone.record["roi_size"])[-1]
            if pool_size > min(coarsest):
                raise UserError(
                    f"pool_size: found {pool_size}, expected at most {min(coarsest)}: the coarsest map of "
                    f"roi_size {backbone.record['roi_size']} is {list(coarsest)}"
                )
        backbone.train_encoder_only()
        self.pool = Pool[Pool.ADAPTIVEAVG, backbone.spatial_dims](pool_size)
        self.features = backbone.feature_channels[-1] * pool_size**backbone.spatial_dims

    def forward(
        self, backbone: Backbone, patches: Float[Tensor, "b m c *space"]
    ) -> Float[Tensor, "b m features"]:
        """One vector per patch."""
        batch, count = patches.shape[:2]
        flat = patches.flatten(0, 1).to(memory_format=channels_last(patches.ndim - 3))
        return self.pool(backbone.encode_coarsest(flat)).reshape(batch, count, self.features)


class FullyConnectedHead(nn.Sequential):
    """Fully connected layers to the logits; after each hidden one batch norm, ReLU and dropout.

    Takes (b, inputs) and returns (b, outputs). Source: Taleb et al., NeurIPS 2020: hidden layers of 2048 and
    1024 units, batch norm, dropout 0.5; their order within a layer is ours.

    Args:
        inputs: Number of features.
        outputs: Number of logits, or of dimensions of an embedding.
        hidden: Units of each hidden layer; [] = one linear layer.
        batch_norm: Whether hidden layers have batch norm.
        dropout: Probability with which a hidden unit is dropped in training.

    Raises:
        UserError: `head_units` is not a list of integers of 1 or more, `head_dropout` not in [0, 1); when
            called in training, one row, of which batch norm has no statistics.

    Examples:
        >>> [type(layer).__name__ for layer in FullyConnectedHead(8, 3, hidden=[4])]
        ['Linear', 'BatchNorm1d', 'ReLU', 'Dropout', 'Linear']
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        hidden: Any = (2048, 1024),
        batch_norm: bool = True,
        dropout: float = 0.5,
    ) -> None:
        if not isinstance(hidden, Sequence) or isinstance(hidden, str):
            raise UserError(f"head_units: found {hidden!r}, expected a list of integers, e.g. [2048, 1024]")
        number("head_dropout", dropout, 0, 1, high_open=True)
        layers: list[nn.Module] = []
        width = inputs
        for units in hidden:
            integer("head_units", units, minimum=1)
            layers.append(nn.Linear(width, units, bias=not batch_norm))  # batch norm has a bias of its own
            layers += [nn.BatchNorm1d(units)] if batch_norm else []
            layers += [nn.ReLU(inplace=True), nn.Dropout(dropout)]
            width = units
        super().__init__(*layers, nn.Linear(width, outputs))
        self.rows = 2 if batch_norm and layers else 1  # needed in training

    def forward(self, input: Float[Tensor, "b inputs"]) -> Float[Tensor, "b outputs"]:  # noqa: A002
        """The logits of each row."""
        if self.training and len(input) < self.rows:
            raise UserError(
                f"batch_size: found a batch of {len(input)} for the head, expected {self.rows} or more: its "
                "batch norm needs statistics (with steps_per_epoch null an epoch's last batch may be small)"
            )
        output: Tensor = super().forward(input)
        return output


class PermutationHead(nn.Sequential):
    """Logits from the concatenated features of all cells: dropout, then one or two fully connected layers.

    Takes (b, cells * features) and returns (b, outputs): the K permutations of Rubik's cube. With
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
