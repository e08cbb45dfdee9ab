"""Cases of a data set: which files belong together, whose patient they are, and what channels and classes mean."""

import logging
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from posixpath import normpath  # metrics are named like paths, and must be normal ones
from typing import NamedTuple
from unicodedata import normalize

import numpy as np

from seg.data import layouts, pictures, volumes
from seg.data.lists import heading
from seg.data.names import Files, channel_names
from seg.data.patients import patients_of
from seg.data.processors import processors
from seg.errors import ConfigError, DataError, together
from seg.regions import Regions, among, indices_within, regions_of

log = logging.getLogger(__name__)
# In a name: line feeds, escapes, bytes that are no UTF-8, and what cannot be seen but turns or parts what is printed.
CONTROL = r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]"
IGNORE = 255  # the class index of voxels that nobody annotated: no loss and no score there
HIGHEST = (255, 32767, 65535, 2147483647)  # of the integer types: what tools write where nobody annotated
BLENDED = 20  # more values than these, in masks that nobody describes, are no classes
COLOURS = ("red", "green", "blue")
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
    ``ignore`` is the value of voxels that nobody annotated, where there is one; their index is IGNORE. Of a data set
    with ``regions``, sets of label values, ``classes`` are these: see ``seg.regions``.
    """

    name: str
    cases: tuple[Case, ...]
    channels: tuple[str, ...]
    classes: dict[str, int]
    ignore: int | None = None
    regions: Regions | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Class names by class index."""
        return tuple(self.classes)

    @property
    def values(self) -> tuple[int, ...]:
        """Values that are written into label files, by class index."""
        return tuple(self.classes.values())

    @property
    def labels(self) -> tuple[int | tuple[int, ...], ...]:
        """Values in the label files by class index; one that several indices have is the last of them."""
        return self.values if self.regions is None else (0, *self.regions)

    @property
    def within(self) -> Regions | None:
        """Of regions, the class indices that are in each."""
        return indices_within(self.values, self.regions)

    @property
    def outputs(self) -> int:
        """Channels of a network's logits: one a class, background too; or one a region."""
        return len(self.regions or self.classes)


def class_indices(label: np.ndarray, labels: Sequence[int | Sequence[int]], ignore: int | None = None) -> np.ndarray:
    """Values of a label file, any shape, as class indices (uint8), and IGNORE where the value is ``ignore``.

    ``labels`` are the values of each class index, as of ``CaseSet.labels``.

    Raises:
        DataError: a value that is not a class; ``fingerprint`` reports it earlier, with the file.
    """
    indices = np.full(label.shape, IGNORE, np.uint8)
    for index, values in enumerate(labels):
        indices[among(label, values)] = index
    strange = indices == IGNORE if ignore is None else (indices == IGNORE) & (label != ignore)
    if strange.any():
        found = np.unique(label[strange]).tolist()
        raise DataError(f"label values {found} are not classes; the classes are {list(labels)}.")
    return indices


def question(values: Collection[int]) -> str:
    """What to answer about values by which many tools mark voxels that nobody annotated; nothing for others."""
    if len(values) > BLENDED:
        return (
            "So many come of smoothed edges (anti-aliasing, resizing with interpolation, JPEG). A label has one value "
            "a class: make it again with nearest neighbour; or, of a single class, set the upper half of the values to "
            "255 and the rest to 0."
        )
    asked = [value for value in values if value in HIGHEST or value < 0]
    return (
        f'What is {", ".join(map(str, asked))}? If nobody annotated these voxels, write "ignore": {asked[0]} among the '
        "labels of dataset.json; if it is a structure, give it a name there."
        if asked
        else ""
    )


def in_words(values: Mapping[int, int] | Sequence[int]) -> str:
    """Values of labels, with their numbers of voxels where these are given; of very many only the range."""
    return str(values) if len(values) <= BLENDED else f"{len(values)} values from {min(values)} to {max(values)}"


