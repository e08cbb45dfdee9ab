"""Scores of one structure in one case, and their summary over cases.

Every metric is ``f(pred, label, spacing_mm) -> float`` on two boolean masks of one shape, in 2-D or 3-D.

The empty rule, the same for all of them:

- both masks empty: the prediction is right. Shares (dice, iou, precision, recall, nsd) are 1, distances 0.
- one mask empty: as wrong as can be. Shares are 0, and a distance is the diagonal of the whole volume in mm, more than
  any two voxels of it can lie apart. It is never NaN and never dropped, so missing a structure cannot improve a mean.

The surface of a mask is its voxels with a face neighbour outside the mask; what lies beyond the volume counts as
outside. Distances run between voxel centres in mm, so uneven spacing counts as it should. Each surface voxel weighs
the same (not its area), as in MONAI and in Metrics Reloaded (Maier-Hein et al. 2024, doi:10.1038/s41592-023-02151-z).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import ndimage
from scipy.spatial import KDTree

from seg.errors import DataError

Mask: TypeAlias = npt.NDArray[np.bool_]

HIGHER_IS_BETTER = ("dice", "iou", "precision", "recall", "nsd")
LOWER_IS_BETTER = ("hd95_mm", "assd_mm")
METRICS = (*HIGHER_IS_BETTER, *LOWER_IS_BETTER, "volume_difference_ml")
MEAN_OF_CLASSES = "mean of classes"


def dice(pred: Mask, label: Mask, spacing_mm: Sequence[float]) -> float:
    """Overlap 2 TP / (2 TP + FP + FN), in [0, 1], 1 is best; symmetric. Source: Dice 1945."""
    both, in_pred, in_label = _counts(pred, label, spacing_mm)
    return _share(2 * both, in_pred + in_label, in_pred + in_label)


def iou(pred: Mask, label: Mask, spacing_mm: Sequence[float]) -> float:
    """Overlap TP / (TP + FP + FN), in [0, 1], 1 is best; symmetric. Source: Jaccard 1912."""
    both, in_pred, in_label = _counts(pred, label, spacing_mm)
    return _share(both, in_pred + in_label - both, in_pred + in_label)


def precision(pred: Mask, label: Mask, spacing_mm: Sequence[float]) -> float:
    """Share of the prediction that is right, TP / (TP + FP), in [0, 1], 1 is best."""
    both, in_pred, in_label = _counts(pred, label, spacing_mm)
    return _share(both, in_pred, in_pred + in_label)


def recall(pred: Mask, label: Mask, spacing_mm: Sequence[float]) -> float:
    """Share of the reference that was found, TP / (TP + FN), in [0, 1], 1 is best."""
    both, in_pred, in_label = _counts(pred, label, spacing_mm)
    return _share(both, in_label, in_pred + in_label)


def volume_difference_ml(pred: Mask, label: Mask, spacing_mm: Sequence[float]) -> float:
    """Volume of the prediction minus that of the reference, in ml (2-D: in units of 1000 mm²); 0 is best.

    Signed, so that a mean over cases shows a tendency to too much (positive) or too little. It is no score to choose
    a model by: errors of both signs cancel.
    """
    _, in_pred, in_label = _counts(pred, label, spacing_mm)
    return (in_pred - in_label) * float(np.prod(spacing_mm)) / 1000


def hd95_mm(pred: Mask, label: Mask, spacing_mm: Sequence[float]) -> float:
    """95 % Hausdorff distance in mm, 0 is best; symmetric.

    The larger of the two directed 95th percentiles (linear interpolation), as MONAI and Metrics Reloaded have it. Tools
    that take one percentile of both directions together give values at most as large.

    Source: Huttenlocher et al. 1993, doi:10.1109/34.232073.
    """
    return _surfaces(pred, label, spacing_mm).hd95_mm()


def assd_mm(pred: Mask, label: Mask, spacing_mm: Sequence[float]) -> float:
    """Average symmetric surface distance in mm: the mean over all surface voxels of both masks; 0 is best.

    Source: Heimann et al. 2009, doi:10.1109/TMI.2009.2013851.
    """
    return _surfaces(pred, label, spacing_mm).assd_mm()


def nsd(pred: Mask, label: Mask, spacing_mm: Sequence[float], tolerance_mm: float = 1.0) -> float:
    """Normalised surface dice: share of both surfaces within ``tolerance_mm`` of the other, in [0, 1]; symmetric.

    Source: Nikolov et al. 2021, doi:10.2196/26151; by counts of surface voxels as in Seidlitz et al. 2022 and MONAI.
    """
    return _surfaces(pred, label, spacing_mm).nsd(tolerance_mm)


def score_case(
    pred: npt.NDArray[np.integer],
    label: npt.NDArray[np.integer],
    class_names: Sequence[str],  # of all classes, background first; index = class
    spacing_mm: Sequence[float],
    nsd_tolerance_mm: float,
) -> list[dict[str, float | int | str]]:
    """All metrics of one case: a row for each foreground class of two arrays of class indices, in 2-D or 3-D.

    Returns:
        Rows with the keys ``class``, those of ``METRICS``, and ``missed`` and ``false`` (0 or 1).

    Raises:
        DataError: shapes differ, or the spacing does not fit.
    """
    rows: list[dict[str, float | int | str]] = []
    for index, name in enumerate(class_names[1:], 1):
        masks = pred == index, label == index
        surfaces = _surfaces(*masks, spacing_mm)
        in_pred, in_label = (bool(mask.any()) for mask in masks)
        rows.append(
            {"class": name}
            | {metric.__name__: metric(*masks, spacing_mm) for metric in (dice, iou, precision, recall)}
            | {"nsd": surfaces.nsd(nsd_tolerance_mm), "hd95_mm": surfaces.hd95_mm(), "assd_mm": surfaces.assd_mm()}
            | {"volume_difference_ml": volume_difference_ml(*masks, spacing_mm)}
            | {"missed": int(in_label and not in_pred), "false": int(in_pred and not in_label)}
        )
    return rows


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Spread of every metric over cases, from rows of ``score_case`` with the column ``case``, by class and over them.

    The last line first averages the classes within a case and then looks at the cases, since cases are what is drawn
    at random; its ``missed`` and ``false`` are totals.

    Returns:
        One line a class in order of appearance, then ``MEAN_OF_CLASSES``; columns ``cases``, ``missed``, ``false``, and
        ``<metric>_mean``, ``<metric>_sd`` (n - 1; NaN for one case), ``<metric>_median`` for each of ``METRICS``.
    """
    by_case = rows.groupby("case", sort=False)
    whole = by_case[list(METRICS)].mean().assign(**by_case[["missed", "false"]].sum())
    lines = {str(name): _line(part) for name, part in rows.groupby("class", sort=False)}
    return pd.DataFrame.from_dict({**lines, MEAN_OF_CLASSES: _line(whole)}, orient="index")


