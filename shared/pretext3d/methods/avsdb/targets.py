"""The two targets of one training: the shapes of AVS-DB, and V-PCF, its comparator in Table 4.

`shapes` segments what `ShapeVolumes` generates, `vpcf` classifies what `FractalVolumes` generates. What they
do not share, generator, network, loss, metrics and picture, is chosen here by the target's name.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ignite.metrics import Metric
from torch import nn

from pretext3d.annotations import Tensor
from pretext3d.checking import brief, one_of
from pretext3d.errors import UserError
from pretext3d.methods.avsdb import figure, fractals_figure, pretext
from pretext3d.methods.avsdb.fractals import FractalNet, fractal_metrics
from pretext3d.methods.avsdb.pretext import ShapeLoss
from pretext3d.networks.backbone import Backbone
from pretext3d.networks.segmentation import SegmentationNet
from pretext3d.training.classes import ClassLoss

__all__ = ["TARGETS", "build_loss", "build_network", "choose_generator", "draw", "validation_metrics"]


class Target(NamedTuple):
    """What one target alone has.

    `generator`: name of its generator in the configuration. `network`: function of a backbone and a number
    of classes. `loss`: function of the flag `cross_entropy`. `metrics`: function of the names of the classes
    and the flag `class_dice`. `draw`: its picture.
    """

    generator: str
    network: Callable[[Backbone, int], nn.Module]
    loss: Callable[[Any], nn.Module]
    metrics: Callable[[Sequence[str], Any], dict[str, Metric]]
    draw: Callable[..., Any]


TARGETS = {
    "shapes": Target("shapes", SegmentationNet, ShapeLoss, pretext.validation_metrics, figure.draw),
    "vpcf": Target(
        "fractals",
        FractalNet,
        lambda _: ClassLoss("fractal"),
        lambda *_: fractal_metrics(),
        fractals_figure.draw,
    ),
}


def chosen(target: str) -> Target:
    """The target of a name.

    Raises:
        UserError: for another name.
    """
    return TARGETS[one_of("target", target, TARGETS)]


def choose_generator(target: str, dataset_dir: Any = None, **generators: Callable[[], Any]) -> Any:
    """The generator of a target, built; that of the other target is not.

    Args:
        target: Name of the target.
        dataset_dir: None or '', as no folder is read.
        generators: Functions that build `shapes` and `fractals`.

    Raises:
        UserError: for another target, a folder, or invalid arguments of the target's generator.

    Examples:
        >>> choose_generator("vpcf", shapes=lambda: 1 / 0, fractals=lambda: "fractals")
        'fractals'
    """
    if dataset_dir:
        raise UserError(
            f"dataset_dir: found {brief(dataset_dir)}, expected none: the pre-training generates its volumes "
            "and reads no folder; give it to finetune.yaml"
        )
    return generators[chosen(target).generator]()


def build_network(target: str, backbone: Backbone, num_classes: int) -> nn.Module:
    """The network of a target: a segmentation of shapes, or a classification of fractals.

    Args:
        target: Name of the target.
        backbone: Backbone, which fine-tuning takes over.
        num_classes: Number of classes, of shapes with the background.
    """
    return chosen(target).network(backbone, num_classes)


def build_loss(target: str, cross_entropy: Any = False) -> nn.Module:
    """The loss of a target: soft Dice of shapes, or cross-entropy of fractals.

    Args:
        target: Name of the target.
        cross_entropy: Whether the loss of shapes has the cross-entropy, too.
    """
    return chosen(target).loss(cross_entropy)


def validation_metrics(target: str, class_names: Sequence[str], per_class: Any = False) -> dict[str, Metric]:
    """The metrics of a target's validation, by name.

    Args:
        target: Name of the target.
        class_names: Names of its classes.
        per_class: Whether there is the Dice of each class of shapes, too.

    Examples:
        >>> list(validation_metrics("vpcf", ["fractal 0", "fractal 1"]))
        ['fractal_accuracy', 'chance']
    """
    return chosen(target).metrics(class_names, per_class)


def draw(
    volume: Mapping[str, Any],
    sample: Mapping[str, Any],
    pred: Tensor | None = None,
    title: str = "",
    *,
    target: str,
    class_names: Sequence[str],
) -> Any:
    """The picture of a target, see its module."""
    return chosen(target).draw(volume, sample, pred, title, class_names=class_names)
