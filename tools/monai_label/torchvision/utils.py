"""The two functions that MONAI Label imports; neither volumes nor bundles need them."""

from typing import Any, NoReturn

__all__ = ["make_grid", "save_image"]


def make_grid(*args: Any, **kwargs: Any) -> NoReturn:
    """Not here.

    Raises:
        RuntimeError: always.
    """
    raise RuntimeError(
        "make_grid needs torchvision, which does not fit the installed torch; install both again"
    )


def save_image(*args: Any, **kwargs: Any) -> NoReturn:
    """Not here.

    Raises:
        RuntimeError: always.
    """
    raise RuntimeError(
        "save_image needs torchvision, which does not fit the installed torch; install both again"
    )
