"""From files to classes and back: the same values, on the same grid, with little memory."""

from typing import Any

import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import AsDiscreted, Compose, Invertd, RandCropByPosNegLabeld, Spacingd
from pretext3d.data.loading import PlainOrientationd
from pretext3d.errors import UserError
from pretext3d.transforms.labels import (
    ClassToLabeld,
    InvertToClassd,
    LabelToClassd,
    MaskClassesd,
    MaskLogitsd,
    rand_crop_by_class,
)
from torch.utils._python_dispatch import TorchDispatchMode

BRATS = {"values": [0, 1, 2, 4]}
REGIONS = {**BRATS, "regions": {"WT": [1, 2, 4], "TC": [1, 4], "ET": [4]}, "order": [2, 1, 4]}
AFFINE = torch.tensor(
    [[0, -3.0, 0, 40], [2.0, 0, 0, -9], [0, 0, -2.0, 7], [0, 0, 0, 1]], dtype=torch.float64
)  # axes neither in order nor along the patient's


def meta(array: Any, **more: Any) -> MetaTensor:
    return MetaTensor(torch.as_tensor(array), affine=AFFINE, meta={"filename_or_obj": "a.nii.gz", **more})


@pytest.mark.parametrize("labels", [BRATS, {"values": [0, 255]}, {"values": [0, 300, 65535]}])
def test_values_survive_the_round_trip(labels: dict[str, Any]) -> None:
    values = torch.tensor(labels["values"], dtype=torch.float32).repeat(1, 5, 6, 7)[..., :7]
    case = LabelToClassd("label", labels)({"label": meta(values)})
    assert case["label"].dtype == torch.uint8
    assert case["label"].max() == len(labels["values"]) - 1
    assert torch.equal(case["label"].affine, AFFINE)
    back = ClassToLabeld("label", labels)(case)["label"]
    assert torch.equal(back.as_tensor().float(), values)
    assert back.meta["filename_or_obj"] == "a.nii.gz"


def test_unknown_values_name_the_case() -> None:
    with pytest.raises(UserError, match="case a: label values: 3, expected one of 0, 1, 2, 4"):
        LabelToClassd("label", BRATS)({"id": "a", "label": torch.tensor([[[3.0]]])})
    with pytest.raises(UserError, match=r"case a: label values: 0.5, expected integers"):
        LabelToClassd("label", BRATS)({"id": "a", "label": torch.tensor([[[0.5]]])})


def preprocessed(spatial_dims: int) -> tuple[Compose, dict[str, Any]]:
    """A preprocessing that reorients and resamples, and an image to which it was applied."""
    size = (5, 6, 7)[:spatial_dims]
    image = meta(torch.rand(1, *size, generator=torch.Generator().manual_seed(0)))
    transform = Compose(
        [
            PlainOrientationd("image"),
            Spacingd("image", pixdim=[1.5, 2.5, 2.2][:spatial_dims], mode="bilinear"),
        ]
    )
    return transform, transform({"image": image})


@pytest.mark.parametrize("spatial_dims", [3, 2])
def test_classes_in_turn_are_those_of_all_at_once(spatial_dims: int) -> None:
    """The reference: MONAI's Invertd for all channels, then argmax; ties give the first."""
    transform, case = preprocessed(spatial_dims)
    size = case["image"].shape[1:]
    logits = torch.randn(4, *size, generator=torch.Generator().manual_seed(1))
    logits[2] = logits[1]
    reference = Compose(
        [
            Invertd("pred", transform, orig_keys="image", nearest_interp=False, to_tensor=True),
            AsDiscreted("pred", argmax=True),
        ]
    )
    expected = reference({**case, "pred": MetaTensor(logits.clone())})["pred"]
    found = InvertToClassd("pred", transform, "image", BRATS)({**case, "pred": MetaTensor(logits.clone())})[
        "pred"
    ]
    assert found.shape == (1, *(5, 6, 7)[:spatial_dims])
    assert torch.equal(found.as_tensor().long(), expected.as_tensor().long())
    assert set(found.unique().tolist()) == {0, 1, 3}
    assert torch.equal(found.affine, expected.affine)
    assert found.meta["filename_or_obj"] == "a.nii.gz"
    assert not found.applied_operations


class Largest(TorchDispatchMode):
    """The size of the largest tensor that is made, those apart that share the memory of a given one."""

    def __init__(self, given: torch.Tensor) -> None:
        super().__init__()
        self.memory, self.numel = given.untyped_storage().data_ptr(), 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for one in result if isinstance(result, tuple | list) else (result,):
            if isinstance(one, torch.Tensor) and one.untyped_storage().data_ptr() != self.memory:
                self.numel = max(self.numel, one.numel())
        return result


@pytest.mark.parametrize("labels", [{"values": list(range(40))}, REGIONS])
def test_no_tensor_of_all_outputs_is_made(labels: dict[str, Any]) -> None:
    """Coordinates take four numbers per voxel; no tensor grows with the number of outputs."""
    transform, case = preprocessed(3)
    channels = len(labels.get("regions", labels["values"]))
    logits = torch.randn(channels, *case["image"].shape[1:])
    invert = InvertToClassd("pred", transform, "image", labels)
    with Largest(logits) as found:
        invert({**case, "pred": MetaTensor(logits)})
    assert 5 * 6 * 7 <= found.numel <= 4 * max(5 * 6 * 7, logits[0].numel())


