"""Where a network may pool and convolve, by patch and voxel size; and the patch whose sizes its poolings divide.

Source: Isensee et al. 2021, nnU-Net, Nature Methods 18, 203, online methods, network topology and patch size. Memory is
counted in voxels here, and a network may have fewer poolings than the patch allows.
"""

import math
from collections.abc import Sequence
from typing import Literal

from seg.errors import times

Auto = Literal["auto"]
Step = tuple[int, ...]  # of one level: by how much it divides each axis
Entry = Auto | int | Sequence[int]
Asked = Auto | Sequence[Entry] | None  # what a network's option ``strides`` may say

SMALLEST_MAP = 4  # voxels along an axis below which nothing is pooled
ALIKE = 2  # ratio of voxel sizes up to which two axes are treated alike
LEAST_POOLINGS, MOST_POOLINGS = 2, 20  # of a network that takes as many as the patch allows
UNKNOWN = (2, 2, 2, 2)  # poolings of a network that does not say which it has
LARGEST = {3: 256**3, 2: 2048**2}  # voxels of the cube (square) in mm that a patch does not exceed along any axis


def poolings(size: Sequence[int], spacing_mm: Sequence[float], asked: Asked, *, even: bool = False) -> tuple[Step, ...]:
    """Strides by level, the first all 1: axes whose voxels are within twice the finest are halved, until all are alike.

    An axis is halved while its map has 2·SMALLEST_MAP voxels, 3·SMALLEST_MAP if it would be halved alone. A network
    with poolings left then goes on down to maps of 2 voxels, and keeps its size in those that are still left.

    Args:
        size: of the patch, voxels.
        spacing_mm: of its voxels.
        asked: ``"auto"``: as many poolings as there are; a list: one entry a pooling, ``"auto"`` or as given; None:
            the network does not say.
        even: whether an odd number of voxels is not halved, since ``size`` cannot be changed.
    """
    here, dims = [*size], len(size)
    voxel, steps = [*spacing_mm], [(1,) * dims]
    as_many: list[Entry] = ["auto" for _ in range(MOST_POOLINGS)]
    entries: Sequence[Entry] = UNKNOWN if asked is None else as_many if asked == "auto" else asked
    needed = LEAST_POOLINGS if asked == "auto" else len(entries)
    for entry in entries:
        step = _given(entry, dims) or _next(here, voxel, even, SMALLEST_MAP)
        if not step and len(steps) <= needed:
            step = _next(here, voxel, even, SMALLEST_MAP // 2)
        elif not step:
            break
        steps.append(step or (1,) * dims)
        here = [math.ceil(n / by) for n, by in zip(here, steps[-1], strict=True)]
        voxel = [mm * by for mm, by in zip(voxel, steps[-1], strict=True)]
    return tuple(steps)


def _given(entry: Entry, dims: int) -> Step | None:
    if isinstance(entry, int):
        return (entry,) * dims
    return None if isinstance(entry, str) else tuple(entry)


def _next(size: Sequence[int], voxel_mm: Sequence[float], even: bool, smallest: int) -> Step | None:
    """The next pooling, down to maps of ``smallest`` voxels; None where there is none."""
    axes = range(len(size))
    long = [axis for axis in axes if size[axis] >= 2 * smallest and not (even and size[axis] % 2)]
    fine = [axis for axis in long if voxel_mm[axis] < ALIKE * min(voxel_mm[a] for a in long)]
    if not fine or (len(fine) == 1 and size[fine[0]] < 3 * smallest):
        return None
    return tuple(2 if axis in fine else 1 for axis in axes)


def divisor(steps: Sequence[Step]) -> Step:
    """What the size must be divisible by, along each axis."""
    return tuple(map(math.prod, zip(*steps, strict=True)))


def flat_axes(grid: Sequence[int], patch: Sequence[int], spacing_mm: Sequence[float], coarsest: bool) -> Step:
    """The axes along which a map of size ``grid`` is not convolved: neighbours are too far apart there, or none exist.

    They were never pooled and their voxels are at least twice as large as the finest; not on the coarsest map of the
    network, where slices see each other at the latest.
    """
    long = [axis for axis in range(len(grid)) if grid[axis] > 1]
    voxel = [mm * whole / n for mm, whole, n in zip(spacing_mm, patch, grid, strict=True)]
    finest = min((voxel[axis] for axis in long), default=0.0)
    thick = [axis for axis in long if grid[axis] == patch[axis] and voxel[axis] >= ALIKE * finest and not coarsest]
    return tuple(axis for axis in range(len(grid)) if axis in thick or axis not in long)


def kernels(patch: Sequence[int], spacing_mm: Sequence[float], steps: Sequence[Step]) -> tuple[Step, ...]:
    """By level and axis: 1 where it is not convolved along that axis, otherwise 3."""
    grids = [
        [max(1, n // by) for n, by in zip(patch, divisor(steps[: level + 1]), strict=True)]
        for level in range(len(steps))
    ]
    flat = [flat_axes(grid, patch, spacing_mm, coarsest=grid == grids[-1]) for grid in grids]
    return tuple(tuple(1 if axis in axes else 3 for axis in range(len(patch))) for axes in flat)


def fit_patch(shape: Sequence[int], spacing_mm: Sequence[float], asked: Asked, limit: int) -> tuple[Step, str]:
    """The patch for volumes of this ``shape`` and at most ``limit`` voxels, and why.

    It begins as the whole volume, along no axis longer than a cube of ``LARGEST``; while it holds too many voxels, the
    axis that covers most of the volume gets the next smaller size that the poolings divide.
    """
    side_mm = (LARGEST[len(shape)] * math.prod(spacing_mm)) ** (1 / len(shape))
    size = [min(n, max(1, round(side_mm / mm))) for n, mm in zip(shape, spacing_mm, strict=True)]
    while math.prod(patch := _padded(size, spacing_mm, asked)) > limit:
        for axis in sorted(range(len(size)), key=lambda axis: (-patch[axis] / shape[axis], -axis)):
            shorter = _shorter(size, axis, spacing_mm, asked)
            if shorter:
                size[axis] = shorter
                break
        else:
            break
    by = divisor(poolings(patch, spacing_mm, asked))
    why = f"the median volume without its empty margin, {times(shape)}, in multiples of "
    return patch, why + f"{times(by)} (its poolings) and at most {limit} voxels"


def _padded(size: Sequence[int], spacing_mm: Sequence[float], asked: Asked) -> Step:
    """Rounded up to what the poolings divide; less far where the longer size has fewer poolings, which suit both."""

    def up(like: Sequence[int]) -> Step:
        by = divisor(poolings(like, spacing_mm, asked))
        return tuple(math.ceil(n / step) * step for n, step in zip(size, by, strict=True))

    patch = up(size)
    fewer = up(patch)
    return fewer if math.prod(fewer) < math.prod(patch) and up(fewer) == fewer else patch


def _shorter(size: Sequence[int], axis: int, spacing_mm: Sequence[float], asked: Asked) -> int | None:
    """The longest length of ``axis`` that makes a shorter patch; None if none is left that can still be pooled."""
    now = _padded(size, spacing_mm, asked)[axis]
    for n in (now - (1 << power) for power in range(now.bit_length())):
        short = [*size[:axis], n, *size[axis + 1 :]]
        if 2 * SMALLEST_MAP <= n < size[axis] and _padded(short, spacing_mm, asked)[axis] < now:
            return n
    return None
