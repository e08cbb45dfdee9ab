"""Which results are on one line, which were the best so far, and how sure their gains are."""

from datetime import UTC, datetime, timedelta
from math import isnan
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from seg.study.lines import Point, lines

BEGIN = datetime(2026, 3, 1, 8, 30, tzinfo=UTC)


def scores(mean: float, cases: int = 30, first: int = 0, noise: int = 0) -> pd.DataFrame:
    """Two classes of each case; a case is as hard in every result."""
    rng = np.random.default_rng(noise)
    hard = np.random.default_rng(7).normal(0, 0.04, first + cases)[first:]
    names = [f"case_{number:03d}" for number in range(first, first + cases)]
    own = hard + rng.normal(0, 0.01, cases)
    own += mean - own.mean()
    rows = [(name, name, kind, dice + more) for name, dice in zip(names, own, strict=True) for kind, more in KINDS]
    return pd.DataFrame(rows, columns=["case", "patient", "class", "dice"])


KINDS = (("lobe", 0.01), ("tail", -0.01))


def result(number: int, table: pd.DataFrame, **about: Any) -> Point:
    values: dict[str, Any] = {
        "runs": (f"{number:08x}",),
        "finished": BEGIN + timedelta(days=number),
        "name": "unet",
        "study": "first",
        "arm": "baseline",
        "seed": "0",
        "folds": ("0",),
        "part": "test",
        "data": "d" * 64,
        "settings": {},
        "scores": table,
    }
    return Point(**values | about)


def test_only_results_on_the_same_cases_stand_on_one_line() -> None:
    same = scores(0.8)
    found = lines(
        [
            result(0, same),
            result(1, scores(0.9)),
            result(2, scores(0.99), part="oof"),
            result(3, scores(0.99, first=1)),
            result(4, scores(0.99), data="e" * 64),
            result(5, same.assign(patient="one")),
            result(6, same[same["class"] == "lobe"]),
            result(7, scores(0.7)),
        ]
    )
    assert [len(line.points) for line in found] == [3, 1, 1, 1, 1, 1], "the line with the most results first"
    assert [one.runs[0][-1] for one in found[0].points] == list("017")
    titles = [line.title for line in found]
    assert len(set(titles)) == len(titles), "where the number of cases does not tell them apart, a mark does"
    assert titles[1] == "Out of fold, fold 0: 30 cases"
    assert titles[0].startswith("Test part: 30 cases (")


def test_folds_stand_in_the_title_where_all_results_have_the_same() -> None:
    five, three = (result(n, scores(0.8), part="oof", folds=tuple("01234"[:n])) for n in (5, 3))
    (line,) = lines([five, three])
    assert line.title == "Out of fold: 30 cases", "the same cases, dealt out otherwise"
    (line,) = lines([five, result(9, scores(0.9), part="oof", folds=five.folds)])
    assert line.title == "Out of fold, folds 0, 1, 2, 3, 4: 30 cases"


def test_the_best_so_far_is_better_than_all_before_it() -> None:
    reached = [0.80, 0.79, 0.82, 0.82, 0.81, 0.83]
    order = np.random.default_rng(0).permutation(len(reached))
    (line,) = lines([result(int(n), scores(reached[n], noise=int(n))) for n in order])
    assert [one.dice for one in line.points] == pytest.approx(reached), "in order of time"
    assert [line.points.index(best.point) for best in line.bests] == [0, 2, 5], "an equal one is none"
    assert [best.gain for best in line.bests][1:] == pytest.approx([0.02, 0.01])
    assert isnan(line.bests[0].gain)
    assert line.bests[-1].point is line.points[5]


def test_intervals_are_those_of_student_over_patients() -> None:
    tables = [scores(0.80, noise=1), scores(0.85, noise=2)]
    (line,) = lines([result(n, table) for n, table in enumerate(tables)])
    by_patient = [table.groupby("patient")["dice"].mean().to_numpy() for table in tables]
    for best, values in zip(line.bests, by_patient, strict=True):
        expected = stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values))
        assert (best.low, best.high) == pytest.approx(expected, abs=0.1 * (expected[1] - expected[0]))
    paired = by_patient[1] - by_patient[0]
    expected = stats.t.interval(0.95, len(paired) - 1, paired.mean(), stats.sem(paired))
    found = line.bests[1]
    assert (found.gain_low, found.gain_high) == pytest.approx(expected, abs=0.1 * (expected[1] - expected[0]))
    assert found.gain_high - found.gain_low < 0.5 * (found.high - found.low), "paired: hard cases are hard for both"


def test_a_patient_of_many_scans_counts_once() -> None:
    table = scores(0.8, cases=3)
    table["patient"] = table["case"].replace("case_001", "case_000")
    by_case = table.groupby("case")["dice"].mean().to_numpy()
    assert result(0, table).dice == pytest.approx((by_case[:2].mean() + by_case[2]) / 2)


