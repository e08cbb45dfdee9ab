"""Scores of masks that were made elsewhere, by any tool, against a folder of labels."""

import logging
import os
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from unicodedata import normalize

import pandas as pd

from seg.data.cases import Case, CaseSet
from seg.data.checks import grid_faults, label_faults
from seg.data.classes import Classes, class_indices, listed_classes, read_classes, seen_classes
from seg.data.formats import listed
from seg.data.grids import Header
from seg.data.layouts import FILE
from seg.data.patients import patients_of
from seg.data.volumes import READ, read_header, read_label, stem
from seg.engine.rows import Row, case_rows
from seg.errors import DataError, counted, few, together
from seg.records.folder import OWNER

log = logging.getLogger(__name__)
_DRAWN = re.compile(r"(.+)_Slice_\d{3,}|contact_sheet")  # beside the masks of a run, each of a mask that is there


def tools(folders: Sequence[str]) -> dict[str, Path]:
    """Folders of masks by the names of the tools that made them: their paths from the folder that they share."""
    paths = [Path(folder).expanduser().absolute() for folder in folders]
    shared = os.path.commonpath([path.parent for path in paths])
    return {str(path.relative_to(shared)): path for path in paths}


def matched(
    masks: Mapping[str, Path],
    labels: Path,
    *,
    classes: str | Sequence[str] | None = None,
    name: str,
    patient: str | None = None,
) -> CaseSet:
    """The labels as cases, whose images are the mask of each tool in turn; a mask has the name of its label.

    Args:
        masks: folders by the names of the tools.
        labels: folder of the reference.
        classes: names of the values 1, 2 …; or a ``dataset.json``; None: the one in ``labels`` or beside that folder,
            or where there is none, ``class_<value>``.
        name: of the data set.
        patient: as in ``seg.data.cases.folder``.

    Raises:
        DataError: with every folder that cannot be read or is empty; or else every case that one side lacks; or else
            every file that cannot be read, or whose grid is not its label's.
        ConfigError: classes or patients are named as they cannot be.
    """
    faults: list[str] = []
    reference, *found = (_by_name(place, faults) for place in (labels, *masks.values()))
    together(DataError, faults)
    for place, made in zip(masks.values(), found, strict=True):
        if lacking := reference.keys() - made.keys():
            faults.append(f"{place}: no mask of {counted(len(lacking), 'case')} in {labels}: {few(lacking)}. Add it.")
        if alone := made.keys() - reference.keys():
            faults.append(
                f"{place}: masks of {counted(len(alone), 'case')} without a label in {labels}: {few(alone)}. Move them."
            )
    together(DataError, faults)
    patients = patients_of([*reference], labels, patient)
    cases = [
        Case(case, patients[case], tuple(made[case] for made in found), label) for case, label in reference.items()
    ]
    together(DataError, [fault for case in cases for fault in _of_the_grid(case)])
    meaning = _classes(classes, labels, [path for made in (reference, *found) for path in made.values()])
    return CaseSet(name, tuple(cases), tuple(masks), *meaning)


def score_masks(cases: CaseSet, tolerance_mm: float) -> pd.DataFrame:
    """A row per tool, case and class, with the columns of ``seg.study``: arm, seed, fold, case, patient, class, scores.

    Args:
        cases: of ``matched``.
        tolerance_mm: of nsd.

    Raises:
        DataError: with every file that is damaged or has a value that is no class.
    """
    rows: list[Row] = []
    faults: list[str] = []
    for case in cases.cases:
        log.info("%s", case.id)
        rows += _scored(case, cases, tolerance_mm, faults)
    together(DataError, faults)
    table = pd.DataFrame(rows).rename(columns={"run_id": "arm"})
    table.insert(1, "seed", 0)
    table.insert(2, "fold", 0)
    return table


def _by_name(place: Path, faults: list[str]) -> dict[str, Path]:
    """The volumes of a folder by case; adds what is wrong with the folder to ``faults``."""
    try:
        paths = _masks(listed(place)) if (place / OWNER).exists() else listed(place)
    except DataError as error:
        faults.append(str(error))
        return {}
    named = {normalize("NFC", stem(path)): path for path in paths}
    if not paths:
        faults.append(f"{place}: there is nothing in it that ends in {READ}.")
    if twice := {path.name for path in paths} - {path.name for path in named.values()}:
        faults.append(f"{place}: there is another file of the same case as {few(twice)}. Remove one of the two.")
    return named


def _masks(paths: Sequence[Path]) -> list[Path]:
    """Those in a run's folder of predictions, without its drawings."""
    names = {stem(path) for path in paths}
    drawn = {name for name in names if (of := _DRAWN.fullmatch(name)) and (of[1] is None or of[1] in names)}
    return [path for path in paths if stem(path) not in drawn]


def _of_the_grid(case: Case) -> list[str]:
    """What can be seen from the headers alone."""
    faults: list[str] = []
    headers: dict[Path, Header] = {}
    for path in (case.label, *case.images):
        assert path is not None
        try:
            headers[path] = read_header(path)
        except DataError as error:
            faults.append(str(error))
    return faults + grid_faults(headers)


def _classes(given: str | Sequence[str] | None, labels: Path, files: Sequence[Path]) -> Classes:
    if isinstance(given, str):
        return read_classes(Path(given).expanduser())
    if given is not None:
        return listed_classes(given, "classes")
    beside = [path for path in (labels / FILE, labels.absolute().parent / FILE) if path.is_file()]
    return read_classes(beside[0]) if beside else seen_classes(files, labels)


def _scored(case: Case, cases: CaseSet, tolerance_mm: float, faults: list[str]) -> list[Row]:
    """The rows of one case; none where anything is wrong so far, which is added to ``faults``."""
    arrays = []
    for path in (case.label, *case.images):
        assert path is not None
        try:
            arrays.append(read_label(path))
            faults += label_faults(path, arrays[-1], cases)
        except DataError as error:
            faults.append(str(error))
    if faults:
        return []
    assert case.label is not None
    label, *masks = (class_indices(array, cases.labels, cases.ignore) for array in arrays)
    header = read_header(case.label)
    rows_of = partial(
        case_rows, spacing_mm=header.spacing_mm, tolerance_mm=tolerance_mm, unit=header.unit, within=cases.within
    )
    return [
        row
        for tool, mask in zip(cases.channels, masks, strict=True)
        for row in rows_of(case, mask, label, cases.names, run=tool)
    ]
