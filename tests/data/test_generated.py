"""Generated items: the same key gives the same item, whoever asks; no key comes twice; resume is exact."""

from typing import Any

import numpy as np
import pytest
import torch
from monai.data import DataLoader
from monai.transforms import Compose, Lambdad, RandShiftIntensityd
from pretext3d.data.dataset import EpochSampler
from pretext3d.data.generated import GeneratedItems, items_per_epoch
from pretext3d.errors import UserError

ITEMS, EPOCHS = 5, 3


def noise(rng: np.random.Generator, key: int) -> dict[str, Any]:
    return {"image": rng.standard_normal((1, 2, 3, 4), dtype=np.float32), "key": key}


def shifting() -> Compose:
    return Compose([RandShiftIntensityd("image", offsets=1.0, prob=1.0)])


def items(num_items: int = ITEMS, **settings: Any) -> GeneratedItems:
    return GeneratedItems(noise, num_items, **{"transform": shifting(), "seed": 3, **settings})


def same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    return bool((torch.as_tensor(first["image"]) == torch.as_tensor(second["image"])).all())


def epochs_of(
    first: int = 0, num_workers: int = 0, num_samples: int = 2 * ITEMS
) -> list[tuple[list[int], torch.Tensor]]:
    """(keys, images) of each epoch from `first` on, as a run resumed there sees them."""
    data = items()
    sampler = EpochSampler(data, num_samples=num_samples, seed=1)
    loader = DataLoader(data, batch_size=2, sampler=sampler, num_workers=num_workers)
    found = []
    for epoch in range(first, EPOCHS):
        sampler.set_epoch(epoch)
        batches = list(loader)
        keys = torch.cat([batch["key"] for batch in batches]).tolist()
        found.append((keys, torch.cat([torch.as_tensor(batch["image"]) for batch in batches])))
    return found


def test_an_item_is_a_function_of_seed_and_key() -> None:
    first, again, other = items(), items(), items(seed=4)
    forwards = [first[key] for key in (0, 7, 1_000_000_000_000)]
    backwards = [again[key] for key in (1_000_000_000_000, 7, 0)]
    assert all(same(a, b) for a, b in zip(forwards, reversed(backwards), strict=True))
    assert not same(first[0], other[0])
    assert not same(first[0], first[ITEMS])
    assert [sample["key"] for sample in forwards] == [0, 7, 1_000_000_000_000]


def test_a_larger_set_begins_with_a_smaller_one() -> None:
    small, large = items(ITEMS), items(10 * ITEMS)
    assert (len(small), small.num_cases, len(large)) == (ITEMS, ITEMS, 10 * ITEMS)
    assert all(same(small[key], large[key]) for key in range(3 * ITEMS))


def test_transforms_draw_apart_from_the_generator() -> None:
    """The same image with a shift as without any."""
    plain, shifted = items(transform=None), items()
    for key in range(3):
        difference = torch.as_tensor(shifted[key]["image"]) - torch.as_tensor(plain[key]["image"])
        torch.testing.assert_close(difference, difference.mean().expand_as(difference), atol=1e-6, rtol=0)
        assert abs(float(difference.mean())) > 1e-3
    assert plain[0]["image"].dtype == np.float32


def test_two_workers_give_what_none_gives() -> None:
    for (keys, images), (others, pictures) in zip(epochs_of(), epochs_of(num_workers=2), strict=True):
        assert keys == others
        assert torch.equal(images, pictures)


@pytest.mark.parametrize("num_samples", [3, ITEMS, 2 * ITEMS + 1])
def test_no_key_comes_twice(num_samples: int) -> None:
    """In no epoch and no worker; nor does an image, as all are different."""
    found = epochs_of(num_workers=2, num_samples=num_samples)
    keys = [key for epoch, _ in found for key in epoch]
    assert len(set(keys)) == len(keys) == EPOCHS * num_samples
    images = torch.cat([images for _, images in found]).flatten(1)
    assert len(torch.unique(images, dim=0)) == EPOCHS * num_samples


def test_a_resumed_run_goes_on_with_the_same_items() -> None:
    for (keys, images), (others, pictures) in zip(epochs_of()[1:], epochs_of(first=1), strict=True):
        assert keys == others
        assert torch.equal(images, pictures)


def test_ranks_together_are_one_process() -> None:
    data = items()
    whole = list(EpochSampler(data, num_samples=2 * ITEMS, seed=1))
    parts = []
    for rank in range(2):
        part = EpochSampler(data, num_samples=2 * ITEMS, seed=1)
        part.rank, part.num_replicas, part.num_samples = rank, 2, ITEMS
        parts.append(list(part))
    assert [key for pair in zip(*parts, strict=True) for key in pair] == whole


def double(image: torch.Tensor) -> torch.Tensor:
    return 2 * image


def test_until_stops_before_what_is_not_asked_for() -> None:
    data = items(transform=Compose([*shifting().transforms, Lambdad("image", double)]))
    assert same({"image": data.until(6, "image")}, items(transform=None)[6])
    assert data.until(6, "key") == 6


@pytest.mark.parametrize(("num_items", "found"), [(0, "0"), (-1, "-1"), (True, "True")])
def test_bad_numbers(num_items: int, found: str) -> None:
    with pytest.raises(UserError, match=f"num_items: found {found}, expected an integer from 1"):
        GeneratedItems(noise, num_items)


def nothing(rng: np.random.Generator, key: int) -> Any:
    return [rng.random(), key]


def test_what_is_generated_is_a_dictionary() -> None:
    with pytest.raises(UserError, match="generate: found list for key 2, expected a dictionary"):
        GeneratedItems(nothing, 4)[2]


def test_a_stream_is_that_of_no_other_seed() -> None:
    """The validation of seed 3 is neither its training nor that of seed 4; images and transforms differ."""
    held_out = items(stream=1)
    assert same(held_out[2], items(stream=1)[2])
    others = [items(seed=seed)[key] for seed in range(8) for key in range(ITEMS)]
    others += [items(stream=2)[2], items(seed=4, stream=1)[2]]
    assert not any(same(held_out[2], other) for other in others)
    plain = GeneratedItems(noise, ITEMS, seed=3)
    assert same(plain[2], GeneratedItems(noise, ITEMS, seed=3, stream=0)[2])


@pytest.mark.parametrize("steps", [None, 0, "3"])
def test_an_epoch_without_a_length_is_named(steps: object) -> None:
    with pytest.raises(UserError, match=f"steps_per_epoch: found {steps!r}, expected an integer from 1"):
        items_per_epoch(steps, 4)
