"""Where a sweep's trials are kept: a journal file, or a database shared by several machines."""

import json
import logging
import os
import random
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import optuna
from optuna.exceptions import ExperimentalWarning, OptunaError, StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.storages.journal._file import get_lock_file
from sqlalchemy import URL, make_url, text
from sqlalchemy.exc import ArgumentError, InterfaceError, OperationalError, SQLAlchemyError

from seg.errors import ConfigError, SegError, without_passwords
from seg.records.folder import one_at_a_time

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

_PAUSES = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 60.0)  # seconds between attempts to reach a storage that went away
_PASSING = (OperationalError, InterfaceError, OSError)  # a server that restarts, a disk that is full


def patient(method: Callable[P, T]) -> Callable[P, T]:
    """Lets a method of an object with an ``address`` wait for its storage, and at last say why without a password."""

    @wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        address: str | Path = args[0].address  # type: ignore[attr-defined]
        for pause in (*_PAUSES, None):
            try:
                return method(*args, **kwargs)
            except (SQLAlchemyError, StorageInternalError, OSError) as error:
                reason = _reason(error.__cause__ or error, address)
                passing = isinstance(error, _PASSING) or isinstance(error.__cause__, _PASSING)
            if pause is None or not passing:
                break
            log.warning("The sweep's storage does not answer (%s); trying again in %.0f s.", reason, pause)
            time.sleep(pause)
        raise SegError(
            f"The sweep's storage does not answer: {reason}. Fix it; the same command then continues the sweep."
        )

    return call


def open_storage(address: str | Path) -> BaseStorage:
    """Opens a storage, or makes it.

    Args:
        address: a path of a journal file, or a database as ``postgresql://user:password@host/database``.

    Raises:
        ConfigError: it cannot be opened; the message holds no password.
    """
    hush()
    url = _url(str(address)) if "://" in str(address) else None
    try:
        return _journal(Path(address)) if url is None else _database(url)
    except ImportError as error:
        cause = error.__cause__ or error
        needed = "'seg[postgres]'" if url and url.drivername == "postgresql+psycopg" else getattr(cause, "name", "it")
        reason = f"{_reason(cause, address)}. Run: pip install {needed}"
    except (SQLAlchemyError, OptunaError, OSError, ValueError, KeyError, RuntimeError) as error:
        fix = "Fix it, or move it away" if url is None else "Start it, or correct the address"
        reason = f"{_reason(error.__cause__ or error, address)}. {fix}"
    shown = address if url is None else without_passwords(url.render_as_string())
    raise ConfigError(f"hydra.sweeper.storage={shown} cannot be opened: {reason}.")


@contextmanager
def alone(storage: BaseStorage, address: str | Path, name: str) -> Iterator[None]:
    """Held by one process at a time of all that share the sweep ``name``; it ends with the process that holds it."""
    if not isinstance(storage, RDBStorage):
        with one_at_a_time(Path(address).absolute().parent):
            yield
    elif storage.engine.dialect.name == "postgresql":
        with storage.engine.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": zlib.crc32(name.encode())})
            yield
    else:
        yield


def close_storage(storage: BaseStorage) -> None:
    """Closes the connections to a database."""
    storage.remove_session()
    if isinstance(storage, RDBStorage):
        storage.engine.dispose()


def _journal(path: Path) -> JournalStorage:
    path = path.absolute()  # the lock is a link to it
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        _cut_broken_line(path)
    return JournalStorage(_Journal(str(path)))


class _Journal(JournalFileBackend):
    """A journal that keeps no half line of a disk that was full, to which the next one would be added."""

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """As the parent's, but all or nothing."""
        lines = "".join(json.dumps(entry, separators=(",", ":")) + "\n" for entry in logs)
        with get_lock_file(self._lock), open(self._file_path, "ab") as file:
            end = file.seek(0, os.SEEK_END)
            try:
                file.write(lines.encode())
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                os.truncate(self._file_path, end)
                raise


def _cut_broken_line(path: Path) -> None:
    """Removes what a full disk or a power failure left at a journal's end: no line added to it could ever be read."""
    with get_lock_file(JournalFileSymlinkLock(str(path))), path.open("rb+") as file:
        lines = file.readlines()
        if lines and lines[0].startswith(b"{") and not _is_whole(lines[-1]):
            file.truncate(sum(map(len, lines[:-1])))


def _is_whole(line: bytes) -> bool:
    with suppress(ValueError):
        return line.endswith(b"\n") and isinstance(json.loads(line), dict)
    return False


def _url(address: str) -> URL:
    try:
        url = make_url(address)
    except (ArgumentError, ValueError):
        url = None
    if url is None or "@" in (url.host or ""):  # parts of it may be the password's, so that none is shown
        raise ConfigError(
            "hydra.sweeper.storage is not a valid address. The form is postgresql://user:password@host/database; "
            "in a password @ is written as %40, : as %3A, / as %2F, % as %25."
        )
    return url.set(drivername="postgresql+psycopg") if url.drivername in ("postgresql", "postgres") else url


def _database(url: URL) -> RDBStorage:
    arguments: dict[str, Any] = {"pool_pre_ping": True}  # a connection that broke is replaced
    if url.drivername == "postgresql+psycopg" and "connect_timeout" not in url.query:
        arguments["connect_args"] = {"connect_timeout": 10}
    address = url.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")  # Optuna formats it
    for attempt in range(10):
        try:
            return RDBStorage(address, arguments)
        except (SQLAlchemyError, StorageInternalError, AssertionError) as error:
            if attempt == 9 or isinstance(error.__cause__ or error, OperationalError):
                raise
            time.sleep(random.uniform(0.1, 0.5))  # several processes made the tables of an empty database at once
    raise AssertionError


def _reason(error: BaseException, address: str | Path) -> str:
    """The reason that an error gives, without the password of ``address``."""
    words = " ".join(str(error).split("(Background on")[0].split())
    return without_passwords(words, str(address))[:300].rstrip(". ") or type(error).__name__


def hush() -> None:
    """Sends Optuna's log to the sweep's, not through its live table, and leaves out remarks on what is experimental."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    optuna.logging.disable_default_handler()
    optuna.logging.enable_propagation()
    warnings.filterwarnings("ignore", category=ExperimentalWarning)
