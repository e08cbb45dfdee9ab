"""What all figures share: colours that colour-blind readers can distinguish, and how a figure becomes a file."""

from collections.abc import Mapping
from io import BytesIO
from typing import Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Okabe and Ito 2008, Color Universal Design.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#666666"
SAND, INK = "#EFE7C8", "#222222"


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, inches, 150 dpi; without pyplot, so that nothing global changes and no window is needed."""
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def plain(panel: Axes, axis: Literal["x", "both"] = "both") -> None:
    """A faint grid, and no frame but the axes; of ``x`` alone without the left one."""
    panel.grid(axis=axis, alpha=0.25)
    panel.spines[["top", "right", *(["left"] if axis == "x" else [])]].set_visible(False)


def written(figure: Figure, kind: str) -> bytes:
    """The figure as ``png`` or ``svg``, the same bytes each time."""
    content = BytesIO()
    nothing: Mapping[str, str | None] = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with mpl.rc_context({"svg.hashsalt": "seg", "svg.fonttype": "path"}):
        figure.savefig(content, format=kind, metadata=nothing if kind == "svg" else None)
    return content.getvalue()
