"""Describes a data set: reads every file once, lists every fault, keeps what `auto` settings are derived from."""

import filecmp
import hashlib
import logging
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

from seg.data import grids, nifti, volumes
from seg.data.cases import Case, CaseSet
from seg.data.checks import SHEAR, grid_faults, image_faults, label_faults, notes, repeated
from seg.data.processors import processors
from seg.errors import DataError, counted, few, together
from seg.files import atomic_write, digest, seal, sha256, tuples, unseal
from seg.regions import Regions, among

log = logging.getLogger(__name__)
FORMAT = 6  # raised when CasePrint or the checks change, so that every case is read anew
QUANTILES = 100
LISTED = 50  # oddities of headers that the log has in full
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
    image: tuple[float, float] | None = None  # mean and standard deviation of the non-zero voxels of the whole image


@dataclass(frozen=True)
class CasePrint:
    """One case: ``shape`` and ``spacing_mm`` in RAS+ order, hashes of the file bytes, voxels per class, intensities.

    ``foreground_voxels`` maps the index of a class, or region, to its number of voxels (0 too, background left out).
    ``intensity`` has one entry a channel and is empty where the case has no foreground.
    """

    id: str
    patient: str
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    sha256: str
    image_sha256: str
    foreground_voxels: dict[int, int]
    intensity: tuple[Intensity, ...]
    oriented: bool = True  # whether its image says how its axes lie
    unit: grids.Unit = "mm"  # what its sizes are in; of pictures, pixels
    cropped: tuple[int, int, int] | None = None  # shape of the box of its non-zero voxels; None: an earlier version's

    @property
    def kept(self) -> tuple[int, int, int]:
        """Shape of what preprocessing keeps: the box of non-zero voxels."""
        return self.cropped or self.shape

    @property
    def foreground_mm3(self) -> float:
        """Volume of all classes but background; of all regions, so that a voxel of several counts for each."""
        return sum(self.foreground_voxels.values()) * float(np.prod(self.spacing_mm))


@dataclass(frozen=True)
class Fingerprint:
    """All cases of a data set, or those that ``of`` kept, sorted by id; ``ignore`` and ``regions`` as in CaseSet."""

    cases: tuple[CasePrint, ...]
    channels: tuple[str, ...]
    classes: dict[str, int]
    ignore: int | None = None
    regions: Regions | None = None

    @cached_property
    def hash(self) -> str:
        """Version of the data: changes with any byte of any file, and with the meaning of channels and classes."""
        ignored = [] if self.ignore is None else [("ignore", self.ignore)]
        classes = [*self.classes.items(), *ignored, *([self.regions] if self.regions else [])]
        return digest([sorted(case.sha256 for case in self.cases), self.channels, classes])

    @property
    def unit(self) -> grids.Unit:
        """What sizes are in, whether or not they are called mm: pixels in a set of pictures."""
        return self.cases[0].unit

    @cached_property
    def by_id(self) -> dict[str, CasePrint]:
        """Cases by id."""
        return {case.id: case for case in self.cases}

    def of(self, ids: Iterable[str]) -> "Fingerprint":
        """The same for some cases only: what may be known of a data set without looking at its test part."""
        return replace(self, cases=tuple(self.by_id[case_id] for case_id in sorted(set(ids))))

    def to_json(self) -> str:
        """Text that ``from_json`` reads back."""
        return seal(asdict(self) | {"hash": self.hash})

    @classmethod
    def from_json(cls, text: str) -> "Fingerprint":
        """Reads what ``to_json`` wrote.

        Raises:
            ValueError: the text is damaged.
        """
        content = unseal(text, earlier=True)
        cases, channels = tuple(map(_case_print, content["cases"])), tuple(content["channels"])
        return cls(cases, channels, content["classes"], content.get("ignore"), tuples(content.get("regions")))


