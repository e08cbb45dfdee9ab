"""The folders of a run: which run owns which, so that two runs never mix, and the files in them.

Each run has ``<outputs>/runs/run_<short>/`` and ``<outputs>/predictions/run_<short>/``, where ``short`` is the first
eight characters of its run id, or more where those are taken. A file ``run_id`` in both names the owner.
"""

import errno
import os
import re
import shlex
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from omegaconf import DictConfig, OmegaConf

from seg.errors import ConfigError, DataError
from seg.files import PRIVATE, atomic_folder

SHORT = 8
OWNER = "run_id"
T = TypeVar("T")


class _File:
    """A file of a run by its place in the run's folder."""

    def __init__(self, *place: str) -> None:
        self.place = Path(*place)

    def __get__(self, folder: "RunFolder", _: object) -> Path:
        return folder.run / self.place


@dataclass(frozen=True)
class RunFolder:
    """Where a run writes; the one place that knows the names of its files."""

    run_id: str
    short: str
    run: Path
    predictions: Path

    config = _File("config", "config.yaml")  # resolved
    computing = _File("config", "computing.json")  # precision and layout that were chosen
    split = _File("data", "split.json")  # which cases were trained on, validated and scored
    fingerprint = _File("data", "fingerprint.json")  # of the data: classes, channels, and the hash of each case
    plan = _File("data", "plan.json")  # what every ``auto`` of the data became
    cases = _File("data", "cases.csv")  # scores, a row per case and class
    confidence = _File("data", "confidence.json")  # of the scored cases, by class: mean probability within its mask
    calibration = _File("data", "calibration.csv")  # of the scored cases: ece and ace by class
    history = _File("history.csv")  # numbers, a row an epoch
    summary = _File("summary.json")  # last numbers, once the run has finished or was pruned
    log = _File("log.txt")  # its log lines, with times
    pending = _File("pending")  # is there while a sink may lack something of the run
    model_pending = _File("pending.model")  # is there while its network is to be logged as a model
    _sent = _File("record.sent")  # of version 0.1.0: how many bytes of the journal had been sent

    @classmethod
    def of(cls, outputs: Path, run_id: str, short: str) -> "RunFolder":
        """The two folders of that name, whether or not they exist."""
        return cls(run_id, short, outputs / "runs" / f"run_{short}", outputs / "predictions" / f"run_{short}")

    @classmethod
    def at(cls, run: Path) -> "RunFolder":
        """That of the run whose own folder is ``run``.

        Raises:
            DataError: it is not a run's folder.
        """
        if not (run_id := owner(run)):
            raise DataError(f"{run} is not a run's folder: it has no file {OWNER} that names its run.")
        run = run.absolute()
        return cls(run_id, run.name.removeprefix("run_"), run, run.parent.parent / "predictions" / run.name)

    @property
    def outputs(self) -> Path:
        """What holds the folders of all runs."""
        return self.run.parent.parent

    def checkpoint(self, name: str) -> Path:
        """``last`` or ``best``."""
        return self.run / "checkpoints" / f"{name}.pt"

    def chosen(self, wanted: str) -> Path:
        """The checkpoint ``wanted``; the other one where it is not there: no validation made a best one, say."""
        other = self.checkpoint("last" if wanted == "best" else "best")
        return other if other.exists() and not self.checkpoint(wanted).exists() else self.checkpoint(wanted)

    @property
    def is_pending(self) -> bool:
        """Whether a sink may lack something, the model included."""
        journal = self.run / "record.jsonl"
        old = self._sent.exists() and journal.exists() and int(self._sent.read_text("utf-8")) < journal.stat().st_size
        return self.pending.exists() or self.model_pending.exists() or old

    @property
    def last_sign(self) -> float:
        """When its record last got a line, in seconds since the epoch; 0 where it has none."""
        journal = self.run / "record.jsonl"
        return journal.stat().st_mtime if journal.exists() else 0.0

    def arrived(self) -> None:
        """Notes that the sink has all of the run's record."""
        for mark in (self.pending, self._sent):
            mark.unlink(missing_ok=True)

    def read(self, path: Path, parse: Callable[[str], T]) -> T:
        """What ``parse`` makes of the text of one of these files.

        Raises:
            DataError: it is missing or damaged.
        """
        try:
            return parse(path.read_text("utf-8"))
        except FileNotFoundError:
            fault = f"Run {self.short} has no {path}: it ended before it wrote one, or it was removed."
        except Exception as error:  # of JSON, YAML, and of whatever a field that is null or missing does not have
            said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            fault = f"{path} is damaged ({said}). Restore it from a copy, or leave run {self.short} out."
        raise DataError(fault)

    def read_config(self) -> DictConfig:
        """The resolved configuration; DataError as ``read``."""

        def parsed(text: str) -> DictConfig:
            cfg = OmegaConf.create(text)
            if not isinstance(cfg, DictConfig) or not cfg:
                raise ValueError("it has no sections")
            return cfg

        return self.read(self.config, parsed)


