"""Networks on thick slices: strides per axis, and kernels that leave far slices apart."""

import pytest
import torch
from options import load, names, small_network
from torch import nn

from seg.data.topology import flat_axes
from seg.models.thick import narrow_kernels

STRIDED = [name for name in names("model") if isinstance(load("model", name).get("strides"), list)]
PATCH, SPACING_MM = (32, 32, 6), (1.0, 1.0, 5.0)


@pytest.mark.parametrize("name", [*STRIDED, "dynunet"])
def test_every_convolutional_network_takes_strides_per_axis(name):
    steps = [(2, 2, 1), (2, 2, 1), (2, 2, 2), (1, 1, 1)][: len(load("model", name)["strides"])]
    network = small_network(name, 3, strides=[(1, 1, 1), *steps[:3]] if name == "dynunet" else steps)
    assert network.multiple == (8, 8, 2)
    logits = network.eval()(torch.randn(1, 2, *PATCH))
    assert logits.shape == (1, 3, *PATCH)


def test_strides_of_two_leave_the_network_as_it_is():
    for name in ("unetpp", "segresnet"):
        torch.manual_seed(0)
        one = small_network(name, 2, deep_supervision=False) if name == "unetpp" else small_network(name, 2)
        assert one.multiple == (2 ** len(load("model", name)["strides"]),) * 2


@pytest.mark.parametrize("name", STRIDED)
def test_far_slices_do_not_see_each_other_at_full_resolution(name):
    """A change in one slice reaches another only by the coarse maps, and by them it does."""
    torch.manual_seed(0)
    count = len(load("model", name)["strides"])
    network = small_network(name, 3, strides=[(2, 2, 1), (2, 2, 1), (2, 2, 2), (1, 1, 1)][:count])
    before = sum(weight.numel() for weight in network.parameters())
    narrow_kernels(network, PATCH, lambda grid, last: flat_axes(grid, PATCH, SPACING_MM, last))
    kernels = {layer.kernel_size for layer in network.modules() if isinstance(layer, nn.Conv3d)}
    assert {(3, 3, 1), (3, 3, 3)} <= kernels
    assert sum(weight.numel() for weight in network.parameters()) < before
    image = torch.randn(1, 2, *PATCH, requires_grad=True)
    logits = network.eval()(image)
    assert logits.shape == (1, 3, *PATCH)
    logits[..., 0].square().sum().backward()
    assert image.grad[..., -1].abs().max() > 0


def test_even_voxels_change_nothing():
    network = small_network("unet", 3)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    narrow_kernels(network, (16, 16, 16), lambda grid, last: flat_axes(grid, (16, 16, 16), (1, 1, 1.5), last))
    after = network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_an_image_of_one_slice_is_convolved_within_it():
    network = small_network("unet", 3, strides=[(2, 2, 1)] * 3)
    narrow_kernels(network, (16, 16, 1), lambda grid, last: flat_axes(grid, (16, 16, 1), (1, 1, 9), last))
    assert {layer.kernel_size[2] for layer in network.modules() if isinstance(layer, nn.Conv3d)} == {1}
    assert network(torch.randn(2, 2, 16, 16, 1)).shape == (2, 3, 16, 16, 1)
