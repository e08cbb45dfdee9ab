"""Scores of one structure in one case, and their summary over cases.

``METRICS`` holds every metric; scoring, tables, pages, verdicts and the console read their columns, names, units and
directions there. To add one, write one decorated function here. Each is called as ``dice(pred, label, spacing_mm)`` on
two boolean masks of one shape, in 2-D or 3-D.

The empty rule, the same for all of them:

- both masks empty: the prediction is right. Shares (dice, iou, precision, recall, nsd) are 1, distances 0. A table of
  scores leaves such a structure out (``score_case``): where there was nothing to find, nothing may lift a mean.
- one mask empty: as wrong as can be. Shares are 0, and a distance is the diagonal of the whole volume in mm, more than
  any two of its voxels can be apart. It is never NaN and never dropped, so missing a structure cannot improve a mean.

The surface of a mask is its voxels with a face neighbour outside the mask; what is beyond the volume counts as
outside. Distances run between voxel centres in mm, so uneven spacing counts as it should. Each surface voxel weighs
the same (not its area), as in MONAI and in Metrics Reloaded (Maier-Hein et al. 2024, doi:10.1038/s41592-023-02151-z).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf, nan
from pathlib import Path
from typing import Literal, TextIO, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import ndimage
from scipy.spatial import KDTree

from seg.errors import DataError
from seg.regions import Regions, inside

Mask: TypeAlias = npt.NDArray[np.bool_]

MEAN_OF_CLASSES = "mean of classes"
COUNTS = ("missed", "false")


@dataclass(frozen=True, eq=False)
class Pair:
    """Prediction and reference of one structure; what several metrics need is computed once.

    ``pred`` and ``label`` are masks of one shape, in 2-D or 3-D; ``spacing_mm`` one number per axis; ``tolerance_mm``
    that of the normalised surface dice.

    Raises:
        DataError: shapes differ, or the spacing does not fit.
    """

    pred: Mask
    label: Mask
    spacing_mm: Sequence[float]
    tolerance_mm: float = 1.0

    def __post_init__(self) -> None:
        shapes, spacing_mm = (self.pred.shape, self.label.shape), tuple(self.spacing_mm)
        if shapes[0] != shapes[1]:
            raise DataError(f"prediction of shape {shapes[0]}, reference of shape {shapes[1]}: put both on one grid")
        if len(spacing_mm) != self.pred.ndim or not all(step > 0 for step in spacing_mm):
            raise DataError(f"spacing_mm is {spacing_mm}: give one positive number for each of {self.pred.ndim} axes")

    @cached_property
    def in_both(self) -> int:
        """Voxels in both masks."""
        return int(np.count_nonzero(self.pred & self.label))

    @cached_property
    def in_pred(self) -> int:
        """Voxels in the prediction."""
        return int(np.count_nonzero(self.pred))

    @cached_property
    def in_label(self) -> int:
        """Voxels in the reference."""
        return int(np.count_nonzero(self.label))

    def share(self, part: int, whole: int) -> float:
        """``part / whole`` under the empty rule."""
        return part / whole if whole else float(not (self.in_pred or self.in_label))

    @property
    def diagonal_mm(self) -> float:
        """Of the whole volume."""
        return float(np.linalg.norm(np.multiply(self.pred.shape, self.spacing_mm)))

    @cached_property
    def distances_mm(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Of each surface voxel of the prediction to the nearest of the reference, and the other way round.

        Where one mask is empty both arrays hold just the diagonal of the volume; where both are, 0.
        """
        if not (self.in_pred and self.in_label):
            only = np.array([self.diagonal_mm if self.in_pred or self.in_label else 0.0])
            return only, only
        flat = tuple(axis for axis, size in enumerate(self.pred.shape) if size == 1)[: self.pred.ndim - 1]
        pred, label = self.pred.squeeze(flat), self.label.squeeze(flat)  # a pixel has no neighbours off its picture
        spacing_mm = [mm for axis, mm in enumerate(self.spacing_mm) if axis not in flat]
        (box,) = ndimage.find_objects((pred | label).astype(np.uint8))
        pred, label = (mask & ~ndimage.binary_erosion(mask) for mask in (pred[box], label[box]))
        return _nearest(pred, label, spacing_mm), _nearest(label, pred, spacing_mm)


