"""A/A: studies of equal arms, made of real runs that are dealt to arms at random, claim something in 5 % at most.

Each run of a kept study is one draw, whatever arm it was of, so that arms of such runs differ by luck alone: of
patients with their real tails, and of trainings, some of which failed. What ignores the luck of trainings is found out.
"""

from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from training import Runner

from seg.metrics import METRICS
from seg.study import read_scores
from seg.study.contrasts import contrast_table, resample, spread
from seg.study.scores import Numbers, patient_values
from seg.study.sequential import Looking, Seeds

RESULTS = Path(__file__).parents[2] / "experiments/results"
TABLES = ("attention", "schedulers")
SLOW = pytest.mark.slow


@lru_cache
def runs(name: str) -> Numbers:
    """(runs, patients) of a kept study, whatever arm they were of."""
    values = patient_values(read_scores(RESULTS / name / "scores.csv"), arms=None, metrics=["dice"])
    return np.concatenate(values.by_metric["dice"])


def dealt(known: Numbers, arms: int, rng: np.random.Generator, seeds: int | None = None) -> list[Numbers]:
    """These runs, or so many seeds of them, each in one of so many arms: (seeds, patients) for each."""
    return np.split(rng.permutation(known)[: arms * seeds if seeds else None], arms)


def to_first(arms: int) -> Numbers:
    return np.hstack([-np.ones((arms - 1, 1)), np.eye(arms - 1)])


def at_most(studies: int, errors: int = 2) -> float:
    """5 %, and so many standard errors."""
    return float(0.05 + errors * np.sqrt(0.05 * 0.95 / studies))


def claims(known: Numbers, studies: int, seeds: int | None = None) -> tuple[float, float]:
    """Share of the studies of four arms that claim something, and of those that a test over patients alone would."""
    rng, claimed, blind = np.random.default_rng(6), 0, 0
    for study in range(studies):
        parts = spread(dealt(known, 4, rng, seeds))
        (drawn,) = resample([parts], 400, study)
        table = contrast_table(parts, drawn, to_first(4), METRICS["dice"], margin=np.nan, alpha=0.05)
        claimed += table["verdict"].isin(["better", "worse"]).any()
        blind += (stats.ttest_1samp(to_first(4) @ parts.means, 0, axis=1).pvalue <= 0.05 / 3).any()
    return claimed / studies, blind / studies


@pytest.mark.parametrize("studies", [30, pytest.param(300, marks=SLOW)])
@pytest.mark.parametrize("name", TABLES)
def test_a_study_of_equal_arms_claims_nothing(name: str, studies: int) -> None:
    claimed, blind = claims(runs(name), studies)
    assert claimed <= at_most(studies)
    assert blind > 3 * at_most(studies), "a test over patients alone takes luck for an answer"


@SLOW
@pytest.mark.parametrize("name", TABLES)
def test_nor_does_one_whose_seeds_are_added_until_it_is_decided(name: str) -> None:
    studies, claimed, blind = 200, 0, 0
    rng = np.random.default_rng(7)
    for study in range(studies):
        values = dealt(runs(name), 2, rng)
        looking = Looking(to_first(2), METRICS["dice"], Seeds(2, 6), np.nan, draws=400, seed=study)
        claimed += looking.looks(values)[-1].decided[0] > 0
        blind += any(differs(values, seeds) for seeds in range(2, 7))
    assert claimed / studies <= at_most(studies)
    assert blind / studies > at_most(studies), "a look at 5 % after each seed, over patients alone"


def differs(values: list[Numbers], seeds: int) -> bool:
    gains = values[1][:seeds].mean(0) - values[0][:seeds].mean(0)
    return bool(stats.ttest_1samp(gains, 0).pvalue <= 0.05)


@SLOW
def test_nor_do_trainings_on_the_phantom_that_differ_in_their_seed_alone(tiny: Runner, tmp_path: Path) -> None:
    short = ("trainer.max_epochs=1", "trainer.steps_per_epoch=2", "data.fold=all", "data.test_fraction=0.7")
    for seed in range(24):  # each with outputs of its own: in the order of their seeds, not of their random ids
        tiny(f"seed={seed}", *short, name=f"s{seed}", outputs=tmp_path / f"{seed:02}")
    tables = [read_scores(path) for path in sorted(tmp_path.glob("*/runs/*/data/cases.csv"))]
    scores = pd.concat([table.assign(arm="all", seed=n, fold=0) for n, table in enumerate(tables)])
    known = patient_values(scores, arms=None, metrics=["dice"]).by_metric["dice"][0]
    assert known.shape[1] >= 8, "fewer patients could never claim anything"
    assert len(known) == len(np.unique(known.mean(1))) == 24, "trainings of their own"
    claimed, blind = claims(known, 1000, seeds=2)  # eight of them a study, so that studies are hardly alike
    assert claimed <= at_most(1000, errors=3), "trainings differ from processor to processor: a draw on each of them"
    assert blind > at_most(1000)
