"""The memory that a call takes at its peak, in bytes."""

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any


def resident_bytes(entry: str) -> int:
    """An entry of this process's status: VmRSS, what is resident now, or VmHWM, its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(entry))


def peak_bytes(call: Callable[[], Any]) -> tuple[Any, int]:
    """The result of a call, and by how much it raised the resident memory at its peak."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # memory that was freed before would be taken again without a trace
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak to what is resident now
    before = resident_bytes("VmRSS")
    result = call()
    return result, resident_bytes("VmHWM") - before
