"""Keeps freed memory in the process. Imports nothing heavy, for it must run before the first large tensor."""

import ctypes
import sys

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
