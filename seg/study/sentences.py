"""The findings of a study in plain words, and how numbers are spelled in them."""

from collections.abc import Callable
from math import isfinite
from statistics import median
from typing import TYPE_CHECKING

import pandas as pd

from seg.errors import counted, few
from seg.metrics import METRICS
from seg.study.power import POWER, takes
from seg.study.scores import Row
from seg.study.subsets import WORST

if TYPE_CHECKING:
    from seg.study.analysis import Analysis, Meta

CLASSES_TOLD = 4  # of more classes a sentence names two only
MARK = "within half a voxel"  # of a difference that is smaller than what half a voxel of doubt costs
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


def with_ends(value: float, low: float, high: float, metric: str, text: Callable[[float, str], str] = spelled) -> str:
    """``0.871 [0.860, 0.881]``; the value alone where there is no interval."""
    return text(value, metric) + (f" [{text(low, metric)}, {text(high, metric)}]" if isfinite(low) else "")


def percent(level: float) -> str:
    """95 % or 97.5 %, with the space that belongs there."""
    return f"{100 * level:g} %"


def about(share: float) -> str:
    """A share in whole percent; 99.9 % of what is nearly all."""
    nearly = 0.995 <= share < 1
    return f"{min(share, 0.999) if nearly else share:.{1 if nearly else 0}%}".replace("%", " %")


def at_least(share: float) -> str:
    """``6 % or more``; ``0.1 % or more`` of what is very small."""
    return f"{max(share, 0.001):.{0 if share >= 0.01 else 1}%} or more".replace("%", " %")


def spelled_p(p: float) -> str:
    """A p-value: three decimals, or "< 0.001"."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def sentences(analysis: "Analysis") -> list[str]:
    """The design, what is missing, each comparison by the primary metric, the other metrics in short, the ranks."""
    meta, table = analysis.meta, analysis.comparisons
    primary = table[table["primary"]]
    return [
        _design(meta) + _family(analysis),
        *meta.claims,
        *meta.remarks,
        *(f"Left out as unfinished: {'; '.join(meta.left_out)}." for _ in meta.left_out[:1]),
        *_unscored(meta, analysis.classes["class"].nunique()),
        *_one_seed(meta),
        *_abnormal(analysis),
        *(
            _comparison(line, meta, analysis.abnormal)
            + ("" if {line["arm"], line["against"]} & analysis.abnormal else _in_classes(analysis, line))
            for _, line in primary.iterrows()
        ),
        *_subsets(analysis),
        *(_secondary(name, part) for name, part in table[~table["primary"]].groupby("metric", sort=False)),
        *ceiling(meta),
        *_anchors(analysis),
        *_first(analysis),
    ]


def _design(meta: "Meta") -> str:
    family = f"{counted(meta.family, 'comparison')} as one family at {percent(meta.alpha)} (Holm)"
    folds = f" in {meta.folds} folds" if meta.folds > 1 else ""
    each = "" if meta.fixed else f" with {meta.seeds_each} each"
    arms = counted(len(meta.arms), "tool" if meta.fixed else "arm") + each
    return (
        f"{arms}, {meta.patients} patients "
        f"({counted(meta.cases, 'case')}{f' {meta.part}' if meta.part else ''}){folds}; judged by "
        f"{METRICS[meta.primary].label}, {family if meta.family else 'with nothing to compare yet'}."
    )


def _family(analysis: "Analysis") -> str:
    """Which comparisons are judged together, and what is shown without being judged."""
    meta = analysis.meta
    if not meta.family:
        return ""
    every = analysis.classes["class"].nunique()
    whole = len(meta.classes) == every
    named = few(meta.classes)
    over = f"the mean of {'all' if whole else 'the'} classes {named}" if len(meta.classes) > 1 else ""
    over = over or (f"the class {named}" if every > 1 else "")
    others = [METRICS[metric].label for metric in meta.metrics if metric != meta.primary and METRICS[metric].better]
    secondary = f"; {', '.join(others)}: secondary, each a family of its own" if others else ""
    classes = " Differences in single classes are exploratory: they have intervals and no verdict." * (every > 1)
    return f" The family is by {METRICS[meta.primary].label}{f', {over}' if over else ''}{secondary}.{classes}"


def _unscored(meta: "Meta", classes: int) -> list[str]:
    if not meta.unscored:
        return []
    what = f"none of {few(meta.classes)}" if len(meta.classes) < classes else "no structure"
    return [
        f"Not scored, for there is {what} in the reference nor in any prediction: "
        f"{counted(meta.unscored, 'more case')}."
    ]


def _one_seed(meta: "Meta") -> list[str]:
    if meta.fixed and meta.family:
        return ["The tools are compared as they are: another training of one of them might do better or worse."]
    if not meta.one_seed:
        return []
    if len(meta.one_seed) == len(meta.arms):
        return [
            "Each arm was trained with one seed, so how far another training of the same arm would differ is not "
            "known: intervals and p-values hold for these networks only, and every verdict is inconclusive. Train two "
            "more seeds."
        ]
    return [
        f"Trained with one seed: {few(meta.one_seed)}. How far another training would differ is not known there, and "
        "the other arms' seeds may spread otherwise: every comparison with it is inconclusive. Train two more seeds."
    ]


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
        run = f"the {ORDINALS[place]} run" if place < len(ORDINALS) else f"run {place + 1}"
        run = "both runs" if len(means) == 2 else run
        found.append(f"{line['arm']} ({', '.join(spelled(mean, metric) for mean in means)}), inspect {run}")
    usual = size(float((calm["seed_sd"] ** 2).mean() ** 0.5), metric)
    return [
        f"Abnormal seed spread: {'; '.join(found)}. The other arms' means have an SD of {usual} from seed to seed, and "
        "their intervals are hardly affected."
    ]


def _comparison(line: Row, meta: "Meta", abnormal: set[str]) -> str:
    who, metric, scale = _who(line), meta.primary, METRICS[meta.primary]
    difference = (
        f"{scale.label} {scale.with_unit(signed(line['difference'], metric), meta.lengths)} "
        f"({percent(1 - meta.alpha)} interval {signed(line['ci_low'], metric)} to {signed(line['ci_high'], metric)})"
    )
    tests = (
        f"p {spelled_p(line['p_mean_holm'])} for the mean, {spelled_p(line['p_wilcoxon_holm'])} by ranks, after Holm"
    )
    if line["verdict"] == "inconclusive":
        return f"{who}: inconclusive. {difference}; {tests}. {_alone(line, meta)}{_why(line, meta, abnormal)}".rstrip()
    counts = f"{line['wins']} patients better, {line['losses']} worse, {line['ties']} equal"
    if line["verdict"] == "equivalent":
        margin = scale.with_unit(f"{meta.margins[metric]:g}", meta.lengths)
        inside = f"p {spelled_p(line['p_tost_holm'])} for a difference beyond it, after Holm"
        return f"{who}: equivalent within ±{margin}. {difference}; {inside}; {counts}."
    small = line["p_tost_holm"] <= line["level"]  # of the look that decided it
    meaning = f" {MARK.capitalize()}." if below_ceiling(line, meta) else ""
    note = f" Real but small: within ±{scale.with_unit(f'{meta.margins[metric]:g}', meta.lengths)}." if small else ""
    doubt = (
        f" Such a claim is false in {at_least(line['false_claim'])} of cases, if every second comparison is of equals."
    )
    return f"{who}: {line['verdict']}. {difference}; {tests}; {counts}.{note}{meaning}{doubt}"


def below_ceiling(line: Row, meta: "Meta") -> bool:
    """Whether a difference of Dice is smaller than what half a voxel of doubt about the labels' surface costs."""
    return meta.jitter is not None and meta.primary == "dice" and abs(line["difference"]) < meta.jitter


