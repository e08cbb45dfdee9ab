"""Cases of a data set: which files belong together, whose patient they are, and what channels and classes mean."""

import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from posixpath import normpath  # metrics are named like paths, and must be normal ones
from typing import Any
from unicodedata import normalize

import numpy as np

from seg.data import layouts, volumes
from seg.data.patients import patients_of
from seg.data.processors import processors
from seg.errors import ConfigError, DataError, together

log = logging.getLogger(__name__)
# In a name: line feeds, escapes, bytes that are no UTF-8, and what cannot be seen but turns or parts what is printed.
CONTROL = r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]"
IGNORE = 255  # the class index of voxels that nobody annotated: no loss and no score there
HIGHEST = (255, 32767, 65535, 2147483647)  # of the integer types: what tools write where nobody annotated
WHOLE = r"-?\d{1,10}"
MAX_CLASSES = 254  # class indices are kept as uint8


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
    ``ignore`` is the value of voxels that nobody annotated, where there is one; their index is IGNORE.
    """

    name: str
    cases: tuple[Case, ...]
    channels: tuple[str, ...]
    classes: dict[str, int]
    ignore: int | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Class names by class index."""
        return tuple(self.classes)

    @property
    def values(self) -> tuple[int, ...]:
        """Values in the label files by class index."""
        return tuple(self.classes.values())


def class_indices(label: np.ndarray, values: Sequence[int], ignore: int | None = None) -> np.ndarray:
    """Values of a label file, any shape, as class indices (uint8), and IGNORE where the value is ``ignore``.

    Raises:
        DataError: a value that is not a class; ``fingerprint`` reports it earlier, with the file.
    """
    indices = np.full(label.shape, IGNORE, np.uint8)
    for index, value in enumerate(values):
        indices[label == value] = index
    strange = indices == IGNORE if ignore is None else (indices == IGNORE) & (label != ignore)
    if strange.any():
        found = np.unique(label[strange]).tolist()
        raise DataError(f"label values {found} are not classes; the classes are {list(values)}.")
    return indices


def question(values: Iterable[int]) -> str:
    """What to answer about values by which many tools mark voxels that nobody annotated; nothing for others."""
    asked = [value for value in values if value in HIGHEST or value < 0]
    return (
        f'What is {", ".join(map(str, asked))}? If nobody annotated these voxels, write "ignore": {asked[0]} among the '
        "labels of dataset.json; if it is a structure, give it a name there."
        if asked
        else ""
    )


def folder(root: str | Path, *, name: str | None = None, patient: str | None = None) -> CaseSet:
    """Data set in a folder: Decathlon, nnU-Net, images and labels by name, a folder for each case, or BIDS.

    Only names are looked at here; ``fingerprint`` opens the files and lists every fault.

    Args:
        root: holds ``dataset.json``, or ``imagesTr`` and ``labelsTr`` or the like (docs/data.md has all layouts).
        name: of the data set in reports; by default the folder's.
        patient: which cases are of one patient: a pattern with one group, searched in the case id, or the path of a
            .csv file with the columns ``case`` and ``patient``. By default every case is a patient of its own.

    Raises:
        DataError: no such folder, no layout that is known, or files that belong to no case.
        ConfigError: ``dataset.json`` or ``patient`` says something that cannot be.
    """
    root = Path(root).expanduser()
    if not root.is_dir():
        raise DataError(f"{root}: no such folder. Set data.root to the folder of the data set.")
    files, channels, classes, ignore = _described(root) if _has_json(root) else _plain(root)
    together(DataError, [_unprintable(case_id) for case_id, _, _ in files if re.search(CONTROL, case_id)])
    if list(classes.values()) != list(range(len(classes))):
        log.info("label values become class indices: %s", {value: i for i, value in enumerate(classes.values())})
    patients = patients_of([case_id for case_id, _, _ in files], root, patient)
    cases = [Case(case_id, patients[case_id], images, label) for case_id, images, label in files]
    cases.sort(key=lambda case: case.id)
    return CaseSet(name or root.resolve().name, tuple(cases), channels, classes, ignore)


def _has_json(root: Path) -> bool:
    """Whether there is a ``dataset.json``.

    Raises:
        DataError: under another spelling, which would go unread.
    """
    if other := [path for path in root.iterdir() if path.name.lower() == "dataset.json" != path.name]:
        raise DataError(f"{other[0]}: would not be read. Call it dataset.json.")
    return (root / "dataset.json").exists()


def _unprintable(case_id: str) -> str:
    return f"the file of case {case_id!r} has a control character in its name. Rename it."


