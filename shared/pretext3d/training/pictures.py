"""Pictures of the pretext task during training: the same held-out crops, epoch after epoch.

The method draws (`draw(volume, sample, pred, title)` -> a matplotlib figure); this module decides when and
where the figure is written.
"""

import contextlib
import io
import logging
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine, Events
from torch import nn

from pretext3d.data.dataset import CachedVolumes
from pretext3d.data.generated import GeneratedItems
from pretext3d.errors import UserError
from pretext3d.files import write_whole
from pretext3d.training.checkpoint_io import unwrap

__all__ = ["Pictures", "evaluating", "file_name", "predict", "render", "untouched_generators", "write_png"]

logger = logging.getLogger(__name__)


class Pictures:
    """Handler of a trainer: draws the same few crops after the first, every `interval`-th and the last epoch.

    Writes `output_dir`/pictures/epoch_0005_<case id>.png, and the same picture to TensorBoard under
    `pictures/<case id>`. Only rank 0 draws. The network's mode and the random generators are left
    unchanged. Without matplotlib there is one warning and no pictures.

    Args:
        dataset: Data set whose first crops of cases 0, 1, ... are drawn.
        network: Network in training; it may be wrapped for several processes.
        inferer: Inferer that calls the network, as in validation.
        draw: Figure of the method: from volume, sample, prediction (without batch axis) and title.
        output_dir: Folder of the run.
        device: Device of the network.
        num_cases: Number of crops; 0 = none.
        interval: Number of epochs between pictures.
        image_key: Key of the network's input.

    Raises:
        UserError: for a negative `num_cases` or an `interval` below 1.
    """

    def __init__(
        self,
        dataset: CachedVolumes | GeneratedItems,
        network: nn.Module,
        inferer: Callable[..., Any],
        draw: Callable[..., Any] | None,
        output_dir: str,
        device: torch.device | str,
        num_cases: int = 2,
        interval: int = 1,
        image_key: str = "image",
    ) -> None:
        if num_cases < 0:
            raise UserError(f"num_cases: found {num_cases}, expected the number of crops to draw, 0 for none")
        if interval < 1:
            raise UserError(f"interval: found {interval}, expected epochs between pictures, 1 or more")
        self.dataset, self.network, self.inferer, self.draw = dataset, network, inferer, draw
        self.output_dir, self.device = Path(output_dir), torch.device(device)
        self.interval, self.image_key = interval, image_key
        self.num_cases = min(num_cases, len(dataset.data))
        self.crops: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self.writer: Any = None

    def attach(self, engine: Engine) -> None:
        """Register with the trainer."""
        if self.num_cases == 0 or self.draw is None or idist.get_rank() > 0:
            return
        try:
            import matplotlib.figure  # noqa: F401
        except ImportError:
            logger.warning("no pictures of the training: matplotlib is not installed")
            return
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.end_epoch)
        engine.add_event_handler(Events.COMPLETED, self.end_run)

    def end_epoch(self, engine: Engine) -> None:
        """Draw, if pictures are due in this epoch."""
        epoch = engine.state.epoch
        if epoch % self.interval == 0 or epoch in (1, engine.state.max_epochs):
            with untouched_generators():
                self.write(epoch)

    def end_run(self, engine: Engine) -> None:
        """Close TensorBoard's file."""
        if self.writer is not None:
            self.writer.close()
            self.writer = None

    def write(self, epoch: int) -> None:
        """Draw the crops with the network's current predictions."""
        if self.draw is None:
            return
        if not self.crops:
            self.crops = [(self.dataset.volume(case), self.dataset[case]) for case in range(self.num_cases)]
        samples = [sample for _, sample in self.crops]
        preds = predict(self.network, self.inferer, samples, self.device, self.image_key)
        for case, ((volume, sample), pred) in enumerate(zip(self.crops, preds, strict=True)):
            name = str(volume.get("id", f"case {case}"))
            pixels = render(self.draw(volume, sample, pred, f"{name} (held out), epoch {epoch}"))
            path = self.output_dir / "pictures" / f"epoch_{epoch:04d}_{file_name(name)}.png"
            try:
                write_png(path, pixels)
                self.tensorboard(f"pictures/{file_name(name)}", pixels, epoch)
            except OSError as error:  # a full disk must not end a training over a picture
                logger.warning("picture %s could not be written: %s", path, error)

    def tensorboard(self, tag: str, pixels: np.ndarray, epoch: int) -> None:
        """Add the picture to the run's events."""
        if self.writer is None:
            try:
                from torch.utils.tensorboard.writer import SummaryWriter
            except ImportError:  # its other handlers have already reported a missing TensorBoard
                return
            self.writer = SummaryWriter(log_dir=str(self.output_dir))
        self.writer.add_image(tag, pixels, epoch, dataformats="HWC")


def predict(
    network: nn.Module,
    inferer: Callable[..., Any],
    samples: Sequence[Mapping[str, Any]],
    device: torch.device | str,
    image_key: str = "image",
) -> list[Any]:
    """Predictions for some samples, run as one batch in evaluation mode; one per sample, on the CPU.

    A prediction is the network's output, tensors in tuples, lists and dictionaries, without the batch axis.
    A wrapper for several processes is bypassed: one process must not wait for the others here.
    """
    network = unwrap(network)
    batch = torch.stack([torch.as_tensor(sample[image_key]) for sample in samples]).to(device)
    with evaluating(network), torch.no_grad():
        output = inferer(batch, network)
    return [element(output, index) for index in range(len(samples))]


@contextlib.contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """The network is in evaluation mode within the block; each module's mode is restored after it."""
    modes = {module: module.training for module in network.modules()}
    try:
        network.eval()
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def element(output: Any, index: int) -> Any:
    """One element of a batch, taken from each tensor in a structure of tuples, lists and dictionaries."""
    if isinstance(output, torch.Tensor):
        return output[index].detach().float().cpu()
    if isinstance(output, Mapping):
        return {key: element(value, index) for key, value in output.items()}
    if isinstance(output, tuple | list):
        return type(output)(element(value, index) for value in output)
    return output


@contextlib.contextmanager
def untouched_generators() -> Iterator[None]:
    """The global generators of Python, NumPy and torch are restored after the block."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def render(figure: Any) -> np.ndarray:
    """The pixels (height, width, 3), uint8, of a matplotlib figure; needs no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Write a picture (height, width, 3), uint8; the file appears complete or not at all."""
    from matplotlib.image import imsave

    buffer = io.BytesIO()
    imsave(buffer, pixels, format="png", pil_kwargs={"compress_level": 6})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, buffer.getvalue())


def file_name(case_id: str) -> str:
    """A case's id as part of a file name: only letters, digits, dot, minus and underscore.

    Examples:
        >>> file_name("scans/case 1.nii")
        'scans_case_1.nii'
    """
    return re.sub(r"[^\w.-]+", "_", case_id)
