"""Volumes of shapes: a function of the generator; classes; sizes; written and read back; bad input."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from monai.data import DataLoader
from pretext3d.data.dataset import EpochSampler
from pretext3d.data.generated import GeneratedItems
from pretext3d.errors import UserError
from pretext3d.methods.avsdb.rendering import RENDERINGS
from pretext3d.methods.avsdb.volumes import ShapeVolumes
from pretext3d.training.session import profile_settings

SIZE = (32, 40, 24)
PLANE = {"roi_size": (96, 96), "spatial_dims": 2}


def item(seed: int = 0, size: tuple[int, ...] = SIZE, **keys: object) -> dict:
    dims = len(size)
    return ShapeVolumes(size, spatial_dims=dims, **keys)(np.random.default_rng(seed), 0)  # type: ignore[arg-type]


@pytest.mark.parametrize("render", RENDERINGS)
@pytest.mark.parametrize("size", [SIZE, (48, 32)])
def test_an_item_is_a_function_of_its_generator(size: tuple[int, ...], render: str) -> None:
    first, again, other = (item(seed, size, render=render) for seed in (1, 1, 2))
    assert first["image"].shape == first["label"].shape == (1, *size)
    assert first["image"].dtype == torch.float32
    assert first["label"].dtype == torch.uint8
    assert 0 <= first["image"].min() <= first["image"].max() <= 1
    for key in ("image", "label"):
        assert torch.equal(first[key], again[key])
        assert not torch.equal(first[key], other[key])
    assert first["dropped"] == again["dropped"]
    assert first["image"].isfinite().all()


@pytest.mark.parametrize("render", RENDERINGS)
def test_volumes_rendered_together_are_those_rendered_alone(render: str) -> None:
    generate = ShapeVolumes(SIZE, z_classes=4, num_shapes=[1, 12], render=render)
    drawn = [generate.draw(np.random.default_rng(seed)) for seed in range(5)]
    assert len({len(volume.shapes) for volume in drawn}) > 1
    for seed, together in enumerate(generate.render(drawn)):
        alone = generate(np.random.default_rng(seed), seed)
        assert torch.equal(together["label"], alone["label"])
        torch.testing.assert_close(together["image"], alone["image"])
        assert together["dropped"] == alone["dropped"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("render", RENDERINGS)
def test_a_gpu_gives_what_the_cpu_gives(render: str) -> None:
    """Labels differ at most where a voxel is on a boundary to float64 rounding; images by float32's."""
    generate = ShapeVolumes((96, 96, 96), z_classes=4, render=render)
    drawn = [generate.draw(np.random.default_rng(seed)) for seed in range(4)]
    for here, there in zip(generate.render(drawn), generate.render(drawn, "cuda"), strict=True):
        assert there["image"].device.type == there["label"].device.type == "cuda"
        assert int((here["label"] != there["label"].cpu()).sum()) <= 2
        close = (here["image"] - there["image"].cpu()).abs() < 1e-4
        assert float((~close).float().mean()) < 1e-5


def test_two_workers_and_a_resumed_run_see_the_same_items_none_of_them_twice() -> None:
    data = GeneratedItems(ShapeVolumes((16, 16, 16), num_shapes=[1, 3]), num_items=4, seed=5)
    sampler = EpochSampler(data, num_samples=4, seed=5)

    def epoch(number: int, num_workers: int) -> torch.Tensor:
        sampler.set_epoch(number)
        loader = DataLoader(data, batch_size=2, sampler=sampler, num_workers=num_workers)
        return torch.cat([batch["label"] for batch in loader])

    alone = [epoch(number, 0) for number in range(3)]
    shared = [epoch(number, 2) for number in range(3)]
    assert all(torch.equal(a, b) for a, b in zip(alone, shared, strict=True))
    assert torch.equal(epoch(2, 0), alone[2])  # a run that is resumed there
    assert len(torch.unique(torch.cat(alone).flatten(1), dim=0)) == 12


