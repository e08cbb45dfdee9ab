"""How far one sample of numbers lies above another: an effect with its interval and a test; plain arrays in.

The effect is Cliff's delta: the chance that a number of the first sample is above one of the second, less the chance
that it is below, in [-1, 1]; 0 where neither lies above the other, 1 where every number does. It needs no distribution
and no unit, and no outlier carries it. Of samples of 0 and 1 it is the difference of their shares.

Source: Cliff 1993, doi:10.1037/0033-2909.114.3.494; as a probability of superiority, Vargha and Delaney 2000,
doi:10.3102/10769986025002101.
"""

from math import sqrt

import numpy as np
from scipy import optimize, stats

from seg.study.scores import Numbers

LEVEL = 0.95  # of intervals
Effect = tuple[float, float, float, float]  # effect, both ends of its interval, p


def shift(one: Numbers, other: Numbers) -> Effect:
    """Cliff's delta of two samples of numbers, its interval, and p of the Wilcoxon–Mann–Whitney test, two-sided.

    Interval: method 5 of Newcombe 2006, doi:10.1002/sim.2324, which holds for few numbers and where all of one sample
    are above the other. With many ties it is too wide.
    """
    if len(np.unique(np.concatenate([one, other]))) == 1:
        u, p = len(one) * len(other) / 2, 1.0
    else:
        u, p = stats.mannwhitneyu(one, other, alternative="two-sided")
    share = u / (len(one) * len(other))
    low, high = _lower(share, len(one), len(other)), 1 - _lower(1 - share, len(one), len(other))
    return 2 * share - 1, 2 * low - 1, 2 * high - 1, float(p)


def shift_of_shares(one: Numbers, other: Numbers) -> Effect:
    """The difference of the shares of ones in two samples of 0 and 1, its interval, and p of Fisher's exact test.

    Interval: from those of Wilson, method 10 of Newcombe 1998,
    doi:10.1002/(SICI)1097-0258(19980430)17:8<873::AID-SIM779>3.0.CO;2-I.
    """
    counts = [(int(sample.sum()), len(sample)) for sample in (one, other)]
    p = stats.fisher_exact([[ones, size - ones] for ones, size in counts]).pvalue
    (share, low, high), (share_0, low_0, high_0) = (
        (ones / size, *stats.binomtest(ones, size).proportion_ci(LEVEL, "wilson")) for ones, size in counts
    )
    effect = share - share_0
    below = sqrt((share - low) ** 2 + (high_0 - share_0) ** 2)
    above = sqrt((high - share) ** 2 + (share_0 - low_0) ** 2)
    return effect, effect - below, effect + above, float(p)


def _lower(share: float, size: int, other: int) -> float:
    """The lower end of the interval of a probability of superiority."""
    z, mean = stats.norm.isf((1 - LEVEL) / 2), (size + other) / 2 - 1

    def beyond(true: float) -> float:
        spread = 1 + mean * ((1 - true) / (2 - true) + true / (1 + true))
        return float(share - true - z * sqrt(true * (1 - true) * spread / (size * other)))

    return float(optimize.brentq(beyond, 0, min(share, 1 - 1e-9))) if share > 0 else 0.0  # at 1 is another root