def ceiling(meta: "Meta") -> list[str]:
    """What half a voxel of doubt about the labels' surface costs, and what that means for smaller differences."""
    if meta.jitter is None or meta.primary != "dice":
        return []
    return [
        f"Ceiling: half a voxel of doubt about the surface of these labels costs {spelled(meta.jitter, 'dice')} of "
        f"Dice; above {spelled(1 - meta.jitter, 'dice')} a network follows them more closely than they can be drawn. A "
        f"smaller difference ({MARK}) is not meaningful in a single patient; where it is claimed, the means over "
        "patients differ all the same."
    ]


def _anchors(analysis: "Analysis") -> list[str]:
    """What the anchors are, then each arm against each of them."""
    told = []
    for name, own in analysis.anchors.items():
        table = own.comparisons[own.comparisons["primary"]]
        told.append(
            f"Anchor {name}: a finished tool, scored on the same cases, paired by patient. Its scores are of one "
            "training, whose own luck is not in the intervals; another training of it might do better or worse. Its "
            f"{counted(own.meta.family, 'comparison')}, one with each arm, are a family of their own and exploratory."
        )
        told += [_comparison(line, own.meta, analysis.abnormal) for _, line in table.iterrows()]
    return told


def _in_classes(analysis: "Analysis", line: Row) -> str:
    """The same comparison in each class; of many the two that differ most."""
    table, metric, kind = analysis.class_comparisons, analysis.meta.primary, "By class"
    classes = table.query("metric == @metric and arm == @line.arm and against == @line.against")
    if len(classes) > CLASSES_TOLD:
        classes = classes.sort_values("difference", ascending=METRICS[metric].better < 0, kind="stable").iloc[[0, -1]]
        kind = "Most and least by class"
    told = [f"{one['class']} {_gain(one, metric, 'difference')}" for _, one in classes.iterrows()]
    return f" {kind}: {', '.join(told)}." if told else ""


