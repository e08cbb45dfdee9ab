"""How the results on a data set grew over time: which can be compared, which were the best so far, by how much.

A line holds results on the same cases of the same data, scored in the same part: results of the test part never stand
beside those out of fold, nor beside those of another test part. Usable alone, on ``Result`` from anywhere.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from hashlib import sha256
from math import nan
from typing import Literal

import numpy as np
import pandas as pd

from seg.errors import few
from seg.study.contrasts import interval, resample, spread
from seg.study.scores import patient_values
from seg.study.sentences import signed, spelled

DRAWS, LEVEL = 10_000, 0.95
SHOWN_SETTINGS, LETTERS = 6, 30
_FIRST = ("model", "attention", "scheduler", "loss", "optimizer", "augmentation", "trainer")
PARTS = {"test": "Test part", "oof": "Out of fold"}


@dataclass(frozen=True)
class Result:
    """One score of a set of cases: of one run, or of the runs of all folds of one arm and seed."""

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
    def cases(self) -> frozenset[str]:
        """What it was scored on."""
        return frozenset(self.scores["case"])

    @cached_property
    def comparable(self) -> str:
        """A hash, the same for results that can be compared: of part, data, and all cases with patient and classes."""
        rows = sorted(self.scores[["case", "patient", "class"]].astype(str).itertuples(index=False, name=None))
        return sha256(json.dumps([self.part, self.data, rows]).encode()).hexdigest()

    @cached_property
    def dice(self) -> float:
        """Mean over patients of their cases' mean over classes, as in the tables of studies."""
        by_case = self.scores.groupby(["patient", "case"])["dice"].mean()
        return float(by_case.groupby("patient").mean().mean())

    @property
    def run(self) -> str:
        """The short id of the run, or of the first of its runs and how many more."""
        return self.runs[0] + (f" +{len(self.runs) - 1}" if len(self.runs) > 1 else "")

    @property
    def what(self) -> str:
        """Name, study, arm where it says more than the name, and seed."""
        arm = f", arm {self.arm}" * (self.arm not in ("", self.name))
        return f"{self.name}: study {self.study}{arm}, seed {self.seed or 'not known'}"


@dataclass(frozen=True)
class Record:
    """A result that was the best so far, with 95 % intervals over patients; NaN where they are not known."""

    place: int  # among the results of its line
    low: float
    high: float
    gain: float  # over the record before it, on the same patients; NaN for the first
    gain_low: float
    gain_high: float


@dataclass(frozen=True)
class Line:
    """Results on the same cases, in order of time."""

    results: tuple[Result, ...]
    records: tuple[Record, ...]
    marked: bool  # whether another line would have the same title

    @property
    def best(self) -> Result:
        """The last record."""
        return self.results[self.records[-1].place]

    @property
    def title(self) -> str:
        """Which part, which folds where all have the same, how many cases; a mark where that tells too little."""
        first, count = self.results[0], len(self.results[0].cases)
        known = first.part == "oof" and len({result.folds for result in self.results}) == 1
        folds = f", fold{'s' * (len(first.folds) > 1)} {', '.join(first.folds)}" * known
        mark = f" ({first.comparable[:6]})" * self.marked
        return f"{PARTS[first.part]}{folds}: {count} case{'s' * (count > 1)}{mark}"

    @property
    def about(self) -> str:
        """What the results of the line have in common."""
        first = self.results[0]
        how = {"test": "kept back from training", "oof": "each scored by a run that had not trained on it"}[first.part]
        return f"The cases, {how}: {few(first.cases)}. Version of the data: {first.data[:8] or 'not known'}."

    @cached_property
    def _varying(self) -> list[str]:
        keys = {key for result in self.results for key in result.settings}
        varying = [key for key in keys if len({result.settings.get(key) for result in self.results}) > 1]
        return sorted(varying, key=lambda key: (*(not key.startswith(first) for first in _FIRST), key))

    def settings(self, result: Result) -> str:
        """Those of its settings that are not the same in the whole line; of many the first."""
        texts = [
            f"{key.removesuffix('._target_')} {_short(result.settings[key])}"
            for key in self._varying
            if key in result.settings
        ]
        more = len(texts) - SHOWN_SETTINGS
        return ", ".join(texts[:SHOWN_SETTINGS]) + (f" and {more} more" if more > 0 else "")


