"""One image under two names, in another guise too, and one mask under two images: cases that are no two patients.

A copy is found in two steps. Thumbnails of 8×8×8 voxels give each case its nearest neighbours among other patients, as
they are and mirrored. Each such pair is then laid over each other, at a resolution at which the longer side has about
32 voxels, and their detail is correlated: what is left without slow changes, in units of the local contrast. Neither
brightness, contrast and bias field nor voxel size, a cut border, a shift or some noise matter there.
"""

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from hashlib import sha256
from itertools import chain, combinations, product
from pathlib import Path

import numpy as np
from scipy import fft, ndimage

from seg.data.cases import Case, CaseSet
from seg.data.fingerprint import Fingerprint
from seg.data.grids import nonzero_box, spacing_mm
from seg.data.nifti import to_ras
from seg.data.volumes import read_image, read_label
from seg.files import atomic_write, digest, seal, unseal

log = logging.getLogger(__name__)
FORMAT = 1  # raised whenever the same cases would give other leaks
ALIKE = 0.88  # correlation of the details of two volumes from which on they are one; docs/data.md has the distributions
FIX = "Remove one case of each pair, or give both one patient (data.patient)."
SIDE = 32  # voxels of the longer side of the data set's median volume
NEIGHBOURS = 3  # that each case is compared with
SHIFT = 0.12  # of a volume, by which two may be out of place
FLIPS = [tuple(slice(None, None, step) for step in steps) for steps in product((1, -1), repeat=3)]


@dataclass(frozen=True)
class Leak:
    """What makes scores too good: two cases that count as two patients and are one, say."""

    name: str  # ``case_a=case_b``
    what: str  # it is, in words

    @classmethod
    def of(cls, one: Case, other: Case, what: str) -> "Leak":
        """The same whichever case comes first."""
        return cls("=".join(sorted([one.id, other.id])), f"{what}, as two patients")

    def __str__(self) -> str:
        return f"{self.name}: {self.what}"


def leaks(cases: CaseSet, prints: Fingerprint, cache: Path, workers: int = 1) -> list[Leak]:
    """Every pair of cases of different patients that have one image or one mask; of several channels the first counts.

    Every file is read once; the result is kept in ``cache`` for this version of the data and its patients.

    Raises:
        OSError: the disk is full or not writable.
    """
    patients = {case.id: case.patient for case in cases.cases}
    files = {case.id: case.sha256 for case in prints.cases}
    path = cache / f"leaks-{digest([FORMAT, prints.hash, files, patients])[:16]}.json"
    try:
        return [Leak(**leak) for leak in unseal(path.read_bytes())["leaks"]]
    except (OSError, ValueError, KeyError, TypeError):
        found = _find(cases.cases, prints, workers)
        atomic_write(path, seal({"leaks": [asdict(leak) for leak in found]}))
        return found


def _find(cases: Sequence[Case], prints: Fingerprint, workers: int) -> list[Leak]:
    sides = [max(np.multiply(case.shape, case.spacing_mm)) for case in prints.cases]
    voxel_mm = float(np.median(sides)) / SIDE
    with ThreadPoolExecutor(workers) as pool:
        small, drawn = zip(*pool.map(lambda case: _look(case, voxel_mm), cases), strict=True)
        pairs = list(neighbours(small, [case.patient for case in cases]))
        alike = list(pool.map(lambda pair: likeness(small[pair[0]][FLIPS[pair[2]]], small[pair[1]]), pairs))
    found: dict[str, Leak] = {}
    for (n, m, flip), correlation in zip(pairs, alike, strict=True):
        if correlation >= ALIKE:
            what = f"the same image{', mirrored,' if flip else ''} twice (correlation of the details {correlation:.2f})"
            leak = Leak.of(cases[n], cases[m], what)
            found[leak.name] = leak
    masks: dict[str, list[Case]] = {}
    for case, mask in zip(cases, drawn, strict=True):
        masks.setdefault(mask, []).append(case)
    masks.pop("", None)
    for one, other in chain.from_iterable(combinations(same, 2) for same in masks.values()):
        if one.patient != other.patient:
            leak = Leak.of(one, other, "the same mask on two images")
            found.setdefault(leak.name, leak)
    return [found[name] for name in sorted(found)]


def _look(case: Case, voxel_mm: float) -> tuple[np.ndarray, str]:
    """The first channel of a case, float32 (X, Y, Z) in RAS, small; and the hash of its label, "" of an empty one."""
    image, affine = read_image(case.images)
    volume, turned = to_ras(image[0], affine)
    small = shrunk(volume, spacing_mm(turned), voxel_mm)
    label = to_ras(read_label(case.label), affine)[0].astype(np.int32) if case.label else np.zeros(1)
    return small, sha256(str(label.shape).encode() + label.tobytes()).hexdigest() if label.any() else ""


