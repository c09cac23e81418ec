# %% [markdown]
# # Pre-train without labels, fine-tune with four
#
# VectorPOSE is pre-trained on scans that nobody has labelled; its weights then start a segmentation that
# sees the labels of four subjects. The data are the embedded phantom: bodies that are computed, so that
# nothing is downloaded. Its figures say nothing of clinical data, and the runs here are far too short for a
# result: they show the way.
#
# A minute on two cores: `python tutorials/pretrain_and_finetune.py`

# %%
import os
import shutil
from pathlib import Path

import pandas as pd
from monai.bundle import run
from PIL import Image
from pretext3d.commands.bundles import bundles_at_hand

FOLDER = Path(os.environ.get("PRETEXT3D_TUTORIALS", "runs/tutorials")) / "pretrain_and_finetune"
shutil.rmtree(FOLDER, ignore_errors=True)  # what an earlier start of this tutorial has written
CONFIGS = bundles_at_hand()["vectorpose"] / "configs"
# a small network, small crops and few steps; without these keys the profile `laptop` trains for half an hour
SMALL = {
    "profile": "laptop", "encoder": "unet", "roi_size": [24, 24, 24], "batch_size": 4, "num_workers": 0,
    "steps_per_epoch": 15, "max_epochs": 2,
}  # fmt: skip

# %% [markdown]
# ## Pre-train
#
# What you type in a shell is `python -m monai.bundle run --config_file .../train.yaml --profile laptop
# ...`; from Python it is MONAI's `run` with the same keys. With `dataset_dir` it reads your folder. The
# network sees a distorted crop, and has to predict the crop, its boundaries, and for nine of its points the
# vector to the body's landmark.

# %%
pretrained = FOLDER / "pretrained"
run(config_file=str(CONFIGS / "train.yaml"), output_dir=str(pretrained), probe=None, **SMALL)

# %% [markdown]
# Every epoch writes a picture of a held-out case: the distorted crop, what is to be predicted, the
# prediction. `metrics.csv` has the errors; those that are *relative* are 1 for a prediction that has
# learned nothing.

# %%
history = pd.read_csv(pretrained / "metrics.csv")
print(history.filter(regex="epoch|loss|relative").round(3).to_string(index=False))
Image.open(sorted((pretrained / "pictures").glob("*.png"))[-1])

# %% [markdown]
# ## Fine-tune
#
# Encoder and decoder are transferred, the output layer is new; the log lists what was matched.
# `pretrained=""` would start from random weights, with all else the same: compare both before you rely on
# it (`pretext3d compare`). The voxels have the size of those in pre-training: weights transfer best at
# the spacing they were trained at.

# %%
segmentation = FOLDER / "segmentation"
run(
    config_file=str(CONFIGS / "finetune.yaml"),
    pretrained=str(pretrained),
    num_labelled=4,
    pixdim="pretrained",
    output_dir=str(segmentation),
    **{key: value for key, value in SMALL.items() if key != "encoder"},  # the weights know their own
)

# %% [markdown]
# ## Evaluate
#
# `evaluate.yaml` is written over `finetune.yaml`, as in MONAI's model zoo. It measures the subjects that
# neither stage has trained on, one line per case and class, in the geometry of the label files.

# %%
run(
    config_file=[str(CONFIGS / "finetune.yaml"), str(CONFIGS / "evaluate.yaml")],
    output_dir=str(segmentation),
)
print(pd.read_csv(segmentation / "evaluation_summary.csv").round(3).to_string(index=False))
