"""The pictures of a sweep: all that there are trials for, readable, and none an error."""

import logging
import math
import random
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest
from PIL import Image

from seg.records.folder import Process
from seg.sweep import plots
from seg.sweep.ledger import Job, Ledger, Settings
from seg.sweep.space import read_space

ONE = ["history", "slice", "importances", "parallel_coordinate", "intermediate_values"]
LINES = [
    "model=choice(unet,unetpp,attention_unet)",
    "optimizer.lr=tag(log,interval(1e-5,1e-1))",
    "scheduler=choice(constant,onecycle)",
    "scheduler.max_lr=tag(log,interval(1e-4,1e-1))",
]
SPACE = read_space(LINES, {}, {"scheduler.max_lr": {"scheduler": "onecycle"}}, lambda group: [])


def searched(path: Path, n_trials: int = 16, objectives: Sequence[str] = ("val_dice",), name: str = "tune") -> Ledger:
    ways = ("maximize", "minimize", "minimize", "minimize")[: len(objectives)]
    pruner = "median" if len(objectives) == 1 else "none"
    settings = Settings(tuple(objectives), ways, n_trials, "random", pruner=pruner)
    ledger = Ledger(name, path / "journal.log", settings, Process.this(), SPACE)
    while trial := ledger.take():
        luck = random.Random(trial.number)
        dice = 0.8 - 0.1 * abs(math.log10(trial.params["optimizer.lr"]) + 3) + 0.01 * luck.random()
        if trial.number == 2:
            ledger.fail(trial.number, "broken", retry=False)
        elif any(ledger.report(trial.number, epoch, dice * (1 - 0.5**epoch)) for epoch in range(1, 6)):
            ledger.prune(trial.number)
        else:
            ledger.complete(trial.number, [dice, *(luck.random() * 1e6 for _ in objectives[1:])])
    return ledger


def names(paths: Sequence[Path]) -> list[str]:
    return sorted(path.name for path in paths)


def test_a_search_is_drawn_in_every_way(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = dict(mpl.rcParams)
    paths = searched(tmp_path).plots(tmp_path / "plots")
    assert names(paths) == names([Path(f"{name}.png") for name in ONE] + [Path("plots.html")])
    for path in paths[:-1]:
        with Image.open(path) as picture:
            assert min(picture.size) > 400
            assert len(picture.convert("L").getcolors()) > 3, "not blank"
    assert names(list((tmp_path / "plots").iterdir())) == names(paths), "nothing else is left behind"
    assert dict(mpl.rcParams) == before, "the style of other pictures stays"
    assert not plt.get_fignums()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("count", [2, pytest.param(3, marks=pytest.mark.slow), pytest.param(4, marks=pytest.mark.slow)])
def test_several_objectives_are_drawn_each_and_as_a_front(count: int, tmp_path: Path) -> None:
    objectives = ("val_dice", "params", "seconds", "memory/MiB")[:count]
    paths = searched(tmp_path, 8, objectives).plots(tmp_path / "plots")
    each = [f"{kind}_{name.replace('/', '_')}.png" for kind in ("history", "slice") for name in objectives]
    front = ["pareto_front.png"] if count < 4 else []
    assert names(paths) == sorted([*each, *front, "importances.png", "parallel_coordinate.png", "plots.html"])


def test_a_grid_is_drawn_by_what_its_jobs_differ_in(tmp_path: Path) -> None:
    ledger = Ledger("grid", tmp_path / "journal.log", Settings(("a",), ("maximize",)), Process.this())
    rates, models = ("1e-4", "1e-3", "1e-2"), ("unet", "unetpp")
    ledger.enqueue([Job({"lr": lr, "model": model}, (lr, model)) for lr in rates for model in models])
    while trial := ledger.take():
        ledger.complete(trial.number, [float(trial.params["lr"]) + 1e-5 * trial.number])
    study = ledger._drawable()
    assert {trial.params["lr"] for trial in study.trials} == {1e-4, 1e-3, 1e-2}, "numbers, in order on an axis"
    assert study.trials[0].distributions["lr"].log
    assert {trial.params["model"] for trial in study.trials} == set(models)
    assert next(iter(ledger.importances())) == "lr"
    assert names(ledger.plots(tmp_path)) == sorted([*(f"{name}.png" for name in ONE[:4]), "plots.html"])


@pytest.mark.parametrize("finished", [0, 1, 2])
def test_too_few_trials_leave_plots_out_and_are_no_error(
    finished: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    ledger = Ledger("few", tmp_path / "journal.log", Settings(("a",), ("maximize",), 9), Process.this(), SPACE)
    for value in [0.5] * finished:
        ledger.complete(ledger.take().number, [value])  # type: ignore[union-attr]
    ledger.take()
    assert (
        names(ledger.plots(tmp_path / "plots"))
        == [
            [],
            ["history.png", "plots.html"],
            ["history.png", "parallel_coordinate.png", "plots.html", "slice.png"],
        ][finished]
    )
    assert ledger.importances() == {}
    assert ("no plots" in caplog.text) == (finished < 2)


def test_a_plot_that_cannot_be_drawn_costs_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no ink")

    monkeypatch.setattr(plots, "_mend_slices", broken)
    paths = searched(tmp_path, 6).plots(tmp_path / "plots")
    assert "slice.png" not in names(paths)
    assert "history.png" in names(paths)
    assert "slice.png could not be drawn: no ink" in caplog.text


class Loads(HTMLParser):
    """What a page would fetch, and its texts."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.scripts = self.titles = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        self.titles += tag == "h1"
        self.fetched += [f"{tag} {value}" for key, value in attrs if key in ("src", "href", "data", "srcset")]


def test_the_page_fetches_nothing_and_shows_names_as_they_are(tmp_path: Path) -> None:
    ledger = Ledger("a</title><b>", tmp_path / "journal.log", Settings(("a",), ("maximize",)), Process.this())
    models = ("<script>alert(1)</script>", "b</script>")
    ledger.enqueue([Job({"model<img src=x>": model}, (model,)) for model in models])
    while trial := ledger.take():
        ledger.complete(trial.number, [trial.number])
    *_, page = ledger.plots(tmp_path)
    text = page.read_text(encoding="utf-8")
    seen = Loads()
    seen.feed(text)
    assert seen.fetched == []
    assert seen.titles == 1
    assert "<h1>Sweep a&lt;/title&gt;&lt;b&gt;</h1>" in text
    assert text.count("plotly.js v") == 1, "the library is in it, once"
    assert "alert(1)</script>" not in text
