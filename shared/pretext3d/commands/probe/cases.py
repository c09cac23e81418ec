"""The cases that a probe reads, and which of them are labelled: those of a fine-tuning with the same keys."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pretext3d.commands.compare.plan import resolved

__all__ = ["CASE", "Cases", "per_case"]

CASE = ("case", "subject", "class", "predicted")


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
        from pretext3d.data.subjects import by_subject, person_name, volume_of
        from pretext3d.training.probe_tasks import volumes_of

        self.config, self.given = config, given
        names = ["cases", "cache_dir", "validate#preprocessing"]
        cases, cache_dir, transform = resolved(config, given, names).values()
        train, held_out = cases["train"], evaluation_cases(cases, measured)
        self.class_names: list[str] = cases["class_names"]
        self.dataset = CachedVolumes([*train, *held_out], transform, cache_dir)
        self.groups = volumes_of(self.dataset)
        first = [self.dataset.data[group[0]] for group in self.groups.values()]
        self.classes = np.array([case["class"] for case in first])
        self.subjects = [person_name(case) for case in first]
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


def per_case(cases: Cases, found: np.ndarray) -> pd.DataFrame:
    """One line per held-out case: case, subject, class, predicted, by their names."""
    chosen = [index for index, taken in enumerate(cases.held_out) if taken]
    names, volumes = cases.class_names, list(cases.groups)
    return pd.DataFrame(
        {
            "case": [volumes[index] for index in chosen],
            "subject": [cases.subjects[index] for index in chosen],
            "class": [names[cases.classes[index]] for index in chosen],
            "predicted": [names[number] for number in found],
        }
    )
