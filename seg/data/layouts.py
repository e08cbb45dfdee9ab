"""How a folder keeps its cases: found by itself, or said by ``data.layout``."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from seg.data import lists, names
from seg.data.formats import there
from seg.data.patients import columns_of, rows_of
from seg.data.volumes import FORMATS
from seg.errors import ConfigError, DataError, InputError

log = logging.getLogger(__name__)
FILE = "dataset.json"
LAYOUTS = {  # and what each is known by
    "csv": f"a .csv with the columns {', '.join(lists.TABLE)}",
    "datalist": 'a .json with "training": [{"image": …, "label": …}, …]',
    "decathlon": f"a {FILE} that lists the cases in training",
    "nnunet": f"a {FILE}, and the folders imagesTr and labelsTr",
    "folders": "a folder of images and one of labels; or one folder with a.nii.gz and a_seg.nii.gz",
    "case_folders": "a folder for each case, with the same images and one label",
}


class Place(NamedTuple):
    """A data set before its files are looked at."""

    layout: str  # of LAYOUTS; "" where names alone will tell
    root: Path
    listing: Path | None  # the file that lists the cases
    about: Path | None  # the file that names channels and classes
    settings: dict[str, Any]  # what it holds


def place_of(where: Path, layout: str = "auto") -> Place:
    """Finds the layout of a folder, or of the one that a table or a list is in.

    A file that lists cases goes before names; a datalist counts beside a ``dataset.json`` only where it is asked for.

    Raises:
        DataError: there is nothing, or not what ``layout`` needs, with what was looked for and what was found.
        ConfigError: there is no such layout, or several files list cases.
    """
    if layout not in ("auto", *LAYOUTS):
        raise ConfigError(f"data.layout is {layout!r}; it must be auto, {', '.join(LAYOUTS)}.")
    if not where.exists():
        raise DataError(f"{where}: no such folder. Set data.root to the folder of the data set.")
    root = where if where.is_dir() else where.parent
    about = _description(root)
    settings = settings_of(about) if about else {}
    found = _listings(where, settings, layout)
    if len(found) > 1:
        kinds = ", ".join(f"{path.name} ({kind})" for path, kind in found.items())
        raise ConfigError(
            f"{root}: several files list cases: {kinds}. Name the one that counts: data.root={min(found)}"
        )
    if where.is_file() and where.name != FILE and not found:
        raise ConfigError(f"data.root names {where.name}, which data.layout={layout} would not read. Leave one out.")
    if not found and (layout in ("csv", "datalist", "decathlon") or (layout == "nnunet" and not about)):
        raise DataError(f"{root}: data.layout={layout} needs {LAYOUTS[layout]}, and there is none. {there(root)}")
    listing, kind = next(iter(found.items()), (about, layout if layout != "auto" else "nnunet" if about else ""))
    if kind == "datalist" and listing and "labels" in (content := lists.read_json(listing)):
        about, settings = listing, content
    return Place(kind, root, listing, about, settings)


def files_of(place: Place, declared: int | None) -> names.Found:
    """The files of each case, and names of their channels; ``declared`` is how many the data set says it has.

    Raises:
        DataError: files belong to no case, are there twice, are not read, or outside the folder.
        ConfigError: a table cannot be read, or the files have an ending that is not read.
    """
    root, where, settings = place.root, place.listing or place.root, place.settings
    if place.layout == "csv":
        files = lists.by_table(where)
    elif place.layout == "datalist":
        files = lists.by_datalist(where)
    elif place.layout == "decathlon":
        files = lists.by_list(root, settings.get("training"), where)
    elif place.layout == "nnunet" and "dataset" in settings:
        files = lists.by_case(root, settings["dataset"], where)
    else:
        return _by_name(place, declared)
    if place.layout == "decathlon" and settings.get("numTraining", len(files)) != len(files):
        log.warning("%s: numTraining is %s; training lists %d.", where, settings["numTraining"], len(files))
    count = max((len(images) for _, images, _ in files), default=1)
    return files, names.channel_names(count) if count > 1 else ("image",)


def _by_name(place: Place, declared: int | None) -> names.Found:
    end = place.settings.get("file_ending", ".nii.gz")
    if place.layout == "nnunet" and end not in FORMATS:
        raise ConfigError(
            f"{place.about}: file_ending is {end!r}; what is read ends in {', '.join(FORMATS)}. Convert the files."
        )
    if place.layout == "case_folders":
        return names.by_folder(place.root)
    found = names.by_pair(place.root, declared) if place.layout == "folders" else names.by_name(place.root, declared)
    if found is None:
        needed = LAYOUTS["folders"]
        raise DataError(f"{place.root}: data.layout=folders needs {needed}, and there is none. {there(place.root)}")
    files, channels = found
    listed = place.settings.get("training")
    if isinstance(listed, list) and len(listed) != len(files):
        log.warning(
            "%s lists %d cases in training; %d were found by their names.", place.about, len(listed), len(files)
        )
    return files, channels


def _description(root: Path) -> Path | None:
    """The ``dataset.json`` of a folder.

    Raises:
        DataError: under another spelling, which would go unread.
    """
    if other := [path for path in root.iterdir() if path.name.lower() == FILE != path.name]:
        raise DataError(f"{other[0]}: would not be read. Call it {FILE}.")
    return root / FILE if (root / FILE).exists() else None


def settings_of(where: Path) -> dict[str, Any]:
    """What a ``dataset.json`` holds; DataError where that is no object."""
    content = lists.read_json(where)
    if not isinstance(content, dict):
        raise DataError(f"{where}: holds a {type(content).__name__}; an object with channels and labels is needed.")
    return content


def _listings(where: Path, settings: Mapping[str, object], layout: str) -> dict[Path, str]:
    """The files that list cases, each with its layout: those of ``layout`` alone, if it is not auto."""
    root = where if where.is_dir() else where.parent
    by_name = "channel_names" in settings and (root / "imagesTr").is_dir() and layout != "decathlon"
    own = {root / FILE: "decathlon"} if "training" in settings and not by_name else {}
    own |= {root / FILE: "nnunet"} if "dataset" in settings and not own else {}
    found = {path: "csv" for path in sorted(root.glob("[!.]*.csv")) if _lists_cases(path)} | own
    if where.is_file() or layout == "datalist" or not settings:
        others = [path for path in sorted(root.glob("[!.]*.json")) if path.name != FILE]
        found |= {path: "datalist" for path in others if _lists_cases(path)}
    if where.is_file() and where.name != FILE:
        if where not in found:
            raise DataError(f"{where}: lists no cases. Needed is {LAYOUTS['csv']}, or {LAYOUTS['datalist']}.")
        found = {where: found[where]}
    elif where.is_file():
        found = own
    return {path: kind for path, kind in found.items() if layout in ("auto", kind)}


def _lists_cases(where: Path) -> bool:
    """Whether this is a table of cases, or a datalist; with a warning where it cannot be read."""
    try:
        if where.suffix == ".csv":
            return {*lists.TABLE} <= {*columns_of(rows_of(where))}
        return lists.is_datalist(lists.read_json(where))
    except InputError as e:
        log.warning("not read as a list of cases: %s", e)
        return False
