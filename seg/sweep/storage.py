"""Where a sweep's trials are kept: a journal file, or a database."""

import logging
import random
import time
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import optuna
from optuna.exceptions import OptunaError, StorageInternalError
from optuna.storages import JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.trial import TrialState, create_trial
from sqlalchemy import URL, make_url
from sqlalchemy.exc import (
    ArgumentError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    ProgrammingError,
    SQLAlchemyError,
)

from seg.errors import ConfigError, SegError, together, without_passwords
from seg.sweep.samplers import Settings, changes, make_pruner
from seg.sweep.space import Space

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

_PAUSES = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 60.0)  # seconds between attempts to reach a storage that went away
_PASSING = (OperationalError, InterfaceError, OSError)  # a server that restarts, a disk that is full
_SAME_MOMENT = (IntegrityError, ProgrammingError, StorageInternalError, AssertionError)  # see _database


def patient(method: Callable[P, T]) -> Callable[P, T]:
    """Lets a method of an object with an ``address`` wait for its storage, and at last say why without a password."""

    @wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        address: str | Path = args[0].address  # type: ignore[attr-defined]
        for pause in (*_PAUSES, None):
            try:
                return method(*args, **kwargs)
            except (SQLAlchemyError, StorageInternalError, OSError) as error:
                cause = error.__cause__ or error
                said = _said(cause, address)
            if pause is None or not isinstance(cause, _PASSING):
                break
            log.warning("The sweep's storage does not answer (%s); trying again in %.0f s.", said, pause)
            time.sleep(pause)
        raise SegError(f"The sweep's storage does not answer: {said}. Mend it; the same command then goes on.")

    return call


def open_storage(address: str | Path) -> Any:
    """Opens a storage, or makes it.

    Args:
        address: a path of a journal file, or a database as ``postgresql://user:password@host/database``.

    Raises:
        ConfigError: it cannot be opened; the message holds no password.
    """
    url = _url(str(address)) if "://" in str(address) else None
    try:
        return _journal(Path(address)) if url is None else _database(url)
    except ImportError as error:
        cause: Any = error.__cause__ or error
        needed = "'seg[postgres]'" if url and url.drivername == "postgresql+psycopg" else cause.name
        said = f"{_said(cause, address)}. Run: pip install {needed}"
    except (SQLAlchemyError, OptunaError, OSError, ValueError, KeyError, RuntimeError) as error:
        fix = "Mend it, or move it away" if url is None else "Start it, or mend the address"
        said = f"{_said(error.__cause__ or error, address)}. {fix}"
    shown = address if url is None else without_passwords(url.render_as_string())
    raise ConfigError(f"hydra.sweeper.storage={shown} cannot be opened: {said}.")


def open_study(storage: Any, name: str, settings: Settings, space: Space | None, sampler: Any) -> Any:
    """Opens the study of a sweep, or makes it.

    Raises:
        ConfigError: the study is another sweep's, or the space has changed in what Optuna cannot change.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    optuna.logging.disable_default_handler()
    optuna.logging.enable_propagation()  # to the sweep's log, not through its live table
    study = optuna.create_study(
        storage=storage,
        study_name=name,
        directions=settings.directions,
        sampler=sampler,
        pruner=make_pruner(settings),
        load_if_exists=True,
    )
    asked = dict(zip(settings.objectives, settings.directions, strict=True))
    if (before := study.user_attrs.get("objectives", asked)) != asked:
        raise ConfigError(
            f"The storage has a sweep {name} already, whose objectives are {_listed(before)}, not {_listed(asked)}. "
            "Choose another hydra.sweeper.name."
        )
    together(ConfigError, changes(study.get_trials(deepcopy=False), space))
    study.set_user_attr("objectives", asked)
    return study


def _listed(objectives: Mapping[str, str]) -> str:
    return ", ".join(f"{name} ({direction})" for name, direction in objectives.items())


def first_said(storage: Any, name: str, word: T) -> T:
    """The word of whoever was the first to say one under this name; an attribute would keep the last.

    Of the trials of a study one is the first for every process, at whatever moment it asks.
    """
    words = optuna.create_study(storage=storage, study_name=name, load_if_exists=True)
    words.add_trial(create_trial(state=TrialState.WAITING, user_attrs={"word": word}))
    first: T = words.get_trials(deepcopy=False)[0].user_attrs["word"]
    return first


def close_storage(storage: Any) -> None:
    """Closes the connections to a database."""
    storage.remove_session()
    if isinstance(database := getattr(storage, "_backend", None), RDBStorage):
        database.engine.dispose()


def _journal(path: Path) -> Any:
    path = path.absolute()  # the lock is a link to it
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        _cut_half_line(path)
    return JournalStorage(JournalFileBackend(str(path)))


def _cut_half_line(path: Path) -> None:
    """Removes what a full disk left at the end: a line added to it could never be read."""
    lock = JournalFileSymlinkLock(str(path))
    lock.acquire()
    try:
        with path.open("rb+") as file:
            content = file.read()
            file.truncate(content.rfind(b"\n") + 1)
    finally:
        lock.release()


def _url(address: str) -> URL:
    try:
        url = make_url(address)
    except (ArgumentError, ValueError):
        url = None
    if url is None or "@" in (url.host or ""):  # parts of it may be the password's, so that none is shown
        raise ConfigError(
            "hydra.sweeper.storage is no address that can be read. It is postgresql://user:password@host/database; "
            "in a password @ is written as %40, : as %3A, / as %2F, % as %25."
        )
    return url.set(drivername="postgresql+psycopg") if url.drivername in ("postgresql", "postgres") else url


def _database(url: URL) -> Any:
    arguments: dict[str, Any] = {"pool_pre_ping": True}  # a connection that broke is replaced
    if url.drivername == "postgresql+psycopg" and "connect_timeout" not in url.query:
        arguments["connect_args"] = {"connect_timeout": 10}
    text = url.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")  # Optuna formats it
    for attempt in range(10):
        try:
            return RDBStorage(text, arguments)
        except _SAME_MOMENT as error:  # several processes make the tables of an empty database at once
            if attempt == 9 or isinstance(error.__cause__, OperationalError):
                raise
            time.sleep(random.uniform(0.1, 0.5))
    raise AssertionError


def _said(error: BaseException, address: str | Path) -> str:
    """The reason that an error gives, without the password of ``address``."""
    text = " ".join(str(error).split("(Background on")[0].split())
    return without_passwords(text, str(address))[:300].rstrip(". ") or type(error).__name__
