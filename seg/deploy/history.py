"""The history of a registered model: every change, append-only, chained by hashes, in MLflow for all who share it.

A run of the experiment ``registry`` holds it, one parameter an entry. MLflow changes no parameter, so of two who write
the same entry at once one fails. The registered model names that run and its last entry, so that an end which was cut
off is noticed, too.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from seg.errors import ConfigError
from seg.records.chain import Link, read_chain, read_link
from seg.records.mlflow import HISTORY_OF, Mlflow

if TYPE_CHECKING:
    from mlflow.entities.model_registry import RegisteredModel

_EXPERIMENT = "registry"
RUN, _END = "seg.history", "seg.history_end"  # tags of the registered model
_LONGEST = 1000  # characters of a reason; an entry is far below the 6,000 that MLflow keeps


class ConflictError(ConfigError):
    """Somebody else has changed the model since it was looked at."""


@dataclass(frozen=True)
class Entry(Link):
    """One change."""

    who: str
    action: str  # registered | found | promoted | rolled back | repaired | reviewed
    version: str  # that the alias is on from now on, or that the entry is about
    alias: str = ""
    before: str = ""  # the version that had the alias
    why: str = ""

    def __str__(self) -> str:
        moved = f"{self.alias}: {self.before or 'none'} → {self.version}" if self.alias else self.version
        return f"{self.number:04}  {self.time[:19]}Z  {self.who}  {self.action}  {moved}" + f"  {self.why}".rstrip()


@dataclass(frozen=True)
class History:
    """All entries of a registered model, and where the chain is broken."""

    name: str
    run_id: str
    last: int  # number of the last entry, even if it cannot be read or was removed
    entries: tuple[Entry, ...]
    faults: tuple[str, ...] = ()

    @property
    def holders(self) -> dict[str, list[str]]:
        """By alias, the versions that held it one after the other; the last holds it. Going back takes one away."""
        held: dict[str, list[str]] = {}
        for entry in self.entries:
            if entry.action == "promoted":
                held.setdefault(entry.alias, []).append(entry.version)
            elif entry.action == "rolled back" and entry.version in (ones := held.get(entry.alias, []))[:-1]:
                ones.pop()
                while ones[-1] != entry.version:  # versions between them that were deleted
                    ones.pop()
        return held

    @property
    def known(self) -> set[str]:
        """The versions whose registration it has."""
        return {entry.version for entry in self.entries if entry.action in ("registered", "found")}


def begun(store: Mlflow, name: str) -> dict[str, str]:
    """A new history without entries, as the tags that a model needs when it is registered, so that none gets two."""
    run = store.client.create_run(store.experiment(_EXPERIMENT), run_name=name, tags={HISTORY_OF: name})
    store.client.set_terminated(run.info.run_id)
    return {RUN: run.info.run_id}


def dropped(store: Mlflow, tags: Mapping[str, str]) -> None:
    """Removes a history that was begun for a model which could not be registered."""
    store.client.delete_run(tags[RUN])


def history(store: Mlflow, model: "RegisteredModel") -> History:
    """The history of a registered model, with what is wrong with it.

    Raises:
        ConfigError: the model was not registered by seg.
    """
    run_id, end = model.tags.get(RUN), model.tags.get(_END)
    if run_id is None:
        raise ConfigError(
            f"{model.name} in {store.name} was not registered by seg.register, so it has no history. Choose another "
            "name."
        )
    kept = store.client.get_run(run_id).data.params
    entries, faults = read_chain(Entry, kept)
    if end and end not in {f"{entry.number:04} {entry.hash}" for entry in entries}:
        faults.append(f"entry {end.split()[0]}, the last that was noted, was changed or removed")
    numbers = [int(key) for key in (*kept, (end or "0").split()[0]) if key.isdecimal()]
    return History(model.name, run_id, max(numbers), tuple(entries), tuple(faults))


def appended(store: Mlflow, known: History, entry: Entry) -> History:
    """The history with one entry more, of which number, time and chain are set here.

    Raises:
        ConflictError: somebody else has changed the model since ``known`` was read; it says who and what.
    """
    from mlflow.exceptions import MlflowException

    last = known.entries[-1] if known.entries else None
    whole = replace(
        entry,
        number=known.last + 1,
        time=datetime.now(UTC).isoformat(),
        why=" ".join(entry.why.split())[:_LONGEST],
        previous=last.hash if last else "",
    )
    key = f"{whole.number:04}"
    try:
        store.client.log_param(known.run_id, key, whole.text)
    except MlflowException:
        if not (other := store.client.get_run(known.run_id).data.params.get(key)):
            raise
        if other != whole.text:  # where it is, only the answer was lost
            seen = read_link(Entry, other) or other
            raise ConflictError(
                f"{known.name} was changed at the same time, so nothing was done here: {seen}. Look at it, and if you "
                "still want your change, give the command again."
            ) from None
    store.client.set_registered_model_tag(known.name, _END, f"{key} {whole.hash}")
    return replace(known, last=whole.number, entries=(*known.entries, whole))


def as_json(known: History) -> str:
    """All of it, with the hash of each entry, to be kept elsewhere."""
    entries: Sequence[object] = [asdict(entry) | {"hash": entry.hash} for entry in known.entries]
    return json.dumps({"model": known.name, "entries": entries, "faults": known.faults}, indent=1, ensure_ascii=False)
