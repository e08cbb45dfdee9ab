"""A small synthetic data set, written as files on first use: read like real scans, with nothing to download."""

import json
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from seg.data import layouts, nifti
from seg.data.cases import CaseSet, folder
from seg.data.grids import LPS
from seg.errors import DataError
from seg.files import atomic_folder

FORMAT = 2  # raised when the same settings make other volumes
CLASSES = ("background", "lobe", "tail")
SHAPE = np.array([44, 58, 42])
SPACING_MM = np.array([1.0, 1.0, 1.5])
Axes = tuple[np.ndarray, ...]  # coordinates in mm along each axis, shaped to broadcast to (X, Y, Z)


def phantom(
    root: str | Path,
    *,
    cases: int = 40,
    seed: int = 0,  # of all shapes and noise: the same seed gives the same voxels, case by case
    name: str = "phantom",  # in reports
    patient: str | None = None,  # as in ``folder``
) -> CaseSet:
    """The set in ``root``, made there first if nothing is there: ``cases`` volumes of about 44×58×42 voxels.

    A lobed body and a thin tail growing out of it are among smaller, unlabelled copies of the same brightness, at a
    contrast near the noise, under a bias field; brightness, size and spacing differ from case to case, and every
    other case is stored in LPS+ order. So noise, context, scale and geometry must all be dealt with.

    Raises:
        DataError: ``root`` holds something else, or a phantom of other settings.
    """
    root = Path(root).expanduser()
    settings = {"format": FORMAT, "cases": cases, "seed": seed}
    if not root.exists() or not any(root.iterdir()):
        _make(root, settings)
    about = root / "dataset.json"
    found = layouts.settings_of(about).get("phantom") if about.exists() else None
    if found != settings:
        raise DataError(
            f"{root}: holds {f'a phantom made with {found}' if found else 'something other than a phantom'},"
            f" but {settings} is wanted. Remove the folder or choose another data.root."
        )
    return folder(root, name=name, patient=patient)


def volume(seed: int, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Case ``number`` of a set: image int16 (X, Y, Z), label uint8 (X, Y, Z) in 0…2, affine (4, 4) in RAS+ order."""
    rng = np.random.default_rng([seed, number])
    shape = SHAPE + rng.integers(-4, 5, 3)
    spacing_mm = SPACING_MM * rng.uniform([0.85, 0.85, 0.8], [1.15, 1.15, 1.3])
    axes_mm = np.ix_(*((np.arange(n) - (n - 1) / 2) * size for n, size in zip(shape, spacing_mm, strict=True)))
    rough = _smooth(rng, shape, spacing_mm, 3)

    lobe, tail = _structure(rng, axes_mm, rough, np.zeros(3), 1)
    label = np.where(lobe, 1, 2 * tail).astype(np.uint8)
    bodies, tubes = lobe.copy(), tail & ~lobe
    for _ in range(2):
        body, tube = _structure(rng, axes_mm, rough, _direction(rng) * rng.uniform(24, 32), 0.6)
        bodies |= body & ~tail
        tubes |= tube & ~lobe

    clean = 7 * _smooth(rng, shape, spacing_mm, 4) + gaussian_filter(34 * bodies + 55.0 * (tubes & ~bodies), 0.5)
    bias = np.exp(0.1 * _smooth(rng, shape, spacing_mm, 12))
    image = (100 + clean) * bias + rng.normal(0, 14, shape)
    image = image * np.exp(rng.uniform(-0.7, 2)) + rng.uniform(0, 200)
    return image.round().astype(np.int16), label, np.diag([*spacing_mm, 1.0])


def _structure(
    rng: np.random.Generator, axes_mm: Axes, rough: np.ndarray, centre_mm: np.ndarray, size: float
) -> tuple[np.ndarray, np.ndarray]:
    """Masks (X, Y, Z) of a body, three merged ellipsoids with a rough surface, and of a bent tube out of it.

    ``size`` scales both.
    """
    centre_mm = centre_mm + rng.normal(0, 3, 3)
    ellipsoids = [(centre_mm + size * rng.uniform(-5, 5, 3), size * rng.uniform(7, 11, 3)) for _ in range(3)]
    depth = np.maximum.reduce([1 - _distance2(axes_mm, centre, radii) for centre, radii in ellipsoids])
    along, aside = _direction(rng), rng.uniform(2, 5) * _direction(rng)
    path = [(t, centre_mm + size * (25 * t * along + np.sin(np.pi * t) * aside)) for t in np.linspace(0, 1, 20)]
    tube = np.logical_or.reduce([_distance2(axes_mm, point, size * (4 - 1.4 * t)) < 1 for t, point in path])
    return depth + 0.2 * rough > 0, tube


def _distance2(axes_mm: Axes, centre_mm: np.ndarray, unit_mm: np.ndarray | float) -> np.ndarray:
    """Squared distance of every voxel from a point, in units that may differ by axis."""
    x, y, z = (
        ((axis - c) / u) ** 2 for axis, c, u in zip(axes_mm, centre_mm, np.broadcast_to(unit_mm, 3), strict=True)
    )
    return np.asarray(x + y + z)


def _direction(rng: np.random.Generator) -> np.ndarray:
    vector = rng.normal(size=3)
    return vector / np.linalg.norm(vector)


def _smooth(rng: np.random.Generator, shape: np.ndarray, spacing_mm: np.ndarray, scale_mm: float) -> np.ndarray:
    """Random field (X, Y, Z) of mean 0 and standard deviation 1 that changes over ``scale_mm``."""
    field = gaussian_filter(
        rng.standard_normal(shape, dtype=np.float32), scale_mm / spacing_mm, mode="wrap", truncate=3
    )
    return np.asarray((field - field.mean()) / field.std())


def _make(root: Path, settings: dict[str, int]) -> None:
    with atomic_folder(root) as draft:
        for kind in ("imagesTr", "labelsTr"):
            (draft / kind).mkdir()
        names = [f"phantom_{number:03}.nii.gz" for number in range(settings["cases"])]
        for number, file in enumerate(names):
            image, label, affine = volume(settings["seed"], number)
            if number % 2:
                image, label = nifti.from_ras(image, LPS), nifti.from_ras(label, LPS)
                affine = affine @ LPS
            nifti.write_volume(draft / "imagesTr" / file, image, affine)
            nifti.write_volume(draft / "labelsTr" / file, label, affine)
        content = {
            "name": "phantom",
            "modality": {"0": "phantom"},
            "labels": dict(enumerate(CLASSES)),
            "training": [{"image": f"./imagesTr/{file}", "label": f"./labelsTr/{file}"} for file in names],
            "phantom": settings,
        }
        (draft / "dataset.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
