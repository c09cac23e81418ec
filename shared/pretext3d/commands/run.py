"""Run a bundle as `python -m monai.bundle run` does; each mistake ends in one line.

All words are those of MONAI's command: --config_file, and --key value for any key of the configuration; with
--bundle NAME, files are named as in the bundle's folder configs.
MONAI reads the configuration files and the overrides before any code of a bundle runs, so that its own
command ends in a trace where a file is missing, is not YAML, or has no entry to override. Here they are
checked first.
"""

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from pretext3d.checking import closest_hint
from pretext3d.commands.bundles import named_bundle
from pretext3d.commands.parser import command_parser, mistyped, option_names, top_key
from pretext3d.commands.paths import check_paths
from pretext3d.deprecation import RENAMED_KEYS
from pretext3d.errors import UserError, chain, find_user_error, frames, one_line
from pretext3d.training.arguments import MONAI_ARGUMENTS, as_configuration, read_value, typed_values
from pretext3d.training.config_files import MONAI_KEYS, as_files, overlay_hint, unknown_key

if TYPE_CHECKING:
    from monai.bundle import ConfigParser

EXAMPLES = """examples:
  pretext3d run --bundle vectorpose --dataset_dir ../data/heads --output_dir runs/vp
  pretext3d run --bundle vectorpose --config_file finetune.yaml --pretrained runs/vp --dataset_dir 2024
  pretext3d run --bundle vectorpose --config_file "['finetune.yaml','evaluate.yaml']" --dataset_dir 2024
  pretext3d run --config_file my_bundles/vectorpose/configs/train.yaml --dataset_dir ../data/heads
  torchrun --nproc_per_node 2 -m pretext3d run \\
      --config_file "['configs/train.yaml','configs/multi_gpu_train.yaml']"      in a bundle's folder
"""
CHECKS = "pretext3d.training.overrides."  # in a configuration whose keys are checked when it runs
READS = "pretext3d.data."  # in one whose keys of paths have the meaning that `check_paths` knows
FILES = ("config_file", "meta_file", "logging_file", "args_file")


def make_parser() -> argparse.ArgumentParser:
    """The command's help; its words are read as MONAI reads them, see `typed_values`."""
    parser = command_parser("run", __doc__, EXAMPLES)
    add = parser.add_argument
    add("run_id", nargs="?", help="key of the configuration to run; default: run")
    add("--bundle", help="folder or name of a bundle: configuration files without a folder are its own")
    add(
        "--config_file",
        help="a YAML or JSON file, or a list of them, later ones over earlier; of a --bundle train.yaml",
    )
    add("--meta_file", help="default: metadata.json next to the first configuration file")
    add("--logging_file", help="default: logging.conf next to the first configuration file; False = none")
    add("--tracking", help="mlflow, or a file of settings for experiment tracking")
    add("--args_file", help="a YAML or JSON file with values of these options and of keys")
    return parser


def main(words: Sequence[str]) -> int:
    """The command: check, then run the workflow that `monai.bundle run` makes."""
    if words in (["-h"], ["--help"], []):
        make_parser().parse_args(["--help"])
    given = typed_values(words)
    bundle = given.pop("bundle", None)
    values = {key: text if _is_file(key, text) else read_value(key, text) for key, text in given.items()}
    if bundle is not None:
        configs = named_bundle(bundle) / "configs"
        files = as_files(values.get("config_file", "train.yaml"))
        values["config_file"] = [str(configs / file) if Path(file).name == file else file for file in files]
    for key in FILES:
        for file in as_files(values.get(key) or []):
            check_file(file, key)
    if values.get("config_file"):
        check_typed(as_files(values["config_file"]), values)
    elif not values.get("args_file"):
        raise UserError(
            "--config_file: found none, expected a bundle's configuration, as vectorpose/configs/train.yaml, "
            f"or --bundle vectorpose{mistyped(words, option_names(make_parser()))}"
        )
    from monai.bundle.scripts import create_workflow

    for key in FILES[1:]:
        for file in as_files(values.get(key) or []):
            if not file.endswith(".conf"):
                load(file, key)
    if values.get("config_file"):
        check_files(as_files(values["config_file"]), values)
    try:
        workflow = create_workflow(**as_configuration(values))
    except Exception as error:
        if find_user_error(error) is not None or not _is_of_the_configuration(error):
            raise
        raise UserError(_cause(error)) from error
    workflow.run()
    workflow.finalize()
    return 0


def _is_file(key: str, text: str) -> bool:
    """Whether a value is the name of an existing file, and so not a list of names."""
    return key in FILES and Path(text).is_file()


def check_file(file: str, key: str) -> None:
    """Refuse a file that does not exist.

    Args:
        file: Path.
        key: Argument that named it, for messages.

    Raises:
        UserError: names the closest path.
    """
    if Path(file).is_file():
        return
    near = closest_file(Path(file))
    hint = f"; did you mean {near}?" if near else ""
    raise UserError(f"--{key}: found {file}, which is no file{hint}")


