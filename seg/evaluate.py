"""What a network reaches: quick numbers on the validation part, full scores and pictures on the test part."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from seg.data.cases import Case, CaseSet
from seg.data.nifti import read_image, read_label, to_ras, write_label
from seg.data.preprocess import Prepared, restore
from seg.engine.distributed import World, gathered
from seg.metrics import score_case
from seg.report.panels import case_panels

Predict = Callable[[nn.Module, np.ndarray], Tensor]
"""(network, image (C,X,Y,Z) float32) → logits (K,X,Y,Z) on the same grid."""


def validate(
    network: nn.Module,
    store: Mapping[str, Prepared],
    ids: Sequence[str],
    predict: Predict,
    loss: nn.Module,
    names: Sequence[str],
    world: World,
) -> dict[str, float]:
    """Whole validation volumes on the prepared grid, shared out over the world.

    Dice is taken per case and class and averaged over the cases; a case without the class and without a prediction
    of it counts 1, as in seg.metrics.

    Args:
        network: in any mode; it is put into eval mode.
        store: prepared cases.
        ids: of the validation part.
        predict: sliding-window prediction.
        loss: the training loss, of the whole volume.
        names: of the foreground classes.
        world: which share this process takes.

    Returns:
        val_dice (mean over classes), val_loss, val_dice_<class>.
    """
    rows = []
    for case in ids[world.rank :: world.size]:
        prepared = store[case]
        logits = predict(network, np.asarray(prepared.image))
        label = torch.from_numpy(np.array(prepared.label))
        value = float(loss(logits[None].float(), label[None].long()))
        rows.append([value, *_dice(logits.argmax(0), label, len(names))])
    table = np.array([row for part in gathered(rows) for row in part])
    loss_value, *dice = table.mean(0).tolist()
    classes = {f"val_dice_{name}": value for name, value in zip(names, dice, strict=True)}
    return {"val_dice": float(np.mean(dice)), "val_loss": loss_value} | classes


def _dice(pred: Tensor, label: Tensor, classes: int) -> list[float]:
    values = []
    for k in range(1, classes + 1):
        a, b = pred == k, label == k
        total = int(a.sum() + b.sum())
        values.append(2 * int((a & b).sum()) / total if total else 1.0)
    return values


@dataclass(frozen=True)
class Report:
    """Where and how the test cases are written, scored and drawn."""

    folder: Path  # the run's own: <case>.nii.gz and <case>_Slice_<nnn>.png
    run: str  # beginning of the run id, for titles and tables
    nsd_tolerance_mm: float
    slices: str | int  # see seg.report.panels.choose_slices
    slice_axis: int  # of the RAS volume, across which the pictures cut
    dpi: int


def test(
    network: nn.Module,
    cases: CaseSet,
    ids: Sequence[str],
    store: Mapping[str, Prepared],
    predict: Predict,
    report: Report,
    interrupted: Callable[[], None],
) -> tuple[list[dict[str, Any]], list[Path]]:
    """Predicts, scores and draws every test case, each on the grid of its own input file.

    Args:
        network: the trained network.
        cases: the data set.
        ids: of the test part.
        store: prepared cases.
        predict: sliding-window prediction.
        report: where and how.
        interrupted: raises where the user asked to stop.

    Returns:
        One row per case and class, as in ``cases.csv``, and the pictures.
    """
    by_id = {case.id: case for case in cases.cases}
    tolerance = {"nsd_tolerance_mm": report.nsd_tolerance_mm}
    rows: list[dict[str, Any]] = []
    pictures: list[Path] = []
    for case in (by_id[name] for name in ids):
        interrupted()
        prepared = store[case.id]
        pred = restore(predict(network, np.asarray(prepared.image)), prepared.geometry)
        write_label(report.folder / f"{case.id}.nii.gz", file_values(pred, cases), like=case.images[0])
        image, affine = read_image(case.images)
        label = class_indices(case, cases)
        scores = score_case(pred, label, cases.names, _spacing_mm(affine), report.nsd_tolerance_mm)
        rows += [
            {"run_id": report.run, "case": case.id, "patient": case.patient, **score, **tolerance} for score in scores
        ]
        dice = float(np.mean([score["dice"] for score in scores]))
        pictures += _draw(case.id, (image[0], label, pred), affine, dice, cases.names, report)
    return rows, pictures


def _draw(
    case: str, volumes: tuple[np.ndarray, ...], affine: np.ndarray, dice: float, names: Sequence[str], report: Report
) -> list[Path]:
    """The pictures of a case; ``volumes`` are image, label and pred on the input's own grid."""
    image, label, pred = (to_ras(volume, affine)[0] for volume in volumes)
    return case_panels(
        image,
        label,
        pred,
        case=case,
        run=report.run,
        dice_of_case=dice,
        class_names=names,
        spacing_mm=_spacing_mm(to_ras(volumes[0], affine)[1]),
        axis=report.slice_axis,
        folder=report.folder,
        slices=report.slices,
        dpi=report.dpi,
    )


def _spacing_mm(affine: np.ndarray) -> tuple[float, ...]:
    return tuple(np.linalg.norm(affine[:3, :3], axis=0).tolist())


def class_indices(case: Case, cases: CaseSet) -> np.ndarray:
    """The reference of ``case`` on its file's own grid, file values mapped to class indices 0 … K-1 (uint8)."""
    assert case.label is not None
    values = read_label(case.label)
    out = np.zeros(values.shape, np.uint8)
    for index, value in enumerate(cases.values):
        out[values == value] = index
    return out


def file_values(indices: np.ndarray, cases: CaseSet) -> np.ndarray:
    """Class indices mapped back to the values that the data set's own label files use."""
    values: np.ndarray = np.asarray(cases.values)[indices]
    return values
