"""Tables of a study: Markdown to read, LaTeX to print, CSV to compute with."""

from collections.abc import Sequence
from dataclasses import replace
from math import floor, isfinite, log10
from pathlib import Path

import pandas as pd

from seg.errors import few
from seg.files import atomic_write
from seg.metrics import METRICS
from seg.study import typeset
from seg.study.analysis import Analysis
from seg.study.answer import answer, beside, remark
from seg.study.breakdown import classes_table, failures, subsets_table, title
from seg.study.scores import Row
from seg.study.sentences import at_least, percent, signed, size, spelled, spelled_p, with_ends
from seg.study.typeset import Cell, Table

COST = {
    "params": ("Parameters (M)", 1e-6),
    "gflops": ("GFLOPs a patch", 1.0),
    "training_seconds": ("Training (s)", 1.0),
    "memory_mib": ("Peak memory (MiB)", 1.0),
    "inference_seconds_a_case": ("Inference (s a case)", 1.0),
}
FIRST = 0.95  # of the resampled studies that an arm must come first in to stand out
_ANCHOR = (
    "an anchor (†), a finished tool on the same cases. One training; its own luck is not in the interval. It is in no "
    "ranking and in no planned comparison."
)
MARKS = {"better": "▲", "worse": "▼", "equivalent": "≈"}


def write_tables(
    analysis: Analysis, folder: Path, cost: pd.DataFrame | None = None, more: Sequence[Table] = ()
) -> list[Path]:
    """Writes ``table.md``, ``table.tex`` and ``table.csv`` into ``folder``.

    Args:
        analysis: of seg.study.analysis.
        folder: where the files go.
        cost: indexed by arm, any of the columns of ``COST``; what is missing is left out.
        more: tables after the analysis' own in Markdown and LaTeX.

    Returns:
        The files written.
    """
    contents = {
        "table.md": markdown(analysis, cost, more),
        "table.tex": latex(analysis, cost, more),
        "table.csv": wide(analysis, cost).to_csv(index=False),
    }
    for name, content in contents.items():
        atomic_write(folder / name, content)
    return [folder / name for name in contents]


def markdown(analysis: Analysis, cost: pd.DataFrame | None = None, more: Sequence[Table] = ()) -> str:
    """The findings in words, then every table, in GitHub's Markdown."""
    words = "\n".join(f"- {typeset.markdown_text(sentence)}" for sentence in analysis.sentences())
    notice = [f"**{typeset.markdown_text(analysis.meta.notice)}**"] if analysis.meta.notice else []
    told = map(typeset.markdown_text, [" ".join(answer(analysis)), *beside(analysis), *remark(analysis)])
    return "\n\n".join([*notice, *told, words, *map(typeset.markdown, tables(analysis, cost, more))]) + "\n"


def latex(analysis: Analysis, cost: pd.DataFrame | None = None, more: Sequence[Table] = ()) -> str:
    """Every table as a LaTeX float; the document loads booktabs and graphicx."""
    head = r"% \usepackage{booktabs,graphicx}; wide tables shrink to the width of the line" + "\n"
    return head + "\n".join(typeset.latex(table, analysis.meta.study) for table in tables(analysis, cost, more))


KEYS = ("metric", "primary", "kind", "level")  # of a comparison: no numbers of it


