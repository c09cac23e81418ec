"""A validation of a small network, as one of several processes or alone: its figures after three epochs.

python tests/training/sharded.py RANK WORLD PORT FOLDER prints one line of JSON.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.metrics import Accuracy
from monai.engines import SupervisedEvaluator
from monai.handlers import MeanDice, from_engine
from monai.transforms import AsDiscreted, Compose
from pretext3d.training.classification import ClassMetrics
from pretext3d.training.collapse import collapse_metrics
from pretext3d.training.metrics import SampleMean, ValidationLoss
from pretext3d.training.processes import ShareBuffers, ShareSampler, distribute, join
from torch import nn
from torch.utils.data import DataLoader

DEVICE = torch.device("cpu")
SIZES = [(5, 1), (7, 2), (1, 1)]  # numbers of cases, and of cases in a batch


def network(seed: int) -> nn.Module:
    """Three classes, on 4 x 4 x 4 voxels, with the running statistics of one training step."""
    torch.manual_seed(seed)
    made = nn.Sequential(nn.Conv3d(1, 4, 1), nn.BatchNorm3d(4), nn.ReLU(), nn.Conv3d(4, 3, 1))
    made(torch.randn(2, 1, 4, 4, 4))
    return made


def uneven(pred: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """A loss that is not the mean over its batch's samples: only the same batches give the same figure."""
    return (nn.functional.cross_entropy(pred, label[:, 0].long(), reduction="none") ** 2).sum().sqrt()


def evaluator(
    net: nn.Module, shared: nn.Module, data: list, batch_size: int, **options: Any
) -> SupervisedEvaluator:
    loader = DataLoader(data, batch_size, sampler=ShareSampler(data, batch_size))
    return SupervisedEvaluator(DEVICE, loader, net, val_handlers=[ShareBuffers(shared)], **options)


def figures(cases: int, batch_size: int, folder: Path) -> list[dict[str, float]]:
    """The metrics of a segmentation and of a classification after each of three epochs."""
    torch.manual_seed(7)
    volumes = [torch.randn(1, 4, 4, 4) for _ in range(cases)]
    data = [{"image": v, "label": (v > 0).long() + (v > 1), "id": str(n)} for n, v in enumerate(volumes)]
    classes = [{**item, "label": torch.tensor(n % 3)} for n, item in enumerate(data)]
    onehot = Compose([AsDiscreted("pred", argmax=True, to_onehot=3), AsDiscreted("label", to_onehot=3)])
    found = []
    for epoch in range(3):
        net = network(epoch)
        trained = distribute(net, DEVICE) if idist.get_world_size() > 1 else net
        trained(torch.randn(2, 1, 4, 4, 4) + idist.get_rank())  # running statistics of its own
        dice = MeanDice(include_background=False, output_transform=from_engine(["pred", "label"]))
        given = {"postprocessing": onehot, "key_val_metric": {"dice": dice}}
        segmentation = evaluator(net, net, data, batch_size, **given)
        mean = SampleMean(lambda output: output["pred"].flatten(1).mean(1))
        more = {"mean": mean} | collapse_metrics(lambda output: output["pred"].flatten(1))
        given = {"key_val_metric": {"loss": ValidationLoss(uneven)}, "additional_metrics": more}
        plain = evaluator(net, net, data, batch_size, decollate=False, **given)
        pooled = nn.Sequential(net, nn.AdaptiveAvgPool3d(1), nn.Flatten())
        judged = evaluator(pooled, net, classes, batch_size, key_val_metric={"ignite": Accuracy(batched)})
        ClassMetrics(str(folder), ["a", "b", "c"]).attach(judged)
        found.append({})
        for engine in (segmentation, plain, judged):
            engine.run()
            found[-1] |= {name: float(value) for name, value in engine.state.metrics.items()}
    return found


def batched(output: list[dict[str, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
    return tuple(torch.stack([torch.as_tensor(item[key]) for item in output]) for key in ("pred", "label"))


if __name__ == "__main__":
    rank, world, port, folder = sys.argv[1:]
    torch.set_num_threads(1)
    if int(world) > 1:
        os.environ |= {"RANK": rank, "WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        join(DEVICE)
    print(json.dumps([figures(*sizes, Path(folder, str(sizes[0]))) for sizes in SIZES]))
    idist.finalize()
