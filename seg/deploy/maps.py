"""Maps beside a mask: the probability of each class, and how much several networks disagree; written slice by slice."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import numpy as np
from torch import Tensor

from seg.data.nifti import by_slices, from_ras, ras_axis
from seg.data.preprocess import Geometry
from seg.engine.inference import Slices

_STEPS = 255  # of a probability as it is stored


@dataclass(frozen=True)
class Maps:
    """Where the maps of a scan are written, as .nii.gz on its grid; None: nowhere."""

    probabilities: Path | None = None  # a channel for each class, background first, or region, in steps of 1/255
    disagreement: Path | None = None  # of the networks, in nats: see ``seg.engine.inference.mean_probability``

    @property
    def wanted(self) -> tuple[Path, ...]:
        """The files."""
        return tuple(path for path in (self.probabilities, self.disagreement) if path)


@contextmanager
def disagreement(path: Path, geometry: Geometry) -> Iterator[Callable[[Tensor], None]]:
    """Writes the slices (A, B) that it is given, in their order across the file's third axis; 0 outside."""
    with _on_grid(path, geometry, 1, np.dtype(np.float32)) as put:
        yield lambda values: put(values.numpy()[None])


@contextmanager
def probabilities(path: Path, slices: Slices, geometry: Geometry, channels: int) -> Iterator[Slices]:
    """The same slices, which are across the file's third axis; as they are taken, their probabilities are written."""
    background = _STEPS if slices.within is None else 0
    with _on_grid(path, geometry, channels, np.dtype(np.uint8), slope=1 / _STEPS, background=background) as put:

        def seen() -> Iterator[Tensor]:
            for scores in slices.logits:
                put((slices.probabilities_of(scores) * _STEPS).round().numpy())
                yield scores

        yield replace(slices, logits=seen())


@contextmanager
def _on_grid(
    path: Path,
    geometry: Geometry,
    channels: int,
    dtype: np.dtype[np.generic],
    *,
    slope: float = 1.0,
    background: float = 0.0,
) -> Iterator[Callable[[np.ndarray], None]]:
    """Takes the slices (channels, A, B) of the crop, writes those of the whole grid; ``background`` in channel 0."""
    affine = np.array(geometry.original_affine)
    axis, direction = ras_axis(affine, 2)
    depth = geometry.ras_shape[axis]
    empty = np.zeros((channels, *(1 if n == axis else side for n, side in enumerate(geometry.ras_shape))), dtype)
    empty[0] = background
    shape = (*from_ras(empty, affine).shape[1:3], depth, channels)
    inside = tuple(slice(None) if n == axis else slice(*side) for n, side in enumerate(geometry.crop))
    (first, last), numbers = geometry.crop[axis], count(geometry.crop[axis][0])
    with by_slices(path, shape, affine, dtype, slope) as write:

        def put(number: int, volume: np.ndarray) -> None:
            write(number if direction > 0 else depth - 1 - number, from_ras(volume, affine)[..., 0])

        def take(values: np.ndarray) -> None:
            volume = empty.copy()
            volume[(slice(None), *inside)] = np.expand_dims(values, axis + 1)
            put(next(numbers), volume)

        for number in (*range(first), *range(last, depth)):
            put(number, empty)
        yield take
