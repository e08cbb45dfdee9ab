"""Convolutions on the smallest maps: the same values and gradients as PyTorch's, and the same each time."""

import pytest
import torch
from torch import nn

from seg.models import unet
from seg.models.contract import SmallMapConv3d, pad_small_maps


def small_map(kernel: int, size: tuple[int, int, int]) -> tuple[nn.Sequential, torch.Tensor]:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv3d(16, 16, kernel, padding=kernel // 2))
    pad_small_maps(network)
    return network, torch.randn(2, 16, *size)


def test_every_convolution_of_a_network_is_guarded() -> None:
    network = unet(1, 2, 3, channels=[8, 16], strides=[2])
    assert all(type(m) is not nn.Conv3d for m in network.modules())


@pytest.mark.parametrize(("kernel", "size"), [(3, (2, 4, 4)), (5, (3, 4, 4)), (7, (4, 4, 4)), (3, (4, 2, 2))])
def test_the_weight_gradient_of_a_small_map_in_bf16_is_right_and_repeats_itself(
    kernel: int, size: tuple[int, int, int]
) -> None:
    network, image = small_map(kernel, size)
    (network(image) ** 2).sum().backward()
    exact = network[0].weight.grad.clone()
    seen = []
    for _ in range(10):
        # What a freed block of memory holds is what the faulty gradient would read.
        blocks = [torch.full((torch.randint(1_000, 400_000, (1,)).item(),), float("nan")) for _ in range(4)]
        del blocks
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            output = network(image)
        (output.float() ** 2).sum().backward()
        seen.append(network[0].weight.grad.clone())
    assert all(torch.equal(seen[0], other) for other in seen)
    assert (seen[0] - exact).norm() < 0.05 * exact.norm()


def test_without_autocast_it_is_pytorchs_own_convolution() -> None:
    network, image = small_map(3, (2, 4, 4))
    plain = nn.Conv3d(16, 16, 3, padding=1)
    plain.load_state_dict(network[0].state_dict())
    assert isinstance(network[0], SmallMapConv3d)
    assert torch.equal(network(image), plain(image))
