"""Memory that stays in the process. Imports nothing heavy, for it must run before the first large tensor."""

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_NEVER = 2**31 - 1


def keep_freed_memory() -> None:
    """Stops glibc from handing big tensors back to the kernel at every step; elsewhere nothing happens.

    Otherwise 20 to 35 % of a CPU step of the larger networks goes into page faults (benchmarks/RESULTS.md).
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # absent in musl
        mallopt(_M_MMAP_THRESHOLD, _NEVER)
        mallopt(_M_TRIM_THRESHOLD, _NEVER)


@contextmanager
def imports() -> Iterator[None]:
    """Imports made within it are not searched for garbage, neither while they are made nor later.

    PyTorch and MONAI make a million objects that stay. Looking through them time and again is a fifth of a start.
    """
    before = len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) > before:  # not once more in each trial of a sweep, whose garbage would stay, too
            gc.freeze()
        gc.enable()
