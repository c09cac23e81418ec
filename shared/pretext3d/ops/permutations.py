"""Permutations of a grid's cells that are far apart in Hamming distance: the classes of jigsaw-like tasks.

Source: Noroozi and Favaro, "Unsupervised learning of visual representations by solving jigsaw puzzles", ECCV
2016, choose greedily among all n! permutations. Here there are few candidates: for many numbers of cells,
algebra gives a group of permutations with a large minimum distance; for others, random ones are drawn.

    n a power of a prime        AGL(1, n), x -> a x + b over the field of n elements: n (n - 1) permutations
                                with minimum distance n - 1 (27 cells: 702 at 26; 8 cells: 56 at 7)
    n - 1 a power of a prime    PGL(2, n - 1), x -> (a x + b) / (c x + d) with a point at infinity:
                                n (n - 1) (n - 2) permutations with minimum distance n - 2 (8 cells: 336 at 6)

Powers of a prime up to the third are supported. Two group elements agree in as many points as their quotient
fixes, at most 1 or 2: hence the distances.
"""

import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from pretext3d.annotations import Int, Shaped, Tensor
from pretext3d.checking import integer, per_axis
from pretext3d.errors import UserError

__all__ = ["far_permutations", "load_permutations", "minimum_distance", "reorder"]

POOL = 20_000  # candidates at most


def reorder(cubes: Shaped[Tensor, "..."], order: Int[Tensor, "*b m"]) -> Shaped[Tensor, "..."]:
    """The cubes in a new order: position s gets cube order[s].

    Args:
        cubes: Cubes (*b, m, c, *size), of any number of spatial axes.
        order: Index of the cube at each position.

    Examples:
        >>> reorder(torch.tensor([5, 6, 7]).view(3, 1, 1, 1), torch.tensor([2, 0, 1])).flatten().tolist()
        [7, 5, 6]
    """
    places = order.to(cubes.device).reshape(*order.shape, *[1] * (cubes.ndim - order.ndim)).expand_as(cubes)
    return torch.gather(cubes, order.ndim - 1, places)


def load_permutations(
    folder: str,
    grid: int | Sequence[int],
    count: int,
    seed: int = 0,
    spatial_dims: int = 3,
    min_distance: int | None = None,
    fewest: int = 1,
) -> Int[Tensor, "k m"]:
    """The permutations in a file of a folder, if one holds `count` for the grid; else newly chosen ones.

    Args:
        folder: Folder of files permutations*.json: {"permutations": [[...], ...], "seed": 0, ...}.
        grid: Cells along each axis, one number or one per axis; m in all.
        count: Number k of permutations.
        seed: Seed of the choice; a file with another seed is not used, one without a seed is.
        spatial_dims: Number of spatial axes of the grid, 3 or 2.
        min_distance: Smallest Hamming distance that two of them may have; None = any.
        fewest: Smallest number k; 2 where they are classes that have to be told apart.

    Raises:
        UserError: If a file holds something other than permutations, the seed is not an integer from 0, or
            the permutations are closer than `min_distance`.
    """
    integer("permutations_seed", seed, minimum=0)
    cells = math.prod(per_axis("grid", grid, spatial_dims))
    check_count(cells, count, fewest)
    found = _stored(folder, cells, count, seed)
    found = far_permutations(cells, count, seed) if found is None else found
    if min_distance is not None:
        integer("min_distance", min_distance, 2, cells, f"2 to {cells}, the number of cells, or null")
        distance = minimum_distance(found)
        if distance < min_distance:
            raise UserError(
                f"min_distance: found {min_distance}, but the {count} permutations of {cells} cells are only "
                f"{distance} apart; expected {distance} or less, or a smaller num_permutations"
            )
    return torch.from_numpy(found)