def shrunk(volume: np.ndarray, spacing_mm: Sequence[float], voxel_mm: float) -> np.ndarray:
    """What is not zero of ``volume`` (X, Y, Z), with voxels of about ``voxel_mm`` along each axis; float32."""
    volume = volume[nonzero_box(volume != 0)]
    most = 3 * SIDE  # a volume so long has another field of view, or its header is wrong
    shape = [int(n) for n in np.clip(np.rint(np.multiply(volume.shape, spacing_mm) / voxel_mm), 1, most)]
    small = resized(volume, shape)
    return np.asarray(np.clip(small, *np.percentile(small, [1, 99])))


def resized(volume: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """``volume`` (X, Y, Z) with another number of voxels, smoothed as far as it becomes coarser; float32."""
    steps = [max(1, size // (3 * new)) for size, new in zip(volume.shape, shape, strict=True)]
    if max(steps) > 1:  # a large volume is first averaged by whole blocks, which is far faster
        whole = tuple(slice(size // step * step) for size, step in zip(volume.shape, steps, strict=True))
        blocks = [n for size, step in zip(volume.shape, steps, strict=True) for n in (size // step, step)]
        volume = volume[whole].reshape(blocks).mean(axis=(1, 3, 5))
    coarser = np.divide(volume.shape, shape)
    smooth = ndimage.gaussian_filter(volume.astype(np.float32), np.where(coarser > 1, coarser / 2, 0), mode="nearest")
    return np.asarray(ndimage.zoom(smooth, 1 / coarser, order=1, mode="nearest", grid_mode=True))


def neighbours(volumes: Sequence[np.ndarray], patients: Sequence[str]) -> Iterator[tuple[int, int, int]]:
    """Pairs of volumes whose thumbnails are alike, and the flip of FLIPS that brings the first onto the second."""
    who = np.array(patients)
    thumbs = np.stack([*map(_thumbnail, volumes)])
    flipped = np.stack([thumbs[(slice(None), *flip)].reshape(len(thumbs), -1) for flip in FLIPS])
    thumbs = thumbs.reshape(len(thumbs), -1)
    seen = set[frozenset[int]]()
    for one, patient in enumerate(patients):
        alike = flipped[:, one] @ thumbs.T  # (8, cases)
        alike[:, who == patient] = -np.inf
        for other in np.argsort(-alike.max(axis=0))[:NEIGHBOURS].tolist():
            if patients[other] != patient and frozenset((one, other)) not in seen:
                seen.add(frozenset((one, other)))
                yield one, other, int(alike[:, other].argmax())


def _thumbnail(small: np.ndarray) -> np.ndarray:
    """8×8×8 voxels without slow changes, of mean 0 and norm 1."""
    thumb = resized(small, (8, 8, 8))
    thumb = thumb - ndimage.gaussian_filter(thumb, 2, mode="nearest")
    thumb = thumb - thumb.mean()
    return np.asarray(thumb / (np.linalg.norm(thumb) + 1e-12))


def likeness(one: np.ndarray, other: np.ndarray) -> float:
    """The highest correlation, -1 … 1, of the details of two volumes (X, Y, Z) that may be shifted by SHIFT.

    Where one is more than half as long again, its header is not believed: it is brought to the size of the other.
    """
    ratio = np.divide(one.shape, other.shape)
    if ratio.max() > 1.5 or ratio.min() < 1 / 1.5:
        one = resized(one, other.shape)
    a, b = _detail(one), _detail(other)
    shifts = [max(2, round(SHIFT * max(m, n))) + abs(m - n) for m, n in zip(a.shape, b.shape, strict=True)]
    size = [fft.next_fast_len(max(m, n) + by, real=True) for m, n, by in zip(a.shape, b.shape, shifts, strict=True)]
    near = np.ix_(*[np.r_[0 : by + 1, -by:0] for by in shifts])

    def at_each_shift(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """The sum of products where both volumes are, one shift after the other."""
        return np.asarray(fft.irfftn(fft.rfftn(left, size) * np.conj(fft.rfftn(right, size)), size)[near])

    power_a, power_b = at_each_shift(a * a, np.ones_like(b)), at_each_shift(np.ones_like(a), b * b)
    floors = 0.3 * power_a.max() + 1e-9, 0.3 * power_b.max() + 1e-9  # a sliver that overlaps proves nothing
    return float((at_each_shift(a, b) / np.sqrt(power_a.clip(floors[0]) * power_b.clip(floors[1]))).max())


def _detail(small: np.ndarray) -> np.ndarray:
    """What is neither noise of single voxels nor slow change, in units of the local contrast."""
    detail = ndimage.gaussian_filter(small, 1, mode="nearest") - ndimage.gaussian_filter(small, 2.5, mode="nearest")
    contrast = np.sqrt(ndimage.gaussian_filter(detail * detail, 3, mode="nearest"))
    return np.asarray(detail / (contrast + 0.1 * detail.std() + 1e-9), np.float32)
