"""What frozen features know: a linear probe and nearest neighbours on a few labelled cases, per run.

The encoder of each run reads every case once, as a fine-tuning would see it, and is not trained. A logistic
regression and the nearest neighbours read its pooled features. Cases, held-out cases and labelled subsets
are those of finetune_classification.yaml with the same keys. The row `intensities` has no network: the mean
and the standard deviation of each channel, which show what the scanner or the camera alone gives away.
"""

import argparse
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import yaml

from pretext3d.checking import closest_hint, integer, one_of
from pretext3d.commands.bundles import find_bundle
from pretext3d.commands.compare.compare import numbers_of
from pretext3d.commands.compare.figures import draw_efficiency
from pretext3d.commands.compare.plan import resolved
from pretext3d.commands.compare.report import amount, p_value, signed, summarise
from pretext3d.commands.compare.tasks import CLASSIFICATION
from pretext3d.commands.compare.text import markdown, spread
from pretext3d.commands.parser import command_parser, option_names, read_overrides, top_key
from pretext3d.errors import UserError
from pretext3d.files import replacing
from pretext3d.messages import say
from pretext3d.training.arguments import read_value

if TYPE_CHECKING:
    import torch

FILE = "finetune_classification.yaml"
SET_HERE = {  # keys of that file, and the option that gives each
    "pretrained": "the runs", "num_labelled": "--num_labelled", "label_fraction": "--label_fractions",
    "seed": "--seeds", "subset_seed": "--seeds", "encoder": "--encoder", "output_dir": "--output_dir",
}  # fmt: skip
CASE = ("case", "subject", "class", "predicted")
READERS = {"linear": "linear probe", "knn": "nearest neighbours"}
INTENSITIES = "intensities"
BASELINES = ("scratch", INTENSITIES)  # the first one there is
EXAMPLES = """
runs
  PATH or NAME=PATH   a pre-trained run, bundle or checkpoint; the name is the folder's, or yours
  scratch             random initial weights, one network per seed

examples
  pretext3d probe runs/rotation runs/exemplar scratch --spatial_dims 2 --dataset_dir ../data/eyes \\
      --class_file ../data/eyes.csv --subjects ../data/eyes.csv --label_fractions 0.05 0.1 0.25 1
  pretext3d probe vp=runs/vp --dataset_dir ../data/heads --class_file classes.csv --num_labelled 10 40

Any other --key value is an override of finetune_classification.yaml: --val_fraction 0.3, --test_fraction 0.2,
--pixdim pretrained ... With the values of a fine-tuning the held-out cases are the same ones.
"""


class Source(NamedTuple):
    """Weights to probe.

    Attributes:
        name: Name in the tables.
        path: Run, bundle or checkpoint; '' = random weights.
    """

    name: str
    path: str


def read_sources(words: Sequence[str]) -> list[Source]:
    """The weights that the command line names.

    Raises:
        UserError: a name that is used twice, or for the baseline.

    Examples:
        >>> read_sources(["scratch", "runs/rotation/", "vp=runs/a"])[1:]
        [Source(name='rotation', path='runs/rotation/'), Source(name='vp', path='runs/a')]
    """
    found: list[Source] = []
    for word in words:
        name, equals, path = word.partition("=")
        if word == "scratch":
            source = Source(word, "")
        else:
            source = Source(name, path) if equals else Source(Path(word.rstrip("/")).name, word)
        taken = [*(one.name for one in found), INTENSITIES]
        if source.name in taken or not source.name or (equals and not path):
            raise UserError(f"{word}: found as a run, expected PATH or NAME=PATH with a name of its own")
        found.append(source)
    return found


def check_keys(given: Mapping[str, Any], config: Path) -> None:
    """Refuse overrides that options of this command set, and those that the file does not have."""
    known = yaml.safe_load(config.read_text())
    for key in given:
        top = top_key(key)
        if top in SET_HERE:
            raise UserError(f"--{key}: found as an override, expected it from {SET_HERE[top]}")
        if top not in known:
            hint = closest_hint(top, [*known, *option_names(make_parser())], "; did you mean --{}?")
            raise UserError(f"--{key}: no such option, and no such key in {FILE}{hint}")