def _line(part: pd.DataFrame) -> dict[str, float]:
    line: dict[str, float] = {"cases": len(part)}
    line |= {count: int(part[count].sum()) for count in ("missed", "false")}
    for metric in METRICS:
        values = part[metric]
        line |= {f"{metric}_mean": values.mean(), f"{metric}_sd": values.std(), f"{metric}_median": values.median()}
    return line


@dataclass(frozen=True)
class _Surfaces:
    """Distance in mm of each surface voxel of one mask to the nearest of the other, both ways, found once.

    Where one mask is empty both arrays hold just ``diagonal_mm``, that of the whole volume; where both are, 0.
    """

    pred_to_label: npt.NDArray[np.float64]
    label_to_pred: npt.NDArray[np.float64]
    diagonal_mm: float

    def hd95_mm(self) -> float:
        return float(max(np.percentile(self.pred_to_label, 95), np.percentile(self.label_to_pred, 95)))

    def assd_mm(self) -> float:
        return float(np.concatenate([self.pred_to_label, self.label_to_pred]).mean())

    def nsd(self, tolerance_mm: float) -> float:
        distances = np.concatenate([self.pred_to_label, self.label_to_pred])
        return float(((distances <= tolerance_mm) & (distances < self.diagonal_mm)).mean())


def _surfaces(pred: Mask, label: Mask, spacing_mm: Sequence[float]) -> _Surfaces:
    _check(pred, label, spacing_mm)
    diagonal_mm = float(np.linalg.norm(np.multiply(pred.shape, spacing_mm)))
    if not (pred.any() and label.any()):
        only = np.array([diagonal_mm if pred.any() or label.any() else 0.0])
        return _Surfaces(only, only, diagonal_mm)
    (box,) = ndimage.find_objects((pred | label).astype(np.uint8))
    pred_surface, label_surface = _surface(pred[box]), _surface(label[box])
    return _Surfaces(
        _nearest(pred_surface, label_surface, spacing_mm),
        _nearest(label_surface, pred_surface, spacing_mm),
        diagonal_mm,
    )


def _counts(pred: Mask, label: Mask, spacing_mm: Sequence[float]) -> tuple[int, int, int]:
    """Voxels in both masks, in the prediction, in the reference."""
    _check(pred, label, spacing_mm)
    return int(np.count_nonzero(pred & label)), int(np.count_nonzero(pred)), int(np.count_nonzero(label))


def _share(part: int, whole: int, any_voxels: int) -> float:
    """``part / whole`` under the empty rule; ``any_voxels`` is 0 where both masks are empty."""
    return part / whole if whole else float(not any_voxels)


def _check(pred: Mask, label: Mask, spacing_mm: Sequence[float]) -> None:
    if pred.shape != label.shape:
        raise DataError(f"prediction of shape {pred.shape}, reference of shape {label.shape}: put both on one grid")
    if len(spacing_mm) != pred.ndim or not all(step > 0 for step in spacing_mm):
        raise DataError(f"spacing_mm is {tuple(spacing_mm)}: give one positive number for each of {pred.ndim} axes")


def _surface(mask: Mask) -> Mask:
    """Voxels of the mask with a face neighbour outside it, or at the border of the array."""
    surface: Mask = mask & ~ndimage.binary_erosion(mask)
    return surface


def _nearest(start: Mask, goal: Mask, spacing_mm: Sequence[float]) -> npt.NDArray[np.float64]:
    """Distance in mm from each voxel of ``start`` to the nearest of ``goal``, zeros of shared voxels first."""
    shared = int(np.count_nonzero(start & goal))
    tree = KDTree(np.argwhere(goal) * np.asarray(spacing_mm))
    away, _ = tree.query(np.argwhere(start & ~goal) * np.asarray(spacing_mm))
    return np.concatenate([np.zeros(shared), away])
