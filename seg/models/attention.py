"""Attention blocks ``f(channels, dims, …) -> nn.Module``: features (B, C, *S) in, the same shape out, reweighted.

Each costs next to nothing beside a 3×3×3 convolution, which has 27·C² weights; the docstrings give the exact counts.
"""

import math

import torch
from torch import Tensor, nn


def se(channels: int, dims: int, *, reduction: int = 16) -> nn.Module:
    """Squeeze and excitation: a gate per channel from the mean of each channel.

    Parameters: 2·C·h + h + C, with h the hidden width.

    Args:
        channels: C.
        dims: 2 or 3; the block is the same for both.
        reduction: h = C / reduction, at least 4.

    Source: Hu et al., Squeeze-and-excitation networks, CVPR 2018, eq. 2–4.
    """
    del dims
    return _ChannelGate(channels, reduction)


def scse(channels: int, dims: int, *, reduction: int = 2) -> nn.Module:
    """Concurrent spatial and channel squeeze and excitation: a gate per channel plus a gate per voxel, added.

    Parameters: those of ``se`` plus C + 1.

    Args:
        channels: C.
        dims: 2 or 3.
        reduction: of the channel gate's hidden width, at least 4 wide; the paper found 2 best.

    Source: Roy et al., Concurrent spatial and channel squeeze & excitation, MICCAI 2018, section 2.3.
    """
    return _ConcurrentGate(channels, dims, reduction)


def cbam(channels: int, dims: int, *, reduction: int = 16, kernel_size: int = 7) -> nn.Module:
    """Convolutional block attention: a gate per channel, then a gate per voxel, each from means and maxima.

    The spatial gate has no normalisation, unlike the authors' code, so that batches of any size give equal results.
    Parameters: 2·C·h + h + C, plus 2·kernel_size^dims.

    Args:
        channels: C.
        dims: 2 or 3.
        reduction: h = C / reduction, at least 4.
        kernel_size: of the spatial gate, odd.

    Source: Woo et al., CBAM: convolutional block attention module, ECCV 2018, eq. 1–3.
    """
    return nn.Sequential(_ChannelGate(channels, reduction, maxima=True), _SpatialGate(dims, kernel_size))


def eca(channels: int, dims: int, *, gamma: float = 2.0, offset: float = 1.0) -> nn.Module:
    """Efficient channel attention: a gate per channel from the means of its neighbours in channel order.

    Parameters: k, the odd number nearest above (log2 C + offset) / gamma: 3 for 32 channels, 5 for 256.

    Args:
        channels: C.
        dims: 2 or 3; the block is the same for both.
        gamma: larger: fewer neighbours.
        offset: b in the paper.

    Source: Wang et al., ECA-Net, CVPR 2020, eq. 9 and 12.
    """
    del dims
    return _NeighbourGate(channels, gamma, offset)


class _ChannelGate(nn.Module):
    def __init__(self, channels: int, reduction: int, *, maxima: bool = False) -> None:
        super().__init__()
        hidden = max(4, channels // reduction)
        self.weigh = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, channels))
        self.maxima = maxima

    def forward(self, x: Tensor) -> Tensor:
        voxels = x.flatten(2)
        weight = self.weigh(voxels.mean(2))
        if self.maxima:
            weight = weight + self.weigh(voxels.amax(2))
        return x * _to_rank(weight.sigmoid(), x)


class _SpatialGate(nn.Module):
    def __init__(self, dims: int, kernel_size: int) -> None:
        super().__init__()
        convolution = nn.Conv3d if dims == 3 else nn.Conv2d
        self.weigh = convolution(2, 1, kernel_size, padding=kernel_size // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        weight: Tensor = self.weigh(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1))
        return x * weight.sigmoid()


class _ConcurrentGate(nn.Module):
    def __init__(self, channels: int, dims: int, reduction: int) -> None:
        super().__init__()
        self.channel = _ChannelGate(channels, reduction)
        self.voxel = (nn.Conv3d if dims == 3 else nn.Conv2d)(channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        by_channel: Tensor = self.channel(x)
        by_voxel: Tensor = self.voxel(x).sigmoid()
        return by_channel + x * by_voxel


class _NeighbourGate(nn.Module):
    def __init__(self, channels: int, gamma: float, offset: float) -> None:
        super().__init__()
        size = int((math.log2(channels) + offset) / gamma)
        size += size % 2 == 0
        self.weigh = nn.Conv1d(1, 1, size, padding=size // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        weight: Tensor = self.weigh(x.flatten(2).mean(2)[:, None])[:, 0]
        return x * _to_rank(weight.sigmoid(), x)


def _to_rank(weight: Tensor, x: Tensor) -> Tensor:
    return weight.reshape(*weight.shape, *[1] * (x.ndim - 2))
