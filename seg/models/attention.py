"""Attention blocks ``f(channels, dims, …)``: features (B, C, *S) in, the same shape out, reweighted.

Each costs next to nothing beside a 3×3×3 convolution, which has 27·C² weights; the docstrings give the exact counts.
``dims`` is 2 or 3; ``reduction`` makes the hidden width h = C / reduction, at least 4, of a gate per channel.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SE(nn.Module):
    """Squeeze and excitation: a gate per channel from the mean of each channel, and from its maximum if wanted.

    Parameters: 2·C·h + h + C. Source: Hu et al., Squeeze-and-excitation networks, CVPR 2018, eq. 2–4.
    """

    def __init__(
        self, channels: int, dims: int, *, reduction: int = 16, maxima: bool = False, limit: float = 1.0
    ) -> None:
        super().__init__()
        hidden = max(4, channels // reduction)
        self.weigh = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, channels))
        self.maxima, self.limit = maxima, limit

    def forward(self, x: Tensor) -> Tensor:
        """``x``, reweighted."""
        voxels = x.flatten(2)
        weight = self.weigh(voxels.mean(2))
        if self.maxima:
            weight = weight + self.weigh(voxels.amax(2))
        return _gated(x, weight, self.limit)


class SCSE(nn.Module):
    """Concurrent spatial and channel squeeze and excitation: a gate per channel plus a gate per voxel, added.

    Parameters: those of ``SE`` plus C + 1; the paper found a reduction of 2 best.
    Source: Roy et al., Concurrent spatial and channel squeeze & excitation, MICCAI 2018, section 2.3.
    """

    def __init__(self, channels: int, dims: int, *, reduction: int = 2) -> None:
        super().__init__()
        self.channel = SE(channels, dims, reduction=reduction)
        self.voxel = (nn.Conv3d if dims == 3 else nn.Conv2d)(channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``x``, reweighted."""
        by_channel: Tensor = self.channel(x)
        by_voxel: Tensor = self.voxel(x).sigmoid()
        return by_channel + x * by_voxel


class CBAM(nn.Sequential):
    """Convolutional block attention: a gate per channel, then a gate per voxel, each from means and maxima.

    The spatial gate, whose kernel is odd, normalises its map before the sigmoid, as the authors' code does: means and
    maxima hardly fall below 0, so that without it a few steps shut the gate for good. Here the map is normalised by
    itself, not over the batch, so that batches of any size give equal results. Biases, and the scale of the map, begin
    at 0 as there, or else a U-Net may learn nothing in its first hundreds of steps.

    Each gate is ``limit`` times a sigmoid. With 1, as published, features are quartered at first. The paper puts the
    block into residual branches, where this does no harm; behind each block of a U-Net, 2 leaves them as they are.

    Parameters: those of ``SE``, plus 2·kernel_size^dims + 2. Source: Woo et al., CBAM: convolutional block attention
    module, ECCV 2018, eq. 1–3.
    """

    def __init__(
        self, channels: int, dims: int, *, reduction: int = 16, kernel_size: int = 7, limit: float = 1.0
    ) -> None:
        by_channel = SE(channels, dims, reduction=reduction, maxima=True, limit=limit)
        for name, weight in by_channel.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(weight)
        super().__init__(by_channel, _SpatialGate(dims, kernel_size, limit))


class ECA(nn.Module):
    """Efficient channel attention: a gate per channel from the means of its neighbours in channel order.

    Parameters: k, the odd number nearest above (log2 C + offset) / gamma: 3 for 32 channels, 5 for 256; ``offset`` is
    b in the paper. Source: Wang et al., ECA-Net, CVPR 2020, eq. 9 and 12.
    """

    def __init__(self, channels: int, dims: int, *, gamma: float = 2.0, offset: float = 1.0) -> None:
        super().__init__()
        size = int((math.log2(channels) + offset) / gamma)
        size += size % 2 == 0
        self.weigh = nn.Conv1d(1, 1, size, padding=size // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``x``, reweighted."""
        return _gated(x, self.weigh(x.flatten(2).mean(2)[:, None])[:, 0])


class _SpatialGate(nn.Module):
    def __init__(self, dims: int, kernel_size: int, limit: float) -> None:
        super().__init__()
        convolution = nn.Conv3d if dims == 3 else nn.Conv2d
        self.weigh = convolution(2, 1, kernel_size, padding=kernel_size // 2, bias=False)
        self.scale, self.shift = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
        self.limit = limit

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.weigh.weight
        device = "cpu" if x.is_meta else x.device.type
        with torch.autocast(device, enabled=False):  # few values, and sums of hundreds of them
            maps = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1).to(kernel.dtype)
            weight = _by_planes(maps, kernel) if kernel.ndim == 5 else self.weigh(maps)
            weight = F.layer_norm(weight, weight.shape[1:]) * self.scale + self.shift
        return x * (self.limit * weight.sigmoid()).to(x.dtype)


def _by_planes(x: Tensor, kernel: Tensor) -> Tensor:
    """``conv3d`` to one channel, as planes that are then added: on a CPU four times as fast as PyTorch's own."""
    size, depth = kernel.shape[2], x.shape[2]
    planes = F.conv2d(x.transpose(1, 2).flatten(0, 1), kernel[0].transpose(0, 1), padding=size // 2)
    planes = F.pad(planes.reshape(-1, depth, *planes.shape[1:]), (0, 0, 0, 0, 0, 0, size // 2, size // 2))
    return torch.stack([planes[:, k : k + depth, k] for k in range(size)]).sum(0)[:, None]


def _gated(x: Tensor, weight: Tensor, limit: float = 1.0) -> Tensor:
    """``x`` (B, C, *S) times ``limit`` times the sigmoid of ``weight`` (B, C)."""
    return x * (limit * weight.sigmoid()).reshape(*weight.shape, *[1] * (x.ndim - 2))
