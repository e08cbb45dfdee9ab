"""Calibration errors, counted slice by slice, are those of the whole volume, and MONAI's."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from monai.metrics import CalibrationErrorMetric
from numpy.typing import NDArray

from seg.data.classes import IGNORE
from seg.data.preprocess import Geometry
from seg.engine.calibration import BINS, Reliability
from seg.engine.decision import decide
from seg.engine.inference import Slices, on_grid

FULL, CROP, SHAPE = (14, 18, 11), ((2, 14), (0, 15), (3, 10)), (9, 12, 9)
CLASSES = 4


def geometry(crop: tuple[tuple[int, int], ...] = CROP) -> Geometry:
    spacing = (1.0, 1.0, 1.0)
    return Geometry(
        ((1.0, 0, 0, 0), (0, 1.0, 0, 0), (0, 0, 1.0, 0), (0, 0, 0, 1.0)), FULL, spacing, crop, SHAPE, spacing
    )


def made(seed: int = 0) -> tuple[torch.Tensor, NDArray[np.uint8]]:
    """Logits of a prepared volume, sure of most of it, and a label of the whole grid that they suit somewhat."""
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(0, 3, (CLASSES, *SHAPE)).astype(np.float32))
    logits[0] += 3
    label = rng.choice(CLASSES, FULL, p=[0.7, 0.2, 0.1, 0]).astype(np.uint8)  # the last class is nowhere
    return logits, label


def counted(logits: torch.Tensor, label: NDArray[np.uint8], where: Geometry, axis: int) -> Reliability:
    slices = on_grid(Slices(axis, iter(logits.unbind(axis + 1))), where)
    found = Reliability(label, where, axis, CLASSES)
    decide(slices, where, found.add)
    return found


def probabilities(logits: torch.Tensor, where: Geometry, axis: int) -> torch.Tensor:
    whole = torch.zeros(CLASSES, *FULL)
    inside = on_grid(Slices(axis, iter(logits.unbind(axis + 1))), where).whole().softmax(0)
    whole[(slice(None), *(slice(*ends) for ends in where.crop))] = inside
    return whole


def plain(probability: NDArray[np.float64], truth: NDArray[np.bool_]) -> tuple[float, float]:
    """ECE and ACE of one class, voxel by voxel."""
    gaps, parts = [], []
    for low in np.arange(BINS) / BINS:
        here = (probability > low) & (probability <= low + 1 / BINS) if low else probability <= 1 / BINS
        if here.any():
            gaps.append(abs(probability[here].mean() - truth[here].mean()))
            parts.append(here.mean())
    return float(np.dot(gaps, parts)), float(np.mean(gaps))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_errors_are_those_of_the_whole_volume(axis: int) -> None:
    logits, label = made()
    label[:2, :5] = IGNORE
    ece, ace = counted(logits, label, geometry(), axis).errors()
    whole, known = probabilities(logits, geometry(), axis).numpy().astype(float), label != IGNORE
    for k in range(1, CLASSES):
        expected = plain(whole[k][known], label[known] == k)
        assert (ece[k - 1], ace[k - 1]) == pytest.approx(expected, abs=1e-6)
    assert ece[2] > 0, "a class that is nowhere, and yet was thought possible"


def test_the_errors_are_those_of_monai() -> None:
    logits, label = made(1)
    own = counted(logits, label, geometry(), 1).errors()
    y = torch.nn.functional.one_hot(torch.from_numpy(label).long(), CLASSES).movedim(-1, 0)[None]
    y_pred = probabilities(logits, geometry(), 1)[None]
    for errors, kind in zip(own, ("expected", "average"), strict=True):
        metric = CalibrationErrorMetric(
            BINS, include_background=False, calibration_reduction=kind, metric_reduction="none"
        )
        metric(y_pred=y_pred, y=y.float())
        assert errors == pytest.approx(metric.aggregate()[0].numpy(), abs=1e-6)


def test_a_perfect_and_a_wrong_network() -> None:
    where = geometry(tuple((0, side) for side in FULL))
    _, label = made(2)
    sure = 50.0 * torch.nn.functional.one_hot(torch.from_numpy(label).long(), CLASSES).movedim(-1, 0).float()
    for logits, error in ((sure, 0.0), (sure.roll(1, 0), None)):
        found = Reliability(label, where, 2, CLASSES)
        decide(Slices(2, iter(logits.unbind(3))), where, found.add)
        ece, ace = found.errors()
        if error is None:
            shares = [((label == k) | (label == k - 1)).mean() for k in range(1, CLASSES)]
            assert ece == pytest.approx(shares), "sure of the class before"
            assert (ace[:2] > 0.2).all()
        else:
            assert ece == pytest.approx(0, abs=1e-12)
            assert ace == pytest.approx(0, abs=1e-12)


def test_a_run_keeps_them_of_each_scored_case_and_class(whole: tuple[Path, Any]) -> None:
    (run,) = [path for path in (whole[0] / "runs").iterdir() if (path / "data/calibration.csv").exists()]
    table, cases = (pd.read_csv(run / "data" / f"{name}.csv") for name in ("calibration", "cases"))
    assert list(table.columns) == ["case", "class", "ece", "ace"]
    assert table[["case", "class"]].equals(cases[["case", "class"]])
    assert table[["ece", "ace"]].stack().between(0, 1).all()


def test_nothing_is_known_where_nobody_annotated() -> None:
    logits, label = made()
    ece, ace = counted(logits, np.full_like(label, IGNORE), geometry(), 0).errors()
    assert np.isnan([*ece, *ace]).all()
