"""Curves of a training run: loss, dice and learning rate over the epochs."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from seg.study.drawing import BLUE, FAINT, GREY, ORANGE, new_figure, plain, write

NAMED = 8  # classes that have a style and a name of their own


def curves(history: Sequence[Mapping[str, float]], folder: Path) -> list[Path]:
    """Writes ``loss_dice.png`` and ``learning_rate.png`` into ``folder``, 150 dpi; nothing for an empty history.

    ``history`` has one mapping an epoch with ``epoch`` and any of ``train_loss``, ``val_loss``, ``train_dice``,
    ``val_dice``, ``val_dice_<class>``, ``lr``; a value may be missing or NaN where an epoch did not validate.
    """
    if not history:
        return []
    both, rate = new_figure(10, 3.6), new_figure(5, 3.6)
    loss, dice = both.subplots(1, 2)
    classes = dict.fromkeys(key for row in history for key in row if key.startswith("val_dice_"))
    styles = zip(classes, cycle(("-", "--", ":", "-.")), strict=False)
    of_classes = {key: (key.removeprefix("val_dice_"), GREY, style) for key, style in styles}
    if len(classes) > NAMED:
        of_classes = dict.fromkeys(classes, ("", FAINT, "-")) | {next(iter(classes)): ("each class", FAINT, "-")}
    _draw(loss, history, "loss", {"train_loss": ("training", BLUE, "-"), "val_loss": ("validation", ORANGE, "-")})
    lines = of_classes | {"train_dice": ("training", BLUE, "-"), "val_dice": ("validation", ORANGE, "-")}
    _draw(dice, history, "dice", lines)
    dice.set_ylim(0, 1)
    if points := _points(history, "val_dice"):
        epoch, best = max(points, key=lambda point: (point[1], -point[0]))
        dice.axvline(epoch, color=ORANGE, lw=0.8, ls=":")
        dice.set_title(f"best validation dice {best:.3f} in epoch {epoch:g}", fontsize=9)
    _draw(rate.subplots(), history, "learning rate", {"lr": ("learning rate", BLUE, "-")})
    return write({folder / "loss_dice.png": both, folder / "learning_rate.png": rate})


def _draw(
    axes: Axes, history: Sequence[Mapping[str, float]], name: str, lines: Mapping[str, tuple[str, str, str]]
) -> None:
    """One line for each key that has a value, with dots where points are few; ``lines`` give text, colour, style."""
    drawn = {key: points for key in lines if (points := _points(history, key))}
    for key, points in drawn.items():
        text, color, style = lines[key]
        width, marker = 1.5 if color in (BLUE, ORANGE) else 0.9, "." if len(points) < 20 else ""
        axes.plot(*zip(*points, strict=True), label=text, color=color, lw=width, ls=style, marker=marker)
    axes.set_xlabel("epoch")
    axes.set_ylabel(name)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    plain(axes)
    if len(drawn) > 1:  # beside the axes, where it hides no curve
        axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))


def _points(history: Sequence[Mapping[str, float]], key: str) -> list[tuple[float, float]]:
    return [(row["epoch"], row[key]) for row in history if np.isfinite(row.get(key, np.nan))]
