"""What half a voxel of doubt about a surface costs: against random surfaces, and where it must be less."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from seg.data.cases import folder
from seg.data.jitter import jitter_cost, jitter_costs


def ball(radius: float, size: int = 40) -> np.ndarray:
    grid = np.indices((size, size, size)) - (size - 1) / 2
    mask: np.ndarray = (grid**2).sum(0) <= radius**2
    return mask


def test_it_is_the_mean_over_surfaces_that_are_jittered_at_random() -> None:
    mask, rng = ball(9), np.random.default_rng(0)
    away = ndimage.distance_transform_edt(mask) - ndimage.distance_transform_edt(~mask)
    away -= 0.5 * np.sign(away)
    lost = []
    for _ in range(30):
        moved = away + 0.5 * rng.normal(size=mask.shape) > 0
        lost.append(1 - 2 * (moved & mask).sum() / (moved.sum() + mask.sum()))
    assert jitter_cost(mask) == pytest.approx(np.mean(lost), abs=0.002)


def test_large_structures_lose_less_and_each_class_has_its_own(phantom_root: Path) -> None:
    small, large = jitter_cost(ball(4)), jitter_cost(ball(16))
    assert 0 < large < small / 3 < 0.2
    square = np.zeros((20, 20), bool)
    square[5:15, 5:15] = True
    assert 0 < jitter_cost(square) < 0.1, "in 2-D, too"
    for axis in range(3):
        flat = jitter_cost(np.expand_dims(square, axis))
        assert flat == jitter_cost(square), "a picture has no surface above and below"
    cases = folder(phantom_root)
    costs = jitter_costs(cases)
    assert set(costs) == set(cases.names[1:])
    assert jitter_costs(replace(cases, cases=cases.cases[:1])) != costs
    assert jitter_costs(replace(cases, cases=())) == {}
