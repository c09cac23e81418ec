"""Packages that only some users need: the extras of the package, and what to say where one is missing."""

import importlib.metadata
import importlib.util

__all__ = ["EXTRAS", "lacking", "not_installed"]

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


def lacking(package: str, module: str, major: int = 0) -> str:
    """The clause of a message where a package is missing or too old; '' where it is there.

    Args:
        package: Name of the package.
        module: Name under which it is imported.
        major: Its least major version; 0 = any.

    Examples:
        >>> lacking("torch", "torch", 2)
        ''
    """
    if importlib.util.find_spec(module) is None:
        return not_installed(package)
    if not major:
        return ""
    found = importlib.metadata.version(package)
    if int(found.partition(".")[0]) >= major:
        return ""
    return f"needs {package} {major} or newer, found {found}: pip install '{package}>={major}'"
