"""The analysis of whole studies: its numbers, its verdicts, and by simulation how often they are wrong."""

import subprocess
import sys
from dataclasses import replace
from statistics import fmean, median, stdev
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from benchmarks.statistics import study
from seg.errors import ConfigError, DataError
from seg.metrics import METRICS
from seg.study.analysis import Analysis, analyse
from seg.study.contrasts import contrast_table, interval, resample, spread
from seg.study.factorial import effects
from seg.study.sentences import takes

GAINS = {"base": 0.0, "se": 0.001, "cbam": 0.02}
SCORES = study(GAINS, patients=40, classes=("a", "b"))
ANY = replace(METRICS["dice"], limits=(-np.inf, np.inf))  # more is better
PAIRS = np.array([[-1, 1, 0, 0], [-1, 0, 1, 0], [-1, 0, 0, 1], [0, -1, 1, 0], [0, 0, -1, 1]], float)


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    return analyse(SCORES, baseline="base", margin=0.005, draws=2000)


def line(analysis: Analysis, arm: str, against: str, metric: str = "dice") -> pd.Series:
    table = analysis.comparisons.set_index(["metric", "arm", "against"])
    return table.loc[(metric, arm, against)]


def test_an_arms_numbers_are_those_of_plain_python(analysis: Analysis) -> None:
    rows = SCORES[SCORES["arm"] == "cbam"].to_dict("records")
    patients = {
        patient: fmean(r["dice"] for r in rows if r["patient"] == patient) for patient in {r["patient"] for r in rows}
    }
    seeds = [fmean(r["dice"] for r in rows if r["seed"] == seed) for seed in range(3)]
    found = analysis.arms[analysis.arms["metric"] == "dice"].set_index("arm").loc["cbam"]
    assert found["mean"] == pytest.approx(fmean(patients.values()))
    assert found["median"] == pytest.approx(median(patients.values()))
    assert found["sd"] == pytest.approx(stdev(patients.values()))
    assert found["seed_sd"] == pytest.approx(stdev(seeds))
    assert (found["patients"], found["structures"]) == (40, 240)
    assert found["ci_low"] < found["mean"] < found["ci_high"]


def test_comparisons_are_each_arm_with_the_baseline_and_the_one_before(analysis: Analysis) -> None:
    table = analysis.comparisons
    pairs = table[table["metric"] == "dice"][["arm", "against", "kind"]].to_numpy().tolist()
    assert pairs == [["se", "base", "baseline, previous"], ["cbam", "base", "baseline"], ["cbam", "se", "previous"]]
    assert table["primary"].tolist() == [True] * 3 + [False] * 3
    assert table.index.tolist() == list(range(6))
    assert analysis.meta.family == 3


def test_order_and_kind_of_comparisons_can_be_chosen() -> None:
    found = analyse(SCORES, baseline="base", arms=["cbam", "base", "se"], against=["previous"], draws=400)
    assert found.meta.arms == ("base", "cbam", "se")
    assert found.comparisons["against"].tolist()[:2] == ["base", "cbam"]


def test_less_is_better_is_turned(analysis: Analysis) -> None:
    found = line(analysis, "cbam", "base", "hd95_mm")
    assert found["difference"] < 0 < found["rank_biserial"]
    assert found["wins"] > found["losses"]
    assert (found["verdict"], line(analysis, "cbam", "base")["verdict"]) == ("better", "better")
    worse = analyse(SCORES, baseline="cbam", draws=400).comparisons
    assert worse.loc[worse["arm"] == "base", "verdict"].tolist() == ["worse", "worse"]


def test_wins_ties_and_losses_count_patients(analysis: Analysis) -> None:
    values = analysis.patients.pivot(index="patient", columns=["metric", "arm"], values="value")["dice"]
    gains = values["cbam"] - values["base"]
    found = line(analysis, "cbam", "base")
    assert (found["wins"], found["ties"], found["losses"]) == ((gains > 0).sum(), 0, (gains < 0).sum())
    assert found["p_wilcoxon"] == pytest.approx(stats.wilcoxon(gains).pvalue)


