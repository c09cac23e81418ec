"""Named faults of image files, and the exception with which a reader reports one."""

__all__ = ["BadFileError", "amount"]

MISSING = "missing file"
UNREADABLE = "unreadable"
DIMENSIONS = "wrong number of dimensions"
SINGLE_SLICE = "single slice"
SINGLE_ROW = "single row"
GEOMETRY = "bad geometry"
TIME = "time axis"
NAN = "NaN"
INF = "inf"
EMPTY = "empty"


class BadFileError(ValueError):
    """A file whose content cannot be used.

    Attributes:
        problem: Fixed name of the fault, one of this module's constants.
        detail: What was found, one clause in the user's terms.
        passing: The fault is one of the machine, such as a missing decoder, and may be gone next time.

    Examples:
        >>> print(BadFileError(GEOMETRY, "no space origin"))
        bad geometry: no space origin
    """

    def __init__(self, problem: str, detail: str, passing: bool = False) -> None:
        super().__init__(f"{problem}: {detail}")
        self.problem, self.detail, self.passing = problem, detail, passing


def amount(size: float) -> str:
    """A number of bytes for people.

    Examples:
        >>> amount(348), amount(20_000), amount(5.3e9)
        ('348 bytes', '20 kB', '5.3 GB')
    """
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size:.0f} bytes"
