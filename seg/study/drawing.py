"""What all pictures share: colours that colour-blind readers can distinguish, and how a figure becomes a file."""

from collections.abc import Mapping
from colorsys import hsv_to_rgb
from io import BytesIO
from pathlib import Path
from typing import Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from seg.files import atomic_write

# Okabe and Ito 2008, Color Universal Design.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#666666"
SAND, INK, FAINT = "#EFE7C8", "#222222", "#BBBBBB"
# Of classes: four of theirs, lighter for dark images, then such as lie far from these and from the errors' colours.
CLASS_COLORS = ("#00B27D", "#CC79A7", "#F0E442", "#E69F00", "#AAFF99", "#AA0099", "#CCAA55")
ERROR_COLORS = {
    "correct": "#D7D7D7",
    "false positive": "#EB5A00",
    "false negative": "#3CA5FF",
    "wrong class": "#9933FF",
}


def class_colors(count: int) -> list[str]:
    """Colours of classes 1 … ``count``: ``CLASS_COLORS``, then as many hues as are needed, in four light shades."""
    more = range(max(0, count - len(CLASS_COLORS)))
    golden = (5**0.5 - 1) / 2  # of the circle of hues: successive ones lie far apart
    shades = [hsv_to_rgb(n * golden % 1, (0.7, 0.4)[n % 2], (1, 0.8)[n // 2 % 2]) for n in more]
    return [*CLASS_COLORS, *(to_hex(shade).upper() for shade in shades)][:count]


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


def write(figures: Mapping[Path, Figure]) -> list[Path]:
    """Writes each figure as the ending of its path says, once all are drawn; the paths."""
    contents = {path: written(figure, path.suffix[1:]) for path, figure in figures.items()}
    for path, content in contents.items():
        atomic_write(path, content)
    return list(contents)