def test_adjusted_p_values_are_families_by_metric(analysis: Analysis) -> None:
    for _, part in analysis.comparisons.groupby("metric"):
        smallest = part["p_mean"].idxmin()
        assert part.loc[smallest, "p_mean_holm"] == pytest.approx(3 * part.loc[smallest, "p_mean"])


def test_equivalent_needs_a_margin_and_better_goes_before_it() -> None:
    scores = study(GAINS, patients=200, spread=0.002, rest=0.002, seed_spread=0.0002)
    found = analyse(scores, baseline="base", margin=0.005, draws=2000)
    assert line(found, "se", "base")["verdict"] == "better"  # by 0.001: real, and surely within the margin
    assert "Real but small: within ±0.005." in " ".join(found.sentences())
    same = study({"base": 0.0, "copy": 0.0}, patients=200, spread=0.002, rest=0.002, seed_spread=0.0002)
    found = analyse(same, baseline="base", margin=0.005, draws=2000)
    assert line(found, "copy", "base")["verdict"] == "equivalent"
    assert -0.005 < line(found, "copy", "base")["tost_low"] < line(found, "copy", "base")["tost_high"] < 0.005
    assert line(analyse(same, baseline="base", draws=400), "copy", "base")["verdict"] == "inconclusive"


def test_one_seed_is_never_more_than_inconclusive_and_says_why() -> None:
    found = analyse(SCORES[SCORES["seed"] == 0], baseline="base", margin=0.01, draws=400)
    assert set(found.comparisons["verdict"]) == {"inconclusive"}
    assert line(found, "cbam", "base")["p_wilcoxon_holm"] < 0.001
    assert found.arms["seed_sd"].isna().all()
    assert "Train two more seeds" in found.sentences()[1]


def test_a_few_patients_who_carry_the_mean_are_no_better_arm() -> None:
    scores = study({"base": 0.0, "rescue": -0.001}, patients=60, spread=0.001, rest=0.001, seed_spread=0.0)
    rescued = (scores["arm"] == "rescue") & (scores["patient"] < "p012")
    found = analyse(scores.assign(dice=scores["dice"] + 0.1 * rescued), baseline="base", draws=1000)
    assert line(found, "rescue", "base")["p_mean_holm"] < 0.01
    assert line(found, "rescue", "base")["verdict"] == "inconclusive"


def test_a_signed_metric_is_summarised_but_not_compared() -> None:
    scores = SCORES.assign(volume_difference_ml=0.1)
    found = analyse(scores, baseline="base", metrics=["dice", "volume_difference_ml"], draws=400)
    assert set(found.arms["metric"]) == {"dice", "volume_difference_ml"}
    assert set(found.comparisons["metric"]) == {"dice"}


def test_an_arm_alone_is_summarised() -> None:
    found = analyse(SCORES[SCORES["arm"] == "se"], baseline="se", draws=400)
    assert len(found.comparisons) == 0
    assert found.ranks["rank_1"].tolist() == [1.0, 1.0]
    assert "nothing to compare yet" in found.sentences()[0]


def test_the_same_table_gives_the_same_numbers_in_any_order_of_rows(analysis: Analysis) -> None:
    again = analyse(SCORES.sample(frac=1, random_state=1), baseline="base", arms=list(GAINS), margin=0.005, draws=2000)
    pd.testing.assert_frame_equal(again.comparisons, analysis.comparisons)
    other = analyse(SCORES, baseline="base", margin=0.005, draws=2000, seed=1)
    assert not other.comparisons["ci_low"].equals(analysis.comparisons["ci_low"])


def test_ranks_are_what_the_t_distribution_says_of_two_arms() -> None:
    scores = study({"base": 0.0, "se": 0.003}, patients=60, seeds=8)
    found = analyse(scores, baseline="base", metrics=["dice"], draws=20_000)
    one = line(found, "se", "base")
    expected = stats.t.cdf(one["difference"] / one["standard_error"], one["freedom"])
    assert found.ranks.set_index("arm").loc["se", "rank_1"] == pytest.approx(expected, abs=0.02)
    assert found.ranks[["rank_1", "rank_2"]].sum(axis=1).to_numpy() == pytest.approx(1)


