"""Cases that a file lists: ``dataset.json``, a datalist of MONAI, a table; no path leaves the folder of that file."""

import json
import logging
import os
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path, PureWindowsPath
from typing import Any, NamedTuple
from unicodedata import normalize

from seg.data.formats import images_of
from seg.data.names import LABEL_WORDS, Files, bare_name, base_of, name_of, names_of, unfit
from seg.data.patients import spelled, table_of
from seg.data.volumes import stem
from seg.errors import DataError, counted, few, together

log = logging.getLogger(__name__)
PARTS = {"training": "train", "validation": "val", "testing": "test", "test": "test"}  # of a datalist; of a split
_CHANNELS = 100  # numbers that are channels; a file whose name ends in 2019 has none
TABLE = ("case", "image", "label")  # columns that a table needs; image2, image3 …, patient and group may be there


class Entry(NamedTuple):
    """One case as a file lists it: paths of the image, one a channel, and of the label; its name and fold, if given."""

    images: list[str]
    label: str | None
    case: str = ""
    fold: int | None = None


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


def by_list(root: Path, entries: object, where: Path, labelled: bool = True) -> Files:
    """Cases as ``dataset.json`` lists them: in ``training``, or in ``test``, whose images have no label.

    An image is one file, a list, or a name for channels; one without a label may stand alone.

    Raises:
        DataError: no such list, or paths that leave the folder.
    """
    read = _entries(entries, where, "training" if labelled else "test", labelled)
    hidden = [PureWindowsPath(entry.images[0]).name.startswith("._") for entry in read]  # macOS' own
    return _files(root, [entry for entry, skipped in zip(read, hidden, strict=True) if not skipped], where)


def by_case(root: Path, entries: object, where: Path) -> Files:
    """Cases by the key ``dataset`` of nnU-Net 2: ``{case: {"images": […], "label": …}}``; raises as ``by_list``."""
    if not isinstance(entries, dict) or not entries or not all(isinstance(e, dict) for e in entries.values()):
        raise DataError(f'{where}: the key dataset must be an object {{case: {{"images": […], "label": …}}, …}}.')
    listed = [{key.removesuffix("s"): value for key, value in entry.items()} for entry in entries.values()]
    read = _entries(listed, where, "dataset", labelled=True)
    return _files(root, [entry._replace(case=case) for case, entry in zip(entries, read, strict=True)], where)


def by_datalist(where: Path) -> Files:
    """Every labelled case of a datalist of MONAI, whatever its part; raises as ``by_list``."""
    content = read_json(where)
    cases = _datalist(content, where)
    if bare := sum(len(content.get(key) or ()) for key in PARTS) - len(cases):
        log.warning("%s: left out: %s without a label.", where, counted(bare, "case"))
    if {part for part, _ in cases} != {"train"} or any(entry.fold is not None for _, entry in cases):
        log.warning("%s has parts of its own, which count only with data.split_file=%s.", where, where)
    return _files(where.parent, [entry for _, entry in cases], where)


def parts_of(where: Path) -> list[dict[str, list[str]]]:
    """The parts of a datalist as split files have them, one for each fold: ``{"train": […], "val": […], "test": […]}``.

    Raises:
        DataError: as ``by_list``; or there are folds, and not all of ``training`` have one.
    """
    cases = _datalist(read_json(where), where)
    ids = [case for case, _, _ in _files(where.parent, [entry for _, entry in cases], where)]
    folds = {entry.fold for part, entry in cases if part == "train" and entry.fold is not None}
    if folds and any((entry.fold is None) == (part == "train") or part == "val" for part, entry in cases):
        raise DataError(f"{where}: where there are folds, each case of training has one, and there is no validation.")
    if sorted(folds) != [*range(len(folds))]:
        raise DataError(
            f"{where}: the folds are {', '.join(map(str, sorted(folds)))}. Number them 0 to {len(folds) - 1}, for "
            "data.fold is the number of the fold that is validated on."
        )
    found = []
    for fold in sorted(folds) or [-1]:
        split: dict[str, list[str]] = {"train": [], "val": [], "test": []}
        for case, (part, entry) in zip(ids, cases, strict=True):
            split["val" if part == "train" and entry.fold == fold else part].append(case)
        found.append(split)
    return found


def _datalist(content: Any, where: Path) -> list[tuple[str, Entry]]:
    """Part and files of each labelled case."""
    if not is_datalist(content):
        raise DataError(f'{where}: "training": [{{"image": …, "label": …}}, …] is needed.')
    if strange := [key for key, listed in content.items() if key not in PARTS and is_datalist({"training": listed})]:
        raise DataError(
            f"{where}: {few(strange)} would not be read. The parts are {', '.join(PARTS)}; rename or remove it."
        )
    found: list[tuple[str, Entry]] = []
    for key, part in PARTS.items():
        listed = content.get(key) or []
        entries = listed if isinstance(listed, list) else []
        labelled = [one for one in entries if isinstance(one, dict) and one.get("label")]
        listed = labelled if labelled or part != "train" else listed
        found += [(part, entry) for entry in _entries(listed, where, key, labelled=True)] if listed else []
    return found


def is_datalist(content: object) -> bool:
    """Whether this is what a datalist of MONAI holds."""
    training = content.get("training") if isinstance(content, dict) else None
    return isinstance(training, list) and any(isinstance(one, dict) and "image" in one for one in training)


