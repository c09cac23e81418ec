"""The arms of the comparison: what each hides, whether it reads labels, and the two that do not in-paint.

Kayal S, Chen S, de Bruijne M. Region-of-Interest Guided Supervoxel Inpainting for Self-supervision. MICCAI
2020, section 3.2.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from monai.transforms import (
    CastToTyped,
    Compose,
    EnsureTyped,
    RandCropByPosNegLabeld,
    SelectItemsd,
    Spacingd,
    SpatialPadd,
)
from torch import nn

from pretext3d.checking import one_of
from pretext3d.data.loading import (
    LoadCased,
    OnImageGridd,
    PlainOrientationd,
    ScaleToUnitd,
    SelectChannelsd,
)
from pretext3d.training.checkpoint_io import save_checkpoint, unwrap
from pretext3d.transforms.labels import LabelToClassd

__all__ = ["Untrained", "choose_arm", "loading", "preprocessing"]

logger = logging.getLogger(__name__)


KEPT = ("image", "clean", "mask", "inside", "crop_start", "crop_size")  # of an in-painting's sample


class Arm(NamedTuple):
    """What one arm does: its task, the regions that it hides and whether they are of the foreground."""

    task: str = "inpainting"
    regions: str = "cuboids"
    roi: bool = False
    untrained: bool = False


ARMS = {
    "roi-supervoxel": Arm(regions="supervoxels", roi=True),
    "noroi-supervoxel": Arm(regions="supervoxels"),
    "roi-grid": Arm(roi=True),
    "noroi-grid": Arm(),
    "restart-unet": Arm(task="segmentation", roi=True),
    "vanilla-unet": Arm(untrained=True),
}


def choose_arm(arm: str, label_fraction: float = 1.0, num_labelled: int = 0) -> dict[str, Any]:
    """What follows from an arm of section 3.2, for the configuration.

    Args:
        arm: Name of the arm.
        label_fraction: Part of the labelled training subjects. Below 1 every arm reads labels, so that all
            use the same subjects.
        num_labelled: Number of these subjects instead; 0 = by `label_fraction`.

    Returns:
        task: inpainting or segmentation. segmenting: whether it is the latter. regions: supervoxels or
        cuboids. supervoxels: whether it is the former. roi: whether only the foreground is hidden. untrained:
        whether no step is made. labelled: whether labels are read. purpose: that of `prepare_cases`.
        recorded_as: method in the checkpoint's record. target_keys: targets of the loss. wrote: files of the
        run.

    Raises:
        UserError: no such arm.

    Examples:
        >>> chosen = choose_arm("noroi-grid")
        >>> chosen["regions"], chosen["labelled"], chosen["purpose"]
        ('cuboids', False, 'pretraining')
        >>> choose_arm("noroi-grid", num_labelled=8)["labelled"]
        True
    """
    chosen = ARMS[one_of("arm", arm, ARMS)]
    segmenting = chosen.task == "segmentation"
    labelled = chosen.roi or label_fraction != 1 or num_labelled != 0
    files = ["checkpoints/final.pt (initial weights)"]
    if not chosen.untrained:
        files = [
            "checkpoints/best.pt (weights for fine-tuning)",
            "checkpoints/final.pt (last step)",
            "metrics.csv (one line per epoch)",
            "pictures",
        ]
    return {
        **chosen._asdict(),
        "segmenting": segmenting,
        "supervoxels": chosen.regions == "supervoxels",
        "labelled": labelled,
        "purpose": "guided" if labelled else "pretraining",
        "recorded_as": "segmentation" if segmenting else "supervoxel_inpainting",
        "target_keys": ["label"] if segmenting else ["clean", "mask", "inside"],
        "wrote": [*files, "config.yaml", "log.txt"],
    }


def loading(
    labelled: bool,
    labels: Mapping[str, Any] | None,
    normalisation: Mapping[str, Any],
    channels: int | Sequence[int] | None = None,
    pixdim: Sequence[float] = (),
    spatial_dims: int = 3,
    frames: str | int | Sequence[int] | None = None,
) -> list[Callable[[Any], Any]]:
    """The deterministic transforms that load a case, kept in cache_dir.

    They are those of the other configurations, to the last argument; a test compares them. As a list in YAML
    each would need a condition, since some arms read labels and some do not.

    Args:
        labelled: Whether the label is loaded, too.
        labels: Classes of the label values, see `LabelToClassd`.
        normalisation: Scaling of the intensities, see `ScaleToUnitd`.
        channels: Indices of the channels to use; None = all.
        pixdim: Spacing to resample to, mm; empty = none.
        spatial_dims: Number of spatial axes.
        frames: What to use of a fourth axis of time, see `LoadCased`.
    """
    read = ["image", "label"][: 1 + labelled]
    modes, dtypes = ["bilinear", "nearest"][: len(read)], [torch.float32, torch.uint8][: len(read)]
    return [
        LoadCased(read, spatial_dims=spatial_dims, frames=frames),
        *([OnImageGridd("label"), LabelToClassd("label", labels=labels or {})] if labelled else []),
        SelectChannelsd("image", channels=channels),
        PlainOrientationd(read, axcodes="RAS"),
        *([Spacingd(read, pixdim=pixdim, mode=modes)] if pixdim else []),
        ScaleToUnitd("image", normalisation=normalisation),
        CastToTyped(read, dtype=dtypes),
    ]


def preprocessing(
    load: Sequence[Callable[[Any], Any]],
    inpainting: Sequence[Callable[[Any], Any]],
    task: str = "inpainting",
    roi_size: Sequence[int] = (),
) -> Compose:
    """The transforms of an arm: those that load a case, then those of its task, then the choice of keys.

    Arm restart-unet has the crops of `finetune.yaml`, two of three on the foreground, without augmentation.

    Args:
        load: Transforms that load a case.
        inpainting: Transforms that find a region and hide it.
        task: Task of the arm, inpainting or segmentation.
        roi_size: Size of the crops of a segmentation, voxels.
    """
    if task == "inpainting":
        return Compose([*load, *inpainting, SelectItemsd(KEPT)])
    keys = ("image", "label")
    crops = [
        SpatialPadd(keys, spatial_size=roi_size),
        RandCropByPosNegLabeld(keys, label_key="label", spatial_size=roi_size, pos=2),
        SelectItemsd(keys),
        EnsureTyped(keys, track_meta=False),
    ]
    return Compose([*load, *crops])


class Untrained:
    """Handler of a trainer that takes no step: final.pt holds the initial weights (arm vanilla-unet).

    It has to be attached after the checkpointer, which makes sure that no run is overwritten.

    Args:
        ckpt_dir: Folder of the checkpoint.
        network: Network whose weights are written.
        record: Record of the run.
        trainer: Trainer to attach to; None = the caller attaches.
    """

    def __init__(
        self, ckpt_dir: str, network: nn.Module, record: dict[str, Any], trainer: Engine | None = None
    ) -> None:
        self.path, self.network, self.record = Path(ckpt_dir) / "final.pt", network, record
        if trainer is not None:
            self.attach(trainer)

    def attach(self, engine: Engine) -> None:
        """Register with the trainer."""
        engine.add_event_handler(Events.STARTED, self.start_run)

    def start_run(self, engine: Engine) -> None:
        """Write, and end the run."""
        logger.info(
            "this arm is not pre-trained: no step is made, %s holds the initial weights", self.path.name
        )
        if idist.get_rank() == 0:
            network = unwrap(self.network).state_dict()
            content = {"record": self.record, "network": network, "epoch": 0}
            save_checkpoint(self.path, {**content, "best_metric": None, "best_epoch": None})
        engine.terminate()
