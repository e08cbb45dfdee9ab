"""A locked study: what it claimed before its first run, whether that came true, and whether it was kept to."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from seg.errors import few
from seg.files import atomic_write, digest, seal, unseal
from seg.metrics import METRICS
from seg.study.analysis import Analysis
from seg.study.contrasts import holm
from seg.study.options import LEVEL
from seg.study.question import CLAIMS, Asked
from seg.study.scores import Numbers
from seg.study.sequential import Look

FILE = "lock.json"
TEST = "the mean (Student, over patients and seeds) and ranks (Wilcoxon, over patients), both after Holm in the family"
CONFIRMED, REFUTED, UNDECIDED, CHANGED = "CONFIRMED", "REFUTED", "UNDECIDED", "CHANGED"
EXPLORATORY = "exploratory"
_ADVICE = ("planned", "anchors", "jitter")  # of the question: what no claim rests on
_CELL = ("arm", "seed", "fold")
_OF_RUN = {  # tags of a run and what they tell
    "config_hash": "settings",
    "split_hash": "split",
    "dataset_version": "version of the data",
    "code_hash": "code",
    "git_commit": "commit of the code",
}


def lock_of(
    asked: Asked, *, runs: list[dict[str, str]], data: str, code: Mapping[str, str], stop: Mapping[str, object]
) -> dict[str, Any]:
    """What a study commits itself to, as plain data.

    Args:
        asked: the question, with arms, metrics, margin, claim.
        runs: each with arm, seed, fold, ``config_hash`` and ``split_hash``.
        data: version of the data.
        code: ``git_commit`` and ``code_hash``.
        stop: what ends it: seeds, folds, the budget of a run.
    """
    kept = {key: value for key, value in asdict(asked).items() if key not in _ADVICE}
    content = {"asked": kept, "level": LEVEL, "test": TEST, "stop": stop, "data": data, "code": code}
    plain: dict[str, Any] = json.loads(json.dumps(content | {"runs": runs}))
    return plain


def keep_lock(folder: Path, lock: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Writes the lock into a study's folder, once; its hash, and what differs from the one that is there already."""
    path = folder / FILE
    if not path.exists():
        atomic_write(path, seal(lock, indent=1))
    try:
        before = unseal(path.read_bytes())
    except ValueError as error:
        return "", [f"{FILE} is damaged: {error}"]
    return digest(before), list(_differing("", before, lock))


def _differing(where: str, before: Any, now: Any) -> Iterator[str]:
    """Each key whose value is not the one that was locked."""
    if isinstance(before, dict) and isinstance(now, dict) and where in ("", "asked", "code", "stop"):
        for key in before:
            yield from _differing(key, before[key], now.get(key))
    elif where == "runs" and before != now:
        yield "runs: their number, settings or splits are not those that were locked"
    elif before != now:
        yield f"{where}: {_short(before)} was locked, {_short(now)} is there now"


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def changes_since(
    folder: Path, recorded: str, asked: Asked, runs: pd.DataFrame, ended: bool, looks: Sequence[Look] = ()
) -> list[str]:
    """What is not as it was locked, in words; nothing where all is.

    Args:
        folder: of the study.
        recorded: the hash in the record of the study's own run; "": there is none.
        asked: the question, as its report takes it.
        runs: finished, as ``seg.records.table.runs`` gives them.
        ended: whether the study has ended, so that no run of it can still come.
        looks: that it has had, where seeds are added until it is decided.
    """
    try:
        lock = unseal((folder / FILE).read_bytes())
    except FileNotFoundError:
        return [f"{FILE} was removed"]
    except ValueError as error:
        return [f"{FILE} was edited: {error}"]
    found = []
    if recorded != digest(lock):
        now = recorded[:12] or "nothing"
        found.append(f"{FILE} has the hash {digest(lock)[:12]}; recorded before the first run was {now}")
    current = json.loads(json.dumps(asdict(asked)))
    found += _differing("asked", lock["asked"], current)
    found += _differing("", {"level": lock["level"], "test": lock["test"]}, {"level": LEVEL, "test": TEST})
    wanted = {(run["arm"], run["seed"]) for run in lock["runs"]} if asked.until is None else _wanted(asked, looks)
    return found + list(_of_runs(lock, wanted, runs, ended))


def _wanted(asked: Asked, looks: Sequence[Look]) -> set[tuple[str, str]]:
    """Arm and seed of what the looks so far have asked for."""
    assert asked.until is not None
    start = asked.until[0]
    later = {(asked.arms[arm], str(start + place)) for place, look in enumerate(looks) for arm in look.wanted}
    return later | {(arm, str(seed)) for arm in asked.arms for seed in range(start)}


def _of_runs(lock: Mapping[str, Any], wanted: set[tuple[str, str]], runs: pd.DataFrame, ended: bool) -> Iterator[str]:
    """Runs that were not planned or are missing, and what is other than locked in those that were."""
    planned = {tuple(run[key] for key in _CELL): run for run in lock["runs"]}
    cells = runs.reindex(columns=[*_CELL]).convert_dtypes().astype(str).itertuples(index=False, name=None)
    made = list(zip(cells, runs.to_dict("records"), strict=True))
    if added := [_cell(cell) for cell, _ in made if cell not in planned or cell[:2] not in wanted]:
        yield f"runs that were not planned: {few(added)}"
    missing = [_cell(cell) for cell in planned if cell[:2] in wanted and cell not in dict(made)]
    if ended and missing:
        yield f"runs left out: {few(missing)}"
    for tag, name in _OF_RUN.items():
        shared = {"dataset_version": lock["data"]} | lock["code"]
        other = [
            str(run["run_id_short"])
            for cell, run in made
            if cell in planned and run.get(tag) != shared.get(tag, planned[cell].get(tag))
        ]
        if other:
            yield f"{name}: other than locked in {few(other)}"


