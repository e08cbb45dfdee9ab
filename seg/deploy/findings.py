"""What is unusual about a scan and its mask, held beside the cases that the network was trained on."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Literal

import numpy as np
from scipy import ndimage

from seg.deploy.package import Package
from seg.errors import times
from seg.regions import Regions, among, inside

Risk = Literal["low", "medium", "high"]
RISKS: tuple[Risk, ...] = ("low", "medium", "high")
_NEAR = 1.25  # a spacing or a size within this factor of what the training had is no news
_FAR = 2.0  # a volume beyond this factor of all that the training had is most likely an error
_WHOLE = 0.9  # share of a structure that its largest piece should hold
_COVERAGE = 0.9  # of the interval of the expected Dice
_ENOUGH = 19  # scored cases below which none is known to be the lowest of many
_ROOM = 0.5  # of the training's range of an intensity, allowed on either side of it …
_LEAST_ROOM = 0.25  # … and at least so many standard deviations
_QUARTILES = ("the lower quartile", "the median", "the upper quartile")
_MOST_CHANNELS = 5  # whose orders are all tried


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


@dataclass(frozen=True)
class Observed:
    """A scan and its mask in numbers; axes in RAS order."""

    shape: tuple[int, ...]  # voxels
    spacing_mm: tuple[float, ...]
    oriented: bool  # whether the file says how its axes lie
    volumes_ml: Mapping[str, float]  # of each class but the background
    pieces: Mapping[str, tuple[int, float]]  # of each class found: in how many pieces, and the share of the largest
    confidence: Mapping[str, float]  # of each class found: the mean of its probability within its own voxels
    intensity: Sequence[Sequence[float]]  # per channel: percentiles 1, 25, 50, 75, 99 of the file's values in the mask
    normalised: Sequence[Sequence[float]]  # the same as the network sees them
    unit: str = "mm"  # of ``spacing_mm``: pixels of a picture, of which a thousand are called a ml


def spelled(volume_ml: float, unit: str) -> str:
    """``3.2 ml``; of a picture ``3200 pixels``."""
    return f"{volume_ml:.3g} ml" if unit == "mm" else f"{1000 * volume_ml:.0f} pixels"


def pieces(indices: np.ndarray, classes: int, within: Regions | None = None) -> dict[int, tuple[int, float]]:
    """Of each class, or region, in ``indices`` (X, Y, Z): in how many pieces it is, and the share of the largest."""
    found = {}
    boxes = ndimage.find_objects(indices, classes - 1)
    if within is not None:
        boxes = [(ndimage.find_objects(among(indices, own).astype(np.uint8)) or [None])[0] for own in within]
    for k, box in enumerate(boxes, 1):
        if box is None:
            continue
        labelled, count = ndimage.label(inside(indices[box], k, within))
        parts = np.array_split(labelled.ravel(), max(1, labelled.size // 2**22))  # bincount takes eight bytes a voxel
        sizes = np.sum([np.bincount(part, minlength=count + 1) for part in parts], axis=0)[1:]
        found[k] = (count, float(sizes.max() / sizes.sum()))
    return found


def findings(package: Package, observed: Observed) -> list[Finding]:
    """Everything unusual beside what ``package`` knows of its training and scored cases, the most worrying first."""
    ways = (_of_the_grid, _of_the_intensity, _of_the_volumes, _of_the_pieces, _of_the_confidence)
    found = [finding for way in ways for finding in way(package, observed)]
    return sorted(found, key=lambda finding: -RISKS.index(finding.risk))


def risk_of(found: Sequence[Finding]) -> Risk:
    """The highest risk of all findings; low where there is none."""
    return max((finding.risk for finding in found), key=RISKS.index, default="low")


def expected_dice(scores: Mapping[str, Sequence[float]]) -> dict[str, Expected]:
    """What to expect of each class, from the Dice of cases that the network was not trained on."""
    return {name: _expected(np.sort(np.asarray(values, float))) for name, values in scores.items() if len(values)}


def no_promise(scores: Mapping[str, Sequence[float]], found: Sequence[Finding]) -> str:
    """Why no Dice can be promised, or no interval of it, in words; nothing where both can."""
    if risk_of(found) != "low":
        return "the Dice cannot be promised: nothing like this scan was scored"
    if not any(scores.values()):
        return "the Dice cannot be promised: the run scored no case"
    if any(len(values) < _ENOUGH for values in scores.values()):
        return f"no interval of the Dice can be promised: fewer than {_ENOUGH} cases were scored"
    return ""


def _expected(values: np.ndarray) -> Expected:
    count = len(values)
    rank = int((count + 1) * (1 - _COVERAGE) / 2 + 1e-9)  # of n + 1 exchangeable scores, the new one's included
    low, high = (float(values[rank - 1]), float(values[count - rank])) if rank else (None, None)
    return Expected(float(values.mean()), low, high, count)


def _of_the_grid(package: Package, observed: Observed) -> Iterator[Finding]:
    seen = np.array([case["spacing_mm"] for case in package.training])
    sizes = np.array([case["shape"] for case in package.training]) * seen
    compared: list[tuple[str, np.ndarray, np.ndarray, Risk]] = [
        ("voxels", np.array(observed.spacing_mm), seen, "medium"),
        ("a field of view", np.multiply(observed.shape, observed.spacing_mm), sizes, "low"),
    ]
    unit = package.training[0].get("unit", "mm") if package.training else "mm"
    if unit != observed.unit:
        yield Finding(f"sizes are in {observed.unit}; those of the training are in {unit}", "high")
    for what, own, those, risk in compared:
        low, high = those.min(0), those.max(0)
        if (own < low / _NEAR).any() or (own > high * _NEAR).any():
            yield Finding(
                f"{what} of {times(own)} {observed.unit}; the training had {times(low)} to {times(high)} {unit}", risk
            )
    oriented = np.mean([case.get("oriented", True) for case in package.training])
    if not observed.oriented and oriented > 0.5:
        yield Finding(
            f"the file does not say how its axes lie; {oriented:.0%} of the training did, so it may be flipped",
            "medium",
        )


def _of_the_intensity(package: Package, observed: Observed) -> Iterator[Finding]:
    """Quartiles within the structures, normalised: the file's own values mean nothing in MRI."""
    known = [case["normalised"] for case in package.training if case.get("normalised")]
    if not known or not observed.normalised:
        return
    seen, own = np.array(known)[:, :, 1:4], np.array(observed.normalised)[:, 1:4]  # (cases, channels, quartiles)
    low, high = seen.min(0), seen.max(0)
    room = np.maximum(_ROOM * (high - low), _LEAST_ROOM)

    def excess(order: Sequence[int]) -> np.ndarray:
        """How far each channel is outside, in rooms; up to 1 is usual."""
        mine = own[[*order]]
        return np.asarray((np.maximum(low - mine, mine - high) / room).max(1))

    usual = tuple(range(len(own)))
    if (excess(usual) <= 1).all():
        return
    if len(own) <= _MOST_CHANNELS:
        best = min(permutations(usual), key=lambda order: float(excess(order).max()))
        if (excess(best) <= 1).all():
            names = ", ".join(package.channels[best.index(place)] for place in usual)
            yield Finding(f"the channels look like {names} in this order: are its files swapped?", "high")
            return
    for channel in np.flatnonzero(excess(usual) > 1):
        quartile = int(np.argmax(np.maximum(low - own, own - high)[channel]))
        value, least, most = (numbers[channel, quartile] for numbers in (own, low, high))
        of = f"{package.channels[channel]}: " if len(own) > 1 else ""
        what = f"{of}{_QUARTILES[quartile]} of the normalised intensities within the structures is {value:.2f}"
        yield Finding(f"{what}; the training had {least:.2f} to {most:.2f}", "medium")


