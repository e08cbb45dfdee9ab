"""What a study found: its tables, its figures and its page."""

import logging
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from seg.errors import DataError, SegError, counted, few, together
from seg.files import atomic_write
from seg.records.folder import place_given
from seg.records.provenance import short
from seg.study.question import FILE, Asked, Seeds

if TYPE_CHECKING:
    import pandas as pd

    from seg.study.analysis import Analysis
    from seg.study.scores import Incomplete
    from seg.study.sequential import Look
    from seg.study.typeset import Table


log = logging.getLogger(__name__)


_COSTS = {  # in a run's record → in the table
    "params.parameters": "params",
    "gflops_a_patch": "gflops",
    "total_training_seconds": "training_seconds",
    "peak_memory_mib": "memory_mib",
    "inference_seconds_a_case": "inference_seconds_a_case",
}


_RESOLVED = {  # what runs may differ in without anybody having asked for it
    "data.batch_size": ("batch", "A network for which the memory is too small gets a smaller one."),
    "data.patch": ("patch", "It follows from the network's poolings, and from the memory that there is."),
    "trainer.precision": ("precision", "It follows from the machine."),
}


def report(folder: Path, outputs: Path, uri: str | None) -> tuple[str, list[Path]]:
    """Writes tables, figures and page of the study in the sweep's ``folder`` from what the record holds.

    Args:
        folder: of the sweep; the files go there.
        outputs: holds the runs.
        uri: of MLflow; None: as the runs were recorded.

    Returns:
        The findings as Markdown, for the terminal, and the files written.

    Raises:
        DataError: runs that saw different data or splits; scores that do not fit together.
    """
    from seg.pages.claims import with_claims
    from seg.pages.findings import findings_page
    from seg.pages.identity import facts
    from seg.records.table import runs
    from seg.study.calibration import calibration_table
    from seg.study.figures import write_figures
    from seg.study.looks import first
    from seg.study.tables import markdown, tables, write_tables

    asked = Asked.read(folder)
    every = runs(outputs, uri, sweep=asked.sweep, complete=True)
    table, scores, lost = _scored(asked, every, outputs, uri)
    notice = _notice(asked, table, lost)
    head = f"# {asked.name}\n\n{asked.question}\n"
    there = set(table["arm"]) if len(table) else set()
    if len(there) < 2 or asked.arms[0] not in there:
        nothing = "There is nothing to compare so far: the baseline and another arm must have finished."
        return f"{head}\n**{notice}** {nothing}\n", []
    if not any(key.startswith("data.") for changed in asked.different.values() for key in changed):  # by `allow`
        _check_alike(table)
    rule: Incomplete = "common" if notice else "refuse"
    looks = looks_so_far(asked, table, scores)
    used = first(scores, asked.arms, looks[-1].seeds) if looks else scores
    analysis = _analysis(asked, table, used, rule, looks, notice if lost or not looks else "")
    analysis = with_claims(analysis, asked, table, every, looks, folder, outputs)
    cost = costs(table)
    effects = factor_effects(asked, used, "common" if looks else rule, analysis.meta.nominal)
    calibration = calibration_table(used, analysis)
    more = [*_more(asked, effects, looks), *([calibration] if calibration else [])]
    atomic_write(folder / "scores.csv", scores.to_csv(index=False))
    written = [
        folder / FILE,
        folder / "scores.csv",
        *write_tables(analysis, folder, cost, more),
        *write_figures(analysis, folder),
    ]
    if effects is not None:
        atomic_write(folder / "effects.csv", effects.to_csv(index=False))
        written.append(folder / "effects.csv")
    compared = side_by_side(asked, table, folder, outputs)
    written += [folder / "compare.html"] if compared else []
    known = replace(facts(asked, table, every.drop(table.index), outputs), calibrated=calibration is not None)
    page = findings_page(asked, analysis, tables(analysis, cost, more), known, compared, folder)
    atomic_write(folder / "report.html", page)
    written.append(folder / "report.html")
    return f"{head}\n{markdown(analysis, cost, more)}", written


def _more(asked: Asked, effects: "pd.DataFrame | None", looks: "Sequence[Look]") -> "list[Table]":
    """Tables of effects and of looks, where there are such."""
    from seg.study.looks import looks_table
    from seg.study.options import compared_pairs
    from seg.study.tables import effects_table

    found = [effects_table(effects, asked.primary)] if effects is not None else []
    return found + ([looks_table(looks, compared_pairs(asked.arms, asked.against))] if looks else [])


def _notice(asked: Asked, table: "pd.DataFrame", lost: Sequence[str]) -> str:
    """What a reader must know of a study whose runs are not all finished and scored; "" of one that is complete."""
    if not lost:
        return "" if len(table) >= asked.runs else f"Preliminary: {len(table)} of {asked.runs} runs are finished."
    return (
        f"Preliminary: {len(table)} of {asked.runs} runs are finished and have scores. The scores of {few(lost)} are "
        "missing: put data/cases.csv back into the run's folder, or run the study anew: hydra.sweeper.name=…"
    )