def check_options(options: argparse.Namespace) -> None:
    """Check what argparse does not."""
    if options.num_labelled and options.label_fractions:
        raise UserError("--label_fractions: found with --num_labelled, expected one of them")
    options.label_fractions = options.label_fractions or ([] if options.num_labelled else [1.0])
    if not all(0 < value <= 1 for value in options.label_fractions):
        raise UserError(
            f"--label_fractions: found {options.label_fractions}, expected numbers above 0, up to 1"
        )
    for name, low in (("num_labelled", 1), ("seeds", 0)):
        values = getattr(options, name)
        if values and (min(values) < low or len(set(values)) < len(values)):
            raise UserError(f"--{name}: found {values}, expected different integers from {low}")
    integer("--neighbours", options.neighbours, minimum=1)
    one_of("--measured", options.measured, ("test", "val"))


class Cases:
    """The cases of a classification, and which of them are labelled.

    Args:
        config: Path of finetune_classification.yaml.
        given: Overrides.
        measured: Part that is measured: test where there is one, or val.
    """

    def __init__(self, config: Path, given: Mapping[str, Any], measured: str) -> None:
        from pretext3d.data.dataset import CachedVolumes
        from pretext3d.data.splits import evaluation_cases
        from pretext3d.data.subjects import by_subject, person_of, volume_of

        self.config, self.given = config, given
        names = ["cases", "cache_dir", "validate#preprocessing"]
        cases, cache_dir, transform = resolved(config, given, names).values()
        train, held_out = cases["train"], evaluation_cases(cases, measured)
        self.class_names: list[str] = cases["class_names"]
        self.dataset = CachedVolumes([*train, *held_out], transform, cache_dir)
        self.groups: dict[str, list[int]] = {}
        for index, case in enumerate(self.dataset.data):
            self.groups.setdefault(volume_of(case), []).append(index)
        first = [self.dataset.data[group[0]] for group in self.groups.values()]
        self.classes = np.array([case["class"] for case in first])
        self.people = [person_of(case) for case in first]
        self.held_out = np.isin([*self.groups], [volume_of(case) for case in held_out])
        self.pool = len(by_subject(train))

    def labelled(self, number: int, seed: int) -> np.ndarray:
        """Whether each case is one of the labelled ones of a fine-tuning with such keys."""
        from pretext3d.data.subjects import volume_of

        if number == self.pool:
            return np.asarray(~self.held_out)
        keys = {**self.given, "num_labelled": number, "subset_seed": seed}
        train = resolved(self.config, keys, ["cases"])["cases"]["train"]
        return np.isin([*self.groups], [volume_of(case) for case in train])


def network_features(cases: Cases, source: Source, encoder: str, seed: int) -> "torch.Tensor":
    """The pooled features (n, d) of every case: the coarsest map of the frozen encoder, averaged over space.

    Slices of a volume are averaged, too. This is what the output layer of a fine-tuning reads.
    """
    import torch

    from pretext3d.training.precision import AutocastInferer
    from pretext3d.training.preprocessing import check_spacing
    from pretext3d.training.pretrained import read_record, resolve_pretrained
    from pretext3d.training.probe_inputs import FrozenEncoder

    keys = {**cases.given, "pretrained": source.path, "encoder": "" if source.path else encoder}
    torch.manual_seed(seed)  # of random weights
    names = ["network_def", "batch_size", "precision", "device", "spacing"]
    network, batch_size, precision, device, spacing = resolved(cases.config, keys, names).values()
    if source.path:
        there = read_record(source.path).get("pixdim") or []
        check_spacing(resolve_pretrained(source.path), there, spacing)
    backbone = network.to(device).backbone
    inferer = AutocastInferer(precision, device)
    reader = FrozenEncoder(backbone, inferer, device, batch_size=batch_size, max_windows=1)
    maps = reader.maps(cases.dataset, list(cases.groups.values()))
    found = torch.stack([one.flatten(2).mean((0, 2)) for one in maps])
    if not bool(found.isfinite().all()):
        raise UserError(f"{source.name}: found features that are not finite, expected other weights")
    return found