def test_classes_are_balanced_over_a_thousand_volumes() -> None:
    """Of 20,000 shapes, 16 classes have 1,250 each; standard deviation sqrt(20,000 / 16 * 15 / 16) = 34.2."""
    generate = ShapeVolumes(SIZE, num_shapes=20)
    counts = np.zeros(16, dtype=int)
    for seed in range(1000):
        shapes = generate.draw(np.random.default_rng(seed)).shapes
        counts += np.bincount(2 * shapes.section + shapes.rule, minlength=16)
    assert counts.sum() == 20_000
    assert np.abs(counts - 1250).max() < 4.5 * 34.2


def test_placement_keeps_the_balance_of_classes() -> None:
    """Cones are smaller than prisms of the same size and so lie above them; both have to be placed."""
    generate = ShapeVolumes((24, 24, 24), xy_classes=2, z_classes=4, num_shapes=10)
    seen = np.zeros(9, dtype=int)
    for seed in range(100):
        sample = generate(np.random.default_rng(seed), seed)
        seen[sample["label"].unique().numpy()] += 1
    assert seen[0] == 100
    # ten shapes of eight classes: 1 - (7/8)^10 = 74 % of the volumes have a class, less where it is hidden
    assert ((seen[1:] > 50) & (seen[1:] < 92)).all()


def test_labels_are_the_classes_of_their_names() -> None:
    for number, (section, rule) in enumerate(
        [("ellipse", "prism"), ("ellipse", "cone"), ("nonagon", "cone")]
    ):
        one = ShapeVolumes((48, 48, 48), xy_classes=[section], z_classes=[rule], num_shapes=1)
        assert one.class_names == ["background", f"{section} {rule}"]
        areas = (one(np.random.default_rng(number), 0)["label"][0] > 0).sum((0, 1))
        present = areas[areas > 0]
        assert bool((present == present[0]).all()) == (rule == "prism")
    every = ShapeVolumes((24, 24, 24), z_classes=2)
    volume = every.draw(np.random.default_rng(0))
    expected = {1 + 2 * s + r for s, r in zip(volume.shapes.section, volume.shapes.rule, strict=True)}
    assert set(every.render([volume])[0]["label"].unique().tolist()) - {0} <= expected


def test_shapes_scale_with_the_volume_axis_by_axis() -> None:
    """The same draw in a volume of twice the size along one axis covers twice the voxels, up to its shell."""
    small, large = item(size=(48, 48, 48), num_shapes=3), item(size=(48, 48, 96), num_shapes=3)
    ratio = float((large["label"] > 0).sum() / (small["label"] > 0).sum())
    assert ratio == pytest.approx(2, rel=0.1)


def test_images_have_the_cross_sections_alone() -> None:
    generate = ShapeVolumes((64, 48), spatial_dims=2, xy_classes=3)
    assert generate.class_names == ["background", "ellipse", "triangle", "quadrilateral"]
    sample = generate(np.random.default_rng(0), 0)
    assert sample["label"].shape == (1, 64, 48)
    assert set(sample["label"].unique().tolist()) <= {0, 1, 2, 3}


def test_an_image_s_larger_areas_lie_under_smaller_ones() -> None:
    """The height, which an image has not, has no say in the order."""
    generate = ShapeVolumes((96, 96), spatial_dims=2, num_shapes=12, max_overlap=1.0)
    volume = generate.draw(np.random.default_rng(0))
    areas = volume.shapes.area
    assert not np.array_equal(np.argsort(-areas), np.argsort(-volume.shapes.volume))
    placed = generate.placements([volume])[0].placed
    assert len(placed) == 12
    assert (np.diff(areas[placed]) <= 0).all()


@pytest.mark.parametrize("profile", ["paper", "laptop", "laptop_transformer"])
@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_profiles_drop_few_of_their_shapes(profile: str, spatial_dims: int) -> None:
    """A plane is full sooner than a volume: at most one shape of twenty finds no position."""
    path = Path(__file__).parents[2] / "bundles" / "avsdb" / "configs" / "train.yaml"
    settings = profile_settings(profile, yaml.safe_load(path.read_text())["profiles"], spatial_dims)
    keys = {key: settings[key] for key in ("roi_size", "xy_classes", "z_classes", "num_shapes", "sizes")}
    generate = ShapeVolumes(spatial_dims=spatial_dims, **keys)
    drawn = [generate.draw(np.random.default_rng(seed)) for seed in range(5)]
    placed = [len(found.placed) for found in generate.placements(drawn)]
    assert sum(placed) >= 0.95 * sum(len(volume.shapes) for volume in drawn)