def check_typed(files: Sequence[str], values: Mapping[str, Any]) -> None:
    """Check what was typed for a bundle of this package, before MONAI is imported.

    A file that cannot be read is passed over here: `load` reports it.

    Args:
        files: Paths of the configuration files.
        values: Values by key; arguments of MONAI's run among them are passed over.

    Raises:
        UserError: an unknown key, or a folder or a file that does not exist.
    """
    texts = [Path(file).read_text(encoding="utf-8", errors="replace") for file in files]
    if not any(CHECKS in text for text in texts):
        return
    try:
        contents = [yaml.safe_load(text) for text in texts]
    except yaml.YAMLError:
        return
    if values.get("args_file") or not all(isinstance(content, dict) for content in contents):
        return
    names = {top_key(key) for content in contents for key in content} | MONAI_KEYS
    typed = {key: value for key, value in values.items() if key not in MONAI_ARGUMENTS}
    for key in typed:
        if "::" not in key and "#" not in key and key.lstrip("+") not in names | RENAMED_KEYS.keys():
            raise unknown_key(key, names, files)
    if any(READS in text for text in texts):
        check_paths(typed)


def closest_file(file: Path) -> str:
    """The file whose path is nearest in spelling, folder by folder; '' where there is none."""
    place = Path()
    for number, part in enumerate(file.parts, start=1):
        fits = Path.is_file if number == len(file.parts) else Path.is_dir
        if not fits(place / part):
            try:
                names = [path.name for path in place.iterdir() if fits(path)]
            except OSError:  # a folder that may not be read
                return ""
            part = closest_hint(part, names, "{}")
            if not part:
                return ""
        place /= part
    return str(place)


def load(file: str, key: str = "config_file") -> dict[str, Any]:
    """The content of a YAML or JSON file.

    Args:
        file: Path.
        key: Argument that named it, for messages.

    Raises:
        UserError: there is no such file, or it cannot be read; names the line.
    """
    from monai.bundle import ConfigParser

    check_file(file, key)
    try:
        content = ConfigParser.load_config_file(file)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise UserError(f"{file}: {at}{error.problem or error.context}, expected YAML") from error
    except json.JSONDecodeError as error:
        raise UserError(
            f"{file}: line {error.lineno}, column {error.colno}: {error.msg}, expected JSON"
        ) from error
    except (OSError, ValueError, yaml.YAMLError) as error:  # another suffix, no text, a key twice
        raise UserError(f"--{key}: {file}: {one_line(error)}") from error
    if not isinstance(content, dict):
        raise UserError(f"{file}: found {type(content).__name__}, expected keys and values")
    return content


def check_files(files: Sequence[str], values: Mapping[str, Any]) -> None:
    """Merge the files and the overrides as MONAI does, and refuse what cannot be merged.

    Args:
        files: Paths of the configuration files.
        values: Overrides by key; arguments of MONAI's run among them are passed over.

    Raises:
        UserError: names the file or the key.
    """
    from monai.bundle import ConfigParser
    from monai.bundle.utils import MACRO_KEY, merge_kv

    from pretext3d.training.overrides import check_entry, check_nested, walk

    parser = ConfigParser(config={})
    for number, file in enumerate(files):
        for key, value in load(file).items():
            try:
                merge_kv(parser, key, value)
            except (LookupError, ValueError, TypeError) as error:
                before = ", ".join(Path(other).name for other in files[:number])
                block, hint = re.split("::|#", key)[0], overlay_hint(files)
                where = f" in {before}" if before else ""
                raise UserError(
                    f"{file}: found {key}, but no entry {block} to change{where}{hint}"
                ) from error
    for key, value in values.items():
        if key not in MONAI_ARGUMENTS:
            check_entry(key, parser.config)
            check_nested(key, parser.config, files)
            outer = re.split("::|#", key)[0]
            if outer != key and outer not in parser:
                names = [Path(file).name for file in files]
                hint = closest_hint(outer, parser.config, "; did you mean --{}?")
                raise UserError(f"--{key}: found no key {outer} in {', '.join(names)}{hint}")
            parser[key] = as_configuration({key: value})[key]
    for path, value in walk(parser.config):
        if isinstance(value, str) and value.startswith(MACRO_KEY):
            _check_macro(path, value, parser)


def _check_macro(path: str, value: str, parser: "ConfigParser") -> None:
    """Refuse `%file::key` and `%key` where there is no such file or key."""
    from monai.bundle import ConfigParser
    from monai.bundle.utils import ID_SEP_KEY, MACRO_KEY

    file, key = ConfigParser.split_path_id(value[len(MACRO_KEY) :])
    if key.startswith(ID_SEP_KEY):  # relative to the entry
        return
    if file:
        check_file(file, path)
    if key and key not in (ConfigParser(load(file, path)) if file else parser):
        raise UserError(
            f"{path}: found {value}, which MONAI replaces by the entry {key} of "
            f"{file or 'the configuration'}; expected one that exists, or text that does not begin with %"
        )


def _is_of_the_configuration(error: BaseException) -> bool:
    """Whether MONAI reports on a configuration, and no code of ours was running."""
    own = ("pretext3d.__main__", __name__)
    names = {str(frame.f_globals.get("__name__")) for frame in frames(error)}
    return not any(name.startswith("pretext3d.") and name not in own for name in names)


def _cause(error: BaseException) -> str:
    """The innermost error of MONAI's chain, with the entry that it was in."""
    errors = list(chain(error))
    where = next((one_line(e) for e in reversed(errors[:-1]) if str(e).startswith("Failed to ")), "")
    return (
        f"{where}: {one_line(errors[-1])}"
        if where
        else f"{type(errors[-1]).__name__}: {one_line(errors[-1])}"
    )
