"""Download a packed bundle: checked against its index, resumed where it broke, replaced as a whole."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from pretext3d.errors import UserError
from pretext3d.publishing.download import download

EXAMPLES = """examples:
  python tools/download.py vectorpose --source https://example.org/bundles --output_dir there
  python tools/download.py vectorpose --source dist --output_dir there --version 0.1.0
"""


def main(words: Sequence[str] | None = None) -> int:
    """The command; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("name", help="of the bundle, e.g. vectorpose")
    add("--source", required=True, help="URL or folder of packed bundles and their model_info.json")
    add("--output_dir", default=".", help="the bundle becomes a folder in it; default: the current folder")
    add("--version", help="three numbers, e.g. 0.1.0; default: the newest")
    add("--force", action="store_true", help="replace a folder even if it has files of your own in it")
    known = parser.parse_args(words)
    try:
        folder = download(known.name, known.source, known.output_dir, known.version, known.force)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on with what has arrived", file=sys.stderr)
        return 130
    version = json.loads((folder / "configs" / "metadata.json").read_text(encoding="utf-8"))["version"]
    print(f"{known.name} {version}: {folder}")
    if (Path(folder) / "configs" / "finetune.yaml").is_file():
        print(
            f"next:\n  python -m monai.bundle run --config_file {folder}/configs/finetune.yaml "
            f"--pretrained {folder} --dataset_dir LABELLED_FOLDER"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