def test_a_set_on_disk_is_the_one_generated(tmp_path: Path) -> None:
    data = GeneratedItems(ShapeVolumes(SIZE, render="textured"), num_items=3, seed=1)
    for key in range(3):
        for name in ("image", "label"):
            nib.save(
                nib.Nifti1Image(np.asarray(data[key][name][0]), np.diag([1, 1, 2.5, 1])),
                tmp_path / f"{name}_{key}.nii.gz",
            )
    for key in (2, 0, 1):
        for name in ("image", "label"):
            read = np.asarray(nib.load(tmp_path / f"{name}_{key}.nii.gz").dataobj)
            np.testing.assert_array_equal(read, np.asarray(data[key][name][0]))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"roi_size": (96, 96)}, r"roi_size: found .*96, 96.*, expected one or three integers"),
        (
            {"roi_size": (4, 96, 96)},
            r"roi_size: found \[4, 96, 96\], in which no shape fits: .*\[5, 5, 8\] or",
        ),
        ({"roi_size": (8, 8, 7)}, r"roi_size: found \[8, 8, 7\], in which no shape fits"),
        ({"spatial_dims": 4}, "spatial_dims: found 4"),
        ({"xy_classes": 0}, "xy_classes: found 0"),
        ({"z_classes": []}, r"z_classes: found \[\]"),
        ({"xy_classes": 80, "z_classes": 4}, "xy_classes: found 80 .* 320 classes; expected at most 255"),
        ({**PLANE, "z_classes": 4}, "z_classes: found 4, expected none: images .spatial_dims 2. have no"),
        ({**PLANE, "sizes": {"height": [10, 50]}}, r"sizes::height: found \[10, 50\], expected none"),
        ({**PLANE, "sizes": {"z_margin": 3}}, "sizes::z_margin: found 3, expected none"),
        ({"num_shapes": 0}, "num_shapes: found 0, expected an integer from 1 to 16383, or two"),
        ({"num_shapes": 16384}, "num_shapes: found 16384"),
        ({"num_shapes": [3, 1]}, r"num_shapes: found \[3, 1\]"),
        ({"num_shapes": [1.5, 3]}, r"num_shapes: found \[1.5, 3\]"),
        ({"max_overlap": 0}, r"max_overlap: found 0, expected a number in \(0, 1\], or null"),
        ({"max_overlap": 1.1}, "max_overlap: found 1.1"),
        ({"tries": 0}, "tries: found 0, expected an integer of 1 or more"),
        ({"sizes": 5}, r"sizes: found 5, expected entries by name, as \{box: \[30, 60\]\}"),
        ({"sizes": {1: 2, "a": 3}}, "sizes: found .*, expected entries by name"),
        ({"changes": "noise"}, r"rendering: found 'noise', expected entries by name, as \{noise: "),
        ({"tries": 10**12}, "tries: found 1000000000000, expected at most 10000"),
        ({"num_shapes": 16383, "tries": 10000}, "tries: found 10000, expected at most 122 with 16383 shapes"),
        ({"tries": [3, 3]}, r"tries: found \[3, 3\], expected an integer of 1 or more"),
        ({"sizes": {"box": [30, 100]}}, r"sizes::box: found \[30, 100\], a box larger than the volume"),
        ({"sizes": {"boxes": 3}}, "sizes: found 'boxes', expected any of box, height, min_radius, z_margin"),
        ({"render": "solid"}, "render: found 'solid', expected one of outline, filled, textured"),
        ({"changes": {"noises": 1}}, "rendering: found 'noises', .*; did you mean noise?"),
    ],
)
def test_bad_input_is_one_clear_message(keys: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        ShapeVolumes(**{"roi_size": (96, 96, 96), **keys})