def test_intervals_end_where_dice_does() -> None:
    high, low = (scores(mean, cases=4).assign(dice=lambda t: t["dice"].clip(0, 1)) for mean in (0.99, 0.01))
    (line,) = lines([result(0, low), result(1, high)])
    first, last = line.bests
    assert first.low == 0
    assert last.high == 1
    assert last.gain_high <= 1


def test_a_class_counts_where_the_reference_or_the_prediction_has_it() -> None:
    same = scores(0.8, cases=6).assign(missed=0, false=0)
    tail, first = same["class"] == "tail", same["case"] == "case_000"
    away = same.assign(dice=same["dice"].where(~tail))
    (line,) = lines([result(0, away.assign(dice=away["dice"].where(~first | tail, 0.5))), result(1, away)])
    lobe = same[~tail].set_index("case")["dice"]
    assert line.points[1].dice == pytest.approx(lobe.mean()), "the absent class lifts nothing"
    assert line.bests[1].gain == pytest.approx((lobe["case_000"] - 0.5) / 6)
    made_up = away.assign(dice=away["dice"].where(~(tail & first), 0.0), false=(tail & first).astype(int))
    (line,) = lines([result(0, made_up), result(1, away)])
    assert line.points[0].dice == pytest.approx((lobe.sum() - lobe["case_000"] / 2) / 6)
    assert line.bests[1].gain == pytest.approx(0.5 / 6), "paired: where one made it up, the other was right not to"


def test_a_perfect_prediction_counts_where_the_table_is_of_this_version() -> None:
    """A table of an earlier version has 1 where a class is nowhere; one with calibration errors has not."""
    table = scores(0.8)
    table.loc[table["case"] == "case_000", "dice"] = 1.0
    rest = table[table["case"] != "case_000"].groupby("case")["dice"].mean()
    perfect = pd.concat([rest, pd.Series([1.0])]).mean()
    now = table.assign(missed=0, false=0)
    assert result(0, now).dice == pytest.approx(perfect)


def test_the_best_so_far_never_loses_beside_the_one_before() -> None:
    """Where one makes up a class, the other rightly left it empty: side by side that counts for both."""
    empty, made_up = (scores(mean, cases=10).assign(missed=0, false=0) for mean in (0.80, 0.845))
    for table, cases in ((empty, range(10)), (made_up, range(1, 10))):
        rows = (table["class"] == "tail") & table["case"].isin([f"case_{n:03d}" for n in cases])
        table.loc[rows, "dice"] = np.nan
    wrong = (made_up["class"] == "tail") & (made_up["case"] == "case_000")
    made_up.loc[wrong, ["dice", "false"]] = (0.0, 1)
    (line,) = lines([result(0, empty), result(1, made_up)])
    assert all(isnan(best.gain) or best.gain > 0 for best in line.bests)


def test_one_patient_has_no_interval() -> None:
    (line,) = lines([result(0, scores(0.8, cases=1)), result(1, scores(0.9, cases=1))])
    assert isnan(line.bests[0].low)
    assert line.bests[1].gain == pytest.approx(0.1)
    assert isnan(line.bests[1].gain_low)
    assert line.bests[1].gained == "+0.1000"
    assert "Dice 0.900, unet" in line.sentence


def test_of_the_settings_those_are_told_that_vary() -> None:
    same = {"loss._target_": "dice_ce", "trainer.max_epochs": "40"}
    first = result(0, scores(0.8), settings=same | {"optimizer.lr": "0.1", "model._target_": "unet", "a": "x" * 99})
    other = result(1, scores(0.9), settings=same | {"model._target_": "unetpp", "attention._target_": "SE"})
    (line,) = lines([first, other])
    assert line.settings(first) == "model unet, optimizer.lr 0.1, a …"
    assert line.settings(other) == "model unetpp, attention SE"
    (alone,) = lines([first])
    assert alone.settings(first) == ""
    many = result(2, scores(0.95), settings={f"b{n}": "1" for n in range(9)})
    (line,) = lines([first, many])
    assert line.settings(many).endswith(", b5 1 and 3 more")


def test_best_and_latest_in_words() -> None:
    first = result(0, scores(0.8))
    (alone,) = lines([first])
    assert alone.sentence.endswith("unet (run 00000000, 2026-03-01 08:30). It is the only result.")
    (rising,) = lines([first, result(1, scores(0.9))])
    assert "Dice 0.900 [" in rising.sentence
    assert rising.sentence.endswith("It is the latest of 2 results too.")
    (falling,) = lines([first, result(1, scores(0.7), name="unetpp", runs=("a" * 8, "b" * 8, "c" * 8))])
    assert falling.sentence.endswith("Latest of 2 results: 0.700, unetpp (run aaaaaaaa +2, 2026-03-02 08:30).")


def test_nothing_gives_no_line() -> None:
    assert lines([]) == []