def hippocampus(root: str | Path, *, name: str = "hippocampus", patient: str | None = None) -> CaseSet:
    """Task04 of the Medical Segmentation Decathlon: hippocampus on T1 MRI, anterior and posterior part.

    Its 390 numbered cases are both sides of 195 subjects, numbered one after the other: the cases 1 and 2 are one
    patient, and so are 3 and 4. Nothing in the data set says so; docs/data.md has what shows it.

    Source: Antonelli et al. 2022, The Medical Segmentation Decathlon, Nature Communications 13, 4128.
    """
    if not Path(root).expanduser().is_dir():
        raise DataError(
            f"{root}: no such folder. Get Task04_Hippocampus.tar (27 MB, CC-BY-SA 4.0) from"
            " http://medicaldecathlon.com, unpack it and set data.root to the folder Task04_Hippocampus."
        )
    cases = folder(root, name=name, patient=patient)
    numbers = [re.fullmatch(r"hippocampus_(\d+)", case.id) for case in cases.cases]
    if patient is not None or None in numbers:
        return cases
    subjects = [f"subject_{(int(number[1]) + 1) // 2:03d}" for number in numbers if number]
    return replace(
        cases,
        cases=tuple(replace(case, patient=subject) for case, subject in zip(cases.cases, subjects, strict=True)),
    )


