"""The folder of a comparison: comparison.json, folds.csv, its lock, and the files of its cells."""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pretext3d.data.splits import assigned_folds, evaluation_cases
from pretext3d.data.subjects import person_name, person_of, volume_of
from pretext3d.errors import UserError
from pretext3d.files import write_whole

__all__ = [
    "changed_keys", "check_earlier", "finished", "fold_table", "folds_of", "lock", "read_json", "save_plan",
    "volumes",
    "write_json",
]  # fmt: skip


def write_json(path: Path, content: Any) -> None:
    """Write a file that is either complete or not there."""
    write_whole(path, json.dumps(content, indent=1) + "\n")


def read_json(path: Path) -> Any:
    """The content of a JSON file; a UserError that names it where it is broken."""
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise UserError(
            f"{path}: cannot be read ({error}); remove the cell's folder to do it again"
        ) from error


def changed_keys(there: Mapping[str, Any], here: Mapping[str, Any], prefix: str = "") -> list[str]:
    """What differs between two nested settings: `key: 4 there, 8 now`, one line per key."""
    lines = []
    for key in dict.fromkeys([*there, *here]):
        a, b = there.get(key, "not set"), here.get(key, "not set")
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            lines += changed_keys(a, b, f"{prefix}{key}::")
        elif a != b:
            lines.append(f"{prefix}{key}: {a} there, {b} now")
    return lines


def finished(folder: Path, settings: Mapping[str, Any]) -> bool:
    """Whether the cell in a folder is done; refuses one that was done, or started, with other settings.

    Raises:
        UserError: listing each difference.
    """
    if not (folder / "settings.json").exists():
        return False
    lines = changed_keys(read_json(folder / "settings.json")["settings"], settings)
    if lines:
        raise UserError(
            f"{folder}: was run with other settings: {'; '.join(lines)}. Use another --output_dir, or "
            "remove that folder to run it again"
        )
    return (folder / "done.json").exists()


def save_plan(
    output_dir: Path,
    arms: Mapping[str, str],
    warnings: Mapping[str, str],
    cases: Mapping[int, Any],
    more: Mapping[str, Any] | None = None,
) -> None:
    """Add to comparison.json, next to those of earlier calls, this call's arms, warnings and cases.

    Args:
        output_dir: Folder of the comparison.
        arms: Paths of the arms by name.
        warnings: Texts by arm.
        cases: Cases of each split, by its seed or fold (see `prepare_cases`).
        more: Further entries; those that are dictionaries are added to earlier ones, too.
    """
    file = output_dir / "comparison.json"
    before = read_json(file) if file.exists() else {}
    kept = {name: text for name, text in before.get("warnings", {}).items() if name not in arms}
    content = {
        **before,
        "arms": {**before.get("arms", {}), **arms},
        "warnings": {**kept, **warnings},
        "held_out": before.get("held_out", {}),
        "labelled_pool": before.get("labelled_pool", {}),
    }
    for name, value in (more or {}).items():
        content[name] = {**before.get(name, {}), **value} if isinstance(value, dict) else value
    for seed, found in cases.items():
        content["held_out"][str(seed)] = volumes(evaluation_cases(found))
        content["labelled_pool"][str(seed)] = volumes(found["train"])
    write_json(file, content)


def volumes(cases: Sequence[Mapping[str, Any]]) -> list[str]:
    """The ids of the cases, sorted; of slices those of their volumes."""
    return sorted({volume_of(case) for case in cases})


def check_earlier(output_dir: Path, common: Mapping[str, Any]) -> None:
    """Refuse to mix with cells of another budget or data set, whichever arms they are of."""
    for file in sorted((output_dir / "cells").glob("*/settings.json")):
        lines = changed_keys(read_json(file)["settings"]["common"], common)
        if lines:
            raise UserError(
                f"{file.parent}: was run with other settings: {'; '.join(lines)}. All cells of a table need "
                "the same: use another --output_dir"
            )


def folds_of(found: Mapping[str, Any], folds: int, seed: int) -> dict[int, dict[str, Any]]:
    """The cases of each fold: those in it as `val`, the others as `train`.

    Args:
        found: What `prepare_cases` returns, with all labels and no test set.
        folds: Number of folds.
        seed: Seed of their assignment, see `assigned_folds`.
    """
    cases = [*found["train"], *found["val"]]
    fold = assigned_folds(cases, folds, seed)
    return {
        k: {
            **found,
            "train": [case for case in cases if fold[person_of(case)] != k],
            "val": [case for case in cases if fold[person_of(case)] == k],
        }
        for k in range(folds)
    }


def fold_table(folds: Mapping[int, Mapping[str, Any]]) -> str:
    """The content of folds.csv: id, subject and fold of each volume or image, for the key `subjects`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "subject", "fold"])
    lines = {volume_of(case): (person_name(case), k) for k, found in folds.items() for case in found["val"]}
    writer.writerows([name, *lines[name]] for name in sorted(lines))
    return text.getvalue()


@contextmanager
def lock(output_dir: Path) -> Iterator[tuple[int, ...]]:
    """Hold the folder until this program, and every cell that may outlive it, has ended.

    Yields the descriptors that the cells' processes have to keep open for that.
    """
    try:
        import fcntl
    except ImportError:  # no such locks on this system
        yield ()
        return
    with (output_dir / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(
                f"{output_dir}: a comparison, or a cell that outlived one, is running there"
            ) from error
        yield (file.fileno(),)
