"""Sliding-window prediction of whole volumes."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import chain, combinations, product
from typing import Any

import numpy as np
import torch
from monai.inferers import sliding_window_inference
from torch import nn

ON_DEVICE_VOXELS = 2**25  # logits of larger volumes are put together in main memory


def predict_case(
    network: nn.Module,
    image: np.ndarray,
    *,
    patch: Sequence[int],
    dims: int,
    slice_axis: int,
    overlap: float = 0.5,
    mirror_axes: Sequence[int] = (),
    batch_size: int = 1,
    device: torch.device | str = "cpu",
    precision_context: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> torch.Tensor:
    """Logits of a prepared volume, windows weighted by a Gaussian and, if wanted, averaged over mirrored copies.

    Args:
        network: maps (B, C, *patch) to logits (B, K, *patch); put into evaluation mode for the call.
        image: float32 (C, X, Y, Z), a prepared volume.
        patch: window in voxels, as many axes as ``dims``. A smaller volume is padded with 0, as in training.
        dims: 3, or 2 for all slices across ``slice_axis``.
        slice_axis: axis a slice stands on; not used when ``dims`` is 3.
        overlap: share of a window that its neighbour covers too, 0 ≤ overlap < 1.
        mirror_axes: axes of the patch to average over all mirrored copies of; axes beyond ``dims`` are left out. Only
            axes that training mirrored: a network fails on what it never saw.
        batch_size: windows at a time; activations, hence memory, grow with it.
        device: where the network lies.
        precision_context: makes the context a forward pass runs in, such as autocast.

    Returns:
        float32 (K, X, Y, Z) on the CPU. Mirrored copies are averaged window by window, so only one such tensor is held.

    Source: Isensee et al., nnU-Net, Nature Methods 2021 (Gaussian weights, half-overlapping windows, mirroring).
    """
    whole = torch.from_numpy(np.array(image, np.float32))
    inputs = whole[None] if dims == 3 else whole.movedim(slice_axis + 1, 0)
    flips = _flips([axis + 2 for axis in mirror_axes if axis < dims])

    def predictor(windows: torch.Tensor) -> torch.Tensor:
        with precision_context():
            total: torch.Tensor = network(windows).float()
            for axes in flips:
                total += network(windows.flip(axes)).float().flip(axes)
        return total / (1 + len(flips))

    with _evaluating(network), torch.no_grad():
        logits: torch.Tensor = sliding_window_inference(
            inputs,
            roi_size=tuple(patch),
            sw_batch_size=batch_size,
            predictor=predictor,
            overlap=overlap,
            mode="gaussian",
            sw_device=device,
            device=device if whole[0].numel() <= ON_DEVICE_VOXELS else "cpu",
        )
    return logits[0].cpu() if dims == 3 else logits.movedim(0, slice_axis + 1).cpu()


def over_shifts(predict: Callable[[np.ndarray], torch.Tensor], image: np.ndarray, axes: Sequence[int]) -> torch.Tensor:
    """Log of the class probabilities, averaged over the volume moved by 0 and 1 voxel along every one of ``axes``.

    A network that halves its maps answers a little differently when its grid is moved by one voxel; the mean of the
    2^n answers is better than each. Source of the effect: Zhang, Making Convolutional Networks Shift-Invariant Again,
    ICML 2019.

    Args:
        predict: image (C, X, Y, Z) → logits (K, X, Y, Z) of its own size.
        image: float32 (C, X, Y, Z), a prepared volume.
        axes: of the volume, 0 to 2.

    Returns:
        float32 (K, X, Y, Z).
    """
    total = torch.zeros(())
    for moved in product((0, 1), repeat=len(axes)):
        by = [dict(zip(axes, moved, strict=True)).get(axis, 0) for axis in range(3)]
        logits = predict(np.pad(image, [(0, 0), *((n, 0) for n in by)]))
        total = total + logits[:, by[0] :, by[1] :, by[2] :].softmax(0)
    probabilities: torch.Tensor = total / 2 ** len(axes)
    return probabilities.clamp_min(1e-30).log()


def _flips(axes: Sequence[int]) -> list[tuple[int, ...]]:
    """All subsets of ``axes`` but the empty one."""
    return list(chain.from_iterable(combinations(axes, count) for count in range(1, len(axes) + 1)))


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(training)
