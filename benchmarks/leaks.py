"""How far different patients are from copies of one image: the table of docs/data.md, from which ALIKE was chosen.

``python -m benchmarks.leaks data/Task04_Hippocampus data/sts_pet``; the phantom is always there. Each patient is
compared with those most like it, as a study does, and each of twenty cases with its own copies.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from scipy import ndimage

from seg.data.cases import CaseSet, folder
from seg.data.grids import spacing_mm
from seg.data.leaks import ALIKE, FLIPS, SIDE, likeness, neighbours, shrunk
from seg.data.nifti import to_ras
from seg.data.phantom import phantom
from seg.data.volumes import read_image

Change = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]  # voxels and affine of a copy
NOISE = np.random.default_rng(0)


def resampled(*zoom: float) -> Change:
    """A copy with ``zoom`` times as many voxels along each axis."""
    return lambda image, affine: (ndimage.zoom(image, zoom, order=1), affine @ np.diag([*np.divide(1, zoom), 1]))


COPIES: dict[str, Change] = {
    "exact": lambda image, affine: (image, affine),
    "brighter": lambda image, affine: (3.7 * image + 20, affine),
    "gamma": lambda image, affine: ((image - image.min()) ** 0.7, affine),
    "mirrored": lambda image, affine: (image[::-1], affine),
    "turned_over": lambda image, affine: (image[::-1, ::-1, ::-1], affine),
    "cropped": lambda image, affine: (image[2:-2, 2:-2, 2:-2], affine),
    "cropped_aside": lambda image, affine: (image[2:, 2:, 2:], affine),
    "padded": lambda image, affine: (np.pad(image, 20), affine),
    "coarser": resampled(0.75, 0.75, 0.75),
    "uneven": resampled(0.7, 1.4, 1.0),
    "without_its_spacing": lambda image, affine: (resampled(0.5, 0.5, 0.5)(image, affine)[0], affine),
    "noisy": lambda image, affine: (image + NOISE.normal(0, 0.3 * image.std(), image.shape), affine),
    "all_of_it": lambda image, affine: resampled(0.8, 1.0, 1.2)(2.0 * image[2:, ::-1, :-2] + 5, affine),
}


def main() -> None:
    with TemporaryDirectory() as place:
        for cases in [phantom(Path(place) / "phantom", cases=60), *map(folder, sys.argv[1:])]:
            print(f"\n{cases.name}, {len(cases.cases)} cases")
            measure(cases)


def measure(cases: CaseSet) -> None:
    """Prints how like each other different patients are, and how like their copies, by what was done to these."""
    scans = [to_ras(image[0], affine) for image, affine in (read_image(case.images) for case in cases.cases)]
    voxel_mm = float(np.median([max(np.multiply(image.shape, spacing_mm(affine))) for image, affine in scans])) / SIDE
    small = [shrunk(image, spacing_mm(affine), voxel_mm) for image, affine in scans]
    ids = [case.id for case in cases.cases]

    def alike(volumes: list[np.ndarray], patients: list[str]) -> list[tuple[int, int, float]]:
        pairs = neighbours(volumes, patients)
        return [(a, b, likeness(volumes[a][FLIPS[flip]], volumes[b])) for a, b, flip in pairs]

    apart = sorted(alike(small, ids), key=lambda pair: -pair[2])
    values = [value for *_, value in apart]
    print(f"different patients: median {np.median(values):.2f}, highest {values[0]:.2f}", end=": ")
    print(", ".join(f"{ids[a]} and {ids[b]} {value:.2f}" for a, b, value in apart[:5]))
    copies: dict[str, list[float]] = {name: [] for name in COPIES}
    for n in range(0, len(ids), max(1, len(ids) // 20)):
        changed = [change(*scans[n]) for change in COPIES.values()]
        volumes = [*small, *(shrunk(image, spacing_mm(affine), voxel_mm) for image, affine in changed)]
        found = {(a, b): value for a, b, value in alike(volumes, [*ids, *["copy"] * len(COPIES)])}
        for place, name in enumerate(COPIES, len(ids)):
            copies[name].append(max(found.get((n, place), 0.0), found.get((place, n), 0.0)))
    for name, seen in copies.items():
        print(f"  {name:<20} lowest {min(seen):.2f}, {sum(value < ALIKE for value in seen)} of {len(seen)} missed")


if __name__ == "__main__":
    main()
