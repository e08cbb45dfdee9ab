"""How many processors this process may use: those it was given, where the platform says so."""

import os


def processors() -> int:
    """At least 1; a container or a queue may give fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
