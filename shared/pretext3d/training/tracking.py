"""What `--tracking mlflow` lacks: the run's parameters and its pictures in addition to MONAI's metrics."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from monai.bundle import ConfigParser
from monai.handlers import MLFlowHandler

from pretext3d.training.workflow import running_workflow

__all__ = ["MLflowDetails"]

MAX_VALUE_LENGTH = 500  # characters of a parameter's value: the limit of every MLflow store


class MLflowDetails:
    """Handler of a trainer: adds to the MLflow run that MONAI's handler opens; does nothing without one.

    It adds the parameters, nested ones as `backbone.encoder`, at the end of its first epoch, and the
    pictures, as artifacts in `pictures`, at the end of the run.

    `monai.bundle run --tracking mlflow` appends its handler to the configuration's `train#handlers` and has
    no key for the handler's `experiment_param` and `artifacts`: the handler is taken from the running
    configuration.

    Args:
        params: Settings of the run; longer values are cut after 500 characters.
        output_dir: Folder of the run, with pictures/*.png.
    """

    def __init__(self, params: Mapping[str, Any], output_dir: str) -> None:
        self.params, self.pictures = dict(leaves(params)), Path(output_dir) / "pictures"
        self.logged = False
        workflow = running_workflow()
        self.parser = workflow.parser if workflow is not None else ConfigParser({})

    def attach(self, engine: Engine) -> None:
        """Register with the trainer."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.log_params)
        engine.add_event_handler(Events.COMPLETED, self.log_pictures)

    def log_params(self, engine: Engine) -> None:
        """Log the parameters that the run does not have yet."""
        if self.logged:
            return
        self.logged = True
        for client, run in runs(self.parser):
            known = client.get_run(run).data.params
            for name, value in self.params.items():
                if name not in known:  # MONAI continues a run of the same name
                    client.log_param(run, name, value)

    def log_pictures(self, engine: Engine) -> None:
        """Copy every picture into the store."""
        for client, run in runs(self.parser):
            for path in sorted(self.pictures.glob("*.png")):
                client.log_artifact(run, str(path), "pictures")


def runs(parser: ConfigParser) -> Iterator[tuple[Any, str]]:
    """Client and identifier of each MLflow run that a handler of the configuration's trainer has open."""
    for handler in parser.get_parsed_content("train::handlers") if "train::handlers" in parser else ():
        if isinstance(handler, MLFlowHandler) and handler.cur_run is not None:
            yield handler.client, handler.cur_run.info.run_id


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Names, nested ones joined by dots, and values as text.

    Examples:
        >>> list(leaves({"seed": 0, "backbone": {"encoder": "unet"}}))
        [('seed', '0'), ('backbone.encoder', 'unet')]
    """
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value)[:MAX_VALUE_LENGTH]
