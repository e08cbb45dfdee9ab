"""Curves of a training run: loss, dice and learning rate over the epochs."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from seg.atomic import atomic_write

TRAIN, VAL, FAINT = "#0072B2", "#D55E00", "#888888"


def curves(history: Sequence[Mapping[str, float]], folder: Path) -> list[Path]:
    """Writes ``loss_dice.png`` and ``learning_rate.png`` into ``folder``, 150 dpi.

    matplotlib's objects without pyplot, so that nothing global changes and no window system is needed.

    Args:
        history: one mapping an epoch with ``epoch`` and any of ``train_loss``, ``val_loss``, ``train_dice``,
            ``val_dice``, ``val_dice_<class>``, ``lr``; a value may be missing or NaN where an epoch did not validate.
        folder: where the files go.

    Returns:
        The files written; none for an empty history.
    """
    if not history:
        return []
    both, rate = _figure(10.0), _figure(5.0)
    loss, dice = both.subplots(1, 2)
    _draw(loss, history, {"train_loss": ("training", TRAIN, 1.5), "val_loss": ("validation", VAL, 1.5)}, "loss")
    classes = dict.fromkeys(key for row in history for key in row if key.startswith("val_dice_"))
    lines = {key: (key.removeprefix("val_dice_"), FAINT, 0.9) for key in classes}
    _draw(dice, history, lines | {"train_dice": ("training", TRAIN, 1.5), "val_dice": ("validation", VAL, 1.5)}, "dice")
    dice.set_ylim(0, 1)
    _mark_best(dice, history)
    _draw(rate.subplots(), history, {"lr": ("learning rate", TRAIN, 1.5)}, "learning rate")
    return [_write(both, folder / "loss_dice.png"), _write(rate, folder / "learning_rate.png")]


def _figure(inches: float) -> Figure:
    figure = Figure(figsize=(inches, 3.6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _draw(
    axes: Axes, history: Sequence[Mapping[str, float]], lines: Mapping[str, tuple[str, str, float]], name: str
) -> None:
    """One line for each key that has a value, with dots where points are few; classes in turn solid, dashed, dotted."""
    styles = ("-", "--", ":", "-.")
    shown = 0
    for key, (text, color, width) in lines.items():
        points = [(row["epoch"], row[key]) for row in history if np.isfinite(row.get(key, np.nan))]
        if points:
            style = styles[shown % len(styles)] if color == FAINT else "-"
            marker = "." if len(points) < 20 else ""
            axes.plot(*zip(*points, strict=True), label=text, color=color, lw=width, ls=style, marker=marker)
            shown += 1
    axes.set_xlabel("epoch")
    axes.set_ylabel(name)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if shown > 1:
        axes.legend(frameon=False, fontsize=8)


def _mark_best(axes: Axes, history: Sequence[Mapping[str, float]]) -> None:
    points = [(row["val_dice"], row["epoch"]) for row in history if np.isfinite(row.get("val_dice", np.nan))]
    if points:
        best, epoch = max(points, key=lambda point: (point[0], -point[1]))
        axes.axvline(epoch, color=VAL, lw=0.8, ls=":")
        axes.set_title(f"best validation dice {best:.3f} in epoch {epoch:g}", fontsize=9)


def _write(figure: Figure, path: Path) -> Path:
    content = BytesIO()
    figure.savefig(content, format="png")
    atomic_write(path, content.getvalue())
    return path
