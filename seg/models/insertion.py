"""Puts an attention block into any network, by configuration and without a second copy of the network."""

import math
from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor, nn

from seg.errors import ConfigError
from seg.models.contract import Network, right_small_maps, traced

PLACES = ("encoder", "decoder", "bottleneck", "all")


class Attended(nn.Sequential):
    """A feature block, then an attention block."""

    def forward(self, *inputs: Tensor) -> Tensor:
        """Takes what the feature block takes: one tensor, or the skip's too."""
        block, attention = self
        out: Tensor = attention(block(*inputs))
        return out


class _Place(NamedTuple):
    block: nn.Module
    channels: int
    part: str  # encoder | bottleneck | decoder


def insert_attention(network: Network, block: Callable[[int, int], nn.Module], where: str = "all") -> Network:
    """Puts a ``block(channels, dims)`` behind each feature block of ``network``, in place, before weights are loaded.

    Which part a feature block belongs to is read off one forward pass without data: the bottleneck works on the
    coarsest grid; the encoder is what runs before any block on a coarser grid has run; all else is decoder (the nested
    nodes of a U-Net++ too). A block whose output is the logits themselves gets no attention.

    Raises:
        ConfigError: ``where`` is none of these, or the network has no such block.
    """
    if where not in PLACES:
        raise ConfigError(f"attention.where is {where!r}; it must be one of {', '.join(PLACES)}.")
    chosen = [place for place in _places(network) if where in (place.part, "all")]
    if not chosen:
        raise ConfigError(f"attention.where={where}: this network has no such block. Choose another place.")
    parents = list(network.modules())
    for place in chosen:
        attended = Attended(place.block, block(place.channels, network.dims))
        for parent in parents:  # all of them: DynUNet knows each block under two names
            for name, child in list(parent.named_children()):
                if child is place.block:
                    setattr(parent, name, attended)
    right_small_maps(network)
    return network


def _places(network: Network) -> list[_Place]:
    """The feature blocks in the order they run, each with its channels and its part of the network."""
    outputs, logits = traced(network, [2 * size for size in network.multiple], network.blocks)
    calls = [(block, output.shape) for block, output in outputs if output is not logits]
    grids = [math.prod(shape[2:]) for _, shape in calls]
    places = []
    for n, (block, shape) in enumerate(calls):
        part = "bottleneck" if grids[n] == min(grids) else "encoder" if grids[n] == min(grids[: n + 1]) else "decoder"
        places.append(_Place(block, shape[1], part))
    return places
