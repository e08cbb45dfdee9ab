"""What every network of this package promises."""

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seg.errors import ConfigError, times


class Network(nn.Module):
    """A segmentation network: image (B, C, *S) → logits (B, K, *S), with S of ``dims`` axes.

    In training mode a network with deep supervision gives a list of logits, full resolution first, the others on
    the same or a coarser grid. In evaluation mode every network gives one tensor.

    Attributes:
        multiple: what the image size must be divisible by, per axis.
        blocks: the modules inside ``body`` that make features, after which an attention block may stand.
    """

    def __init__(
        self, body: nn.Module, blocks: Iterable[nn.Module], *, in_channels: int, dims: int, multiple: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.body = body
        self.blocks = tuple(blocks)
        self.in_channels = in_channels
        self.dims = dims
        self.multiple = multiple
        pad_small_maps(self)

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        """Logits of ``image``.

        Raises:
            ConfigError: the network cannot take an image of this size.
        """
        size = tuple(image.shape[2:])
        fits = len(size) == self.dims and not any(n % by for n, by in zip(size, self.multiple, strict=True))
        # Instance normalisation needs more than one voxel, so the coarsest grid does.
        if not fits or math.prod(size) < 2 * math.prod(self.multiple):
            raise ConfigError(
                f"This network was given an image of {times(size)}. It takes {self.dims} axes whose sizes are "
                f"multiples of {times(self.multiple)}, and at least two such units in all. Set data.patch accordingly."
            )
        logits: Tensor | list[Tensor] = self.body(image)
        return logits


class SmallMapConv3d(nn.Conv3d):
    """A convolution that pads a map smaller than its kernel by itself, on a CPU in bf16.

    There the weight gradient of PyTorch 2.13 (oneDNN) reads memory it was not given where the first axis of the map
    is longer than 1 and shorter than the kernel: it differs from run to run and may be NaN. Padded beforehand it is
    right (tests/models/test_contract.py).
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  the name PyTorch gives it
        """As ``nn.Conv3d``."""
        small = 1 < input.shape[2] < self.kernel_size[0] and input.device.type == "cpu"
        if not (small and torch.is_autocast_enabled("cpu") and self.padding_mode == "zeros"):
            return super().forward(input)
        padded = F.pad(input, self._reversed_padding_repeated_twice)
        return F.conv3d(padded, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


def pad_small_maps(network: nn.Module) -> None:
    """Turns every ``nn.Conv3d`` of ``network`` into a ``SmallMapConv3d``; weights and names stay."""
    for module in network.modules():
        if type(module) is nn.Conv3d:
            module.__class__ = SmallMapConv3d


def parameter_count(network: nn.Module) -> int:
    """Number of trainable values."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)