def test_ranks_of_a_metric_where_less_is_better_are_turned(analysis: Analysis) -> None:
    best = analysis.ranks[analysis.ranks["rank_1"] > 0.9]
    assert best[["metric", "arm"]].to_numpy().tolist() == [["dice", "cbam"], ["hd95_mm", "cbam"]]
    columns = [f"rank_{rank}" for rank in (1, 2, 3)]
    assert analysis.ranks[columns].to_numpy() @ [1, 2, 3] == pytest.approx(analysis.ranks["mean_rank"])


def test_sentences_tell_the_design_the_findings_and_what_it_would_take(analysis: Analysis) -> None:
    text = analysis.sentences()
    assert text[0].startswith(
        "3 arms with 3 seeds each, 40 patients (40 cases) in 5 folds; judged by Dice, 3 comparisons"
    )
    assert any(one.startswith("cbam against base: better. Dice +0.0") for one in text)
    assert any("se against base: inconclusive." in one and " takes about" in one for one in text)
    assert not any("no effect" in one for one in text)


def test_what_it_would_take_does_take_it_there() -> None:
    found = analyse(study(GAINS, patients=60), baseline="base", margin=0.006, draws=4000)
    sentence = next(one for one in found.sentences() if one.startswith("se against base"))
    words = sentence.split(" takes about ")[1].split()
    patients, seeds = int(words[0]), int(words[3])
    assert "patients and" in sentence
    larger = analyse(study(GAINS, patients=patients, seeds=seeds), baseline="base", margin=0.006, draws=4000)
    assert line(larger, "se", "base")["smallest"] == pytest.approx(0.006, rel=0.3)


def test_half_a_study_says_so() -> None:
    half = SCORES[(SCORES["arm"] != "cbam") | (SCORES["fold"] < 2)]
    with pytest.raises(DataError, match="arm cbam, seed 0: 24 cases missing"):
        analyse(half, baseline="base")
    found = analyse(half, baseline="base", incomplete="common", draws=400)
    assert found.meta.patients == 16
    assert found.sentences()[1] == "Left out as unfinished: 24 of 40 cases, which not every arm has scored yet."


def test_an_arm_that_is_missing_changes_neither_the_family_nor_who_is_held_against_whom() -> None:
    half = SCORES[(SCORES["arm"] != "se") & (SCORES["seed"] < 2)]
    with pytest.raises(ConfigError, match="no scores of arms se"):
        analyse(half, baseline="base", arms=["base", "se", "cbam"], draws=400)
    found = analyse(half, baseline="base", arms=["base", "se", "cbam"], incomplete="common", draws=400)
    assert found.meta.left_out == ("arm se (without scores)",)
    dice = found.comparisons[found.comparisons["metric"] == "dice"]
    assert dice[["arm", "against"]].to_numpy().tolist() == [["cbam", "base"]], "cbam against se must wait"
    assert found.meta.family == 3
    assert dice["p_mean_holm"].iloc[0] == pytest.approx(min(1, 3 * dice["p_mean"].iloc[0]))
    alone = analyse(half, baseline="base", against=["baseline"], draws=400).comparisons
    assert dice["smallest"].iloc[0] > alone["smallest"].iloc[0]
    lacking = half[half["arm"] != "base"]
    with pytest.raises(DataError, match="the baseline 'base' has no scores yet"):
        analyse(lacking, baseline="base", arms=["base", "se", "cbam"], incomplete="common", draws=400)