def check_count(cells: int, count: int, fewest: int = 1) -> None:
    """Refuse a number of permutations that there cannot be.

    Args:
        cells: Number of cells.
        count: Number of permutations.
        fewest: Smallest number.

    Raises:
        UserError: fewer than 2 cells, or a number outside `fewest` to min(cells!, 20,000).
    """
    if cells < 2:
        raise UserError(f"grid: found {cells} cell(s), expected 2 or more")
    most = min(POOL, math.factorial(min(cells, 20)))
    integer("num_permutations", count, fewest, most, f"{fewest} to {most} permutations of {cells} cells")


def _stored(folder: str, cells: int, count: int, seed: int) -> Shaped[np.ndarray, "k m"] | None:
    """The permutations in a file of the folder, see `load_permutations`; None where no file holds them."""
    for file in sorted(Path(folder).glob("permutations*.json")):
        try:
            stored = json.loads(file.read_text())
            found, chosen_by = np.asarray(stored["permutations"]), stored.get("seed", seed)
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{file}: expected JSON with a list of `permutations`: {error}") from error
        if found.ndim != 2 or found.dtype.kind != "i" or (np.sort(found) != np.arange(found.shape[-1])).any():
            raise UserError(f"{file}: expected `permutations`, each a list of the numbers 0 to m - 1")
        if found.shape == (count, cells) and chosen_by == seed:
            return np.asarray(found, dtype=np.int64)
    return None


def far_permutations(cells: int, count: int, seed: int = 0) -> Shaped[np.ndarray, "k m"]:
    """`count` permutations of `cells` cells, each chosen as far as possible from those before it.

    Greedy: the next one has the largest minimum Hamming distance to the chosen ones, and among equals the
    largest mean. Up to 6 cells, all n! permutations are candidates; beyond, a group as above if it has enough
    elements, relabelled at random (20,000 elements of a larger group, which are as far apart); else 20,000
    random permutations.

    Raises:
        UserError: For fewer than 2 cells, or more permutations than there are.

    Examples:
        >>> minimum_distance(far_permutations(8, 56))
        7
    """
    check_count(cells, count)
    rng = np.random.default_rng([seed, cells])
    pool = _candidates(cells, count, rng)
    if len(pool) < count:
        raise UserError(
            f"num_permutations: found {count}, but among {POOL} random permutations of {cells} cells only "
            f"{len(pool)} are different; expected fewer"
        )
    chosen = [int(rng.integers(len(pool)))]
    nearest, total = np.full(len(pool), cells), np.zeros(len(pool), dtype=np.int64)
    while len(chosen) < count:
        distance = (pool != pool[chosen[-1]]).sum(axis=1)
        nearest, total = np.minimum(nearest, distance), total + distance
        # one number orders by minimum, then by sum; a chosen one has minimum 0
        chosen.append(int(np.argmax(nearest * (cells * count + 1) + total)))
    return np.asarray(pool[chosen], dtype=np.int64)


def minimum_distance(permutations: Shaped[np.ndarray, "k m"]) -> int:
    """The smallest Hamming distance between two permutations, 2 to m; m for a single one.

    Examples:
        >>> minimum_distance(np.array([[0, 1, 2], [1, 0, 2], [1, 2, 0]]))
        2
    """
    permutations = np.asarray(permutations)
    distances = [
        (permutations[i + 1 :] != permutations[i]).sum(axis=1).min() for i in range(len(permutations) - 1)
    ]
    return int(min(distances, default=permutations.shape[1]))


def _candidates(cells: int, count: int, rng: np.random.Generator) -> Shaped[np.ndarray, "p m"]:
    """Distinct permutations to choose from, `count` or more."""
    if cells <= 6:
        return np.asarray(list(itertools.permutations(range(cells))))
    if count <= cells * (cells - 1) and (field := _prime_power(cells)):
        group = _affine_group(*field, rng)
    elif count <= cells * (cells - 1) * (cells - 2) and (field := _prime_power(cells - 1)):
        group = _projective_group(*field, rng)
    else:
        return np.unique(rng.permuted(np.tile(np.arange(cells), (POOL, 1)), axis=1), axis=0)
    names = rng.permutation(cells)  # s g s^-1 for a random relabelling s: as far apart, another group
    return names[group[:, np.argsort(names)]]


