"""The pretext task of AVS-DB: segment every shape, and recognise its class.

Tadokoro R, Yamada R, Kataoka H. Pre-training Auto-generated Volumetric Shapes for 3D Medical Image
Segmentation. CVPRW 2023, section 3.1. The network is any backbone with a layer of one output per class
(`SegmentationNet`), so that a fine-tuning takes over encoder and decoder, and only the last layer is new.

In the paper's order: the Dice loss, then the measures of a validation, all from one confusion matrix.

Deviates: as an option, cross-entropy is added to the loss. Dice of a class is over the batch, not over each
volume, most of whose classes are absent where there are more classes than shapes.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ignite.distributed as idist
import torch
from ignite.metrics import Metric, MetricsLambda
from ignite.metrics.metric import reinit__is_reduced
from monai.losses import DiceCELoss, DiceLoss
from torch import nn

from pretext3d.annotations import Float, Int, Shaped, Tensor
from pretext3d.checking import boolean
from pretext3d.training.metrics import SampleMean, pred_and_label

__all__ = ["ConfusionMetric", "ShapeLoss", "confusion_matrix", "validation_metrics"]


# -------------------------------------------------------------------------------------- 3.1 the Dice loss
class ShapeLoss(nn.Module):
    """Mean over the classes, background included, of 1 - the soft Dice of the batch.

    Args:
        cross_entropy: Add the cross-entropy, the mean over voxels.

    Raises:
        UserError: a flag that is neither True nor False.
    """

    def __init__(self, cross_entropy: Any = False) -> None:
        super().__init__()
        kind = DiceCELoss if boolean("cross_entropy", cross_entropy) else DiceLoss
        self.loss = kind(softmax=True, to_onehot_y=True, batch=True)

    def forward(
        self, logits: Float[Tensor, "b classes *space"], target: Mapping[str, Tensor]
    ) -> Float[Tensor, ""]:
        """The loss of a batch.

        Args:
            logits: Outputs of the network.
            target: `label` (b, 1, *space), the class of each voxel.
        """
        return torch.as_tensor(self.loss(logits.float(), target["label"]))


# --------------------------------------------------------------------------------------------- the measures
def confusion_matrix(
    logits: Float[Tensor, "b classes *space"], label: Shaped[Tensor, "b 1 *space"]
) -> Int[Tensor, "classes classes"]:
    """Voxels of each class (row) that were given each class (column).

    Examples:
        >>> logits = torch.tensor([[[[2.0, 0.0, 0.0]], [[0.0, 1.0, 1.0]]]])
        >>> confusion_matrix(logits, torch.tensor([[[[0, 1, 0]]]]))
        tensor([[1, 1],
                [0, 1]])
    """
    classes = logits.shape[1]
    pairs = label[:, 0].long() * classes + logits.argmax(1)
    return torch.bincount(pairs.flatten(), minlength=classes**2).view(classes, classes)


def dice_of_classes(matrix: Tensor) -> Float[Tensor, "classes"]:
    """Dice of each class; NaN of one that neither occurs nor was predicted.

    Examples:
        >>> dice_of_classes(torch.tensor([[1, 1], [0, 1]]))
        tensor([0.6667, 0.6667], dtype=torch.float64)
    """
    counts = matrix.double()
    return 2 * counts.diag() / (counts.sum(0) + counts.sum(1))


def foreground_dice(matrix: Tensor) -> float:
    """Dice of all shapes together against the background, whatever their class."""
    merged = matrix.new_zeros(2, 2)
    merged[0, 0], merged[0, 1] = matrix[0, 0], matrix[0, 1:].sum()
    merged[1, 0], merged[1, 1] = matrix[1:, 0].sum(), matrix[1:, 1:].sum()
    return float(dice_of_classes(merged)[1])


def mean_class_dice(matrix: Tensor) -> float:
    """Mean of the Dice of the classes of shapes."""
    return float(dice_of_classes(matrix)[1:].nanmean())


def class_accuracy(matrix: Tensor) -> float:
    """Fraction, of the voxels of shapes that were found, that have the right class."""
    shapes = matrix[1:, 1:].double()
    return float(shapes.diag().sum() / shapes.sum())


def most_frequent_class(matrix: Tensor) -> float:
    """`class_accuracy` of the answer that does not look: the most frequent class for all that was found."""
    shapes = matrix[1:, 1:].double().sum(1)
    return float(shapes.max() / shapes.sum())


class ConfusionMetric(Metric):
    """The confusion matrix of all voxels of a validation, over all processes.

    `validation_metrics` takes every number from one of these: a batch is counted once.

    Args:
        classes: Number of classes, background included.
    """

    _state_dict_all_req_keys = ("matrix",)

    def __init__(self, classes: int) -> None:
        self.classes = classes
        super().__init__(output_transform=pred_and_label)

    @reinit__is_reduced
    def reset(self) -> None:
        """Discard all voxels."""
        self.matrix = torch.zeros(self.classes, self.classes, dtype=torch.int64)
        self.total: Tensor | None = None

    @reinit__is_reduced
    def update(self, output: tuple[Tensor, Mapping[str, Tensor]]) -> None:
        """Add the voxels of one batch.

        Args:
            output: Logits, and the target with the classes at its key `label`.
        """
        self.matrix += confusion_matrix(output[0], output[1]["label"]).cpu()
        self.total = None

    def compute(self) -> Int[Tensor, "classes classes"]:
        """The matrix; that of all processes is added up for the first number that is taken from it."""
        if self.total is None:
            self.total = idist.all_reduce(self.matrix.clone())
        return self.total


class ClassDice:
    """Dice of one class, as a function of the confusion matrix.

    Args:
        number: The class.
    """

    def __init__(self, number: int) -> None:
        self.number = number

    def __call__(self, matrix: Tensor) -> float:
        """Its Dice."""
        return float(dice_of_classes(matrix)[self.number])


def validation_metrics(class_names: Sequence[str], per_class: Any = False) -> dict[str, Metric]:
    """The metrics of a validation, by name, 0 to 1: of all voxels of all held-out volumes.

    The last one, `dropped`, is the mean number of shapes of a volume that found no position.

    Args:
        class_names: Names of the classes, background first.
        per_class: Whether there is the Dice of each class, too.

    Examples:
        >>> list(validation_metrics(["background", "ellipse prism"], per_class=True))[3:]
        ['most_frequent_class', 'dice_ellipse_prism', 'dropped']
    """
    measures: dict[str, Callable[[Tensor], float]] = {
        "foreground_dice": foreground_dice,
        "class_dice": mean_class_dice,
        "class_accuracy": class_accuracy,
        "most_frequent_class": most_frequent_class,
    }
    own = enumerate(class_names[1:], start=1) if boolean("class_dice", per_class) else ()
    for number, name in own:
        measures[f"dice_{name.replace(' ', '_')}"] = ClassDice(number)
    matrix = ConfusionMetric(len(class_names))
    metrics: dict[str, Metric] = {name: MetricsLambda(measure, matrix) for name, measure in measures.items()}
    return metrics | {"dropped": SampleMean(dropped_shapes)}


def dropped_shapes(output: Mapping[str, Any]) -> Float[Tensor, "b"]:
    """How many shapes of each volume found no position, from an evaluator's output."""
    return torch.as_tensor(output["label"]["dropped"]).float()
