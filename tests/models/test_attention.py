"""The attention contract, held by every option of conf/attention, and each block against its formula."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from options import attention_block, names

from seg.models import attention, parameter_count

BLOCKS = [name for name in names("attention") if name != "none"]
EACH = pytest.mark.parametrize("name", BLOCKS)


def _features(channels, dims, batch=3):
    return torch.randn(batch, channels, *(6, 5, 4)[:dims])


@EACH
@settings(max_examples=15, deadline=None)
@given(channels=st.integers(1, 40), dims=st.sampled_from([2, 3]), seed=st.integers(0, 99))
def test_keeps_shape_and_batch_order_and_only_weighs(name, channels, dims, seed):
    torch.manual_seed(seed)
    block, x = attention_block(name)[0](channels, dims), _features(channels, dims)
    y = block(x)
    assert y.shape == x.shape
    torch.testing.assert_close(block(x[[2, 0, 1]]), y[[2, 0, 1]])
    gate = y / x
    assert (gate >= 0).all()
    assert (gate <= {"scse": 2, "cbam": 4}.get(name, 1)).all()


@pytest.mark.parametrize("dims", [2, 3])
def test_cbam_leaves_features_nearly_as_they_are_at_first(dims):
    torch.manual_seed(0)
    x = _features(64, dims)
    assert (attention_block("cbam")[0](64, dims)(x).norm() / x.norm()).item() == pytest.approx(1, abs=0.2)


@EACH
@pytest.mark.parametrize("dims", [2, 3])
def test_every_parameter_learns(name, dims):
    torch.manual_seed(0)
    block = attention_block(name)[0](64, dims)
    with torch.no_grad():
        for p in block.parameters():  # some begin at 0, and let nothing through to those before them
            p += 0.1
    block(_features(64, dims)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in block.parameters())


@pytest.mark.parametrize("dims", [2, 3])
def test_se_formula(dims):
    block, x = attention.SE(32, dims, reduction=4), _features(32, dims)
    w = list(block.parameters())
    mean = x.mean(tuple(range(2, dims + 2)))
    gate = torch.sigmoid(torch.relu(mean @ w[0].T + w[1]) @ w[2].T + w[3])
    torch.testing.assert_close(block(x), torch.einsum("bc...,bc->bc...", x, gate))


@pytest.mark.parametrize("dims", [2, 3])
def test_cbam_formula(dims):
    block, x = attention.CBAM(16, dims, reduction=4, kernel_size=3, limit=2.0), _features(16, dims)
    w = list(block.parameters())
    axes = tuple(range(2, dims + 2))
    shared = [torch.relu(v @ w[0].T + w[1]) @ w[2].T + w[3] for v in (x.mean(axes), x.amax(axes))]
    x1 = torch.einsum("bc...,bc->bc...", x, 2 * torch.sigmoid(shared[0] + shared[1]))
    convolve = F.conv3d if dims == 3 else F.conv2d
    scale, shift, kernel = w[4:]
    with torch.no_grad():
        scale.fill_(1.5)
        shift.fill_(-0.2)
    seen = convolve(torch.stack([x1.mean(1), x1.max(1).values], 1), kernel, padding=1).flatten(1)
    seen = (seen - seen.mean(1, keepdim=True)) / (seen.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
    gate = torch.sigmoid(1.5 * seen - 0.2).reshape(len(x), 1, *x.shape[2:])
    torch.testing.assert_close(block(x), 2 * x1 * gate)


@pytest.mark.parametrize("dims", [2, 3])
def test_cbam_stays_open_whatever_its_kernel_adds_up_to(dims):
    torch.manual_seed(0)
    block, x = attention.CBAM(16, dims), _features(16, dims).abs()
    with torch.no_grad():
        block[1].scale.fill_(1)
    before = block(x)
    with torch.no_grad():
        block[1].weigh.weight -= 1  # a few steps of an optimizer may do this: it is what all positive maps share
    assert block(x).sum() > before.sum() / 4


@pytest.mark.parametrize("size", [1, 3, 7])
def test_a_convolution_by_planes_is_the_convolution(size):
    x, kernel = torch.randn(2, 2, 5, 8, 4).double(), torch.randn(1, 2, size, size, size).double()
    torch.testing.assert_close(attention._by_planes(x, kernel), F.conv3d(x, kernel, padding=size // 2))


@pytest.mark.parametrize("dims", [2, 3])
def test_scse_formula(dims):
    block, x = attention.SCSE(16, dims), _features(16, dims)
    w = list(block.parameters())
    mean = x.mean(tuple(range(2, dims + 2)))
    by_channel = torch.sigmoid(torch.relu(mean @ w[0].T + w[1]) @ w[2].T + w[3])
    by_voxel = torch.sigmoid(torch.einsum("bc...,c->b...", x, w[4].flatten()) + w[5])
    expected = torch.einsum("bc...,bc->bc...", x, by_channel) + x * by_voxel[:, None]
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("dims", [2, 3])
def test_eca_formula(dims):
    block, x = attention.ECA(32, dims), _features(32, dims)
    (w,) = block.parameters()
    mean = F.pad(x.mean(tuple(range(2, dims + 2))), (1, 1))
    gate = torch.sigmoid(sum(w.flatten()[k] * mean[:, k : k + 32] for k in range(3)))
    torch.testing.assert_close(block(x), torch.einsum("bc...,bc->bc...", x, gate))


@pytest.mark.parametrize(("channels", "size"), [(1, 1), (8, 3), (32, 3), (64, 3), (128, 5), (256, 5), (512, 5)])
def test_eca_kernel_grows_with_the_channels(channels, size):
    assert parameter_count(attention.ECA(channels, 3)) == size


@pytest.mark.parametrize(
    ("name", "dims", "count"),
    [
        ("se", 3, 2 * 128 * 8 + 8 + 128),
        ("scse", 3, 2 * 128 * 64 + 64 + 128 + 128 + 1),
        ("cbam", 2, 2 * 128 * 8 + 8 + 128 + 2 * 49 + 2),
        ("cbam", 3, 2 * 128 * 8 + 8 + 128 + 2 * 343 + 2),
        ("eca", 3, 5),
    ],
)
def test_costs_as_many_parameters_as_stated(name, dims, count):
    block = attention_block(name)[0](128, dims)
    assert parameter_count(block) == count
    assert count < 0.05 * 27 * 128**2
