"""What a sweep shows of itself: importances, and Optuna's plots as one page."""

import logging
import math
import random
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import pytest

from seg.records.state import Process
from seg.sweep.goal import Goal, Judge
from seg.sweep.jobs import Space, choice, read_space
from seg.sweep.search import Search
from seg.sweep.summary import draw, importances

LINES = [
    "model=choice(unet,unetpp,attention_unet)",
    "optimizer.lr=tag(log,interval(1e-5,1e-1))",
    "scheduler=choice(constant,onecycle)",
    "scheduler.max_lr=tag(log,interval(1e-4,1e-1))",
]
SPACE = read_space(LINES, {}, {"scheduler.max_lr": {"scheduler": "onecycle"}}, None)


def searched(path: Path, n_trials: int = 16, objectives: Sequence[str] = ("val_dice",)) -> Search:
    ways = ("maximize", "minimize", "minimize", "minimize")[: len(objectives)]
    goal = Goal(tuple(objectives), ways, n_trials, "random")
    hand = Search("tune", path / "journal.log", goal, Process.this(), SPACE)
    while trial := hand.take():
        luck = random.Random(trial.number)
        dice = 0.8 - 0.1 * abs(math.log10(float(trial.params["optimizer.lr"])) + 3) + 0.01 * luck.random()
        if len(objectives) == 1:
            Judge("tune", hand.address, trial.id, "none", {}).stops(1, dice / 2)
        if trial.number == 2:
            hand.fail(trial.number, "broken", retry=False)
        elif trial.number == 3 and len(objectives) == 1:
            hand.prune(trial.number)
        else:
            hand.complete(trial.number, [dice, *(luck.random() * 1e6 for _ in objectives[1:])])
    return hand


def grid(path: Path, among: Space) -> Search:
    goal = Goal(("a",), ("maximize",))
    hand = Search("grid", path / "journal.log", goal, Process.this(), among, among.points())
    hand.enter()
    return hand


def plots(page: str) -> int:
    return page.count("<section>")


def test_a_search_is_drawn_in_every_way(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert plots(draw(searched(tmp_path), "tune")) == 4
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize(("count", "drawn"), [(2, 1), (3, 1), (4, 0)])
def test_several_objectives_are_drawn_as_a_front(count: int, drawn: int, tmp_path: Path) -> None:
    hand = searched(tmp_path, 8, ("val_dice", "params", "seconds", "memory_mib")[:count])
    assert plots(draw(hand, "tune")) == drawn
    assert importances(hand.study) == {}


def test_what_explains_the_results_is_important_in_a_grid_too(tmp_path: Path) -> None:
    assert next(iter(importances(searched(tmp_path / "search").study))) == "optimizer.lr"
    among = Space((choice("lr", ("1e-4", "1e-3", "1e-2")), choice("model", ("unet", "unetpp"))))
    hand = grid(tmp_path, among)
    while trial := hand.take():
        hand.complete(trial.number, [float(trial.params["lr"]) + 1e-5 * trial.number])
    assert next(iter(importances(hand.study))) == "lr"
    assert plots(draw(hand, "grid")) == 3


@pytest.mark.parametrize(("finished", "drawn"), [(0, 0), (1, 1), (2, 3)])
def test_too_few_trials_leave_plots_out_and_are_no_error(finished: int, drawn: int, tmp_path: Path) -> None:
    hand = Search("few", tmp_path / "journal.log", Goal(("a",), ("maximize",), 9), Process.this(), SPACE)
    for value in [0.5] * finished:
        trial = hand.take()
        assert trial
        hand.complete(trial.number, [value])
    hand.take()
    assert plots(draw(hand, "few")) == drawn
    assert importances(hand.study) == {}


def test_a_plot_that_cannot_be_drawn_costs_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import optuna

    def plot_slice(study: optuna.Study) -> None:
        raise RuntimeError("no ink")

    monkeypatch.setattr(optuna.visualization, "plot_slice", plot_slice)
    assert plots(draw(searched(tmp_path, 6), "tune")) == 3
    assert "plot_slice could not be drawn: no ink" in caplog.text


class Loads(HTMLParser):
    """What a page would fetch, and its titles."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.titles = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.titles += tag == "h1"
        self.fetched += [f"{tag} {value}" for key, value in attrs if key in ("src", "href", "data", "srcset")]


def test_the_page_fetches_nothing_and_shows_names_as_they_are(tmp_path: Path) -> None:
    models = ("<script>alert(1)</script>", "b</script>")
    hand = grid(tmp_path, Space((choice("model<img src=x>", models),)))
    while trial := hand.take():
        hand.complete(trial.number, [trial.number])
    text = draw(hand, "a</title><b>")
    seen = Loads()
    seen.feed(text)
    assert seen.fetched == []
    assert seen.titles == 1
    assert "<h1>Sweep a&lt;/title&gt;&lt;b&gt;</h1>" in text
    assert text.count("plotly.js v") == 1, "the library is in it, once"
    assert "alert(1)</script>" not in text


@pytest.mark.parametrize("objectives", [("seconds",), ("val_dice", "seconds")])
def test_seconds_may_be_an_objective(objectives: Sequence[str], tmp_path: Path) -> None:
    """The table has the seconds of each trial, too; those of the objective are the run's own."""
    goal = Goal(tuple(objectives), ("maximize", "minimize")[-len(objectives) :], 1, "random")
    hand = Search("tune", tmp_path / "journal.log", goal, Process.this(), SPACE)
    trial = hand.take()
    assert trial
    hand.complete(trial.number, [0.5, 100.0][-len(objectives) :])
    assert hand.frame()["seconds"].tolist() == [100.0]
    assert hand.best().iloc[0]["seconds"] == 100.0
