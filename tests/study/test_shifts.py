"""How far one sample lies above another: the effect is what it says, its interval covers, its test keeps its level."""

import numpy as np
import pytest
from scipy import stats

from seg.study.shifts import shift, shift_of_shares


def test_the_effect_counts_pairs() -> None:
    one, other = np.array([1.0, 2, 3, 3]), np.array([0.0, 2, 2, 3, 5])
    above = np.mean([[float(np.sign(a - b)) for b in other] for a in one])
    assert shift(one, other)[0] == pytest.approx(above)
    assert shift(other, one)[0] == pytest.approx(-above)
    assert shift(one * 7 + 2, other * 7 + 2) == shift(one, other)


def test_what_is_all_alike_is_no_shift() -> None:
    effect, low, high, p = shift(np.ones(30), np.ones(50))
    assert (effect, p) == (0, 1)
    assert -0.3 < low < 0 < high < 0.3


def test_complete_separation_keeps_an_interval() -> None:
    effect, low, high, p = shift(np.arange(10) + 100.0, np.arange(30.0))
    assert effect == high == 1
    assert 0.6 < low < 0.95
    assert p < 1e-4


@pytest.mark.parametrize("distance", [0.0, 1.0, 3.0])
def test_the_interval_covers_the_true_effect(distance: float) -> None:
    rng, true = np.random.default_rng(0), 2 * stats.norm.cdf(distance / np.sqrt(2)) - 1
    found = [shift(rng.normal(distance, 1, 15), rng.normal(0, 1, 60)) for _ in range(400)]
    covered = np.mean([low <= true <= high for _, low, high, _ in found])
    assert 0.92 < covered <= 1


@pytest.mark.parametrize("share", [0.02, 0.2])
def test_shares(share: float) -> None:
    rng = np.random.default_rng(0)
    now, before = ((rng.random((300, n)) < p).astype(float) for n, p in ((60, share), (200, 0.02)))
    found = [shift_of_shares(one, other) for one, other in zip(now, before, strict=True)]
    assert np.mean([one[0] for one in found]) == pytest.approx(share - 0.02, abs=0.01)
    assert np.mean([low <= share - 0.02 <= high for _, low, high, _ in found]) > 0.92
    claimed = np.mean([p <= 0.05 for *_, p in found])
    assert claimed <= 0.05 if share == 0.02 else claimed > 0.9
