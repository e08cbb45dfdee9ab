"""What a study asked, kept in its sweep's folder."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

from seg.errors import ConfigError, DataError
from seg.files import atomic_write

log = logging.getLogger(__name__)
FILE = "study.json"
CLAIMS = {"better": "better than", "equivalent": "equivalent to", "not_worse": "not worse than"}
"""What a locked study may claim of each arm beside the one that it is compared with."""


class Seeds(NamedTuple):
    """Seeds until decided: how many an arm is trained with."""

    start: int  # before the first look
    most: int  # at the last


@dataclass(frozen=True)
class Asked:
    """What a study asked, kept in its sweep's folder."""

    name: str
    sweep: str
    question: str
    arms: tuple[str, ...]  # the baseline first
    different: dict[str, dict[str, list[object]]]  # what each arm changes, resolved: [the baseline's value, the arm's]
    factors: dict[str, dict[str, str]]  # of a factorial design: for each factor the level of each arm
    against: tuple[str, ...]
    margin: float  # of the primary metric, in its unit
    runs: int  # that make it whole
    primary: str = "dice"  # metric that it is judged by
    secondary: tuple[str, ...] = ("nsd", "hd95_mm")
    classes: tuple[str, ...] | None = None  # that it is judged by; None: all
    leaks: tuple[str, ...] = ()  # that were found and allowed, and what may be one, in sentences
    base: dict[str, object] = field(default_factory=dict)  # what its file sets for all arms
    jitter: dict[str, float] = field(default_factory=dict)  # by class: Dice that half a voxel of doubt costs
    groups: dict[str, dict[str, str]] | None = None  # of the patients, or of the cases
    planned: float | None = None  # smallest difference that it would find, by its plan; None: not known, or none
    until: tuple[int, int] | None = None  # Seeds, where seeds are added until it is decided; None: all are trained
    anchors: dict[str, str] = field(default_factory=dict)  # by name: the text of its file (seg.study.anchors)
    lock: bool = False  # whether it was locked before its first run
    claim: str = "better"  # what a locked study claims of each arm: see seg.study.lock
    part: str = ""  # which version of which cases it scores: seg.records.readings; "": not known

    def write(self, folder: Path) -> None:
        """Keeps it in ``folder``."""
        atomic_write(folder / FILE, json.dumps(asdict(self), indent=1))

    @classmethod
    def read(cls, folder: Path) -> "Asked":
        """What ``write`` kept.

        Raises:
            DataError: the file is damaged, or of another version of seg.
        """
        try:
            content = json.loads((folder / FILE).read_text("utf-8"))
            lists = {key: tuple(value) for key, value in content.items() if isinstance(value, list)}
            return cls(**content | lists)
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise DataError(
                f"{folder / FILE} cannot be read ({error}): it is damaged, or another version of seg wrote it."
            ) from error


def study_name(given: str) -> str:
    """The name of a study by what ``experiments=`` or ``study=`` says; it leads out of no folder."""
    return given.removesuffix(".yaml").replace("/", "-").lstrip(".-") or "study"


def find_sweep(outputs: Path, study: str) -> Path:
    """The folder of the latest sweep of a study, named as in ``experiments=sub/name``, or by its sweep.

    Of those that can be read: the others are named in a warning.

    Raises:
        ConfigError: there is none.
        DataError: the sweep of that very name cannot be read.
    """
    found = sorted((outputs / "sweeps").glob(f"*/{FILE}"), key=lambda path: path.stat().st_mtime)
    names = {}
    for folder in (path.parent for path in found):
        try:
            names[folder] = Asked.read(folder).name
        except DataError as error:
            if folder.name == study:
                raise
            log.warning("Left out: %s", error)
    if mine := [folder for folder, name in names.items() if {study, study_name(study)} & {name, folder.name}]:
        return mine[-1]
    there = ", ".join(sorted(set(names.values()))) or "none"
    raise ConfigError(
        f"No sweep of the study {study} is in {outputs / 'sweeps'}; the studies there: {there}. "
        f"Run it: python -m seg.train -m experiments={study}"
    )


def changes(different: Mapping[str, Sequence[object]]) -> list[str]:
    """What an arm changes, one line per key; keys that come with another option are summed up by its name.

    Args:
        different: ``{key: [the baseline's value, the arm's]}``, None where one has no such key.
    """
    options = tuple(key.removesuffix("_target_") for key in different if key.endswith("._target_"))
    return [
        f"{key}: {'–' if before is None else before} → {'–' if after is None else after}"
        for key, (before, after) in different.items()
        if (None if before == {} else before) != (None if after == {} else after)  # what an option none leaves
        and not key.endswith("._partial_")
        and not (after is None and key.startswith(options) and not key.endswith("._target_"))
    ] or ["the baseline"]
