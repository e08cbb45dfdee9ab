"""``python -m seg.score run=… data.root=…``: scores of a finished run on any labelled folder, or its own test part."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from seg.config.command import verb
from seg.errors import ConfigError, DataError, few
from seg.files import atomic_write, file_name
from seg.records.folder import RunFolder, find, place_given

if TYPE_CHECKING:
    from seg.data.cases import Case, CaseSet
    from seg.data.fingerprint import Fingerprint
    from seg.deploy.predictor import Predictor

log = logging.getLogger(__name__)
Row = dict[str, Any]


def main(cfg: DictConfig) -> None:
    """Predicts and scores every labelled case, and writes ``<outputs>/scores/run_<id>/<data>/cases.csv``.

    Without ``data.root`` it is the run's own test part, which a trial of a search has not seen: its scores go into the
    run's record, too.

    Raises:
        ConfigError: it is not clear which run or which data are meant, or the run has been tested already.
        DataError: the data lack a channel or a class that the network knows, have changed, or a file is damaged.
    """
    if not cfg.run:
        raise ConfigError(
            "Give a run, to test it on its own test part: run=a1b2c3d4; or a run and the folder of other cases: "
            "run=a1b2c3d4 data.root=/data/other_hospital."
        )
    run = find(Path(cfg.paths.outputs), cfg.run)

    import pandas as pd

    from seg.data.cases import folder
    from seg.data.fingerprint import fingerprint
    from seg.deploy.predictor import Predictor
    from seg.engine.console import log_to, print_summary
    from seg.engine.rows import part_metrics
    from seg.records.pending import add_to_record

    log_to()
    own = not cfg.data.root
    cases = own_test(run) if own else folder(cfg.data.root, name=cfg.data.name, patient=cfg.data.patient)
    predictor = Predictor.load(run.run, device=cfg.device)
    suits(cases, predictor)
    sheared = bool(predictor.package.settings["data"]["allow_shear"])
    prints = fingerprint(cases, Path(cfg.paths.cache), allow_shear=sheared)
    if own:
        unchanged(run, prints)
    place = Path(cfg.paths.outputs) / "scores" / run.run.name / ("test" if own else file_name(cases.name, "data"))
    masks = place if cfg.masks else None
    table = pd.DataFrame([row for case in cases.cases for row in scored(case, cases, predictor, run, masks)])
    atomic_write(place / "cases.csv", table.to_csv(index=False))
    if own:
        add_to_record(run.run, metrics=part_metrics(table, "test"))
    print_summary(
        table, {"run": run.run_id, "data": f"{cases.name} ({cfg.data.root or 'the test part'})", "scores": place}
    )


def own_test(run: RunFolder) -> "CaseSet":
    """The test part of the data that the run was trained on.

    Raises:
        ConfigError: it has none, or the run was tested on it, or has not come to its end.
        DataError: its folder is damaged, or a case is not there any more.
    """
    from seg.config.build import build
    from seg.data.splits import Split
    from seg.metrics import read_scores

    data, ids = run.read_config().data, set(run.read(run.split, Split.from_json).test)
    scored = set(read_scores(run.cases)["case"]) if run.cases.exists() else set()
    if not ids:
        raise ConfigError(f"Run {run.short} set no cases aside for a test (data.test_fraction).")
    if ids & scored:
        raise ConfigError(f"Run {run.short} tested itself; its scores are in {run.cases}.")
    if not run.summary.exists():
        command = f"python -m seg.train resume={run.short}{place_given(run.outputs)}"
        raise ConfigError(f"Run {run.short} has not come to its end. Continue it first: {command}")
    cases: CaseSet = build(data.cases, root=data.root, name=data.name, patient=data.patient)
    return replace(cases, cases=tuple(case for case in cases.cases if case.id in ids))


def unchanged(run: RunFolder, prints: "Fingerprint") -> None:
    """Refuses a test part other than the one that was set aside when the run began.

    Raises:
        DataError: with the cases that are missing or changed.
    """
    from seg.data.fingerprint import Fingerprint
    from seg.data.splits import Split

    began = run.read(run.fingerprint, Fingerprint.from_json)
    ids = run.read(run.split, Split.from_json).test
    if other := [name for name in ids if began.by_id[name].sha256 != getattr(prints.by_id.get(name), "sha256", None)]:
        raise DataError(f"Cases of the test part are missing or have changed since the run began: {few(other)}.")


def suits(cases: "CaseSet", predictor: "Predictor") -> None:
    """Refuses data that lack what the network was trained on: its classes by name, and as many channels.

    Raises:
        DataError: with what is there and what is wanted.
    """
    wanted = [*predictor.classes][1:]
    if missing := [name for name in wanted if name not in cases.classes]:
        raise DataError(
            f"{cases.name} has the classes {', '.join(cases.names[1:])}; the network has {', '.join(wanted)}. Name "
            f"{', '.join(missing)} in its dataset.json as in the training data."
        )
    if len(cases.channels) != len(predictor.package.channels):
        raise DataError(
            f"{cases.name} has the channels {', '.join(cases.channels)}; the network was trained on "
            f"{', '.join(predictor.package.channels)}."
        )


def scored(case: "Case", cases: "CaseSet", predictor: "Predictor", run: RunFolder, masks: Path | None) -> list[Row]:
    """Predicts a case and gives its row for each class of the network; keeps the mask in the folder ``masks``."""
    import numpy as np

    from seg.data.cases import IGNORE, class_indices
    from seg.data.volumes import read_header, read_label
    from seg.engine.rows import case_rows

    assert case.label is not None
    log.info("%s", case.id)
    found = predictor(*case.images)
    if masks:
        found.save(masks / f"{case.id}.nii.gz")
    names = tuple(predictor.classes)
    pred = class_indices(found.mask, tuple(predictor.classes.values()))
    label = class_indices(read_label(case.label), cases.values, cases.ignore)
    truth = np.where(label == IGNORE, label, 0)
    for index, name in enumerate(names[1:], 1):
        truth[label == cases.names.index(name)] = index  # a class that the network does not know is background
    spacing, tolerance = (
        read_header(case.images[0]).spacing_mm,
        float(predictor.package.settings["inference"]["nsd_tolerance_mm"]),
    )
    return case_rows(case, pred, truth, names, run=run.short, spacing_mm=spacing, tolerance_mm=tolerance)


run = verb("score", main)

if __name__ == "__main__":
    run()
