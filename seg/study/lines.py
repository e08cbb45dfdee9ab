"""Results on a data set over time: which can be compared, which were the best so far, and by how much.

A line holds results on the same cases of the same data, scored in the same part: a result of the test part is never
compared with one out of fold, nor with one of another test part.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from math import isfinite, nan
from typing import Literal

import numpy as np
import pandas as pd

from seg.errors import few
from seg.files import digest
from seg.study.contrasts import interval, resample, spread
from seg.study.scores import patient_values, scored
from seg.study.sentences import signed, spelled, with_ends

DRAWS, LEVEL = 10_000, 0.95
SHOWN_SETTINGS, LETTERS = 6, 30
PARTS = {"test": "Test part", "oof": "Out of fold"}
_FIRST = ("model", "attention", "scheduler", "loss", "optimizer", "augmentation", "trainer")


@dataclass(frozen=True, eq=False)
class Point:
    """The scores of a set of cases: of one run, or of the runs of all folds of one arm and seed."""

    runs: tuple[str, ...]  # short ids
    finished: datetime  # when the last of the runs ended
    name: str  # what was trained: model, attention, scheduler
    study: str
    arm: str
    seed: str
    folds: tuple[str, ...]
    part: Literal["test", "oof"]
    data: str  # version of the data set
    settings: Mapping[str, str]  # by key; what is not set is left out
    scores: pd.DataFrame  # one row per case and class: case, patient, class, dice

    @cached_property
    def comparable(self) -> str:
        """A hash, the same for results that can be compared: of part, data, and all cases with patient and classes."""
        rows = sorted(self.scores[["case", "patient", "class"]].astype(str).itertuples(index=False, name=None))
        return digest([self.part, self.data, rows])

    @cached_property
    def dice(self) -> float:
        """Mean over patients of their cases' mean over classes, as in the tables of studies; NaN: nothing to score."""
        by_case = scored(self.scores, ["dice"]).groupby(["patient", "case"])["dice"].mean()
        return float(by_case.groupby("patient").mean().mean())

    @property
    def run(self) -> str:
        """The short id of the run, or of the first of its runs and how many more."""
        return self.runs[0] + (f" +{len(self.runs) - 1}" if len(self.runs) > 1 else "")

    @property
    def what(self) -> str:
        """Name, study, arm where it says more than the name, and seed."""
        arm = f", arm {self.arm}" if self.arm not in ("", self.name) else ""
        return f"{self.name}: study {self.study}{arm}, seed {self.seed or 'not known'}"

    @property
    def when(self) -> str:
        """To the minute, in UTC."""
        return f"{self.finished:%Y-%m-%d %H:%M}"


@dataclass(frozen=True, eq=False)
class Best:
    """A result that was the best so far, with 95 % intervals over patients; NaN where they are not known."""

    point: Point
    low: float = nan
    high: float = nan
    gain: float = nan  # over the best before it, on the same patients; NaN for the first
    gain_low: float = nan
    gain_high: float = nan

    @property
    def dice(self) -> str:
        """0.871 [0.860, 0.881]."""
        return with_ends(self.point.dice, self.low, self.high, "dice")

    @property
    def gained(self) -> str:
        """What it brought over the best before it; – for the first."""
        if not isfinite(self.gain):
            return "–"
        return with_ends(self.gain, self.gain_low, self.gain_high, "dice", signed)


