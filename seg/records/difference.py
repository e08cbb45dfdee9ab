"""What differs between two runs: the overrides that lead from one to the other, and what else was not the same."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from seg.config.content import WITHOUT_EFFECT, flat, keyed
from seg.config.options import CONF, OPTIONS
from seg.errors import ConfigError, DataError, counted
from seg.records.folder import RunFolder, place_given
from seg.records.journal import Recorded
from seg.records.provenance import short
from seg.records.table import local, sources

Values = dict[str, Any]  # of a configuration, flat
Read = Callable[[str], str | None]  # the text of a run's file, by its place


@dataclass(frozen=True)
class Described:
    """A run as it was recorded, by its folder or by MLflow."""

    record: Recorded
    values: Values
    packages: Mapping[str, str]  # versions, by name
    parts: Mapping[str, str]  # of the split, by case

    @property
    def options(self) -> dict[str, str]:
        """The option of each group, as far as it was recorded and is still there."""
        known = {group: str(self.record.params.get(group)) for group in OPTIONS}
        folders = (CONF, Path.cwd())
        return {
            group: option
            for group, option in known.items()
            if any((folder / group / f"{option}.yaml").is_file() for folder in folders)
        }


@dataclass(frozen=True)
class Difference:
    """What leads from one run to another."""

    options: dict[str, str]  # of each group that changes
    values: Values  # to be set besides
    leave_out: Values  # what the first run set, and the second has no such key
    other: dict[str, str]  # what else differs, in words
    same: list[str]  # what does not


def described(outputs: Path, uri: str | None, run: str) -> Described:
    """The run whose id begins with ``run``.

    Raises:
        ConfigError: there is no such run, or several.
        DataError: its configuration is missing.
    """
    here, stores = sources(outputs, uri)
    start = Path(run).name.removeprefix("run_")
    found: dict[str, tuple[Recorded, Read]] = {
        folder.run_id: (local(folder, state), partial(_read, folder))
        for folder, state in here.items()
        if state and folder.run_id.startswith(start)
    }
    for store in stores if len(found) != 1 else ():
        for record in store.search(start, {}):
            found.setdefault(record.run_id, (record, partial(store.read_artifact, record.run_id)))
    if len(found) != 1:
        ids = ", ".join(sorted(found)[:10])
        fault = f"may be any of {ids}. Give more characters of the id" if ids else f"is not known in {outputs}"
        raise ConfigError(f"Run {run} {fault}; python -m seg.runs{place_given(outputs)} lists all.")
    ((record, read),) = found.values()
    config = read("config/config.yaml")
    if config is None:
        raise DataError(f"Run {run} has no config/config.yaml: it ended before it wrote one, or it was removed.")
    lines = (read("environment/packages.txt") or "").splitlines()
    try:
        split = json.loads(read("data/split.json") or "{}")
    except ValueError as error:
        raise DataError(f"data/split.json of run {run} is damaged ({error}). Restore it from a copy.") from error
    values = flat(keyed(OmegaConf.to_container(OmegaConf.create(config))))
    values.pop("resume", None)  # no setting, but what continued it
    return Described(
        record,
        values,
        {name: version for name, _, version in (line.partition("==") for line in lines)},
        {case: part for part in ("train", "val", "test") for case in split.get(part) or ()},
    )


def _read(folder: RunFolder, path: str) -> str | None:
    file = folder.run / path
    return file.read_text("utf-8") if file.is_file() else None


def difference(one: Described, other: Described, defaults: Callable[[Mapping[str, str]], Values]) -> Difference:
    """What leads from the command of ``one`` to that of ``other``.

    Args:
        one: a run.
        other: another one.
        defaults: the configuration to which a choice of options composes.
    """
    options = {group: option for group, option in other.options.items() if one.options.get(group) != option}
    before, after = defaults(one.options), defaults(other.options)
    own = {key: value for key, value in one.values.items() if before.get(key, ...) != value}  # set by hand, or a recipe
    reached = after | own
    values = {key: value for key, value in other.values.items() if reached.get(key, ...) != value and value != {}}
    other_than = _others(one, other)
    return Difference(
        options,
        values,
        {key: own[key] for key in effective([*own]) if key not in other.values and own[key] != {}},
        {what: words for what, words in other_than.items() if words},
        [what for what, words in other_than.items() if not words],
    )


def effective(keys: Iterable[str]) -> list[str]:
    """Those of ``keys`` that may change a score."""
    return [key for key in keys if not key.startswith(WITHOUT_EFFECT)]


def _others(one: Described, other: Described) -> dict[str, str]:
    """What is compared besides the configuration: its changes in words, nothing where it is the same."""
    before, after = one.record, other.record
    resolved = [
        {key.removeprefix("resolved."): str(value) for key, value in run.params.items() if key.startswith("resolved.")}
        for run in (before, after)
    ]
    codes = [
        short(run.tags.get("git_commit", "")) + " with changes" * (run.tags.get("git_dirty") == "true")
        for run in (before, after)
    ]
    moved = [case for case in {*one.parts, *other.parts} if one.parts.get(case) != other.parts.get(case)]
    return {
        "code": _changed({"": codes[0]}, {"": codes[1]}),
        "data": _tagged(before, after, "dataset_version"),
        "split": f"{counted(len(moved), 'case')} in other parts" if moved else _tagged(before, after, "split_hash"),
        "machine": _changed({"": _machine(before)}, {"": _machine(after)}),
        "packages": _changed(one.packages, other.packages) if one.packages and other.packages else "not known",
        "resolved": _changed(*resolved),
    }


def _machine(run: Recorded) -> str:
    """Its name, its system, and the version of Python."""
    return ", ".join(run.tags.get("environment", "").split(", ")[:3])


def _tagged(before: Recorded, after: Recorded, tag: str) -> str:
    return _changed({"": before.tags.get(tag, "")[:8]}, {"": after.tags.get(tag, "")[:8]})


def _changed(before: Mapping[str, str], after: Mapping[str, str]) -> str:
    """``torch 2.12 → 2.13, …``."""
    return ", ".join(
        f"{name} {before.get(name) or '–'} → {after.get(name) or '–'}".strip()
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    )