def wide(analysis: Analysis, cost: pd.DataFrame | None = None) -> pd.DataFrame:
    """One row per arm, then per anchor, in full precision, in SI or the metric's units.

    Columns: ``seeds``, ``<metric>_<statistic>``, counts, ``<metric>_<baseline, previous or an anchor>_<statistic>``,
    cost. Those of an anchor are its means alone.
    """
    meta, counts = analysis.meta, analysis.arms.drop_duplicates("arm").set_index("arm")
    rows = pd.concat([analysis.arms, *(_of_anchor(own) for own in analysis.anchors.values())])
    table = analysis.comparisons
    compared = {kind: table[table["kind"].str.contains(kind)] for kind in ("baseline", "previous")}
    compared |= {name: own.comparisons for name, own in analysis.anchors.items()}
    parts = [
        pd.Series(meta.seeds | dict.fromkeys(analysis.anchors, 1), name="seeds"),
        *(
            part.set_index("arm").loc[:, "mean":"seed_sd"].add_prefix(f"{metric}_")
            for metric, part in rows.groupby("metric", sort=False)
        ),
        counts[[name for name in ("missed", "false", "structures") if name in counts]],
        *(
            part.set_index("arm").drop(columns=[*KEYS]).add_prefix(f"{metric}_{against}_")
            for against, chosen in compared.items()
            for metric, part in chosen.groupby("metric", sort=False)
        ),
        _cost(analysis, cost),
    ]
    every = [*meta.arms, *analysis.anchors]
    return pd.concat(parts, axis=1).reindex(every).rename_axis("arm").copy().reset_index().convert_dtypes()


def _of_anchor(own: Analysis) -> pd.DataFrame:
    """The lines of an anchor alone."""
    return own.arms[own.arms["arm"] == own.baseline]


def tables(analysis: Analysis, cost: pd.DataFrame | None = None, more: Sequence[Table] = ()) -> list[Table]:
    """Result and cost of each arm; its spread; the comparisons, where there are any; ranks; anchors; then ``more``.

    Of a study that is half done each of them says so.
    """
    found = [_results(analysis, cost), _spreads(analysis)]
    if analysis.classes["class"].nunique() > 1:
        found.insert(1, classes_table(analysis))
    if len(analysis.subsets):
        found.append(subsets_table(analysis))
    if len(analysis.comparisons):
        found += [_comparisons(analysis), _ranks(analysis)]
    if analysis.anchors:
        found.append(_anchors(analysis))
    return [replace(one, note=f"{analysis.meta.notice} {one.note}".lstrip()) for one in [*found, *more]]


def _cost(analysis: Analysis, cost: pd.DataFrame | None) -> pd.DataFrame:
    """Rows as the arms, the known columns that hold any number."""
    if cost is None:
        return pd.DataFrame(index=list(analysis.meta.arms))
    known = cost.set_axis(cost.index.astype(str)).reindex(index=analysis.meta.arms)
    return known[[column for column in COST if column in known]].apply(pd.to_numeric).dropna(axis=1, how="all")


def _results(analysis: Analysis, cost: pd.DataFrame | None) -> Table:
    """One row per arm: means with intervals, best in bold, verdict against the baseline marked; failures; cost."""
    meta = analysis.meta
    columns = {title(metric, meta.lengths): _means(analysis, metric) for metric in meta.metrics}
    first = analysis.arms.drop_duplicates("arm").set_index("arm")
    columns |= {count.capitalize(): failures(first, count) for count in ("missed", "false") if count in first}
    for name, values in _cost(analysis, cost).items():
        head, factor = COST[str(name)]
        columns[head] = [Cell(three_digits(float(value) * factor)) for value in values]
    rows = [[Cell(arm), *(cells[place] for cells in columns.values())] for place, arm in enumerate(meta.arms)]
    rows += [_anchor_row(name, own, meta.metrics, len(columns)) for name, own in analysis.anchors.items()]
    level = percent(1 - meta.alpha)
    note = (
        f"Mean [{level} interval] over {meta.patients} patients, seeds averaged; bold: the arm that comes first in "
        f"{percent(FIRST)} of the resampled studies, if one does. Missed: of the structures in the reference."
    )
    if analysis.comparisons["kind"].str.contains("baseline").any():
        note += (
            f" Verdict against {analysis.baseline}, by both tests after Holm over {meta.family}: ▲ better, ▼ worse, "
            "≈ equivalent within the margin; no mark: inconclusive."
        )
    if analysis.anchors:
        note += f" {few(analysis.anchors)}: {_ANCHOR}"
    return Table("Results", ["Arm", *columns], {"": rows}, note)


