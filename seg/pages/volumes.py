"""The volumes of one case as a browser takes them: whole where that is small enough, else cropped, then made coarser.

How a case is fitted into its budget of bytes, as the page says for each case that was not kept whole:

1. whole, every voxel;
2. cropped to the box around the reference and all predictions, ``MARGIN_MM`` or ``MARGIN`` wider on each side;
3. that box made coarser, the axis of the finest voxels first: ``step`` voxels become one, the image by their mean,
   a mask by the voxel in their middle.

The image is kept in 256 grey values between two image values, which reach beyond the window that is shown at first, so
that contrast can still be changed.
"""

import base64
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from seg.data.cases import Case
from seg.data.classes import IGNORE, class_indices
from seg.data.grids import Header, Unit, grid, nonzero_box, same_grid, spacing_mm
from seg.data.nifti import to_ras
from seg.data.volumes import read_header, read_image, read_label
from seg.errors import ConfigError, DataError
from seg.pages.picture import SHOWN, percentiles

Mask: TypeAlias = npt.NDArray[np.uint8]
Box: TypeAlias = tuple[slice, slice, slice]
Labels: TypeAlias = Sequence[int | Sequence[int]]

MARGIN_MM, MARGIN = 10.0, 40  # the margin in voxels at most, for data of microns
KEPT = (0.05, 99.95)  # percentiles of the image, as SHOWN
SMALLEST = 16  # voxels along the longest axis; coarser than this nothing can be seen
DENSEST = 6  # voxels a byte of text; a case with more for its budget is not even tried


@dataclass(frozen=True, eq=False)
class Volumes:
    """One case in RAS+ order.

    ``image`` (X, Y, Z) float32 of one channel, ``label`` and each of ``preds`` (X, Y, Z) class indices, None where
    there is no prediction; ``spacing_mm`` along X, Y, Z, which ``unit`` says whether it is in pixels.
    """

    image: npt.NDArray[np.float32]
    label: Mask
    preds: list[Mask | None]
    spacing_mm: tuple[float, float, float]
    unit: Unit = "mm"


@dataclass(frozen=True)
class Packed:
    """One case for the page.

    ``payload`` is base64 of a zlib stream: the image, each voxel minus its neighbour along Y modulo 256, then the
    label and the predictions there are, all uint8 (X, Y, Z). ``about`` says what they are:

    - ``shape``, ``spacing``: of the input file in RAS+ order; ``unit``: mm, or pixels of a picture;
    - ``dims``, ``offset``, ``step``: packed voxel i stands for ``step`` voxels from ``offset + i * step``;
    - ``kept``: the image values that 0 and 255 stand for; ``window``: those shown black and white at first.
    """

    payload: str
    about: dict[str, Any]

    @property
    def how(self) -> str:
        """``whole``, ``cropped`` or ``coarser``."""
        if max(self.about["step"]) > 1:
            return "coarser"
        return "whole" if self.about["dims"] == self.about["shape"] else "cropped"


def read_volumes(
    case: Case, labels: Labels, preds: Sequence[Path | None], channel: int | None, ignore: int | None = None
) -> Volumes:
    """Reads image, reference and predictions of a case; a file of ``preds`` that does not exist becomes None.

    Args:
        case: with its label.
        labels: values in the label files by class index, as of ``CaseSet.labels``.
        preds: one mask for each column of the page.
        channel: of the image; None: the first, or of colours their brightness.
        ignore: the label value of voxels nobody annotated; reference and predictions are empty there.

    Raises:
        DataError: a file cannot be read, or a prediction has another grid than the image.
        ConfigError: the image has no such channel.
    """
    assert case.label is not None
    header = read_header(case.images[0])
    image, affine = read_image(case.images)
    if channel is None:
        image, channel = (image.mean(0, keepdims=True) if header.unit == "pixels" else image), 0
    if channel >= len(image):
        raise ConfigError(f"channel is {channel}, but {case.images[0]} has the channels 0 to {len(image) - 1}.")
    turned, turned_affine = to_ras(image[channel], affine)
    label = _mask(case.label, labels, header, affine, ignore)
    known = label != IGNORE
    masks = [_mask(path, labels, header, affine, ignore) if path and path.exists() else None for path in preds]
    shown = [None if mask is None else mask * known for mask in masks]
    return Volumes(turned, label * known, shown, spacing_mm(turned_affine), header.unit)


