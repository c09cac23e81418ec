"""The choice of what two targets do not share: one is built, the other one is not."""

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from pretext3d.errors import UserError
from pretext3d.methods.avsdb import targets
from pretext3d.methods.avsdb.fractals import FractalNet, FractalVolumes
from pretext3d.methods.avsdb.targets import (
    build_loss,
    build_network,
    choose_generator,
    draw,
    validation_metrics,
)
from pretext3d.methods.avsdb.volumes import ShapeVolumes
from pretext3d.networks.factory import build_backbone
from pretext3d.networks.segmentation import SegmentationNet

SIZE = (24, 24, 16)
MAKE = {
    "shapes": lambda: ShapeVolumes(SIZE, xy_classes=2, z_classes=1, num_shapes=2),
    "fractals": lambda: FractalVolumes(SIZE, num_classes=3, num_points=200),
}


@pytest.mark.parametrize(("target", "network"), [("shapes", SegmentationNet), ("vpcf", FractalNet)])
def test_a_sample_goes_through_network_loss_metrics_and_picture(target, network):
    generate = choose_generator(target, **MAKE)
    sample = generate(np.random.default_rng(0), 0)
    net = build_network(target, build_backbone("unet", 1, SIZE), len(generate.class_names))
    assert type(net) is network
    batch = {key: torch.as_tensor(value)[None] for key, value in sample.items()}
    pred = net(batch["image"])
    assert build_loss(target)(pred, batch).isfinite()
    evaluator = Engine(lambda _, label: {"pred": pred.detach(), "label": label})
    for name, metric in validation_metrics(target, generate.class_names).items():
        metric.attach(evaluator, name)
    for value in evaluator.run([batch]).metrics.values():
        assert 0 <= value <= 1 or np.isnan(value)
    figure = draw({"id": "item 0"}, sample, pred[0], target=target, class_names=generate.class_names)
    assert figure.texts[0].get_text() == "item 0"


def test_the_other_generator_is_not_built():
    """Its arguments may be invalid: a volume too small for shapes is large enough for fractals."""

    def fails():
        raise AssertionError

    assert isinstance(choose_generator("vpcf", shapes=fails, fractals=MAKE["fractals"]), FractalVolumes)
    assert isinstance(choose_generator("shapes", shapes=MAKE["shapes"], fractals=fails), ShapeVolumes)


@pytest.mark.parametrize(
    "call",
    [
        lambda target: choose_generator(target, **MAKE),
        lambda target: build_network(target, build_backbone("unet", 1, SIZE), 3),
        build_loss,
        lambda target: validation_metrics(target, ["background", "ellipse"]),
        lambda target: draw({}, {}, target=target, class_names=[]),
    ],
)
def test_another_target_is_named(call):
    with pytest.raises(UserError, match="target: found 'fractals', expected one of shapes, vpcf"):
        call("fractals")
    assert list(targets.TARGETS) == ["shapes", "vpcf"]
