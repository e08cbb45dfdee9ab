"""Changes in MLflow's registry: new versions, and which of them is champion. Each is in the model's history first.

The history is the truth: where an alias was set in MLflow directly, or a change was interrupted, the next change puts
it right and says so there.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from seg.deploy import comparison
from seg.deploy.card import Facts, model_card
from seg.deploy.history import RUN, ConflictError, Entry, History, appended, begun, dropped, history
from seg.deploy.logged import log_model
from seg.deploy.package import Package
from seg.deploy.registry import registered, sought, version_of, versions
from seg.errors import ConfigError
from seg.records.folder import RunFolder
from seg.records.mlflow import Mlflow
from seg.records.state import has_finished

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersion

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class State:
    """A registered model: its versions, the oldest first; its history; and what its aliases are on in MLflow."""

    name: str
    versions: Mapping[str, "ModelVersion"]  # by number
    history: History
    aliases: Mapping[str, str]

    @property
    def held(self) -> dict[str, list[str]]:
        """By alias, the versions that held it one after the other, as far as they still exist."""
        there = {alias: [one for one in ones if one in self.versions] for alias, ones in self.history.holders.items()}
        held = {alias: [one for one, _ in groupby(ones)] for alias, ones in there.items()}  # as if others never were
        return {alias: ones for alias, ones in held.items() if ones}

    def holder(self, alias: str) -> str:
        """The version that has ``alias``: by the history, or by MLflow where that was altered; "" for none."""
        return self.aliases.get(alias, "") if self.history.faults else self.held.get(alias, [""])[-1]

    @property
    def off(self) -> dict[str, tuple[str, str]]:
        """The aliases that are not on the version that the history says: the one they are on, and that one."""
        both = {alias: (self.aliases.get(alias, ""), self.holder(alias)) for alias in {*self.held, *self.aliases}}
        return {alias: pair for alias, pair in sorted(both.items()) if pair[0] != pair[1]}


def state(store: Mlflow, name: str) -> State:
    """Of the registered model ``name``.

    Raises:
        ConfigError: there is none, or it was not registered by seg, or MLflow does not answer.
    """
    with store.explained():
        model = registered(store, name)
        aliases = {alias: str(number) for alias, number in model.aliases.items()}
        return State(name, versions(store, name), history(store, model), aliases)


def register(store: Mlflow, run: RunFolder, name: str, facts: Facts, why: str = "") -> str:
    """Makes a finished run the next version of ``name``; gives its number.

    Raises:
        ConfigError: the run has not finished, is not in MLflow or is a version already, or MLflow does not answer.
        DataError: the run's folder is damaged.
    """
    if not has_finished(run):
        raise ConfigError(f"Run {run.short} has not finished; only a finished run can be registered.")
    card = model_card(name, run, Package.of_run(run), facts)
    model = log_model(run, store.uri)
    with store.explained():
        number = _created(store, name, model, facts, card)
        for _ in range(10):  # of others who register at the same time
            with suppress(ConflictError):
                entry = Entry(0, "", facts.who, "registered", number, why=why or f"run {run.short}")
                appended(store, state(store, name).history, entry)
                return number
    raise ConfigError(
        f"{name}/{number} is registered, but {name} is changed all the time: history={name} shows by whom."
    )


def _created(store: Mlflow, name: str, model: "LoggedModel", facts: Facts, card: str) -> str:
    """The number of a new version; where it cannot be made, no empty registered model is left."""
    new = _begun(store, name)
    client = store.client
    try:
        for other in versions(store, name).values():
            if other.source == model.artifact_location:
                raise ConfigError(f"Run {model.source_run_id} is {name}/{other.version} already.")
        version = client.create_model_version(
            name,
            model.artifact_location,
            model.source_run_id,
            tags=model.tags | facts.tags,
            description=card,
            model_id=model.model_id,
        )
    except BaseException:
        if new and not versions(store, name):
            client.delete_registered_model(name)
            dropped(store, new)
        raise
    return str(version.version)


def _begun(store: Mlflow, name: str) -> dict[str, str]:
    """Begins the registered model where there is none: its tags; nothing where there is one."""
    from mlflow.exceptions import MlflowException

    if model := sought(store, name):
        history(store, model)
        return {}
    tags = begun(store, name)
    try:
        store.client.create_registered_model(name, tags=tags)
    except BaseException as error:
        dropped(store, tags)
        if isinstance(error, MlflowException) and error.error_code == "RESOURCE_ALREADY_EXISTS":
            return {}  # somebody else was first
        raise
    return tags


def promote(
    store: Mlflow, reference: str, alias: str, *, who: str, require: str, margin: float, why: str
) -> tuple[str, str]:
    """Gives ``alias`` to a version, if it is as good as ``require`` says beside the one that has it.

    Args:
        store: has the registry.
        reference: ``name/3`` or ``name@challenger``.
        alias: champion, say.
        who: does it.
        require: better, not_worse or none.
        margin: see ``comparison.compared``.
        why: for the history.

    Returns:
        What was done, and the comparison in words ("" where there was nothing to compare with).

    Raises:
        ConfigError: it has the alias already, or is not good enough; with the comparison.
        ConflictError: somebody else changed the model at the same time.
        DataError: the two cannot be compared.
    """
    with store.explained():
        name, number = version_of(store, reference)
    known = _put_right(store, state(store, name), who)
    before = known.holder(alias)
    if before == number:
        raise ConfigError(f"{name}/{number} is {alias} already.")
    words = ""
    if before and require != "none":
        found = comparison.compared(store, [known.versions[before], known.versions[number]], margin)
        words, said = comparison.in_words(found), comparison.verdict(found)
        if not comparison.holds(found, require):
            raise ConfigError(f"{name}/{number} is not promoted, for require={require}; {said}.\n\n{words}")
        why = f"{why} [{require}; {said}]".lstrip()
    _moved(store, known, Entry(0, "", who, "promoted", number, alias, before, why))
    return f"{name}/{number} is {alias}" + (f" in place of {name}/{before}" if before else ""), words


def rollback(store: Mlflow, name: str, alias: str, *, who: str, why: str) -> str:
    """Gives ``alias`` back to the version that had it before; what was done.

    Raises:
        ConfigError: no version had it before.
        ConflictError: somebody else changed the model at the same time.
    """
    known = _put_right(store, state(store, name), who)
    if known.history.faults:
        raise ConfigError(
            f"The history of {name} was altered, so it is not known who had {alias} before. Name the version: "
            f"promote={name}/1 alias={alias} require=none."
        )
    held = known.held.get(alias, [])
    if len(held) < 2:
        raise ConfigError(f"{name} had no {alias} before {f'{name}/{held[0]}' if held else 'now, and has none'}.")
    _moved(store, known, Entry(0, "", who, "rolled back", held[-2], alias, held[-1], why))
    return f"{name}/{held[-2]} is {alias} again in place of {name}/{held[-1]}"


def review(store: Mlflow, reference: str, facts: Facts, why: str) -> str:
    """Notes who approved or rejected a version; what was done.

    Raises:
        ConfigError: there is no such version.
        ConflictError: somebody else changed the model at the same time.
    """
    with store.explained():
        name, number = version_of(store, reference)
        known = state(store, name)
        said = f"{facts.approval} by {facts.reviewer}"
        appended(store, known.history, Entry(0, "", facts.who, "reviewed", number, why=f"{said}. {why}".rstrip()))
        for key in ("approval", "reviewer"):
            store.client.set_model_version_tag(name, number, key, facts.tags[key])
    return f"{name}/{number} is {said}"


def _put_right(store: Mlflow, known: State, who: str) -> State:
    """Brings MLflow's aliases to what the history says, and the history to the versions that there are.

    Not where the history was altered: nothing moves by what is no longer known.
    """
    if known.history.faults:
        log.warning("The history of %s was altered: history=%s says where.", known.name, known.name)
        return known
    with store.explained():
        chain = known.history
        for number in known.versions.keys() - chain.known:
            why = "registered without seg.register, or interrupted"
            chain = appended(store, chain, Entry(0, "", who, "found", number, why=why))
        for alias, (seen, true) in known.off.items():
            why = "was set in MLflow directly, or a change was interrupted"
            chain = appended(store, chain, Entry(0, "", who, "repaired", true or "none", alias, seen, why))
            _set(store, known.name, alias, true)
    return State(known.name, known.versions, chain, known.aliases)


def _moved(store: Mlflow, known: State, entry: Entry) -> None:
    """First in the history, where only one can be first, then in MLflow."""
    with store.explained():
        appended(store, known.history, entry)
        _set(store, known.name, entry.alias, entry.version)


def _set(store: Mlflow, name: str, alias: str, number: str) -> None:
    if number:
        store.client.set_registered_model_alias(name, alias, number)
    else:
        store.client.delete_registered_model_alias(name, alias)


def names(store: Mlflow) -> list[str]:
    """Of all registered models that seg.register made."""
    with store.explained():
        return sorted(one.name for one in store.client.search_registered_models(max_results=1000) if RUN in one.tags)


def listed(store: Mlflow, name: str) -> Iterator[str]:
    """A line for each version, and for all that is not as the history says."""
    known = state(store, name)
    for number, version in known.versions.items():
        aliases = ", ".join(alias for alias in sorted({*known.held, *known.aliases}) if known.holder(alias) == number)
        run_id, tags = version.run_id or "unknown", dict(version.tags)
        with store.explained():
            origin = store.run(version.run_id)  # None of a version that was registered without a run
        dice = origin and origin.data.metrics.get("test_dice")
        shown = [f"{name}/{number}", aliases, f"run {run_id[:8]}", "" if dice is None else f"Dice {dice:.3f}"]
        shown += [tags.get("approval", ""), f"by {tags.get('who', 'unknown')}"]
        yield "  ".join(filter(None, shown))
    for alias, (seen, true) in known.off.items():
        yield (
            f"! {alias} is on {seen or 'no version'} in MLflow, and on {true or 'no version'} in the history; the next "
            "promote or rollback puts it right."
        )
    yield from (f"! The history was altered: {fault}." for fault in known.history.faults)
