"""The folder of a bundle for a model hub: the files of its zip, and a model card with YAML front matter.

MONAI's source `huggingface_hub` downloads such a repository as it is into `BUNDLE_DIR/NAME`, and expects
there what a zip has: configs/metadata.json, configs/*.json, models/model.pt. The front matter has the keys of
the hub's model cards (https://huggingface.co/docs/hub/model-cards); its figures are those of a study.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from pretext3d.errors import UserError
from pretext3d.files import draft_folder, sha256_of
from pretext3d.publishing.archive import differing_files, read_metadata
from pretext3d.publishing.contents import leftover
from pretext3d.publishing.provenance import MODEL, read_provenance

__all__ = ["BundleResult", "hub_card", "write_hub_folder"]

# the hub's identifiers of licences that data sets have; the code's is the first
LICENCES = {
    "apache-2.0", "mit", "cc0-1.0", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nd-4.0",
    "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cc-by-nc-nd-4.0", "odbl", "pddl",
    "odc-by", "bsd-3-clause",
}  # fmt: skip
DATASET = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
WEIGHTS = """## Weights

| folder | data | licence |
|---|---|---|
{rows}

```python
from pretext3d import load_pretrained

model = load_pretrained("{place}")
image = model.preprocess("scan.nii.gz")["image"]
maps, vector = model.encode(image), model.pooled(image)
```"""
RESULTS = """## Results

Of the method, in the study {studies}, and **not of the weights in this folder**: {source}, fine-tuned with
few labels, mean over the seeds, on test subjects. Differences are to random weights with the same
fine-tuning, and with one schedule as long as pre-training and fine-tuning together, each with its 95 %
interval and corrected p-value.

