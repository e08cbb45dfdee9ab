"""Classes of a data set: what the values in its label files mean."""

import logging
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from posixpath import normpath  # metrics are named like paths, and must be normal ones
from typing import NamedTuple
from unicodedata import normalize

import numpy as np

from seg.data import layouts, pictures, volumes
from seg.data.processors import processors
from seg.errors import ConfigError, DataError, counted, together
from seg.regions import Regions, among, regions_of

log = logging.getLogger(__name__)
IGNORE = 255  # the class index of voxels that nobody annotated: no loss and no score there
HIGHEST = (255, 32767, 65535, 2147483647)  # of the integer types: what tools write where nobody annotated
BLENDED = 20  # more values than these, in masks that nobody describes, are no classes
EXAMPLE = '{"channel_names": {"0": "MR"}, "labels": {"background": 0, "liver": 1, "tumour": 2}}'
WHOLE = r"-?\d{1,10}"
MAX_CLASSES = 254  # class indices are kept as uint8


class Classes(NamedTuple):
    """What label values mean, as in CaseSet."""

    values: dict[str, int]
    ignore: int | None = None
    regions: Regions | None = None


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


def read_classes(where: Path) -> Classes:
    """The classes of a ``dataset.json``, background first.

    Raises:
        DataError: the file cannot be read.
        ConfigError: it names no classes, or such as cannot be.
    """
    settings = layouts.settings_of(where)
    return classes_of(settings, where, value_first="channel_names" not in settings)


def listed_classes(names: Sequence[str], key: str) -> Classes:
    """Classes by the names of their values 1, 2 …, as ``key`` lists them; ConfigError where one cannot be."""
    return _checked([("background", 0), *((name, value) for value, name in enumerate(names, 1))], Path(key))


def one_palette(labels: Sequence[Path]) -> bool:
    """Whether all are pictures; DataError where one index of their palettes has several colours."""
    if not (labels and all(map(volumes.is_picture, labels))):
        return False
    together(DataError, [fault] if (fault := pictures.other_palettes(labels)) else [])
    return True


def seen_classes(labels: Sequence[Path], where: Path) -> Classes:
    """Classes by the values that label files hold: ``class_1`` …

    Raises:
        DataError: a value by which many tools mark voxels that nobody annotated.
    """
    values = _label_values(labels)
    if one_palette(labels) and {*values} - {0} in ({255}, {65535}):
        log.info("%s has no dataset.json: %d in its masks is the class foreground", where, values[-1])
        return Classes({"background": 0, "foreground": values[-1]})
    if asked := question(values):
        raise DataError(
            f"{where}: the labels hold {in_words(values)}, and no dataset.json says what that means. {asked} "
            f"A whole dataset.json, for the folder of the data set: {EXAMPLE}"
        )
    log.info("%s has no dataset.json: label values %s, found in %s", where, values, counted(len(labels), "label"))
    return Classes({"background": 0} | {f"class_{value}": value for value in values if value})


def classes_of(settings: Mapping[str, object], where: Path, value_first: bool) -> Classes:
    """What a ``dataset.json`` says of labels; a list among them makes all of them regions."""
    named = _named(mapping_of(settings, "labels", where), value_first)
    if not any(isinstance(value, list) for _, value in named):
        return _checked(named, where)
    named, regions = regions_of(named, settings.get("regions_class_order"), where)
    return _checked(named, where, regions)


def _named(labels: Mapping[str, object], value_first: bool) -> list[tuple[str, object]]:
    """Names and values. Decathlon writes ``"1": "liver"``, nnU-Net 2 ``"liver": 1``: whichever side has the numbers."""
    numbers = [all(re.fullmatch(WHOLE, str(one)) for one in side) for side in (labels.keys(), labels.values())]
    if numbers[0] != numbers[1] or any(isinstance(value, list) for value in labels.values()):
        value_first = numbers[0]
    if not value_first:
        return list(labels.items())
    return [(str(name) if isinstance(name, str | int) else "", value) for value, name in labels.items()]


def _checked(named: list[tuple[str, object]], where: Path, regions: Regions | None = None) -> Classes:
    """Classes, background first, in the order of their values or of ``regions``; every fault at once."""
    faults: list[str] = []
    classes: dict[str, int] = {}
    metrics: dict[str, str] = {}
    for name, value in named:
        name = normalize("NFC", name.strip())
        name = "ignore" if name.casefold() == "ignore" else name  # Ignore is no class either
        key = re.sub(r"[^\w\-./: ]", "_", name)  # as a metric of this class is called in the record
        if not re.fullmatch(WHOLE, str(value)):
            faults.append(f"{where}: '{name}' has the value {value!r}; a class has one integer.")
        elif name in classes or ((regions is None or int(str(value)) == 0) and int(str(value)) in classes.values()):
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


def question(values: Collection[int]) -> str:
    """What to answer about values by which many tools mark voxels that nobody annotated; nothing for others."""
    if len(values) > BLENDED:
        return (
            "So many come of smoothed edges (anti-aliasing, resizing with interpolation, JPEG). A label has one value "
            "a class: make it again with nearest neighbour; or, of a single class, set the upper half of the values to "
            "255 and the rest to 0. If each value is a structure, name all of them in a dataset.json."
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
    if len(values) > BLENDED:
        return f"{len(values)} values from {min(values)} to {max(values)}"
    return f"values {values}" + (" (value: voxels)" if isinstance(values, Mapping) else "")


def _label_values(paths: Iterable[Path]) -> list[int]:
    def values(path: Path) -> set[int]:
        try:
            return set(np.unique(volumes.read_label(path)).tolist())
        except DataError:  # reported by `fingerprint` with every other fault
            return set()

    with ThreadPoolExecutor(processors()) as pool:
        return sorted(set().union(*pool.map(values, paths)))


def mapping_of(settings: Mapping[str, object], key: str, where: Path) -> dict[str, object]:
    """The object that ``dataset.json`` has under ``key``; ConfigError where it has none, or an empty one."""
    value = settings.get(key)
    if not isinstance(value, dict) or not value:
        seen = "missing" if value is None else repr(value)
        raise ConfigError(f"{where}: {key} is {seen}; an object is needed: {EXAMPLE}")
    return value