@dataclass(frozen=True, eq=False)
class Line:
    """Results on the same cases."""

    points: tuple[Point, ...]  # in order of time
    bests: tuple[Best, ...]
    marked: bool  # whether another line would have the same title

    @property
    def title(self) -> str:
        """Which part, which folds where all have the same, how many cases; a mark if titles would be the same."""
        first, count = self.points[0], self.points[0].scores["case"].nunique()
        known = first.part == "oof" and len({point.folds for point in self.points}) == 1
        folds = f", fold{'s' if len(first.folds) > 1 else ''} {', '.join(first.folds)}" if known else ""
        mark = f" ({first.comparable[:6]})" if self.marked else ""
        return f"{PARTS[first.part]}{folds}: {count} case{'s' if count > 1 else ''}{mark}"

    @property
    def about(self) -> str:
        """What the results of the line have in common."""
        first = self.points[0]
        how = {"test": "kept back from training", "oof": "each scored by a run that had not trained on it"}[first.part]
        cases = few(set(first.scores["case"]))
        return f"The cases, {how}: {cases}. Version of the data: {first.data[:8] or 'not known'}."

    @cached_property
    def _varying(self) -> list[str]:
        keys = {key for point in self.points for key in point.settings}
        varying = [key for key in keys if len({point.settings.get(key) for point in self.points}) > 1]
        return sorted(varying, key=lambda key: (*(not key.startswith(first) for first in _FIRST), key))

    def settings(self, point: Point) -> str:
        """Those of its settings that are not the same in the whole line; of many the first."""
        texts = [
            f"{key.removesuffix('._target_')} {text if len(text) <= LETTERS else '…'}"
            for key in self._varying
            if (text := point.settings.get(key)) is not None
        ]
        more = len(texts) - SHOWN_SETTINGS
        return ", ".join(texts[:SHOWN_SETTINGS]) + (f" and {more} more" if more > 0 else "")

    @property
    def sentence(self) -> str:
        """The best and the latest result, in words."""
        best, latest = self.bests[-1], self.points[-1]
        text = f"{self.title}. Best: Dice {best.dice}, {_who(best.point)}. "
        if len(self.points) == 1:
            return text + "It is the only result."
        if latest is best.point:
            return text + f"It is the latest of {len(self.points)} results too."
        return text + f"Latest of {len(self.points)} results: {spelled(latest.dice, 'dice')}, {_who(latest)}."


def lines(points: Sequence[Point]) -> list[Line]:
    """Puts together what can be compared; the line with the most results first.

    Raises:
        DataError: scores of a best result that are doubled or no numbers.
    """
    groups: dict[str, list[Point]] = {}
    for point in sorted(points, key=lambda point: (point.finished, point.runs)):
        groups.setdefault(point.comparable, []).append(point)
    ordered = sorted(groups.values(), key=len, reverse=True)
    made = [Line(tuple(group), tuple(_bests(group)), marked=False) for group in ordered]
    titles = [line.title for line in made]
    return [Line(line.points, line.bests, titles.count(line.title) > 1) for line in made]


def _bests(points: Sequence[Point]) -> list[Best]:
    """Intervals are by the bootstrap of studies, over patients; what another seed would give is not in them."""
    found: list[Point] = []
    for point in points:
        # By itself and beside the best so far, where a class that one made up counts for both; rounding is no gain.
        if not found or (point.dice > found[-1].dice + 1e-9 and _mean(found[-1], point)[0] > 1e-9):
            found.append(point)
    return [
        Best(point, *_mean(point)[1:], *(_mean(before, point) if before else ()))
        for before, point in zip([None, *found], found, strict=False)
    ]


def _mean(*points: Point) -> tuple[float, float, float]:
    """Mean over patients of the last point, less the first where there are two; its interval, NaN for one patient."""
    table = pd.concat([point.scores.assign(arm=str(n), seed=0, fold=0) for n, point in enumerate(points)])
    values = patient_values(table, arms=None, metrics=["dice"], least=1)
    parts, weights = spread(values.by_metric["dice"]), np.array([-1.0, 1.0])[-len(points) :]
    mean = float(weights @ parts.means.mean(1))
    if len(values.patients) < 2:
        return mean, nan, nan
    (drawn,) = resample([parts], DRAWS, 0)
    low, high = interval(drawn @ weights, LEVEL)
    return mean, max(mean + float(low), 1.0 - len(points)), min(mean + float(high), 1.0)


def _who(point: Point) -> str:
    return f"{point.name} (run {point.run}, {point.when})"