def folder(root: str | Path, *, name: str | None = None, patient: str | None = None, layout: str = "auto") -> CaseSet:
    """Data set in a folder: Decathlon, nnU-Net, a table, a datalist, images and labels by name, or a folder a case.

    Only names are looked at here; ``fingerprint`` opens the files and lists every fault.

    Args:
        root: the folder; or the table or list in it that names the cases (docs/data.md has all layouts).
        name: of the data set in reports; by default the folder's.
        patient: which cases are of one patient: a pattern with one group, searched in the case id, or the path of a
            .csv file with the columns ``case`` and ``patient``. By default every case is a patient of its own, or of
            the one that a table says.
        layout: one of ``seg.data.layouts.LAYOUTS``, or auto.

    Raises:
        DataError: no such folder, no layout that is known, or files that belong to no case.
        ConfigError: ``dataset.json``, ``patient`` or ``layout`` says something that cannot be.
    """
    place = layouts.place_of(Path(root).expanduser(), layout)
    files, channels, classes = _found(place)
    together(DataError, [_unprintable(case_id) for case_id, _, _ in files if re.search(CONTROL, case_id)])
    values = [*classes.values.values()]
    if classes.regions:
        log.info("regions of label values: %s", dict(zip([*classes.values][1:], classes.regions, strict=True)))
    elif values != list(range(len(values))):
        log.info("label values become class indices: %s", {value: i for i, value in enumerate(values)})
    if patient is None and place.layout == "csv" and place.listing and "patient" in heading(place.listing):
        patient = str(place.listing)
    patients = patients_of([case_id for case_id, _, _ in files], place.root, patient)
    cases = [Case(case_id, patients[case_id], images, label) for case_id, images, label in files]
    cases.sort(key=lambda case: case.id)
    return CaseSet(name or place.root.resolve().name, tuple(cases), channels, *classes)


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


class Classes(NamedTuple):
    """What label values mean, as in CaseSet."""

    values: dict[str, int]
    ignore: int | None = None
    regions: Regions | None = None


def read_classes(where: Path) -> Classes:
    """The classes of a ``dataset.json``, background first.

    Raises:
        DataError: the file cannot be read.
        ConfigError: it names no classes, or such as cannot be.
    """
    settings = layouts.settings_of(where)
    return _classes(settings, where, value_first="channel_names" not in settings)


def listed_classes(names: Sequence[str], key: str) -> Classes:
    """Classes by the names of their values 1, 2 …, as ``key`` lists them; ConfigError where one cannot be."""
    return _checked([("background", 0), *((name, value) for value, name in enumerate(names, 1))], Path(key))


def seen_classes(labels: Sequence[Path], where: Path) -> Classes:
    """Classes by the values that label files hold: ``class_1`` …

    Raises:
        DataError: a value by which many tools mark voxels that nobody annotated.
    """
    values = _label_values(labels)
    if all(map(volumes.is_picture, labels)):
        together(DataError, [fault] if (fault := pictures.other_palettes(labels)) else [])
        if {*values} - {0} in ({255}, {65535}):
            log.info("%s has no dataset.json: %d in its masks is the class foreground", where, values[-1])
            return Classes({"background": 0, "foreground": values[-1]})
    if asked := question(values):
        raise DataError(
            f"{where}: the labels hold the values {in_words(values)}, and no dataset.json says what they mean. {asked}"
        )
    log.info("%s has no dataset.json: label values %s, read off %d labels", where, values, len(labels))
    return Classes({"background": 0} | {f"class_{value}": value for value in values if value})