def _anchor_row(name: str, own: Analysis, metrics: Sequence[str], columns: int) -> list[Cell]:
    """The means of an anchor; a dash for what it lacks."""
    lines = _of_anchor(own).set_index("metric")
    means = [_mean(lines.loc[metric], metric) if metric in lines.index else "–" for metric in metrics]
    return [Cell(name, mark="†"), *map(Cell, means), *[Cell("–")] * (columns - len(means))]


def _mean(line: Row, metric: str) -> str:
    return with_ends(line["mean"], line["ci_low"], line["ci_high"], metric)


def _means(analysis: Analysis, metric: str) -> list[Cell]:
    lines, table, ranks = analysis.arms, analysis.comparisons, analysis.ranks
    chosen = table[(table["metric"] == metric) & table["kind"].str.contains("baseline")]
    marks = {line["arm"]: MARKS.get(line["verdict"], "") for _, line in chosen.iterrows()}
    best = set(ranks[(ranks["metric"] == metric) & (ranks["rank_1"] >= FIRST)]["arm"])
    return [
        Cell(_mean(line, metric), bold=line["arm"] in best, mark=marks.get(line["arm"], ""))
        for _, line in lines[lines["metric"] == metric].iterrows()
    ]


def _spreads(analysis: Analysis) -> Table:
    blocks = {
        title(str(metric), analysis.meta.lengths): [
            [
                Cell(line["arm"]),
                *(Cell(spelled(line[name], str(metric))) for name in ("mean", "median", "sd")),
                Cell(size(line["seed_sd"], str(metric)) if isfinite(line["seed_sd"]) else "–"),
            ]
            for _, line in part.iterrows()
        ]
        for metric, part in analysis.arms.groupby("metric", sort=False)
    }
    heads = ["Arm", "Mean", "Median", "SD of patients", "SD of seeds"]
    note = "SD of patients: of their values averaged over seeds. SD of seeds: of the arm's mean from seed to seed."
    return Table("Spread", heads, blocks, note)


def _comparisons(analysis: Analysis) -> Table:
    meta = analysis.meta
    blocks = {
        f"{title(str(metric), meta.lengths)}{'' if metric == meta.primary else ', secondary'}": [
            _compared(line, str(metric)) for _, line in part.iterrows()
        ]
        for metric, part in analysis.comparisons.groupby("metric", sort=False)
    }
    heads = _heads("Comparison", percent(1 - meta.alpha)) + ["Claim"] * ("claim" in analysis.comparisons)
    margins = "; ".join(
        METRICS[metric].with_unit(f"{METRICS[metric].label} ±{margin:g}", meta.lengths)
        for metric, margin in meta.margins.items()
    )
    note = (
        f"Difference: arm minus the other; interval by {meta.draws} bootstrap draws over {meta.drawn}, each by itself. "
        f"p mean (Student, over {meta.drawn}) and p ranks (Wilcoxon, over patients): both after Holm, each metric a "
        f"family of {meta.family}. Effect: matched-pairs rank-biserial correlation, above 0: the arm is better. W/T/L: "
        "patients better, equal, worse. Visible: the smallest true difference found with 80 % power; –: none would be. "
        "An interval is of one comparison alone: it may leave 0 out where the verdict, which asks for both tests in "
        "the family and for seeds, is inconclusive. False claim: how probable it is that a claim with such p-values is "
        "false, if every second comparison is of equals (Sellke, Bayarri and Berger 2001). Margin of equivalence: "
        f"{margins or 'none stated'}."
    )
    if "claim" in analysis.comparisons:
        note += " Claim: what became of what was locked before the first run."
    return Table("Comparisons", heads, blocks, note)


