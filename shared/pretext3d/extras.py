"""Packages that only some users need: the extras of the package, and what to say where one is missing."""

import importlib.metadata

__all__ = ["EXTRAS", "not_installed", "too_old"]

# As in shared/pyproject.toml, without versions.
EXTRAS = {
    "dicom": ("pydicom", "python-gdcm"),
    "mlflow": ("mlflow-skinny", "sqlalchemy", "alembic"),
    "cluster": ("submitit",),
}


def not_installed(package: str) -> str:
    """The clause of a message that names a missing package and, if it is in an extra, what installs that.

    The packages are named, not only the extra: a bundle that carries this package has no extras.

    Examples:
        >>> not_installed("submitit")
        'needs the package submitit, which is not installed: pip install submitit (extra cluster)'
        >>> not_installed("pynrrd")
        'needs the package pynrrd, which is not installed'
    """
    extra = next((name for name, packages in EXTRAS.items() if package in packages), None)
    how = f": pip install {' '.join(EXTRAS[extra])} (extra {extra})" if extra else ""
    return f"needs the package {package}, which is not installed{how}"


def too_old(package: str, major: int) -> str:
    """The clause of a message about an installed package of an extra whose version is below `major`; else ''.

    Examples:
        >>> too_old("torch", 2)
        ''
    """
    found = importlib.metadata.version(package)
    if int(found.partition(".")[0]) >= major:
        return ""
    extra = next(name for name, packages in EXTRAS.items() if package in packages)
    return f"needs {package} {major} or newer (extra {extra}), found {found}"
