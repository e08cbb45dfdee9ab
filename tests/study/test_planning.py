"""What a study will be able to find: against simulated studies, kept ones, and what must hold of any plan."""

from dataclasses import replace
from math import inf
from pathlib import Path

import numpy as np
import pytest

from benchmarks.planning import APART, CALM, planned, power, values
from seg.errors import ConfigError
from seg.study import read_scores
from seg.study.contrasts import spread
from seg.study.planning import Basis, Design, Variances, of_pilot, typical, verdict, ways
from seg.study.scores import Numbers, patient_values

KEPT = {name: Path("experiments/results") / name / "scores.csv" for name in ("attention", "schedulers")}
DESIGN = Design(arms=4, seeds=3, patients=60, family=5, to_baseline=3, metric="dice", margin=0.005)


def kept(name: str, metric: str = "dice") -> list[Numbers]:
    return patient_values(read_scores(KEPT[name]), arms=None, metrics=[metric]).by_metric[metric]


@pytest.mark.slow
@pytest.mark.parametrize(
    "design",
    [planned(2, 3, 60, 1), planned(4, 3, 30, 5), planned(2, 5, 12, 1)],
    ids=str,
)
@pytest.mark.parametrize("true", [CALM, APART], ids=["calm", "apart"])
def test_about_80_of_100_studies_find_the_planned_difference(true: Variances, design: Design) -> None:
    assert power(true, design, design.finds(true), 150) == pytest.approx(0.8, abs=0.11)  # 3.4 standard errors


def test_one_seed_finds_nothing_and_more_of_anything_finds_more() -> None:
    def finds(**changes: int) -> float:
        return replace(DESIGN, **changes).finds(APART)

    assert finds(seeds=1) == finds(patients=1) == finds(patients=0) == inf
    assert finds(patients=7) == inf, "2 ^ (1 - 7) is above 0.05 / 5: Wilcoxon's test can never reach the level"
    assert finds(patients=7, family=1) < inf
    falling = [finds(seeds=seeds) for seeds in (2, 3, 5, 10, 30)]
    assert falling == sorted(falling, reverse=True)
    assert finds(patients=200) < finds() < finds(patients=20)
    assert finds(family=1) < finds()
    assert DESIGN.finds(Variances(0, 0, 0)) == 0
    assert DESIGN.finds(Variances(0, 0, 4)) == inf, "no two values of Dice are so far apart"


def test_a_pilot_gives_its_variances() -> None:
    true = Variances(4e-4, 1e-4, 9e-6)
    found = of_pilot(values(np.random.default_rng(0), true, 8, 12, 300), "dice", "pilot")
    for part in ("patient", "rest", "seed"):
        assert getattr(found.expected, part) == pytest.approx(getattr(true, part), rel=0.25), part
    assert found.cautious.seed > found.expected.seed
    assert found.cautious.patient > found.expected.patient


def test_the_upper_limit_of_seeds_holds_in_80_of_100_pilots() -> None:
    rng = np.random.default_rng(1)
    limits = [of_pilot(values(rng, APART, 2, 3, 40), "dice", "pilot").cautious.seed for _ in range(300)]
    assert np.mean(np.array(limits) >= APART.seed) == pytest.approx(0.8, abs=0.08)


def test_a_failed_training_is_no_part_of_a_pilot() -> None:
    arms = kept("attention")
    arms[2] = np.vstack([arms[2][:-1], 0 * arms[2][-1:]])  # its last training found nothing
    assert list(spread(arms).abnormal) == [False, False, True, False]
    calm = [arm for arm, wild in zip(arms, spread(arms).abnormal, strict=True) if not wild]
    assert of_pilot(arms, "dice", "x") == of_pilot(calm, "dice", "x")


def test_what_a_pilot_cannot_tell_is_typical() -> None:
    usual = typical("dice")
    assert usual is not None
    base, other = values(np.random.default_rng(2), APART, 2, 3, 40)
    alone = of_pilot([base], "dice", "pilot")
    assert alone.expected.patient == usual.expected.patient
    assert "differences between arms as in typical values" in alone.source
    once = of_pilot([base[:1], other[:1]], "dice", "pilot")
    assert once.expected.seed == usual.expected.seed
    assert "seeds as in typical values" in once.source
    with pytest.raises(ConfigError, match="tells nothing of differences between arms and of seeds in IoU"):
        of_pilot([base[:1]], "iou", "pilot")
    assert typical("iou") is None


@pytest.mark.parametrize("metric", ["dice", "nsd", "hd95_mm"])
def test_typical_values_are_those_of_the_kept_studies(metric: str) -> None:
    known = typical(metric)
    assert known is not None
    apart, calm = (of_pilot(kept(name, metric), metric, name).expected for name in KEPT)
    for part in ("patient", "rest", "seed"):
        pooled = (20 * getattr(apart, part) + 8 * getattr(calm, part)) / 28  # degrees of freedom of the seeds
        assert getattr(known.expected, part) == pytest.approx(pooled, rel=0.02), part
        assert getattr(known.cautious, part) == pytest.approx(getattr(apart, part), rel=0.02), part


def basis(variances: Variances) -> Basis:
    return Basis(variances, replace(variances, seed=2 * variances.seed), "made up")


def test_a_plan_says_what_would_do() -> None:
    said = verdict(DESIGN, basis(APART))
    assert "may miss one as small as its margin, 0.0050" in said
    seeds = int(ways(DESIGN, APART).partition(" seeds")[0])
    assert f"would take {seeds} seeds an arm, or" in said
    assert replace(DESIGN, seeds=seeds).holds(APART)
    assert not replace(DESIGN, seeds=seeds - 1).holds(APART)
    assert "with compare: [baseline], which leaves 3 comparisons" in said
    many = replace(DESIGN, margin=0.009, seeds=5)
    assert "and so finds its margin, 0.0090." in verdict(many, basis(APART))
    assert "To be safe, take" in verdict(many, basis(APART))
    assert "To be safe, take" not in verdict(replace(many, seeds=12), basis(APART))
    assert "about" in ways(replace(DESIGN, margin=0.0062), CALM)


def test_a_plan_that_can_conclude_nothing_says_so() -> None:
    said = verdict(replace(DESIGN, seeds=1), basis(APART))
    assert said.startswith("One seed an arm can conclude nothing")
    assert "Set hydra.sweeper.study.seeds=[0,1,2]. With 3 seeds an arm it finds" in said
    assert "7 patients are too few for 5 comparisons" in verdict(replace(DESIGN, patients=7), basis(APART))
    assert "more than 50 seeds an arm or 20 times as many patients" in ways(replace(DESIGN, margin=1e-5), APART)
