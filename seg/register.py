"""``python -m seg.register run=… name=…``: versions of networks in MLflow's registry, and which of them is champion."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from seg.config.command import verb
from seg.errors import ConfigError, DataError, together, without_passwords
from seg.files import atomic_write

if TYPE_CHECKING:
    from seg.deploy.card import Facts
    from seg.records.mlflow import Mlflow

ALIASES = ("champion", "challenger", "archived")
_BELONGS = {  # what each further key is for
    "name": ("run", "compare"),
    "alias": ("promote", "rollback"),
    "require": ("promote",),
    "why": ("run", "promote", "rollback", "review"),
    "export": ("history",),
}
_WORDS = {
    "require": (None, "not_worse", "better", "none"),
    "alias": (None, *ALIASES),
    "card.phi": ("yes", "no", "unknown"),
    "card.approval": ("pending", "approved", "rejected"),
}


def main(cfg: DictConfig) -> None:
    """Registers, promotes, rolls back, reviews, lists or compares versions, or shows their history.

    Raises:
        ConfigError: it is not clear what is to be done, something needed is missing, or the change is refused.
        DataError: a run's folder is damaged, versions cannot be compared, or a history was altered.
    """
    given = [action for action in _ACTIONS if cfg[action]]
    if len(given) != 1:
        raise ConfigError(
            f"Give one of {', '.join(f'{action}=' for action in _ACTIONS)}: run=a1b2c3d4 name=hippocampus registers, "
            "promote=hippocampus/3 alias=champion promotes. --help prints every key."
        )
    if isinstance(cfg.card.phi, bool):  # in YAML ``phi: no`` is a truth value
        cfg.card.phi = "yes" if cfg.card.phi else "no"
    together(ConfigError, [*_faults(cfg, given[0])])
    _ACTIONS[given[0]](cfg)


def _faults(cfg: DictConfig, action: str) -> Iterator[str]:
    """Everything that is missing, wrong, or would be ignored."""
    for key, actions in _BELONGS.items():
        if cfg[key] and action not in actions:
            yield f"{key}={cfg[key]} would be ignored: it belongs to {' and '.join(actions)}. Leave it out."
    for key, words in _WORDS.items():
        value = cfg[key] if "." not in key else cfg.card[key.removeprefix("card.")]
        if value not in words:
            yield f"{key} is {value}; it must be {', '.join(filter(None, words))}."
    if action in ("run", "compare") and not re.fullmatch(r"[\w-]+", cfg.name or ""):
        yield f"name is {cfg.name}; it must be a word of letters, digits, - and _: name=hippocampus."
    if action in ("promote", "rollback") and not cfg.alias:
        yield f"alias is missing; give one of {', '.join(ALIASES)}."
    if not cfg.margin > 0:
        yield f"margin is {cfg.margin}; it must be above 0."
    if action == "review" and cfg.card.approval == "pending":
        yield "card.approval is pending; a review ends in approved or rejected."
    if action in ("run", "review"):
        yield from _missing(cfg.card, action)


def _missing(card: DictConfig, action: str) -> Iterator[str]:
    required = [card.required] if isinstance(card.required, str) else card.required or []
    needed = {*required} if action == "run" else set[str]()
    needed |= {"reviewer"} if card.approval != "pending" else set()
    if unknown := needed - {"who", "use", "limits", "phi", "reviewer"}:
        yield f"card.required names {', '.join(sorted(unknown))}; it may name who, use, limits, phi and reviewer."
    for key in sorted(needed - unknown):
        if card[key] in (None, "", "unknown"):
            yield f"card.{key} is missing. Give it here, or in local/default.yaml."


def _register(cfg: DictConfig) -> None:
    from seg.deploy.registry import opened
    from seg.deploy.versions import register
    from seg.engine.console import log_to, print_lines
    from seg.records.address import address_given, default_uri
    from seg.records.folder import find, place_given
    from seg.records.state import read_state

    log_to()
    outputs = Path(cfg.paths.outputs)
    run = find(outputs, cfg.run)
    state = read_state(run.run)
    home = state and state.kind == "mlflow" and (state.uri or default_uri(outputs))
    store = opened(outputs, cfg.tracking.uri or home or None)
    number = register(store, run, cfg.name, _facts(cfg), cfg.why or "")
    reference = f"{cfg.name}/{number}"
    place = place_given(outputs)
    if store.uri != (address_given() or default_uri(outputs)):
        place += f" {shlex.quote(f'tracking.uri={without_passwords(store.uri, store.uri)}')}"
    print_lines(
        {
            "registered": f"{reference} in {store.name}",
            "to use it": f"python -m seg.predict model={reference} input=scans/ output=masks/{place}",
            "champion": f"python -m seg.register promote={reference} alias=champion{place}",
        }
    )


def _promote(cfg: DictConfig) -> None:
    from seg.deploy.versions import promote

    require = cfg.require or ("not_worse" if cfg.alias == "champion" else "none")
    store, who, why = _store(cfg), _who(cfg), cfg.why or ""
    done, words = promote(store, cfg.promote, cfg.alias, who=who, require=require, margin=float(cfg.margin), why=why)
    print(f"{words}\n{done}".lstrip())


def _rollback(cfg: DictConfig) -> None:
    from seg.deploy.versions import rollback

    print(rollback(_store(cfg), cfg.rollback, cfg.alias, who=_who(cfg), why=cfg.why or ""))


def _review(cfg: DictConfig) -> None:
    from seg.deploy.versions import review

    print(review(_store(cfg), cfg.review, _facts(cfg), cfg.why or ""))


def _list(cfg: DictConfig) -> None:
    from seg.deploy.versions import listed, names

    store = _store(cfg)
    for name in names(store) if cfg.list == "all" else [cfg.list]:
        print(*listed(store, name), sep="\n")


def _compare(cfg: DictConfig) -> None:
    from seg.deploy.comparison import compared, in_words
    from seg.deploy.registry import version_of
    from seg.deploy.versions import state

    store, numbers = _store(cfg), [cfg.compare] if isinstance(cfg.compare, str) else list(cfg.compare)
    if len(set(numbers)) < 2:
        raise ConfigError(f"compare is {cfg.compare}; give two versions or more: compare=[2,3].")
    with store.explained():
        versions = [version_of(store, f"{cfg.name}/{number}")[1] for number in numbers]
    known = state(store, cfg.name)
    print(in_words(compared(store, [known.versions[number] for number in versions], float(cfg.margin))))


def _history(cfg: DictConfig) -> None:
    from seg.deploy.history import as_json
    from seg.deploy.versions import state

    known = state(_store(cfg), cfg.history).history
    print(*known.entries, sep="\n")
    if cfg.export:
        atomic_write(Path(cfg.export), as_json(known))
    together(DataError, [f"The history of {known.name} was altered: {fault}." for fault in known.faults])


def _store(cfg: DictConfig) -> "Mlflow":
    from seg.deploy.registry import opened

    return opened(Path(cfg.paths.outputs), cfg.tracking.uri)


def _who(cfg: DictConfig) -> str:
    from seg.records.provenance import common_tags

    return str(cfg.card.who or common_tags()["developer"])


def _facts(cfg: DictConfig) -> "Facts":
    from seg.deploy.card import Facts

    card: dict[str, Any] = {key: str(cfg.card[key] or "") for key in ("use", "limits", "phi", "approval", "reviewer")}
    return Facts(who=_who(cfg), **card)


_ACTIONS = {
    "run": _register,
    "promote": _promote,
    "rollback": _rollback,
    "review": _review,
    "list": _list,
    "compare": _compare,
    "history": _history,
}
run = verb("register", main, lists=("compare", "card.required"))

if __name__ == "__main__":
    run()