def test_a_failed_training_is_named_and_does_not_blur_the_other_arms() -> None:
    failed = (SCORES["arm"] == "cbam") & (SCORES["seed"] == 1)
    scores = SCORES.assign(dice=SCORES["dice"].where(~failed, 0.0))
    found = analyse(scores, baseline="base", draws=2000)
    (told,) = [one for one in found.sentences() if one.startswith("Abnormal seed spread")]
    means = scores[scores["arm"] == "cbam"].groupby("seed")["dice"].mean()
    assert f": cbam ({means[0]:.3f}, 0.000, {means[2]:.3f}), inspect the second run. The other" in told
    alone = analyse(scores[scores["arm"] != "cbam"], baseline="base", draws=2000)
    here, there = line(found, "se", "base"), line(alone, "se", "base")
    assert here["standard_error"] == pytest.approx(there["standard_error"])
    assert line(found, "cbam", "base")["verdict"] == "inconclusive"
    means = found.arms.set_index(["metric", "arm"])
    assert means.loc[("dice", "cbam"), "ci_high"] == 1.0, "an interval ends where the metric does"
    assert not [one for one in analyse(SCORES, baseline="base", draws=400).sentences() if "bnormal" in one]


@pytest.mark.parametrize("arm", list(GAINS))
def test_an_arm_of_one_seed_beside_others_of_several_is_never_claimed_of(arm: str) -> None:
    scores = SCORES[(SCORES["arm"] != arm) | (SCORES["seed"] == 0)]
    found = analyse(scores, baseline="base", margin=0.5, draws=400)
    table = found.comparisons[found.comparisons["primary"]].set_index(["arm", "against"])
    with_it = [arm in pair for pair in table.index]
    assert set(table[with_it]["verdict"]) == {"inconclusive"}
    assert np.isinf(table[with_it]["smallest"]).all()
    assert set(table[~np.array(with_it)]["verdict"]) <= {"better", "equivalent"}
    assert found.sentences()[1].startswith(f"Trained with one seed: {arm}. ")
    told = [one for one in found.sentences() if ": inconclusive. " in one]
    assert len(told) == 2
    assert all(f"One seed of {arm}." in one for one in told)


def test_an_interval_that_leaves_0_out_beside_inconclusive_has_its_sentence() -> None:
    several = [study({"base": 0.0, "se": 0.005, "cbam": 0.004}, patients=40, rng=n) for n in range(6)]
    for part in (several, [SCORES[SCORES["seed"] == 0]]):
        alone = 0
        for found in (analyse(scores, baseline="base", metrics=["dice"], draws=1000) for scores in part):
            for _, one in found.comparisons.iterrows():
                (told,) = [t for t in found.sentences() if t.startswith(f"{one['arm']} against {one['against']}:")]
                beside = one["verdict"] == "inconclusive" and one["ci_low"] * one["ci_high"] > 0
                assert ("leaves 0 out" in told) == beside
                alone += beside
        assert alone


def test_intervals_end_where_the_metric_does() -> None:
    scores = study({"base": 0.14, "se": -0.84}, patients=4, seeds=2, spread=0.2, rest=0.1, seed_spread=0.1)
    scores["dice"] = scores["dice"].clip(0, 1)
    found = analyse(scores, baseline="base", metrics=["dice"], draws=400)
    assert found.arms["ci_low"].min() == 0
    assert found.arms["ci_high"].max() == 1
    assert found.comparisons["ci_low"].min() == -1


def test_classes_are_counted_beside_the_means(analysis: Analysis) -> None:
    assert analysis.classes[["class", "arm"]].to_numpy().tolist() == [[k, arm] for k in "ab" for arm in GAINS]
    assert set(analysis.classes["present"]) == set(analysis.classes["cases"]) == {40}
    rows = SCORES[(SCORES["arm"] == "se") & (SCORES["class"] == "b")]
    assert analysis.classes.set_index(["class", "arm"]).loc[("b", "se"), "dice"] == pytest.approx(rows["dice"].mean())
    gone = SCORES.assign(**{name: SCORES[name].where(SCORES["patient"] >= "p002") for name in ("dice", "hd95_mm")})
    found = analyse(gone, baseline="base", draws=400)
    assert "Not scored, for there is no structure in the reference nor in any prediction: 2 more cases." in (
        found.sentences()
    )
    assert found.meta.patients == 38


