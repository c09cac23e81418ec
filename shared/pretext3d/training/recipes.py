"""Recipes of fine-tuning: how transferred and new parameters are trained together.

A recipe is a row of `RECIPES`, or of the configuration's key `recipes`, chosen by its key `recipe`:

    plain     everything at learning_rate from the first step
    warmup    a linear ramp of the rate over the first tenth of the steps; transferred kernels rescaled
    sawtooth  the encoder frozen for the first tenth with a ramp of its own, then warmup
    auto      see `AUTO`: one for pre-trained weights, one from scratch

Keys of the configuration that are given by themselves (`transfer`, `rescale`, `backbone_learning_rate`,
`freeze_encoder_epochs`) take precedence. From scratch nothing is transferred: of a recipe the ramp remains.

Source of sawtooth: Wald et al., "An OpenMind for 3D medical vision self-supervised learning", 2024
(arXiv:2412.17041). The tenths are ours.
"""

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from torch import nn

from pretext3d.checking import boolean, closest_hint, integer, number, one_of
from pretext3d.errors import UserError
from pretext3d.training.checkpoint_io import unwrap
from pretext3d.training.freezing import Frozen
from pretext3d.training.schedules import check_schedule
from pretext3d.training.transfer import transferred

__all__ = ["AUTO", "RECIPES", "Recipe", "check_rates", "choose_recipe", "parameter_groups"]

logger = logging.getLogger(__name__)

BACKBONE = "backbone"  # name of the second parameter group; see `resume.check_same_settings`


@dataclass(frozen=True)
class Recipe:
    """A recipe of fine-tuning.

    Attributes:
        warmup: Linear ramp of the learning rate, a fraction of the steps or their number.
        encoder_start: Fraction of the steps, or their number, for which the transferred encoder is frozen.
        backbone_factor: Learning rate of what was transferred, relative to learning_rate; 0 = frozen.
        rescale: Whether transferred convolutions before a norm are given the norm of their initialisation.
        transfer: Part of the backbone that is transferred, all or encoder.
        title: Name in the log.
    """

    warmup: float = 0.0
    encoder_start: float = 0.0
    backbone_factor: float = 1.0
    rescale: bool = False
    transfer: str = "all"
    title: str = field(default="", repr=False, compare=False)

    def __str__(self) -> str:
        """The name, and what differs from plain."""
        return f"recipe {self.title}{': ' * bool(self.changes)}{self.changes}"

    @property
    def changes(self) -> str:
        """What differs from plain, as text."""
        values = self.values().items()
        return ", ".join(f"{key} {value}" for key, value in values if value != getattr(Recipe, key))

    def values(self) -> dict[str, Any]:
        """The entries by name, without the title."""
        return {key: value for key, value in asdict(self).items() if key != "title"}


RECIPES = {
    "plain": Recipe(),
    "warmup": Recipe(warmup=0.1, rescale=True),
    "sawtooth": Recipe(warmup=0.1, encoder_start=0.1, rescale=True),
}
AUTO = {"pretrained": "plain", "scratch": "plain"}


def choose_recipe(recipe: Any, recipes: Any = None, pretrained: Any = "") -> Recipe:
    """The recipe of that name.

    Args:
        recipe: Name of a recipe, or auto.
        recipes: Recipes of the user by name: values of `Recipe` that differ from those of the recipe named by
            their entry `like`, or from plain; names other than those of RECIPES.
        pretrained: Source of the initial weights; '' = from scratch, where only the ramp applies.

    Raises:
        UserError: no such recipe; an entry that a recipe does not have, or with an invalid value.

    Examples:
        >>> choose_recipe("slow", {"slow": {"like": "sawtooth", "backbone_factor": 0.1}}, "runs/vp")
        Recipe(warmup=0.1, encoder_start=0.1, backbone_factor=0.1, rescale=True, transfer='all')
        >>> print(choose_recipe("sawtooth"))
        recipe sawtooth, from scratch: warmup 0.1
    """
    table = {**RECIPES, **_own(recipes or {})}
    one_of("recipe", recipe, ("auto", *table))
    name = AUTO["pretrained" if pretrained else "scratch"] if recipe == "auto" else recipe
    title = f"auto = {name}" if recipe == "auto" else name
    if pretrained:
        return replace(table[name], title=title)
    return Recipe(warmup=table[name].warmup, title=f"{title}, from scratch")


