"""Calibration of a study's arms: means by plain arithmetic; no table where a run has no probabilities."""

import numpy as np
import pandas as pd
import pytest

from benchmarks.statistics import study
from seg.pages.html import table_html
from seg.study.analysis import Analysis, analyse
from seg.study.calibration import calibration_table

BARE = study({"base": 0.0, "se": 0.01}, patients=40, classes=("a", "b"))
NOISE = np.random.default_rng(0).normal(0, 0.01, (2, len(BARE)))
SCORES = BARE.assign(ece=0.02 + abs(NOISE[0]), ace=0.2 + NOISE[1] + 0.1 * (BARE["arm"] == "se"))


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    return analyse(SCORES, baseline="base", draws=2000)


def cells(analysis: Analysis, scores: pd.DataFrame) -> list[list[str]]:
    table = calibration_table(scores, analysis)
    assert table
    return [[cell.text for cell in row] for row in table.blocks[""]]


def test_each_arm_has_its_mean_and_its_difference_with_intervals(analysis: Analysis) -> None:
    base, se = cells(analysis, SCORES)
    means = SCORES.groupby("arm")[["ece", "ace"]].mean()
    assert base[0::2] == ["base", "–", "–"]
    assert base[1].startswith(f"{means.loc['base', 'ece']:.4f} [")
    assert se[3].startswith(f"{means.loc['se', 'ace']:.4f} [")
    low, high = map(float, se[4].partition("[")[2].rstrip("]").split(", "))
    assert low < means.loc["se", "ace"] - means.loc["base", "ace"] < high
    assert high - low < 0.02
    table = calibration_table(SCORES, analysis)
    assert table
    assert "without a verdict" in table_html(table)


def test_it_is_of_the_judged_classes(analysis: Analysis) -> None:
    only = analyse(SCORES, baseline="base", classes=["b"], draws=400)
    own = SCORES[(SCORES["class"] == "b") & (SCORES["arm"] == "se")]["ace"].mean()
    assert cells(only, SCORES)[1][3].startswith(f"{own:.4f} [")


def test_there_is_none_where_a_run_kept_none(analysis: Analysis) -> None:
    assert calibration_table(BARE, analysis) is None
    lacking = SCORES.assign(ece=SCORES["ece"].mask((SCORES["arm"] == "se") & (SCORES["seed"] == 1)))
    assert calibration_table(lacking, analysis) is None
    unequal = SCORES[(SCORES["arm"] != "se") | (SCORES["seed"] != 1) | (SCORES["case"] != "case_003")]
    assert calibration_table(unequal, analysis) is None
    stopped = SCORES[(SCORES["arm"] != "se") | ~SCORES["case"].isin(["case_003", "case_004"])]
    assert calibration_table(stopped, analysis) is None, "an arm that lacks a fold"
    text = SCORES.assign(ece=SCORES["ece"].astype(str), ace=SCORES["ace"].astype(str))
    assert cells(analysis, text) == cells(analysis, SCORES), "as they are read"