def test_regions_are_painted_by_hand() -> None:
    """Without resampling; outputs of WT, TC, ET per voxel, and the value that comes out."""
    transform = Compose([PlainOrientationd("image")])
    case = transform({"image": meta(torch.zeros(1, 1, 1, 5))})
    #        nothing  WT only  WT+TC  all   ET alone: painted last, it is in every region
    columns = [[-1.0, 1.0, 1.0, 1.0, -1.0], [-1.0, -1.0, 1.0, 1.0, -1.0], [-1.0, -1.0, -1.0, 1.0, 1.0]]
    pred = torch.tensor(columns).reshape(3, 1, 1, 5).flip(-1)  # the file's third axis runs against RAS
    case = InvertToClassd("pred", transform, "image", REGIONS)({**case, "pred": MetaTensor(pred)})
    assert case["pred"].flatten().tolist() == [0, 2, 1, 3, 3]
    assert ClassToLabeld("pred", REGIONS)(case)["pred"].flatten().tolist() == [0, 2, 1, 4, 4]


def test_another_number_of_outputs_is_refused() -> None:
    transform, case = preprocessed(3)
    for labels, word in ((BRATS, "4, one per class"), (REGIONS, "3, one per region")):
        with pytest.raises(UserError, match=f"pred: found 2 outputs, expected {word}"):
            InvertToClassd("pred", transform, "image", labels)({**case, "pred": torch.zeros(2, 3, 3, 3)})


def test_masks_of_classes_and_of_regions() -> None:
    classes = meta(torch.tensor([0, 1, 2, 3], dtype=torch.uint8).reshape(1, 2, 2))
    one_hot = MaskClassesd("label", BRATS)({"label": classes})["label"]
    assert torch.equal(one_hot.flatten(1).as_tensor(), torch.eye(4))
    regions = MaskClassesd("label", REGIONS)({"label": classes})["label"].flatten(1)
    assert regions.tolist() == [[0, 1, 1, 1], [0, 1, 0, 1], [0, 0, 0, 1]]
    logits = torch.tensor([[0.5, -1], [2.0, 1], [0.1, 3]]).reshape(3, 1, 2)
    assert MaskLogitsd("pred", REGIONS)({"pred": logits})["pred"].flatten(1).tolist() == [
        [1, 0],
        [1, 1],
        [1, 1],
    ]
    found = MaskLogitsd("pred", {"values": [0, 1, 9]})({"pred": logits})["pred"].flatten(1)
    assert found.tolist() == [[0, 0], [1, 0], [0, 1]]


# ---------------------------------------------------------------------------------------------------- crops
def label_of_a_small_class() -> torch.Tensor:
    """Class 1 in 40 voxels, class 2 in one, class 3 in none, the background in 59."""
    label = torch.zeros(1, 10, 10, dtype=torch.uint8)
    label[0, :4] = 1
    label[0, 8, 8] = 2
    return label


def centres(crops: str, count: int = 300) -> list[int]:
    """Classes in the middle of crops of one voxel: those that were drawn."""
    crop = rand_crop_by_class(["label"], [1, 1], {"values": [0, 1, 2, 7]}, crops)
    crop.set_random_state(0)
    return [int(crop({"label": label_of_a_small_class()})[0]["label"]) for _ in range(count)]


def test_balanced_crops_find_a_small_class_as_often_as_the_others() -> None:
    """Of the three classes of the case each a third: 100 of 300, three standard deviations are 25."""
    found = centres("balanced")
    assert all(75 <= found.count(c) <= 125 for c in (0, 1, 2))
    assert 3 not in found


def test_positive_crops_are_centred_on_foreground_two_times_of_three() -> None:
    """The third is any voxel, of which 41 of 100 are foreground: 0.803, 241 of 300; 3 deviations are 21."""
    found = centres("positive")
    assert 220 <= found.count(1) + found.count(2) <= 262
    assert found.count(2) < 20  # one voxel of 41


def test_positive_crops_are_those_of_monai() -> None:
    ours = rand_crop_by_class(["label"], [3, 3], BRATS, "positive").set_random_state(4)
    theirs = RandCropByPosNegLabeld(["label"], "label", [3, 3], pos=2, neg=1).set_random_state(4)
    for _ in range(5):
        case = {"label": label_of_a_small_class()}
        assert torch.equal(ours(case)[0]["label"], theirs(case)[0]["label"])


def test_balanced_crops_of_regions_go_by_label_value() -> None:
    """ET is in three of the three regions, and yet one of the four values."""
    crop = rand_crop_by_class(["label"], [1, 1], REGIONS, "balanced").set_random_state(0)
    label = torch.tensor([0, 1, 2, 3], dtype=torch.uint8).reshape(1, 2, 2)
    found = [int(crop({"label": label})[0]["label"]) for _ in range(400)]
    assert all(74 <= found.count(c) <= 126 for c in range(4))  # 100 each, three standard deviations are 26


def test_another_way_of_cropping_is_refused() -> None:
    with pytest.raises(UserError, match="crops: found 'some', expected one of positive, balanced"):
        rand_crop_by_class(["label"], [3, 3], BRATS, "some")
