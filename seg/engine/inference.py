"""Sliding-window prediction of whole volumes, slice by slice: memory grows with a slab, not with the volume."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations, product
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from monai.data.utils import compute_importance_map
from monai.networks.utils import eval_mode
from torch import Tensor, nn

from seg.data.preprocess import Geometry
from seg.regions import Regions, probabilities

ON_DEVICE_BYTES = 2**32  # of logits that are put together on a GPU; more are put together in main memory
HALF_BYTES = 2**30  # of logits in float32 above which those of overlapping windows are added up in float16
AT_ONCE = 2**20  # logits that are worked on together
_LEAST = 1e-6  # probability of a region, and of its absence, that has a logit in float32
_LEAST_WEIGHT = 1e-3  # of a window's corners, where a Gaussian is next to nothing


@dataclass(frozen=True)
class Slices:
    """Logits of a volume in consecutive slices across ``axis``, each float32 (K, *the other two axes), on the CPU."""

    axis: int
    logits: Iterator[Tensor]
    probabilities: bool = False  # whether they are that, in place of logits
    within: Regions | None = None  # of a network of regions: which class indices are in each, see seg.regions
    passes: int = 0  # of the network that they take, more or less; 0: not known

    def whole(self) -> Tensor:
        """All of them as one volume (K, X, Y, Z)."""
        return torch.stack(list(self.logits), dim=self.axis + 1)

    def probabilities_of(self, scores: Tensor) -> Tensor:
        """The probabilities of some slices, channels first."""
        return scores if self.probabilities else probabilities(scores, self.within)


@dataclass(frozen=True)
class Windows:
    """How a network sees a volume: in overlapping windows, whose logits are averaged with Gaussian weights.

    Mirror only along axes that training mirrored: a network fails on what it never saw.
    Source: Isensee et al., nnU-Net, Nature Methods 2021 (Gaussian weights, half-overlapping windows, mirroring).
    """

    patch: tuple[int, ...]  # in voxels, two or three axes; a smaller volume is padded with 0, as in training
    slice_axis: int = 2  # of the volume, across which a network of two dimensions sees it
    overlap: float = 0.5  # share of a window that its neighbour covers too, 0 ≤ overlap < 1
    mirror_axes: tuple[int, ...] = ()  # of the patch; axes that it lacks are left out
    batch_size: int = 1  # windows at a time; activations, hence memory, grow with it
    device: torch.device | str = "cpu"  # where the network is
    precision_context: Callable[[], AbstractContextManager[object]] = nullcontext  # of a forward pass, such as autocast
    within: Regions | None = None  # as of ``Slices``

    @property
    def shape(self) -> tuple[int, ...]:
        """The window within the volume, one voxel thick where the network has two dimensions."""
        at = self.slice_axis
        return self.patch if len(self.patch) == 3 else (*self.patch[:at], 1, *self.patch[at:])

    @property
    def flips(self) -> list[tuple[int, ...]]:
        """Axes of a batch of windows that are mirrored together, in each mirrored copy."""
        axes = [axis + 2 for axis in self.mirror_axes if axis < len(self.patch)]
        return [some for count in range(1, len(axes) + 1) for some in combinations(axes, count)]

    def forward(self, network: nn.Module, windows: Tensor) -> Tensor:
        """Logits float32 (B, K, *window) of windows (B, C, *window), averaged over all mirrored copies."""
        flips = self.flips
        flat = len(self.patch) == 2
        inputs = (windows.squeeze(self.slice_axis + 2) if flat else windows).to(self.device)
        with self.precision_context():
            total: Tensor = network(inputs).float()
            for some in flips:
                total = total + network(inputs.flip(some)).float().flip(some)
        if flips:
            total = total / (1 + len(flips))
        return total.unsqueeze(self.slice_axis + 2) if flat else total


class Predict(Protocol):
    """From a network and a prepared image (C, X, Y, Z) to the slices of its logits, across ``axis`` or the longest."""

    def __call__(self, network: nn.Module, image: np.ndarray, *, axis: int | None = None) -> Slices:
        """Nothing is computed before the slices are taken."""


def predict_slices(
    network: nn.Module,
    image: np.ndarray,
    *,
    windows: Windows,
    axis: int | None = None,
    shift: Sequence[int] = (0, 0, 0),
) -> Slices:
    """Logits of a prepared volume (C, X, Y, Z), float32, as soon as no window can change them any more.

    Args:
        network: maps (B, C, *patch) to logits (B, K, *patch); it is in its evaluation mode while the slices are taken.
        image: may be a read-only memory map.
        windows: how the network sees it.
        axis: across which the slices come; None: the longest, which needs the least memory.
        shift: voxels along each axis by which every window lies elsewhere on the volume.
    """
    across = longest(image) if axis is None else axis
    padding = _padding(image.shape[1:], windows, shift)
    own = np.require(image, np.float32, "W")  # copied only where it is read-only, which PyTorch does not know
    sizes = [low + size + high for size, (low, high) in zip(image.shape[1:], padding, strict=True)]
    passes = (1 + len(windows.flips)) * sum(1 for _ in _batches(sizes, windows, across))
    slices = _slices(network, torch.from_numpy(own), windows, across, padding)
    return Slices(across, slices, within=windows.within, passes=passes)


@torch.no_grad()
def _slices(
    network: nn.Module, image: Tensor, windows: Windows, axis: int, padding: Sequence[tuple[int, int]]
) -> Iterator[Tensor]:
    padded = F.pad(image, [n for pair in reversed(padding) for n in pair]) if any(map(any, padding)) else image
    sizes = padded.shape[1:]
    inside = [slice(low, low + size) for size, (low, _) in zip(image.shape[1:], padding, strict=True)]
    wanted, plane = inside.pop(axis), tuple(inside)
    sums = _Sums(windows, sizes, axis)
    with eval_mode(network) if network.training else nullcontext():  # which takes milliseconds
        for batch, until in _batches(sizes, windows, axis):
            cut = [tuple(slice(a, a + n) for a, n in zip(start, windows.shape, strict=True)) for start in batch]
            sums.add(batch, windows.forward(network, torch.stack([padded[:, x, y, z] for x, y, z in cut])))
            for index, logits in sums.until(until):
                if wanted.start <= index < wanted.stop:
                    yield logits[(slice(None), *plane)]


def _padding(shape: Sequence[int], windows: Windows, shift: Sequence[int]) -> list[tuple[int, int]]:
    """Voxels of 0 before and after each axis: to one window at least; shifted, windows reach over both ends."""
    return [
        ((side - size) // 2 + by, side - size - (side - size) // 2 - by) if size < side else (by, by)
        for side, size, by in zip(windows.shape, shape, shift, strict=True)
    ]


def _starts(size: int, side: int, overlap: float) -> list[int]:
    step = max(1, int(side * (1 - overlap)))
    return [*range(0, size - side, step), size - side]


def _batches(sizes: Sequence[int], windows: Windows, axis: int) -> Iterator[tuple[list[tuple[int, ...]], int]]:
    """Corners of the windows, some at a time in the order of ``axis``, and the slice up to which all are then known."""
    ways = (_starts(size, side, windows.overlap) for size, side in zip(sizes, windows.shape, strict=True))
    corners = sorted(product(*ways), key=lambda corner: corner[axis])
    for first in range(0, len(corners), windows.batch_size):
        after = first + windows.batch_size
        yield corners[first:after], corners[after][axis] if after < len(corners) else sizes[axis]


@lru_cache(8)
def _gaussian(shape: tuple[int, ...]) -> Tensor:
    weight = compute_importance_map(shape, mode="gaussian", sigma_scale=0.125, device="cpu")
    return weight.clamp(min=max(float(weight[weight != 0].min()), _LEAST_WEIGHT))


class _Sums:
    """Weighted sums of the logits of the slices that windows still change; the slices of ``axis`` come first."""

    def __init__(self, windows: Windows, sizes: Sequence[int], axis: int) -> None:
        spans = [(batch[0][axis], batch[-1][axis] + windows.shape[axis]) for batch, _ in _batches(sizes, windows, axis)]
        self.axis, self.depth, self.first = axis, max(end - begin for begin, end in spans), 0
        self.plane = [size for number, size in enumerate(sizes) if number != axis]
        self.shape = windows.shape
        self.weight = _gaussian(windows.shape)
        self.total = self.count = torch.empty(0)

    def add(self, corners: Sequence[tuple[int, ...]], logits: Tensor) -> None:
        """Adds the logits (B, K, *window) of the windows at ``corners``."""
        if not self.total.numel():
            self._allocate(logits.shape[1], logits.device)
        weight = self.weight.to(self.total.device)
        logits = logits.to(self.total.device)
        for corner, one in zip(corners, logits, strict=True):
            begin = corner[self.axis] - self.first
            place = [slice(at, at + side) for at, side in zip(corner, self.shape, strict=True)]
            place[self.axis] = slice(begin, begin + self.shape[self.axis])
            depth, a, b = (place[self.axis], *(side for number, side in enumerate(place) if number != self.axis))
            self.total[depth, :, a, b].addcmul_(one.movedim(self.axis + 1, 0), weight.movedim(self.axis, 0)[:, None])
            self.count[depth, a, b] += weight.movedim(self.axis, 0)

    def until(self, end: int) -> Iterator[tuple[int, Tensor]]:
        """Number and mean logits (K, A, B) of each slice before ``end``, which then make room for later ones."""
        done = end - self.first
        if not done:
            return
        at_once = max(1, AT_ONCE // self.total[0].numel())
        for place in range(0, done, at_once):
            part = slice(place, min(place + at_once, done))
            means = (self.total[part].float() / self.count[part, None]).cpu()
            yield from zip(range(self.first + place, self.first + done), means, strict=False)
        for place in range(self.depth):
            if place + done < self.depth:
                self.total[place], self.count[place] = self.total[place + done], self.count[place + done]
            else:
                self.total[place], self.count[place] = 0, 0
        self.first = end

    def _allocate(self, classes: int, device: torch.device) -> None:
        shape = (self.depth, classes, *self.plane)
        size = 4 * math.prod(shape)
        where = device if size <= ON_DEVICE_BYTES else torch.device("cpu")
        self.total = torch.zeros(shape, dtype=torch.float16 if size > HALF_BYTES else torch.float32, device=where)
        self.count = torch.zeros((self.depth, *self.plane), device=where)


def over_shifts(
    network: nn.Module, image: np.ndarray, *, windows: Windows, axes: Sequence[int], axis: int | None = None
) -> Slices:
    """Logits of the probabilities that are averaged over all windows shifted by 0 and 1 voxel along each of ``axes``.

    A network that halves its maps answers slightly differently when its grid is shifted by one voxel; the mean of the
    2^n answers is better than each. ``axes`` are of the volume, 0 to 2; the rest is as in ``predict_slices``.

    Source: of the effect, Zhang, Making Convolutional Networks Shift-Invariant Again, ICML 2019.
    """
    across = longest(image) if axis is None else axis
    moves = list(product(*((0, 1) if axis in axes else (0,) for axis in range(3))))
    still = predict_slices(network, image, windows=windows, axis=across)

    def mean() -> Iterator[Tensor]:
        ways = [predict_slices(network, image, windows=windows, axis=across, shift=by).logits for by in moves]
        for logits in zip(*ways, strict=True):
            certain = torch.stack([*map(still.probabilities_of, logits)]).mean(0)
            yield certain.clamp_min(1e-30).log() if still.within is None else certain.logit(_LEAST)

    return replace(still, logits=mean(), passes=len(moves) * still.passes)


def longest(image: np.ndarray) -> int:
    """The axis of a volume (C, X, Y, Z) across which its slices are the smallest."""
    return int(np.argmax(image.shape[1:]))


def mean_probability(members: Sequence[Slices], disagree: Callable[[Tensor], None] | None = None) -> Slices:
    """Probabilities of the classes, or regions, averaged over several networks' logits of the same slices.

    Args:
        members: of one network or more.
        disagree: is given how much the networks disagree in each slice, float32 (A, B): the entropy of their mean less
            the mean of their entropies, in nats, 0 where all say the same. It is the mutual information of class and
            network (Depeweg et al., Decomposition of Uncertainty, ICML 2018), at most the logarithm of their number;
            of regions the sum over them.
    """
    first = members[0]

    def entropy(certain: Tensor) -> Tensor:
        terms: Tensor = torch.special.entr(certain)
        return (terms if first.within is None else terms + torch.special.entr(1 - certain)).sum(0)

    def mean() -> Iterator[Tensor]:
        for logits in zip(*(slices.logits for slices in members), strict=True):
            total, entropies = torch.zeros(()), torch.zeros(())
            for certain in map(first.probabilities_of, logits):
                total = total + certain
                if disagree:
                    entropies = entropies + entropy(certain)
            total = total / len(members)
            if disagree:
                disagree((entropy(total) - entropies / len(members)).clamp_min(0))
            yield total

    return replace(first, logits=mean(), probabilities=True)


def on_grid(slices: Slices, geometry: Geometry) -> Slices:
    """Logits of each slice of the file's grid (RAS axes, within the crop), by linear interpolation.

    Across an axis with thick slices the nearest one is taken, see ``Geometry.coarse_axis``.
    """
    axis, coarse = slices.axis, geometry.coarse_axis
    target = [high - low for low, high in geometry.crop]
    plane = [size for number, size in enumerate(target) if number != axis]
    thick = None if coarse is None or coarse == axis else coarse - (coarse > axis)

    def resampled() -> Iterator[Tensor]:
        known, before, last = -1, torch.empty(0), torch.empty(0)
        for low, high, share in _sources(geometry.shape[axis], target[axis], nearest=coarse == axis):
            while known < high:
                known, before, last = known + 1, last, next(slices.logits)
            yield _in_plane(last if low == known else torch.lerp(before, last, share), plane, thick)

    return replace(slices, logits=resampled())


def _sources(old: int, new: int, nearest: bool) -> Iterator[tuple[int, int, float]]:
    """For each of ``new`` slices over the extent of ``old``: the two around it, and the share of the second."""
    for number in range(new):
        if nearest:
            low = int((number + 0.5) * old / new)
            yield low, low, 0.0
        else:
            at = min(max((number + 0.5) * old / new - 0.5, 0), old - 1)
            low = int(at)
            yield low, min(low + 1, old - 1) if at > low else low, at - low


def _in_plane(logits: Tensor, size: Sequence[int], thick: int | None) -> Tensor:
    """A slice (K, A, B) on another number of pixels over the same extent."""
    smooth = [logits.shape[axis + 1] if axis == thick else n for axis, n in enumerate(size)]
    if smooth != list(logits.shape[1:]):
        logits = F.interpolate(logits[None], smooth, mode="bilinear")[0]
    if thick is not None and (old := logits.shape[thick + 1]) != (new := size[thick]):
        logits = logits.index_select(thick + 1, torch.tensor([int((n + 0.5) * old / new) for n in range(new)]))
    return logits
