"""Which arm of a study is better, by how much and how certainly: from a table of scores to tables and sentences.

Usable alone, on any table of cases, in a notebook::

    from seg.study import analyse, read_scores

    analysis = analyse(read_scores("scores.csv"), baseline="baseline", margin=0.01)
    analysis.comparisons
    print("\\n".join(analysis.sentences()))

What is computed and why is in docs/statistics.md; how a patient's value is computed in seg.study.scores; the
mathematics in seg.study.contrasts; designs of crossed factors in seg.study.factorial.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import nan
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from seg.errors import ConfigError, DataError, counted, few
from seg.metrics import METRICS, lengths_of
from seg.study.contrasts import Spread, contrast_table, interval, pair_weights, resample, spread
from seg.study.options import AGAINST, LEVEL, check_options, compared_pairs, margins_of, metrics_of
from seg.study.scores import Incomplete, Numbers, Values, patient_values, tolerances_mm
from seg.study.subsets import subset_tables

BY_CLASS = ("class", "metric", "primary", "arm", "against", "kind", "patients", "difference", "ci_low", "ci_high")


@dataclass(frozen=True)
class Meta:
    """What an analysis rests on; everything a reader must know to repeat or doubt it."""

    arms: tuple[str, ...]  # baseline first
    metrics: tuple[str, ...]
    primary: str
    classes: tuple[str, ...]  # that the study is judged by: by the mean over them
    patients: int
    cases: int
    folds: int
    seeds: dict[str, int]  # by arm
    family: int  # comparisons judged together, separately for each metric
    margins: dict[str, float]  # by metric, where one was stated
    draws: int
    seed: int
    alpha: float
    left_out: tuple[str, ...]  # what an unfinished study lacks, in words
    unscored: int  # cases without any structure, in the reference and in every prediction
    nsd_tolerance_mm: float | None = None  # of the surface dice; None: not known, or not the same in all rows
    lengths: str = "mm"  # what lengths are in: mm, or the pixels of pictures
    jitter: float | None = None  # Dice that half a voxel of doubt about the labels' surface costs
    study: str = ""  # its name
    part: str = ""  # which cases were scored, in words: "of the test part"
    grouped: bool = False  # whether there are groups of patients
    finished: tuple[str, ...] = ()  # arms that are finished tools: nothing is said of other trainings of them
    notice: str = ""  # shown above everything else: the study is incomplete
    remarks: tuple[str, ...] = ()  # sentences about its runs
    claims: tuple[str, ...] = ()  # sentences on what was locked before the first run, and on who read these cases
    level: float | None = None  # of this look, where seeds are added until the study is decided

    @property
    def nominal(self) -> float:
        """Two-sided level that p-values and intervals are held to: of several looks, alpha is that of all together."""
        return self.alpha if self.level is None else self.level

    @property
    def seeds_each(self) -> str:
        """How many an arm has: ``3 seeds``, ``2 to 3 seeds``."""
        least, most = min(self.seeds.values()), max(self.seeds.values())
        return ("" if least == most else f"{least} to ") + counted(most, "seed")

    @property
    def fixed(self) -> bool:
        """Whether all arms are finished tools."""
        return {*self.arms} <= {*self.finished}

    @property
    def every(self) -> int:
        """The cases, unscored ones too."""
        return self.cases + self.unscored

    @property
    def drawn(self) -> str:
        """Over what intervals, p-values and ranks are taken."""
        alone = "patients" if self.fixed else "patients (one seed an arm)"
        return "patients and seeds" if max(self.seeds.values()) > 1 else alone

    @property
    def one_seed(self) -> list[str]:
        """The arms of which nothing is claimed, for what another training would give is not known."""
        return [arm for arm, count in self.seeds.items() if count == 1 and arm not in self.finished]


@dataclass(frozen=True)
class Analysis:
    """The result of ``analyse``; columns are explained in docs/statistics.md."""

    arms: pd.DataFrame  # one row per metric and arm
    comparisons: pd.DataFrame  # one row per metric, arm and the arm it is compared with
    ranks: pd.DataFrame  # one row per metric and arm: probability of each rank
    classes: pd.DataFrame  # one row per class and arm: means of the metrics, and in how many cases it is present
    class_comparisons: pd.DataFrame  # one row per class, metric, arm and the other: difference and interval, no verdict
    subsets: pd.DataFrame  # by the primary metric, one row per subset (worst tenth, groups) and arm: its mean there
    subset_comparisons: pd.DataFrame  # the same of every comparison: differences
    patients: pd.DataFrame  # metric, arm, patient, value: averaged over seeds, classes and cases
    meta: Meta
    anchors: Mapping[str, "Analysis"] = field(default_factory=dict)  # by name: the arms against a finished tool

    @property
    def baseline(self) -> str:
        """The arm that others are compared with."""
        return self.meta.arms[0]

    @property
    def abnormal(self) -> set[str]:
        """The arms whose seed spread is abnormal by the primary metric."""
        return {*self.arms[(self.arms["metric"] == self.meta.primary) & self.arms["abnormal"]]["arm"]}

    def sentences(self) -> list[str]:
        """The findings in plain words, the design first."""
        from seg.study.sentences import sentences  # which reads this class

        return sentences(self)


def analyse(
    scores: pd.DataFrame,
    *,
    baseline: str,
    margin: float | Mapping[str, float] | None = None,
    arms: Sequence[str] | None = None,
    against: Sequence[str] = AGAINST,
    metrics: Sequence[str] | None = None,
    primary: str = "dice",
    classes: Sequence[str] | None = None,
    groups: Mapping[str, str] | None = None,
    draws: int = 10_000,
    seed: int = 0,
    alpha: float = LEVEL,
    level: float | None = None,
    incomplete: Incomplete = "refuse",
    fixed: bool | Sequence[str] = False,
) -> Analysis:
    """Compares the arms of a study.

    Args:
        scores: one row per arm, seed, case and class, with the columns arm, seed, fold, case, patient, class, the
            metrics and, if they are to be counted, missed and false.
        baseline: the arm that others are compared with; it comes first in every table.
        margin: differences within ± margin count as none, so that arms can be called equivalent; a number is that of
            the primary metric, in its unit. None: no arm is ever called equivalent.
        arms: which, in order; None: all, as they appear.
        against: "baseline", "previous" (each arm against the one before it), or both.
        metrics: of seg.metrics.METRICS, each a family of its own; one without a better direction is not compared. None:
            those that summaries show (Dice, NSD, HD95), as far as ``scores`` has them.
        primary: the metric that the study is judged by, chosen beforehand.
        classes: the classes that the study is judged by, chosen beforehand: by the mean over them. None: all.
        groups: the group of each patient, such as its site, for means by group (seg.study.subsets).
        draws: of the bootstrap.
        seed: of the bootstrap.
        alpha: two-sided level of tests; intervals cover 1 - alpha.
        level: that of this look alone, where ``alpha`` is that of several together (seg.study.sequential).
        incomplete: as in seg.study.scores.patient_values.
        fixed: True: the arms are finished tools, scored by this version: one seed is enough, and no other training is
            meant. Or the arms of which that is so.

    Raises:
        ConfigError: an option that does not exist or does not fit.
        DataError: scores that cannot be compared; see seg.study.scores.patient_values.
    """
    metrics = metrics_of(metrics, primary, scores)
    margins = margins_of(margin, primary)
    check_options(metrics, primary, margins, against, draws, alpha)
    order = _order(scores, arms, baseline)
    asked = compared_pairs(order, against)  # what was asked is the family, also while an arm is missing
    values = patient_values(scores, arms=order, metrics=metrics, classes=classes, incomplete=incomplete)
    if baseline not in values.arms:
        raise DataError(f"the baseline {baseline!r} has no scores yet: there is nothing to compare the arms with")
    finished = (values.arms if fixed else ()) if isinstance(fixed, bool) else tuple(fixed)
    judged = {"metrics": metrics, "primary": primary, "family": len(asked), "margins": margins, "finished": finished}
    judged |= {"level": level, "grouped": bool(groups), "lengths": lengths_of(scores)} | _tolerance(scores, metrics)
    return _analysis(values, asked, groups, _meta(values, draws=draws, seed=seed, alpha=alpha, **judged))


def _tolerance(scores: pd.DataFrame, metrics: Sequence[str]) -> dict[str, Any]:
    """That of NSD where all rows have one, and a remark where NSD was left out since they do not."""
    known = tolerances_mm(scores)
    remark = f"NSD is left out: its tolerances ({', '.join(f'{mm:g}' for mm in known)}) are not the same in all runs."
    told = (remark,) if len(known) > 1 and "nsd" in scores and "nsd" not in metrics else ()
    return {"nsd_tolerance_mm": known[0] if len(known) == 1 else None, "remarks": told}


def _meta(values: Values, **stated: Any) -> Meta:
    """Of what was stated, and of the scores themselves."""
    return Meta(
        arms=values.arms,
        classes=values.judged,
        patients=len(values.patients),
        cases=values.cases,
        folds=values.folds,
        seeds=values.seeds,
        left_out=values.left_out,
        unscored=values.unscored,
        **stated,
    )


def _analysis(
    values: Values, asked: Mapping[tuple[str, str], str], groups: Mapping[str, str] | None, meta: Meta
) -> Analysis:
    places = {arm: place for place, arm in enumerate(values.arms)}
    pairs = {(places[a], places[b]): kind for (a, b), kind in asked.items() if a in places and b in places}
    parts = {metric: _spread(arrays, meta) for metric, arrays in values.by_metric.items()}
    drawn = dict(zip(parts, resample(list(parts.values()), meta.draws, meta.seed), strict=True))
    judged = [metric for metric in meta.metrics if METRICS[metric].better]
    lines = [_arm_lines(metric, parts[metric], drawn[metric], meta) for metric in meta.metrics]
    compared = [_compared(metric, parts[metric], drawn[metric], pairs, meta) for metric in judged]
    ranked = [_ranked(metric, parts[metric], drawn[metric], meta) for metric in judged]
    return Analysis(
        arms=pd.concat(lines, ignore_index=True).join(values.failures, on="arm"),
        comparisons=pd.concat(compared, ignore_index=True),
        ranks=pd.concat(ranked, ignore_index=True),
        classes=values.classes,
        class_comparisons=_by_class(values, pairs, meta),
        **_subsets(values, parts[meta.primary], pairs, groups, meta),
        patients=_long(values, parts),
        meta=meta,
    )


def _spread(arrays: Sequence[Numbers], meta: Meta) -> Spread:
    return spread(arrays, [arm in meta.finished for arm in meta.arms])


def _order(scores: pd.DataFrame, arms: Sequence[str] | None, baseline: str) -> list[str]:
    """The arms, baseline first."""
    if "arm" not in scores:
        raise DataError("scores have no column arm; it names the arm of each row")
    chosen = list(dict.fromkeys(scores["arm"].astype(str))) if arms is None else [str(arm) for arm in arms]
    if baseline not in chosen:
        raise ConfigError(f"baseline {baseline!r} is not among the arms: {few(chosen)}")
    return [baseline, *(arm for arm in chosen if arm != baseline)]


def _arm_lines(metric: str, parts: Spread, drawn: Numbers, meta: Meta) -> pd.DataFrame:
    mean = parts.means.mean(1)
    low, high = interval(drawn, 1 - meta.nominal)
    least, most = METRICS[metric].limits
    return pd.DataFrame(
        {
            "metric": metric,
            "arm": meta.arms,
            "patients": parts.means.shape[1],
            "mean": mean,
            "ci_low": np.maximum(mean + low, least),
            "ci_high": np.minimum(mean + high, most),
            "median": np.median(parts.means, axis=1),
            "sd": parts.means.std(1, ddof=1),
            "seed_sd": parts.seed_sd,
            "abnormal": parts.abnormal,
            "by_seed": [tuple(means.tolist()) for means in parts.by_seed],
        }
    )


def _compared(
    metric: str, parts: Spread, drawn: Numbers, pairs: Mapping[tuple[int, int], str], meta: Meta
) -> pd.DataFrame:
    weights = pair_weights(pairs, len(meta.arms))
    rules = {"margin": meta.margins.get(metric, nan), "alpha": meta.nominal}
    table = contrast_table(parts, drawn, weights, METRICS[metric], **rules, family=meta.family)
    heads = _names(pairs, meta)
    heads.insert(0, "metric", metric)
    heads.insert(1, "primary", metric == meta.primary)
    return pd.concat([heads, table], axis=1)


def _names(pairs: Mapping[tuple[int, int], str], meta: Meta) -> pd.DataFrame:
    names = [(meta.arms[a], meta.arms[b], kind) for (a, b), kind in pairs.items()]
    return pd.DataFrame(names, columns=["arm", "against", "kind"])


def _subsets(
    values: Values, parts: Spread, pairs: Mapping[tuple[int, int], str], groups: Mapping[str, str] | None, meta: Meta
) -> dict[str, pd.DataFrame]:
    """By the primary metric: means in the worst tenth of the patients and in the groups, and the differences there."""
    rules = {"draws": meta.draws, "seed": meta.seed, "alpha": meta.nominal}
    weights, metric, ends = pair_weights(pairs, len(meta.arms)), METRICS[meta.primary], ["ci_low", "ci_high"]
    arms, compared = subset_tables(parts, weights, metric.better, values.patients, groups, **rules)
    arms[ends], compared[ends] = arms[ends].clip(*metric.limits), compared[ends].clip(-metric.reach, metric.reach)
    return {
        "subsets": arms.join(pd.Series(meta.arms, name="arm"), on="line").drop(columns="line"),
        "subset_comparisons": compared.join(_names(pairs, meta), on="line").drop(columns="line"),
    }


def _by_class(values: Values, pairs: Mapping[tuple[int, int], str], meta: Meta) -> pd.DataFrame:
    """The comparisons in each class by itself: exploratory, so without tests or verdict.

    A class that is scored in one patient only has no interval, and no row.
    """
    found = []
    for name, by_metric in values.by_class.items():
        count = by_metric[meta.primary][0].shape[1]
        if count < 2 or len(values.by_class) < 2:
            continue
        parts = {metric: _spread(by_metric[metric], meta) for metric in meta.metrics if METRICS[metric].better}
        drawn = resample(list(parts.values()), meta.draws, meta.seed)
        for (metric, part), deviations in zip(parts.items(), drawn, strict=True):
            table = _compared(metric, part, deviations, pairs, meta)
            found.append(table.assign(**{"class": name, "patients": count})[[*BY_CLASS]])
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=[*BY_CLASS])


def _ranked(metric: str, parts: Spread, drawn: Numbers, meta: Meta) -> pd.DataFrame:
    """Probability of each rank; arms that tie share the better one.

    Source: bootstrap of rankings, Wiesenfarth et al. 2021, doi:10.1038/s41598-021-82017-6; here with seeds drawn too.
    """
    means = parts.means.mean(1) + drawn
    ranks = stats.rankdata(means * -METRICS[metric].better, method="min", axis=1)
    table = pd.DataFrame({"metric": metric, "arm": meta.arms, "mean_rank": ranks.mean(0)})
    return table.assign(**{f"rank_{rank}": (ranks == rank).mean(0) for rank in range(1, len(meta.arms) + 1)})


def _long(values: Values, parts: Mapping[str, Spread]) -> pd.DataFrame:
    """One row per metric, arm and patient."""
    index = pd.MultiIndex.from_product([parts, values.arms, values.patients], names=["metric", "arm", "patient"])
    numbers = np.concatenate([part.means.ravel() for part in parts.values()])
    return pd.DataFrame({"value": numbers}, index=index).reset_index()
