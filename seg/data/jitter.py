"""How exactly reference labels can be known: what an uncertainty of their surface of half a voxel costs in Dice."""

from math import ceil

import numpy as np
import numpy.typing as npt
from scipy import ndimage, special

from seg.data.cases import CaseSet
from seg.data.classes import class_indices
from seg.data.volumes import read_label
from seg.regions import inside

JITTER = 0.5  # SD of the surface's place, in voxels
MOST = 40  # cases that are looked at, evenly spaced
_REACH = 3  # voxels beyond the structure within which a jittered surface may lie


def jitter_cost(mask: npt.NDArray[np.bool_]) -> float:
    """1 - Dice that a mask is expected to have with itself, once its surface was jittered.

    Each point of the surface is moved in or out by a normal variate of SD ``JITTER``. A voxel whose centre is d voxels
    from the surface then changes sides with probability Φ(-d / JITTER), whichever way its neighbours go, so the
    expectation needs no random numbers. Distances are in voxels along every axis, whatever these measure in mm.

    Args:
        mask: of one structure, 2-D or 3-D, not empty; along an axis of one voxel there is no surface.
    """
    mask = np.atleast_1d(mask.squeeze())
    (box,) = ndimage.find_objects(mask.astype(np.uint8))
    inner = np.pad(mask[box], _REACH)
    # The surface runs half-way between neighbours: half a voxel before the first centre on the other side.
    away = ndimage.distance_transform_edt(inner) - ndimage.distance_transform_edt(~inner)
    inside = special.ndtr((away - 0.5 * np.sign(away)) / JITTER)
    return float(1 - 2 * inside[inner].sum() / (inner.sum() + inside.sum()))


def jitter_costs(cases: CaseSet) -> dict[str, float]:
    """``jitter_cost`` of each class, the mean over the cases that have it; of classes that no case has, nothing.

    Args:
        cases: of many with labels, every second, third, … is read: ``MOST`` of them.

    Raises:
        DataError: a label cannot be read.
    """
    labels = [case.label for case in cases.cases if case.label]
    found: dict[str, list[float]] = {}
    for path in labels[:: ceil(len(labels) / MOST) or 1]:
        label = class_indices(read_label(path), cases.labels, cases.ignore)
        for index, name in enumerate(cases.names[1:], 1):
            if (mask := inside(label, index, cases.within)).any():
                found.setdefault(name, []).append(jitter_cost(mask))
    return {name: float(np.mean(costs)) for name, costs in found.items()}