@dataclass(frozen=True)
class Metric:
    """A score of one structure in one case.

    ``name`` is its column in ``cases.csv``, ``label`` its name for people, ``better`` 1 if higher is better, -1 if
    lower is, 0 if neither is (a signed error, which is not a score to choose by); means are written with ``digits``
    decimals; ``limits`` are the least and the largest value there can be; ``shown`` is whether the printed summary, a
    run's description and the compare page have it, beside the tables that have every metric.
    """

    name: str
    label: str
    unit: Literal["", "mm", "ml"]
    better: Literal[1, 0, -1]
    digits: int
    limits: tuple[float, float]
    function: Callable[[Pair], float]
    shown: bool = False

    def __call__(self, pred: Mask, label: Mask, spacing_mm: Sequence[float], tolerance_mm: float = 1.0) -> float:
        """The score of two masks of one shape, ``tolerance_mm`` being that of nsd.

        Raises:
            DataError: shapes differ, or the spacing does not fit.
        """
        return self.function(Pair(pred, label, spacing_mm, tolerance_mm))

    def with_unit(self, text: str, lengths: str = "mm") -> str:
        """``0.01`` or ``1.5 mm``; ``1.5 pixels`` where ``lengths`` are in pixels."""
        return f"{text} {unit_in(self.unit, lengths)}".rstrip()

    @property
    def best(self) -> float:
        """What a perfect prediction gets, and one that rightly leaves a structure out that another has by mistake."""
        return self.limits[1] if self.better > 0 else 0.0

    @property
    def reach(self) -> float:
        """How far two values can lie apart."""
        return self.limits[1] - self.limits[0]

    def title(self, lengths: str = "mm") -> str:
        """Label and unit."""
        return f"{self.label} ({unit_in(self.unit, lengths)})" if self.unit else self.label


def unit_in(unit: str, lengths: str) -> str:
    """The unit of a metric where ``lengths`` are in mm, or in the pixels of pictures, of which a thousand are a ml."""
    return unit if lengths == "mm" else {"mm": "pixels", "ml": "1000 pixels"}.get(unit, unit)


def lengths_of(scores: pd.DataFrame) -> str:
    """What lengths are in: mm, or what the column ``unit`` says, which scores of pictures have."""
    units = {unit for unit in scores.get("unit", []) if unit == unit and unit}
    return "pixels" if units == {"pixels"} else "mm"


METRICS: dict[str, Metric] = {}  # by name, in the order of the columns of cases.csv


def shown() -> dict[str, Metric]:
    """The metrics that summaries and pages show, by name."""
    return {name: metric for name, metric in METRICS.items() if metric.shown}


def _metric(
    label: str,
    unit: Literal["", "mm", "ml"],
    better: Literal[1, 0, -1],
    digits: int,
    limits: tuple[float, float],
    shown: bool = False,
) -> Callable[[Callable[[Pair], float]], Metric]:
    """Makes a function a metric of its name, and lists it."""

    def listed(function: Callable[[Pair], float]) -> Metric:
        made = Metric(function.__name__, label, unit, better, digits, limits, function, shown)
        return METRICS.setdefault(made.name, made)

    return listed


@_metric("Dice", "", better=1, digits=3, limits=(0, 1), shown=True)
def dice(pair: Pair) -> float:
    """Overlap 2 TP / (2 TP + FP + FN), in [0, 1], 1 is best; symmetric. Source: Dice 1945."""
    return pair.share(2 * pair.in_both, pair.in_pred + pair.in_label)


