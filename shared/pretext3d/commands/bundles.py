"""The bundles of this package: in the repository, or the one around the vendored package."""

from pathlib import Path

from pretext3d.errors import UserError

__all__ = ["bundles_at_hand", "find_bundle"]


def bundles_at_hand(config: str = "metadata.json", around: Path | None = None) -> dict[str, Path]:
    """The bundles of the repository, or the unzipped bundle that the package is in, by name.

    Args:
        config: File in `configs` that a bundle must have.
        around: Folder that holds the package; default: this package's. If it is neither a bundle nor the
            repository's `shared`, none are found.
    """
    around = around or Path(__file__).resolve().parents[2]
    if (around / "configs" / config).is_file():
        return {around.name: around}
    found = sorted((around.parent / "bundles").glob(f"*/configs/{config}"))
    return {path.parents[1].name: path.parents[1] for path in found}


def find_bundle(given: str, default: str = "vectorpose", around: Path | None = None) -> Path:
    """The folder of the bundle that a command works with.

    Args:
        given: Folder that the user has named; '' = the default.
        default: Name of the repository's bundle to take; an unzipped bundle takes itself.
        around: See `bundles_at_hand`.

    Raises:
        UserError: no folder was named, and no bundle was found.
    """
    if given:
        return Path(given).expanduser().resolve()
    found = bundles_at_hand(around=around)
    if not found:
        raise UserError("--bundle: found nothing, expected the folder of a bundle")
    return found.get(default) or next(iter(found.values()))
