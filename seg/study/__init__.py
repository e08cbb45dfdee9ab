"""Statistics of studies, from scores to tables and sentences; can be used by itself, in a notebook.

::

    from seg.study import analyse, read_scores

    print("\\n".join(analyse(read_scores("scores.csv"), baseline="baseline", margin=0.01).sentences()))
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seg.metrics import read_scores
    from seg.study.analysis import Analysis, analyse

__all__ = ["Analysis", "analyse", "read_scores"]


def __getattr__(name: str) -> Any:
    """Imports on first use: commands read ``seg.study.question`` as they start, and must not wait for SciPy."""
    if name not in __all__:
        raise AttributeError(f"seg.study has no {name}")
    return getattr(import_module("seg.metrics" if name == "read_scores" else "seg.study.analysis"), name)