def intensity_features(cases: Cases) -> "torch.Tensor":
    """The mean and the standard deviation of each channel of a case (n, 2 c), as its file has it."""
    import torch
    from monai.transforms import Compose

    from pretext3d.data.loading import LoadCased, SelectChannelsd

    steps = cases.dataset.deterministic.transforms
    load = Compose([step for step in steps if isinstance(step, LoadCased | SelectChannelsd)])
    rows = []
    for group in cases.groups.values():
        images = [load(dict(cases.dataset.data[index]))["image"].as_tensor().float() for index in group]
        values = torch.cat([image.flatten(1) for image in images], dim=1)
        rows.append(torch.cat([values.mean(1), values.std(1, correction=0)]))
    return torch.stack(rows)


def predictions(
    features: "torch.Tensor", cases: Cases, labelled: np.ndarray, neighbours: int
) -> Iterator[tuple[str, np.ndarray, float]]:
    """Name of each reader, the class numbers that it finds for the held-out cases, and its C."""
    import torch

    from pretext3d.training.probe_scores import logistic_classes, nearest_classes

    known, asked = features[torch.from_numpy(labelled)], features[torch.from_numpy(cases.held_out)]
    classes = torch.from_numpy(cases.classes[labelled])
    people = [person for person, taken in zip(cases.people, labelled, strict=True) if taken]
    allowed = torch.ones(len(asked), len(known), dtype=torch.bool)  # a split divides no subject
    found, strength = logistic_classes(asked, known, classes, people)
    yield "linear", found.numpy(), strength
    yield "knn", nearest_classes(asked, known, classes, allowed, neighbours).numpy(), np.nan


def per_case(cases: Cases, found: np.ndarray) -> pd.DataFrame:
    """One line per held-out case: case, subject, class, predicted, by their names."""
    chosen = [index for index, taken in enumerate(cases.held_out) if taken]
    names, volumes = cases.class_names, list(cases.groups)
    return pd.DataFrame(
        {
            "case": [volumes[index] for index in chosen],
            "subject": [str(cases.people[index]) for index in chosen],
            "class": [names[cases.classes[index]] for index in chosen],
            "predicted": [names[number] for number in found],
        }
    )


def table_of(results: pd.DataFrame, arms: Sequence[str], fractions: Mapping[int, float]) -> list[str]:
    """Balanced accuracies in Markdown, and their paired differences to the first arm of BASELINES.

    Args:
        results: What probe.csv holds.
        arms: Names of the arms, in order.
        fractions: Fraction that a number of labelled subjects is, where fractions were given.
    """
    baseline = next(name for name in BASELINES if name in arms)
    tables = {
        reader: summarise(results[results["reader"] == reader], arms, baseline, task=CLASSIFICATION)
        for reader in READERS
    }
    rows = []
    for both in zip(*(tables[reader].to_dict("records") for reader in READERS), strict=True):
        row = [amount(both[0]["num_labelled"], fractions), both[0]["arm"]]
        for one in both:
            cut = signed(one["difference_mean"], one["difference_low"], one["difference_high"])
            score = spread(one["balanced_accuracy"], one["balanced_accuracy_std"], 3)
            row += [score, cut, p_value(one["difference_p"])]
        rows.append(row)
    header = ["labelled", "arm"]
    for title in READERS.values():
        header += [title, f"difference to {baseline} [95 %]", "p"]
    return markdown(header, rows)