@_metric("IoU", "", better=1, digits=3, limits=(0, 1))
def iou(pair: Pair) -> float:
    """Overlap TP / (TP + FP + FN), in [0, 1], 1 is best; symmetric. Source: Jaccard 1912."""
    return pair.share(pair.in_both, pair.in_pred + pair.in_label - pair.in_both)


@_metric("Precision", "", better=1, digits=3, limits=(0, 1))
def precision(pair: Pair) -> float:
    """Share of the prediction that is right, TP / (TP + FP), in [0, 1], 1 is best."""
    return pair.share(pair.in_both, pair.in_pred)


@_metric("Recall", "", better=1, digits=3, limits=(0, 1))
def recall(pair: Pair) -> float:
    """Share of the reference that was found, TP / (TP + FN), in [0, 1], 1 is best."""
    return pair.share(pair.in_both, pair.in_label)


@_metric("NSD", "", better=1, digits=3, limits=(0, 1), shown=True)
def nsd(pair: Pair) -> float:
    """Normalised surface dice: share of both surfaces within ``tolerance_mm`` of the other, in [0, 1]; symmetric.

    Source: Nikolov et al. 2021, doi:10.2196/26151; by counts of surface voxels as in Seidlitz et al. 2022 and MONAI.
    """
    distances_mm = np.concatenate(pair.distances_mm)
    within = distances_mm <= pair.tolerance_mm * (1 + 1e-6)  # 0.8 mm of a header are 0.800000012
    return float((within & (distances_mm < pair.diagonal_mm)).mean())


@_metric("HD95", "mm", better=-1, digits=2, limits=(0, inf), shown=True)
def hd95_mm(pair: Pair) -> float:
    """95 % Hausdorff distance in mm, 0 is best; symmetric.

    The larger of the two directed 95th percentiles (linear interpolation), as MONAI and Metrics Reloaded have it. Tools
    that take one percentile of both directions together give values at most as large.

    Source: Huttenlocher et al. 1993, doi:10.1109/34.232073.
    """
    return float(max(np.percentile(directed, 95) for directed in pair.distances_mm))


@_metric("ASSD", "mm", better=-1, digits=2, limits=(0, inf))
def assd_mm(pair: Pair) -> float:
    """Average symmetric surface distance in mm: the mean over all surface voxels of both masks; 0 is best.

    Source: Heimann et al. 2009, doi:10.1109/TMI.2009.2013851.
    """
    return float(np.concatenate(pair.distances_mm).mean())


@_metric("Volume difference", "ml", better=0, digits=2, limits=(-inf, inf))
def volume_difference_ml(pair: Pair) -> float:
    """Volume of the prediction minus that of the reference, in ml (2-D: in units of 1000 mm²); 0 is best.

    Signed, so that a mean over cases shows a tendency to too much (positive) or too little. Do not choose
    a model by it: errors of both signs cancel.
    """
    return (pair.in_pred - pair.in_label) * float(np.prod(pair.spacing_mm)) / 1000


def score_case(
    pred: npt.NDArray[np.integer],
    label: npt.NDArray[np.integer],
    class_names: Sequence[str],  # of all classes, background first; index = class
    spacing_mm: Sequence[float],
    nsd_tolerance_mm: float,
    within: Regions | None = None,  # of regions: see seg.regions
) -> list[dict[str, float | int | str]]:
    """All metrics of one case: a row for each foreground class, or region, of two label maps, in 2-D or 3-D.

    Where ``label`` holds no class (an index past the last: voxels that nobody annotated) neither array counts.

    Returns:
        Rows with the keys ``class``, those of ``METRICS``, and ``missed`` and ``false`` (0 or 1). The metrics of a
        class in neither array are NaN: it is not scored in this case.

    Raises:
        DataError: shapes differ, or the spacing does not fit.
    """
    rows: list[dict[str, float | int | str]] = []
    known = label < len(class_names)
    for index, name in enumerate(class_names[1:], 1):
        here, there = inside(pred, index, within), inside(label, index, within)
        pair = Pair(here & known if here.shape == known.shape else here, there, spacing_mm, nsd_tolerance_mm)
        scored = pair.in_pred or pair.in_label
        rows.append(
            {"class": name}
            | {metric.name: metric.function(pair) if scored else nan for metric in METRICS.values()}
            | {"missed": int(pair.in_label and not pair.in_pred), "false": int(pair.in_pred and not pair.in_label)}
        )
    return rows


