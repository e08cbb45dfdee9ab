"""Scored runs, read from their own folders: scores by case, data, runs that belong together, links."""

import copy
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
from omegaconf import DictConfig

from seg.config.content import config_hash
from seg.errors import few, without_passwords
from seg.metrics import METRICS, read_scores
from seg.records.address import default_uri, is_server, pages, ui_command
from seg.records.folder import RunFolder
from seg.records.state import read_state

T = TypeVar("T")
Scores = dict[str, dict[str, dict[str, float]]]  # case id → class name → metric → value


class ScoredRun:
    """One run; what is in its files is read when it is asked for."""

    def __init__(self, folders: RunFolder) -> None:
        self.folders = folders
        self.state = read_state(folders.run)
        self.name = self.state.name if self.state else folders.short

    @property
    def fault(self) -> str | None:
        """Why the run cannot be shown, if it cannot."""
        who = f"Run {self.folders.short} ({self.name}, {self.state.true_status if self.state else 'state unknown'})"
        for path in (self.folders.config, self.folders.fingerprint, self.folders.cases):
            if not path.exists():
                return f"{who}: {path} is missing. Wait until the run is finished, or leave it out."
        return (
            None
            if self.scores
            else f"{who} tested no case: it is a trial of a search, or its split has no test part. Leave it out."
        )

    @cached_property
    def cfg(self) -> DictConfig:
        """The run's resolved configuration."""
        return self.folders.read_config()

    @cached_property
    def data(self) -> dict[str, Any]:
        """Of the run's fingerprint of its data: classes, regions, channels, and the hash of each case by its id."""

        def parsed(text: str) -> dict[str, Any]:
            content = json.loads(text)
            hashes = {case["id"]: case["sha256"] for case in content["cases"]}
            return {key: content.get(key) for key in ("classes", "regions", "channels")} | {"cases": hashes}

        return self.folders.read(self.folders.fingerprint, parsed)

    @cached_property
    def table(self) -> pd.DataFrame:
        """Its ``cases.csv``."""
        return read_scores(self.folders.cases)

    @cached_property
    def scores(self) -> Scores:
        """Of the test cases; an empty cell is left out."""
        names = [name for name in METRICS if name in self.table]
        scores: Scores = {}
        for row in self.table.to_dict("records"):
            numbers = {name: row[name] for name in names if row[name] == row[name]}
            scores.setdefault(row["case"], {})[row["class"]] = numbers
        return scores

    @property
    def arm(self) -> str:
        """What the run tries: the arm of its study, or else its name without fold, seed and trial."""
        return str(self.cfg.arm or choices(self.name))

    @property
    def address(self) -> str | None:
        """Of its page in MLflow, on its server or on the one that ``ui_commands`` start; None without MLflow."""
        if self.state is None or self.state.kind != "mlflow":
            return None
        return f"{pages(without_passwords(self.state.uri or ''))}/#/runs/{self.folders.run_id}"


def choices(name: str) -> str:
    """The choices in a run's name: without fold, seed, arm and trial."""
    return re.sub(r"-f\w+-s\d+(-t\d+)?$", "", name.rpartition(" · ")[2])  # -t7: names of older sweeps


def differences(runs: Sequence[ScoredRun]) -> list[str]:
    """Faults: runs whose data are not those of the runs before, as far as they were tested on the same cases."""
    first, faults = runs[0], []
    seen: dict[str, ScoredRun] = {}
    rule = "All runs on a page must use the same data set. Compare these separately."
    for run in runs:
        for key in ("classes", "regions", "channels"):
            if run.data[key] != first.data[key]:
                faults.append(
                    f"Run {run.folders.short} has the {key} {run.data[key]}, run {first.folders.short} has "
                    f"{first.data[key]}. {rule}"
                )
        common = run.scores.keys() & seen.keys()
        if other := [case for case in common if run.data["cases"].get(case) != seen[case].data["cases"].get(case)]:
            faults.append(
                f"Run {run.folders.short} was tested on other files than run {seen[min(other)].folders.short}, in the "
                f"cases {few(other)}. {rule}"
            )
        seen = dict.fromkeys(run.scores, run) | seen
    return faults


def grouped(runs: Sequence[ScoredRun]) -> list[list[ScoredRun]]:
    """Runs that differ only in their fold, and share no test case, together; every other run by itself."""

    def alike(run: ScoredRun) -> str:
        same = copy.deepcopy(run.cfg)
        same.data.fold = 0
        return f"{run.arm} {config_hash(same)}"

    return pooled(runs, alike=alike, cases=lambda run: run.scores)


def pooled(runs: Sequence[T], *, alike: Callable[[T], str], cases: Callable[[T], Iterable[str]]) -> list[list[T]]:
    """Puts together what is ``alike`` and shares none of its ``cases``, such as the folds of one arm and seed."""
    groups: dict[str, list[T]] = {}
    for run in runs:
        groups.setdefault(alike(run), []).append(run)
    found: list[list[T]] = []
    for group in groups.values():
        tests = Counter(case for run in group for case in cases(run))
        found += [group] if max(tests.values()) == 1 else [[run] for run in group]
    return found


def facts_of(group: Sequence[ScoredRun]) -> dict[str, str]:
    """Name, arm, fold and seed of one run, or of the runs of one group."""
    first, folds = group[0], ", ".join(dict.fromkeys(str(run.cfg.data.fold) for run in group))
    name = first.name if len(group) == 1 else f"{len(group)} runs, a fold each"
    return {"name": name, "arm": first.arm, "fold": folds, "seed": str(first.cfg.seed)}


def labels(groups: Sequence[Sequence[ScoredRun]]) -> list[str]:
    """A short label for each group: those of arm, fold and seed that differ between groups."""
    facts = [facts_of(group) for group in groups]
    vary = [key for key in ("arm", "fold", "seed") if len({fact[key] for fact in facts}) > 1] or ["arm"]
    words = [" · ".join(fact[key] if key == "arm" else f"{key} {fact[key]}" for key in vary) for fact in facts]
    count = Counter(words)
    return [
        f"{label} · {group[0].folders.short}" if count[label] > 1 else label
        for label, group in zip(words, groups, strict=True)
    ]


def ui_commands(runs: Sequence[ScoredRun], outputs: Path) -> list[str]:
    """What starts MLflow's pages for the runs that are recorded in a database; a password in it is masked."""
    uris = [run.state.uri or default_uri(outputs) for run in runs if run.state and run.state.kind == "mlflow"]
    return list(dict.fromkeys(ui_command(uri) for uri in uris if not is_server(uri)))
