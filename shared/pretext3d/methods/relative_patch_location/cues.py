"""Removal of cues that give a patch's place away without anatomy: common brightness, lens colours.

Doersch C, Gupta A, Efros AA. Unsupervised Visual Representation Learning by Context Prediction. ICCV 2015
(section 3.1): chromatic aberration shifts the colours of a photograph towards or away from its centre. Their
two remedies are `project_colours` and `drop_colours`. Ours are `grey`, and `adjust_` in
`pretext3d.ops.intensities`: a bias field or a vignette makes neighbours equally bright.

Pure functions on patches (n, c, *size), on the device of the tensor.
"""

from pretext3d.annotations import Float, Int, Shaped, Tensor
from pretext3d.errors import UserError

__all__ = ["COLOURS", "check_colour", "drop_colours", "grey", "project_colours"]

COLOURS = ("keep", "grey", "project", "drop")
GREEN_MAGENTA = (-1.0, 2.0, -1.0)  # axis of the colours that lenses separate most
NOISE = 0.01  # standard deviation of a dropped channel, relative to that of the remaining one


def check_colour(colour: str, channels: int) -> None:
    """Make sure that a removal of colours suits images of so many channels.

    Args:
        colour: One of COLOURS.
        channels: Number of channels of the images.

    Raises:
        UserError: one channel, or for `project` another number than three.

    Examples:
        >>> check_colour("project", 3)
        >>> check_colour("drop", 1)
        Traceback (most recent call last):
        pretext3d.errors.UserError: patch_colour: found 'drop' with images of 1 channel, expected keep
    """
    if colour != "keep" and channels == 1:
        raise UserError(f"patch_colour: found {colour!r} with images of 1 channel, expected keep")
    if colour == "project" and channels != 3:
        raise UserError(
            f"patch_colour: found 'project' with images of {channels} channels, expected keep, grey or drop "
            "(only red, green and blue have a green-magenta axis)"
        )


def grey(patches: Float[Tensor, "n c *size"]) -> Float[Tensor, "n c *size"]:
    """Every channel becomes the mean of all, so that the number of channels remains.

    Examples:
        >>> import torch
        >>> grey(torch.tensor([[[1.0], [2.0], [6.0]]])).flatten().tolist()
        [3.0, 3.0, 3.0]
    """
    return patches.mean(1, keepdim=True).expand_as(patches).contiguous()


def project_colours(patches: Float[Tensor, "n 3 *size"]) -> Float[Tensor, "n 3 *size"]:
    """Without the difference between green and magenta: x - a (a.x) / (a.a) with a = (-1, 2, -1).

    Examples:
        >>> import torch
        >>> project_colours(torch.tensor([[[0.0], [3.0], [0.0]]])).flatten().tolist()  # a.x = a.a = 6
        [1.0, 1.0, 1.0]
    """
    axis = patches.new_tensor(GREEN_MAGENTA).reshape(3, *[1] * (patches.ndim - 2))
    along = (patches * axis).sum(1, keepdim=True) / axis.square().sum()
    return patches - along * axis


def drop_colours(
    patches: Float[Tensor, "n c *size"], kept: Int[Tensor, "n"], noise: Shaped[Tensor, "n c *size"]
) -> Float[Tensor, "n c *size"]:
    """One channel of each patch remains; the others become noise.

    Args:
        patches: Patches.
        kept: Channel that remains.
        noise: Standard normal values; they are scaled by 0.01 times the standard deviation of the remaining
            channel over the patch.

    Examples:
        >>> import torch
        >>> patch = torch.tensor([[[-1.0, 1.0], [5.0, 5.0]]])
        >>> drop_colours(patch, torch.tensor([0]), torch.ones(1, 2, 2)).tolist()
        [[[-1.0, 1.0], [0.009999999776482582, 0.009999999776482582]]]
    """
    count, channels = patches.shape[:2]
    ones = [1] * (patches.ndim - 2)
    own = kept.reshape(count, 1, *ones)
    remaining = patches.take_along_dim(own, dim=1)
    spread = remaining.flatten(1).std(1, correction=0).reshape(count, 1, *ones)
    chosen = own == kept.new_tensor(range(channels)).reshape(1, channels, *ones)
    return patches.where(chosen, NOISE * spread * noise.to(patches))
