"""What `auto` decides from the fingerprint: spacing, patch, batch, pooling, normalisation, each with its reason."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

import numpy as np

from seg.data.fingerprint import Fingerprint, rounded
from seg.data.topology import Asked, Auto, Step, fit_patch, kernels, poolings
from seg.errors import ConfigError, DataError, times
from seg.files import seal, tuples, unseal

ANISOTROPIC = 3  # ratio of voxel sizes above which the coarse axis is treated by itself
LARGEST_VOLUME = 2**31  # voxels of a prepared volume: 8 GiB a channel
SHARE_OF_DATA = 0.05  # a step sees at most so much of the data set; nnU-Net's rule
SLICE_VOXELS = 512 * 512
MARGIN = 3 / 4  # share of a volume, below which what the crop keeps is normalised by itself; nnU-Net's rule
Axis = Literal["auto", "x", "y", "z"]


@dataclass(frozen=True)
class ChannelNorm:
    """How one channel is normalised.

    ``zscore``: by mean and standard deviation of each image itself, the numbers here being unused. With ``inside`` in
    any channel, what is outside of the imaged object, zero in every channel and not enclosed by it, is 0 in
    all of them.
    ``ct``: clipped to ``low`` … ``high``, then by ``mean`` and ``std``, all of the foreground of the data set.
    """

    kind: Literal["ct", "zscore"]
    low: float = 0.0
    high: float = 0.0
    mean: float = 0.0
    std: float = 1.0
    inside: bool = False

    def of(self, mean: float, std: float) -> "ChannelNorm":
        """The same for an image with these numbers."""
        return self if self.kind == "ct" else replace(self, mean=mean, std=std)

    @property
    def window(self) -> tuple[float, float] | None:
        """Image values that pictures show black and white; None: each image by its own."""
        return (self.low, self.high) if self.kind == "ct" else None


@dataclass(frozen=True)
class Plan:
    """Decisions for one data set, axes in RAS+ order.

    ``spacing_mm`` and ``shape`` (median, voxels) are those after crop and resampling. ``patch`` has one entry a
    dimension; in 2-D ``slice_axis`` is left out of it. ``strides`` and ``kernels`` have one entry per level of the
    network, the first stride all 1; without ``kernels``, in plans of earlier versions, each is as the network has it.
    """

    spacing_mm: tuple[float, float, float]
    shape: tuple[int, int, int]
    patch: tuple[int, ...]
    batch_size: int
    slice_axis: int
    strides: tuple[Step, ...]
    normalization: tuple[ChannelNorm, ...]
    reasons: tuple[str, ...]  # a line each
    kernels: tuple[Step, ...] = ()

    @property
    def voxel_mm(self) -> tuple[float, ...]:
        """Voxel size along the axes of the patch."""
        across = self.slice_axis if len(self.patch) == 2 else None
        return tuple(mm for axis, mm in enumerate(self.spacing_mm) if axis != across)

    def to_json(self) -> str:
        """Text that ``from_json`` reads back."""
        return seal(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        """Reads what ``to_json`` wrote.

        Raises:
            ValueError: the text is damaged.
        """
        content = {key: tuples(value) for key, value in unseal(text, earlier=True).items()}
        return cls(**content | {"normalization": tuple(ChannelNorm(**norm) for norm in content["normalization"])})


def make_plan(
    fingerprint: Fingerprint,  # of the cases outside the test part, so that nothing is learned from the test
    channels: Sequence[str],  # names; one named "CT" is normalised as CT
    *,
    dims: int,  # 2 or 3
    spacing: Auto | Sequence[float] = "auto",  # mm, RAS+ order
    patch: Auto | Sequence[int] = "auto",  # voxels, one number a dimension
    batch_size: Auto | int = "auto",  # patches a step
    normalization: Literal["auto", "zscore", "ct"] = "auto",  # of every channel
    patch_voxels: int = 2_500_000,  # what an automatic patch may hold, and the voxels a step is filled up to
    slice_axis: Axis = "auto",  # across which slices are cut in 2-D
    strides: Asked = "auto",  # what the network says of its poolings
) -> Plan:
    """Decides whatever is ``"auto"`` and takes the rest as it is given.

    Source: Isensee et al. 2021, nnU-Net, Nature Methods 18, 203, online methods, rule-based parameters. Patch and
    batch follow a number of voxels instead of the memory of one graphics card.

    Raises:
        ConfigError: a patch of another length than ``dims``, a spacing that makes volumes of absurd size, or slices
            that would be lines.
        DataError: CT normalisation where no case has foreground.
    """
    spacing_mm, why_spacing = _spacing(fingerprint, spacing)
    shape = _median_shape(fingerprint, spacing_mm)
    if math.prod(shape) > LARGEST_VOLUME:
        raise ConfigError(
            f"data.spacing={list(spacing_mm)} mm makes {times(shape)} voxels of the median volume. "
            "Set a coarser one, or leave it at auto."
        )
    across, why_across = _slice_axis(shape, spacing_mm, slice_axis)
    axes = [axis for axis in range(3) if dims == 3 or axis != across]
    voxel = [spacing_mm[axis] for axis in axes]
    limit = patch_voxels if dims == 3 else min(patch_voxels, SLICE_VOXELS)
    size, why_patch = fit_patch([shape[axis] for axis in axes], voxel, strides, limit)
    if patch != "auto":
        size, why_patch = tuple(map(int, patch)), "as given"
    if len(size) != dims:
        raise ConfigError(f"data.patch={list(size)} has {len(size)} numbers; with dims={dims} it needs {dims}.")
    seen = len(fingerprint.cases) * math.prod(shape)
    batch, why_batch = _batch(size, batch_size, patch_voxels if dims == 3 else 2 * limit, seen)
    steps = poolings(size, voxel, strides, even=patch != "auto" and strides == "auto")
    widths = kernels(size, voxel, steps)
    norms = [_norm(fingerprint, number, name, normalization) for number, name in enumerate(channels)]
    reasons = [
        f"spacing {times(spacing_mm)} {fingerprint.unit}: {why_spacing}",
        f"patch {times(size)}: {why_patch}",
        f"batch {batch}: {why_batch}",
        *_levels(steps, widths, strides),
        *(why for _, why in norms),
    ]
    if dims == 2:
        reasons.append(f"slices across axis {'xyz'[across]}: {why_across}")
    kept_norms = tuple(norm for norm, _ in norms)
    return Plan(spacing_mm, shape, size, batch, across, steps, kept_norms, tuple(reasons), widths)


def _slice_axis(shape: Sequence[int], spacing_mm: Sequence[float], asked: Axis) -> tuple[int, str]:
    flat = [axis for axis in range(3) if shape[axis] == 1]
    if asked != "auto":
        if flat and "xyz".index(asked) not in flat:
            raise ConfigError(
                f"data.slice_axis={asked} would cut lines out of images of {times(shape)} voxels. Leave it at auto."
            )
        return "xyz".index(asked), "as given"
    if flat:
        return max(flat), "the images have one voxel along it"
    coarsest = max(range(3), key=lambda axis: (float(f"{spacing_mm[axis]:.4g}"), axis))
    return coarsest, "the coarsest one, or the last of several; data.slice_axis=z, for instance, sets another"


def _levels(steps: Sequence[Step], widths: Sequence[Step], asked: Asked) -> list[str]:
    """Why the network pools and convolves as it does, a line each."""
    why = "finer axes are halved first, down to 4 voxels, or 2 where the network has poolings left"
    if asked is None:
        why = "taken for granted, since this network does not say how it pools"
    elif asked != "auto" and "auto" not in asked:
        why = "as given"
    lines = [f"strides {' '.join(map(times, steps))}: {why}"]
    if any(1 in width for width in widths):
        lines.append(
            f"kernels {' '.join(map(times, widths))}: nothing is convolved along an axis of one voxel, and along one "
            "whose voxels are at least twice the finest only once finer axes are pooled"
        )
    return lines


def _spacing(fingerprint: Fingerprint, asked: Auto | Sequence[float]) -> tuple[tuple[float, float, float], str]:
    """Median voxel size by axis; a coarse axis of thick slices at its 10th percentile.

    The median changes fewest images. Where slices are thick in most images, their median would throw away the detail
    of those with thin ones. Source: as ``make_plan``, target spacing.
    """
    if asked != "auto":
        x, y, z = map(float, asked)
        return (x, y, z), "as given"
    all_mm = np.array([case.spacing_mm for case in fingerprint.cases])
    target = np.median(all_mm, axis=0)
    shape = np.median([case.kept for case in fingerprint.cases], axis=0)
    coarse = int(np.argmax(target))
    others = [axis for axis in range(3) if axis != coarse]
    reason = "median of the cases"
    if target[coarse] > ANISOTROPIC * max(target[others]) and shape[coarse] * ANISOTROPIC < min(shape[others]):
        target[coarse] = max(np.percentile(all_mm[:, coarse], 10), *target[others])
        reason += f"; along {'xyz'[coarse]}, over {ANISOTROPIC} times coarser than the others, the 10th percentile"
    x, y, z = (rounded(float(size)) for size in target)
    return (x, y, z), reason


def _median_shape(fingerprint: Fingerprint, spacing_mm: Sequence[float]) -> tuple[int, int, int]:
    resampled = [np.array(case.kept) * case.spacing_mm / spacing_mm for case in fingerprint.cases]
    x, y, z = (max(1, round(float(size))) for size in np.median(resampled, axis=0))
    return x, y, z


def _batch(patch: Sequence[int], asked: Auto | int, fill: int, seen: int) -> tuple[int, str]:
    """As many patches as fill a step, within bounds, and at most 5 % of all voxels of the cases, ``seen``.

    One patch alone makes noisy steps; very many make few steps, and of a small data set the same ones again and again.
    """
    if asked != "auto":
        return int(asked), "as given"
    low, high = (2, 8) if len(patch) == 3 else (8, 32)
    wanted = round(min(fill, SHARE_OF_DATA * seen) / math.prod(patch))
    why = f"about {fill} voxels per step, at most {SHARE_OF_DATA:.0%} of the data, in {low} to {high} patches"
    return min(max(wanted, low), high), why


def _norm(
    fingerprint: Fingerprint, number: int, name: str, asked: Literal["auto", "zscore", "ct"]
) -> tuple[ChannelNorm, str]:
    """CT values mean the same in every scan, so one window for all, that of the structures; others do not.

    Source: as ``make_plan``, intensity normalisation: 0.5 and 99.5 percentile, mean and standard deviation of the
    foreground, and ``inside`` where the crop leaves little of the volume. Here every case weighs the same, however
    large its structures.
    """
    ct = name.lower() == "ct" if asked == "auto" else asked == "ct"
    why = "as given" if asked != "auto" else f"the channel is {'' if ct else 'not '}named CT"
    if not ct:
        kept = float(np.median([math.prod(case.kept) / math.prod(case.shape) for case in fingerprint.cases]))
        inside = f", 0 outside of it: the crop keeps {kept:.0%} of a volume" if kept < MARGIN else ""
        why = f"normalisation of {name}: each image by its own mean and deviation{inside}; {why}"
        return ChannelNorm("zscore", inside=bool(inside)), why
    known = [case.intensity[number] for case in fingerprint.cases if case.intensity]
    if not known:
        raise DataError(
            "CT normalisation is taken from the foreground, but no case has any. Use data.normalization=zscore."
        )
    low, high = np.percentile([value for intensity in known for value in intensity.quantiles], [0.5, 99.5]).tolist()
    mean = float(np.mean([intensity.mean for intensity in known]))
    second = float(np.mean([intensity.std**2 + intensity.mean**2 for intensity in known]))
    std = max(math.sqrt(max(second - mean**2, 0)), 1e-8)
    window = f"{low:.4g} … {high:.4g}, then mean {mean:.4g}, deviation {std:.4g}"
    return (
        ChannelNorm("ct", low, high, mean, std),
        f"normalisation of {name}: clipped to the foreground's {window}; {why}",
    )
