"""Networks on thick slices: strides per axis, and kernels that leave far slices apart."""

import pytest
import torch
from monai.networks.nets import BasicUNetPlusPlus, SegResNet
from options import load, names, small_network
from torch import nn

from seg import models
from seg.data.topology import flat_axes
from seg.models.thick import narrow_kernels, restride

STRIDED = [name for name in names("model") if isinstance(load("model", name).get("strides"), list)]
PATCH, SPACING_MM = (32, 32, 6), (1.0, 1.0, 5.0)


@pytest.mark.parametrize("name", [*STRIDED, "dynunet"])
def test_every_convolutional_network_takes_strides_per_axis(name):
    steps = [(2, 2, 1), (2, 2, 1), (2, 2, 2), (1, 1, 1)][: len(load("model", name)["strides"])]
    network = small_network(name, 3, strides=[(1, 1, 1), *steps[:3]] if name == "dynunet" else steps)
    assert network.multiple == (8, 8, 2)
    logits = network.eval()(torch.randn(1, 2, *PATCH))
    assert logits.shape == (1, 3, *PATCH)


def same_logits(make, other):
    """Of two networks that begin with one seed."""
    logits, image = [], torch.randn(1, 2, 64, 64)
    for one in (make, other):
        torch.manual_seed(0)
        found = one().eval()(image)
        logits.append(found[0] if isinstance(found, list) else found)
    return torch.equal(*logits)


def test_strides_of_two_leave_monais_networks_as_they_are():
    groups, channels = ("group", {"num_groups": 8}), (4, 8, 8, 8, 8, 4)
    assert same_logits(
        lambda: models.segresnet(2, 3, 2, width=8, blocks_down=[1, 2, 1], blocks_up=[1, 1], strides=[2, 2]),
        lambda: SegResNet(2, 8, 2, 3, norm=groups, blocks_down=(1, 2, 1), blocks_up=(1, 1)),
    )
    assert same_logits(
        lambda: models.unetpp(2, 3, 2, channels=channels),
        lambda: BasicUNetPlusPlus(
            2, 2, 3, channels, norm=("instance", {"affine": True}), act=("leakyrelu", {"negative_slope": 0.01})
        ),
    )


@pytest.mark.parametrize("kernel", [2, 3])
def test_what_comes_out_of_a_narrowed_transposed_convolution_is_as_large_as_before(kernel):
    torch.manual_seed(0)
    layer = nn.ConvTranspose3d(16, 16, kernel, stride=2, padding=(kernel - 1) // 2, bias=False)
    image = torch.randn(1, 16, 12, 12, 12)
    before = layer(image).std().item()
    restride(layer, (2, 2, 1))
    assert layer(image).std().item() == pytest.approx(before, rel=0.1)


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
