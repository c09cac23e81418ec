# %% [markdown]
# # Frozen features in 2D
#
# A pre-trained encoder as a function from an image to a vector, for scikit-learn or plain PyTorch: no
# fine-tuning, no configuration. The images are axial slices of the embedded phantom, bodies that are
# computed; the classes are the parts of the body that they come from. Its figures say nothing of clinical
# data.
#
# A minute on two cores: `python tutorials/frozen_features.py`

# %%
import os
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from monai.bundle import run
from PIL import Image
from pretext3d import load_pretrained
from pretext3d.commands.bundles import bundles_at_hand
from pretext3d.phantom.phantom import write_phantom
from sklearn.decomposition import PCA
from sklearn.metrics import balanced_accuracy_score
from sklearn.neighbors import KNeighborsClassifier

FOLDER = Path(os.environ.get("PRETEXT3D_TUTORIALS", "runs/tutorials")) / "frozen_features"
shutil.rmtree(FOLDER, ignore_errors=True)  # what an earlier start of this tutorial has written
PARTS = {"lower": 0.2, "middle": 0.5, "upper": 0.8}  # of a body's height

# %% [markdown]
# ## Pre-train without labels
#
# Rotation prediction, of every fourth slice of ten bodies, for a few steps. `spatial_dims=2` is all that
# makes a bundle 2D; with pictures or X-rays in `dataset_dir` you leave `slices` out.

# %%
bodies, others = (write_phantom(FOLDER, num_cases=10, seed=seed) for seed in (0, 1))
weights = FOLDER / "rotation"
run(
    config_file=str(bundles_at_hand()["rotation"] / "configs" / "train.yaml"),
    dataset_dir=str(bodies),
    spatial_dims=2,
    slices={"axis": 2, "every": 4},
    profile="laptop",
    max_epochs=2,
    steps_per_epoch=10,
    num_workers=0,
    probe=None,
    pictures=1,
    output_dir=str(weights),
)

# %% [markdown]
# ## Vectors
#
# `load_pretrained` rebuilds the network from the record in its weights, and brings the preprocessing that
# it was trained with. The methods that stretch a body to one size record no spacing, so images are resized
# to the network's input.

# %%
model = load_pretrained(weights, pixdim="resize")
for level in model.levels:
    print(level)


def vectors(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """One vector per body and part, and the part's number."""
    features, classes = [], []
    for path in sorted((folder / "imagesTr").glob("*.nii.gz")):
        height = nib.load(path).shape[2]
        for number, place in enumerate(PARTS.values()):
            item = {"image": str(path), "slice": int(place * height), "slice_axis": 2}
            features.append(model.pooled(model.preprocess(item)["image"]))
            classes.append(number)
    return np.stack(features), np.array(classes)


# %% [markdown]
# ## Nearest neighbours
#
# Two labelled bodies, and ten bodies that neither the pre-training nor the labels have, three slices of
# each. The same network with random weights is the baseline that counts: it is often better than one
# expects.


# %%
def accuracy() -> float:
    """Balanced accuracy of the nearest of six labelled slices; chance is one third."""
    known, classes = vectors(bodies)
    new, truth = vectors(others)
    reader = KNeighborsClassifier(n_neighbors=1, metric="cosine").fit(known[:6], classes[:6])
    return float(balanced_accuracy_score(truth, reader.predict(new)))


seen = vectors(others)
pretrained = accuracy()
for module in model.network.modules():
    if hasattr(module, "reset_parameters"):
        module.reset_parameters()
print(f"balanced accuracy: pre-trained {pretrained:.2f}, random weights {accuracy():.2f}, chance 0.33")
pretext = pd.read_csv(weights / "metrics.csv").iloc[-1]  # of the last validation
print(f"rotation accuracy after twenty steps: {pretext.rotation_accuracy:.2f}, chance {pretext.chance:.2f}")
print("With so few steps and slices the difference means nothing.")

# %% [markdown]
# `pretext3d probe` makes this comparison for longer runs,
# with intervals over subjects, several subsets of labels, and a baseline of mean intensities.

# %% [markdown]
# ## A picture of the features
#
# The two main directions of the pre-trained vectors, one point per slice.

# %%
points = PCA(2).fit_transform(seen[0])
figure = Figure(figsize=(4.5, 4), layout="constrained")
axes = figure.add_subplot(xlabel="first component", ylabel="second component")
for number, name in enumerate(PARTS):
    axes.scatter(*points[seen[1] == number].T, label=name)
axes.legend(frameon=False)
figure.savefig(FOLDER / "features.png", dpi=120)
Image.open(FOLDER / "features.png")
