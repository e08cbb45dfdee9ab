"""From files to prepared volumes and back: RAS axes, crop, normalisation, spacing, and the cache that holds them."""

import errno
import logging
import math
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage

from seg.data.cases import Case, CaseSet
from seg.data.classes import IGNORE, class_indices
from seg.data.fingerprint import Fingerprint, of_image
from seg.data.grids import Unit, nonzero_box, spacing_mm
from seg.data.nifti import to_ras
from seg.data.plan import LARGEST_VOLUME, ChannelNorm, Plan
from seg.data.volumes import read_header, read_image, read_label
from seg.errors import DataError, few, times
from seg.files import atomic_folder, digest, seal, sha256, tuples, unseal

log = logging.getLogger(__name__)
FORMAT = 3  # of a cache entry: raised whenever the same settings would give other arrays
ANISOTROPY = 3.0  # largest over smallest spacing above which the coarse axis is resampled apart
VOXELS_PER_CLASS = 10_000  # foreground positions kept for sampling
# Cases kept open, each by three file handles: together half of those that a process may have.
KEPT_OPEN = max(32, (os.sysconf("SC_OPEN_MAX") if hasattr(os, "sysconf") else 0) // 6)

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Geometry:
    """Where a prepared volume is in its file's grid: all that the way back needs."""

    original_affine: tuple[tuple[float, ...], ...]  # 4 x 4, of the file
    ras_shape: Shape  # of the whole volume, axes in RAS order
    ras_spacing_mm: tuple[float, ...]
    crop: tuple[tuple[int, int], ...]  # (first, past the last) voxel per RAS axis
    shape: Shape  # of the prepared volume
    spacing_mm: tuple[float, ...]  # of the prepared volume, as planned

    @property
    def coarse_axis(self) -> int | None:
        """The axis to be resampled apart, by nearest neighbour; None where spacings are about even.

        Blending slices that are far apart invents anatomy, hence nearest there and smooth within the slice.
        Source: Isensee et al., nnU-Net, Nature Methods 2021, supplementary note on resampling.
        """
        for spacing in (self.ras_spacing_mm, self.spacing_mm):
            if max(spacing) > ANISOTROPY * min(spacing):
                return spacing.index(max(spacing))
        return None


@dataclass(frozen=True)
class Scan:
    """An image with its file's own values, its axes turned to RAS."""

    image: np.ndarray  # float32 (C, X, Y, Z)
    spacing_mm: tuple[float, ...]
    original_affine: np.ndarray  # (4, 4), of the file
    oriented: bool  # whether the file says how its axes lie
    unit: Unit = "mm"  # of ``spacing_mm``: pixels of a picture
    name: str = ""  # its files, for messages

    @cached_property
    def of_image(self) -> list[tuple[float, float]]:
        """Mean and standard deviation of each channel's non-zero voxels."""
        return [*map(of_image, self.image)]


@dataclass(frozen=True)
class Prepared:
    """One case, ready to be sampled; the arrays are memory-mapped and read-only."""

    case: str
    image: np.ndarray  # float32 (C, X, Y, Z), normalised
    label: np.ndarray | None  # uint8 (X, Y, Z), class indices, or IGNORE
    geometry: Geometry
    foreground: dict[int, np.ndarray]  # class index -> int32 (n, 3) voxels, n ≤ VOXELS_PER_CLASS


class Store(Mapping[str, Prepared]):
    """Prepared cases by id, opened when asked for, at most KEPT_OPEN at a time; pickles as paths alone."""

    def __init__(self, folders: dict[str, Path]) -> None:
        self._folders = folders
        self._open = lru_cache(KEPT_OPEN)(lambda case: _open(case, folders[case]))

    def __getitem__(self, case: str) -> Prepared:
        return self._open(case)

    def __iter__(self) -> Iterator[str]:
        return iter(self._folders)

    def __len__(self) -> int:
        return len(self._folders)

    def __reduce__(self) -> tuple[type["Store"], tuple[dict[str, Path]]]:
        return Store, (self._folders,)


def prepare(caseset: CaseSet, fingerprint: Fingerprint, plan: Plan, cache: Path, workers: int) -> Store:
    """Every case of ``fingerprint``, prepared: taken from ``cache`` if it has an intact entry, otherwise made.

    An entry's key is the content of the case and every setting that shapes it, so runs, folds and studies share it and
    a change never meets stale arrays. Processes may start together: the first to finish an entry is kept. An entry is
    read once, here, against the hashes it was written with, and made anew where it is damaged; what a killed process
    left goes after a day. ``workers`` are threads, since reading, decompressing, hashing and resampling release the
    interpreter lock.

    Raises:
        OSError: the disk is full or not writable; nothing half-written is left.
    """
    for draft in cache.glob(".draft-*"):
        with suppress(FileNotFoundError):  # another process may remove it, too
            if time.time() - draft.stat().st_mtime > 86_400:  # seconds; no case takes a day
                shutil.rmtree(draft)
    files = {case.id: case for case in caseset.cases}
    folders = {case.id: cache / _key(case.sha256, caseset, plan) for case in fingerprint.cases}

    def ensure(case: str) -> bool:
        """Whether the case was there, but damaged."""
        known = folders[case].exists()
        if known and _intact(folders[case]):
            return False
        _build(files[case], caseset, plan, folders[case])
        if known and not _intact(folders[case]):
            raise PermissionError(errno.EACCES, "A damaged entry cannot be removed", str(folders[case]))
        return known

    with ThreadPoolExecutor(max(1, workers)) as pool:
        damaged = [case for case, was in zip(folders, pool.map(ensure, folders), strict=True) if was]
    if damaged:
        log.warning("prepared again, since their entries in %s were damaged: %s.", cache, few(damaged))
    return Store(folders)


def prepare_case(
    case: Case, labels: Sequence[int | Sequence[int]], plan: Plan, ignore: int | None = None
) -> tuple[np.ndarray, np.ndarray | None, Geometry]:
    """Image (C, X, Y, Z) float32, label (X, Y, Z) uint8 or None, and the way back.

    Steps: RAS axes by flips and swaps, crop to the box of non-zero voxels (of any channel; never looks at the label, so
    training and prediction agree), normalisation, resampling to ``plan.spacing_mm``. ``labels`` and ``ignore`` are as
    of ``class_indices``.
    """
    scan = read_scan(case.images, len(plan.normalization))
    prepared, geometry = prepare_scan(scan, plan)
    if case.label is None:
        return prepared, None, geometry
    label, _ = to_ras(class_indices(read_label(case.label), labels, ignore), scan.original_affine)
    box = tuple(slice(low, high) for low, high in geometry.crop)
    return prepared, _resample_label(label[box], geometry.shape, geometry.coarse_axis), geometry


def read_scan(files: Sequence[Path], channels: int) -> Scan:
    """The image of one case, from one file per channel or one with all of them.

    Raises:
        DataError: as ``read_image``; or there are not as many channels, or voxels are NaN or infinite.
    """
    (image, original_affine), name = read_image(files), few(map(str, files))
    if len(image) != channels:
        raise DataError(f"{name}: {len(image)} channels; the network was trained on {channels}.")
    if not np.isfinite(image).all():
        raise DataError(f"{name}: voxels are NaN or infinite. Replace them, for instance by 0.")
    image, affine = to_ras(image, original_affine)
    header = read_header(files[0])
    return Scan(image, spacing_mm(affine), original_affine, header.oriented, header.unit, name)


def prepare_scan(scan: Scan, plan: Plan) -> tuple[np.ndarray, Geometry]:
    """The image (C, X, Y, Z) float32 as the network takes it, and the way back; see ``prepare_case``.

    Raises:
        DataError: by its voxel size it would have more than LARGEST_VOLUME voxels.
    """
    image, spacing = scan.image, np.array(scan.spacing_mm)
    filled = np.asarray(image.any(axis=0))
    box = nonzero_box(filled)
    same = np.allclose(spacing, plan.spacing_mm, rtol=1e-3, atol=0)
    scale = np.ones(3) if same else spacing / plan.spacing_mm
    geometry = Geometry(
        original_affine=tuples(scan.original_affine.tolist()),
        ras_shape=image.shape[1:],
        ras_spacing_mm=tuple(spacing.tolist()),
        crop=tuple((side.start, side.stop) for side in box),
        shape=tuple(max(1, round((side.stop - side.start) * float(by))) for side, by in zip(box, scale, strict=True)),
        spacing_mm=tuple(plan.spacing_mm),
    )
    shape, coarse = geometry.shape, geometry.coarse_axis
    if math.prod(shape) > LARGEST_VOLUME:
        raise DataError(
            f"{scan.name}: voxels of {times(scan.spacing_mm)} {scan.unit} become {times(shape)} of "
            f"{times(plan.spacing_mm)}, more than the {LARGEST_VOLUME:.3g} that are worked on. Correct the voxel size "
            "in the header, or crop the scan."
        )
    norms = norms_of(scan, plan)
    normalised = [_normalise(channel[box], norm) for channel, norm in zip(image, norms, strict=True)]
    if any(norm.inside for norm in norms):
        there = filled[box]
        outside = ~ndimage.binary_fill_holes(np.atleast_1d(there.squeeze())).reshape(there.shape)
        for channel in normalised:
            channel[outside] = 0
    return np.stack([_resample(channel, shape, coarse, order=3) for channel in normalised]), geometry


def norms_of(scan: Scan, plan: Plan) -> list[ChannelNorm]:
    """How each channel of the scan is normalised: a z-score by its own mean and deviation."""
    if all(norm.kind == "ct" for norm in plan.normalization):
        return [*plan.normalization]  # and nobody needs its numbers
    return [norm.of(*numbers) for norm, numbers in zip(plan.normalization, scan.of_image, strict=True)]


def _normalise(channel: np.ndarray, norm: ChannelNorm) -> np.ndarray:
    """CT by the data set's foreground numbers, since Hounsfield units mean the same everywhere; others by their own.

    The z-score takes mean and deviation of the non-zero voxels: a skull-stripped or padded image is mostly exact zeros
    (taken along where the rest has but one value).
    """
    if norm.kind == "ct":
        channel = np.clip(channel, norm.low, norm.high)
    return (channel - np.float32(norm.mean)) / np.float32(max(norm.std, 1e-8))


def _resample(volume: np.ndarray, shape: Shape, coarse: int | None, order: int) -> np.ndarray:
    """``volume`` (X, Y, Z) on another number of voxels over the same extent: linear (order 1) or cubic (order 3)."""
    if volume.shape == shape:
        return volume
    smooth = tuple(volume.shape[axis] if axis == coarse else n for axis, n in enumerate(shape))
    if order == 1:
        tensor = torch.from_numpy(np.ascontiguousarray(volume))[None, None]
        volume = F.interpolate(tensor, smooth, mode="trilinear")[0, 0].numpy()
    else:
        zoom = [new / old for new, old in zip(smooth, volume.shape, strict=True)]
        volume = ndimage.zoom(volume, zoom, order=order, mode="nearest", grid_mode=True)
    if coarse is not None:
        old, new = volume.shape[coarse], shape[coarse]
        volume = volume.take(((np.arange(new) + 0.5) * old / new).astype(int), axis=coarse)
    return volume


def _resample_label(label: np.ndarray, shape: Shape, coarse: int | None) -> np.ndarray:
    """The value whose mask is strongest after resampling; of equals the lowest."""
    if label.shape == shape:
        return label
    winner, best = np.zeros(shape, label.dtype), np.full(shape, -np.inf, np.float32)
    for value in np.unique(label):
        score = _resample((label == value).astype(np.float32), shape, coarse, order=1)
        winner[score > best] = value
        np.maximum(best, score, out=best)
    return winner


def _key(content: str, caseset: CaseSet, plan: Plan) -> str:
    norms = [asdict(norm) for norm in plan.normalization]
    return digest([FORMAT, content, caseset.labels, caseset.ignore, [float(mm) for mm in plan.spacing_mm], norms])


def _build(case: Case, caseset: CaseSet, plan: Plan, folder: Path) -> None:
    with atomic_folder(folder) as draft:
        image, label, geometry = prepare_case(case, caseset.labels, plan, caseset.ignore)
        foreground = {} if label is None else _foreground(label)
        np.save(draft / "image.npy", image)
        np.save(draft / "foreground.npy", np.concatenate([np.zeros((0, 3), np.int32), *foreground.values()]))
        if label is not None:
            np.save(draft / "label.npy", label)
        about = {
            "geometry": asdict(geometry),
            "foreground": {index: len(voxels) for index, voxels in foreground.items()},
            "hashes": {path.name: sha256(path) for path in draft.iterdir()},
        }
        (draft / "about.json").write_text(seal(about))
        if not _intact(folder):  # damaged, or none; another process may have made it meanwhile
            shutil.rmtree(folder, ignore_errors=True)


def _foreground(label: np.ndarray) -> dict[int, np.ndarray]:
    voxels = {}
    for index in (int(index) for index in np.unique(label) if index not in (0, IGNORE)):
        hits = np.flatnonzero(label == index)
        if len(hits) > VOXELS_PER_CLASS:
            hits = np.random.default_rng(index).choice(hits, VOXELS_PER_CLASS, replace=False)
        voxels[index] = np.stack(np.unravel_index(hits, label.shape), axis=1).astype(np.int32)
    return voxels


def _intact(folder: Path) -> bool:
    try:
        hashes = unseal((folder / "about.json").read_bytes())["hashes"]
        return all(sha256(folder / name) == written for name, written in hashes.items())
    except (OSError, ValueError, KeyError):
        return False


def _open(case: str, folder: Path) -> Prepared:
    about = unseal((folder / "about.json").read_bytes())
    arrays = {name: np.load(folder / name, mmap_mode="r") for name in about["hashes"]}
    parts = np.split(arrays["foreground.npy"], np.cumsum(list(about["foreground"].values())))
    foreground = {int(index): part for index, part in zip(about["foreground"], parts, strict=False)}
    geometry = Geometry(**{key: tuples(value) for key, value in about["geometry"].items()})
    return Prepared(case, arrays["image.npy"], arrays.get("label.npy"), geometry, foreground)
