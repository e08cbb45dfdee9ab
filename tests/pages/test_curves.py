"""Curves of a run are drawn from whatever its history holds."""

from pathlib import Path

import matplotlib as mpl
import pytest
from matplotlib.axes import Axes
from PIL import Image

from seg.pages.curves import curves

HISTORY = [
    {"epoch": 1, "train_loss": 1.0, "train_dice": 0.2, "lr": 1e-3},
    {"epoch": 2, "train_loss": 0.7, "train_dice": 0.5, "lr": 5e-4, "val_loss": 0.8, "val_dice": 0.6, "val_dice_a": 0.5},
    {"epoch": 3, "train_loss": 0.6, "train_dice": 0.6, "lr": 1e-4, "val_loss": float("nan"), "val_dice": float("nan")},
    {"epoch": 4, "train_loss": 0.5, "train_dice": 0.7, "lr": 0.0, "val_loss": 0.9, "val_dice": 0.4, "val_dice_a": 0.3},
]


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[tuple[float, float]]]:
    """Points of every line drawn, by the axis and the name of the line."""
    found: dict[str, list[tuple[float, float]]] = {}
    plot = Axes.plot

    def kept(axes: Axes, x: tuple[float, ...], y: tuple[float, ...], label: str, **style: object) -> object:
        found[f"{len(found)} {label}"] = list(zip(x, y, strict=True))
        return plot(axes, x, y, label=label, **style)

    monkeypatch.setattr(Axes, "plot", kept)
    return found


def test_every_value_is_drawn_at_its_epoch_and_gaps_are_left_out(
    tmp_path: Path, lines: dict[str, list[tuple[float, float]]]
) -> None:
    curves(HISTORY, tmp_path)
    assert lines == {
        "0 training": [(1, 1.0), (2, 0.7), (3, 0.6), (4, 0.5)],
        "1 validation": [(2, 0.8), (4, 0.9)],
        "2 a": [(2, 0.5), (4, 0.3)],
        "3 training": [(1, 0.2), (2, 0.5), (3, 0.6), (4, 0.7)],
        "4 validation": [(2, 0.6), (4, 0.4)],
        "5 learning rate": [(1, 1e-3), (2, 5e-4), (3, 1e-4), (4, 0.0)],
    }


@pytest.mark.parametrize("length", [1, 2, 4])
def test_files_are_whole_pictures(tmp_path: Path, length: int) -> None:
    paths = curves(HISTORY[:length], tmp_path / "plots")
    assert [path.name for path in paths] == ["loss_dice.png", "learning_rate.png"]
    for path in paths:
        with Image.open(path) as drawn:
            drawn.load()
            assert drawn.height == 540


def test_best_epoch_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    titles = []
    monkeypatch.setattr(Axes, "set_title", lambda axes, text, **style: titles.append(text))
    curves(HISTORY, tmp_path)
    assert titles == ["best validation dice 0.600 in epoch 2"]


@pytest.mark.parametrize(("classes", "named"), [(1, 3), (8, 10), (40, 3)])
def test_a_legend_hides_no_curve_and_names_no_crowd(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, classes: int, named: int
) -> None:
    drawn = []
    monkeypatch.setattr("seg.pages.curves.write", lambda figures: drawn.extend(figures.values()))
    numbers = {f"val_dice_{n}": n / 50 for n in range(classes)}
    curves([{"epoch": n, "train_dice": 0.5, "val_dice": 0.5} | numbers for n in range(3)], tmp_path)
    drawn[0].draw_without_rendering()
    _, dice = drawn[0].axes
    legend = dice.get_legend()
    assert len(dice.lines) == classes + 3, "each class is drawn, and the best epoch"
    assert len(legend.get_texts()) == named
    assert not legend.get_window_extent().overlaps(dice.get_window_extent())
    assert legend.get_window_extent().x1 <= drawn[0].bbox.x1


def test_no_history_gives_no_file(tmp_path: Path) -> None:
    assert curves([], tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_nothing_global_changes(tmp_path: Path) -> None:
    before = dict(mpl.rcParams)
    curves(HISTORY, tmp_path)
    assert dict(mpl.rcParams) == before
