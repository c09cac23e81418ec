"""The checks of verify.py that run the bundle's own code, in the environment that it is meant for.

Started by verify_runs.py, in a process of its own whose Python has MONAI and what metadata.json requires:

    python -P verify_inside.py BUNDLE OUTPUT REPORT

BUNDLE is the unpacked bundle, OUTPUT the folder with the runs `train` and `finetune`, REPORT the JSON file
that gets a list of [check, status, text]. Nothing is imported here but what such an environment has.
"""

import importlib.metadata
import importlib.util
import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

Verdict = tuple[str, str]  # status, text


class Inside:
    """The bundle's configurations, made into workflows as MONAI makes them.

    Args:
        bundle: the unpacked bundle.
        output: the folder of the runs.
    """

    def __init__(self, bundle: Path, output: Path) -> None:
        self.bundle, self.output = bundle, output
        self.metadata = json.loads((bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))
        self.workflows: dict[str, Any] = {}

    def has(self, config: str) -> bool:
        """Whether the bundle has that configuration."""
        return (self.bundle / "configs" / f"{config}.yaml").is_file()

    def weights(self) -> Path | None:
        """What inference.yaml is to segment with, if it is not the bundle's own: the fine-tuned run."""
        run = self.output / "finetune"
        return run if (run / "checkpoints").is_dir() else None

    def workflow(self, config: str) -> Any:
        """The initialised workflow of a configuration."""
        from monai.bundle import ConfigWorkflow

        if config not in self.workflows:
            keys: dict[str, Any] = {"output_dir": str(self.output / f"inside_{config}")}
            made = ConfigWorkflow(
                config_file=str(self.bundle / "configs" / f"{config}.yaml"),
                workflow_type="infer" if config == "inference" else "train",
                logging_file=False,
                **{**keys, **self.overrides(config)},
            )
            made.initialize()
            self.workflows[config] = made
        return self.workflows[config]

    def overrides(self, config: str) -> dict[str, Any]:
        """What takes the place of a configuration's defaults: small settings, the weights of the runs."""
        if config == "inference":
            return {"pretrained": str(self.weights())} if self.weights() else {}
        from monai.bundle import ConfigParser

        found = ConfigParser.load_config_file(str(self.bundle / "configs" / f"{config}.yaml"))
        keys = {"profile": "laptop"} if "laptop" in found.get("profiles", {}) else {}
        return {**keys, "pretrained": str(self.output / "train")} if config == "finetune" else keys

    def network(self) -> Any:
        """The network that metadata.json describes: the one of inference.yaml."""
        return self.workflow("inference").network_def.to("cpu").eval()

    def fake_input(self) -> Any:
        """Noise as metadata.json describes the image: (1, num_channels, *spatial_shape) in value_range."""
        import torch

        image = self.metadata["network_data_format"]["inputs"]["image"]
        low, high = (image.get("value_range") or [0, 1])[:2]
        noise = torch.rand(1, image["num_channels"], *image["spatial_shape"])
        return (noise * (high - low) + low).to(getattr(torch, image["dtype"]))


def package(inside: Inside) -> Verdict:
    """The code that runs is the bundle's own, and the environment has none."""
    elsewhere = importlib.util.find_spec("pretext3d")
    if elsewhere is not None:
        return "failed", f"found {elsewhere.origin} in the environment; expected none"
    inside.workflow("train")
    import pretext3d

    place = Path(str(pretext3d.__file__)).resolve()
    if not place.is_relative_to(inside.bundle.resolve()):
        return "failed", f"found {place}; expected the one in the bundle"
    return "passed", f"pretext3d {pretext3d.__version__} of the bundle itself"


def versions(inside: Inside) -> Verdict:
    """What is installed is what metadata.json requires."""
    told = {
        "monai": inside.metadata["monai_version"],
        "torch": inside.metadata["pytorch_version"],
        "numpy": inside.metadata["numpy_version"],
        **inside.metadata["required_packages_version"],
    }
    wrong = []
    for name, version in told.items():
        try:
            found = importlib.metadata.version(name).split("+")[0]  # torch's build follows the plus
        except importlib.metadata.PackageNotFoundError:
            found = "none"
        if found != version:
            wrong.append(f"{name} {found} instead of {version}")
    if wrong:
        return "failed", f"found {', '.join(wrong)}; expected what metadata.json says"
    return "passed", f"{len(told)} packages, Python {sys.version.split()[0]}"


def properties(inside: Inside) -> Verdict:
    """MONAI finds what it looks for in each configuration."""
    names = [name for name in ("train", "finetune", "inference") if inside.has(name)]
    wrong = [
        f"{name}: {', '.join(missing)}"
        for name in names
        if (missing := inside.workflow(name).check_properties())
    ]
    if wrong:
        return "failed", f"found none or wrong ids in {'; '.join(wrong)}; expected every property of MONAI's"
    return "passed", ", ".join(names)