def claim(outputs: Path, run_id: str, *, predictions: bool = True) -> RunFolder:
    """Makes the run's folders its own, or finds them again where the run is resumed.

    A folder appears with its owner's name already inside, so of several processes that want one name exactly one
    gets it and the others take a longer one.

    Args:
        outputs: holds ``runs`` and ``predictions``; made where missing.
        run_id: digits and lower-case letters.
        predictions: whether to make the folder of predictions, too.

    Raises:
        ConfigError: ``run_id`` has other characters, which might lead out of ``outputs``.
    """
    if not re.fullmatch("[0-9a-z]+", run_id):
        raise ConfigError(f"The run id {run_id!r} must consist of digits and lower-case letters.")
    lengths = range(min(SHORT, len(run_id)), len(run_id) + 1)
    names = [RunFolder.of(outputs, run_id, run_id[:length]) for length in lengths]
    own = [folder for folder in names if owner(folder.run) == run_id]
    for folder in own or names:
        free = owner(folder.predictions) in (None, run_id)
        if free and take(folder.run, run_id) and (not predictions or take(folder.predictions, run_id)):
            return folder
    raise ConfigError(f"Every folder run {run_id} could have under {outputs} is taken. Move {names[-1].run} away.")


def take(folder: Path, run_id: str) -> bool:
    """Makes ``folder`` with its owner's name inside in one step; whether it is this run's now."""
    if owner(folder) is None:
        with atomic_folder(folder, mode=PRIVATE) as draft:
            (draft / OWNER).write_text(run_id + "\n", "utf-8")
    return owner(folder) == run_id


def owner(folder: Path) -> str | None:
    """The run id in ``folder``; None if there is no folder, "" if it belongs to no run (a link, for example)."""
    if not os.path.lexists(folder):
        return None
    try:
        content = "" if folder.is_symlink() else (folder / OWNER).read_text("utf-8").strip()
    except (OSError, ValueError):  # ValueError: it is no text
        return ""
    return content if re.fullmatch("[0-9a-z]+", content) else ""


def claimed(outputs: Path, kind: str = "runs") -> list[RunFolder]:
    """Every run that has a folder in ``<outputs>/<kind>``, in the order of their names.

    Raises:
        ConfigError: there is no folder ``outputs``.
    """
    if not outputs.is_dir():
        raise ConfigError(f"There is no folder {outputs}. Say where the runs are: paths.outputs=…")
    names = [(owner(path), path.name.removeprefix("run_")) for path in sorted((outputs / kind).glob("run_*"))]
    return [RunFolder.of(outputs, run_id, short) for run_id, short in names if run_id]


def by_id(outputs: Path) -> dict[str, RunFolder]:
    """Every run that has a folder in ``outputs``, by its id; raises as ``claimed``."""
    return {folder.run_id: folder for folder in claimed(outputs)}


def find(outputs: Path, run: str) -> RunFolder:
    """The folders of the run that the user means.

    Args:
        outputs: where to look.
        run: the run id, its beginning, or one of the run's folders.

    Raises:
        ConfigError: no run or several are meant.
    """
    place = Path(run)
    named = owner(place) if place.name.startswith("run_") else None
    if named and place.resolve().parent.parent != outputs.resolve():
        raise ConfigError(f"{run} is not in {outputs}. Set paths.outputs={place.resolve().parent.parent}.")
    wanted = named or run.removeprefix("run_")
    known = claimed(outputs)
    meant = [folders for folders in known if wanted and folders.run_id.startswith(wanted)]
    if len(meant) == 1:
        return meant[0]
    ids = ", ".join(folders.run_id for folders in (meant or known)[:10])
    if meant:
        raise ConfigError(f"Run {run} may be any of {ids}. Give more characters of the id.")
    raise ConfigError(f"There is no run {run} in {outputs / 'runs'}, which holds {ids or 'no run at all'}.")


def place_given(outputs: Path) -> str:
    """What a command says to look in ``outputs``: `` paths.outputs=…``; nothing where it would look there anyway."""
    return "" if outputs == Path("outputs") else f" {shlex.quote(f'paths.outputs={outputs}')}"


@contextmanager
def one_at_a_time(outputs: Path, wait_s: float = 300) -> Iterator[None]:
    """Held by one process at a time, for what several that start together must not do at once.

    The lock is sqlite's own: every platform has it, and it ends with the process that holds it.

    Raises:
        PermissionError: another process held it for ``wait_s``, or nothing may be written there.
    """
    outputs.mkdir(parents=True, exist_ok=True)
    place = outputs / ".lock"
    with ExitStack() as held:
        try:
            lock = held.enter_context(closing(sqlite3.connect(place, timeout=wait_s, isolation_level=None)))
            lock.execute("BEGIN EXCLUSIVE")
        except sqlite3.Error as error:
            raise PermissionError(errno.EACCES, f"It cannot be locked ({error})", str(place)) from None
        yield
