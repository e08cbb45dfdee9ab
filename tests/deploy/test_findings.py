"""What is unusual is named, what is usual is not, and the expected Dice covers what it promises."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from seg.deploy.findings import expected_dice, findings, risk_of

CUBE = "40×40×40"


@dataclass
class Known:
    """What a package knows of its training: two structures in cases of about 40 mm."""

    classes: dict[str, int] = field(default_factory=lambda: {"background": 0, "lobe": 1, "tail": 2})
    training: tuple[dict[str, Any], ...] = tuple(
        {"shape": [40, 40, 40], "spacing_mm": [1.0, 1.0, 1.0], "volumes_ml": {"lobe": lobe, "tail": tail}}
        for lobe, tail in ((0.5, 0.1), (1.5, 0.4))
    )


def mask(lobe: int = 10, tail: int = 6) -> np.ndarray:
    """A lobe of ``lobe``³ voxels, and a tail."""
    made = np.zeros((40, 40, 40), np.uint8)
    made[2 : 2 + lobe, 2 : 2 + lobe, 2 : 2 + lobe] = 1
    made[20 : 20 + tail, 20 : 20 + tail, 20 : 20 + tail] = 2
    return made


def texts(made: np.ndarray, shape: tuple[int, ...] = (40, 40, 40), spacing: tuple[float, ...] = (1, 1, 1)) -> list[str]:
    return [f"{one.risk}: {one.text}" for one in findings(Known(), shape, spacing, made)]  # type: ignore[arg-type]


def test_a_usual_scan_has_no_findings() -> None:
    assert texts(mask()) == []
    assert texts(mask(), spacing=(1.1, 1, 1)) == []
    assert risk_of([]) == "low"


@pytest.mark.parametrize(
    ("made", "grid", "expected"),
    [
        (mask(tail=0), {}, "high: no tail was found, and every training case has one"),
        (mask(lobe=17), {}, "high: lobe of 4.91 ml; the training had 0.5 to 1.5 ml"),
        (mask(lobe=12), {}, "medium: lobe of 1.73 ml; the training had 0.5 to 1.5 ml"),
        (mask(), {"spacing": (1, 1, 2)}, "medium: voxels of 1×1×2 mm; the training had 1×1×1 to 1×1×1 mm"),
        (
            mask(),
            {"shape": (80, 40, 40)},
            "low: a field of view of 80×40×40 mm; the training had 40×40×40 to 40×40×40 mm",
        ),
    ],
)
def test_what_is_unusual_is_named(made: np.ndarray, grid: dict[str, Any], expected: str) -> None:
    assert expected in texts(made, **grid)


def test_pieces_are_counted_and_the_worst_comes_first() -> None:
    made = mask(tail=0)
    made[30:36, 30:36, 30:36] = 1
    found = texts(made)
    assert found[0].startswith("high: no tail")
    assert "medium: lobe is in 2 pieces, the largest with 82% of it" in found


def test_a_structure_that_no_training_case_has() -> None:
    known = Known(training=tuple({**case, "volumes_ml": {"lobe": 1.0}} for case in Known().training))
    assert [one.risk for one in findings(known, (40, 40, 40), (1, 1, 1), mask())] == ["high"]  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [19, 40, 100])
def test_the_interval_covers_new_scans_as_promised(count: int) -> None:
    random = np.random.default_rng(count)
    inside = []
    for _ in range(2000):
        scores = random.beta(9, 2, count + 1)
        expected = expected_dice({"lobe": scores[1:]})["lobe"]
        assert expected.low is not None
        assert expected.high is not None
        inside.append(expected.low <= scores[0] <= expected.high)
    assert np.mean(inside) == pytest.approx(0.9, abs=0.025)


def test_few_cases_promise_nothing() -> None:
    expected = expected_dice({"lobe": [0.8, 0.9], "tail": []})
    assert expected["lobe"].dice == pytest.approx(0.85)
    assert expected["lobe"].low is expected["lobe"].high is None
    assert "tail" not in expected
