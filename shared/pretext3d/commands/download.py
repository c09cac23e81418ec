"""Download a packed bundle: checked against its index, resumed where it stopped, replaced in one step."""

import argparse
import json
from collections.abc import Sequence

from pretext3d.commands.parser import command_parser
from pretext3d.messages import say
from pretext3d.publishing.download import download
from pretext3d.training.arguments import LABELLED

EXAMPLES = """examples:
  pretext3d download vectorpose --source https://example.org/bundles --output_dir there
  pretext3d download vectorpose --source dist --output_dir there --version 0.1.0
"""


def make_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = command_parser("download", __doc__, EXAMPLES)
    add = parser.add_argument
    add("name", help="name of the bundle, e.g. vectorpose")
    add("--source", required=True, help="URL or folder of packed bundles and their model_info.json")
    add("--output_dir", default=".", help="the bundle becomes a folder in it; default: the current folder")
    add("--version", help="version, e.g. 0.1.0; default: the newest")
    add("--force", action="store_true", help="replace a folder even if it has files of your own in it")
    return parser


def main(words: Sequence[str]) -> int:
    """The command: download, report the folder and the next command."""
    known = make_parser().parse_args(words)
    folder = download(known.name, known.source, known.output_dir, known.version, known.force)
    version = json.loads((folder / "configs" / "metadata.json").read_text(encoding="utf-8"))["version"]
    say(f"{known.name} {version}: {folder}")
    if (folder / "configs" / "finetune.yaml").is_file():
        say(
            f"next:\n  python -m monai.bundle run --config_file {folder}/configs/finetune.yaml "
            f"--pretrained {folder} --dataset_dir {LABELLED}"
        )
    return 0
