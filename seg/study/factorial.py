"""Full factorial designs: what each factor does, and what two of them do together."""

from collections.abc import Mapping, Sequence
from itertools import combinations, product
from math import nan

import numpy as np
import pandas as pd

from seg.errors import DataError
from seg.metrics import METRICS
from seg.study.contrasts import contrast_table, resample, spread
from seg.study.options import LEVEL, check_options, margins_of
from seg.study.scores import Incomplete, Numbers, patient_values


def effects(
    scores: pd.DataFrame,
    factors: Mapping[str, Sequence[str]],
    *,
    metric: str = "dice",
    classes: Sequence[str] | None = None,
    margin: float | None = None,
    draws: int = 10_000,
    seed: int = 0,
    alpha: float = LEVEL,
    incomplete: Incomplete = "refuse",
) -> pd.DataFrame:
    """Main effects and interactions of a full factorial design, as contrasts of its arms.

    The main effect of a level is its mean over all settings of the other factors minus that of the reference level. An
    interaction says how much more a level brings where another is on: (both - only one) - (only the other - neither),
    averaged over the remaining factors. All effects together are one family.

    Args:
        scores: as in ``analyse``, with a column for each factor that is the same in all rows of an arm.
        factors: the levels of each, by the name of its column; the first one is the reference.
        metric: one with a better direction; "better" of an interaction means that the levels help each other.
        classes: as in ``analyse``.
        margin: as in ``analyse``.
        draws: of the bootstrap.
        seed: of the bootstrap.
        alpha: two-sided level.
        incomplete: see seg.study.scores.patient_values.

    Returns:
        One row per effect: ``effect`` in words, ``order`` (1 main effect, 2 interaction of two, …), then the columns of
        comparisons from ``difference`` on.

    Raises:
        ConfigError: an option that does not exist or does not fit.
        DataError: scores that cannot be compared, or arms that are not every combination of levels just once.

    Source: Montgomery, Design and Analysis of Experiments, chapters 5 and 6; interactions not halved.
    """
    margins = margins_of(margin, metric)
    check_options([metric], metric, margins, ["baseline"], draws, alpha)
    levels = {factor: [str(level) for level in declared] for factor, declared in factors.items()}
    arms = _arms(scores, levels)
    names, weights = _weights(levels)
    values = patient_values(scores, arms=arms, metrics=[metric], classes=classes, incomplete=incomplete)
    parts = spread(values.by_metric[metric])
    (drawn,) = resample([parts], draws, seed)
    table = contrast_table(parts, drawn, weights, METRICS[metric], margin=margins.get(metric, nan), alpha=alpha)
    table.insert(0, "effect", names)
    table.insert(1, "order", [name.count(" × ") + 1 for name in names])
    return table


def _arms(scores: pd.DataFrame, levels: Mapping[str, Sequence[str]]) -> list[str]:
    """The arms in the order of the declared levels, whatever the order of the rows."""
    factors = list(levels)
    if missing := [column for column in ("arm", *factors) if column not in scores]:
        raise DataError(
            f"scores have no column {', '.join(missing)}; each factor needs one, with its level in each row"
        )
    lines = scores[["arm", *factors]].astype(str).drop_duplicates()
    cells = list(lines[factors].itertuples(index=False, name=None))
    expected = list(product(*levels.values()))
    if lines["arm"].duplicated().any() or sorted(cells) != sorted(expected):
        raise DataError(
            f"{lines['arm'].nunique()} arms with {len(lines)} combinations of {', '.join(factors)} are not a full "
            f"factorial, which has each of the {len(expected)} combinations of {dict(levels)} in one arm of its own; "
            "compare arms by analyse()"
        )
    arms = dict(zip(cells, lines["arm"], strict=True))
    return [str(arms[cell]) for cell in expected]


def _weights(levels: Mapping[str, Sequence[str]]) -> tuple[list[str], Numbers]:
    """Names and weights (effects, arms) of all main effects, then interactions of rising order."""
    cells = np.array(list(product(*levels.values())))
    names, lines = [], []
    for order in range(1, len(levels) + 1):
        for chosen in combinations(levels, order):
            for setting in product(*(levels[factor][1:] for factor in chosen)):
                line = np.ones(len(cells))
                for at, (factor, values) in zip(cells.T, levels.items(), strict=True):
                    if factor in chosen:
                        line *= (at == setting[chosen.index(factor)]).astype(float) - (at == values[0])
                    else:
                        line /= len(values)
                names.append(" × ".join(f"{factor}={level}" for factor, level in zip(chosen, setting, strict=True)))
                lines.append(line)
    return names, np.array(lines)