def _found(place: layouts.Place) -> tuple[Files, tuple[str, ...], Classes]:
    """Files, channels and classes; what ``dataset.json`` does not name has names of its own."""
    where, settings = place.about, place.settings
    if where is None:
        files, channels = layouts.files_of(place, None)
        classes = seen_classes([label for _, _, label in files if label], place.root)
        return files, _colours(files, channels), classes
    key = "channel_names" if "channel_names" in settings or "training" not in settings else "modality"
    listed = settings.get(key)
    files, seen = layouts.files_of(place, len(listed) if isinstance(listed, dict | list) else None)
    files = [(case, volumes.whole(images), label) for case, images, label in files]
    needed = key in settings or place.layout in ("decathlon", "nnunet")
    channels = _agreed(_channels(settings, key, where), seen, where) if needed else _colours(files, seen)
    return files, channels, _classes(settings, where, value_first=key == "modality")


def _colours(files: Files, channels: tuple[str, ...]) -> tuple[str, ...]:
    """The channels; of pictures in colours, by their first, red, green and blue."""
    return COLOURS if len(channels) == 1 and files and volumes.has_colours(files[0][1][0]) else channels


def _agreed(declared: tuple[str, ...], seen: tuple[str, ...], where: Path) -> tuple[str, ...]:
    """The channels in the order of the files, where these have names of their own.

    Raises:
        ConfigError: they have other names than those declared.
    """
    if len(seen) == 1 or seen == channel_names(len(seen)):
        return declared
    if sorted(map(str.casefold, declared)) != sorted(map(str.casefold, seen)):
        raise ConfigError(
            f"{where}: the channels are {', '.join(declared)}, and each case has {', '.join(seen)}. Name the channels "
            "as their files, so that none changes places."
        )
    return seen


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
    if numbers[0] != numbers[1] or any(isinstance(value, list) for value in labels.values()):
        value_first = numbers[0]
    if not value_first:
        return list(labels.items())
    return [(str(name) if isinstance(name, str | int) else "", value) for value, name in labels.items()]


def _known_spelling(name: str) -> str:
    """``Ignore`` is no class either."""
    return "ignore" if name.casefold() == "ignore" else name


def _classes(settings: Mapping[str, object], where: Path, value_first: bool) -> Classes:
    """What a ``dataset.json`` says of labels; a list among them makes all of them regions."""
    named = _named(_mapping(settings, "labels", where), value_first)
    if not any(isinstance(value, list) for _, value in named):
        return _checked(named, where)
    named, regions = regions_of(named, settings.get("regions_class_order"), where)
    return _checked(named, where, regions)


def _checked(named: list[tuple[str, object]], where: Path, regions: Regions | None = None) -> Classes:
    """Classes, background first, in the order of their values or of ``regions``; every fault at once."""
    faults: list[str] = []
    classes: dict[str, int] = {}
    metrics: dict[str, str] = {}
    for name, value in named:
        name = _known_spelling(name.strip())
        key = re.sub(r"[^\w\-./: ]", "_", normalize("NFC", name))  # as a metric of this class is called in the record
        if not re.fullmatch(WHOLE, str(value)):
            faults.append(f"{where}: '{name}' has the value {value!r}; a class has one integer.")
        elif name in classes or (regions is None and int(str(value)) in classes.values()):
            faults.append(f"{where}: class '{name}' = {value} appears twice; names and values must be unique.")
        elif name.lower() in ("", "mean of classes") or not name.isprintable() or normpath(f"_{key}") != f"_{key}":
            faults.append(f"{where}: {name!r} cannot be a class's name. Use letters, digits and blanks.")
        elif (alike := " ".join(normalize("NFKC", key).casefold().split())) in metrics:
            faults.append(f"{where}: '{metrics[alike]}' and '{name}' would be one metric, '{key}'. Rename one of them.")
        else:
            classes[name], metrics[alike] = int(str(value)), name
    ignore = classes.pop("ignore", None)
    highest = max([*classes.values(), *chain.from_iterable(regions or ())], default=0)
    if ignore is not None and 0 <= ignore <= highest:
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
    ordered = sorted(classes.items(), key=lambda item: (item[1] != 0, item[1] if regions is None else 0))
    return Classes(dict(ordered), ignore, regions)
