"""Describes a data set: reads every file once, lists every fault, keeps what `auto` settings are derived from."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from seg.data import nifti
from seg.data.cases import Case, CaseSet
from seg.data.processors import processors
from seg.errors import DataError, together
from seg.files import atomic_write, sha256

FORMAT = 2  # raised when CasePrint or the checks change, so that every case is read again
QUANTILES = 100
MAX_VOXELS = 200_000  # of the foreground of one case; more do not move a quantile


@dataclass(frozen=True)
class Intensity:
    """Image values inside the foreground of one case, one channel: mean, standard deviation, and quantiles.

    ``quantiles`` are QUANTILES values at the levels (i + ½) / QUANTILES: an even sample of the distribution, so those
    of several cases put together are a sample of the data set in which every case weighs the same.
    """

    mean: float
    std: float
    quantiles: tuple[float, ...]


@dataclass(frozen=True)
class CasePrint:
    """One case: ``shape`` and ``spacing_mm`` in RAS+ order, hashes of the file bytes, voxels per class, intensities.

    ``voxels`` maps class index to its number of voxels (0 too, background left out). ``intensity`` has one entry a
    channel and is empty where the case has no foreground.
    """

    id: str
    patient: str
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    sha256: str
    image_sha256: str
    foreground_voxels: dict[int, int]
    intensity: tuple[Intensity, ...]

    @property
    def foreground_mm3(self) -> float:
        """Volume of all classes but background."""
        return sum(self.foreground_voxels.values()) * float(np.prod(self.spacing_mm))


@dataclass(frozen=True)
class Fingerprint:
    """All cases of a data set, or those that ``of`` kept, sorted by id."""

    cases: tuple[CasePrint, ...]
    channels: tuple[str, ...]
    classes: dict[str, int]

    @cached_property
    def hash(self) -> str:
        """Version of the data: changes with any byte of any file, and with the meaning of channels and classes."""
        return digest([sorted(case.sha256 for case in self.cases), self.channels, list(self.classes.items())])

    @cached_property
    def by_id(self) -> dict[str, CasePrint]:
        """Cases by id."""
        return {case.id: case for case in self.cases}

    def of(self, ids: Iterable[str]) -> "Fingerprint":
        """The same for some cases only: what may be known of a data set without looking at its test part."""
        return replace(self, cases=tuple(self.by_id[case_id] for case_id in sorted(set(ids))))

    def to_json(self) -> str:
        """Text that ``from_json`` reads back."""
        return json.dumps(asdict(self) | {"hash": self.hash})

    @classmethod
    def from_json(cls, text: str) -> "Fingerprint":
        """Reads what ``to_json`` wrote."""
        content = json.loads(text)
        return cls(tuple(map(_case_print, content["cases"])), tuple(content["channels"]), content["classes"])


def digest(content: Any) -> str:
    """Hexadecimal sha256 of plain data, by way of its JSON."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def fingerprint(caseset: CaseSet, cache: Path, workers: int | None = None) -> Fingerprint:
    """Reads, checks and describes every case.

    What was found in a case is kept in ``cache``, one JSON file per data set, and taken from there as long as its files
    keep size and time. ``workers`` are threads (unpacking and hashing run outside Python's lock); by default one a
    processor.

    Raises:
        DataError: lists **every** fault of every case: a file missing, empty, cut off or no NIfTI; another number of
            channels than declared; NaN or infinite voxels, or one value everywhere; files of one case on different
            grids; a label missing or with values that are not classes; the same case twice; no case at all.
    """
    faults = [] if caseset.cases else [f"{caseset.name}: no case was found."]
    counts = Counter(case.id for case in caseset.cases)
    faults += [f"case {case_id} appears {n} times; ids must be unique." for case_id, n in counts.items() if n > 1]
    path = cache / f"fingerprint-{_place(caseset)[:16]}.json"
    known, entries = _cached(path), {}

    def look(case: Case) -> list[str]:
        key, entry = _file_key(case), known.get(case.id)
        if key is None or entry is None or entry["key"] != key:
            found, of_case = _inspect(case, caseset)
            if found is None:
                return of_case
            entry = {"key": key, "print": asdict(found)}
        entries[case.id] = entry
        return []

    with ThreadPoolExecutor(workers or processors()) as pool:
        faults += chain.from_iterable(pool.map(look, caseset.cases))
    if entries != known:
        atomic_write(path, json.dumps(entries))
    together(DataError, faults)
    prints = [replace(_case_print(entries[case.id]["print"]), patient=case.patient) for case in caseset.cases]
    return Fingerprint(tuple(sorted(prints, key=lambda case: case.id)), caseset.channels, caseset.classes)


def _place(caseset: CaseSet) -> str:
    """Names the cache file: the place of the data, and what is counted in it."""
    place = os.path.commonpath([case.images[0].absolute().parent for case in caseset.cases]) if caseset.cases else ""
    return digest([FORMAT, place, caseset.channels, caseset.values])


def _cached(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):  # none yet, or damaged: read the data again
        return {}
    return content if isinstance(content, dict) else {}


