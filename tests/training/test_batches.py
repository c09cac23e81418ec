import pytest
import torch
from pretext3d.training.batches import PrepareTargets

META = torch.device("meta")  # a device that every machine has


def batch() -> dict:
    return {
        "image": torch.zeros(2, 1, 4, 4, 4),
        "clean": torch.ones(2, 1, 4, 4, 4),
        "vectors": torch.ones(2, 9, 3),
        "id": ["a", "b"],
    }


def test_image_and_targets() -> None:
    given = batch()
    image, targets = PrepareTargets(["clean", "vectors"])(given, torch.device("cpu"))
    assert image is given["image"]
    assert list(targets) == ["clean", "vectors"]
    assert all(targets[key] is given[key] for key in targets)


def test_everything_goes_to_the_device_and_the_batch_stays() -> None:
    given = batch()
    image, targets = PrepareTargets(["vectors"], image_key="clean")(
        given, META, non_blocking=True, dtype=torch.float16
    )
    for tensor in (image, targets["vectors"]):
        assert (tensor.device, tensor.dtype) == (META, torch.float16)
    assert image.shape == given["clean"].shape
    assert given["vectors"].device.type == "cpu"


def test_missing_target_is_named() -> None:
    with pytest.raises(KeyError, match="boundary"):
        PrepareTargets(["boundary"])(batch(), torch.device("cpu"))


def test_further_inputs_are_arguments_of_their_names() -> None:
    """MONAI's trainer calls network(image, *args, **kwargs) for (image, targets, args, kwargs)."""
    given = batch()
    image, targets, args, kwargs = PrepareTargets(["clean"], input_keys=["vectors"])(given, META)
    assert image.device == targets["clean"].device == kwargs["vectors"].device == META
    assert (list(targets), args, list(kwargs)) == (["clean"], (), ["vectors"])
    assert kwargs["vectors"].shape == given["vectors"].shape
