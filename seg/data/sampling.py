"""Patches of prepared volumes, each a pure function of its index: nothing to save, nothing to restore.

Sample ``i`` is the same whatever the number of loader processes, of training processes, or the step a run resumed at.
"""

import os
import signal
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from types import EllipsisType
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from seg.data.augmentation import Augment
from seg.data.preprocess import Prepared
from seg.data.processors import processors

AHEAD = 2  # batches made before they are asked for
ORDER, PLACE = 0, 1  # streams of random numbers: the order of the cases, the place and look of a patch


class Sample(TypedDict):
    """A patch: image float32 (C, *patch), label uint8 (*patch), and the id of its case."""

    image: Tensor
    label: Tensor
    case: str


class Batch(TypedDict):
    """Several samples: image float32 (B, C, *patch), label uint8 (B, *patch), and the ids of their cases."""

    image: Tensor
    label: Tensor
    case: list[str]


class Patches(Dataset[Sample]):
    """An endless sequence of patches; every case comes once in a pass over ``ids``, each pass in another order.

    Patches centred on foreground are spread evenly over the indices, so that every batch has its share, and their
    class is drawn evenly among those the case has. Source: nnU-Net (Isensee et al. 2021).
    """

    def __init__(
        self,
        store: Mapping[str, Prepared],
        ids: Sequence[str],  # of the cases to draw from
        *,
        patch: Sequence[int],  # voxels per axis, as many as ``dims``
        dims: int,  # 3 for volumes; 2 for slices across ``slice_axis``
        slice_axis: int,  # of the volume; not used when ``dims`` is 3
        foreground: float,  # share of patches centred on a foreground voxel
        seed: int,  # of order, place and augmentation
        augment: Augment | None,
        jitter: int = 0,  # voxels beyond what the volume needs: a patch that holds it all shows it at varying places
    ) -> None:
        self._store, self._ids = store, tuple(ids)
        self._slice_axis = slice_axis if dims == 2 else None
        self._patch = tuple(patch) if dims == 3 else (*patch[:slice_axis], 1, *patch[slice_axis:])
        self._foreground, self._seed, self._augment = foreground, seed, augment
        self._jitter = jitter * np.array([axis != self._slice_axis for axis in range(3)])

    def __getitem__(self, index: int) -> Sample:
        """Sample ``index``: image float32 (C, *patch), label uint8 (*patch), case (its id).

        Only the patch is read from disk; what is outside the volume is 0, the mean of a normalised image.
        """
        rng = np.random.default_rng([self._seed, PLACE, index])
        prepared = self._store[self._case(index)]
        assert prepared.label is not None, f"{prepared.case} has no label"
        corner = self._corner(rng, prepared, centred=self._is_centred(index))
        image, label = (torch.from_numpy(_read(v, corner, self._patch)) for v in (prepared.image, prepared.label))
        if self._slice_axis is not None:
            image, label = image.squeeze(self._slice_axis + 1), label.squeeze(self._slice_axis)
        if self._augment is not None:
            image, label = self._augment(image, label, rng)
        return {"image": image, "label": label, "case": prepared.case}

    def _case(self, index: int) -> str:
        turn, position = divmod(index, len(self._ids))
        order = np.random.default_rng([self._seed, ORDER, turn]).permutation(len(self._ids))
        return self._ids[int(order[position])]

    def _is_centred(self, index: int) -> bool:
        return int((index + 1) * self._foreground) > int(index * self._foreground)

    def _corner(self, rng: np.random.Generator, prepared: Prepared, *, centred: bool) -> np.ndarray:
        """First voxel of the patch: within the volume, or with the volume in its middle along axes it cannot fill.

        Both up to ``jitter`` voxels further out.
        """
        size, side = np.array(prepared.image.shape[1:]), np.array(self._patch)
        low = np.minimum(0, -((side - size) // 2))
        high = np.maximum(size - side, low) + self._jitter
        low -= self._jitter
        if not (centred and prepared.foreground):
            return rng.integers(low, high, endpoint=True)  # type: ignore[no-any-return]
        voxels = prepared.foreground[int(rng.choice(list(prepared.foreground)))]
        return np.clip(voxels[rng.integers(len(voxels))] - side // 2, low, high)  # type: ignore[no-any-return]


def batches(
    dataset: Patches,
    *,
    start_step: int,  # counted from the start of training
    steps: int | None,  # None: no end
    batch_size: int,  # samples in a step over all training processes
    rank: int,  # which of the training processes this is
    world: int,  # how many there are
    workers: int,
    pin_memory: bool = False,  # page-locked batches, which a CUDA device copies while it computes
) -> Iterator[Batch]:
    """The batches of steps ``start_step`` … ``start_step + steps - 1``; may be left at any time.

    Step ``s`` holds the samples ``s * batch_size + i``; each training process takes its own run of them.

    ``workers`` loader processes feed a GPU best. 0 loads in this process, which costs half as much (nothing crosses
    from process to process) and suits training on the CPU: in a thread where the network leaves a core to it, otherwise
    between two steps. A thread that has to share a core holds up all threads of the network: up to 8 % of a step.

    Returns:
        An iterator of ``{"image": (B, C, *patch) float32, "label": (B, *patch) uint8, "case": list of B ids}``.
    """
    assert batch_size % world == 0, "build_run refuses it"
    share = batch_size // world
    which = count(start_step) if steps is None else range(start_step, start_step + steps)
    loader = DataLoader(
        dataset,
        batch_sampler=(list(range(first, first + share)) for first in (s * batch_size + rank * share for s in which)),
        num_workers=workers,
        multiprocessing_context=("fork" if sys.platform == "linux" else "spawn") if workers else None,
        worker_init_fn=_stand_apart,
        generator=torch.Generator(),  # the loader draws a number, which would else come from the run's own stream
        pin_memory=pin_memory,
    )
    spare = torch.get_num_threads() < processors()
    return _ahead(iter(loader)) if spare and not workers else iter(loader)


def _ahead(source: Iterator[Batch]) -> Iterator[Batch]:
    """``source``, made AHEAD batches early in a thread, which keeps to one core while the network has the others."""
    with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        coming = deque(pool.submit(next, source, None) for _ in range(AHEAD))
        while (batch := coming.popleft().result()) is not None:
            coming.append(pool.submit(next, source, None))
            yield batch


def _stand_apart(worker: int) -> None:
    """Lets the training process alone answer what is sent to its group: it needs its loaders to finish the step.

    A SIGTERM to the loader itself still ends it, which is how Python ends what is left at its exit.
    """
    os.setpgid(0, 0)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _read(volume: np.ndarray, corner: Sequence[int] | np.ndarray, patch: Sequence[int]) -> np.ndarray:
    """The box of ``patch`` voxels at ``corner`` of the last three axes, 0 outside ``volume``."""
    box = np.zeros((*volume.shape[:-3], *patch), volume.dtype)
    source: list[EllipsisType | slice] = [...]
    target: list[EllipsisType | slice] = [...]
    for first, side, size in zip(corner, patch, volume.shape[-3:], strict=True):
        low, high = (min(max(end, 0), size) for end in (first, first + side))
        source.append(slice(low, high))
        target.append(slice(low - first, high - first))
    box[tuple(target)] = volume[tuple(source)]
    return box
