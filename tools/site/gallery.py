"""The gallery: one picture per method in 3D and in 2D, drawn by `pretext3d preview` on the phantom.

`python -m tools.site.gallery FOLDER BUNDLE ...` draws them. A build does so unless they are in its cache,
where a folder's name is a hash of everything that decides how they look.
"""

import hashlib
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

__all__ = ["CACHE", "drawn", "fingerprint", "gallery_page", "words_of"]

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".site_cache"
# in 2D a slice through the middle of the body: of all slices `preview` draws one near the neck
SLICES = ["--slices", "{'axis': 2, 'every': 27}"]
# further words of a preview: a laptop's network, where a bundle's differ
EXTRA = {("avsdb", 3): ["--profile", "laptop_transformer"], ("avsdb", 2): ["--profile", "laptop"]}
WEIGHTS = {("avsdb", 3): "models/transformer"}  # by bundle and axes, where further ones have learned more


def words_of(bundle: Path, spatial_dims: int, picture: Path) -> list[str]:
    """The words after `pretext3d preview` that draw a picture of a bundle, with its own weights.

    `preview` finds those of a network with as many axes among the bundle's weights, unless `WEIGHTS` names
    them, so that the picture has a prediction.

    Args:
        bundle: Folder of the bundle.
        spatial_dims: 3 or 2.
        picture: Path of the picture.
    """
    words = ["--bundle", str(bundle), "--num", "1", "--device", "cpu", "--output_file", str(picture)]
    weights = bundle / WEIGHTS.get((bundle.name, spatial_dims), "")
    words += ["--spatial_dims", str(spatial_dims), "--checkpoint", str(weights)]
    usual = ["--profile", "laptop", *(SLICES if spatial_dims == 2 else [])]
    return words + EXTRA.get((bundle.name, spatial_dims), usual)


def fingerprint(bundles: Iterable[Path], package: Path) -> str:
    """A hash of the package's source, the bundles' training files and weights, and this file.

    Args:
        bundles: Folders of the bundles.
        package: Folder of the package.
    """
    files = [*sorted(package.rglob("*.py")), Path(__file__)]
    for bundle in bundles:
        files += [bundle / "configs" / "train.yaml", *sorted(bundle.glob("models/**/provenance.json"))]
    digest = hashlib.sha256()
    for path in files:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def drawn(bundles: list[Path], package: Path, cache: Path = CACHE) -> Path:
    """The folder of the pictures, drawn now if these sources have none yet; older ones are removed.

    Args:
        bundles: Folders of the bundles.
        package: Folder of the package.
        cache: Folder for the pictures.

    Raises:
        subprocess.CalledProcessError: a picture could not be drawn.
    """
    folder = cache / fingerprint(bundles, package)
    if not (folder / "complete").is_file():
        command = [sys.executable, "-m", "tools.site.gallery", str(folder), *map(str, bundles)]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        (folder / "complete").touch()
    for other in cache.iterdir():
        if other != folder and other.is_dir():
            for path in other.iterdir():
                path.unlink()
            other.rmdir()
    return folder


def gallery_page(titles: dict[str, str], pictures: bool) -> str:
    """The page.

    Args:
        titles: Title of each bundle by its name.
        pictures: Whether the build has the pictures.
    """
    parts = [
        "# Gallery\n",
        "What a network sees of the embedded phantom (AVS-DB: of generated shapes), what it must predict, "
        "and what the bundle's weights predict, in 3D and in 2D. A build of this site draws the pictures "
        "with the code that it documents. Draw your own scans: "
        "[`pretext3d preview`](reference/commands.md).\n",
    ]
    if not pictures:
        parts.append("This build was made without pictures.\n")
    for name, title in titles.items():
        parts.append(f"## [{title}](methods/{name}.md)\n")
        for dims in (3, 2):
            if pictures:
                parts.append(
                    f"![{title} in {dims}D: input, target, prediction](gallery/{name}_{dims}d.png)\n"
                )
    return "\n".join(parts)


def main(words: list[str]) -> int:
    """Draw the pictures of some bundles into a folder, in one process: importing torch takes longest."""
    import logging

    from pretext3d.commands.preview import options

    folder = Path(words[0])
    folder.mkdir(parents=True, exist_ok=True)
    logging.disable(logging.WARNING)
    for bundle in map(Path, words[1:]):
        for dims in (3, 2):
            options.main(words_of(bundle, dims, folder / f"{bundle.name}_{dims}d.png"))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
