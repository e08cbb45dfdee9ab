"""The ledger of test parts: who read the scores of which cases, and when. Append-only, chained by hashes.

``<outputs>/readings.jsonl`` has a line for each reading. A study is one reading from its first finished run on, however
often it is reported; a run of no study is one once it is scored. What is read again is no further reading.
"""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from seg.errors import counted, few
from seg.files import atomic_write, digest
from seg.records.chain import Link, read_chain, read_link
from seg.records.folder import one_at_a_time

log = logging.getLogger(__name__)
FILE = "readings.jsonl"
NOTE = "reading.json"  # in a study's folder: its own line of the ledger, should that be lost


@dataclass(frozen=True)
class Reading(Link):
    """Scores of a part were read."""

    part: str  # which version of which cases: ``part_of``
    kind: str  # study | run
    reader: str  # run id: of the study's own run, or of the run
    name: str  # of the study, or of the run


@dataclass(frozen=True)
class Readings:
    """The readings of a part, the first one first, and what is wrong with the ledger."""

    known: tuple[Reading, ...]
    faults: tuple[str, ...] = ()

    @property
    def studies(self) -> list[str]:
        """Those who read it as a study."""
        return [reading.reader for reading in self.known if reading.kind == "study"]

    def place(self, study: str) -> int:
        """Which of the studies on this part it is, from 1; 1 where it has not read it."""
        return self.studies.index(study) + 1 if study in self.studies else 1

    def told(self, subject: str) -> list[str]:
        """How often the part was read, and what is wrong with the ledger; ``subject``: ``This test part has``."""
        said = []
        if self.known:
            studies = len(self.studies)
            since = f"{datetime.fromisoformat(self.known[0].time):%d %B %Y}".lstrip("0")
            said.append(
                f"{subject} been read {counted(len(self.known), 'time')}, by {studies} "
                f"{'study' if studies == 1 else 'studies'}, since {since}."
            )
        if self.faults:
            said.append(
                f"The ledger of such readings ({FILE}) was changed or is damaged, so there may have been more of them: "
                f"{few(self.faults)}."
            )
        return said


def part_of(hashes: Mapping[str, str]) -> str:
    """The version of a set of cases, by the hash of each case's files."""
    return digest(sorted(hashes.items())) if hashes else ""


def note_reading(
    outputs: Path, part: str, *, kind: str, reader: str, name: str, folder: Path | None = None
) -> Readings:
    """Adds a reading to the ledger, unless this reader has read the part before; all readings of the part.

    A ledger that cannot be written is said in the log, and stops nothing.

    Args:
        outputs: holds the ledger.
        part: of ``part_of``; "": none was read.
        kind: study or run.
        reader: run id.
        name: for people.
        folder: of the study, which keeps its line, too.
    """
    try:
        with one_at_a_time(outputs):
            found = readings(outputs, part)
            mine = next((reading for reading in found.known if reading.reader == reader), None)
            if part and mine is None:
                mine = _appended(outputs, Reading(0, datetime.now(UTC).isoformat(), part, kind, reader, name))
            if mine and folder and not (folder / NOTE).exists():
                atomic_write(folder / NOTE, mine.text)
    except OSError as error:
        log.warning("That these scores were read could not be noted in %s: %s", outputs / FILE, error)
    return readings(outputs, part)


def readings(outputs: Path, part: str) -> Readings:
    """The readings of a part, also those that studies noted and the ledger has lost."""
    try:
        entries, faults = read_chain(Reading, _kept(outputs))
        notes = [path.read_text("utf-8", errors="replace") for path in sorted((outputs / "sweeps").glob(f"*/{NOTE}"))]
    except OSError as error:
        return Readings((), (f"it cannot be read: {error}",))
    known = {entry.hash: entry for entry in entries}
    for noted in filter(None, (read_link(Reading, note) for note in notes)):
        if noted.hash not in known:
            faults.append(f"entry {noted.number:04}, of the study {noted.name}, was changed or removed")
            known[noted.hash] = noted
    mine: dict[str, Reading] = {}
    for entry in sorted(known.values(), key=lambda entry: entry.time):
        if entry.part == part:
            mine.setdefault(entry.reader, entry)
    return Readings(tuple(mine.values()), tuple(faults))


def _kept(outputs: Path) -> dict[str, str]:
    """The lines of the ledger by their numbers; none where there is no ledger yet."""
    path = outputs / FILE
    text = path.read_text("utf-8", errors="replace") if path.exists() else ""
    return {f"{number:04}": line for number, line in enumerate(text.removesuffix("\n").split("\n"), 1) if text}


def _appended(outputs: Path, reading: Reading) -> Reading:
    """The reading as it is in the ledger. Half a line that is there already stays, for it may tell something."""
    kept = _kept(outputs)
    entries, _ = read_chain(Reading, kept)
    last = entries[-1].hash if entries else ""
    reading = replace(reading, number=len(kept) + 1, previous=last)
    with (outputs / FILE).open("ab+") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
        begun = file.read(1) not in (b"", b"\n")
        file.write(b"\n" * begun + reading.text.encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    return reading