def lines(results: Sequence[Result]) -> list[Line]:
    """Puts together what can be compared; the line with the most results first.

    Raises:
        DataError: scores of a record that are doubled or no numbers.
    """
    groups: dict[str, list[Result]] = {}
    for result in sorted(results, key=lambda result: (result.finished, result.runs)):
        groups.setdefault(result.comparable, []).append(result)
    ordered = sorted(groups.values(), key=len, reverse=True)
    made = [Line(tuple(group), tuple(_records(group)), marked=False) for group in ordered]
    titles = [line.title for line in made]
    return [Line(line.results, line.records, titles.count(line.title) > 1) for line in made]


def _records(results: Sequence[Result]) -> list[Record]:
    best, places = -np.inf, []
    for place, result in enumerate(results):
        if result.dice > best + 1e-9:  # rounding of means is no gain
            best = result.dice
            places.append(place)
    known = _intervals([results[place].scores for place in places])
    return [Record(place, *numbers) for place, numbers in zip(places, known, strict=True)]


def _intervals(scores: Sequence[pd.DataFrame]) -> list[tuple[float, float, float, float, float]]:
    """For each record the ends of its interval, and its gain over the one before with its ends.

    By the bootstrap of studies, over patients; what another seed would give is not in it.
    """
    if scores[0]["patient"].nunique() < 2:
        dice = [float(one["dice"].mean()) for one in scores]
        gains = [nan, *np.diff(dice)]
        return [(nan, nan, float(gain), nan, nan) for gain in gains]
    table = pd.concat([one.assign(arm=str(n), seed=0, fold=0) for n, one in enumerate(scores)])
    order = [str(n) for n in range(len(scores))]
    parts = spread(patient_values(table, arms=order, metrics=["dice"]).by_metric["dice"])
    (drawn,) = resample([parts], DRAWS, 0)
    mean = parts.means.mean(1)
    low, high = interval(drawn, LEVEL)
    gain = np.diff(mean)
    gain_low, gain_high = interval(np.diff(drawn, axis=1), LEVEL)
    first = np.full(1, nan)
    columns = (
        mean + low,
        mean + high,
        *(np.concatenate([first, part]) for part in (gain, gain + gain_low, gain + gain_high)),
    )
    return [(float(a), float(b), float(c), float(d), float(e)) for a, b, c, d, e in zip(*columns, strict=True)]


def _short(text: str) -> str:
    return text if len(text) <= LETTERS else "…"


def moment(when: datetime) -> str:
    """To the minute, as in the other tables."""
    return f"{when:%Y-%m-%d %H:%M}"


def with_interval(dice: float, low: float, high: float) -> str:
    """0.871 [0.860, 0.881]; without the interval where it is not known."""
    ends = f" [{spelled(low, 'dice')}, {spelled(high, 'dice')}]" if np.isfinite(low) else ""
    return f"{spelled(dice, 'dice')}{ends}"


def gained(record: Record) -> str:
    """What a record brought over the one before it; – for the first."""
    if np.isnan(record.gain):
        return "–"
    ends = f" [{signed(record.gain_low, 'dice')}, {signed(record.gain_high, 'dice')}]"
    return signed(record.gain, "dice") + ends * bool(np.isfinite(record.gain_low))


def sentence(line: Line) -> str:
    """The best and the latest result of a line, in words."""
    record, best, latest = line.records[-1], line.best, line.results[-1]
    text = f"{line.title}. Best: Dice {with_interval(best.dice, record.low, record.high)}, {who(best)}. "
    if len(line.results) == 1:
        return text + "It is the only result."
    if latest is best:
        return text + f"It is the latest of {len(line.results)} results too."
    return text + f"Latest of {len(line.results)} results: {spelled(latest.dice, 'dice')}, {who(latest)}."


def who(result: Result) -> str:
    """A result's name, run and time."""
    return f"{result.name} (run {result.run}, {moment(result.finished)})"
