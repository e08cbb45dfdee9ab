"""From logits or probabilities to the label map of a scan, and how certain its structures are."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from seg.data.preprocess import Geometry
from seg.engine.inference import AT_ONCE, Slices
from seg.regions import among, label_map


@dataclass(frozen=True)
class Decided:
    """The label map, and how certain each class, or region, is."""

    indices: np.ndarray  # uint8, of the file's whole grid, axes in RAS order
    voxels: np.ndarray  # float64 (256,): how many each has, background left out
    confidence: np.ndarray  # float64 (256,): mean probability of each within its own voxels; NaN where it has none

    def by_class(self, names: Sequence[str]) -> dict[str, float]:
        """The confidence of each class found, ``names`` being those of all, background first."""
        return {name: float(self.confidence[k]) for k, name in enumerate(names) if self.voxels[k]}


def decide(slices: Slices, geometry: Geometry, seen: Callable[[Tensor], None] | None = None) -> Decided:
    """The label map of the slices that ``on_grid`` gives; background elsewhere.

    ``seen`` is given these logits or probabilities too, some slices at a time (K, slices, A, B).
    """
    whole = np.zeros(geometry.ras_shape, np.uint8)
    inside = np.moveaxis(whole[tuple(slice(low, high) for low, high in geometry.crop)], slices.axis, 0)
    voxels, certain = np.zeros((2, 256))
    first = 0
    for scores in _stacked(slices.logits):
        if seen:
            seen(scores)
        best = label_map(scores, slices.within, threshold=0.5 if slices.probabilities else 0.0)
        inside[first : first + len(best)] = best.numpy()
        first += len(best)
        found = best > 0
        classes, of, sure = _certain(slices, scores[:, found], best[found])
        voxels += np.bincount(classes, of, minlength=256)
        certain += np.bincount(classes, sure, minlength=256)
    with np.errstate(invalid="ignore"):
        return Decided(whole, voxels, certain / voxels)


def _certain(slices: Slices, scores: Tensor, indices: Tensor) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """Classes, how many of the voxels each has (None: one), and the sum of its probability there.

    ``scores`` (K, N) and ``indices`` (N,) are of voxels that are not background.
    """
    if slices.within is not None:
        own = torch.stack([among(indices, those) for those in slices.within])
        sure = (slices.probabilities_of(scores) * own).sum(1, dtype=torch.float64)
        return np.arange(1, 1 + len(own)), own.sum(1).numpy(), sure.numpy()
    sure = scores.gather(0, indices[None])[0]
    if not slices.probabilities:
        sure = (sure - scores.logsumexp(0)).exp()
    return indices.numpy(), None, sure.numpy()


def _stacked(slices: Iterator[Tensor]) -> Iterator[Tensor]:
    """As many slices together (K, slices, A, B) as AT_ONCE allows: each call of PyTorch costs microseconds."""
    for one in slices:
        others = islice(slices, max(0, AT_ONCE // one.numel() - 1))
        yield torch.stack([one, *others], 1)
