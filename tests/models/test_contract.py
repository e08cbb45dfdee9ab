"""Convolutions on the smallest maps: the same values and gradients as PyTorch's, and the same each time."""

from itertools import product

import pytest
import torch
from torch import nn

from seg.models import unet
from seg.models.contract import right_small_maps

KINDS = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)
SIZES = [(2, 4, 4), (4, 2, 2), (8, 8, 2), (8, 8, 1), (1, 8, 8), (8, 2, 2), (4, 4, 3), (2, 2, 2)]
STRIDES = [(1, 1, 1), (2, 2, 2), (1, 1, 2), (2, 2, 1)]


def _result_and_gradients(layer: nn.Module, image: torch.Tensor, autocast: bool) -> list[torch.Tensor]:
    # What a freed block of memory holds is what the faulty kernels would read.
    blocks = [torch.full((4**n,), float("nan"), dtype=kind) for n in range(3, 10) for kind in (torch.bfloat16, None)]
    del blocks
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        result = layer(image)
    return [result.float(), *torch.autograd.grad(result.float().square().sum(), [image, layer.weight])]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("kernel", "padding"), [(1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (5, 2), (7, 3)])
def test_the_smallest_maps_are_right_in_bf16(kind: type[nn.Module], kernel: int, padding: int) -> None:
    torch.manual_seed(0)
    dims = 2 if kind in (nn.Conv2d, nn.ConvTranspose2d) else 3
    tried = 0
    for size, stride in product(SIZES, STRIDES):
        layer = nn.Sequential(kind(4, 8, kernel, padding=padding, stride=stride[-dims:]))
        right_small_maps(layer)
        image = torch.randn(2, 4, *size[-dims:], requires_grad=True)
        try:
            exact = _result_and_gradients(layer[0], image, autocast=False)
        except RuntimeError:  # a kernel larger than the map
            continue
        for seen, wanted in zip(_result_and_gradients(layer[0], image, autocast=True), exact, strict=True):
            assert (seen - wanted).norm() < 0.05 * wanted.norm() + 1e-6, (size, stride)
            tried += 1
    assert tried


def test_every_convolution_of_a_network_is_guarded() -> None:
    network = unet(1, 2, 3, channels=[8, 16], strides=[2])
    assert all(type(m) not in KINDS for m in network.modules())


def test_without_autocast_it_is_pytorchs_own_convolution() -> None:
    plain = nn.Conv3d(16, 16, 3, padding=1)
    guarded = nn.Sequential(nn.Conv3d(16, 16, 3, padding=1))
    right_small_maps(guarded)
    guarded[0].load_state_dict(plain.state_dict())
    image = torch.randn(2, 16, 2, 4, 4)
    assert torch.equal(guarded(image), plain(image))
