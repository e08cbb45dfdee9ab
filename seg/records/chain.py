"""Append-only lists whose entries carry the hash of the one before: a change of an earlier one does not go unseen."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import TypeVar


@dataclass(frozen=True)
class Link:
    """An entry of a chain; a subclass says what it tells."""

    number: int
    time: str  # ISO 8601, UTC
    previous: str = field(default="", kw_only=True)  # hash of the entry before

    @property
    def text(self) -> str:
        """As it is kept."""
        return json.dumps(asdict(self), sort_keys=True, ensure_ascii=False)

    @property
    def hash(self) -> str:
        """Of the text, and so of all entries before."""
        return hashlib.sha256(self.text.encode()).hexdigest()


L = TypeVar("L", bound=Link)


def read_chain(kind: type[L], kept: Mapping[str, str]) -> tuple[list[L], list[str]]:
    """The entries that can be read, and where the chain is broken.

    Args:
        kind: of the entries.
        kept: their texts, by their numbers with four digits or more.
    """
    entries, faults, previous = list[L](), list[str](), ""
    for number, key in enumerate(sorted(kept, key=lambda key: (len(key), key)), 1):
        entry = read_link(kind, kept[key])
        if entry is None:
            faults.append(f"entry {key} cannot be read")
            continue
        if (key, entry.number) != (f"{number:04}", number):
            faults.append(f"entry {key} is out of place: {number:04} was to be next")
        if entry.previous != previous:
            faults.append(f"entry {key} does not continue the one before, which was changed or removed")
        if entry.text != kept[key]:
            faults.append(f"entry {key} is not as it was written")
        entries.append(entry)
        previous = entry.hash
    return entries, faults


def read_link(kind: type[L], text: str) -> L | None:
    """An entry from its text; None where that is damaged."""
    try:
        entry = kind(**json.loads(text))
        datetime.fromisoformat(entry.time)
        right = type(entry.number) is int and entry.text.encode()
    except (ValueError, TypeError):
        return None
    words = (value for key, value in asdict(entry).items() if key != "number")
    return entry if right and all(isinstance(word, str) for word in words) else None
