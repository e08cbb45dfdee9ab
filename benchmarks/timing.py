"""How the benchmarks of single calls take the time."""

import time
from collections.abc import Callable
from statistics import median


def median_seconds(work: Callable[[], object], repeats: int) -> float:
    """Of ``repeats`` calls after one that does not count."""
    work()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return median(seconds)