def _prime_power(number: int) -> tuple[int, int] | None:
    """(p, m) with number = p^m for a prime p and m of 1 to 3, else None."""
    for degree in (1, 2, 3):
        prime = round(number ** (1 / degree))
        if prime > 1 and prime**degree == number and all(prime % d for d in range(2, math.isqrt(prime) + 1)):
            return prime, degree
    return None


def _field(prime: int, degree: int) -> tuple[np.ndarray, np.ndarray]:
    """Tables of sums and products, (q, q) each, of the field with q = prime^degree elements.

    Element e stands for the polynomial whose coefficients are its digits in base `prime`; products are
    taken modulo a monic polynomial of that degree without roots, which for degrees to 3 is irreducible.
    """
    size = prime**degree
    digits = (np.arange(size)[:, None] // prime ** np.arange(degree)) % prime  # lowest first
    for tail in digits:
        powers = np.arange(prime)[:, None] ** np.arange(degree)
        if degree == 1 or ((powers @ tail + np.arange(prime) ** degree) % prime).all():
            modulus = tail
            break
    sums = (digits[:, None] + digits[None]) % prime
    product = np.zeros((size, size, 2 * degree - 1), dtype=np.int64)
    for i, j in itertools.product(range(degree), repeat=2):
        product[..., i + j] += digits[:, None, i] * digits[None, :, j]
    for high in range(2 * degree - 2, degree - 1, -1):  # x^degree = -modulus
        product[..., high - degree : high] -= product[..., high, None] * modulus
    weights = prime ** np.arange(degree)
    return sums @ weights, (product[..., :degree] % prime) @ weights


def _chosen(elements: int, rng: np.random.Generator) -> Shaped[np.ndarray, "p"]:
    """The numbers of all elements of a group, or of 20,000 distinct ones."""
    return np.arange(elements) if elements <= POOL else rng.choice(elements, POOL, replace=False)


def _affine_group(prime: int, degree: int, rng: np.random.Generator) -> Shaped[np.ndarray, "p q"]:
    """The group of x -> a x + b for every a other than 0 and every b."""
    add, times = _field(prime, degree)
    size = len(add)
    a, b = np.divmod(_chosen((size - 1) * size, rng), size)
    return add[times[a + 1], b[:, None]]


def _projective_group(prime: int, degree: int, rng: np.random.Generator) -> Shaped[np.ndarray, "p r"]:
    """The group of x -> (a x + b) / (c x + d) with a d != b c, on the field and infinity (number q).

    One matrix of each class: c = 0, d = 1, any a but 0, any b; or c = 1, any a and d, any b but a d.
    """
    add, times = _field(prime, degree)
    size = len(add)
    inverse = np.argmax(times == 1, axis=1)  # of 0: not used
    number = _chosen((size - 1) * size * (size + 1), rng)
    c = (number >= (size - 1) * size).astype(np.int64)
    high, low = np.divmod(number - c * (size - 1) * size, size)  # c = 0: a - 1 and b; c = 1: the rest and d
    apart, left = np.divmod(high, size)
    a, d = np.where(c, left, high + 1), np.where(c, low, 1)
    b = np.where(c, add[times[left, low], (apart + 1) % size], low)
    a, b, c, d = (each[np.lexsort((d, c, b, a)), None] for each in (a, b, c, d))
    x = np.arange(size)[None]
    above, below = add[times[a, x], b], add[times[c, x], d]
    finite = np.where(below == 0, size, times[above, inverse[below]])
    infinity = np.where(c == 0, size, times[a, inverse[c]])
    return np.concatenate([finite, infinity], axis=1)
