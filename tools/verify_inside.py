"""The checks of verify.py that run the bundle's own code, in the environment that it is meant for.

Started by verify_runs.py, in its own process, whose Python has MONAI and what metadata.json requires:

    python -P verify_inside.py BUNDLE OUTPUT REPORT

BUNDLE is the unpacked bundle, OUTPUT the folder with the runs `train` and `finetune`, REPORT the JSON file
that receives a list of [check, status, text]. Only packages of such an environment are imported here.
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
    """The bundle's configurations, as MONAI's workflows.

    Args:
        bundle: Folder of the unpacked bundle.
        output: Folder of the runs.
        dataset_dir: Data set of the runs; '' = the embedded phantom.
    """

    def __init__(self, bundle: Path, output: Path, dataset_dir: str = "") -> None:
        self.bundle, self.output, self.dataset_dir = bundle, output, dataset_dir
        self.metadata = json.loads((bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))
        self.workflows: dict[str, Any] = {}

    def has(self, config: str) -> bool:
        """Whether the bundle has that configuration."""
        return (self.bundle / "configs" / f"{config}.yaml").is_file()

    def workflow(self, config: str, pretrained: Path | None = None) -> Any:
        """The initialised workflow of a configuration, with these weights or its default ones."""
        from monai.bundle import ConfigWorkflow

        key = f"{config} {pretrained or ''}"
        if key not in self.workflows:
            keys: dict[str, Any] = {"output_dir": str(self.output / f"inside_{len(self.workflows)}")}
            keys |= {"pretrained": str(pretrained)} if pretrained else {}
            made = ConfigWorkflow(
                config_file=str(self.bundle / "configs" / f"{config}.yaml"),
                workflow_type="infer" if config == "inference" else "train",
                logging_file=False,
                **{**keys, **self.small(config)},
            )
            made.initialize()
            self.workflows[key] = made
        return self.workflows[key]

    def small(self, config: str) -> dict[str, Any]:
        """The laptop profile, where a configuration has one, and the data of the runs."""
        from monai.bundle import ConfigParser

        found = ConfigParser.load_config_file(str(self.bundle / "configs" / f"{config}.yaml"))
        keys = {"profile": "laptop"} if "laptop" in found.get("profiles", {}) else {}
        folder = str(self.output / "scans") if config == "inference" else self.dataset_dir
        return {**keys, "dataset_dir": folder} if self.dataset_dir else keys

    def inference(self) -> Any:
        """The workflow of inference.yaml, with the weights that its run had."""
        own = (self.output / "inference" / "own_weights").is_file()
        return self.workflow("inference", None if own else self.output / "finetune")

    def network(self) -> Any:
        """The network that metadata.json describes: the one of inference.yaml."""
        return self.inference().network_def.to("cpu").eval()

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
    """The installed versions are those that metadata.json requires."""
    required = {
        "monai": inside.metadata["monai_version"],
        "torch": inside.metadata["pytorch_version"],
        "numpy": inside.metadata["numpy_version"],
        **inside.metadata["required_packages_version"],
    }
    wrong = []
    for name, version in required.items():
        try:
            found = importlib.metadata.version(name).split("+")[0]  # torch's build follows the plus
        except importlib.metadata.PackageNotFoundError:
            found = "none"
        if found != version:
            wrong.append(f"{name} {found} instead of {version}")
    if wrong:
        return "failed", f"found {', '.join(wrong)}; expected what metadata.json says"
    return "passed", f"{len(required)} packages, Python {sys.version.split()[0]}"


def properties(inside: Inside) -> Verdict:
    """MONAI finds its properties in each configuration."""
    names = [name for name in ("train", "finetune") if inside.has(name)]
    workflows = {name: inside.workflow(name) for name in names} | {"inference": inside.inference()}
    found = {name: workflow.check_properties() for name, workflow in workflows.items()}
    wrong = [f"{name}: {', '.join(missing)}" for name, missing in found.items() if missing]
    if wrong:
        return "failed", f"found none or wrong ids in {'; '.join(wrong)}; expected every property of MONAI's"
    return "passed", ", ".join(found)


def in_and_out(inside: Inside) -> Verdict:
    """The network takes the input of metadata.json and gives its output."""
    import torch

    with torch.no_grad():
        given = inside.network()(inside.fake_input())
    formats = inside.metadata["network_data_format"]["outputs"]
    if isinstance(given, torch.Tensor):
        given = {next(iter(formats)): given}
    elif isinstance(given, list | tuple):
        given = dict(zip(formats, given, strict=False))
    wrong = []
    for name, entry in formats.items():
        expected = (1, entry["num_channels"], *entry["spatial_shape"]), f"torch.{entry['dtype']}"
        tensor = given.get(name)
        found = None if tensor is None else (tuple(tensor.shape), str(tensor.dtype))
        if found != expected:
            wrong.append(f"{name}: found {found}, expected {expected}")
    if wrong:
        return "failed", "; ".join(wrong)
    shape = "x".join(map(str, inside.fake_input().shape[1:]))
    return "passed", f"{shape} to {', '.join('x'.join(map(str, given[n].shape[1:])) for n in formats)}"


def transfer(inside: Inside) -> Verdict:
    """Every weight of the pre-trained encoder is in the network that finetune.yaml builds."""
    if not inside.has("finetune"):
        return "skipped", "no finetune.yaml: this bundle is trained on labels"
    lines = []
    own = [inside.bundle] if (inside.bundle / "models" / "model.pt").is_file() else []
    for source in [inside.output / "train", *own]:
        files = [source / "checkpoints" / "best.pt", source / "checkpoints" / "final.pt"]
        file = next((one for one in files if one.is_file()), source / "models" / "model.pt")
        status, text = transferred(file, inside.workflow("finetune", source).network_def)
        if status == "failed":
            return status, f"{file.name}: {text}"
        lines.append(f"{text} from {'models/' if source in own else 'two iterations of pre-training'}")
    return "passed", "; ".join(lines)


def transferred(file: Path, network: Any) -> Verdict:
    """Whether a network holds every encoder tensor of a checkpoint, and no other."""
    import torch

    source = torch.load(file, map_location="cpu", weights_only=True)["network"]
    outside = tuple(f"backbone.{name}." for name in getattr(network.backbone, "outside_encoder", ()))

    def encoder(state: dict[str, Any]) -> dict[str, Any]:
        return {k: v for k, v in state.items() if k.startswith("backbone.") and not k.startswith(outside)}

    there, here = encoder(source), encoder(network.state_dict())
    lost = [k for k, v in there.items() if k not in here or not torch.equal(here[k].cpu(), v)]
    new = [k for k in here if k not in there]
    if lost or new or not there:
        found = f"{len(there) - len(lost)} of {len(there)} encoder tensors transferred, {len(new)} new"
        return "failed", f"found {found} ({[*lost, *new, 'none there'][0]}); expected all"
    return "passed", f"all {len(there)} encoder tensors"


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
    """The network as TorchScript, by tracing, gives the same output."""
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
    """The innermost reason of an exception on one line: MONAI wraps each error in several others."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]


CHECKS: dict[str, Callable[[Inside], Verdict]] = {
    "package": package,
    "installed versions": versions,
    "properties": properties,
    "network in and out": in_and_out,
    "transfer of weights": transfer,
    "weights": weights,
    "TorchScript": torchscript,
    "ONNX": onnx,
}


def main() -> None:
    """Run every check; one that raises has failed."""
    bundle, output, report = map(Path, sys.argv[1:4])
    warnings.simplefilter("ignore")
    inside = Inside(bundle, output, *sys.argv[4:])
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
