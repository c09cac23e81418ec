"""What the user typed for a run: text stays the text that was typed.

Two readers see a value before a component does. Fire reads `2024` as a number, `a,b` as a pair, `null` as
text and `None` as None, which MONAI drops. MONAI's parser then reads `$HOME` as an expression, `@data` as a
reference, `%x` as the content of another key, and `#` as its separator `::`. That is right for settings and
wrong for the names of folders and files. `dataset_dir` alone may be several, typed as a list of texts.
"""

import ast
import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretext3d.deprecation import current_keys
from pretext3d.errors import UserError, is_monai_command
from pretext3d.literals import NOTHING, literal

if TYPE_CHECKING:
    from monai.bundle import ConfigParser

__all__ = [
    "FOLDER_KEYS",
    "LABELLED",
    "MONAI_ARGUMENTS",
    "TEXT_KEYS",
    "as_configuration",
    "at_home",
    "read_value",
    "restore_typed",
    "typed",
    "typed_values",
    "typed_words",
]

LABELLED = "LABELLED_FOLDER"  # in a command that is shown, in place of a folder that is not known
# Keys of all bundles that name a folder or a file: `~` is the home folder.
FOLDER_KEYS = frozenset(
    {
        "bundle_root", "cache_dir", "ckpt_dir", "class_file", "datalist", "dataset_dir", "output_dir",
        "pretrained", "probe::class_file", "subjects",
    }
)  # fmt: skip
# Keys whose value is text; the last three are those of MONAI's experiment tracking.
TEXT_KEYS = FOLDER_KEYS | {
    "context", "decoder", "encoder", "loss_form", "measured", "mining", "negatives", "patch_colour",
    "precision", "profile", "recipe", "target", "weights",
    "experiment_name", "run_name", "tracking_uri",
}  # fmt: skip
# Arguments of `monai.bundle run` itself; all others are keys of the configuration.
MONAI_ARGUMENTS = (
    "run_id", "init_id", "final_id", "meta_file", "config_file", "logging_file", "tracking", "args_file",
)  # fmt: skip


def at_home(text: str) -> str:
    """A path with the home folder for a leading `~`, which the shell leaves alone in quotes and after `=`.

    Args:
        text: Path, or `NAME=path`.

    Examples:
        >>> at_home("scans~1"), at_home("./~")
        ('scans~1', './~')
    """
    found = re.fullmatch(r"((?:--)?[\w.+-]+=)?(~(?:/.*)?)", text, re.DOTALL)
    return f"{found[1] or ''}{Path(found[2]).expanduser()}" if found else text


def read_value(key: str, text: str) -> Any:
    """The value that a user means by a typed text: the text itself for a text key, else what Fire reads.

    For `dataset_dir`, a list of texts is several folders, unless a folder has this name. `null` alone is
    None, as in a file; in a list or a mapping Fire reads it as text, and None is typed there.

    Args:
        key: Key of the configuration.
        text: Text as typed.

    Examples:
        >>> read_value("dataset_dir", "2024"), read_value("seed", "2024"), read_value("seed", "null")
        ('2024', 2024, None)
        >>> read_value("roi_size", "[null,None]")
        ['null', None]
        >>> read_value("dataset_dir", "['heads','2024']"), read_value("output_dir", "['heads']")
        (['heads', '2024'], "['heads']")
    """
    if key not in TEXT_KEYS:
        from fire.parser import DefaultParseValue

        return None if text == "null" else DefaultParseValue(text)
    if key == "dataset_dir" and (folders := _listed_folders(text)):
        return [at_home(folder) for folder in folders]
    return at_home(text) if key in FOLDER_KEYS else text


def _listed_folders(text: str) -> list[str]:
    """The folders in a typed list of quoted texts; none where it is another text, or a folder's name."""
    if not text.lstrip().startswith("[") or os.path.lexists(text):
        return []
    try:
        found = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return []
    listed = isinstance(found, list) and all(isinstance(folder, str) for folder in found)
    return found if listed else []