Found = tuple[layouts.Files, tuple[str, ...], dict[str, int], int | None]  # files, channels, classes, ignore


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_once)
    except (ValueError, OSError, RecursionError) as e:
        raise DataError(f"{path}: not readable as JSON ({e}).") from None


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object whose keys are there once: of two, JSON would silently take the last."""
    content = dict(pairs)
    if len(content) < len(pairs):
        twice = sorted({key for key, _ in pairs if [other for other, _ in pairs].count(key) > 1})
        raise ValueError(f"{', '.join(twice)} is there twice")
    return content


def read_classes(where: Path) -> tuple[dict[str, int], int | None]:
    """The classes of a ``dataset.json``, background first, and the value of voxels that nobody annotated.

    Raises:
        DataError: the file cannot be read.
        ConfigError: it names no classes, or such as cannot be.
    """
    settings = _settings(where)
    return _classes(_named(_mapping(settings, "labels", where), value_first="channel_names" not in settings), where)


def listed_classes(names: Sequence[str], key: str) -> dict[str, int]:
    """Classes by the names of their values 1, 2 …, as ``key`` lists them; ConfigError where one cannot be."""
    return _classes([("background", 0), *((name, value) for value, name in enumerate(names, 1))], Path(key))[0]


def seen_classes(labels: Sequence[Path], where: Path) -> dict[str, int]:
    """Classes by the values that label files hold: ``class_1`` …

    Raises:
        DataError: a value by which many tools mark voxels that nobody annotated.
    """
    values = _label_values(labels)
    if asked := question(values):
        raise DataError(
            f"{where}: the labels hold the values {values}, and no dataset.json says what they mean. {asked}"
        )
    log.info("%s has no dataset.json: label values %s, read off %d labels", where, values, len(labels))
    return {"background": 0} | {f"class_{value}": value for value in values if value}


def _settings(where: Path) -> dict[str, Any]:
    content = read_json(where)
    if not isinstance(content, dict):
        raise DataError(f"{where}: holds a {type(content).__name__}; an object with channels and labels is needed.")
    return content


def _described(root: Path) -> Found:
    """Folder with a ``dataset.json``: nnU-Net 2 finds its files by name, others list them in ``training``."""
    where = root / "dataset.json"
    settings = _settings(where)
    channel_key = "channel_names" if "channel_names" in settings or "training" not in settings else "modality"
    by_name = channel_key == "channel_names" and ("training" not in settings or (root / "imagesTr").is_dir())
    if by_name and "dataset" in settings:
        raise ConfigError(f"{where}: the key dataset is not read. Put or link the files into imagesTr and labelsTr.")
    if by_name and settings.get("file_ending", ".nii.gz") not in volumes.FORMATS:
        raise ConfigError(
            f"{where}: file_ending is {settings['file_ending']!r}; what is read ends in "
            f"{', '.join(volumes.FORMATS)}. Convert the files."
        )
    files = [] if by_name else layouts.by_list(root, settings["training"], where)
    channels = _channels(settings, channel_key, where)
    classes, ignore = _classes(_named(_mapping(settings, "labels", where), value_first=not by_name), where)
    if not by_name:
        if settings.get("numTraining", len(files)) != len(files):
            log.warning("%s: numTraining is %s; training lists %d.", where, settings["numTraining"], len(files))
        return files, channels, classes, ignore
    files, _ = layouts.by_name(root, len(channels))
    listed = settings.get("training")
    if isinstance(listed, list) and len(listed) != len(files):
        log.warning("%s lists %d cases in training; %d were found by their names.", where, len(listed), len(files))
    return files, channels, classes, ignore


def _plain(root: Path) -> Found:
    """Folder without ``dataset.json``: cases by file name, classes by reading every label."""
    files, channels = layouts.by_name(root, None)
    return files, channels, seen_classes([label for _, _, label in files if label], root), None


def _label_values(paths: Iterable[Path]) -> list[int]:
    def values(path: Path) -> set[int]:
        try:
            return set(np.unique(volumes.read_label(path)).tolist())
        except DataError:  # reported by `fingerprint` with every other fault
            return set()

    with ThreadPoolExecutor(processors()) as pool:
        return sorted(set().union(*pool.map(values, paths)))


def _mapping(settings: Mapping[str, object], key: str, where: Path) -> dict[str, object]:
    value = settings.get(key)
    if not isinstance(value, dict) or not value:
        raise ConfigError(f"{where}: {key} is {'missing' if value is None else repr(value)}; an object is needed.")
    return value


def _channels(settings: Mapping[str, object], key: str, where: Path) -> tuple[str, ...]:
    listed = settings.get(key)
    if isinstance(listed, list) and listed:
        return tuple(map(str, listed))
    named = _mapping(settings, key, where)
    if sorted(named) != sorted(str(number) for number in range(len(named))):
        raise ConfigError(f"{where}: channels are numbered {', '.join(named)}; they must be 0 to {len(named) - 1}.")
    return tuple(str(named[str(number)]) for number in range(len(named)))


def _named(labels: Mapping[str, object], value_first: bool) -> list[tuple[str, object]]:
    """Names and values. Decathlon writes ``"1": "liver"``, nnU-Net 2 ``"liver": 1``: whichever side has the numbers."""
    numbers = [all(re.fullmatch(WHOLE, str(one)) for one in side) for side in (labels.keys(), labels.values())]
    if numbers[0] != numbers[1]:
        value_first = numbers[0]
    if not value_first:
        return list(labels.items())
    return [(str(name) if isinstance(name, str | int) else "", value) for value, name in labels.items()]


def _known_spelling(name: str) -> str:
    """``Ignore`` is no class either."""
    return "ignore" if name.casefold() == "ignore" else name


def _classes(named: list[tuple[str, object]], where: Path) -> tuple[dict[str, int], int | None]:
    """Class names and label values, background first, and the value to ignore; every fault at once."""
    faults: list[str] = []
    classes: dict[str, int] = {}
    metrics: dict[str, str] = {}
    for name, value in named:
        name = _known_spelling(name.strip())
        key = re.sub(r"[^\w\-./: ]", "_", normalize("NFC", name))  # as a metric of this class is called in the record
        if isinstance(value, list):
            faults.append(f"{where}: '{name}' is a region {value}; give each class an integer and train on those.")
        elif not re.fullmatch(WHOLE, str(value)):
            faults.append(f"{where}: '{name}' has the value {value!r}; a class has one integer.")
        elif name in classes or int(str(value)) in classes.values():
            faults.append(f"{where}: class '{name}' = {value} appears twice; names and values must be unique.")
        elif name.lower() in ("", "mean of classes") or not name.isprintable() or normpath(f"_{key}") != f"_{key}":
            faults.append(f"{where}: {name!r} cannot be a class's name. Use letters, digits and blanks.")
        elif (alike := " ".join(normalize("NFKC", key).casefold().split())) in metrics:
            faults.append(f"{where}: '{metrics[alike]}' and '{name}' would be one metric, '{key}'. Rename one of them.")
        else:
            classes[name], metrics[alike] = int(str(value)), name
    ignore = classes.pop("ignore", None)
    if ignore is not None and 0 <= ignore < max(classes.values(), default=0):
        faults.append(
            f"{where}: the label 'ignore' has the value {ignore}; it must be the highest of all, or negative."
        )
    faults += [
        f"{where}: {name} has the value {value}; it must be 0."
        for name, value in classes.items()
        if name.casefold() == "background" and value
    ]
    if len(classes) > MAX_CLASSES:
        faults.append(f"{where}: {len(classes)} classes; at most {MAX_CLASSES} are possible.")
    together(ConfigError, faults)
    if 0 not in classes.values():
        classes["background"] = 0
    return dict(sorted(classes.items(), key=lambda item: (item[1] != 0, item[1]))), ignore