def probe(options: argparse.Namespace, words: Sequence[str]) -> int:
    """Read the features of every run, fit the readers, write the tables. Returns the exit code."""
    check_options(options)
    sources, output_dir = read_sources(options.runs), Path(options.output_dir)
    if (output_dir / "probe.csv").exists():
        raise UserError(f"--output_dir: found {output_dir / 'probe.csv'}, expected a folder without one")
    config = find_bundle(options.bundle) / "configs" / FILE
    if not config.is_file():
        raise UserError(f"--bundle: {config.parents[1]} has no configs/{FILE}; expected a bundle's folder")
    given = read_overrides(words)
    check_keys(given, config)
    dataset_dir = read_value("dataset_dir", options.dataset_dir)
    given = {"dataset_dir": dataset_dir, "class_file": options.class_file, **given}
    encoder = encoder_of(sources, options.encoder)
    cases = Cases(config, given, options.measured)
    fractions = numbers_of(options.label_fractions, [cases.pool])
    numbers = list(fractions) or options.num_labelled
    if max(numbers) > cases.pool:
        raise UserError(
            f"--num_labelled: found {max(numbers)}, expected at most {cases.pool}: the subjects that train"
        )
    chosen = {(n, seed): cases.labelled(n, seed) for n in numbers for seed in options.seeds}
    tables: list[pd.DataFrame] = []
    arms = [source.name for source in sources] + [INTENSITIES]
    for source in [*sources, Source(INTENSITIES, "")]:
        say(f"{source.name}: reading {len(cases.groups)} cases", flush=True)
        features = None
        for seed in options.seeds:
            if source.name == INTENSITIES:
                features = intensity_features(cases) if features is None else features
            elif features is None or not source.path:  # random weights: those of each seed
                features = network_features(cases, source, encoder, seed)
            for n in numbers:
                for reader, found, c in predictions(features, cases, chosen[n, seed], options.neighbours):
                    cell = {"arm": source.name, "num_labelled": n, "seed": seed, "reader": reader, "c": c}
                    tables.append(per_case(cases, found).assign(**cell)[[*cell, *CASE]])
    results = pd.concat(tables, ignore_index=True)
    counts = f"{int(cases.held_out.sum())} held-out cases of {len(cases.class_names)} classes"
    lines = [
        f"Balanced accuracy on {counts} (chance {1 / len(cases.class_names):.3f}), by frozen features; mean "
        "± standard deviation over the seeds, p corrected for the arms; *labelled* counts subjects.", "",
        *table_of(results, arms, fractions),
    ]  # fmt: skip
    output_dir.mkdir(parents=True, exist_ok=True)
    with replacing(output_dir / "probe.md") as draft:
        draft.write_text("\n".join(lines) + "\n")
    with replacing(output_dir / "probe.csv") as draft:
        results.to_csv(draft, index=False, float_format="%.5g")
    for reader in READERS:
        with replacing(output_dir / f"{reader}.png") as draft:
            cells = CLASSIFICATION.per_cell(results[results["reader"] == reader])
            draw_efficiency(cells, arms, draft, CLASSIFICATION, fractions)
    names = ", ".join(f"{reader}.png" for reader in READERS)
    say("\n".join(["", *lines, "", f"wrote probe.csv, probe.md, {names} in {output_dir}"]))
    return 0


def encoder_of(sources: Sequence[Source], given: str) -> str:
    """The encoder of random weights: the given one, or the runs'; '' = the profile's.

    Raises:
        UserError: random weights beside runs of several encoders.
    """
    from pretext3d.training.pretrained import read_record

    found = {read_record(one.path)["backbone"]["encoder"]: None for one in sources if one.path}
    if not given and len(found) > 1 and any(not one.path for one in sources):
        raise UserError(f"scratch: found runs of the encoders {', '.join(found)}, expected --encoder NAME")
    return given or next(iter(found), "")


def make_parser() -> argparse.ArgumentParser:
    """The command's options; other words are overrides."""
    parser = command_parser("probe", __doc__, EXAMPLES)
    add, default = parser.add_argument, "default: %(default)s"
    add("runs", nargs="+", metavar="RUN", help="runs to probe, and scratch; see below")
    add("--dataset_dir", default="", help="cases with classes; default: the embedded phantom")
    add("--class_file", default="", help="a CSV file with the columns id and class; default: the datalist's")
    add("--num_labelled", nargs="+", type=int, metavar="N", help="labelled subjects")
    add(
        "--label_fractions",
        nargs="+",
        type=float,
        default=[],
        metavar="F",
        help="fractions of the training subjects instead; default: 1",
    )
    add("--seeds", nargs="+", type=int, default=[0, 1, 2], help="of labelled subsets and random weights")
    add("--neighbours", type=int, default=5, help="nearest neighbours; " + default)
    add("--measured", default="test", help="test, where there is a test set, or val; " + default)
    add("--encoder", default="", help="encoder of random weights; default: the runs', else the profile's")
    add("--bundle", default="", help="folder of the bundle with the configuration; default: vectorpose")
    add("--output_dir", default="runs/probe", help="new folder; " + default)
    return parser


def main(words: Sequence[str]) -> int:
    """The command."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    parser = make_parser()
    options, rest = parser.parse_known_args(words)
    if words[0].startswith("-"):  # argparse would take the value of an override for a run
        parser.error("expected the runs before the options")
    return probe(options, rest)
