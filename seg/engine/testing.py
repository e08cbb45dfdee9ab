"""How well a network does: quick numbers on the validation part, full scores and pictures on the test part."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from omegaconf import DictConfig
from torch import nn

from seg.data.cases import Case, class_indices
from seg.data.nifti import read_image, read_label, spacing_mm, to_ras, write_label
from seg.data.preprocess import Prepared
from seg.engine.cases import Material
from seg.engine.distributed import World, gathered
from seg.engine.inference import Predict, restore
from seg.metrics import dice, score_case
from seg.pages.panels import case_panels
from seg.records.folder import RunFolder

Row = dict[str, float | int | str]
"""A line of ``cases.csv``."""


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

    Dice is taken per case and class and averaged over the cases; a case without the class and without a prediction
    of it counts 1, as in seg.metrics. ``names`` are those of the foreground classes.

    Returns:
        val_dice (mean over classes), val_loss (the training loss of whole volumes), val_dice_<class>.
    """
    rows = []
    for case in ids[world.rank :: world.size]:
        prepared = store[case]
        logits = predict(network, np.asarray(prepared.image)).whole()
        label, pred = np.array(prepared.label), logits.max(0).indices.numpy()
        value = float(loss(logits[None], torch.from_numpy(label)[None].long()))
        rows.append([value, *(dice(pred == k, label == k, (1, 1, 1)) for k in range(1, len(names) + 1))])
    table = np.array([row for part in gathered(rows) for row in part])
    loss_value, *by_class = table.mean(0).tolist()
    classes = {f"val_dice_{name}": value for name, value in zip(names, by_class, strict=True)}
    return {"val_dice": float(np.mean(by_class)), "val_loss": loss_value} | classes


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

    Masks and pictures, ``<case>.nii.gz`` and ``<case>_Slice_<nnn>.png``, go to the run's predictions.

    Returns:
        One row per case and class, as in ``cases.csv``, and the pictures.
    """
    cases, wanted = material.cases, cfg.predictions
    by_id = {case.id: case for case in cases.cases}
    rows: list[Row] = []
    pictures: list[Path] = []
    for case in (by_id[name] for name in ids):
        assert case.label is not None
        prepared = store[case.id]
        pred = restore(predict(network, np.asarray(prepared.image)), prepared.geometry)
        write_label(run.predictions / f"{case.id}.nii.gz", np.asarray(cases.values)[pred], like=case.images[0])
        image, affine = read_image(case.images)
        label = class_indices(read_label(case.label), cases.values)
        spacing, tolerance = spacing_mm(affine), cfg.inference.nsd_tolerance_mm
        scores = case_rows(case, pred, label, cases.names, run=run.short, spacing_mm=spacing, tolerance_mm=tolerance)
        rows += scores
        turned = [to_ras(volume, affine) for volume in (image[0], label, pred)]
        pictures += case_panels(
            *(volume for volume, _ in turned),
            case=case.id,
            run=run.short,
            dice_of_case=float(np.mean([float(score["dice"]) for score in scores])),
            class_names=cases.names,
            spacing_mm=spacing_mm(turned[0][1]),
            axis=material.plan.slice_axis,
            folder=run.predictions,
            slices=wanted.slices,
            dpi=wanted.dpi,
        )
    return rows, pictures


def case_rows(
    case: Case,
    pred: np.ndarray,
    label: np.ndarray,
    names: Sequence[str],
    *,
    run: str,
    spacing_mm: Sequence[float],
    tolerance_mm: float,
) -> list[Row]:
    """The rows of a case in ``cases.csv``, one per foreground class.

    Args:
        case: its id and patient.
        pred: class indices (X, Y, Z).
        label: class indices of the same shape.
        names: of the classes, background first.
        run: beginning of the run id.
        spacing_mm: of the grid, per axis.
        tolerance_mm: of nsd.
    """
    about: Row = {"run_id": run, "case": case.id, "patient": case.patient}
    scores = score_case(pred, label, names, spacing_mm, tolerance_mm)
    return [about | score | {"nsd_tolerance_mm": tolerance_mm} for score in scores]
