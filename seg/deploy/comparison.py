"""Versions of a registered model on the same test cases, by the statistics of a study."""

import json
from collections.abc import Mapping, Sequence
from io import StringIO
from typing import TYPE_CHECKING

import pandas as pd

from seg.errors import ConfigError, DataError, few
from seg.metrics import METRICS, read_scores
from seg.records.mlflow import Mlflow
from seg.study import typeset
from seg.study.analysis import Analysis, analyse
from seg.study.scores import Row
from seg.study.sentences import signed
from seg.study.tables import tables

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion


def compared(store: Mlflow, versions: Sequence["ModelVersion"], margin: float) -> Analysis:
    """The analysis of finished networks, each against the first, on the cases that all of them were tested on.

    Raises:
        ConfigError: MLflow does not answer.
        DataError: a version was not tested, or they share no test case, or its files differ.
    """
    scores: dict[str, pd.DataFrame] = {}
    hashes: dict[str, Mapping[str, str]] = {}
    for version in versions:
        label = f"{version.name}/{version.version}"
        found = store.read_artifact(str(version.run_id), "data/cases.csv")
        table = read_scores(StringIO(found)) if found else pd.DataFrame()
        if table.empty:
            raise DataError(f"{label} was tested on no case, so it cannot be compared.")
        scores[label], hashes[label] = table, _hashes(store, version)
    first, *others = scores
    common = set.intersection(*(set(table["case"]) for table in scores.values()))
    if not common:
        raise DataError(
            f"{' and '.join(scores)} were tested on no case in common, so nothing can be said of which is better. "
            "Train both on the same split, or give require=none with a reason (why=…)."
        )
    for other in others:
        if changed := [case for case in common if hashes[first].get(case) != hashes[other].get(case)]:
            raise DataError(f"{first} and {other} were tested on different files of the cases {few(changed)}.")
    rows = [table[table["case"].isin(common)].assign(arm=arm, seed="0", fold="0") for arm, table in scores.items()]
    joined = pd.concat(rows, ignore_index=True)
    return analyse(joined, baseline=first, arms=[*scores], against=("baseline",), margin=margin, fixed=True)


def _hashes(store: Mlflow, version: "ModelVersion") -> Mapping[str, str]:
    """The hash of each case's files, by its name."""
    text = store.read_artifact(str(version.run_id), "data/fingerprint.json")
    if text is None:
        raise ConfigError(f"The run of {version.name}/{version.version} has no data/fingerprint.json in {store.name}.")
    return {case["id"]: case["sha256"] for case in json.loads(text)["cases"]}


def in_words(found: Analysis) -> str:
    """The findings, and the table of the comparisons."""
    table = next(one for one in tables(found) if one.name == "Comparisons")
    return "\n".join([*(f"- {sentence}" for sentence in found.sentences()), "", typeset.markdown(table)])


def verdict(found: Analysis) -> str:
    """That on the last version against the first: better, worse, equivalent or inconclusive, and by how much."""
    line, metric = _primary(found), found.meta.primary
    difference, low, high = (signed(line[key], metric) for key in ("difference", "ci_low", "ci_high"))
    score = f"{METRICS[metric].label} {difference} ({low} to {high})"
    return f"against {line['against']}: {line['verdict']}, {score}, {found.meta.cases} cases"


def holds(found: Analysis, require: str) -> bool:
    """Whether the last version is ``better`` than the first, or ``not_worse``.

    It is worse where the statistics say so, unless they also show that the difference is within the margin.
    """
    line = _primary(found)
    if require == "better":
        return bool(line["verdict"] == "better")
    return bool(line["verdict"] != "worse" or line["p_tost_holm"] <= found.meta.alpha)


def _primary(found: Analysis) -> Row:
    comparisons = found.comparisons
    return comparisons[comparisons["primary"]].iloc[-1]