def pack(volumes: Volumes, budget: int, window: tuple[float, float] | None = None) -> Packed | None:
    """The case in at most ``budget`` characters, as whole and as fine as they allow; None where nothing fits.

    Args:
        volumes: of the case.
        budget: characters of base64.
        window: image values shown black and white; None: the percentiles ``SHOWN`` of what is packed.
    """
    for box, step in _ways(volumes):
        size = np.prod(
            [len(range(*part.indices(n))[::by]) for part, n, by in zip(box, volumes.label.shape, step, strict=True)]
        )
        if size <= DENSEST * budget:
            packed = _packed(volumes, box, step, window)
            if len(packed.payload) <= budget:
                return packed
    return None


def _mask(path: Path, labels: Labels, header: Header, affine: np.ndarray, ignore: int | None) -> Mask:
    own = read_header(path)
    if not same_grid(own, header):
        raise DataError(
            f"{path}: {grid(own)}, but the image has {grid(header)}. A mask must have the grid of its image: "
            "test the run again, or put back the data it was tested on."
        )
    try:
        indices = class_indices(read_label(path), labels, ignore)
    except DataError as error:
        raise DataError(f"{path}: {error}" if str(path) not in str(error) else str(error)) from None
    return to_ras(indices, affine)[0]


def _ways(volumes: Volumes) -> Iterator[tuple[Box, tuple[int, int, int]]]:
    """Box and step, from the whole volume to the coarsest that still shows something."""
    yield (slice(0, None),) * 3, (1, 1, 1)
    box = _around(volumes)
    size_mm, step = np.array(volumes.spacing_mm), np.ones(3, int)
    size = np.array([part.stop - part.start for part in box])
    while max(size / step) >= SMALLEST or max(step) == 1:
        x, y, z = step.tolist()
        yield box, (x, y, z)
        step[np.argmin(size_mm * step)] += 1


def _around(volumes: Volumes) -> Box:
    """The box around everything but background, with its margin; the whole volume if there is nothing."""
    filled = reduce(np.logical_or, (pred for pred in volumes.preds if pred is not None), volumes.label > 0)
    margins = [min(MARGIN, round(MARGIN_MM / mm)) for mm in volumes.spacing_mm]
    x, y, z = (
        slice(max(0, part.start - margin), min(size, part.stop + margin))
        for part, size, margin in zip(nonzero_box(filled), filled.shape, margins, strict=True)
    )
    return x, y, z


def _packed(volumes: Volumes, box: Box, step: tuple[int, int, int], window: tuple[float, float] | None) -> Packed:
    image = _means(volumes.image[box], step)
    masks = [_middles(mask[box], step) for mask in (volumes.label, *volumes.preds) if mask is not None]
    window, kept = _ranges(image, window)
    grey = np.clip((image - kept[0]) * (255 / (kept[1] - kept[0])), 0, 255).round().astype(np.uint8)
    grey[:, 1:] -= grey[:, :-1].copy()  # modulo 256, as the page undoes it
    content = b"".join(np.ascontiguousarray(volume).tobytes() for volume in (grey, *masks))
    about = {
        "shape": list(volumes.label.shape),
        "spacing": [float(f"{mm:.6g}") for mm in volumes.spacing_mm],
        "unit": volumes.unit,
        "dims": list(image.shape),
        "offset": [part.start for part in box],
        "step": list(step),
        "kept": [float(f"{value:.6g}") for value in kept],
        "window": [float(f"{value:.6g}") for value in window],
    }
    return Packed(base64.b64encode(zlib.compress(content, 9)).decode(), about)


def _ranges(
    image: npt.NDArray[np.float32], window: tuple[float, float] | None
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Image values shown at first, and those kept: of a given window half its width more on both sides."""
    if window:
        more = (window[1] - window[0]) / 2
        return window, (window[0] - more, window[1] + more)
    low, high, darkest, brightest = percentiles(image, (*SHOWN, *KEPT))
    least = 1e-6 * max(1.0, abs(darkest))  # of a flat image
    return (low, max(high, low + least)), (darkest, max(brightest, darkest + least))


def _means(image: npt.NDArray[np.float32], step: tuple[int, int, int]) -> npt.NDArray[np.float32]:
    """Mean of each block of ``step`` voxels; a block that reaches beyond the edge repeats the edge."""
    for axis, by in enumerate(step):
        if by > 1:
            more = [(0, -image.shape[axis] % by if other == axis else 0) for other in range(3)]
            padded = np.moveaxis(np.pad(image, more, "edge"), axis, 0)
            image = np.moveaxis(padded.reshape(-1, by, *padded.shape[1:]).mean(1), 0, axis)
    return image


def _middles(mask: Mask, step: tuple[int, int, int]) -> Mask:
    """The voxel in the middle of each block of ``step`` voxels, as many as ``_means`` gives."""
    places = [np.minimum(np.arange(0, n, by) + by // 2, n - 1) for n, by in zip(mask.shape, step, strict=True)]
    return mask[np.ix_(*places)]