def _of_the_volumes(package: Package, observed: Observed) -> Iterator[Finding]:
    for name, volume in observed.volumes_ml.items():
        seen = [case["volumes_ml"].get(name, 0.0) for case in package.training]
        known = [one for one in seen if one > 0]
        if not volume:
            if len(known) == len(seen):
                yield Finding(f"no {name} was found, and every training case has one", "high")
        elif not known:
            yield Finding(f"{name} was found, and no training case has any", "high")
        elif not min(known) <= volume <= max(known):
            low, high = min(known), max(known)
            far = not low / _FAR <= volume <= high * _FAR
            found, least, most = (spelled(one, observed.unit) for one in (volume, low, high))
            text = f"{name} of {found}; the training had {least.split()[0]} to {most}"
            yield Finding(text, "high" if far else "medium")


def _of_the_pieces(_: Package, observed: Observed) -> Iterator[Finding]:
    for name, (count, share) in observed.pieces.items():
        if share < _WHOLE:
            yield Finding(f"{name} is in {count} pieces, the largest with {share:.0%} of it", "medium")


def _of_the_confidence(package: Package, observed: Observed) -> Iterator[Finding]:
    """Below all cases that were scored: of n + 1 alike, the new one is the lowest in one of n + 1."""
    for name, value in observed.confidence.items():
        seen = package.confidence.get(name, [])
        if len(seen) >= _ENOUGH and value < min(seen):
            far = value < 2 * min(seen) - float(np.median(seen))
            lowest = f"the lowest of {len(seen)} scored cases had {min(seen):.0%}"
            text = f"the mean probability of {name} is {value:.0%}; {lowest}"
            yield Finding(text, "high" if far else "medium")
