"""How far a network's probabilities can be believed: expected and average calibration error of a case, slice by slice.

Each class is looked at alone, against all others (marginal): the annotated voxels of the whole volume are sorted into
``BINS`` bins by the probability of the class. In a bin of n of N voxels that probability is p on average, and a share o
of the voxels are of the class in the reference.

    ECE = sum of n / N · |o - p|        Guo et al. 2017, On Calibration of Modern Neural Networks, ICML
    ACE = mean of |o - p| over the bins that hold a voxel; its mean over classes is mL1-ACE
                                        Barfoot et al. 2024, MICCAI, arXiv:2403.06759, with 20 bins
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from seg.data.classes import IGNORE
from seg.data.preprocess import Geometry
from seg.regions import Regions, inside, probabilities

BINS = 20
_EDGES = torch.linspace(0, 1, BINS + 1)[1:-1]


class Reliability:
    """The bins of one case; what lies outside the crop has the probability 0."""

    def __init__(
        self, label: np.ndarray, geometry: Geometry, axis: int, classes: int, within: Regions | None = None
    ) -> None:
        """Nothing counted yet.

        Args:
            label: class indices (X, Y, Z) of the whole grid, axes in RAS order; IGNORE where nobody annotated.
            geometry: of the prepared image.
            axis: across which the slices come.
            classes: background included.
            within: of regions, as in ``seg.regions``.
        """
        self.within = within
        self.of = np.stack(
            [inside(np.arange(classes), k, within) for k in range(1, classes)]
        )  # structure × class index
        crop = label[tuple(slice(low, high) for low, high in geometry.crop)]
        self.label, self.first = np.moveaxis(crop, axis, 0), 0
        voxels = np.sum([np.bincount(plane.ravel(), minlength=256) for plane in label], axis=0)[:classes]
        self.every, self.present = voxels.sum(), self.of @ voxels
        self.probability = np.zeros(classes - 1)  # summed over all voxels
        self.bins = np.zeros((3, classes - 1, BINS))  # above the lowest bin: voxels, sums of probability, of the class

    def add(self, scores: Tensor) -> None:
        """Counts the next slices: logits (K, slices, A, B)."""
        label = torch.from_numpy(np.ascontiguousarray(self.label[self.first : self.first + scores.shape[1]]))
        self.first += scores.shape[1]
        known, every = (label != IGNORE).flatten(), probabilities(scores, self.within)[-len(self.of) :].flatten(1)
        label = label.flatten()
        if not known.all():
            every, label = every[:, known], label[known]
        self.probability += every.sum(1, dtype=torch.float64).numpy()
        index, voxel = (every > _EDGES[0]).nonzero(as_tuple=True)  # nearly all voxels are in the lowest bin
        sure = every[index, voxel]
        place = (index * BINS + torch.bucketize(sure, _EDGES)).numpy()
        right = self.of[index.numpy(), label[voxel].numpy()]
        for own, weights in zip(self.bins, (None, sure.numpy(), right), strict=True):
            own += np.bincount(place, weights, minlength=own.size).reshape(own.shape)

    def errors(self) -> tuple[np.ndarray, np.ndarray]:
        """ECE and ACE of each foreground class, in [0, 1]; NaN where no voxel is annotated."""
        bins = self.bins.copy()
        all_bins = np.stack([np.full_like(self.probability, self.every), self.probability, self.present])
        bins[..., 0] = all_bins - bins.sum(-1)
        voxels, probability, of_class = bins
        gaps, held = np.abs(of_class - probability), voxels > 0
        with np.errstate(invalid="ignore"):
            return gaps.sum(1) / self.every, np.divide(gaps, voxels, where=held, out=gaps * 0).sum(1) / held.sum(1)

    def rows(self, case: str, names: Sequence[str]) -> list[dict[str, str | float]]:
        """The rows of ``calibration.csv``; ``names`` are those of all classes, background first."""
        ece, ace = self.errors()
        return [
            {"case": case, "class": name, "ece": float(e), "ace": float(a)}
            for name, e, a in zip(names[1:], ece, ace, strict=True)
        ]
