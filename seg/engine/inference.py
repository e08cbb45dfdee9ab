"""Sliding-window prediction of whole volumes."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import combinations, product
from typing import Any

import numpy as np
import torch
from monai.inferers import sliding_window_inference
from monai.networks.utils import eval_mode
from torch import nn

ON_DEVICE_VOXELS = 2**25  # logits of larger volumes are put together in main memory


def predict_case(
    network: nn.Module,  # maps (B, C, *patch) to logits (B, K, *patch)
    image: np.ndarray,  # float32 (C, X, Y, Z), a prepared volume
    *,
    patch: Sequence[int],  # window in voxels; a smaller volume is padded with 0, as in training
    dims: int,  # 3, or 2 for all slices across ``slice_axis``
    slice_axis: int,  # of the volume; not used when ``dims`` is 3
    overlap: float = 0.5,  # share of a window that its neighbour covers too, 0 ≤ overlap < 1
    mirror_axes: Sequence[int] = (),  # of the patch; axes beyond ``dims`` are left out
    batch_size: int = 1,  # windows at a time; activations, hence memory, grow with it
    device: torch.device | str = "cpu",  # where the network is
    precision_context: Callable[[], AbstractContextManager[Any]] = nullcontext,  # of a forward pass, such as autocast
) -> torch.Tensor:
    """Logits float32 (K, X, Y, Z), on the CPU, of a prepared volume.

    Windows are weighted by a Gaussian and, if wanted, averaged over all mirrored copies, window by window, so only one
    such tensor is held. Mirror only along axes that training mirrored: a network fails on what it never saw.

    Source: Isensee et al., nnU-Net, Nature Methods 2021 (Gaussian weights, half-overlapping windows, mirroring).
    """
    whole = torch.from_numpy(np.array(image, np.float32))
    inputs = whole[None] if dims == 3 else whole.movedim(slice_axis + 1, 0)
    axes = [axis + 2 for axis in mirror_axes if axis < dims]
    flips = [some for count in range(1, len(axes) + 1) for some in combinations(axes, count)]

    def predictor(windows: torch.Tensor) -> torch.Tensor:
        with precision_context():
            total: torch.Tensor = network(windows).float()
            for some in flips:
                total += network(windows.flip(some)).float().flip(some)
        return total / (1 + len(flips))

    with eval_mode(network):
        logits = sliding_window_inference(
            inputs,
            roi_size=tuple(patch),
            sw_batch_size=batch_size,
            predictor=predictor,
            overlap=overlap,
            mode="gaussian",
            sw_device=device,
            device=device if whole[0].numel() <= ON_DEVICE_VOXELS else "cpu",
        )
    assert isinstance(logits, torch.Tensor)  # as the predictor gives
    return logits[0].cpu() if dims == 3 else logits.movedim(0, slice_axis + 1).cpu()


def over_shifts(predict: Callable[[np.ndarray], torch.Tensor], image: np.ndarray, axes: Sequence[int]) -> torch.Tensor:
    """Log of the class probabilities, averaged over the volume shifted by 0 and 1 voxel along each of ``axes``.

    A network that halves its maps answers slightly differently when its grid is shifted by one voxel; the mean of the
    2^n answers is better than each. ``predict`` takes an image float32 (C, X, Y, Z) to logits of its own size, and so
    does this; ``axes`` are of the volume, 0 to 2.

    Source: of the effect, Zhang, Making Convolutional Networks Shift-Invariant Again, ICML 2019.
    """
    total = torch.zeros(())
    for moved in product((0, 1), repeat=len(axes)):
        by = [dict(zip(axes, moved, strict=True)).get(axis, 0) for axis in range(3)]
        logits = predict(np.pad(image, [(0, 0), *((n, 0) for n in by)]))
        total = total + logits[:, by[0] :, by[1] :, by[2] :].softmax(0)
    probabilities: torch.Tensor = total / 2 ** len(axes)
    return probabilities.clamp_min(1e-30).log()