def _analysis(
    asked: Asked,
    table: "pd.DataFrame",
    scores: "pd.DataFrame",
    rule: "Incomplete",
    looks: "Sequence[Look]",
    notice: str,
) -> "Analysis":
    """The analysis that was asked for, with what is told of its runs."""
    from seg.study.analysis import analyse
    from seg.study.anchors import with_anchors
    from seg.study.looks import analysis_at, words
    from seg.study.sequential import enough, levels
    from seg.study.subsets import patient_groups

    whose = scores[["case", "patient"]].drop_duplicates().itertuples(index=False, name=None)
    options: dict[str, Any] = {
        "baseline": asked.arms[0],
        "arms": asked.arms,
        "against": asked.against,
        "metrics": asked.secondary,
        "primary": asked.primary,
        "classes": asked.classes,
        "groups": patient_groups(asked.groups, whose) if asked.groups else None,
        "margin": asked.margin,
    }
    remarks = (*_remarks(asked, table), *_planned(asked, scores), *asked.leaks)
    if looks and asked.until:
        found = analysis_at(looks, scores, **options)
        told = words(looks, Seeds(*asked.until))
        notice, remarks = notice or ("" if looks[-1].why else f"Preliminary: {told}"), (told, *remarks)
    else:  # before the first look of a study whose seeds are added: the least level
        level = levels([asked.until[0] / asked.until[1]], 0.05)[0] if asked.until else None
        found = analyse(scores, incomplete=rule, level=level, draws=enough(level or 0.0, 10_000), **options)
    costs_of_jitter = [asked.jitter[name] for name in found.meta.classes if name in asked.jitter]
    jitter = fmean(costs_of_jitter) if costs_of_jitter else None
    part = _part(table)
    meta = replace(found.meta, study=asked.name, jitter=jitter, part=part, notice=notice, remarks=remarks)
    return with_anchors(replace(found, meta=meta), scores, asked.anchors, arms=asked.arms, incomplete=rule)


def look_at(asked: Asked, outputs: Path, uri: str | None) -> "list[Look]":
    """The looks at a study whose seeds are added until it is decided, as far as its runs are finished and found.

    Args:
        asked: the study's question.
        outputs: holds the runs.
        uri: of MLflow; None: as the runs were recorded.
    """
    from seg.records.table import runs

    table, scores, _ = _scored(asked, runs(outputs, uri, sweep=asked.sweep, complete=True), outputs, uri)
    return looks_so_far(asked, table, scores)


def _scored(
    asked: Asked, every: "pd.DataFrame", outputs: Path, uri: str | None
) -> "tuple[pd.DataFrame, pd.DataFrame, list[str]]":
    """The finished runs of the study's arms that have scores; these, with arm, seed and fold; the others in words."""
    from seg.records.table import scores_of

    table = every[every["status"] == "FINISHED"]
    table = table[table["arm"].isin(asked.arms)] if "arm" in table else table[:0]
    if table.empty:
        return table, table, []
    whose = table[["run_id", "arm", "seed", "fold"]].convert_dtypes()  # a seed is 0, not 0.0
    scores = scores_of(table, outputs, uri).merge(whose, on="run_id")
    here = table["run_id"].isin(scores["run_id"])
    named = zip(table.loc[~here, "run_id_short"], whose[~here].itertuples(), strict=True)
    return table[here], scores, [f"{short} (arm {run.arm}, seed {run.seed}, fold {run.fold})" for short, run in named]


def looks_so_far(asked: Asked, table: "pd.DataFrame", scores: "pd.DataFrame") -> "list[Look]":
    """The looks at a study whose seeds are added until it is decided; none of any other.

    A seed counts once all of its folds and all seeds before it are there.

    Args:
        asked: the study's question.
        table: its finished runs.
        scores: theirs.
    """
    if asked.until is None or table.empty:
        return []
    from seg.study.looks import looks_of

    seeds = Seeds(*asked.until)
    folds = asked.runs // (len(asked.arms) * seeds.most)
    done = table[table.groupby(["arm", "seed"])["run_id"].transform("count") >= folds]
    done = done[done.groupby("arm")["seed"].rank("dense") == done["seed"] + 1]
    complete = scores[scores["run_id"].isin(done["run_id"])]
    return looks_of(
        complete,
        seeds,
        arms=asked.arms,
        against=asked.against,
        primary=asked.primary,
        classes=asked.classes,
        margin=asked.margin,
    )


def _check_alike(table: "pd.DataFrame") -> None:
    """Refuses runs of which some saw other data, or other splits, than the rest.

    Raises:
        DataError: with the runs that differ.
    """
    columns = ["run_id_short", "seed", "fold", "dataset_version", "split_hash"]
    rows = table.reindex(columns=columns).convert_dtypes()
    faults = _differing(rows, "dataset_version", "all runs")
    for (seed, fold), own in rows.groupby(["seed", "fold"], dropna=False):
        faults += _differing(own, "split_hash", f"seed {seed}, fold {fold}")
    together(DataError, faults)


