"""What may be asked of an analysis: its options, the rules between them, and which arms are compared."""

from collections.abc import Mapping, Sequence
from math import isfinite

import pandas as pd

from seg.errors import ConfigError, few, together
from seg.metrics import METRICS, shown
from seg.study.scores import tolerances_mm

AGAINST = ("baseline", "previous")
LEVEL = 0.05  # two-sided, of all comparisons by one metric together


def check_options(
    metrics: Sequence[str], primary: str, margins: Mapping[str, float], against: Sequence[str], draws: int, alpha: float
) -> None:
    """Holds the rules of ``analyse``'s options; ConfigError with every fault."""
    faults = []
    directed = [name for name, metric in METRICS.items() if metric.better]
    if primary not in directed:
        faults.append(f"primary metric {primary!r} has no better direction; take one of {', '.join(directed)}")
    if unknown := set(margins) - (set(metrics) & set(directed)):
        faults.append(f"margins for {few(unknown)}, which are not compared; name them in metrics too, or no margin")
    faults += [
        f"margin of {metric} is {margin}; give a number above 0, in the unit of {metric}"
        for metric, margin in margins.items()
        if not (isfinite(margin) and margin > 0)
    ]
    if isinstance(against, str) or not against or set(against) - set(AGAINST):
        faults.append(f"against is {against!r}; give a list of baseline, previous, or both")
    if not 0 < alpha < 0.5:
        faults.append(f"alpha is {alpha}; give a level between 0 and 0.5, such as 0.05")
    elif draws < 20 / alpha:
        faults.append(
            f"draws is {draws}; intervals of {100 * (1 - alpha):g} % need {20 / alpha:.0f} or more, preferably 10000"
        )
    together(ConfigError, faults)


def metrics_of(metrics: Sequence[str] | None, primary: str, scores: pd.DataFrame) -> tuple[str, ...]:
    """The primary metric, then the others, or what of those that summaries show is in ``scores``; each once.

    Of these NSD counts only where all rows have one tolerance: at two of them it is two metrics.
    """
    several = len(tolerances_mm(scores)) > 1
    usual = [name for name in shown() if name in scores and not (name == "nsd" and several)]
    return tuple(dict.fromkeys([primary, *(usual if metrics is None else metrics)]))


def margins_of(margin: float | Mapping[str, float] | None, primary: str) -> dict[str, float]:
    """Of each metric that has one."""
    if margin is None:
        return {}
    return dict(margin) if isinstance(margin, Mapping) else {primary: float(margin)}


def compared_pairs(arms: Sequence[str], against: Sequence[str]) -> dict[tuple[str, str], str]:
    """(arm, the other) and what the other is; the second arm's previous is the baseline, and counts once."""
    kinds: dict[tuple[str, str], list[str]] = {}
    for kind in AGAINST:
        for place in range(1, len(arms)):
            if kind in against:
                kinds.setdefault((arms[place], arms[0 if kind == "baseline" else place - 1]), []).append(kind)
    return {pair: ", ".join(kind) for pair, kind in kinds.items()}
