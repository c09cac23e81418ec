"""What frozen features know: neighbours and a logistic regression for classes, a linear map for labels.

Pure functions. The linear map for labels is fitted in closed form, and its masks are as coarse as the cells
that have the features: painted on the voxels, they have the Dice that is computed here from each cell's
fraction of a class.
"""

import warnings
from collections.abc import Hashable, Sequence

import torch
import torch.nn.functional as F

from pretext3d.annotations import Bool, Float, Int, Tensor

__all__ = ["LinearProbe", "best_thresholds", "logistic_classes", "nearest_classes", "painted_dice"]

RIDGE = 0.1  # added to the diagonal of the features' correlation matrix
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)  # C of the logistic regression, smallest first
DEFAULT_STRENGTH = 1.0  # where too few subjects are labelled to choose
MAX_FOLDS = 5


def nearest_classes(
    features: Float[Tensor, "n d"],
    references: Float[Tensor, "m d"],
    classes: Int[Tensor, "m"],
    allowed: Bool[Tensor, "n m"],
    neighbours: int,
) -> Int[Tensor, "n"]:
    """The class that most of the nearest references have, by the cosine of centred features.

    The references' mean is subtracted: features behind a ReLU have a large part in common, which would make
    all cosines about 1. Of classes with equally many neighbours, the one with the larger sum of cosines is
    chosen.

    Args:
        features: Features of the cases to classify.
        references: Features of cases with known classes.
        classes: Class numbers of the references, from 0.
        allowed: Whether a reference may be a neighbour of a case.
        neighbours: Number of neighbours; fewer where fewer are allowed.

    Returns:
        Class numbers; -1 for a case without any allowed reference.

    Examples:
        >>> known = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> nearest_classes(torch.tensor([[5.0, 1.0]]), known, torch.tensor([4, 7]), torch.ones(1, 2) > 0, 1)
        tensor([4])
    """
    mean = references.mean(0)
    cosines = F.normalize(features - mean, dim=1) @ F.normalize(references - mean, dim=1).T
    nearest, index = cosines.masked_fill(~allowed, -torch.inf).topk(min(neighbours, len(classes)), dim=1)
    counted = nearest.isfinite()
    # the sum of n cosines is between -n and n: it never outweighs a neighbour
    weights = torch.where(counted, 1 + nearest / (2 * neighbours + 2), 0.0)
    votes = torch.zeros(len(features), int(classes.max()) + 1, dtype=weights.dtype)
    votes.scatter_add_(1, classes[index], weights)
    return torch.where(counted.any(1), votes.argmax(1), -1)


