# %% [markdown]
# # Add a method
#
# A new pretext task, from the template to its picture: a slab of the volume is hidden, and the network
# fills it. It takes about sixty lines of its own; data, splits, training, pictures, fine-tuning and
# publishing are there. The rules are in CONTRIBUTING.md, *Add a method*. This tutorial writes into a copy,
# so that your checkout remains unchanged.
#
# A minute on two cores, in a clone of the repository: `python tutorials/add_a_method.py`

# %%
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pretext3d
from PIL import Image

sys.path.insert(0, str(Path.cwd()))  # the repository's root
from tools.bundles.new import make

ROOT = Path(os.environ.get("PRETEXT3D_TUTORIALS", "runs/tutorials")).resolve() / "add_a_method"
shutil.rmtree(ROOT, ignore_errors=True)
shutil.copytree(Path(pretext3d.__file__).parent, ROOT / "shared" / "pretext3d")

# %% [markdown]
# ## The template
#
# `python -m tools.bundles.new hidden_slabs` does this in the checkout itself: a bundle, its method and its
# test, which train at once. What the template's method does is denoising.

# %%
for path in make("hidden_slabs", ROOT):
    print(path.relative_to(ROOT))

# %% [markdown]
# ## The method
#
# One file in the paper's order: the transform that hides and keeps the answer, the network around a
# backbone (which alone goes on to fine-tuning), the loss, and a measure that a person can interpret: the
# error relative to that of a flat fill with the mean of what is visible, so that 1 means nothing learned.

# %%
METHOD = '''"""Hidden slabs: a slab across one axis is hidden, and predicted from the rest."""

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from ignite.metrics import Metric
from monai.networks.layers.factories import Conv
from monai.transforms import MapTransform, Randomizable
from torch import nn

from pretext3d.annotations import Float, Tensor
from pretext3d.networks.backbone import Backbone
from pretext3d.training.metrics import SampleMean


class RandHideSlabd(Randomizable, MapTransform):
    """Hide a slab of `thickness` (a part of the volume) across a random axis: 0, and True in `mask`."""

    def __init__(self, keys: Any, thickness: float = 0.25) -> None:
        MapTransform.__init__(self, keys)
        self.thickness = thickness

    def randomize(self, size: tuple[int, ...]) -> None:
        self.axis = int(self.R.randint(len(size)))
        self.width = max(1, round(self.thickness * size[self.axis]))
        self.start = int(self.R.randint(size[self.axis] - self.width + 1))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        found = dict(data)
        size = tuple(found[self.first_key(found)].shape[1:])
        self.randomize(size)
        mask = torch.zeros(1, *size, dtype=torch.bool)
        mask.narrow(self.axis + 1, self.start, self.width).fill_(True)
        for key in self.key_iterator(found):
            found[key] = found[key].masked_fill(mask, 0.0)
        return {**found, "mask": mask}


class HiddenSlabsNet(nn.Module):
    """A backbone and one convolution to the image's channels."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = Conv[Conv.CONV, backbone.spatial_dims](backbone.out_channels, backbone.in_channels, 1)

    def forward(self, x: Float[Tensor, "b c *space"]) -> Float[Tensor, "b c *space"]:
        return self.head(self.backbone(x))


def hidden_error(image: Tensor, clean: Tensor, mask: Tensor) -> Tensor:
    """Mean squared error of the hidden voxels, per image (b,)."""
    return ((image - clean).square() * mask).flatten(1).sum(1) / mask.expand_as(clean).flatten(1).sum(1)


class HiddenSlabsLoss(nn.Module):
    def forward(self, pred: Tensor, target: Mapping[str, Tensor]) -> Tensor:
        return hidden_error(pred.float(), target["clean"], target["mask"]).mean()


def relative_error(output: Mapping[str, Any]) -> Tensor:
    clean, mask = output["label"]["clean"], output["label"]["mask"]
    axes = tuple(range(2, clean.ndim))
    flat = (clean * ~mask).sum(axes, keepdim=True) / (~mask).sum(axes, keepdim=True)
    return hidden_error(output["pred"].float(), clean, mask) / hidden_error(flat, clean, mask).clamp(min=1e-6)


def validation_metrics() -> dict[str, Metric]:
    return {"relative_error": SampleMean(relative_error)}
'''
(ROOT / "shared" / "pretext3d" / "methods" / "hidden_slabs" / "pretext.py").write_text(METHOD)

# %% [markdown]
# ## The configuration
#
# The bundle's `train.yaml` names the transform in place of the noise, and passes the mask to loss and
# metrics. The other six configurations remain unchanged.

# %%
train = ROOT / "bundles" / "hidden_slabs" / "configs" / "train.yaml"
changes = {
    """    - _target_: RandGaussianNoised
      keys: image
      prob: 1.0
      std: '@noise'
      sample_std: false
""": """    - _target_: pretext3d.methods.hidden_slabs.pretext.RandHideSlabd
      keys: image
      thickness: 0.25
""",
    "keys: [image, clean, crop_start, crop_size]": "keys: [image, clean, mask, crop_start, crop_size]",
    "target_keys: [clean]": "target_keys: [clean, mask]",
}
text = train.read_text()
for there, here in changes.items():
    assert there in text, there
    text = text.replace(there, here)
train.write_text(text)

# %% [markdown]
# ## A run
#
# On the embedded phantom, for forty steps of a small network.

# %%
RUN = ROOT / "run"
words = [
    "--profile",
    "laptop",
    "--encoder",
    "unet",
    "--roi_size",
    "24",
    "--batch_size",
    "4",
    "--num_workers",
    "0",
]
words += ["--steps_per_epoch", "20", "--max_epochs", "2", "--probe", "None", "--output_dir", str(RUN)]
subprocess.run(
    [sys.executable, "-m", "monai.bundle", "run", "--config_file", str(train), *words],
    check=True,
    env={**os.environ, "PYTHONPATH": str(ROOT / "shared")},
)
print(pd.read_csv(RUN / "metrics.csv").filter(regex="epoch|loss|relative").round(3).to_string(index=False))
Image.open(sorted((RUN / "pictures").glob("*.png"))[-1])

# %% [markdown]
# ## What is left
#
# A test with a small case worked out by hand (`tests/methods/test_hidden_slabs.py` is there), the docs of
# the bundle, a row in the README's table. Then ask whether it learns more than air and intensities give
# away, whether its features help, and say so in figures: `pretext3d doctor`, `pretext3d probe`, `pretext3d
# compare`.
