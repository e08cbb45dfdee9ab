"""Scores of a finished run on labelled cases: which cases, whether they suit its network, and the rows of each."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np

from seg.config.build import build
from seg.data.cases import Case, CaseSet
from seg.data.classes import IGNORE, class_indices
from seg.data.fingerprint import Fingerprint
from seg.data.splits import Split
from seg.data.volumes import read_header, read_label, stored_ending
from seg.deploy.predictor import Predictor
from seg.engine.rows import Row, case_rows
from seg.errors import ConfigError, DataError, counted, few
from seg.files import atomic_write, file_name
from seg.metrics import read_scores
from seg.records.folder import RunFolder, place_given

log = logging.getLogger(__name__)


def own_test(run: RunFolder) -> CaseSet:
    """The test part of the data that the run was trained on.

    Raises:
        ConfigError: it has none, or the run was tested on it, or has not come to its end.
        DataError: its folder is damaged, or a case is not there any more.
    """
    data, ids = run.read_config().data, set(run.read(run.split, Split.from_json).test)
    scored = set(read_scores(run.cases)["case"]) if run.cases.exists() else set()
    if not ids:
        raise ConfigError(f"Run {run.short} set no cases aside for a test (data.test_fraction).")
    place = run.cases if ids & scored else run.outputs / "scores" / run.run.name / "test" / "cases.csv"
    if place.exists():
        raise ConfigError(f"Run {run.short} was tested on it already; its scores are in {place}.")
    if not run.summary.exists():
        command = f"python -m seg.train resume={run.short}{place_given(run.outputs)}"
        raise ConfigError(f"Run {run.short} has not come to its end. Continue it first: {command}")
    cases: CaseSet = build(data.cases, root=data.root, name=data.name, patient=data.patient)
    return replace(cases, cases=tuple(case for case in cases.cases if case.id in ids))


def was_scored(run: RunFolder) -> bool:
    """Whether the run has scores of its own: of its test part, or out of fold."""
    return run.cases.exists() and not read_scores(run.cases).empty


def unchanged(run: RunFolder, prints: Fingerprint) -> None:
    """Refuses a test part other than the one that was set aside when the run began.

    Raises:
        DataError: with the cases that are missing or changed.
    """
    began = run.read(run.fingerprint, Fingerprint.from_json)
    ids = run.read(run.split, Split.from_json).test
    if other := [name for name in ids if began.by_id[name].sha256 != getattr(prints.by_id.get(name), "sha256", None)]:
        raise DataError(f"Cases of the test part are missing or have changed since the run began: {few(other)}.")


def seen(run: RunFolder, prints: Fingerprint) -> list[str]:
    """The cases that the run was trained on, or chosen by, whatever they are called here; with a warning."""
    began, split = run.read(run.fingerprint, Fingerprint.from_json), run.read(run.split, Split.from_json)
    images = {began.by_id[case].image_sha256 for case in (*split.train, *split.val)}
    if known := [case.id for case in prints.cases if case.image_sha256 in images]:
        log.warning("The run was trained on, or chosen by, %s of these: %s.", counted(len(known), "case"), few(known))
    return known


def place_of(folder: Path, name: str | None, prints: Fingerprint) -> Path:
    """Where in ``folder`` the scores of a data set go, each of its own; of the run's own test part without ``name``."""
    place = folder / ("test" if name is None else file_name(name, "data"))
    version = place / "data.sha256"
    if name and (place.name == "test" or (place / "cases.csv").exists()):
        known = version.read_text("utf-8") if version.exists() else ""
        place = place if known == prints.hash else place.with_name(f"{place.name}-{prints.hash[:8]}")
    atomic_write(place / version.name, prints.hash)
    return place


def suits(cases: CaseSet, predictor: Predictor) -> None:
    """Refuses data that lack what the network was trained on: its classes by name, and as many channels in its order.

    Raises:
        DataError: with what is there and what is wanted.
    """
    wanted = [*predictor.classes][1:]
    package = predictor.package
    if cases.within != package.within or (package.within and cases.names != (*package.classes,)):
        regions = dict(zip(wanted, package.regions, strict=True)) if package.regions else "no regions"
        raise DataError(
            f"{cases.name} has the classes {dict(zip(cases.names, cases.labels, strict=True))}; the network has "
            f"{regions}. Write the labels, and regions_class_order, into its dataset.json as in the training data."
        )
    if missing := [name for name in wanted if name not in cases.classes]:
        raise DataError(
            f"{cases.name} has the classes {', '.join(cases.names[1:])}; the network has {', '.join(wanted)}. Name "
            f"{', '.join(missing)} in its dataset.json as in the training data."
        )
    if len(cases.channels) != len(package.channels):
        raise DataError(
            f"{cases.name} has the channels {', '.join(cases.channels)}; the network was trained on "
            f"{', '.join(package.channels)}."
        )
    here, there = ([*map(str.casefold, names)] for names in (cases.channels, package.channels))
    if any(name in there and name != own for name, own in zip(here, there, strict=True)):
        raise DataError(
            f"{cases.name} has the channels in the order {', '.join(cases.channels)}; the network was trained on "
            f"{', '.join(package.channels)}. List them in that order."
        )


def scored(case: Case, cases: CaseSet, predictor: Predictor, run: RunFolder, masks: Path | None) -> list[Row]:
    """Predicts a case and gives its row for each class of the network; keeps the mask in the folder ``masks``."""
    assert case.label is not None
    log.info("%s", case.id)
    found = predictor(*case.images)
    if masks:
        found.save(masks / f"{case.id}{stored_ending(case.images[0])}")
    names = tuple(predictor.classes)
    pred = class_indices(found.mask, tuple(predictor.classes.values()))
    label = class_indices(read_label(case.label), cases.labels, cases.ignore)
    truth = np.where(label == IGNORE, label, 0)
    for index, name in enumerate(names[1:], 1):
        truth[label == cases.names.index(name)] = index  # a class that the network does not know is background
    header, tolerance = read_header(case.images[0]), float(predictor.package.settings["inference"]["nsd_tolerance_mm"])
    return case_rows(
        case,
        pred,
        truth,
        names,
        run=run.short,
        spacing_mm=header.spacing_mm,
        tolerance_mm=tolerance,
        unit=header.unit,
        within=predictor.package.within,
    )