def _cell(cell: tuple[str, ...]) -> str:
    arm, seed, fold = cell
    return f"{arm}, seed {seed}, fold {fold}"


def outcomes(
    table: pd.DataFrame, claim: str, *, better: int, margin: float, family: int, alpha: float | Numbers, place: int
) -> list[str]:
    """Whether each comparison came out as claimed: CONFIRMED, REFUTED or UNDECIDED.

    - better: confirmed by the verdict "better", refuted by "worse" or "equivalent", or where a gain of ``margin`` or
      more is excluded.
    - equivalent: confirmed by two one-sided tests, refuted where a difference beyond ± margin is shown.
    - not_worse: confirmed where a loss of ``margin`` or more is excluded, refuted where one is shown.

    What is excluded or shown: by Student's one-sided test at half of alpha, after Holm in the family. On a part that
    other studies have read, a confirmation needs its adjusted p-values at alpha / ``place``; a refutation does not.

    Args:
        table: comparisons by one metric, of ``contrast_table``.
        claim: better, equivalent or not_worse.
        better: 1 or -1, as of the metric.
        margin: of the metric.
        family: as in ``holm``.
        alpha: two-sided level of the study, or of each comparison's look.
        place: which of the studies on this part it is, from 1.
    """
    level = alpha / place
    verdict, gain = table["verdict"], (table["difference"] * better).to_numpy()

    def above(bound: float, sign: int = 1) -> Numbers:
        """Adjusted p-value of: the gain lies above ``bound``; below it with the sign -1."""
        error = table["standard_error"].to_numpy()
        with np.errstate(divide="ignore", invalid="ignore"):
            t = np.nan_to_num(sign * (gain - bound) / error, nan=0.0, posinf=np.inf, neginf=-np.inf)
        return holm(stats.t.sf(t, table["freedom"]), family)

    if claim == "better":
        both = table[["p_mean_holm", "p_wilcoxon_holm"]].max(axis=1)
        held = (verdict == "better") & (both <= level)
        fails = (verdict != "better") & (verdict.isin(["worse", "equivalent"]) | (above(margin, -1) <= alpha / 2))
    elif claim == "equivalent":
        held = table["p_tost_holm"] <= level
        fails = np.minimum(above(margin), above(-margin, -1)) <= alpha / 2
    else:
        held, fails = above(-margin) <= level / 2, above(-margin, -1) <= alpha / 2
    return [str(one) for one in np.select([held, fails], [CONFIRMED, REFUTED], UNDECIDED)]


def judged(
    analysis: Analysis, asked: Asked, lock: str, changed: Sequence[str], place: int, looks: Sequence[Look] = ()
) -> Analysis:
    """The analysis of a locked study with the column ``claim`` of its comparisons, and sentences on its claims.

    Args:
        analysis: of the study.
        asked: its question.
        lock: hash of what was locked.
        changed: what is not as it was locked.
        place: which of the studies on these cases it is; from the second on, a confirmation needs a stricter level.
        looks: that it has had, where seeds are added until it is decided.
    """
    meta = analysis.meta
    table = analysis.comparisons.assign(claim=EXPLORATORY)
    mine = table[table["primary"]]
    metric, whole = METRICS[meta.primary], not meta.notice
    found = outcomes(
        mine,
        asked.claim,
        better=metric.better,
        margin=meta.margins[metric.name],
        family=meta.family,
        alpha=_levels(looks) if looks else meta.nominal,
        place=place,
    )
    unknown = mine["arm"].isin(meta.one_seed) | mine["against"].isin(meta.one_seed) | (not whole)
    table.loc[mine.index, "claim"] = CHANGED if changed else np.where(unknown, UNDECIDED, found)
    told = "; ".join(
        f"{line['arm']} {CLAIMS[asked.claim]} {line['against']}: {line['claim']}"
        for _, line in table[table["primary"]].iterrows()
    )
    said = [f"Locked before its first run ({lock[:12]}): {told}. Everything else is exploratory."]
    if changed:
        said = [f"{CHANGED} since it was locked: {'; '.join(changed)}. So all of it is exploratory."]
    elif not whole:
        said.append("Nothing is decided before all of its runs have finished.")
    elif place > 1:
        said.append(
            f"This is study {place} on these cases, so a confirmation is held to {100 * meta.alpha / place:.2g} % "
            f"instead of {100 * meta.alpha:.2g} %; the verdicts stay as they are."
        )
    return replace(analysis, comparisons=table, meta=replace(meta, claims=tuple(said)))


def _levels(looks: Sequence[Look]) -> Numbers:
    """Of each comparison the level of the look that decided it, or else of the last one."""
    first, last = max(looks[0].seeds), looks[-1]
    return np.array([looks[after - first].level if after else last.level for after in last.decided])