def _alone(line: Row, meta: "Meta") -> str:
    """Why there is no verdict though the interval leaves 0 out."""
    if line["ci_low"] * line["ci_high"] <= 0:
        return ""
    among = f" after Holm's adjustment for {meta.family} comparisons" if meta.family > 1 else ""
    seeds = "" if meta.fixed else ", and seeds"
    return f"The interval is of this comparison alone and leaves 0 out; a verdict needs both tests{among}{seeds}. "


def _why(line: Row, meta: "Meta", abnormal: set[str]) -> str:
    """Why no difference could be claimed, and what it would take."""
    if single := [arm for arm in (line["arm"], line["against"]) if arm in meta.one_seed]:
        return f"One seed of {' and of '.join(single)}." if len(meta.one_seed) < len(meta.arms) else "One seed an arm."
    if wild := [arm for arm in (line["arm"], line["against"]) if arm in abnormal]:
        return f"The seed spread of {' and of '.join(wild)} is abnormal: inspect the runs first."
    mean, ranks = (line[name] <= meta.nominal for name in ("p_mean_holm", "p_wilcoxon_holm"))
    if mean and not ranks:
        if 2.0 ** (1 - meta.patients) * meta.family > meta.nominal:
            return f"{meta.patients} patients are too few for the rank test, whatever they show: take more."
        if abs(line["rank_biserial"]) > 0.5:
            return "Most patients point the same way; they are too few for the rank test."
        return "The mean differs but the typical patient does not: a few patients account for it; inspect them."
    if mean and ranks:
        return (
            "Mean and typical patient differ in opposite directions, or only just; inspect the patients' differences."
        )
    scale = METRICS[meta.primary]
    others = "a few others, far off," if meta.fixed or line["seed_share"] < 0.5 else "other seeds"
    start = f"Most patients point one way, but {others} might reverse it. " if ranks else ""
    target = meta.margins.get(meta.primary, abs(line["difference"]))
    pair = [arm for arm in (line["arm"], line["against"]) if arm not in meta.finished]
    seeds = min((meta.seeds[arm] for arm in pair), default=1)
    smallest = line["smallest"]
    if meta.level is not None:  # at this look's own level; what more seeds would bring decides on them
        return start.rstrip()
    seen = f"A true difference of {scale.with_unit(size(smallest, meta.primary), meta.lengths)} would have been"
    start += f"{seen} found in {percent(POWER)} of such studies. " if isfinite(smallest) else ""
    if target <= 0 or smallest <= target:
        return start.rstrip()
    return f"{start}To find {scale.with_unit(size(target, meta.primary), meta.lengths)} takes " + (
        f"{takes(line, target, meta.patients, seeds, meta.alpha / meta.family)}."
    )


def _subsets(analysis: "Analysis") -> list[str]:
    """What the worst tenth of the patients and the groups gain or lose; for each arm the group that gains least."""
    meta, found = analysis.meta, []
    table = analysis.subset_comparisons
    calm = table[table["ci_low"].notna() & ~table[["arm", "against"]].isin(analysis.abnormal).any(axis=1)]
    tenth = calm[calm["subset"] == WORST]
    scale = METRICS[meta.primary]
    if len(tenth):
        told = "; ".join(f"{_who(line)} {_gain(line, meta.primary)}" for _, line in tenth.iterrows())
        found.append(
            f"In the worst tenth of the patients, each arm's own ({tenth['patients'].iloc[0]}), {scale.label}: {told}."
        )
    groups = calm[calm["subset"] != WORST].assign(gain=lambda lines: lines["value"] * scale.better)
    least = groups.loc[groups.groupby(["arm", "against"], sort=False)["gain"].idxmin()] if len(groups) else groups
    if len(least):
        told = "; ".join(
            f"{_who(line)} {_gain(line, meta.primary)} in {line['subset']}" for _, line in least.iterrows()
        )
        level = percent(1 - meta.alpha)
        found.append(f"The group that gains least (intervals of all groups hold at once, at {level}): {told}.")
    return found


def _who(line: Row) -> str:
    return f"{line['arm']} against {line['against']}"


def _gain(line: Row, metric: str, name: str = "value") -> str:
    return f"{signed(line[name], metric)} ({signed(line['ci_low'], metric)} to {signed(line['ci_high'], metric)})"


def _secondary(metric: str, part: pd.DataFrame) -> str:
    groups = {
        verdict: [_who(line) for _, line in part[part["verdict"] == verdict].iterrows()]
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
        f"By {METRICS[analysis.meta.primary].label}, {best['arm']} comes first in {about(best['rank_1'])} of the "
        f"studies resampled over {analysis.meta.drawn} (mean rank {best['mean_rank']:.1f} of {len(ranks)})."
    ]
