"""Which patients are for training, validation and test; the user's own split files; the check for leaks."""

import difflib
import hashlib
import logging
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from itertools import combinations, pairwise
from pathlib import Path
from typing import Literal

from seg.data.fingerprint import CasePrint, Fingerprint
from seg.data.lists import is_datalist, parts_of, read_json
from seg.errors import ConfigError, DataError, few, together
from seg.files import digest, seal, unseal

log = logging.getLogger(__name__)
PARTS = ("train", "val", "test")
Fold = int | Literal["all"]


@dataclass(frozen=True)
class Split:
    """Case ids of the three parts, each sorted, and where they come from."""

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]
    fold: Fold
    folds: int
    seed: int

    @cached_property
    def hash(self) -> str:
        """Of the ids of the parts alone: two runs with one hash saw the same cases in the same parts."""
        return digest([self.train, self.val, self.test])

    def scored(self, part: str) -> tuple[str, ...]:
        """The ids of ``inference.part``: test, val or none."""
        return {"test": self.test, "val": self.val, "none": ()}[part]

    def to_json(self) -> str:
        """Text that ``from_json`` and ``load_split`` read back."""
        return seal(asdict(self) | {"hash": self.hash}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> "Split":
        """Reads what ``to_json`` wrote.

        Raises:
            ValueError: the text is damaged.
        """
        content = unseal(text, earlier=True)
        train, val, test = (tuple(content[part]) for part in PARTS)
        return cls(train, val, test, fold=content["fold"], folds=content["folds"], seed=content["seed"])


def make_split(
    fingerprint: Fingerprint,  # of the whole data set
    *,
    fold: Fold,  # validated on, 0 … folds-1; "all" trains on everything but the test part and validates on nothing
    folds: int,  # parts of equal size (in patients, ±1), at least 2
    test_fraction: float,  # share of the patients kept back, 0 ≤ … < 1
    seed: int,  # of the lots
) -> Split:
    """Splits by patient, each part with small and large structures alike.

    Patients are put in order of foreground volume and cut into as many strata as the test part has patients; one of
    each goes to the test. The others, in the same order, are dealt out in rounds of ``folds``, one to each fold. Lots
    are drawn by hash, so the result is the same for ever and everywhere, and the test part depends on the patients,
    ``seed`` and ``test_fraction`` only, never on ``fold`` or ``folds``.

    Raises:
        ConfigError: a value is out of range, or there are fewer patients than parts.
        DataError: as ``check_split``.
    """
    volumes = _volumes(fingerprint)
    kept_back = max(1, math.floor(test_fraction * len(volumes) + 0.5)) if test_fraction > 0 else 0
    _check_arguments(fold, folds, test_fraction, len(volumes) - kept_back)
    ordered = sorted(volumes, key=lambda patient: (volumes[patient], patient))
    test = {_lots(stratum, seed, "test")[0] for stratum in _strata(ordered, kept_back)}
    rest = [patient for patient in ordered if patient not in test]
    rounds = [_lots(rest[start : start + folds], seed, "fold") for start in range(0, len(rest), folds)]
    val = {patients[fold] for patients in rounds if fold < len(patients)} if fold != "all" else set()
    parts = (set(rest) - val, val, test)
    train_ids, val_ids, test_ids = (
        tuple(sorted(case.id for case in fingerprint.cases if case.patient in part)) for part in parts
    )
    split = Split(train_ids, val_ids, test_ids, fold=fold, folds=folds, seed=seed)
    check_split(split, fingerprint)
    return split


def load_split(path: Path, fingerprint: Fingerprint, fold: Fold) -> Split:
    """Reads the user's split file: ``{"train": […], "val": […], "test": […]}``, or a list of those, one per fold.

    nnU-Net's ``splits_final.json``, which has no test part, is such a list. A datalist of MONAI has parts, too.

    Raises:
        DataError: the file cannot be read, has a key that means nothing, such as "validation", or as ``check_split``.
        ConfigError: there is no such fold in it.
    """
    content = read_json(path)
    entries = parts_of(path) if is_datalist(content) else content if isinstance(content, list) else [content]
    together(DataError, _strange_keys(entries, path))
    if not entries or not all(map(_is_split, entries)):
        raise DataError(f'{path}: {{"train": [ids], "val": [ids], "test": [ids]}} or a list of those is needed.')
    if fold == "all" or not 0 <= fold < len(entries):
        raise ConfigError(f"data.fold={fold}, but {path} has {len(entries)} entries: 0 to {len(entries) - 1}.")
    train, val, test = (tuple(sorted(entries[fold].get(part) or ())) for part in PARTS)
    split = Split(train, val, test, fold=fold, folds=len(entries), seed=0)
    check_split(split, fingerprint, str(path))
    if left := fingerprint.by_id.keys() - {*train, *val, *test}:
        log.warning("%s names no part for %d of %d cases: %s.", path, len(left), len(fingerprint.cases), few(left))
    return split


def check_split(split: Split, fingerprint: Fingerprint, source: str = "split") -> None:
    """Checks a split for leaks, since a test score on seen patients says nothing.

    Raises:
        DataError: lists every fault: nothing to train on, no structure in what is trained or validated on, a case that
            the data set does not have, a case named twice,
            one patient in two parts, or the same image bytes in two parts. ``source`` is named in it.
    """
    faults = [] if split.train else [f"{source}: train is empty."]
    known: dict[str, list[CasePrint]] = {}
    for part in PARTS:
        counts = Counter(getattr(split, part))
        if unknown := counts.keys() - fingerprint.by_id.keys():
            faults.append(f"{source}: {part} names cases that the data set does not have: {few(unknown)}.")
        if twice := [case_id for case_id, n in counts.items() if n > 1]:
            faults.append(f"{source}: {part} names cases twice: {few(twice)}.")
        known[part] = [fingerprint.by_id[case_id] for case_id in counts.keys() - unknown]
        if known[part] and part != "test" and not any(case.foreground_mm3 for case in known[part]):
            faults.append(
                f"{source}: no case of {part} has any structure. Split otherwise: data.split_seed, data.fold."
            )
    for one, other in combinations(PARTS, 2):
        if shared := {case.patient for case in known[one]} & {case.patient for case in known[other]}:
            theirs = [case.id for case in known[one] + known[other] if case.patient in shared]
            faults.append(
                f"{source}: cases of one patient are in both {one} and {other}: {few(theirs)}. A patient belongs to "
                "one part."
            )
        images = {case.image_sha256: case for case in known[one]}
        twins = [(images[case.image_sha256], case) for case in known[other] if case.image_sha256 in images]
        if named := [f"{a.id} = {b.id}" for a, b in twins if a.patient != b.patient]:
            faults.append(
                f"{source}: the same image is in both {one} and {other}: {few(named)}. Remove one, or give"
                " both one patient (data.patient)."
            )
    together(DataError, faults)
    for index, name in enumerate(fingerprint.classes):
        if index and not any(case.foreground_voxels.get(index) for case in known["train"]):
            log.warning("no training case has the class '%s': it cannot be learned.", name)


def _volumes(fingerprint: Fingerprint) -> dict[str, float]:
    """Mean foreground volume in mm³ by patient."""
    cases: dict[str, list[float]] = {}
    for case in fingerprint.cases:
        cases.setdefault(case.patient, []).append(case.foreground_mm3)
    return {patient: sum(volumes) / len(volumes) for patient, volumes in cases.items()}


def _check_arguments(fold: Fold, folds: int, test_fraction: float, patients: int) -> None:
    faults = []
    if not 0 <= test_fraction < 1:
        faults.append(f"data.test_fraction={test_fraction}; it must be at least 0 and below 1.")
    if folds < 2:
        faults.append(f"data.folds={folds}; at least 2 are needed, or data.fold=all.")
    elif fold != "all" and not 0 <= fold < folds:
        faults.append(f"data.fold={fold}; with data.folds={folds} it must be 0 to {folds - 1}, or all.")
    if patients < (1 if fold == "all" else folds):
        needed = "1 is" if fold == "all" else f"{folds} (data.folds) are"
        faults.append(f"{max(patients, 0)} patients are left after the test part; at least {needed} needed.")
    together(ConfigError, faults)


def _strata(ordered: Sequence[str], count: int) -> list[Sequence[str]]:
    """Cuts a sequence into ``count`` neighbouring runs whose lengths differ by one at most."""
    cuts = [len(ordered) * number // count for number in range(count + 1)] if count else []
    return [ordered[start:stop] for start, stop in pairwise(cuts)]


def _lots(patients: Iterable[str], seed: int, purpose: str) -> list[str]:
    """Shuffles by hash: NumPy does not promise the same random stream in its next version, SHA-256 does."""
    return sorted(patients, key=lambda patient: hashlib.sha256(f"{purpose}:{seed}:{patient}".encode()).digest())


def _strange_keys(entries: Sequence[object], path: Path) -> list[str]:
    """Keys other than those that ``Split.to_json`` writes: if ignored, a mistyped part would silently be empty."""
    known = [field.name for field in fields(Split)] + ["hash", "sha256"]
    strange = {key for entry in entries if isinstance(entry, dict) for key in entry} - set(known)
    nearest = {key: difflib.get_close_matches(key.lower(), known, 1, 0.4) for key in sorted(strange)}
    return [
        f"{path}: there is no key '{key}'. " + (f"Did you mean '{near[0]}'?" if near else f"Keys: {', '.join(PARTS)}.")
        for key, near in nearest.items()
    ]


def _is_split(entry: object) -> bool:
    if not (isinstance(entry, dict) and "train" in entry):
        return False
    parts = [entry.get(part) or [] for part in PARTS]
    return all(isinstance(ids, list) and all(isinstance(case_id, str) for case_id in ids) for ids in parts)