def by_table(where: Path) -> Files:
    """Cases by a table with the columns ``case``, ``image``, ``image2`` … (one a channel) and ``label``.

    Raises:
        DataError: with every line that is no such case; or as ``by_list``.
        ConfigError: it cannot be read.
    """
    faults: list[str] = []
    columns, rows = table_of(where, faults)
    images = ["image", *(f"image{n}" for n in range(2, len(columns) + 1) if f"image{n}" in columns)]
    gaps = [name for name in images[1:] if name != f"image{images.index(name) + 1}"]
    if gaps or {name for name in columns if columns.count(name) > 1 and name} or not {*TABLE} <= {*columns}:
        raise DataError(
            f"{where}: its columns are {', '.join(columns)}; it needs {', '.join(TABLE)}, each once, and for further "
            "channels image2, image3 …"
        )
    if unread := [name for name in columns if name not in (*TABLE, *images, "patient", "group")]:
        log.warning("%s: columns that are not read: %s.", where, few(unread))
    entries = []
    for line, row in rows:
        if empty := [name for name in ("case", *images, "label") if not row[name]]:
            faults.append(f"{where}: line {line} has nothing in {', '.join(empty)}.")
        elif unfit(row["case"]):
            faults.append(f"{where}: line {line}: {row['case']!r} cannot be the name of a mask's file.")
        *texts, label = (spelled(where.parent, row[name]) for name in (*images, "label"))
        entries.append(Entry(texts, label, stem(Path(row["case"]))))
    faults += [
        f"{where}: case {case} is there {n} times." for case, n in Counter(e.case for e in entries).items() if n > 1
    ]
    together(DataError, faults)
    return _files(where.parent, entries, where)


def _entries(entries: object, where: Path, part: str, labelled: bool) -> list[Entry]:
    """The entries of a list of JSON."""
    wanted = {"image", "label"} if labelled else {"image"}
    listed = [e if isinstance(e, dict) else {"image": e} for e in entries] if isinstance(entries, list) else []
    if not listed or not all(wanted <= e.keys() and isinstance(e.get("label", ""), str) for e in listed):
        form = ", ".join(f'"{key}": …' for key in sorted(wanted))
        raise DataError(f"{where}: {part} must be a list of {{{form}}}.")
    found = []
    for entry in listed:
        texts = [entry["image"]] if isinstance(entry["image"], str) else entry["image"]
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
            raise DataError(f"{where}: the image {entry['image']!r} must be a path, or a list of paths, one a channel.")
        fold = entry.get("fold") if part == "training" else None
        if fold is not None and type(fold) is not int:
            raise DataError(f"{where}: the fold {fold!r} of {texts[0]} must be a whole number.")
        found.append(Entry(texts, entry["label"] if labelled else None, fold=fold))
    return found


def _files(root: Path, entries: Iterable[Entry], where: Path) -> Files:
    """The files that entries mean: within the folder, each once, and named where they are left out."""
    faults, files, known = list[str](), Files(), dict[Path, dict[str, list[Path]]]()
    for entry in entries:
        paths = [_inside(root, text, where, faults) for text in entry.images]
        label = _lying(_inside(root, entry.label, where, faults), known)[0] if entry.label is not None else None
        images = [one for path in paths for one in _lying(path, known)]
        name = (base_of(paths[0]) if len(paths) > 1 else "") or name_of(paths[0])
        files.append((normalize("NFC", entry.case) or name, tuple(images), label))
    times = Counter(path for _, images, label in files for path in (*images, label) if path)
    faults += [
        f"{where}: {path} is listed {n} times. A file belongs to one case." for path, n in times.items() if n > 1
    ]
    together(DataError, faults)
    used = {*times}
    if strange := _of_another(files):
        log.warning("%s: labels have the names of other cases: %s. Are the lines mixed up?", where, few(strange))
    lying = {path for by_stem in known.values() for paths in by_stem.values() for path in paths}
    if unlisted := [path.relative_to(root).as_posix() for path in lying - used]:
        log.warning("%s: left out: %s that it does not list, %s.", where, counted(len(unlisted), "file"), few(unlisted))
    if len({name for name, _, _ in files}) < len(files) == len({images[0].parent for _, images, _ in files}):
        return [(normalize("NFC", images[0].parent.name), images, label) for _, images, label in files]
    return files


def _of_another(files: Files) -> list[str]:
    """Labels that are called like the image of another case, and not like their own."""
    names = [({name for path in images for name in names_of(path)}, label) for _, images, label in files if label]
    known = {name for own, _ in names for name in own}
    return [
        label.name
        for own, label in names
        if not (called := {name_of(label), bare_name(name_of(label), LABEL_WORDS)}) & own and called & known
    ]


def _inside(root: Path, text: str, where: Path, faults: list[str]) -> Path:
    """The file a listed path means, within the data folder."""
    plain = text if os.path.exists(root / text) or "\\" not in text else text.replace("\\", "/")
    for base in (root.absolute(), root.resolve()):
        path = Path(os.path.normpath(base / plain))
        if path != base and path.is_relative_to(base) and not PureWindowsPath(plain).drive:
            return root / path.relative_to(base)
    faults.append(
        f"{where}: {text} is outside the folder. Put the list into a folder that holds all its files, or links to them."
    )
    return root / plain


def _lying(path: Path, known: dict[Path, dict[str, list[Path]]]) -> list[Path]:
    """The file of this path; or the one of its name with another ending; or, as in nnU-Net 1, its numbered channels."""
    if path.parent not in known:
        known[path.parent] = defaultdict(list)
        for file in images_of(sorted(path.parent.glob("[!.]*"))):
            known[path.parent][name_of(file)].append(file)
    if os.path.exists(path):
        return [path]
    names, name = known[path.parent], name_of(path)
    if len(names.get(name, [])) == 1:
        return names[name]
    numbered = {int(key[-4:]): names[key][0] for key in names if base_of(names[key][0]) == name}
    every = range(max((n for n in numbered if n < _CHANNELS), default=-1) + 1)
    return [numbered.get(n) or path.with_name(path.name.replace(name, f"{name}_{n:04}", 1)) for n in every] or [path]