def fingerprint(
    caseset: CaseSet, cache: Path, workers: int | None = None, *, allow_shear: bool = False, empty: bool = False
) -> Fingerprint:
    """Reads, checks and describes every case.

    What was found in a case is kept in ``cache``, one JSON file per data set, and taken from there as long as its files
    keep size and times. ``workers`` are threads (unpacking and hashing run outside Python's lock); by default one a
    processor. What is odd but can be read is logged: headers that contradict themselves, classes that no case has.

    Raises:
        DataError: lists **every** fault of every case: a file missing, empty, damaged or no NIfTI; another number of
            channels than declared; NaN or infinite voxels, or one value everywhere; files of one case on different
            grids; sheared axes, unless ``allow_shear``; a label missing or with values that are not classes; the same
            case twice; no case at all, or no structure in any, unless ``empty``.
    """
    faults = [] if caseset.cases else [f"{caseset.name}: no case was found."]
    counts = Counter(case.id for case in caseset.cases)
    faults += [f"case {case_id} appears {n} times; ids must be unique." for case_id, n in counts.items() if n > 1]
    path = cache / f"fingerprint-{_place(caseset)[:16]}.json"
    known, entries = _cached(path), {}

    def look(case: Case) -> list[str]:
        key, entry = _file_key(case), known.get(case.id)
        if key is None or entry is None or entry["key"] != key:
            found, said, of_case = _inspect(case, caseset)
            if found is None:
                return of_case
            entry = {"key": key, "print": asdict(found), "notes": said}
        entries[case.id] = entry
        return [] if allow_shear else [f"{path}: {note}." for path, note in entry["notes"] if note == SHEAR]

    with ThreadPoolExecutor(workers or processors()) as pool:
        faults += chain.from_iterable(pool.map(look, caseset.cases))
    if (kept := known | entries) != known:  # these may be a part of the data set
        atomic_write(path, seal({"cases": kept}))
    if not (faults or empty or any(any(one["print"]["foreground_voxels"].values()) for one in entries.values())):
        faults.append(
            f"{caseset.name}: no case has any structure: all labels are 0 everywhere. Are they the right files?"
        )
    together(DataError, faults)
    units = Counter(entry["print"].get("unit", "mm") for entry in entries.values())
    if len(units) > 1:
        raise DataError(
            f"{caseset.name}: {units['pixels']} cases are pictures, measured in pixels, and {units['mm']} are volumes, "
            "measured in mm. A data set has one of the two: take the others away."
        )
    prints = [replace(_case_print(entries[case.id]["print"]), patient=case.patient) for case in caseset.cases]
    prints.sort(key=lambda case: case.id)
    found = Fingerprint(tuple(prints), caseset.channels, caseset.classes, caseset.ignore, caseset.regions)
    _warn(found, [note for case in prints for note in entries[case.id]["notes"]])
    return found


def _warn(found: Fingerprint, notes: Sequence[Sequence[str]]) -> None:
    """Logs what is odd: every note on a header, and the classes that no case has."""
    files: dict[str, list[str]] = {}
    for path, note in notes:
        files.setdefault(note, []).append(path)
    if files:
        lines = "".join(f"\n  {few(paths)}: {note}." for note, paths in [*files.items()][:LISTED])
        lines += f"\n  … and {len(files) - LISTED} more of the kind." if len(files) > LISTED else ""
        log.warning("headers of %d files want a look:%s", len({path for path, _ in notes}), lines)
    for index, name in enumerate(found.classes):
        if index and not any(case.foreground_voxels[index] for case in found.cases):
            log.warning("no case has the class '%s': it is in no mean.", name)


def _place(caseset: CaseSet) -> str:
    """Names the cache file: the place of the data, and what is counted in it."""
    place = os.path.commonpath([case.images[0].absolute().parent for case in caseset.cases]) if caseset.cases else ""
    return digest([FORMAT, place, caseset.channels, caseset.labels, caseset.ignore])


def _cached(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = unseal(path.read_bytes())["cases"]
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError) as e:
        log.warning("%s is damaged (%s): every file is read again.", path, e)
        return {}
    return content


def _file_key(case: Case) -> list[list[object]] | None:
    try:
        stats = [(path, path.stat()) for path in volumes.files_of(path for path in (*case.images, case.label) if path)]
    except (OSError, DataError):
        return None
    return [[str(path.absolute()), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns] for path, stat in stats]


def _case_print(content: dict[str, Any]) -> CasePrint:
    values = {key: tuples(value) for key, value in content.items()}
    values["foreground_voxels"] = {int(index): n for index, n in content["foreground_voxels"].items()}
    values["intensity"] = tuple(Intensity(**{key: tuples(v) for key, v in one.items()}) for one in content["intensity"])
    return CasePrint(**values)


