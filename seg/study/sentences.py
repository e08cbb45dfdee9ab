"""The findings of a study in plain words, and how numbers are spelled in them."""

from math import ceil, inf, isfinite
from statistics import median
from typing import TYPE_CHECKING, Any

import pandas as pd
from scipy import stats

from seg.errors import few
from seg.metrics import METRICS
from seg.study.contrasts import POWER

if TYPE_CHECKING:
    from seg.study.analysis import Analysis, Meta

ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth")


def spelled(value: float, metric: str) -> str:
    """A mean, with the metric's own decimals."""
    return f"{value:.{METRICS[metric].digits}f}".replace("-", "−")


def signed(value: float, metric: str) -> str:
    """A difference, with its sign and one decimal more than a mean."""
    return f"{value:+.{METRICS[metric].digits + 1}f}".replace("-", "−")


def size(value: float, metric: str) -> str:
    """The size of a difference, without a sign."""
    return f"{value:.{METRICS[metric].digits + 1}f}"


def percent(share: float) -> str:
    """95 %, with the space that belongs there."""
    return f"{share:.0%}".replace("%", " %")


def spelled_p(p: float) -> str:
    """A p-value: three decimals, or "< 0.001"."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def sentences(analysis: "Analysis") -> list[str]:
    """The design, what is missing, each comparison by the primary metric, the other metrics in short, the ranks."""
    meta, table = analysis.meta, analysis.comparisons
    primary = table[table["primary"]]
    abnormal = set(analysis.arms[(analysis.arms["metric"] == meta.primary) & analysis.arms["abnormal"]]["arm"])
    return [
        _design(meta),
        *meta.remarks,
        *(f"Left out as unfinished: {'; '.join(meta.left_out)}." for _ in meta.left_out[:1]),
        *(_one_seed() for _ in range(max(meta.seeds.values()) == 1)),
        *_abnormal(analysis),
        *(_comparison(line, meta, abnormal) for _, line in primary.iterrows()),
        *(_secondary(name, part) for name, part in table[~table["primary"]].groupby("metric", sort=False)),
        *_first(analysis),
    ]


def takes(line: "pd.Series[Any]", target: float, patients: int, seeds: int, level: float) -> str:
    """What a study would need for its smallest visible difference to fall to ``target``, in words.

    The standard error shrinks with the root of the patients and, in its other part, of the seeds, and the degrees of
    freedom grow with them.

    Args:
        line: of the comparisons.
        target: a size of difference.
        patients: that there are.
        seeds: an arm.
        level: at which a comparison is found, two-sided.
    """
    if not isfinite(line["smallest"]):
        return "more patients, or more seeds: so small a study would find no difference at all"
    freedom, share = float(line["freedom"]), float(line["seed_share"])
    factor = goal = (target / line["smallest"]) ** 2
    for _ in range(20):  # more of both lowers the quantiles, too
        factor = goal * (_quantiles(level, freedom) / _quantiles(level, freedom / factor)) ** 2
    more_seeds = share / (factor - (1 - share)) if factor > 1 - share else inf
    more_patients = (1 - share) / (factor - share) if factor > share else inf
    ways = {
        f"{ceil(seeds * more_seeds)} seeds an arm with these patients" if 0 < more_seeds < inf else "": more_seeds,
        f"{ceil(patients * more_patients)} patients with these seeds" if more_patients < inf else "": more_patients,
    }
    # One of the two alone is advice only where it does not take many times what both together take.
    alone = [f"about {way}" for way, times in ways.items() if way and times <= 4 / factor]
    return ", or ".join(alone) or f"about {ceil(patients / factor)} patients and {ceil(seeds / factor)} seeds an arm"


def _quantiles(level: float, freedom: float) -> float:
    """Standard errors between no difference and one that is found with the power of ``POWER``."""
    return float(stats.t.isf(level / 2, freedom) + stats.t.ppf(POWER, freedom))


def _design(meta: "Meta") -> str:
    counts = sorted(set(meta.seeds.values()))
    seeds = " to ".join(str(count) for count in dict.fromkeys([counts[0], counts[-1]]))
    family = f"{_counted(meta.family, 'comparison')} as one family at {percent(meta.alpha)} (Holm)"
    folds = f" in {meta.folds} folds" if meta.folds > 1 else ""
    return (
        f"{_counted(len(meta.arms), 'arm')} with {seeds} {_plural('seed', counts[-1])} each, {meta.patients} patients "
        f"({_counted(meta.cases, 'case')}{f' {meta.part}' if meta.part else ''}){folds}; judged by "
        f"{METRICS[meta.primary].label}, {family if meta.family else 'with nothing to compare yet'}."
    )


def _one_seed() -> str:
    return (
        "Each arm was trained with one seed, so how far another training of the same arm would differ is not known: "
        "intervals and p-values hold for these networks only, and every verdict is inconclusive. Train two more seeds."
    )


def _abnormal(analysis: "Analysis") -> list[str]:
    """Which arms have an abnormal seed spread, and which of their runs is farthest from the others."""
    metric = analysis.meta.primary
    lines = analysis.arms[analysis.arms["metric"] == metric]
    wild, calm = lines[lines["abnormal"]], lines[~lines["abnormal"]]
    if wild.empty:
        return []
    found = []
    for _, line in wild.iterrows():
        means, middle = line["by_seed"], median(line["by_seed"])
        place = max(range(len(means)), key=lambda run: abs(means[run] - middle))
        run = ORDINALS[place] if place < len(ORDINALS) else f"{place + 1}th"
        found.append(f"{line['arm']} ({', '.join(spelled(mean, metric) for mean in means)}), inspect the {run} run")
    usual = size(float((calm["seed_sd"] ** 2).mean() ** 0.5), metric)
    return [
        f"Abnormal seed spread: {'; '.join(found)}. The other arms' means have an SD of {usual} from seed to seed, and "
        "their intervals are hardly affected."
    ]


def _comparison(line: "pd.Series[Any]", meta: "Meta", abnormal: set[str]) -> str:
    who, metric, scale = f"{line['arm']} against {line['against']}", meta.primary, METRICS[meta.primary]
    difference = (
        f"{scale.label} {scale.with_unit(signed(line['difference'], metric))} "
        f"({percent(1 - meta.alpha)} interval {signed(line['ci_low'], metric)} to {signed(line['ci_high'], metric)})"
    )
    tests = (
        f"p {spelled_p(line['p_mean_holm'])} for the mean, {spelled_p(line['p_wilcoxon_holm'])} by ranks, after Holm"
    )
    if line["verdict"] == "inconclusive":
        return f"{who}: inconclusive. {difference}; {tests}. {_why(line, meta, abnormal)}"
    counts = f"{line['wins']} patients better, {line['losses']} worse, {line['ties']} equal"
    if line["verdict"] == "equivalent":
        margin = scale.with_unit(f"{meta.margins[metric]:g}")
        inside = f"p {spelled_p(line['p_tost_holm'])} for a difference beyond it, after Holm"
        return f"{who}: equivalent within ±{margin}. {difference}; {inside}; {counts}."
    small = line["p_tost_holm"] <= meta.alpha
    note = f" Real but small: within ±{scale.with_unit(f'{meta.margins[metric]:g}')}." if small else ""
    return f"{who}: {line['verdict']}. {difference}; {tests}; {counts}.{note}"


def _why(line: "pd.Series[Any]", meta: "Meta", abnormal: set[str]) -> str:
    """Why no difference could be claimed, and what it would take."""
    if max(meta.seeds.values()) == 1:
        return "One seed an arm."
    if wild := [arm for arm in (line["arm"], line["against"]) if arm in abnormal]:
        return f"The seed spread of {' and of '.join(wild)} is abnormal: inspect the runs first."
    mean, ranks = (line[name] <= meta.alpha for name in ("p_mean_holm", "p_wilcoxon_holm"))
    if mean and not ranks:
        return "The mean differs but the typical patient does not: a few patients account for it; inspect them."
    if mean and ranks:
        return (
            "Mean and typical patient differ in opposite directions, or only just; inspect the patients' differences."
        )
    scale = METRICS[meta.primary]
    start = "Most patients point one way, but other seeds might reverse it. " if ranks else ""
    target = meta.margins.get(meta.primary, abs(line["difference"]))
    seeds = min(meta.seeds[line["arm"]], meta.seeds[line["against"]])
    smallest = line["smallest"]
    seen = f"A true difference of {scale.with_unit(size(smallest, meta.primary))} would have been found in "
    start += f"{seen}{percent(POWER)} of such studies. " if isfinite(smallest) else ""
    if target <= 0 or smallest <= target:
        return start.rstrip()
    return f"{start}To find {scale.with_unit(size(target, meta.primary))} takes " + (
        f"{takes(line, target, meta.patients, seeds, meta.alpha / meta.family)}."
    )


def _secondary(metric: str, part: pd.DataFrame) -> str:
    groups = {
        verdict: [f"{line['arm']} against {line['against']}" for _, line in part[part["verdict"] == verdict].iterrows()]
        for verdict in ("better", "worse", "equivalent")
    }
    said = [f"{verdict}: {few(names)}" for verdict, names in groups.items() if names]
    rest = int((part["verdict"] == "inconclusive").sum())
    return f"{METRICS[metric].label} (secondary): {'; '.join([*said, f'inconclusive: {rest} of {len(part)}'])}."


def _first(analysis: "Analysis") -> list[str]:
    ranks = analysis.ranks[analysis.ranks["metric"] == analysis.meta.primary].sort_values("mean_rank")
    if len(ranks) < 2:
        return []
    best = ranks.loc[ranks["rank_1"].idxmax()]
    return [
        f"By {METRICS[analysis.meta.primary].label}, {best['arm']} comes first in {percent(best['rank_1'])} of the "
        f"studies resampled over {analysis.meta.drawn} (mean rank {best['mean_rank']:.1f} of {len(ranks)})."
    ]


def _counted(count: int, word: str) -> str:
    return f"{count} {_plural(word, count)}"


def _plural(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s"