def test_with_one_seed_no_difference_is_ever_visible() -> None:
    found = analyse(SCORES[SCORES["seed"] == 0], baseline="base", draws=400)
    assert set(found.comparisons["verdict"]) == {"inconclusive"}
    assert np.isinf(found.comparisons["smallest"]).all()
    assert "resampled over patients (one seed an arm)" in found.sentences()[-1]


@pytest.mark.parametrize(
    ("share", "advice"),
    [
        (0.1, "about 360 patients with these seeds"),
        (0.245, "about 240 patients and 12 seeds an arm"),  # with these seeds it would take 9060 patients
        (0.9, "about 18 seeds an arm with these patients"),
    ],
)
def test_advice_takes_no_thousands_of_patients_where_a_few_seeds_would_do(share: float, advice: str) -> None:
    found = pd.Series({"smallest": 0.01, "seed_share": share, "freedom": 1e6})
    assert takes(found, 0.005, 60, 3, 0.05) == advice


def test_advice_knows_that_more_seeds_are_better_known() -> None:
    told = takes(pd.Series({"smallest": 0.02, "seed_share": 0.5, "freedom": 3.0}), 0.005, 60, 3, 0.01)
    patients, seeds = int(told.split()[1]), int(told.split()[4])
    few, many = (stats.t.isf(0.005, df) + stats.t.ppf(0.8, df) for df in (3, 3 * seeds / 3))
    assert 0.02 * (3 / seeds) ** 0.5 * many / few == pytest.approx(0.005, rel=0.05)
    assert patients == pytest.approx(20 * seeds, rel=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"baseline": "bass"}, "baseline 'bass' is not among the arms: base, cbam, se"),
        ({"primary": "volume_difference_ml"}, "no better direction"),
        ({"margin": -1.0}, "margin of dice is -1.0"),
        ({"margin": {"nsd": 0.1}}, "margins for nsd, which are not compared"),
        (
            {"margin": {"volume_difference_ml": 1}, "metrics": ["volume_difference_ml"]},
            "margins for volume_difference_ml, which are not compared",
        ),
        ({"against": ["first"]}, "give a list of baseline, previous, or both"),
        ({"against": "baseline"}, "against is .baseline.; give a list"),
        ({"alpha": 5}, "alpha is 5"),
        ({"draws": 50}, "draws is 50; intervals of 95 % need 400"),
        ({"alpha": 0, "margin": 0}, "2 faults"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        analyse(SCORES, **({"baseline": "base"} | options))


@pytest.mark.slow
def test_it_is_usable_alone() -> None:
    heavy = ("hydra", "omegaconf", "mlflow", "torch", "monai", "matplotlib")
    code = f"import sys, seg.study.analysis; print(*[name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


# Factorial designs


def crossed(levels: dict[str, list[str]], gain: dict[tuple[str, ...], float], **options: object) -> pd.DataFrame:
    cells = {"/".join(cell): cell for cell in gain}
    scores = study({name: gain[cell] for name, cell in cells.items()}, **options)
    return scores.assign(
        **{factor: scores["arm"].map({n: c[i] for n, c in cells.items()}) for i, factor in enumerate(levels)}
    )


def test_effects_are_those_of_least_squares() -> None:
    levels = {"attention": ["none", "se", "cbam"], "schedule": ["flat", "warm"]}
    gain = {(a, s): 0.0 for a in levels["attention"] for s in levels["schedule"]}
    gain |= {("se", "flat"): 0.01, ("se", "warm"): 0.02, ("cbam", "warm"): 0.04}
    scores = crossed(levels, gain, patients=30)
    found = effects(scores, levels, draws=400).set_index("effect")
    cells = scores.groupby(list(levels))["dice"].mean()

    def coded(
        attention: str, schedule: str
    ) -> list[float]:  # columns: 1, se, cbam, warm, se x warm, cbam x warm, centred
        a = [(attention == level) - 1 / 3 for level in ("se", "cbam")]
        b = (schedule == "warm") - 0.5
        return [1, *a, b, a[0] * b, a[1] * b]

    design = np.array([coded(*cell) for cell in cells.index])
    solved = np.linalg.lstsq(design, cells.to_numpy(), rcond=None)[0]
    names = ["attention=se", "attention=cbam", "schedule=warm"]
    names += ["attention=se × schedule=warm", "attention=cbam × schedule=warm"]
    assert found.loc[names, "difference"].to_numpy() == pytest.approx(solved[1:])
    assert found["order"].tolist() == [1, 1, 1, 2, 2]


def test_an_interaction_is_found_and_a_main_effect_alone_makes_none() -> None:
    levels = {"a": ["off", "on"], "b": ["off", "on"]}
    gain = {("off", "off"): 0.0, ("on", "off"): 0.02, ("off", "on"): 0.0, ("on", "on"): 0.06}
    found = effects(crossed(levels, gain, patients=80), levels).set_index("effect")
    assert found.loc["a=on × b=on", "verdict"] == "better"
    assert found.loc["a=on × b=on", "ci_low"] < 0.04 < found.loc["a=on × b=on", "ci_high"]
    assert found.loc["a=on", "difference"] == pytest.approx(0.04, abs=0.005)
    turned = effects(crossed(levels, gain, patients=80), levels | {"a": ["on", "off"]}).set_index("effect")
    assert turned.loc["a=off", "difference"] == pytest.approx(-found.loc["a=on", "difference"])


def test_effects_are_against_the_first_declared_level_whatever_the_order_of_the_rows() -> None:
    levels = {"a": ["off", "on"], "b": ["x", "y", "z"]}
    gain = {(a, b): 0.02 * (a == "on") + 0.01 * (b == "z") for a in levels["a"] for b in levels["b"]}
    scores = crossed(levels, gain, patients=20)
    found = effects(scores, levels, draws=400)
    assert found["effect"].tolist()[:3] == ["a=on", "b=y", "b=z"]
    assert found["difference"][0] == pytest.approx(0.02, abs=0.01)
    for turned in (scores[::-1], scores.sample(frac=1, random_state=1), scores.sort_values(["b", "a"])):
        pd.testing.assert_frame_equal(effects(turned, levels, draws=400), found)


def test_three_factors_give_seven_effects() -> None:
    levels = {name: ["0", "1"] for name in "abc"}
    gain = {(a, b, c): 0.01 * (a == "1") for a in "01" for b in "01" for c in "01"}
    found = effects(crossed(levels, gain, patients=20), levels, draws=400)
    assert found["order"].tolist() == [1, 1, 1, 2, 2, 2, 3]


def test_designs_that_are_not_fully_crossed_are_refused() -> None:
    levels = {"a": ["off", "on"], "b": ["off", "on"]}
    scores = crossed(levels, {(a, b): 0.0 for a in levels["a"] for b in levels["b"]}, patients=5)
    with pytest.raises(DataError, match="3 arms with 3 combinations"):
        effects(scores[scores["arm"] != "on/on"], levels)
    with pytest.raises(DataError, match="no column c"):
        effects(scores, levels | {"c": ["off", "on"]})
    with pytest.raises(DataError, match=r"6 combinations of .*maybe"):
        effects(scores, levels | {"a": ["off", "on", "maybe"]})


# How often it is wrong: simulated studies, seeds a random effect of their own


def simulated(
    rng: np.random.Generator,
    *,
    arms: int = 4,
    seeds: int = 3,
    patients: int = 60,
    seed_sd: float = 0.3,
    failures: float = 0.0,
) -> np.ndarray:
    """(arms, seeds, patients) without any true difference; a part of the seeds' luck is new in each of five folds.

    ``failures`` is the share of cases that a training loses altogether, whichever they are.
    """
    values = 4 * rng.normal(size=patients) + 1.2 * rng.normal(size=(arms, 1, patients))
    values = values + rng.normal(size=(arms, seeds, patients)) + seed_sd * rng.normal(size=(arms, seeds, 1))
    values = values + (0.2 * rng.normal(size=(arms, seeds, 5)))[..., np.arange(patients) % 5]
    return np.where(rng.random(values.shape) < failures, -80.0, values)  # as 0 is to a Dice of 0.85 ± 0.01


def verdicts(values: np.ndarray) -> pd.DataFrame:
    parts = spread(list(values))
    (drawn,) = resample([parts], 500, 0)
    weights = PAIRS if len(values) == 4 else np.array([[-1.0, 1.0]])
    table = contrast_table(parts, drawn, weights, ANY, margin=np.nan, alpha=0.05)
    low, high = interval(drawn, 0.95)
    mean = parts.means.mean(1)
    return table.assign(arms_covered=float(((mean + low <= 0) & (mean + high >= 0)).mean()))


def test_no_difference_is_seldom_called_better_though_ranks_alone_call_it_so() -> None:
    rng, studies = np.random.default_rng(1), 60
    tables = [verdicts(simulated(rng)) for _ in range(studies)]
    false = sum((table["verdict"] == "better").any() for table in tables)
    by_ranks = sum(((table["p_wilcoxon_holm"] <= 0.05) & (table["difference"] > 0)).any() for table in tables)
    assert false <= 0.05 * studies
    assert by_ranks >= 0.1 * studies  # the reason why seeds must be counted
    assert 0.92 <= np.mean([((t["ci_low"] <= 0) & (t["ci_high"] >= 0)).mean() for t in tables]) <= 0.99
    assert 0.91 <= np.mean([table["arms_covered"].iloc[0] for table in tables]) <= 0.99


@pytest.mark.parametrize(
    ("patients", "failures"),
    [(10, 0.01), (40, 0.0), *(pytest.param(n, 0.01, marks=pytest.mark.slow) for n in (20, 40, 60))],
)
def test_sound_studies_are_seldom_called_abnormal_and_a_failed_training_always_is(
    patients: int, failures: float
) -> None:
    rng, studies = np.random.default_rng(patients), 150
    alarms = failed = 0
    for _ in range(studies):
        values = simulated(rng, patients=patients, failures=failures)
        alarms += spread(list(values)).abnormal.any()
        values[2, 1] = -80.0
        failed += spread(list(values)).abnormal.tolist() == [False, False, True, False]
    assert alarms <= 0.05 * studies + 2 * np.sqrt(0.05 * 0.95 * studies)
    assert failed >= 0.92 * studies


@pytest.mark.slow
@pytest.mark.parametrize(("patients", "lines", "seed_sd"), [(8, 1, 0.0), (10, 1, 0.0), (10, 3, 0.0), (8, 1, 0.5)])
def test_what_few_patients_let_see_is_found_in_4_of_5_studies(patients: int, lines: int, seed_sd: float) -> None:
    rng, studies, weights = np.random.default_rng(patients), 150, np.repeat([[-1.0, 1.0]], lines, axis=0)

    def table(gain: float) -> pd.DataFrame:
        values = simulated(rng, arms=2, patients=patients, seed_sd=seed_sd) + np.array([0, gain])[:, None, None]
        parts = spread(list(values))
        (drawn,) = resample([parts], 400, 0)
        return contrast_table(parts, drawn, weights, ANY, margin=np.nan, alpha=0.05).iloc[0]

    stated = np.mean([table(0.0)["smallest"] for _ in range(studies)])
    found = np.mean([table(stated)["verdict"] == "better" for _ in range(studies)])
    assert found >= 0.8 - 2.5 * np.sqrt(0.16 / studies)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"seed_sd": 0.0},
        {"seed_sd": 0.6},
        {"arms": 2, "seeds": 2},
        {"patients": 15},
    ],
    ids=str,
)
def test_of_400_studies_at_most_5_percent_are_false_and_4_of_5_true_ones_found(options: dict[str, float]) -> None:
    rng, studies = np.random.default_rng(2), 400
    null = [simulated(rng, **options) for _ in range(studies)]
    tables = [verdicts(values) for values in null]
    assert sum((table["verdict"] == "better").any() for table in tables) <= 0.05 * studies
    covered = np.mean([((t["ci_low"] <= 0) & (t["ci_high"] >= 0)).mean() for t in tables])
    assert 0.935 <= covered <= 0.985

    smallest = np.array([table["smallest"].iloc[0] for table in tables])
    found = {"stated by the study": 0, "stated on average": 0}
    for values, own in zip(null, smallest, strict=True):
        for name, gain in zip(found, (own, smallest.mean()), strict=True):
            values[1] += gain
            found[name] += verdicts(values)["verdict"].iloc[0] == "better"
            values[1] -= gain
    assert min(found.values()) >= 0.75 * studies - 2 * np.sqrt(0.75 * 0.25 * studies), found


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        *({"patients": patients, "failures": 0.01} for patients in (10, 20, 60)),
        {"patients": 10, "failures": 0.0},
        {"patients": 60, "failures": 0.05},
    ],
    ids=str,
)
def test_of_200_studies_of_nothing_with_failed_cases_at_most_5_percent_claim_something(options: Any) -> None:
    rng, studies = np.random.default_rng(4), 200
    tables = [verdicts(simulated(rng, **options)) for _ in range(studies)]
    claims = sum(table["verdict"].isin(["better", "worse"]).any() for table in tables)
    assert claims <= 0.05 * studies + 2 * np.sqrt(0.05 * 0.95 * studies)