def _file_key(case: Case) -> list[list[Any]] | None:
    try:
        stats = [(path, path.stat()) for path in (*case.images, case.label) if path]
    except OSError:
        return None
    return [[str(path.absolute()), stat.st_size, stat.st_mtime_ns] for path, stat in stats]


def _case_print(content: dict[str, Any]) -> CasePrint:
    values = content | {key: tuple(content[key]) for key in ("shape", "spacing_mm")}
    values["foreground_voxels"] = {int(index): n for index, n in content["foreground_voxels"].items()}
    values["intensity"] = tuple(Intensity(i["mean"], i["std"], tuple(i["quantiles"])) for i in content["intensity"])
    return CasePrint(**values)


def _inspect(case: Case, caseset: CaseSet) -> tuple[CasePrint | None, list[str]]:
    """Reads one case; all its faults, and what is known of it where there is none.

    Each file is read whatever is wrong with the others, so that one look at the list is enough to fix the data.
    """
    faults: list[str] = []
    headers: dict[Path, nifti.Header] = {}
    images: list[np.ndarray] = []
    label = None
    declared = 1 if len(case.images) > 1 else len(caseset.channels)
    for path in case.images:
        try:
            headers[path] = nifti.read_header(path)
            images.append(nifti.read_image([path])[0])
            faults += _image_faults(path, images[-1], declared)
        except DataError as e:
            faults.append(str(e))
    try:
        if case.label is None:
            raise DataError(f"case {case.id} has no label; every case here needs one.")
        headers[case.label] = nifti.read_header(case.label)
        label = nifti.read_label(case.label)
        faults += _label_faults(case.label, label, caseset)
    except DataError as e:
        faults.append(str(e))
    faults += _grid_faults(headers)
    if faults or label is None:
        return None, faults
    return _describe(case, images, headers[case.images[0]].affine, label, caseset.values), []


def _image_faults(path: Path, image: np.ndarray, declared: int) -> list[str]:
    """What is wrong with the voxels (C, X, Y, Z) of one file that should hold ``declared`` channels."""
    faults = []
    if len(image) != declared:
        faults.append(
            f"{path}: {len(image)} channels, but {declared} should be in this file. Declare the channels in"
            " dataset.json, or split the file."
        )
    bad = image.size - np.count_nonzero(np.isfinite(image))
    if bad:
        faults.append(f"{path}: {bad} voxels are NaN or infinite. Replace them, for instance by 0.")
    for number, channel in enumerate(image):
        if channel.min() == channel.max():
            which = f"channel {number}: " if len(image) > 1 else ""
            faults.append(
                f"{path}: {which}every voxel is {channel.flat[0]:g}, so there is nothing to see. Export it again or"
                " leave the case out."
            )
    return faults


def _label_faults(path: Path, label: np.ndarray, caseset: CaseSet) -> list[str]:
    values, counts = np.unique(label, return_counts=True)
    found = zip(values.tolist(), counts.tolist(), strict=True)
    if not (strange := {value: n for value, n in found if value not in caseset.values}):
        return []
    return [
        f"{path}: label values {strange} (value: voxels) are not classes; the classes are {caseset.classes}."
        " Add them to dataset.json or fix the file."
    ]


def _grid_faults(headers: dict[Path, nifti.Header]) -> list[str]:
    """Compares the files of one case with the first that could be read."""
    first = next(iter(headers), None)
    return [
        f"{path}: {nifti.grid(header)}, but {first.name} has {nifti.grid(headers[first])}."
        " All files of a case must share one grid: resample or re-export one of them."
        for path, header in headers.items()
        if first and not nifti.same_grid(headers[first], header)
    ]


def _describe(
    case: Case, images: Sequence[np.ndarray], affine: np.ndarray, label: np.ndarray, values: Sequence[int]
) -> CasePrint:
    """Facts of a sound case; images (C, X, Y, Z), one per file, and label (X, Y, Z) in the files' own orientation."""
    turned, affine = nifti.to_ras(label, affine)
    per_class = {index: int(np.count_nonzero(label == value)) for index, value in enumerate(values) if value}
    channels = [channel for image in images for channel in image if any(per_class.values())]
    image_sha256 = sha256(*case.images)
    label_sha256 = sha256(*[case.label] if case.label else [])
    return CasePrint(
        id=case.id,
        patient=case.patient,
        shape=turned.shape,
        spacing_mm=tuple(np.round(nifti.spacing_mm(affine), 6).tolist()),
        sha256=hashlib.sha256((image_sha256 + label_sha256).encode()).hexdigest(),
        image_sha256=image_sha256,
        foreground_voxels=per_class,
        intensity=tuple(_intensity(channel[label != 0]) for channel in channels),
    )


def _intensity(values: np.ndarray) -> Intensity:
    values = values[:: max(1, values.size // MAX_VOXELS)].astype(np.float64)
    quantiles = np.quantile(values, (np.arange(QUANTILES) + 0.5) / QUANTILES)
    short = tuple(float(f"{value:.6g}") for value in quantiles)
    return Intensity(float(values.mean()), float(values.std()), short)