def logistic_classes(
    features: Float[Tensor, "n d"],
    references: Float[Tensor, "m d"],
    classes: Int[Tensor, "m"],
    people: Sequence[Hashable],
) -> tuple[Int[Tensor, "n"], float]:
    """The most probable class by a logistic regression that is fitted to the references.

    min_W sum_i w_i cross_entropy(W z_i + b, y_i) + |W|^2 / (2 C), with features z of mean 0 and standard
    deviation 1 over the references, and weights w_i that give each class the same sum. C is the one of
    10^-4 to 10^2 with the highest balanced accuracy in a cross-validation of the references alone, whose
    folds divide no subject (5 folds, or as many as the rarest class has subjects; of equals the smallest C).
    With a class of one subject nothing can be chosen, and C is 1. Only classes of the references are found.

    Args:
        features: Features of the cases to classify.
        references: Features of cases with known classes.
        classes: Class numbers of the references.
        people: Subject of each reference.

    Returns:
        Class numbers, and C.

    Examples:
        >>> known = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> logistic_classes(torch.tensor([[5.0, 1.0]]), known, torch.tensor([4, 7]), ["ann", "bob"])
        (tensor([4]), 1.0)
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, y = references.double().numpy(), classes.numpy()
    names = {person: number for number, person in enumerate(dict.fromkeys(people))}
    groups = [names[person] for person in people]
    present = classes.unique().tolist()
    if len(present) == 1:
        return torch.full((len(features),), present[0]), DEFAULT_STRENGTH
    rarest = min(len({g for g, c in zip(groups, y.tolist(), strict=True) if c == one}) for one in present)
    model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000))
    strength = DEFAULT_STRENGTH
    with warnings.catch_warnings():
        # steps that end before the last digit, and folds without a case of some class
        warnings.filterwarnings("ignore", module="sklearn")
        if rarest > 1:
            folds = StratifiedGroupKFold(min(MAX_FOLDS, rarest), shuffle=True, random_state=0)
            grid = {"logisticregression__C": list(STRENGTHS)}
            search = GridSearchCV(model, grid, scoring="balanced_accuracy", cv=folds, refit=False)
            strength = float(search.fit(x, y, groups=groups).best_params_["logisticregression__C"])
        model.set_params(logisticregression__C=strength).fit(x, y)
    return torch.from_numpy(model.predict(features.double().numpy())), strength


class LinearProbe:
    """Ridge regression of the fractions of classes on the features of cells, with one threshold per class.

    With features z of mean 0 and standard deviation 1, and fractions y of mean y0, over the cells:
    W = (z^T z / n + RIDGE I)^-1 z^T (y - y0) / n, scores = z W + y0. Its mask of a class is the cells whose
    score exceeds the threshold that gives the fitted cells the best Dice, so that rare classes get one, too.

    Args:
        features: Features of the cells to fit.
        fractions: Part of each cell that each class takes, from 0 to 1.
    """

    def __init__(self, features: Float[Tensor, "n d"], fractions: Float[Tensor, "n k"]) -> None:
        x, y = features.double(), fractions.double()
        self.mean, self.level = x.mean(0), y.mean(0)
        deviation = x.std(0, correction=0)
        self.scale = torch.where(deviation > 0, 1 / deviation, 0.0)
        z = (x - self.mean) * self.scale
        correlation = z.T @ z / len(z) + RIDGE * torch.eye(z.shape[1], dtype=z.dtype)
        self.weights = torch.linalg.solve(correlation, z.T @ (y - self.level) / len(z))
        self.thresholds = best_thresholds(self.scores(features), y)

    def scores(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        """The regressed fractions."""
        return (features.double() - self.mean) * self.scale @ self.weights + self.level

    def masks(self, features: Float[Tensor, "n d"]) -> Bool[Tensor, "n k"]:
        """The cells of each class; classes may overlap."""
        return self.scores(features) > self.thresholds


def best_thresholds(scores: Float[Tensor, "n k"], fractions: Float[Tensor, "n k"]) -> Float[Tensor, "k"]:
    """For each class the threshold whose mask, `scores` above it, has the largest `painted_dice`.

    It is halfway between the lowest score inside and the highest outside.

    Examples:
        >>> scores = torch.tensor([[0.9], [0.6], [0.2]])
        >>> best_thresholds(scores, torch.tensor([[1.0], [0.5], [0.0]]))  # 2 * 1.5 / (2 + 1.5)
        tensor([0.4000])
    """
    ordered, order = scores.sort(0, descending=True)
    inside = fractions.to(scores).gather(0, order).cumsum(0)
    count = torch.arange(1, len(scores) + 1, dtype=scores.dtype)[:, None]
    dice = 2 * inside / (count + inside[-1])
    below = torch.cat([ordered[1:], torch.full_like(ordered[:1], -torch.inf)])
    dice = dice.masked_fill(below == ordered, -1.0)  # equal scores are all inside or all outside
    best = dice.argmax(0, keepdim=True)
    return (ordered.gather(0, best) + below.gather(0, best))[0] / 2


def painted_dice(masks: Bool[Tensor, "n k"], fractions: Float[Tensor, "n k"]) -> Float[Tensor, "k"]:
    """Dice of masks of cells with what classes take of the cells: 2 sum(m y) / (sum(m) + sum(y)).

    It is the Dice of voxels where each cell is painted as a block. NaN where both are empty.

    Examples:
        >>> painted_dice(torch.tensor([[True, False], [True, False]]), torch.tensor([[1.0, 0.0], [0.5, 0.0]]))
        tensor([0.8571,    nan])
    """
    m = masks.to(fractions)
    return 2 * (m * fractions).sum(0) / (m.sum(0) + fractions.sum(0))
