"""Changes of intensity, batched, on the device of the tensor."""

from pretext3d.annotations import Float, Tensor

__all__ = ["adjust_", "gamma_"]


def adjust_(
    images: Float[Tensor, "n c *space"], contrast: Float[Tensor, "n c"], brightness: Float[Tensor, "n c"]
) -> Float[Tensor, "n c *space"]:
    """(x - mean) * contrast + mean + brightness, with the mean of each channel of each image; not clipped.

    Args:
        images: Volumes or images, or patches of them; changed in place, which takes a third of the time.
        contrast: Factor of each channel, 1 = unchanged.
        brightness: What is added to each channel, in the images' unit, 0 = unchanged.

    Examples:
        >>> import torch
        >>> adjust_(torch.tensor([[[0.0, 1.0]]]), torch.tensor([[2.0]]), torch.tensor([[0.25]])).tolist()
        [[[-0.25, 1.75]]]
    """
    space = tuple(range(2, images.ndim))
    factor = _of_channels(contrast, images)
    offset = images.mean(space, keepdim=True) * (1 - factor) + _of_channels(brightness, images)
    return images.mul_(factor).add_(offset)


def gamma_(
    images: Float[Tensor, "n c *space"], exponents: Float[Tensor, "n c"]
) -> Float[Tensor, "n c *space"]:
    """max(x, 0)^gamma, with the exponent of each channel of each image.

    Unlike `adjust_`, which is affine, it changes the shape of a channel's histogram.

    Args:
        images: Volumes or images, or patches of them, of intensities from about 0 to 1; changed in place.
        exponents: Exponent of each channel, above 0; 1 = unchanged.

    Examples:
        >>> import torch
        >>> gamma_(torch.tensor([[[-1.0, 0.25, 1.0]]]), torch.tensor([[0.5]])).tolist()
        [[[0.0, 0.5, 1.0]]]
    """
    return images.clamp_(min=0).pow_(_of_channels(exponents, images))


def _of_channels(values: Float[Tensor, "n c"], images: Float[Tensor, "n c *space"]) -> Tensor:
    """One value per channel, shaped for arithmetic with images of any size."""
    return values.to(images).reshape(*images.shape[:2], *(1,) * (images.ndim - 2))