def _inspect(case: Case, caseset: CaseSet) -> tuple[CasePrint | None, list[tuple[str, str]], list[str]]:
    """Reads one case; what is known of it where there is no fault, what is odd about its headers, and all its faults.

    Each file is read whatever is wrong with the others, so that one look at the list is enough to fix the data.
    """
    faults: list[str] = []
    headers: dict[Path, grids.Header] = {}
    images: list[np.ndarray] = []
    label = None
    channels = caseset.channels
    declared = 1 if len(case.images) > 1 else len(channels)
    if len(case.images) not in (1, len(channels)):
        faults.append(
            f"case {case.id} has {counted(len(case.images), 'image')}; there are {counted(len(channels), 'channel')} "
            f"({', '.join(channels)}). Each case needs one image a channel."
        )
    for path in case.images:
        try:
            headers[path] = volumes.read_header(path)
            images.append(volumes.read_image([path])[0])
            faults += image_faults(path, images[-1], declared)
        except DataError as e:
            faults.append(str(e))
    try:
        if case.label is None:
            raise DataError(
                f"case {case.id} has no label; every case here needs one. Add it, take the case out of the folder, or "
                "list the others in a cases.csv (case,image,label)."
            )
        headers[case.label] = volumes.read_header(case.label)
        label = volumes.read_label(case.label)
        faults += label_faults(case.label, label, caseset)
        if any(filecmp.cmp(case.label, path, shallow=False) for path in case.images if path in headers):
            faults.append(f"{case.label}: is one of its images, byte for byte. Put the right file in its place.")
    except DataError as e:
        faults.append(str(e))
    faults += grid_faults(headers)
    if faults or label is None:
        return None, [], faults
    said = notes(headers) + [(str(path), note) for path, note in repeated(case.images, images)]
    return _describe(case, images, headers[case.images[0]], label, caseset), said, []


def _describe(
    case: Case, images: Sequence[np.ndarray], header: grids.Header, label: np.ndarray, caseset: CaseSet
) -> CasePrint:
    """Facts of a sound case; images (C, X, Y, Z), one per file, and label (X, Y, Z) in the files' own orientation."""
    turned, affine = nifti.to_ras(label, header.affine)
    x, y, z = map(rounded, grids.spacing_mm(affine))
    per_class = {index: int(among(label, own).sum()) for index, own in enumerate(caseset.labels) if index}
    inside = (label != 0) if caseset.ignore is None else (label != 0) & (label != caseset.ignore)
    channels = [channel for image in images for channel in image if any(per_class.values())]
    filled, _ = nifti.to_ras(np.any([image.any(axis=0) for image in images], axis=0), header.affine)
    image_sha256 = sha256(*volumes.files_of(case.images))
    label_sha256 = sha256(*volumes.files_of([case.label] if case.label else []))
    return CasePrint(
        id=case.id,
        patient=case.patient,
        shape=turned.shape,
        spacing_mm=(x, y, z),
        sha256=hashlib.sha256((image_sha256 + label_sha256).encode()).hexdigest(),
        image_sha256=image_sha256,
        foreground_voxels=per_class,
        intensity=tuple(intensity(channel[inside], of_image(channel)) for channel in channels),
        oriented=header.oriented,
        unit=header.unit,
        cropped=filled[grids.nonzero_box(filled)].shape,
    )


def rounded(mm: float) -> float:
    """Seven digits, as the headers' own numbers have, whatever the unit."""
    return float(f"{mm:.7g}")


def intensity(values: np.ndarray, image: tuple[float, float] | None = None) -> Intensity:
    """Describes the values of one channel inside a structure, one at least; of many an even sample."""
    values = values[:: max(1, values.size // MAX_VOXELS)].astype(np.float64)
    quantiles = np.quantile(values, (np.arange(QUANTILES) + 0.5) / QUANTILES)
    short = tuple(float(f"{value:.6g}") for value in quantiles)
    return Intensity(float(values.mean()), float(values.std()), short, image)


def of_image(channel: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation of the non-zero voxels; of all where the non-zero ones have but one value."""
    nonzero = channel[channel != 0]
    inside = nonzero if nonzero.size and np.ptp(nonzero) > 0 else channel
    return float(inside.mean(dtype=np.float64)), float(inside.std(dtype=np.float64))
