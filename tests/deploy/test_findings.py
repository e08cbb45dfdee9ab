"""What is unusual is named, what is usual is not, and the expected Dice covers what it promises."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from seg.deploy.findings import Finding, Observed, expected_dice, findings, no_promise, pieces, risk_of

LOBE, TAIL = [-2.0, -1.0, -0.6, -0.2, 1.0], [0.0, 0.5, 1.0, 1.5, 2.0]  # normalised, in two channels


@dataclass
class Known:
    """What a package knows of its training: two structures in cases of about 40 mm, seen in two channels."""

    classes: dict[str, int] = field(default_factory=lambda: {"background": 0, "lobe": 1, "tail": 2})
    channels: tuple[str, ...] = ("T1", "T2")
    training: tuple[dict[str, Any], ...] = tuple(
        {
            "shape": [40, 40, 40],
            "spacing_mm": [1.0, 1.0, 1.0],
            "volumes_ml": {"lobe": lobe, "tail": tail},
            "normalised": [LOBE, TAIL],
        }
        for lobe, tail in ((0.5, 0.1), (1.5, 0.4))
    )
    confidence: dict[str, list[float]] = field(default_factory=lambda: {"lobe": [0.8 + n / 200 for n in range(20)]})


def texts(known: Known | None = None, **differing: Any) -> list[str]:
    """The findings of a usual scan but for what differs."""
    usual = Observed(
        (40, 40, 40),
        (1.0, 1.0, 1.0),
        True,
        {"lobe": 1.0, "tail": 0.2},
        {"lobe": (1, 1.0), "tail": (1, 1.0)},
        {"lobe": 0.85, "tail": 0.1},
        [],
        [LOBE, TAIL],
    )
    found = findings(known or Known(), replace(usual, **differing))  # type: ignore[arg-type]
    return [f"{one.risk}: {one.text}" for one in found]


def test_a_usual_scan_has_no_findings() -> None:
    assert texts() == []
    assert texts(spacing_mm=(1.1, 1, 1)) == []
    assert texts(normalised=[[value + 0.2 for value in LOBE], TAIL]) == []
    assert texts(volumes_ml={"lobe": 1.0, "tail": 0.2, "no": 0}) == []
    assert risk_of([]) == "low"


@pytest.mark.parametrize(
    ("differing", "expected"),
    [
        ({"volumes_ml": {"tail": 0.0}}, "high: no tail was found, and every training case has one"),
        ({"volumes_ml": {"lobe": 4.91}}, "high: lobe of 4.91 ml; the training had 0.5 to 1.5 ml"),
        ({"volumes_ml": {"lobe": 0.4}}, "medium: lobe of 0.4 ml; the training had 0.5 to 1.5 ml"),
        ({"volumes_ml": {"lobe": 1.73}}, "medium: lobe of 1.73 ml; the training had 0.5 to 1.5 ml"),
        (
            {"shape": (40, 40, 20), "spacing_mm": (1, 1, 2)},
            "medium: voxels of 1×1×2 mm; the training had 1×1×1 to 1×1×1 mm",
        ),
        (
            {"shape": (80, 40, 40)},
            "low: a field of view of 80×40×40 mm; the training had 40×40×40 to 40×40×40 mm",
        ),
        ({"pieces": {"lobe": (2, 0.82)}}, "medium: lobe is in 2 pieces, the largest with 82% of it"),
        (
            {"oriented": False},
            "medium: the file does not say how its axes lie; 100% of the training did, so it may be flipped",
        ),
        (
            {"normalised": [[-value for value in LOBE], TAIL]},
            "medium: T1: the lower quartile of the normalised intensities within the structures is 1.00; the training "
            "had -1.00 to -1.00",
        ),
        ({"normalised": [TAIL, LOBE]}, "high: the channels look like T2, T1 in this order: are its files swapped?"),
        (
            {"confidence": {"lobe": 0.78}},
            "medium: the mean probability of lobe is 78%; the lowest of 20 scored cases had 80%",
        ),
        (
            {"confidence": {"lobe": 0.6}},
            "high: the mean probability of lobe is 60%; the lowest of 20 scored cases had 80%",
        ),
    ],
)
def test_what_is_unusual_is_named_and_nothing_else(differing: dict[str, Any], expected: str) -> None:
    assert texts(**differing) == [expected]


def test_the_worst_comes_first() -> None:
    found = texts(volumes_ml={"tail": 0.0}, pieces={"lobe": (2, 0.8)}, shape=(80, 40, 40))
    assert [text.partition(":")[0] for text in found] == ["high", "medium", "low"]


def test_a_structure_that_no_training_case_has() -> None:
    known = Known(training=tuple({**case, "volumes_ml": {"lobe": 1.0}} for case in Known().training))
    assert [text.partition(":")[0] for text in texts(known)] == ["high"]


def test_what_the_package_does_not_know_is_not_missed() -> None:
    """As of packages that earlier versions made, or of runs that scored nothing."""
    training = tuple({key: case[key] for key in ("shape", "spacing_mm", "volumes_ml")} for case in Known().training)
    known = Known(training=training, confidence={"lobe": [0.8] * 18})
    assert texts(known, normalised=[TAIL, LOBE], confidence={"lobe": 0.1}) == []


def test_pieces_are_counted() -> None:
    indices = np.zeros((40, 40, 40), np.uint8)
    indices[2:12, 2:12, 2:12] = 1
    indices[30:36, 30:36, 30:36] = 1
    indices[12, 12, 12] = 3  # touches the first by a corner
    found = pieces(indices, 4)
    assert found.keys() == {1, 3}
    assert found[1] == (2, pytest.approx(1000 / 1216))
    assert found[3] == (1, 1.0)


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


@pytest.mark.parametrize(
    ("cases", "found", "expected"),
    [
        (19, [Finding("", "low")], ""),
        (19, [Finding("", "medium")], "the Dice cannot be promised: nothing like this scan was scored"),
        (18, [], "no interval of the Dice can be promised: fewer than 19 cases were scored"),
        (0, [], "the Dice cannot be promised: the run scored no case"),
    ],
)
def test_what_cannot_be_promised_is_said_in_words(cases: int, found: list[Finding], expected: str) -> None:
    assert no_promise({"lobe": [0.8] * cases}, found) == expected


def test_few_cases_promise_nothing() -> None:
    expected = expected_dice({"lobe": [0.8, 0.9], "tail": []})
    assert expected["lobe"].dice == pytest.approx(0.85)
    assert expected["lobe"].low is expected["lobe"].high is None
    assert "tail" not in expected