def in_and_out(inside: Inside) -> Verdict:
    """The network takes the input of metadata.json and gives its output."""
    import torch

    with torch.no_grad():
        given = inside.network()(inside.fake_input())
    told = inside.metadata["network_data_format"]["outputs"]
    if isinstance(given, torch.Tensor):
        given = {next(iter(told)): given}
    elif isinstance(given, list | tuple):
        given = dict(zip(told, given, strict=False))
    wrong = []
    for name, entry in told.items():
        expected = (1, entry["num_channels"], *entry["spatial_shape"]), f"torch.{entry['dtype']}"
        tensor = given.get(name)
        found = None if tensor is None else (tuple(tensor.shape), str(tensor.dtype))
        if found != expected:
            wrong.append(f"{name}: found {found}, expected {expected}")
    if wrong:
        return "failed", "; ".join(wrong)
    shape = "x".join(map(str, inside.fake_input().shape[1:]))
    return "passed", f"{shape} to {', '.join('x'.join(map(str, given[n].shape[1:])) for n in told)}"


def handover(inside: Inside) -> Verdict:
    """Every weight of the pre-trained encoder is in the network that finetune.yaml makes."""
    if not inside.has("finetune"):
        return "skipped", "no finetune.yaml: this bundle is trained on labels"
    import torch

    files = [inside.output / "train" / "checkpoints" / name for name in ("best.pt", "final.pt")]
    source = torch.load(next(file for file in files if file.is_file()), weights_only=True)["network"]
    network = inside.workflow("finetune").network_def
    beside = tuple(f"backbone.{name}." for name in getattr(network.backbone, "beside_encoder", ()))
    there = {
        k: v for k, v in source.items() if k.startswith("backbone.") and not k.startswith(beside or ("\0",))
    }
    here = network.state_dict()
    lost = [
        name for name, value in there.items() if name not in here or not torch.equal(here[name].cpu(), value)
    ]
    new = [
        k
        for k in here
        if k.startswith("backbone.") and not k.startswith(beside or ("\0",)) and k not in there
    ]
    if lost or new or not there:
        found = f"{len(there) - len(lost)} of {len(there)} encoder tensors handed over, {len(new)} new"
        return "failed", f"found {found} ({(lost + new + ['none there'])[0]}); expected all"
    return "passed", f"all {len(there)} tensors of the encoder"


def weights(inside: Inside) -> Verdict:
    """Every checkpoint holds tensors and plain containers only."""
    import torch

    own = sorted((inside.bundle / "models").glob("*.pt"))
    runs = sorted(inside.output.glob("*/checkpoints/*.pt"))
    for file in own + runs:
        try:
            content = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:
            return "failed", f"{file.name}: {first_line(error)}; expected what loads with weights_only=True"
        if not isinstance(content, dict):
            return "failed", f"{file.name}: found {type(content).__name__}; expected a dictionary"
    if not own + runs:
        return "skipped", "no weights in models/"
    return "passed", f"{len(own)} in models/ and {len(runs)} of the runs load with weights_only=True"


def torchscript(inside: Inside) -> Verdict:
    """The network as TorchScript, by tracing, gives what it gives itself."""
    import torch
    from monai.networks.utils import convert_to_torchscript

    network, image = inside.network(), inside.fake_input()
    path = inside.output / "model.ts"
    convert_to_torchscript(network, filename_or_obj=str(path), use_trace=True, inputs=[image])
    other = inside.fake_input()
    with torch.no_grad():
        error = float((torch.jit.load(str(path))(other) - network(other)).abs().max())
    if error > 1e-4:
        return "failed", f"found outputs {error:.2g} apart; expected up to 0.0001"
    return "passed", f"traced, {path.stat().st_size / 1e6:.1f} MB, outputs {error:.1g} apart"


def onnx(inside: Inside) -> Verdict:
    """The network as ONNX, where the packages are installed."""
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        return "skipped", f"{missing[0]} not installed"
    from monai.networks.utils import convert_to_onnx

    made = convert_to_onnx(inside.network(), inputs=[inside.fake_input()])
    return "passed", f"{len(made.graph.node)} nodes"


def first_line(error: BaseException) -> str:
    """The innermost reason of an exception in one line: MONAI wraps each error in several others."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]


CHECKS: dict[str, Callable[[Inside], Verdict]] = {
    "package": package,
    "installed versions": versions,
    "properties": properties,
    "network in and out": in_and_out,
    "hand-over": handover,
    "weights": weights,
    "TorchScript": torchscript,
    "ONNX": onnx,
}


def main() -> None:
    """Run every check; one that raises has failed."""
    bundle, output, report = map(Path, sys.argv[1:])
    warnings.simplefilter("ignore")
    inside = Inside(bundle, output)
    results = []
    for name, check in CHECKS.items():
        try:
            status, text = check(inside)
        except (Exception, SystemExit) as error:
            status, text = "failed", first_line(error)
        results.append((name, status, text))
    report.write_text(json.dumps(results), encoding="utf-8")


if __name__ == "__main__":
    main()
