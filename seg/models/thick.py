"""Networks for thick slices: layers that scale along some axes only, and kernels one wide across slices far apart."""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from seg.models.contract import Network, traced

Flat = Callable[[Sequence[int], bool], Sequence[int]]
_CONVOLUTIONS = (nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose2d, nn.ConvTranspose3d)
_POOLINGS = (nn.MaxPool2d, nn.MaxPool3d)


def restride(module: nn.Module, stride: Sequence[int]) -> None:
    """Gives ``stride``, one number per axis, to each layer inside ``module`` that scales."""
    layer: Any
    for layer in module.modules():
        if isinstance(layer, _POOLINGS):
            for name in ("kernel_size", "stride"):
                setattr(layer, name, tuple(stride))
        elif isinstance(layer, nn.Upsample):
            layer.scale_factor = tuple(map(float, stride))
        elif isinstance(layer, _TRANSPOSED):
            _narrow(layer, [axis for axis, by in enumerate(stride) if by == 1])
            layer.stride = tuple(stride)
        elif isinstance(layer, _CONVOLUTIONS) and max(layer.stride) > 1:
            layer.stride = tuple(stride)


def narrow_kernels(network: Network, patch: Sequence[int], flat: Flat) -> None:
    """Makes each convolution 1 wide along the axes that ``flat`` names, in place, before weights are loaded.

    Args:
        network: without attention blocks.
        patch: a size it can take, voxels.
        flat: of the size of the map that a convolution makes, and whether it is the coarsest, the axes along which it
            is not convolved. One that scales along such an axis stays as it is there.
    """
    layers = [layer for layer in network.modules() if isinstance(layer, _CONVOLUTIONS + _TRANSPOSED)]
    grids: dict[Any, set[tuple[int, ...]]] = defaultdict(set)
    for layer, output in traced(network, patch, layers)[0]:
        grids[layer].add(tuple(output.shape[2:]))
    coarsest = min(map(math.prod, {size for sizes in grids.values() for size in sizes}), default=0)
    for convolution, sizes in grids.items():
        axes = [{*flat(size, math.prod(size) == coarsest)} for size in sizes]
        _narrow(convolution, [axis for axis in set.intersection(*axes) if convolution.stride[axis] == 1])


def _narrow(layer: Any, axes: Sequence[int]) -> None:
    """Leaves the middle of the kernel along ``axes``, scaled so that what comes out is as large as before."""
    for axis in axes:
        width = layer.kernel_size[axis]
        taps = width / layer.stride[axis]  # a voxel made by a transposed convolution sees no more of its kernel
        kept = layer.weight.data.narrow(2 + axis, (width - 1) // 2, 1) * math.sqrt(taps)
        layer.weight = nn.Parameter(kept.contiguous())
        for name, value in (("kernel_size", 1), ("padding", 0), ("output_padding", 0), ("dilation", 1)):
            now = list(getattr(layer, name))
            now[axis] = value
            setattr(layer, name, tuple(now))
