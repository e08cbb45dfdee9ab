"""Seeds until decided: levels against scipy, the same looks for the same scores, and how often they are wrong."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from benchmarks.sequential import BETTER, OPEN, SAME, WORSE, run, until_decided, weights_of
from benchmarks.sequential import scores as simulated
from benchmarks.statistics import study
from seg.metrics import METRICS
from seg.study.contrasts import spread
from seg.study.looks import analysis_at, looks_of, looks_table, words
from seg.study.methods import Facts, methods
from seg.study.options import compared_pairs
from seg.study.question import Seeds
from seg.study.scores import Numbers
from seg.study.sequential import Look, Looking, chance, information, levels

PAIR = np.array([[-1.0, 1.0]])
ARMS = ("base", "clear", "same")
QUESTION = {"arms": ARMS, "against": ["baseline"], "primary": "dice", "classes": None, "margin": 0.005}


def looking(weights: Numbers = PAIR, *, most: int = 6, margin: float = np.nan) -> Looking:
    return Looking(weights, METRICS["dice"], Seeds(3, most), margin, draws=400)


def scores(
    gains: list[float], *, patients: int = 30, seed_sd: float = 0.3, seeds: int = 6, seed: int = 0
) -> list[Numbers]:
    return [*simulated(np.random.default_rng(seed), np.array(gains), patients, seed_sd, seeds)[0]]


def test_the_levels_of_two_looks_are_those_of_a_bivariate_normal() -> None:
    for share in (0.3, 0.6, 0.9, 0.98):
        first, second = levels([share, 1.0], 0.05)
        assert first == pytest.approx(0.05 * share**3, rel=1e-6)
        ends = stats.norm.isf(np.array([first, second]) / 2)
        correlation = np.sqrt(share)
        normal = stats.multivariate_normal(cov=np.array([[1, correlation], [correlation, 1]]))
        inside = normal.cdf(ends, lower_limit=-ends)
        assert 1 - inside == pytest.approx(0.05, abs=2e-4)


def test_the_levels_of_many_looks_keep_that_of_the_study() -> None:
    shares = np.array([0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
    steps = np.random.default_rng(0).normal(size=(200_000, 8)) * np.sqrt(np.diff(shares, prepend=0))
    p = 2 * stats.norm.sf(np.abs(steps.cumsum(1) / np.sqrt(shares)))
    claimed = (p <= levels(shares.tolist(), 0.05)).any(1).mean()
    assert claimed == pytest.approx(0.05, abs=0.002)
    family = levels(shares.tolist(), 0.05, family=4)
    assert (p <= np.array(family) / 4).any(1).mean() == pytest.approx(0.05 / 4, abs=0.001)
    assert all(of_four <= of_one + 1e-6 for of_four, of_one in zip(family, levels(shares.tolist(), 0.05), strict=True))
    assert levels([0.1, 1.0], 0.05) == pytest.approx([0.0, 0.05]), "too little to look at"
    assert levels([1.0], 0.05, family=3) == pytest.approx([0.05])


def test_information_is_what_more_seeds_leave_of_the_variance() -> None:
    for seed_sd in (0.0, 0.3, 1.0):
        studies = [spread(scores([0.0, 0.0], patients=60, seed_sd=seed_sd, seeds=5, seed=n)) for n in range(60)]
        found = np.mean([information(parts, PAIR, 5, 10) for parts in studies])
        after_five, after_ten = (1.44 / 60 + (seed_sd**2 + 1 / 60) / count for count in (5, 10))
        assert found == pytest.approx(after_ten / after_five, abs=0.04)
    known = scores([0.0, 0.0], seeds=1)
    fixed = [np.repeat(arm, 3, axis=0) for arm in known]
    assert information(spread(fixed), PAIR, 3, 10) == pytest.approx(1.0), "trainings that all end alike"


def test_the_same_scores_give_the_same_looks_and_seeds_nobody_asked_for_change_nothing() -> None:
    known = scores([0.0, 0.05, 0.0], seed=8)
    weights = np.array([[-1.0, 1.0, 0.0], [-1.0, 0.0, 1.0]])
    found = looking(weights).looks(known)
    clear = known[1].copy()
    clear[3:] = 0.0
    again = looking(weights).looks([known[0], clear, known[2]])
    assert found[0].decided == (3, 0)
    assert found[0].wanted == (0, 2), "the baseline and the arm that is not decided"
    assert len(found) > 1
    for one, other in zip(found, again, strict=True):
        assert one.table.equals(other.table)
        assert replace(one, table=other.table) == other
    assert looking(weights).looks([arm[:3] for arm in known])[0].table.equals(found[0].table)
    assert looking(weights).looks([known[0][:2], *known[1:]]) == []


def test_a_verdict_stands_whatever_more_seeds_of_the_baseline_say() -> None:
    known = scores([0.0, 0.05, 0.0], seed=8)
    known[0][3:] += 0.05
    known[2][3:] += 0.05
    found = looking(np.array([[-1.0, 1.0, 0.0], [-1.0, 0.0, 1.0]])).looks(known)
    assert found[0].decided[0] == 3
    assert len(found) > 1
    for look in found:
        assert look.table["verdict"][0] == "better"
        assert look.table.loc[0].equals(found[0].table.loc[0])


def test_a_study_ends_where_more_seeds_will_not_help() -> None:
    calm = scores([0.0, 0.0], seed_sd=0.0)
    (look,) = looking().looks(calm)
    assert (look.why, look.wanted, look.decided) == ("futile", (), (0,))
    equivalent = looking(margin=0.05).looks(calm)[-1]
    assert (equivalent.why, equivalent.table["verdict"][0]) == ("decided", "equivalent")
    small = looking().looks([arm[:, :4] for arm in scores([0.0, 0.05])])
    assert small[-1].why == "futile", "four patients can never pass the test by ranks"
    assert small[-1].seeds == (3, 3)


def test_how_probable_a_verdict_is_at_the_last_look() -> None:
    table = pd.DataFrame({"difference": [0.5, 0.5, 0.0], "standard_error": [0.4, 0.4, 0.4], "freedom": 1e6})
    shares, margin = np.array([0.5, 0.9, 0.5]), 0.6
    late = table["difference"].to_numpy() + 0.4 * np.sqrt(1 - shares) * np.random.default_rng(0).normal(size=(10**6, 3))
    error = 0.4 * np.sqrt(shares)
    claims = (np.abs(late) > 1.959964 * error).mean(0)
    same = (np.abs(late) < margin - 1.644854 * error).mean(0)
    assert chance(table, shares, 30, np.nan, 0.05) == pytest.approx(claims, abs=0.002)
    assert chance(table, shares, 30, margin, 0.05) == pytest.approx(claims + same, abs=0.002)
    assert chance(table, shares, 5, margin, 0.05) == pytest.approx(same, abs=0.002), "5 patients have too few ranks"


def course() -> tuple[list[Look], Seeds, pd.DataFrame]:
    gains, seeds = {"base": 0.0, "clear": 0.06, "same": 0.0}, Seeds(3, 6)
    known = study(gains, patients=30, seeds=6, seed_spread=0.01, rng=3)
    return looks_of(known, seeds, **QUESTION), seeds, known


def test_the_analysis_of_a_study_is_that_of_its_last_look() -> None:
    looks, _, known = course()
    assert len({*looks[-1].seeds}) == 2
    found = analysis_at(looks, known, baseline="base", **QUESTION)
    assert found.meta.seeds == dict(zip(ARMS, looks[-1].seeds, strict=True))
    assert found.meta.nominal == looks[-1].level
    assert found.meta.alpha == 0.05
    primary = found.comparisons[found.comparisons["primary"]].reset_index(drop=True)
    assert primary["verdict"].tolist() == looks[-1].table["verdict"].tolist()
    assert primary["ci_low"].to_numpy() == pytest.approx(looks[-1].table["ci_low"].to_numpy())
    assert primary["difference"].dtype == float
    assert any("clear against base: better" in sentence for sentence in found.sentences())
    assert "95 % interval" in " ".join(found.sentences())
    text, cited = methods(found, Facts())
    assert "repeated confidence intervals" in text
    assert f"with {min(looks[-1].seeds)} to {max(looks[-1].seeds)} seeds" in text
    assert any("Lan and DeMets" in source for source in cited)


def test_a_class_that_a_later_seed_makes_up_changes_no_earlier_look() -> None:
    """Absent in some cases, in the reference and in all first predictions; then another seed draws it there."""
    known = study({"base": 0.0, "clear": 0.01, "same": 0.0}, patients=24, seeds=4, classes=("organ", "tumour"), rng=7)
    nowhere = (known["class"] == "tumour") & known["case"].isin([f"case_{n:03d}" for n in range(8)])
    known.loc[nowhere, ["dice", "hd95_mm"]] = np.nan
    made_up = nowhere & (known["seed"] == 3) & (known["arm"] == "same")
    known.loc[made_up, ["dice", "hd95_mm", "false"]] = (0.0, 100.0, 1)
    first, *_ = looks_of(known[known["seed"] < 3], Seeds(3, 6), **QUESTION)
    again, *_ = looks_of(known, Seeds(3, 6), **QUESTION)
    pd.testing.assert_frame_equal(first.table, again.table)
    assert first == replace(again, table=first.table)


def test_one_comparison_is_told_in_the_singular_and_no_sentence_has_a_gap() -> None:
    known = study({"base": 0.0, "se": 0.0}, patients=20, seeds=2)
    seeds = Seeds(2, 4)
    (look, *_) = looks_of(known, seeds, **QUESTION | {"arms": ("base", "se")})
    assert "0 of 1 comparison is decided" in words([replace(look, decided=(0,))], seeds)
    for sentence in analysis_at([look], known, baseline="base", **QUESTION | {"arms": ("base", "se")}).sentences():
        assert sentence == " ".join(sentence.split())


def test_a_reader_learns_of_every_look() -> None:
    looks, seeds, _ = course()
    said = words(looks, seeds)
    assert said.startswith("Seeds until decided: from 3 to 6 an arm, with a look after each.")
    assert "all together keep 5 %" in said
    assert "of the trainings were saved" in said
    table = looks_table(looks, compared_pairs(ARMS, ["baseline"]))
    rows = [[cell.text for cell in row] for row in table.blocks[""]]
    assert [row[0] for row in rows] == [str(max(look.seeds)) for look in looks]
    assert "clear – base: better" in " ".join(row[3] for row in rows)


@pytest.mark.parametrize("arms", [2, 4])
def test_what_is_simulated_is_the_rule(arms: int) -> None:
    words = {"better": BETTER, "worse": WORSE, "inconclusive": OPEN, "equivalent": SAME}
    weights, gains = weights_of(arms), np.linspace(0, 0.012, arms)
    known = simulated(np.random.default_rng(2), gains, 30, 0.3, 6, studies=12)
    said = until_decided(known, weights, Seeds(3, 6), 0.01)
    looks = [looking(weights, margin=0.01).looks([*values])[-1] for values in known]
    verdicts = np.array([look.table["verdict"].map(words) for look in looks])
    assert (verdicts == said.verdict).mean() >= 0.9, "but for draws of the bootstrap"
    assert np.mean([look.seeds for look in looks]) == pytest.approx(said.seeds.mean(), abs=0.4)
    decided = (verdicts == said.verdict) & (verdicts != OPEN)
    differences = np.array([look.table["difference"] for look in looks])
    assert differences[decided] == pytest.approx(said.difference[decided], abs=0.003)


@pytest.mark.slow
def test_in_simulated_studies_the_level_and_the_intervals_hold() -> None:
    studies = 2000
    luck = 2 * np.sqrt(0.05 * 0.95 / studies)
    for arms in (2, 4):
        one, _ = run([0.0] * arms, 40, 0.3, studies)
        assert one.wrong <= 0.05 + luck
        assert one.covered >= 0.95 - luck
        assert one.seeds < 7
    one, other = run([0.0, 0.012], 40, 0.3, studies)
    assert other.found > 0.7
    assert one.found >= other.found - 0.1
    assert one.seeds < 8
