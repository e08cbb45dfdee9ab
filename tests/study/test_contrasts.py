"""Each figure against scipy, a published example, or statsmodels 0.15 and pingouin 0.7, whose results stand here."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from seg.metrics import METRICS
from seg.study.contrasts import Spread, contrast_table, false_claim, holm, interval, resample, signed_rank, spread

# Darwin's maize, as in scipy's documentation of wilcoxon: crossed minus self-fertilised, in eighths of an inch.
DARWIN = np.array([6, 8, 14, 16, 23, 24, 28, 29, 41, -48, 49, 56, 60, -67, 75], float)
# Three seeds of six patients; a statsmodels analysis of variance of them stands in the test.
SEEDS = np.array(
    [
        [-0.32, -2.08, -2.06, 0.61, 2.17, -3.81],
        [2.57, 1.10, 1.58, 4.47, 3.94, -2.51],
        [-1.56, -0.24, -2.69, -2.63, -0.14, -6.16],
    ]
)
ANY = replace(METRICS["dice"], limits=(-np.inf, np.inf))  # more is better
PAIR = np.array([[-1.0, 1.0]])


def one_seed(gains: np.ndarray) -> Spread:
    """Two arms of one seed whose patients differ by ``gains``."""
    return spread([np.zeros((1, len(gains))), gains[None]])


def compared(parts: Spread, *, draws: int = 4000, margin: float = np.nan, lines: int = 1) -> dict[str, float]:
    (drawn,) = resample([parts], draws, 0)
    table = contrast_table(parts, drawn, np.repeat(PAIR, lines, axis=0), ANY, margin=margin, alpha=0.05)
    return table.iloc[0].to_dict()


def test_variance_over_seeds_is_that_of_the_analysis_of_variance() -> None:
    parts = spread([SEEDS, SEEDS])
    seeds, patients, rest = 26.20720556, 13.29139556, 1.27779889  # mean squares by statsmodels' anova_lm
    assert parts.seed_gross == pytest.approx(np.full(2, seeds / 18))
    assert parts.seed_net == pytest.approx(np.full(2, (seeds - rest) / 18))
    assert parts.means.var(1, ddof=1) / 6 == pytest.approx(np.full(2, patients / 18))
    assert parts.seed_sd == pytest.approx(np.full(2, np.sqrt(seeds / 6)))
    assert parts.seed_df == 4


def test_an_arm_gets_the_larger_of_its_own_and_of_the_pooled_spread_of_seeds() -> None:
    calm = SEEDS.mean(0) + 0.3 * (SEEDS - SEEDS.mean(0))
    own = [arm.mean(1).var(ddof=1) for arm in (SEEDS, calm)]
    assert spread([SEEDS, calm]).seed_gross == pytest.approx([own[0] / 3, np.mean(own) / 3])
    assert spread([SEEDS[:1], calm]).seed_gross == pytest.approx([own[1], own[1] / 3])  # one seed: the others' spread


def test_an_arm_of_abnormal_seed_spread_keeps_its_spread_to_itself() -> None:
    rng = np.random.default_rng(0)
    calm = [rng.normal(size=40) + 0.1 * rng.normal(size=(3, 40)) + 0.02 * rng.normal(size=(3, 1)) for _ in range(3)]
    failed = calm[0] - np.array([[0.0], [5.0], [0.1]])
    parts, without = spread([*calm, failed, failed + 0.3]), spread(calm)
    assert parts.abnormal.tolist() == [False, False, False, True, True], "also where two hide one another"
    assert parts.seed_gross[:3] == pytest.approx(without.seed_gross)
    assert parts.seed_net[:3] == pytest.approx(without.seed_net)
    assert parts.seed_gross[3] == pytest.approx(failed.mean(1).var(ddof=1) / 3)
    pairs = np.array([[-1.0, 1, 0, 0, 0], [-1.0, 0, 0, 1, 0], [0, 0, 0, -1.0, 1]])
    (drawn,) = resample([parts], 20_000, 0)
    table = contrast_table(parts, drawn, pairs, ANY, margin=np.nan, alpha=0.05)
    (alone,) = resample([without], 20_000, 0)
    expected = contrast_table(without, alone, pairs[:1, :3], ANY, margin=np.nan, alpha=0.05)
    assert table["standard_error"].iloc[0] == pytest.approx(expected["standard_error"].iloc[0])
    assert table["freedom"].iloc[0] < expected["freedom"].iloc[0]
    half = [one["ci_high"].iloc[0] - one["difference"].iloc[0] for one in (table, expected)]
    assert half[1] < half[0] < 1.5 * half[1]
    assert table["freedom"].iloc[1:].tolist() == pytest.approx([2, 4], rel=0.05), "as many as their own seeds give"
    assert table["ci_high"].iloc[1] - table["difference"].iloc[1] == pytest.approx(
        stats.t.isf(0.025, 2) * table["standard_error"].iloc[1], rel=0.1
    )


def test_an_arm_that_fails_alike_in_every_seed_says_nothing_of_seeds() -> None:
    rng = np.random.default_rng(0)
    alive = [rng.normal(size=40) + 0.1 * rng.normal(size=(3, 40)) + 0.02 * rng.normal(size=(3, 1)) for _ in range(3)]
    without = spread(alive)
    for dead in (0.0, 0.1):  # three times 0.1 differs from its mean by rounding
        parts = spread([*alive, np.full((3, 40), dead)])
        assert not parts.abnormal.any()
        assert parts.seed_df == without.seed_df == 6
        assert parts.seed_net[:3] == pytest.approx(without.seed_net)


@pytest.mark.slow
def test_seeds_of_one_size_are_seldom_called_abnormal() -> None:
    rng = np.random.default_rng(0)
    for arms in (2, 12):
        found = [spread(list(rng.normal(size=(arms, 3, 1)) + np.zeros(5))).abnormal.any() for _ in range(150)]
        assert np.mean(found) <= 0.1


def test_without_patients_differing_it_is_students_test_of_the_seeds_means() -> None:
    first, second = np.array([0.1, 0.5, 0.9]), np.array([1.0, 1.4, 1.8])
    parts = spread([np.repeat(arm[:, None], 8, axis=1) for arm in (first, second)])
    found = compared(parts)
    assert found["p_mean"] == pytest.approx(stats.ttest_ind(second, first).pvalue)
    assert found["freedom"] == pytest.approx(4)
    assert found["seed_share"] == pytest.approx(1)


def test_one_seed_is_the_paired_t_test() -> None:
    found = compared(one_seed(DARWIN), draws=40_000)
    expected = stats.ttest_1samp(DARWIN, 0)
    assert found["p_mean"] == pytest.approx(expected.pvalue)
    assert found["difference"] == pytest.approx(DARWIN.mean())
    assert found["freedom"] == pytest.approx(14)
    assert found["dz"] == pytest.approx(0.5546079777)  # numpy's mean / SD


def test_equivalence_is_statsmodels_ttost_paired() -> None:
    assert compared(one_seed(DARWIN), margin=45)["p_tost"] == pytest.approx(0.013505149901)
    assert compared(one_seed(DARWIN), margin=60)["p_tost"] == pytest.approx(0.000646940552)
    assert np.isnan(compared(one_seed(DARWIN))["p_tost"])


def test_signed_rank_is_the_published_example_and_pingouins_correlation() -> None:
    p, effect = signed_rank(DARWIN)
    assert p == pytest.approx(0.041259765625)
    assert effect == pytest.approx(0.6)
    assert signed_rank(-DARWIN) == (p, -effect)


def test_signed_rank_ranks_zeros_and_then_sets_them_aside() -> None:
    gains = np.concatenate([np.arange(1, 61), np.zeros(30)]) * np.where(np.arange(90) % 4 == 0, -1, 1)
    p, effect = signed_rank(gains)
    assert p == pytest.approx(stats.wilcoxon(gains, zero_method="pratt").pvalue)
    ranks = np.arange(31, 91)  # behind the 30 zeros
    lost = ranks[::4].sum()
    assert effect == pytest.approx((ranks.sum() - 2 * lost) / ranks.sum())
    assert signed_rank(np.zeros(20)) == (1.0, 0.0)


def test_sizes_that_are_equal_but_for_rounding_are_ties() -> None:
    exact = np.array([1, -1, 2, 2, 3, 1, 4, -2, 3, 5], float)
    noisy = exact / 10 + np.random.default_rng(0).choice([-1, 0, 1], 10) * 2.0**-55
    assert len(set(np.abs(noisy))) > 5
    assert signed_rank(noisy) == signed_rank(exact)
    third = np.array([0.1 + 0.2, -0.3, 0.7, 0.9, 1.1, 0.5, -0.2])
    assert signed_rank(third) == signed_rank(np.array([0.3, -0.3, 0.7, 0.9, 1.1, 0.5, -0.2]))


def test_holm_is_statsmodels_multipletests() -> None:
    p = np.array([0.01, 0.04, 0.03, 0.005, 0.5, 0.011])
    assert holm(p) == pytest.approx([0.05, 0.09, 0.09, 0.03, 0.5, 0.05])
    assert holm(np.array([0.02])) == pytest.approx([0.02])
    assert np.isnan(holm(np.array([np.nan, np.nan]))).all()


@pytest.mark.parametrize(
    (
        "patients",
        "lines",
        "expected",
    ),  # in SDs, by statsmodels' TTestPower().solve_power(power=0.8, alpha=0.05 / lines)
    [(30, 1, 0.5292357), (260, 1, 0.1743943), (260, 5, 0.2133092), (30, 5, 0.6622069)],
)
def test_smallest_difference_is_that_of_statsmodels_power(patients: int, lines: int, expected: float) -> None:
    gains = stats.norm.ppf((np.arange(patients) + 0.5) / patients)
    gains = np.stack([gains / gains.std(ddof=1)] * 2)  # two seeds that add nothing
    found = compared(spread([np.zeros_like(gains), gains]), lines=lines)
    assert found["smallest"] == pytest.approx(expected, rel=0.02)


def test_five_patients_can_never_be_enough_for_wilcoxon() -> None:
    found = compared(one_seed(np.array([3.0, 3.1, 2.9, 3.05, 2.95])))
    assert found["p_mean"] < 0.001
    assert found["smallest"] == np.inf


def test_interval_is_scipys_percentile_bootstrap_where_patients_are_many() -> None:
    gains = np.random.default_rng(3).gamma(1.0, size=400)  # skewed
    found = compared(one_seed(gains), draws=20_000)
    reference = stats.bootstrap((gains,), np.mean, n_resamples=20_000, method="percentile", rng=1).confidence_interval
    width = reference.high - reference.low
    assert found["ci_low"] == pytest.approx(reference.low, abs=0.03 * width)
    assert found["ci_high"] == pytest.approx(reference.high, abs=0.03 * width)


def test_interval_is_students_where_patients_are_few_and_normal() -> None:
    gains = stats.norm.ppf((np.arange(12) + 0.5) / 12)
    reference = stats.t.interval(0.95, 11, gains.mean(), stats.sem(gains))
    found = compared(one_seed(gains), draws=40_000)
    assert [found["ci_low"], found["ci_high"]] == pytest.approx(reference, rel=0.06)
    plain = stats.bootstrap((gains,), np.mean, method="percentile", rng=1).confidence_interval
    assert found["ci_high"] > 1.1 * plain.high  # which is too short


def test_interval_of_seeds_alone_is_students_too() -> None:
    first, second = np.array([0.1, 0.5, 0.9]), np.array([1.0, 1.4, 1.8])
    parts = spread([np.repeat(arm[:, None], 50, axis=1) for arm in (first, second)])
    found = compared(parts, draws=40_000)
    reference = stats.ttest_ind(second, first).confidence_interval()
    assert [found["ci_low"], found["ci_high"]] == pytest.approx([reference.low, reference.high], abs=0.05)


def test_draws_of_both_parts_add_up_to_the_standard_error() -> None:
    rng = np.random.default_rng(0)
    arms = [rng.normal(size=(40, 1)) * 0.3 + rng.normal(size=(40, 200)) for _ in range(2)]  # many seeds: no wide tails
    parts = spread(arms)
    (drawn,) = resample([parts], 20_000, 0)
    assert (drawn @ PAIR[0]).std() == pytest.approx(compared(parts)["standard_error"], rel=0.03)
    low, high = interval(drawn, 0.9)
    assert (low < 0).all()
    assert (high > 0).all()


def test_draws_do_not_depend_on_their_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = spread([SEEDS, SEEDS + 1])
    whole = resample([parts], 500, 4)[0]
    monkeypatch.setattr("seg.study.contrasts.CHUNK", 60)
    assert resample([parts], 500, 4)[0] == pytest.approx(whole)


def test_arms_that_are_the_same_are_equivalent_and_never_crash() -> None:
    parts = spread([SEEDS[:, :1] + np.zeros((3, 10)), SEEDS[:, :1] + np.zeros((3, 10))])
    assert compared(parts)["difference"] == 0
    same = spread([np.full((2, 10), 0.8), np.full((2, 10), 0.8)])
    found = compared(same, margin=0.01)
    assert (found["p_mean"], found["p_wilcoxon"], found["verdict"], found["ties"]) == (1, 1, "equivalent", 10)


def test_how_probable_a_false_claim_is_at_least_is_as_published() -> None:
    p = np.array([0.1, 0.05, 0.01, 0.005, 0.001])
    assert false_claim(p) == pytest.approx([0.385, 0.289, 0.111, 0.067, 0.0184], abs=0.0006)  # their table 1
    assert false_claim(np.array([0.0, 0.9])).tolist() == [0.0, 0.5]
    claimed = compared(one_seed(np.linspace(0.9, 1.1, 30)))
    assert np.isnan(claimed["false_claim"]), "nothing is claimed of one seed"


def test_each_metric_has_the_tails_of_its_own_seeds() -> None:
    """Alone or beside a metric of other degrees of freedom, an interval is about as long."""
    rng = np.random.default_rng(0)
    calm = spread([rng.normal(size=(3, 1)) * 0.5 + rng.normal(size=(1, 30)) for _ in range(2)])
    still = spread([np.zeros((3, 30)) + rng.normal(size=(1, 30)), rng.normal(size=(3, 1)) + rng.normal(size=(1, 30))])
    assert calm.seed_df != still.seed_df
    (alone,) = resample([calm], 20_000, 0)
    _, beside = resample([still, calm], 20_000, 0)
    ends = [np.quantile(one[:, 1] - one[:, 0], (0.025, 0.975)) for one in (alone, beside)]
    assert np.diff(ends[1]) == pytest.approx(np.diff(ends[0]), rel=0.1)


def test_two_patients_without_any_difference_prove_nothing() -> None:
    assert compared(one_seed(np.zeros(2)), margin=0.005)["verdict"] == "inconclusive"
    assert compared(one_seed(np.zeros(10)), margin=0.005)["p_tost"] == pytest.approx(2.0**-9)