def read_scores(source: str | Path | TextIO) -> pd.DataFrame:
    """Reads a table of scores such as a run's ``cases.csv``.

    Names stay text, so that a case NA or 007 or an arm "none" is not turned into something else; the columns of
    ``METRICS``, ``missed`` and ``false`` become numbers, NaN where a cell is empty.

    Raises:
        DataError: there is no such file, it is not a CSV, or a cell of these columns holds no number.
    """
    try:
        scores = pd.read_csv(source, dtype=str, keep_default_na=False, index_col=False)
    except (OSError, ValueError) as error:  # pandas' parser errors are ValueErrors
        raise DataError(f"{source} is not a readable CSV of scores: {error}") from error
    known = [column for column in (*METRICS, *COUNTS) if column in scores]
    numbers = {column: pd.to_numeric(scores[column], errors="coerce") for column in known}
    for column, found in numbers.items():
        text = scores[column][found.isna() & ~scores[column].str.strip().str.lower().isin(["", "nan"])]
        if len(text):
            raise DataError(
                f"{source}: {column} is {text.iloc[0]!r} in row {text.index[0] + 1}. Write a number, its decimals "
                "after a point, or leave the cell empty where a class is in neither mask."
            )
    return scores.assign(**numbers)


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Spread of every metric over cases, from rows of ``score_case`` with the column ``case``, by class and over them.

    A class counts in the cases where it is scored. The last line first averages the classes within a case and then
    looks at the cases, since cases are what is drawn at random; its ``present``, ``missed`` and ``false`` are totals.

    Returns:
        One line a class in order of appearance, then ``MEAN_OF_CLASSES``; columns ``cases`` (scored), ``present`` (in
        the reference), ``missed``, ``false``, and ``<metric>_mean``, ``<metric>_sd`` (n - 1; NaN for one case),
        ``<metric>_median`` for each of ``METRICS``, NaN where no case is scored.
    """
    rows = rows.assign(present=rows["dice"].notna() & (rows["false"] == 0))
    by_case = rows.groupby("case", sort=False)
    whole = by_case[list(METRICS)].mean().assign(**by_case[["present", *COUNTS]].sum())
    lines = {str(name): _line(part) for name, part in rows.groupby("class", sort=False)}
    return pd.DataFrame.from_dict({**lines, MEAN_OF_CLASSES: _line(whole)}, orient="index")


def _line(part: pd.DataFrame) -> dict[str, float]:
    line: dict[str, float] = {"cases": int(part["dice"].count())}
    line |= {count: int(part[count].sum()) for count in ("present", *COUNTS)}
    for metric in METRICS:
        values = part[metric]
        line |= {f"{metric}_mean": values.mean(), f"{metric}_sd": values.std(), f"{metric}_median": values.median()}
    return line


def _nearest(start: Mask, goal: Mask, spacing_mm: Sequence[float]) -> npt.NDArray[np.float64]:
    """Distance in mm from each voxel of ``start`` to the nearest of ``goal``, zeros of shared voxels first."""
    shared = int(np.count_nonzero(start & goal))
    tree = KDTree(np.argwhere(goal) * np.asarray(spacing_mm))
    away, _ = tree.query(np.argwhere(start & ~goal) * np.asarray(spacing_mm))
    return np.concatenate([np.zeros(shared), away])
