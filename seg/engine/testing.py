"""How well a network does: quick numbers on the validation part, full scores and pictures on the test part."""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from statistics import fmean

import numpy as np
import pandas as pd
import torch
from omegaconf import DictConfig
from torch import nn

from seg.data.classes import IGNORE, class_indices
from seg.data.grids import spacing_mm
from seg.data.nifti import from_ras, to_ras
from seg.data.preprocess import Prepared
from seg.data.volumes import read_image, read_label, stored_ending, write_label
from seg.engine.calibration import Reliability
from seg.engine.cases import Material
from seg.engine.decision import decide
from seg.engine.distributed import World, gathered
from seg.engine.inference import Predict, on_grid
from seg.engine.rows import Row, case_rows
from seg.files import atomic_write
from seg.metrics import dice
from seg.pages.panels import case_panels
from seg.records.folder import RunFolder
from seg.regions import inside, label_map


def validate(
    network: nn.Module,
    store: Mapping[str, Prepared],
    ids: Sequence[str],
    predict: Predict,
    loss: nn.Module,
    names: Sequence[str],
    world: World,
) -> dict[str, float]:
    """Whole validation volumes ``ids`` on the prepared grid, shared out over the world.

    Dice is taken per case and class; a class in neither the reference nor the prediction of a case is not scored there,
    as in seg.metrics. ``names`` are those of the foreground classes.

    Returns:
        val_dice (mean over the classes of each case, then over the cases; 0 where nothing at all is scored), val_loss
        (the training loss of whole volumes), val_dice_<class> of each class that was scored.
    """
    rows = []
    loss = deepcopy(loss).cpu()  # as the logits of whole volumes are, whatever tensors it holds
    for case in ids[world.rank :: world.size]:
        prepared = store[case]
        slices = predict(network, np.asarray(prepared.image))
        logits, within = slices.whole(), slices.within
        label, pred = np.array(prepared.label), label_map(logits, within).numpy()
        value = float(loss(logits[None], torch.from_numpy(label)[None].long()))
        pred[label == IGNORE] = 0
        rows.append(
            [value, *(_dice(*(inside(mask, k, within) for mask in (pred, label))) for k in range(1, len(names) + 1))]
        )
    rows = [row for part in gathered(rows) for row in part]
    losses, *columns = zip(*rows, strict=True)
    by_class = map(_mean, columns)
    classes = {f"val_dice_{name}": dice for name, dice in zip(names, by_class, strict=True) if not math.isnan(dice)}
    val_dice = _mean(_mean(row[1:]) for row in rows)
    return {"val_dice": 0.0 if math.isnan(val_dice) else val_dice, "val_loss": fmean(losses)} | classes


def _dice(pred: np.ndarray, label: np.ndarray) -> float:
    return dice(pred, label, (1, 1, 1)) if pred.any() or label.any() else math.nan


def _mean(values: Iterable[float]) -> float:
    """Of the values that are numbers; NaN where none is."""
    known = [value for value in values if not math.isnan(value)]
    return fmean(known) if known else math.nan


def test(
    network: nn.Module,
    material: Material,
    ids: Sequence[str],
    store: Mapping[str, Prepared],
    predict: Predict,
    run: RunFolder,
    cfg: DictConfig,
) -> tuple[list[Row], list[Path]]:
    """Predicts, scores and draws the cases ``ids``, each on the grid of its own input file.

    Masks and pictures, ``<case>.nii.gz`` (``<case>.png`` of a picture) and ``<case>_Slice_<nnn>.png``, go to the run's
    predictions.

    Returns:
        One row per case and class, as in ``cases.csv``, and the pictures. ``confidence.json`` gets the mean probability
        of each class found, ``calibration.csv`` how far the probabilities can be believed.
    """
    cases, unit = material.cases, material.fingerprint.unit
    scored = partial(
        case_rows, run=run.short, tolerance_mm=cfg.inference.nsd_tolerance_mm, unit=unit, within=cases.within
    )
    drawn = _panels(material, run, cfg)
    by_id = {case.id: case for case in cases.cases}
    rows: list[Row] = []
    pictures: list[Path] = []
    confidence: dict[str, dict[str, float]] = {}
    calibration: list[dict[str, str | float]] = []
    for case in (by_id[name] for name in ids):
        assert case.label is not None
        prepared = store[case.id]
        geometry = prepared.geometry
        original = np.array(geometry.original_affine)
        label = class_indices(read_label(case.label), cases.labels, cases.ignore)
        slices = on_grid(predict(network, np.asarray(prepared.image)), geometry)
        reliability = Reliability(to_ras(label, original)[0], geometry, slices.axis, len(cases.names), cases.within)
        decided = decide(slices, geometry, reliability.add)
        calibration += reliability.rows(case.id, cases.names)
        pred = from_ras(decided.indices, original)
        confidence[case.id] = decided.by_class(cases.names)
        mask = run.predictions / f"{case.id}{stored_ending(case.images[0])}"
        write_label(mask, np.asarray(cases.values)[pred], like=case.images[0])
        image, affine = read_image(case.images)
        scores = scored(case, pred, label, cases.names, spacing_mm=spacing_mm(affine))
        rows += scores
        shown = (np.where(label == IGNORE, 0, mask) for mask in (label, pred))  # no error where nobody annotated
        seen = image if unit == "pixels" and len(image) == 3 else image[0]
        turned = [to_ras(volume, affine) for volume in (seen, *shown)]
        pictures += drawn(
            *(volume for volume, _ in turned),
            case=case.id,
            dice_of_case=_mean(float(score["dice"]) for score in scores),
            spacing_mm=spacing_mm(turned[0][1]),
        )
    atomic_write(run.confidence, json.dumps(confidence))
    table = pd.DataFrame(calibration, columns=["case", "class", "ece", "ace"])
    atomic_write(run.calibration, table.to_csv(index=False))
    return rows, pictures


def _panels(material: Material, run: RunFolder, cfg: DictConfig) -> Callable[..., list[Path]]:
    """``case_panels`` with all that the pictures of a run have in common."""
    return partial(
        case_panels,
        run=run.short,
        class_names=material.cases.names,
        within=material.cases.within,
        axis=material.plan.slice_axis,
        folder=run.predictions,
        slices=cfg.predictions.slices,
        window=material.plan.normalization[0].window,
        dpi=cfg.predictions.dpi,
        unit=material.fingerprint.unit,
    )