| task | setting | metric | score | to random weights | to random weights, as long |
|---|---|---|---|---|---|"""
Weights = Mapping[str, Mapping[str, Any]]  # provenance of weights, by their folder in the bundle
TRAINED = "pre-trained for each task on its training subjects"
GENERATED = "pre-trained on generated volumes, without any scan"
TASKS = {"segmentation": "image-segmentation", "classification": "image-classification"}


class BundleResult(NamedTuple):
    """A score of a bundle's method in a study.

    Attributes:
        study: Name of the study.
        task: Name of the task, which is that of its data set.
        setting: Encoder, arm and number of labelled subjects, as text.
        metric: Identifier of the metric, as dice or balanced_accuracy.
        title: Name of the metric.
        score: Mean over the seeds.
        difference: Difference to random weights, with its interval and its p-value, as text.
        difference_long: Difference to random weights that were trained longer, likewise.
    """

    study: str
    task: str
    setting: str
    metric: str
    title: str
    score: float
    difference: str
    difference_long: str


def hub_card(bundle: Path, results: Sequence[BundleResult] = ()) -> str:
    """README.md of a bundle on a hub: front matter, and a text for people.

    Args:
        bundle: Folder of the bundle.
        results: Scores of its method; none = the card has no metrics.

    Raises:
        UserError: no metadata.json, or a provenance.json that is not JSON.
    """
    metadata = read_metadata(bundle / "configs" / "metadata.json")
    weights = weights_of(bundle)
    header = yaml.safe_dump(
        front_matter(bundle.name, weights, results), sort_keys=False, allow_unicode=True, width=100
    )
    return f"---\n{header}---\n\n{text_of(bundle, metadata, weights, results)}"


def weights_of(bundle: Path) -> Weights:
    """The provenance of a bundle's weights, by their folder in it: models, models/NAME of further ones.

    Those of a 2D network come last: the first ones are those that the commands of the card use.
    """
    models = bundle / "models"
    folders = [models, *sorted(path for path in models.glob("*") if path.is_dir())]
    found = {
        folder.relative_to(bundle).as_posix(): read_provenance(folder)
        for folder in folders
        if (folder / MODEL).is_file()
    }
    return dict(sorted(found.items(), key=lambda one: one[1].get("spatial_dims", 3) == 2))


def front_matter(name: str, weights: Weights, results: Sequence[BundleResult]) -> dict[str, Any]:
    """The YAML front matter of a card.

    Args:
        name: Name of the bundle.
        weights: Provenance of its weights, by their folder.
        results: Scores of its method.

    Examples:
        >>> front_matter("jigsaw", {"models": {"licence": "CC BY 4.0", "data": "lab/scans"}}, [])["datasets"]
        ['lab/scans']
    """
    licences = sorted({str(one.get("licence", "not named")) for one in weights.values()})
    front: dict[str, Any] = licence(" and ".join(licences) or "Apache-2.0", next(iter(weights), ""))
    front["library_name"] = "monai"
    if weights:
        front["pipeline_tag"] = TASKS["segmentation"] if segments(weights) else "image-feature-extraction"
    methods = [str(one.get("method", name)) for one in weights.values()] or [name]
    tags = ["monai", "medical", "medical-imaging", "self-supervised-learning", "pretext3d", *methods]
    front["tags"] = list(dict.fromkeys(tags))
    data = dict.fromkeys(str(one.get("data") or "") for one in weights.values())
    if named := [one for one in data if DATASET.fullmatch(one)]:
        front["datasets"] = named
    if results:
        front["metrics"] = list(dict.fromkeys(result.metric for result in results))
    return front


def segments(weights: Weights) -> bool:
    """Whether the weights are of a promoted bundle, which segments without fine-tuning."""
    return "labels" in weights.get("models", {})


def licence(words: str, folder: str = "models") -> dict[str, str]:
    """The keys for a licence: weights inherit that of their data.

    Args:
        words: Licence in words.
        folder: Folder of the weights in the bundle, whose README.md has more.

    Examples:
        >>> licence("Apache-2.0"), licence("CC BY-SA 4.0")
        ({'license': 'apache-2.0'}, {'license': 'cc-by-sa-4.0'})
        >>> licence("ours, not to be passed on")["license_name"]
        'ours-not-to-be-passed-on'
    """
    identifier = re.sub(r"[^a-z0-9.]+", "-", words.lower()).strip("-")
    if identifier in LICENCES:
        return {"license": identifier}
    named = {"license": "other", "license_name": identifier or "not-named"}
    return {**named, "license_link": f"{folder}/README.md"}


def text_of(
    bundle: Path, metadata: Mapping[str, Any], weights: Weights, results: Sequence[BundleResult]
) -> str:
    """The text of a card, in Markdown."""
    name, train = bundle.name, bundle / "configs" / "train.yaml"
    reads = not train.is_file() or "datalist" in yaml.safe_load(train.read_text(encoding="utf-8"))
    intended, references = metadata.get("intended_use"), metadata.get("references", [])
    parts = [
        f"# {metadata.get('name', name)}",
        str(metadata.get("description", "")),
        f"**Intended use**: {intended}" if intended else "",
        f"## Use\n\n{commands(name, weights, reads)}",
        weights_section(name, weights) if weights else "",
        results_table(results, reads) if results else "",
        "## References\n\n" + "\n".join(f"- {each}" for each in references) if references else "",
        "The method, its keys and its limits: [docs/README.md](docs/README.md).",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def place_of(name: str, weights: Weights) -> str:
    """The path that a bundle's first weights are taken from: its own folder, or that of further ones.

    Examples:
        >>> place_of("cpc", {"models": {}}), place_of("avsdb", {"models/transformer": {}})
        ('cpc', 'avsdb/models/transformer')
    """
    folder = next(iter(weights))
    return name if folder == "models" else f"{name}/{folder}"


def commands(name: str, weights: Weights, reads: bool) -> str:
    """The commands that download a bundle and run it; `reads`: whether its pre-training reads scans."""
    run = f"python -m monai.bundle run --config_file {name}/configs"
    lines = [
        "python -m monai.bundle download --source huggingface_hub \\",
        f"    --repo OWNER/{name} --name {name} --bundle_dir .",
        f"pip install -r {name}/requirements.txt",
    ]
    if segments(weights):
        lines += [f"{run}/inference.yaml --dataset_dir SCANS --output_dir segmentations"]
    else:
        start = place_of(name, weights) if weights else f"runs/{name}"
        lines += [
            f"{run}/train.yaml{' --dataset_dir SCANS' * reads} --output_dir runs/{name}",
            f"{run}/finetune.yaml --dataset_dir LABELLED --pretrained {start}",
        ]
    return "\n".join(["```sh", *lines, "```"])


def weights_section(name: str, weights: Weights) -> str:
    """The section of the weights: their data and licences, and how Python loads them."""
    rows = [
        f"| [{folder}]({folder}/README.md) | {one.get('data') or 'not named'} "
        f"| {one.get('licence') or 'not named'} |"
        for folder, one in weights.items()
    ]
    return WEIGHTS.format(rows="\n".join(rows), place=place_of(name, weights))


def results_table(results: Sequence[BundleResult], reads: bool) -> str:
    """The section of a study's scores; `reads`: whether the pre-training reads scans."""
    studies = ", ".join(dict.fromkeys(result.study for result in results))
    rows = [
        f"| {one.task} | {one.setting} | {one.title} | {one.score:.3f} | {one.difference} "
        f"| {one.difference_long} |"
        for one in results
    ]
    return "\n".join([RESULTS.format(studies=studies, source=TRAINED if reads else GENERATED), *rows])


def write_hub_folder(folder: Path, files: Mapping[str, bytes], force: bool = False) -> str:
    """Write a folder, completely or not at all; one that is replaced is moved aside, and removed at the end.

    Args:
        folder: Path of the folder.
        files: Content of its files, by their names in it.
        force: Whether to replace a bundle with other content.

    Returns:
        `written`, `same` or `replaced`.

    Raises:
        UserError: a folder with other content, or with files that no bundle has.
    """
    state = "written"
    with draft_folder(folder) as aside, draft_folder(folder) as draft:
        for name, content in files.items():
            target = draft / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        if folder.exists() or folder.is_symlink():
            known = {name: sha256_of(draft / name) for name in files}
            state = "same" if folder.is_dir() and not differing_files(folder, known) else "replaced"
        if state == "same":
            return state
        if state == "replaced":
            _check_replaceable(folder, force)
            folder.rename(aside / folder.name)
        draft.rename(folder)
    return state


def _check_replaceable(folder: Path, force: bool) -> None:
    """Refuse to replace what is not asked to be replaced, or is more than a bundle."""
    if folder.is_symlink() or not folder.is_dir():
        raise UserError(f"{folder}: found a file or a link, expected a bundle's folder or nothing")
    if not force:
        raise UserError(
            f"{folder}: found a folder with other content, expected none or the same; --force replaces it"
        )
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        bytecode = "__pycache__" in path.parts
        if not bytecode and (unexpected := leftover(name, path.is_dir())):
            raise UserError(
                f"{folder}: found {name} ({unexpected}), expected a bundle alone; move it elsewhere"
            )
