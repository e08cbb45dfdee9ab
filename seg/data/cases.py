"""Cases of a data set: which files belong together, whose patient they are, and what channels and classes mean."""

import csv
import json
import logging
import os
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from seg.data import nifti
from seg.data.processors import processors
from seg.errors import ConfigError, DataError, few, together

log = logging.getLogger(__name__)
MAX_CLASSES = 255  # class indices are kept as uint8
CHANNEL = re.compile(r"(.+)_(\d{4})")


@dataclass(frozen=True)
class Case:
    """One examination: ``images`` is one file per channel, or one file with the channels on its fourth axis."""

    id: str
    patient: str
    images: tuple[Path, ...]
    label: Path | None


@dataclass(frozen=True)
class CaseSet:
    """A data set. ``classes`` maps a name to its value in the label files, background (0) first.

    Everywhere else a class is its index 0…K-1, the position in ``classes``; ``values[index]`` is the value in the file.
    """

    name: str
    cases: tuple[Case, ...]
    channels: tuple[str, ...]
    classes: dict[str, int]

    @property
    def names(self) -> tuple[str, ...]:
        """Class names by class index."""
        return tuple(self.classes)

    @property
    def values(self) -> tuple[int, ...]:
        """Values in the label files by class index."""
        return tuple(self.classes.values())


def class_indices(label: np.ndarray, values: Sequence[int]) -> np.ndarray:
    """Values of a label file, any shape, as class indices (uint8).

    Raises:
        DataError: a value that is not a class; ``fingerprint`` reports it earlier, with the file.
    """
    indices = np.full(label.shape, MAX_CLASSES, np.uint8)
    for index, value in enumerate(values):
        indices[label == value] = index
    if strange := np.unique(label[indices == MAX_CLASSES]).tolist():
        raise DataError(f"label values {strange} are not classes; the classes are {list(values)}.")
    return indices


