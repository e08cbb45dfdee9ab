"""Anchors of a study: scores of a finished tool on the same cases, paired with the arms, outside the planned family."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from unicodedata import normalize

import numpy as np
import pandas as pd

from seg.errors import ConfigError, DataError, few, together
from seg.metrics import COUNTS, METRICS
from seg.study.analysis import Analysis, analyse
from seg.study.scores import Incomplete, allowed, scored

KEYS = ("case", "class")
_RULE = (
    "An anchor is a CSV of the columns case, class and one or more metrics, a line for each case and class; lines that "
    "begin with # say where it is from."
)


def read_anchors(paths: Mapping[str, str], primary: str) -> dict[str, str]:
    """The texts of anchors' files by name, checked.

    Args:
        paths: each of a CSV: ``case``, ``class``, metrics of seg.metrics. A line without any score: the class is in
            neither the reference nor the tool's mask.
        primary: the metric that each must have.

    Raises:
        ConfigError: with every fault of every file.
    """
    texts, faults = {}, []
    for name, path in paths.items():
        try:
            texts[name] = Path(path).read_text("utf-8-sig")
            faults += [f"{path}: {fault}" for fault in _faults(_table(texts[name]), primary)]
        except (OSError, ValueError) as error:
            faults.append(f"{path} is not a readable CSV: {error}. {_RULE}")
    together(ConfigError, faults)
    return texts


def provenance(text: str) -> str:
    """The lines of an anchor's text that say where it is from, without their #."""
    return "\n".join(line.lstrip("# ") for line in text.splitlines() if line.startswith("#"))


def _table(text: str) -> pd.DataFrame:
    text = normalize("NFC", text)  # as cases and classes are named: macOS takes letters with accents apart
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    try:
        head, *rows = [[value.strip() for value in row] for row in csv.reader(lines, strict=True)] or [[]]
    except csv.Error as error:
        raise ValueError(error) from error
    if odd := [row for row in rows if len(row) != len(head)]:
        raise ValueError(f"its head has {len(head)} columns, and the line {','.join(odd[0])!r} has {len(odd[0])}")
    return pd.DataFrame(rows, columns=head, dtype=str)


def _faults(table: pd.DataFrame, primary: str) -> list[str]:
    known, columns = {*KEYS, *METRICS}, [*table]
    if not {*KEYS, primary} <= {*columns} <= known or len({*columns}) < len(columns) or table.empty:
        there = f"it has the columns {', '.join(columns)}" if columns else "it has no columns"
        metrics = ", ".join(name for name in METRICS if name != primary)
        return [f"{there}, and {len(table)} lines; {primary} must be there, and {metrics} may, each once. {_RULE}"]
    faults = []
    if len(twice := table[table.duplicated([*KEYS])]):
        faults.append(f"{len(twice)} cases and classes come twice, first {_named(twice)[0]}. Leave one line of each.")
    empty = (table.drop(columns=[*KEYS]) == "").sum(axis=1)
    if len(part := table[(empty > 0) & (empty < table.shape[1] - len(KEYS))]):
        faults.append(f"{len(part)} lines have scores and lack others, first {_named(part)[0]}. Fill in all or none.")
    for metric in (name for name in METRICS if name in table):
        numbers = pd.to_numeric(table[metric], errors="coerce")
        right = numbers.between(*METRICS[metric].limits) & np.isfinite(numbers)
        if len(bad := table[(table[metric] != "") & ~right]):
            value = bad.iloc[0][metric]
            faults.append(f"{metric} of {_named(bad)[0]} is {value!r}; it must be {allowed(metric)}.")
    return faults


def _named(rows: pd.DataFrame) -> list[str]:
    return [f"{case} {name}" for case, name in rows[[*KEYS]].itertuples(index=False, name=None)]


def check_anchors(
    anchors: Mapping[str, str], wanted: Iterable[tuple[str, str]], every: Iterable[tuple[str, str]] = ()
) -> None:
    """Refuses anchors that lack a score.

    Args:
        anchors: texts of ``read_anchors`` by name.
        wanted: (case, class) of each structure of the reference that is scored.
        every: (case, class) that must have a line, which is empty where the tool drew nothing either.

    Raises:
        DataError: with what each of them lacks.
    """
    needed, lines = {*wanted}, {*every}
    faults = []
    for name, text in anchors.items():
        table = _table(text)
        there = {*table[[*KEYS]][(table.drop(columns=[*KEYS]) != "").any(axis=1)].itertuples(index=False, name=None)}
        if lacking := sorted(needed - there):
            shown = few([f"{case} {structure}" for case, structure in lacking])
            faults.append(
                f"The anchor {name}, whose classes are {few(set(table['class']))}, has no score of {len(lacking)} of "
                f"the {len(needed)} structures that are scored: {shown}. Add a line for each, or leave the anchor out."
            )
        elif silent := sorted(lines - {*table[[*KEYS]].itertuples(index=False, name=None)}):
            shown = few([f"{case} {structure}" for case, structure in silent])
            faults.append(
                f"The anchor {name} does not say what the tool drew of {len(silent)} structures that the reference "
                f"does not have: {shown}. Add a line for each: without scores where it drew nothing, otherwise with "
                "the worst ones, as seg.score gives them: 0 of dice and nsd, of distances the diagonal of the volume."
            )
    together(DataError, faults)


def with_anchors(
    found: Analysis,
    scores: pd.DataFrame,
    anchors: Mapping[str, str],
    *,
    arms: Sequence[str],
    incomplete: Incomplete = "refuse",
) -> Analysis:
    """Adds the comparison of each arm with each anchor: as with a baseline, each anchor a family of its own.

    The anchor's own training is not drawn again: it is meant as it is. Nothing of ``found`` itself changes.

    Args:
        found: the analysis of the arms.
        scores: that it is of.
        anchors: texts of ``read_anchors`` by name.
        arms: that were asked for, which make the family while some are missing.
        incomplete: as in ``analyse``.

    Raises:
        DataError: an anchor lacks a score.
    """
    meta = found.meta
    counted = scored(scores, [meta.primary])
    present = counted.loc[counted["present"], [*KEYS]].astype(str)
    check_anchors(anchors, present.itertuples(index=False, name=None))
    own = {}
    for name, text in anchors.items():
        rows = _rows(text, scores)
        one = analyse(
            pd.concat([scores, rows.assign(arm=name)], ignore_index=True),
            baseline=name,
            arms=[name, *arms],
            against=["baseline"],
            metrics=[metric for metric in meta.metrics if metric in rows],
            primary=meta.primary,
            classes=meta.classes,
            margin={metric: margin for metric, margin in meta.margins.items() if metric in rows},
            draws=meta.draws,
            seed=meta.seed,
            alpha=meta.alpha,
            level=meta.level,
            incomplete=incomplete,
            fixed=[name],
        )
        own[name] = replace(one, meta=replace(one.meta, jitter=meta.jitter, study=meta.study, notice=meta.notice))
    return replace(found, anchors=own)


def _rows(text: str, scores: pd.DataFrame) -> pd.DataFrame:
    """The anchor's scores of the cases and classes in ``scores``, as of one more arm."""
    table = _table(text)
    numbers = {metric: pd.to_numeric(table[metric]) for metric in METRICS if metric in table}
    pairs = scores[["case", "patient", "class"]].astype(str).drop_duplicates()
    rows = pairs.merge(table.assign(**numbers), on=[*KEYS], how="left")
    return rows.assign(seed="the only one", fold="none", **{count: 0 for count in COUNTS if count in scores})