@pytest.mark.slow
def test_studies_of_nothing_whose_arms_have_unlike_numbers_of_seeds_claim_nothing_of_one_seed() -> None:
    rng, studies = np.random.default_rng(5), 60
    for _ in range(studies):
        values = list(simulated(rng, arms=4, seed_sd=0.5))
        values[2] = values[2][:1]
        parts = spread(values)
        (drawn,) = resample([parts], 400, 0)
        table = contrast_table(parts, drawn, PAIRS, ANY, margin=np.nan, alpha=0.05)
        assert set(table["verdict"][PAIRS[:, 2] != 0]) == {"inconclusive"}


@pytest.mark.slow
def test_of_400_whole_studies_at_most_5_percent_are_false_and_3_in_4_true_ones_found() -> None:
    rng, studies, gains = np.random.default_rng(3), 400, dict.fromkeys(["base", "a", "b"], 0.0)
    false, stated = 0, []
    for _ in range(studies):
        found = analyse(study(gains, rng=rng), baseline="base", margin=0.01, metrics=["dice"], draws=500).comparisons
        false += (found["verdict"] == "better").any()
        stated.append(found["smallest"].iloc[0])
    assert false <= 0.05 * studies
    gains["a"] = float(np.mean(stated))
    hits = sum(
        analyse(study(gains, rng=rng), baseline="base", metrics=["dice"], draws=500).comparisons["verdict"][0]
        == "better"
        for _ in range(studies)
    )
    assert hits >= 0.75 * studies


def test_finished_tools_get_a_verdict_that_holds_for_them_alone() -> None:
    scores = study({"one": 0.0, "other": 0.02}, patients=40, seeds=1)
    trained, tools = (analyse(scores, baseline="one", draws=400, fixed=fixed) for fixed in (False, True))
    assert line(trained, "other", "one")["verdict"] == "inconclusive"
    assert line(tools, "other", "one")["verdict"] == "better"
    assert line(tools, "other", "one")["p_mean"] == line(trained, "other", "one")["p_mean"]
    assert any("another training of one of them" in sentence for sentence in tools.sentences())
    assert not any("seed" in sentence for sentence in tools.sentences())


@pytest.mark.slow
def test_tools_that_are_alike_are_rarely_called_different() -> None:
    claims = 0
    for number in range(200):
        gains = {"one": 0.0, "other": 0.0, "third": 0.0}
        scores = study(gains, patients=20, seeds=1, seed_spread=0, rng=number)  # else the networks do differ
        found = analyse(scores, baseline="one", against=["baseline"], metrics=["dice"], draws=400, fixed=True)
        claims += found.comparisons["verdict"].isin(["better", "worse"]).any()
    assert claims <= 17, "of a nominal 10; more has a chance of 1 in 100"