def as_configuration(values: Mapping[str, Any]) -> dict[str, Any]:
    r"""Values as overrides that MONAI neither drops nor evaluates: for `monai.bundle.run(**overrides)`.

    Args:
        values: Values by key, see `read_value`.

    Examples:
        >>> as_configuration({"dataset_dir": "@data", "fold": None, "seed": "$@fold"})
        {'dataset_dir': "$'\\x40data'", 'fold': '$None', 'seed': '$@fold'}
    """

    def entry(value: Any) -> Any:
        if isinstance(value, list):
            return [entry(each) for each in value]
        return literal(value) if isinstance(value, str) else value

    found = {key: entry(value) if key in TEXT_KEYS else value for key, value in values.items()}
    return {key: NOTHING if value is None else value for key, value in found.items()}


def quoted(value: Any) -> str:
    """A value as it is typed in a shell.

    Examples:
        >>> print(quoted({"window": [-100, 300]}), quoted("my scans"), quoted(0.5))
        "{'window': [-100, 300]}" 'my scans' 0.5
    """
    text = str(value)
    return f'"{text}"' if "'" in text and not re.search(r'["$`\\!]', text) else shlex.quote(text)


def typed(values: Mapping[str, Any]) -> str:
    """Keys and their values as they are typed behind a command.

    Examples:
        >>> typed({"pretrained": Path("runs/x"), "pixdim": [1, 1, 2]})
        " --pretrained runs/x --pixdim '[1, 1, 2]'"
    """
    return "".join(f" --{key} {quoted(value)}" for key, value in values.items())


def typed_values(words: Sequence[str]) -> dict[str, str]:
    """Keys and their values as typed, from the words of a command line after `run`.

    Fire itself splits the words, so that `--key value`, `--key=value` and words without a key (the first is
    run_id) mean the same as to MONAI.

    Args:
        words: Words of the command line.

    Examples:
        >>> typed_values(["--dataset_dir", "[x]", "--seed=3"])
        {'dataset_dir': '[x]', 'seed': '3'}
    """
    import fire
    from fire.decorators import SetParseFn

    found: dict[str, str] = {}

    @SetParseFn(str)
    def run(  # the arguments of monai.bundle.run
        run_id: str | None = None,
        init_id: str | None = None,
        final_id: str | None = None,
        meta_file: str | None = None,
        config_file: str | None = None,
        logging_file: str | None = None,
        tracking: str | None = None,
        args_file: str | None = None,
        **override: str,
    ) -> None:
        given = (run_id, init_id, final_id, meta_file, config_file, logging_file, tracking, args_file)
        own = dict(zip(MONAI_ARGUMENTS, given, strict=True))
        found.update({key: value for key, value in (own | override).items() if value is not None})

    fire.Fire(run, command=list(words), name="run")
    return current_keys(found)


def typed_words() -> list[str]:
    """The words after `python -m monai.bundle run` in this process; none in any other program."""
    verb = sys.argv[1:2] in (["run"], ["run_workflow"])
    return sys.argv[2:] if verb and is_monai_command() else []


def restore_typed(parser: "ConfigParser", words: Sequence[str]) -> list[str]:
    """Give text keys the text that was typed for them, and None to keys that were typed as None or null.

    Args:
        parser: Parser with the overrides as MONAI has merged them.
        words: Words of the command line after `run`; see `typed_words`.

    Returns:
        The keys that were restored.

    Raises:
        UserError: True or False for a text key, which is also what a forgotten value looks like.
    """
    from monai.bundle import ReferenceResolver

    restored = []
    for key, text in typed_values(words).items() if words else ():
        value = read_value(key, text)
        if key in MONAI_ARGUMENTS or not (key in TEXT_KEYS or value is None):
            continue
        if text in ("True", "False"):
            raise forgotten_value(key, text)
        outer = ReferenceResolver.split_id(key, last=True)[0]
        if not outer or outer in parser:
            parser[key] = as_configuration({key: value})[key]
        restored.append(key)
    return restored


def forgotten_value(key: str, value: object) -> UserError:
    """The error of a text key without a value, which Fire reads as True."""
    folder = f" A folder of that name is typed ./{value}" if key in FOLDER_KEYS else ""
    return UserError(f"{key}: found {value}, expected text: was a value forgotten behind --{key}?{folder}")
