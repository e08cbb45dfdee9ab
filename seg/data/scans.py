"""Images without labels, to be predicted: from a file, a folder, a Decathlon data set, or a table of paths."""

import os
from collections import Counter, defaultdict
from pathlib import Path

from seg.data.cases import Case
from seg.data.formats import listed
from seg.data.lists import by_list, read_json
from seg.data.names import CHANNEL, add, unfit
from seg.data.patients import spelled, table_of
from seg.data.volumes import READ, ending, has_colours, is_volume, stem
from seg.errors import DataError, counted, together


def scans(where: Path, channels: int) -> list[Case]:
    """The images at ``where``, by name. Only names are looked at; a file that is missing is found when it is read.

    Args:
        where: a volume (a file, or a folder with the slices of a DICOM series); a folder of them, or with ``imagesTs``;
            a ``dataset.json`` whose ``test`` lists files; or a ``.csv`` table with the columns ``case``, ``image`` and,
            for further channels, ``image2`` and so on. Paths in a list are relative to its folder.
        channels: of the network. Files are named ``<case>_0000``, ``<case>_0001`` … where there are several, or where
            all are named so; a file without a number holds all channels.

    Raises:
        DataError: there is nothing of that name, or no image in it, or a name twice, or what would go unread.
        ConfigError: a table cannot be read.
    """
    if not where.exists():
        raise DataError(f"There is no {where}. Give a file, a folder or a table of scans.")
    if where.suffix.lower() == ".csv":
        found = _tabled(where, channels)
    elif where.name == "dataset.json":
        found = _listed(where)
    elif where.is_dir() and not is_volume(where):
        inner = where / "imagesTs"
        found = _grouped(listed(inner if inner.is_dir() else where), channels)
    else:
        digits = "0000" if stem(where).endswith("_0000") else ""
        whole = Path(os.path.abspath(where))  # of a link its own name
        found = [Case(stem(whole).removesuffix("_0000"), "", _in_order({digits: where}, channels), None)]
    if not found:
        raise DataError(f"{where} has nothing that ends in {READ}.")
    names = [case.id for case in found]
    if strange := [*filter(unfit, names)]:
        raise DataError(f"{where}: {', '.join(map(repr, strange))} cannot be the name of a mask's file. Rename it.")
    if twice := sorted(name for name, count in Counter(names).items() if count > 1):
        raise DataError(f"{where}: {', '.join(twice)} is there twice, and both masks would have one name.")
    return sorted(found, key=lambda case: case.id)


def _grouped(files: list[Path], channels: int) -> list[Case]:
    alike = all(stem(path).endswith("_0000") for path in files)
    groups: dict[str, dict[str, Path]] = defaultdict(dict)
    faults: list[str] = []
    for path in files:
        numbered = alike or (channels > 1 and not has_colours(path))
        match = CHANNEL.fullmatch(stem(path)) if numbered else None
        case, digits = (match[1], match[2]) if match else (stem(path), "")
        if digits and int(digits) >= channels:
            takes = f"the network takes {counted(channels, 'channel')}, numbered from 0000"
            faults.append(f"{path}: is channel {digits}, and {takes}. Take it out.")
        add(groups[case], digits, path, faults)
    faults += [
        f"{parts['']}: {case} is there with numbered channels, too. Keep one of the two."
        for case, parts in groups.items()
        if "" in parts and len(parts) > 1
    ]
    together(DataError, faults)
    return [Case(case, "", _in_order(parts, channels), None) for case, parts in groups.items()]


def _in_order(parts: dict[str, Path], channels: int) -> tuple[Path, ...]:
    first = next(iter(parts.values()))
    if "" in parts or has_colours(first):
        return (parts.get("", first),)
    base = stem(first)[:-4]
    return tuple(first.with_name(f"{base}{number:04}{ending(first)}") for number in range(channels))


def _listed(where: Path) -> list[Case]:
    content = read_json(where)
    entries = content.get("test") if isinstance(content, dict) else None
    files = by_list(where.parent, entries, where, labelled=False)
    return [Case(name, "", images, None) for name, images, _ in files]


def _tabled(where: Path, channels: int) -> list[Case]:
    wanted, faults = ["image", *(f"image{number}" for number in range(2, channels + 1))], list[str]()
    columns, rows = table_of(where, faults)
    images = [name for name in wanted if name in columns] if "image" in columns else []
    if not images or any(columns.count(name) != 1 for name in ("case", *images)):
        raise DataError(
            f"{where} has the columns {', '.join(columns) or 'none'}; it needs case, {', '.join(wanted)}, each once."
        )
    together(DataError, faults)
    if any(not row[name] for _, row in rows for name in ("case", *images)):
        raise DataError(f"{where} has an empty cell in {', '.join(['case', *images])}. Fill it, or remove its row.")
    found = []
    for _, row in rows:
        files = tuple(where.parent / spelled(where.parent, row[name]) for name in images)
        found.append(Case(row["case"].removesuffix(ending(Path(row["case"]))), "", files, None))
    return found
