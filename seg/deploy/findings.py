"""What is unusual about a scan and its mask, held beside the cases that the network was trained on."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import ndimage

from seg.deploy.package import Package
from seg.errors import times

Risk = Literal["low", "medium", "high"]
RISKS: tuple[Risk, ...] = ("low", "medium", "high")
_NEAR = 1.25  # a spacing or a size within this factor of what the training had is no news
_FAR = 2.0  # a volume beyond this factor of all that the training had is most likely an error
_WHOLE = 0.9  # share of a structure that its largest piece should hold
_COVERAGE = 0.9  # of the interval of the expected Dice


@dataclass(frozen=True)
class Finding:
    """One unusual thing, in a sentence, and how much it should worry."""

    text: str
    risk: Risk


@dataclass(frozen=True)
class Expected:
    """The Dice of one class to be expected of a scan like those that were scored.

    ``low`` and ``high`` hold 90 % of such scans, by the ranks of the scored cases (split conformal prediction: Lei et
    al. 2018, doi:10.1080/01621459.2017.1307116). They are None where so few cases were scored that no interval can be
    promised.
    """

    dice: float  # mean of the scored cases
    low: float | None
    high: float | None
    cases: int


def findings(package: Package, shape: Sequence[int], spacing_mm: Sequence[float], mask: np.ndarray) -> list[Finding]:
    """Everything unusual, the most worrying first.

    Args:
        package: of the network, with what is known of its training cases.
        shape: of the scan in voxels, axes in RAS order.
        spacing_mm: the same.
        mask: values as in label files, axes in any order.
    """
    found = [*_of_the_grid(package, shape, spacing_mm), *_of_the_mask(package, spacing_mm, mask)]
    return sorted(found, key=lambda finding: -RISKS.index(finding.risk))


def risk_of(found: Sequence[Finding]) -> Risk:
    """The highest risk of all findings; low where there is none."""
    return max((finding.risk for finding in found), key=RISKS.index, default="low")


def expected_dice(scores: Mapping[str, Sequence[float]]) -> dict[str, Expected]:
    """What to expect of each class, from the Dice of cases that the network was not trained on."""
    return {name: _expected(np.sort(np.asarray(values, float))) for name, values in scores.items() if len(values)}


def _expected(values: np.ndarray) -> Expected:
    count = len(values)
    rank = int((count + 1) * (1 - _COVERAGE) / 2 + 1e-9)  # of n + 1 exchangeable scores, the new one's included
    low, high = (float(values[rank - 1]), float(values[count - rank])) if rank else (None, None)
    return Expected(float(values.mean()), low, high, count)


def _of_the_grid(package: Package, shape: Sequence[int], spacing_mm: Sequence[float]) -> Iterator[Finding]:
    seen = np.array([case["spacing_mm"] for case in package.training])
    sizes = np.array([case["shape"] for case in package.training]) * seen
    compared: list[tuple[str, np.ndarray, np.ndarray, Risk]] = [
        ("voxels", np.array(spacing_mm), seen, "medium"),
        ("a field of view", np.multiply(shape, spacing_mm), sizes, "low"),
    ]
    for what, own, those, risk in compared:
        low, high = those.min(0), those.max(0)
        if (own < low / _NEAR).any() or (own > high * _NEAR).any():
            yield Finding(f"{what} of {times(own)} mm; the training had {times(low)} to {times(high)} mm", risk)


def _of_the_mask(package: Package, spacing_mm: Sequence[float], mask: np.ndarray) -> Iterator[Finding]:
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    for name, value in [*package.classes.items()][1:]:
        seen = [case["volumes_ml"].get(name, 0.0) for case in package.training]
        structure = mask == value
        volume = float(structure.sum()) * voxel_ml
        known = [one for one in seen if one > 0]
        if not volume:
            if len(known) == len(seen):
                yield Finding(f"no {name} was found, and every training case has one", "high")
            continue
        if not known:
            yield Finding(f"{name} was found, and no training case has any", "high")
            continue
        low, high = min(known), max(known)
        if not low <= volume <= high:
            far = not low / _FAR <= volume <= high * _FAR
            text = f"{name} of {volume:.3g} ml; the training had {low:.3g} to {high:.3g} ml"
            yield Finding(text, "high" if far else "medium")
        labelled, pieces = ndimage.label(structure)
        share = float(np.bincount(labelled.ravel())[1:].max()) / float(structure.sum())
        if share < _WHOLE:
            yield Finding(f"{name} is in {pieces} pieces, the largest with {share:.0%} of it", "medium")