def _own(recipes: Any) -> dict[str, Recipe]:
    """The user's recipes."""
    if not isinstance(recipes, Mapping):
        raise UserError(f"recipes: found {recipes!r}, expected recipes by name, as {{slow: {{warmup: 0.2}}}}")
    names = list(Recipe().values())
    found: dict[str, Recipe] = {}
    for name, row in recipes.items():
        if name in ("auto", *RECIPES):
            raise UserError(f"recipes::{name}: found the name of a built-in recipe, expected another one")
        if not isinstance(row, Mapping):
            raise UserError(f"recipes::{name}: found {row!r}, expected entries such as {{warmup: 0.1}}")
        one_of(f"recipes::{name}::like", row.get("like", "plain"), tuple(RECIPES))
        for key in row:
            if key not in (*names, "like"):
                hint = closest_hint(str(key), names)
                raise UserError(f"recipes::{name}: found {key!r}, expected {', '.join(names)} or like{hint}")
        values = {key: value for key, value in row.items() if key != "like"}
        try:
            _check_values({**Recipe().values(), **values})
        except UserError as error:
            raise UserError(f"recipes::{name}::{error}") from error
        found[name] = replace(RECIPES[row.get("like", "plain")], **values)
    return found


def _check_values(values: Mapping[str, Any]) -> None:
    """Check the entries of a recipe."""
    check_schedule(warmup=values["warmup"], encoder_start=values["encoder_start"])
    number("backbone_factor", values["backbone_factor"], low=0)
    boolean("rescale", values["rescale"])
    one_of("transfer", values["transfer"], ("all", "encoder"))


def check_rates(keys: Mapping[str, Any]) -> None:
    """Check the rates and frozen epochs of those keys that are there, before any volume is read.

    Args:
        keys: Values of learning_rate, backbone_learning_rate, freeze_encoder_epochs, warmup, final_lr_factor,
            encoder_start.

    Raises:
        UserError: names the key.

    Examples:
        >>> check_rates({"warmup": 0.1, "freeze_encoder_epochs": -1})
        Traceback (most recent call last):
        pretext3d.errors.UserError: freeze_encoder_epochs: found -1, expected an integer from 0
    """
    if "learning_rate" in keys:
        number("learning_rate", keys["learning_rate"], low=0, low_open=True)
    rate = keys.get("backbone_learning_rate")
    if rate is not None:
        expected = "null (the recipe's) or a number from 0"
        number("backbone_learning_rate", rate, low=0, expected=expected)
    epochs = keys.get("freeze_encoder_epochs", 0)
    integer("freeze_encoder_epochs", epochs, minimum=0, expected="an integer from 0")
    schedule = ("warmup", "final_lr_factor", "encoder_start")
    check_schedule(**{key: keys[key] for key in schedule if key in keys})


def parameter_groups(
    network: nn.Module,
    learning_rate: float,
    backbone_learning_rate: float | None = None,
    recipe: Recipe | None = None,
) -> list[dict[str, Any]]:
    """The parameter groups for an optimizer: the heads and what is new, then what was transferred.

    Both are in the network's order, so that a resumed run has the same ones. With one rate for both, or where
    nothing was transferred, there is one group of all parameters. At a rate of 0 what was transferred is
    permanently frozen, including the running statistics of its norms.

    Args:
        network: Network to train; may be wrapped for several processes.
        learning_rate: Learning rate of the heads and of what is new.
        backbone_learning_rate: Learning rate of what was transferred; None = learning_rate times the recipe's
            backbone_factor.
        recipe: Recipe of the run, which is logged; None = plain.

    Raises:
        UserError: a rate that is not a finite number, learning_rate not above 0, backbone_learning_rate below
            0.
    """
    check_rates({"learning_rate": learning_rate, "backbone_learning_rate": backbone_learning_rate})
    if recipe:
        logger.info("%s", recipe)
    factor = recipe.backbone_factor if recipe else 1.0
    rate = factor * learning_rate if backbone_learning_rate is None else backbone_learning_rate
    parameters = dict(unwrap(network).named_parameters())
    names = transferred(unwrap(network)) if rate != learning_rate else frozenset()
    moved = [parameter for name, parameter in parameters.items() if name in names]
    if not moved:
        if rate != learning_rate:
            logger.warning("backbone_learning_rate: nothing was transferred, all learns at learning_rate")
        return [{"params": list(parameters.values()), "lr": learning_rate}]
    if rate == 0:
        frozen = Frozen(network, names)
        frozen.hold()
        logger.info("backbone frozen for good: %s", frozen)
    rest = [parameter for name, parameter in parameters.items() if name not in names]
    return [{"params": rest, "lr": learning_rate}, {"params": moved, "lr": rate, "name": BACKBONE}]