def _differing(rows: "pd.DataFrame", what: str, where: str) -> list[str]:
    versions = rows.groupby(what)["run_id_short"].agg(list)
    if len(versions) < 2:
        return []
    found = "; ".join(f"{str(version)[:8]} in {few(ids)}" for version, ids in versions.items())
    return [
        f"{what} differs within {where}: {found}. Arms can be compared on the same data and splits only. Put the data "
        "back and delete the other runs (in MLflow, or their folders), or run the study anew: "
        "hydra.sweeper.name=…"
    ]


def _part(table: "pd.DataFrame") -> str:
    """Which cases were scored."""
    known = {"oof_dice": "out of fold", "test_dice": "of the test part"}
    return next((words for name, words in known.items() if name in table and table[name].notna().all()), "")


def _planned(asked: Asked, scores: "pd.DataFrame") -> tuple[str, ...]:
    """What the study was to find, beside what its comparisons say that they would have found."""
    from seg.metrics import METRICS, lengths_of
    from seg.study.sentences import size

    if asked.planned is None:
        return ()
    found = METRICS[asked.primary].with_unit(size(asked.planned, asked.primary), lengths_of(scores))
    return (f"Planned before its first run to find a true difference of {found} in 80 % of such studies.",)


def _remarks(asked: Asked, table: "pd.DataFrame") -> Iterator[str]:
    """What a reader must know of runs that were not all made alike, though no arm says so."""
    commits = sorted(set(table["git_commit"].dropna())) if "git_commit" in table else []
    if len(commits) > 1:
        yield f"Its runs used {len(commits)} versions of the code: {few(map(short, commits))}."
    set_by_arms = {key for changed in asked.different.values() for key in changed}
    for key, (name, why) in _RESOLVED.items():
        if key in set_by_arms or (column := f"params.resolved.{key.rpartition('.')[2]}") not in table:
            continue
        arms = table.astype({column: str}).groupby(column)["arm"].unique()
        if len(arms) > 1:
            found = "; ".join(f"{value.removesuffix('.0')} in {few(of)}" for value, of in arms.items())
            yield f"Its runs differ in {name}, which no arm sets: {found}. {why} Set {key} to have it the same in all."


def side_by_side(asked: Asked, table: "pd.DataFrame", folder: Path, outputs: Path) -> str:
    """Writes ``compare.html``: the same slices from every arm, of one seed, each arm's folds in one column.

    Args:
        asked: the study's question.
        table: its finished runs.
        folder: of the study.
        outputs: holds the runs.

    Returns:
        What the page shows, in words; "" where it cannot be made, and then a line of the log says why.
    """
    from seg.pages.compare import compare, here

    seed = table.groupby("seed")["run_id"].count().idxmax()  # the first one, once the study is whole
    runs = table[table["seed"] == seed].assign(place=table["arm"].map(asked.arms.index)).sort_values(["place", "fold"])
    name = f"seed {int(seed)}"
    try:
        chosen, away = here(list(runs["run_id"]), outputs)
        if not chosen:
            raise DataError(f"{outputs} has no run of {name}.")
        page = compare(chosen, outputs, name=f"Study {asked.name}, {name}", pooled=True)
        if not page.shared:
            raise DataError(f"No case of {name} has masks of two arms in {outputs}.")
    except (SegError, OSError, ValueError) as error:  # files that someone changed, too
        command = f"python -m seg.compare {shlex.quote(f'study={asked.name}')}{place_given(outputs)}"
        log.warning("The page of slices in %s was not made: %s Try: %s", folder, error, command)
        return ""
    atomic_write(folder / "compare.html", page.text)
    lost = {"run": len(away), "mask": len(page.missing)}
    words = [counted(len(page.how), "case"), name, *(f"{counted(n, what)} not found" for what, n in lost.items() if n)]
    return ", ".join(words)


def costs(table: "pd.DataFrame") -> "pd.DataFrame":
    """What each arm took, by the names of seg.study.tables: means over its runs, for memory the largest."""
    known = {name: short for name, short in _COSTS.items() if name in table}
    ways = {name: "max" if name == "peak_memory_mib" else "mean" for name in known}
    return table.groupby("arm").agg(ways).rename(columns=known)


def factor_effects(
    asked: Asked, scores: "pd.DataFrame", incomplete: "Incomplete", alpha: float = 0.05
) -> "pd.DataFrame | None":
    """Main effects and interactions of a factorial design; None for another one, or while an arm is missing.

    What is done about missing runs, ``incomplete``, and the level ``alpha`` are as in the study's other tables.
    """
    from seg.study.factorial import effects
    from seg.study.sequential import enough

    if not (asked.factors and alpha) or set(scores["arm"]) != set(asked.arms):
        return None
    level_of = {factor: scores["arm"].map(by_arm) for factor, by_arm in asked.factors.items()}
    levels = {
        factor: list(dict.fromkeys(by_arm[arm] for arm in asked.arms)) for factor, by_arm in asked.factors.items()
    }
    return effects(
        scores.assign(**level_of),
        levels,
        metric=asked.primary,
        classes=asked.classes,
        margin=asked.margin,
        draws=enough(alpha, 10_000),
        alpha=alpha,
        incomplete=incomplete,
    )
