"""The cost of a network, computed before it runs."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode


def gflops(network: nn.Module, channels: int, patch: Sequence[int]) -> float | None:
    """Floating-point operations of one forward pass, in 10⁹; a multiplication and an addition count as two.

    Counted on shapes alone (PyTorch's ``meta`` device), so nothing is computed. Convolutions and matrix products are
    counted, which are all but a few percent of it.

    Args:
        network: any; it is not changed.
        channels: of the image.
        patch: its size in voxels, one image.

    Returns:
        The count; None where the network cannot be traced on shapes alone.
    """
    shape = (1, channels, *patch)
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            copy.deepcopy(network).to("meta").eval()(torch.empty(shape, device="meta"))
    except (RuntimeError, NotImplementedError):
        return None
    return float(counter.get_total_flops()) / 1e9


def kept_mib(network: nn.Module, channels: int, patch: Sequence[int]) -> float | None:
    """What a forward pass of one image keeps for the backward pass, in float32, beside the weights: MiB.

    Counted on shapes alone, as ``gflops``, whose arguments it takes. What two layers keep in common counts once.
    """
    probe = copy.deepcopy(network).to("meta").train()
    kept: dict[int, torch.UntypedStorage] = {}  # by identity: PyTorch gives one object for one storage while it lives

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[id(storage)] = storage
        return tensor

    try:
        with saved_tensors_hooks(keep, lambda tensor: tensor):
            probe(torch.empty(1, channels, *patch, device="meta"))
    except (RuntimeError, NotImplementedError):
        return None
    for weight in probe.parameters():
        kept.pop(id(weight.untyped_storage()), None)
    return sum(storage.nbytes() for storage in kept.values()) / 2**20