def _anchors(analysis: Analysis) -> Table:
    """Each arm against each anchor."""
    meta = analysis.meta
    blocks = {
        f"{name}, {title(str(metric), meta.lengths)}": [_compared(line, str(metric)) for _, line in part.iterrows()]
        for name, own in analysis.anchors.items()
        for metric, part in own.comparisons.groupby("metric", sort=False)
    }
    family = next(iter(analysis.anchors.values())).meta.family
    note = (
        f"Exploratory, beside the planned comparisons: each anchor and metric a family of its own of {family}. The "
        f"columns are those of the comparisons. An anchor is one training; its own luck is not in the interval, which "
        "is over patients and the seeds of the arm."
    )
    return Table("Anchors", _heads("Comparison", percent(1 - meta.alpha)), blocks, note)


def effects_table(effects: pd.DataFrame, metric: str = "dice") -> Table:
    """Main effects and interactions of a factorial design.

    Args:
        effects: of ``seg.study.factorial.effects``, at its own level.
        metric: that they are of.
    """
    blocks = {
        "Main effects" if order == 1 else f"Interactions of {order} factors": [
            [Cell(line["effect"]), *_contrast(line, metric)] for _, line in part.iterrows()
        ]
        for order, part in effects.groupby("order")
    }
    note = (
        f"{METRICS[metric].label}. A main effect: the level minus the factor's first one, over all settings of the "
        'others. An interaction: how much more a level brings where the other is on; "better": they help each other. '
        f"All effects are one family of {len(effects)} (Holm); the columns are those of the comparisons."
    )
    return Table("Effects", _heads("Effect of", percent(0.95)), blocks, note)


def _heads(first: str, level: str) -> list[str]:
    shown = ("p mean", "p ranks", "Effect", "W/T/L", "Visible", "Verdict", "False claim")
    return [first, "Difference", f"{level} interval", *shown]


def _compared(line: Row, metric: str) -> list[Cell]:
    claim = [Cell(line["claim"], bold=line["primary"])] if "claim" in line else []
    return [Cell(f"{line['arm']} – {line['against']}"), *_contrast(line, metric), *claim]


def _contrast(line: Row, metric: str) -> list[Cell]:
    """Difference, interval, tests, sizes and verdict of a contrast of arms."""
    ends = f"[{signed(line['ci_low'], metric)}, {signed(line['ci_high'], metric)}]"
    visible = size(line["smallest"], metric) if isfinite(line["smallest"]) else "–"
    return [
        Cell(signed(line["difference"], metric)),
        Cell(ends),
        Cell(spelled_p(line["p_mean_holm"])),
        Cell(spelled_p(line["p_wilcoxon_holm"])),
        Cell(f"{line['rank_biserial']:+.2f}".replace("-", "−")),
        Cell(f"{line['wins']}/{line['ties']}/{line['losses']}"),
        Cell(visible),
        Cell(line["verdict"], bold=line["verdict"] in ("better", "worse")),
        Cell(at_least(line["false_claim"]) if isfinite(line["false_claim"]) else "–"),
    ]


def _ranks(analysis: Analysis) -> Table:
    lines = analysis.ranks[analysis.ranks["metric"] == analysis.meta.primary]
    columns = [f"rank_{rank}" for rank in range(1, len(lines) + 1)]
    rows = [
        [Cell(line["arm"]), Cell(f"{line['mean_rank']:.1f}"), *(Cell(f"{line[column]:.2f}") for column in columns)]
        for _, line in lines.iterrows()
    ]
    heads = ["Arm", "Mean rank", *(str(rank) for rank in range(1, len(lines) + 1))]
    note = f"Probability of each rank by {METRICS[analysis.meta.primary].label}, resampled over {analysis.meta.drawn}."
    return Table("Ranks", heads, {"": rows}, note)


def three_digits(value: float) -> str:
    """A cost with three significant digits, or all before the point; a dash where there is none."""
    if not isfinite(value):
        return "–"
    digits = 2 - floor(log10(abs(value))) if value else 0
    return f"{value:.{max(digits, 0)}f}"
