"""Tables of a study by class, for the worst patients, and by group of patients."""

from collections.abc import Sequence

import pandas as pd

from seg.errors import counted
from seg.metrics import METRICS
from seg.study.analysis import Analysis
from seg.study.sentences import percent, signed, spelled, with_ends
from seg.study.subsets import GROUP_FROM, WORST
from seg.study.typeset import Cell, Table


def title(metric: str, lengths: str) -> str:
    """Label and unit, and an arrow to where it is better."""
    arrow = {1: " ↑", -1: " ↓", 0: ""}[METRICS[metric].better]
    return f"{METRICS[metric].title(lengths)}{arrow}"


def failures(lines: pd.DataFrame, count: str) -> list[Cell]:
    """Missed structures of all there are in the reference; false ones."""
    return [
        Cell(f"{line[count]:.0f}" + (f" of {line['structures']:.0f}" if count == "missed" else ""))
        for _, line in lines.iterrows()
    ]


def classes_table(analysis: Analysis) -> Table:
    """The arms by class, their differences there, and in how many cases the class is present, missed or false."""
    meta, blocks, anchors = analysis.meta, {}, analysis.anchors.items()
    counts = [count for count in ("missed", "false") if count in analysis.classes]
    compared = [metric for metric in meta.metrics if METRICS[metric].better and len(analysis.comparisons)]
    for name, part in analysis.classes.groupby("class", sort=False):
        first = part.iloc[0]
        own = analysis.class_comparisons[analysis.class_comparisons["class"] == name]
        columns = [[*map(Cell, part["arm"])]]
        for metric in meta.metrics:
            columns.append([Cell(spelled(value, metric)) for value in part[metric]])
            if metric in compared:
                columns.append(_gains(own[own["metric"] == metric], metric, list(part["arm"])))
        columns += [failures(part, one) for one in counts]
        rows = [list(row) for row in zip(*columns, strict=True)]
        rows += [_anchor_row(anchor, one, str(name), meta.metrics, compared, len(columns)) for anchor, one in anchors]
        judged = ", judged" if name in meta.classes and len(meta.classes) < analysis.classes["class"].nunique() else ""
        heading = f"{name}{judged}: present in {first['present']} of {meta.every} cases, scored in {first['cases']}"
        blocks[heading] = rows
    heads = ["Arm"]
    for metric in meta.metrics:
        difference = f"Δ {METRICS[metric].title(meta.lengths)} [{percent(1 - meta.alpha)}]"
        heads += [title(metric, meta.lengths), *[difference] * (metric in compared)]
    note = (
        "Means over the cases in which a class is scored: those that have it in the reference or in the prediction of "
        "any arm. An arm that rightly left it empty gets the best value. Missed and false: over all seeds."
    )
    if compared:
        note += (
            f" Δ: the difference to {_against(analysis)} in this class, over patients, with its interval by itself; "
            "exploratory, without a verdict: of many classes some leave 0 out by chance."
        )
    return Table("Classes", [*heads, *(count.capitalize() for count in counts)], blocks, note)


def _anchor_row(
    name: str, own: Analysis, structure: str, metrics: Sequence[str], compared: Sequence[str], columns: int
) -> list[Cell]:
    """The means of an anchor in one class; dashes for what it lacks, and for differences and counts."""
    table = own.classes[(own.classes["class"] == structure) & (own.classes["arm"] == own.baseline)]
    cells = [Cell(name, mark="†")]
    for metric in metrics:
        known = metric in own.meta.metrics and len(table)
        cells += [Cell(spelled(table[metric].iloc[0], metric) if known else "–"), *[Cell("–")] * (metric in compared)]
    return cells + [Cell("–")] * (columns - len(cells))


def subsets_table(analysis: Analysis) -> Table:
    """The worst tenth of the patients, and groups: each arm's mean there, and its difference."""
    meta, blocks = analysis.meta, {}
    for name, part in analysis.subsets.groupby("subset", sort=False):
        own = analysis.subset_comparisons[analysis.subset_comparisons["subset"] == name]
        tenth, count = name == WORST, part["patients"].iloc[0]
        heading = f"The worst tenth of the patients ({count})" if tenth else f"{name}: {counted(count, 'patient')}"
        heading += ", too few to judge" if count < GROUP_FROM and not tenth else ""
        means = [with_ends(line["value"], line["ci_low"], line["ci_high"], meta.primary) for _, line in part.iterrows()]
        gains = _gains(own.rename(columns={"value": "difference"}), meta.primary, list(part["arm"]))
        blocks[heading] = [
            [Cell(arm), Cell(mean), gain] for arm, mean, gain in zip(part["arm"], means, gains, strict=True)
        ]
    note = "Worst tenth: of each arm the patients it does worst on; paired intervals, from 40 patients on. Exploratory."
    if meta.grouped:
        note += (
            f" Groups: intervals that hold all at once, in {percent(1 - meta.alpha)} of studies, so that the worst "
            f"group may be picked out; groups under {GROUP_FROM} patients are shown, not judged."
        )
    difference = f"Δ {METRICS[meta.primary].title(meta.lengths)} to {_against(analysis)}"
    heads = ["Arm", title(meta.primary, meta.lengths), difference]
    return Table("Worst patients and groups" if meta.grouped else "Worst patients", heads, blocks, note)


def _against(analysis: Analysis) -> str:
    """What the differences by class are to: the baseline, or the arm before where that is all that was asked."""
    return (
        analysis.baseline
        if analysis.comparisons.empty or analysis.comparisons["kind"].str.contains("baseline").any()
        else "the arm before"
    )


def _gains(lines: pd.DataFrame, metric: str, arms: Sequence[str]) -> list[Cell]:
    """The difference of each arm with its interval; a dash where there is none."""
    kind = "baseline" if lines["kind"].str.contains("baseline").any() else "previous"
    texts = {
        line["arm"]: with_ends(line["difference"], line["ci_low"], line["ci_high"], metric, signed)
        for _, line in lines[lines["kind"].str.contains(kind)].iterrows()
    }
    return [Cell(texts.get(arm, "–")) for arm in arms]
