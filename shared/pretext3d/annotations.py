"""Shape annotations: jaxtyping's where it is installed (tests check them), plain names elsewhere.

A bundle that carries this package runs with MONAI's own requirements only, so jaxtyping cannot be required.
"""

from typing import TYPE_CHECKING, Any

from torch import Tensor

__all__ = ["Bool", "Float", "Int", "Shaped", "Tensor"]

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int, Shaped
else:
    try:
        from jaxtyping import Bool, Float, Int, Shaped
    except ImportError:

        class Shaped:
            """Stands in for a jaxtyping annotation: `Shaped[Tensor, "c i j k"]` is `Tensor`."""

            def __class_getitem__(cls, item: tuple[Any, str]) -> Any:
                return item[0]

        Bool = Float = Int = Shaped