def folder(root: str | Path, *, name: str | None = None, patient: str | None = None) -> CaseSet:
    """Data set in a folder, in the Decathlon layout, the nnU-Net v2 layout, or with no ``dataset.json`` at all.

    Only names are looked at here; ``fingerprint`` opens the files and lists every fault.

    Args:
        root: holds ``dataset.json``, or ``imagesTr`` and ``labelsTr`` (``images`` and ``labels`` will do).
        name: of the data set in reports; by default the folder's.
        patient: which cases are of one patient: a pattern with one group, searched in the case id, or the path of a
            .csv file with the columns ``case`` and ``patient``. By default every case is a patient of its own.

    Raises:
        DataError: no such folder, or no layout that is known.
        ConfigError: ``dataset.json`` or ``patient`` says something that cannot be.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder. Set data.root to the folder of the data set.")
    described = root / "dataset.json"
    if not described.exists():
        files, channels, classes = _plain(root)
    else:
        settings = read_json(described)
        if not isinstance(settings, dict):
            raise DataError(
                f"{described}: holds a {type(settings).__name__}; an object with channels and labels is needed."
            )
        layout = _decathlon if "training" in settings else _nnunet
        files, channels, classes = layout(root, settings)
    if list(classes.values()) != list(range(len(classes))):
        log.info("label values become class indices: %s", {value: i for i, value in enumerate(classes.values())})
    patients = _patients([case_id for case_id, _, _ in files], root, patient)
    cases = tuple(Case(case_id, patients[case_id], images, label) for case_id, images, label in sorted(files))
    return CaseSet(name or root.resolve().name, cases, channels, classes)


def hippocampus(root: str | Path, *, name: str = "hippocampus", patient: str | None = None) -> CaseSet:
    """Task04 of the Medical Segmentation Decathlon: hippocampus on T1 MRI, anterior and posterior part.

    Source: Antonelli et al. 2022, The Medical Segmentation Decathlon, Nature Communications 13, 4128.
    """
    if not Path(root).is_dir():
        raise DataError(
            f"{root}: no such folder. Get Task04_Hippocampus.tar (27 MB, CC-BY-SA 4.0) from"
            " http://medicaldecathlon.com, unpack it and set data.root to the folder Task04_Hippocampus."
        )
    return folder(root, name=name, patient=patient)


Files = list[tuple[str, tuple[Path, ...], Path]]  # case id, images, label
Found = tuple[Files, tuple[str, ...], dict[str, int]]


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as e:
        raise DataError(f"{path}: not readable as JSON ({e}).") from None


def _decathlon(root: Path, settings: dict[str, Any]) -> Found:
    """Layout of the Medical Segmentation Decathlon: every case is listed in ``training``."""
    where = root / "dataset.json"
    entries, faults = settings["training"], []
    if not isinstance(entries, list) or not all(
        isinstance(e, dict) and {"image", "label"} <= e.keys() for e in entries
    ):
        raise DataError(f'{where}: training must be a list of {{"image": …, "label": …}}.')
    files: Files = []
    for entry in entries:
        paths = [Path(os.path.normpath(str(entry[key]))) for key in ("image", "label")]
        faults += [f"{where}: {p} is outside the folder." for p in paths if p.is_absolute() or p.parts[:1] == ("..",)]
        if not paths[0].name.startswith("._"):
            files.append((nifti.stem(paths[0]), (root / paths[0],), root / paths[1]))
    together(DataError, faults)
    labels = _mapping(settings, "labels", where)
    named = [(str(name), value) for value, name in labels.items()]
    return files, _channels(_mapping(settings, "modality", where), where), _classes(named, where)


def _nnunet(root: Path, settings: dict[str, Any]) -> Found:
    """Layout of nnU-Net v2: ``imagesTr/<case>_<channel, four digits><ending>`` and ``labelsTr/<case><ending>``."""
    where = root / "dataset.json"
    ending = settings.get("file_ending")
    if ending not in nifti.SUFFIXES:
        raise ConfigError(f"{where}: file_ending is {ending!r}; NIfTI files are needed: {' or '.join(nifti.SUFFIXES)}.")
    if "dataset" in settings:
        raise ConfigError(f"{where}: the key dataset is not read. Put or link the files into imagesTr and labelsTr.")
    channels = _channels(_mapping(settings, "channel_names", where), where)
    classes = _classes(list(_mapping(settings, "labels", where).items()), where)
    return _numbered(root / "imagesTr", root / "labelsTr", ending, len(channels)), channels, classes


def _numbered(images: Path, labels: Path, ending: str, channels: int) -> Files:
    """Every case that has a label or an image, so that ``fingerprint`` names what is missing."""
    found = _listed(images, (ending,))
    ids = {path.name.removesuffix(ending) for path in _listed(labels, (ending,))}
    ids |= {match[1] for path in found if (match := CHANNEL.fullmatch(path.name.removesuffix(ending)))}
    files = [(i, tuple(images / f"{i}_{c:04}{ending}" for c in range(channels)), labels / (i + ending)) for i in ids]
    used = {path for _, paths, _ in files for path in paths}
    rule = f"files are named <case>_0000 to <case>_{channels - 1:04}, one for each channel"
    together(DataError, [f"{path}: belongs to no case; {rule}." for path in found if path not in used])
    return files


def _plain(root: Path) -> Found:
    """Folder without ``dataset.json``: cases by file name, classes by reading every label."""
    for images, labels in ((root / "imagesTr", root / "labelsTr"), (root / "images", root / "labels")):
        if images.is_dir() and labels.is_dir():
            break
    else:
        raise DataError(
            f"{root}: neither dataset.json nor the folders imagesTr and labelsTr are there. See docs/data.md."
        )
    by_id, label_by_id = ({nifti.stem(path): path for path in _listed(where)} for where in (images, labels))
    numbers = [int(match[2]) for name in by_id.keys() - label_by_id.keys() if (match := CHANNEL.fullmatch(name))]
    if numbers:
        channels = tuple(f"image_{number}" for number in range(max(numbers) + 1))
        name, path = next(iter(by_id.items()))
        files = _numbered(images, labels, path.name.removeprefix(name), len(channels))
    else:
        channels = ("image",)
        files = [
            (i, (by_id.get(i, images / f"{i}.nii.gz"),), label_by_id.get(i, labels / f"{i}.nii.gz"))
            for i in by_id.keys() | label_by_id.keys()
        ]
    values = _label_values(label_by_id.values())
    log.info("%s has no dataset.json: label values %s, read off %d labels", root, values, len(label_by_id))
    return files, channels, {"background": 0} | {f"class_{value}": value for value in values if value}


def _label_values(paths: Iterable[Path]) -> list[int]:
    def values(path: Path) -> set[int]:
        try:
            return set(np.unique(nifti.read_label(path)).tolist())
        except DataError:  # reported by `fingerprint` with every other fault
            return set()

    with ThreadPoolExecutor(processors()) as pool:
        return sorted(set().union(*pool.map(values, paths)))


def _listed(where: Path, endings: tuple[str, ...] = nifti.SUFFIXES) -> list[Path]:
    if not where.is_dir():
        raise DataError(f"{where}: no such folder. See docs/data.md for the layouts that are read.")
    # macOS writes a companion '._<name>' beside every file it copies to a foreign disk.
    return sorted(path for path in where.iterdir() if path.name.endswith(endings) and not path.name.startswith("."))


def _mapping(settings: dict[str, Any], key: str, where: Path) -> dict[str, Any]:
    value = settings.get(key)
    if not isinstance(value, dict) or not value:
        raise ConfigError(f"{where}: {key} is {'missing' if value is None else repr(value)}; an object is needed.")
    return value


def _channels(named: dict[str, Any], where: Path) -> tuple[str, ...]:
    if sorted(named) != sorted(str(number) for number in range(len(named))):
        raise ConfigError(f"{where}: channels are numbered {', '.join(named)}; they must be 0 to {len(named) - 1}.")
    return tuple(str(named[str(number)]) for number in range(len(named)))


def _classes(named: list[tuple[str, Any]], where: Path) -> dict[str, int]:
    """Class names and label values, background first, every fault at once."""
    faults: list[str] = []
    classes: dict[str, int] = {}
    for name, value in named:
        if name == "ignore":
            faults.append(f"{where}: the label 'ignore' is not supported: every voxel is scored. Give it a class or 0.")
        elif isinstance(value, list):
            faults.append(f"{where}: '{name}' is a region {value}; give each class an integer and train on those.")
        elif not re.fullmatch(r"-?\d+", str(value)):
            faults.append(f"{where}: '{name}' has the value {value!r}; a class has one integer.")
        elif name in classes or int(value) in classes.values():
            faults.append(f"{where}: class '{name}' = {value} appears twice; names and values must be unique.")
        else:
            classes[name] = int(value)
    if classes.get("background", 0) != 0:
        faults.append(f"{where}: background has the value {classes['background']}; it must be 0.")
    if len(classes) > MAX_CLASSES:
        faults.append(f"{where}: {len(classes)} classes; at most {MAX_CLASSES} are possible.")
    together(ConfigError, faults)
    if 0 not in classes.values():
        classes["background"] = 0
    return dict(sorted(classes.items(), key=lambda item: (item[1] != 0, item[1])))


def _patients(ids: list[str], root: Path, patient: str | None) -> dict[str, str]:
    if patient is None:
        return {case_id: case_id for case_id in ids}
    found = _table(root, patient) if patient.endswith(".csv") else _matches(ids, patient)
    missing = [case_id for case_id in ids if case_id not in found]
    if missing:
        raise ConfigError(
            f"data.patient={patient!r} gives no patient for {len(missing)} of {len(ids)} cases: {few(missing)}."
        )
    return found


def _table(root: Path, name: str) -> dict[str, str]:
    path = Path(name) if Path(name).exists() else root / name
    if not path.is_file():
        raise ConfigError(f"data.patient: no file {name}, neither here nor in {root}.")
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"case", "patient"} <= rows[0].keys():
        raise ConfigError(f"{path}: a table with the columns 'case' and 'patient' is needed.")
    return {row["case"]: row["patient"] for row in rows}


def _matches(ids: list[str], pattern: str) -> dict[str, str]:
    try:
        compiled = re.compile(pattern)
    except re.error as e:
        raise ConfigError(f"data.patient={pattern!r} is not a regular expression: {e}.") from None
    if compiled.groups != 1:
        raise ConfigError(f"data.patient={pattern!r} has {compiled.groups} groups; exactly one names the patient.")
    return {case_id: match[1] for case_id in ids if (match := compiled.search(case_id)) and match[1]}
