"""The contract that every network of this package keeps."""

import copy
import math
import operator
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from seg.errors import ConfigError, times


class Network(nn.Module):
    """A segmentation network: image (B, C, *S) → logits (B, K, *S), with S of ``dims`` axes.

    In training mode a network with deep supervision gives a list of logits, full resolution first, the others on
    the same or a coarser grid. In evaluation mode every network gives one tensor.

    Attributes:
        multiple: what the image size must be divisible by, per axis.
        blocks: the modules inside ``body`` that compute features, after which an attention block may be inserted.
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
        right_small_maps(self)

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
                f"multiples of {times(self.multiple)}, and at least two such blocks in all. Set data.patch accordingly."
            )
        logits: Tensor | list[Tensor] = self.body(image)
        return logits


class SmallMaps(nn.Module):
    """Mixed into a convolution: on a CPU in bfloat16 it computes the smallest maps in float32.

    There PyTorch 2.13 (oneDNN) reads memory that it was not given: in the weight gradient, where a map is smaller than
    the kernel; in result and gradient, where a stride leaves a map one voxel wide (pytorch issue 169688). What comes
    out differs from run to run and may be NaN. tests/models/test_contract.py compares every such map with float32.
    """

    def forward(self, input: Tensor, *more: Any, **named: Any) -> Tensor:  # noqa: A002  the name PyTorch gives it
        """As the convolution's own."""
        kernel: tuple[int, ...] = self.kernel_size  # type: ignore[assignment]
        strided = self.stride[-1] > 1  # type: ignore[index]
        small = any(map(operator.lt, input.shape[2:], kernel)) or (strided and input.shape[-1] < 2 * kernel[-1])
        wrong = small and input.device.type == "cpu" and torch.is_autocast_enabled("cpu")
        with torch.autocast("cpu", enabled=False) if wrong else nullcontext():
            result: Tensor = super().forward(input.float() if wrong else input, *more, **named)
        return result


_RIGHT: dict[type[nn.Module], type[nn.Module]] = {
    kind: type(f"SmallMap{kind.__name__}", (SmallMaps, kind), {})
    for kind in (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)
}
globals().update({kind.__name__: kind for kind in _RIGHT.values()})  # where pickle looks for them


def right_small_maps(network: nn.Module) -> None:
    """Gives every convolution of ``network`` the class above that is right for the smallest maps; weights stay."""
    for module in network.modules():
        module.__class__ = _RIGHT.get(type(module), type(module))


def parameter_count(network: nn.Module) -> int:
    """Number of trainable values."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def traced(
    network: Network, size: Sequence[int], modules: Iterable[nn.Module]
) -> tuple[list[tuple[nn.Module, Tensor]], Tensor]:
    """What ``modules`` of ``network`` make of an image of ``size``, in the order they run, and the logits.

    Computed on shapes alone: the tensors hold nothing.
    """
    probe, wanted = copy.deepcopy(network).to("meta").eval(), {*modules}
    outputs: list[tuple[nn.Module, Tensor]] = []
    for module, twin in zip(network.modules(), probe.modules(), strict=True):
        if module in wanted:
            twin.register_forward_hook(lambda _twin, _inputs, output, module=module: outputs.append((module, output)))
    with torch.no_grad():
        logits: Tensor = probe(torch.empty(1, network.in_channels, *size, device="meta"))
    return outputs, logits
