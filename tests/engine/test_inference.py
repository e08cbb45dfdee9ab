from contextlib import contextmanager
from itertools import chain, combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from seg.engine.inference import over_shifts, predict_case


class Pointwise(nn.Module):
    """Logits of a voxel from that voxel alone: what the whole volume should give is then known exactly."""

    def __init__(self, dims, channels=2, classes=3):
        super().__init__()
        torch.manual_seed(0)
        self.layer = (nn.Conv2d if dims == 2 else nn.Conv3d)(channels, classes, 1)
        self.dropout = nn.Dropout(0.9)
        self.calls = []

    def forward(self, x):
        self.calls.append(tuple(x.shape))
        return self.dropout(self.layer(x))


def volume(shape, channels=2):
    return np.random.default_rng(0).normal(size=(channels, *shape)).astype(np.float32)


def expected(network, image):
    weight, bias = network.layer.weight.detach().flatten(1), network.layer.bias.detach()
    return torch.einsum("kc,cxyz->kxyz", weight, torch.from_numpy(image)) + bias[:, None, None, None]


@settings(max_examples=15, deadline=None)
@given(shape=st.tuples(*[st.integers(3, 40)] * 3), overlap=st.sampled_from([0.0, 0.25, 0.5]), batch=st.integers(1, 5))
def test_windows_make_up_the_volume(shape, overlap, batch):
    network, image = Pointwise(3), volume(shape)
    logits = predict_case(network, image, patch=(16, 12, 20), dims=3, slice_axis=2, overlap=overlap, batch_size=batch)
    assert logits.shape == (3, *shape)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, expected(network, image), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("slice_axis", [0, 1, 2])
def test_slices_make_up_the_volume(slice_axis):
    network, image = Pointwise(2), volume((11, 30, 17))
    logits = predict_case(network, image, patch=(16, 16), dims=2, slice_axis=slice_axis, batch_size=8)
    torch.testing.assert_close(logits, expected(network, image), rtol=1e-4, atol=1e-5)


def test_slices_keep_their_axes_in_order():
    class Row(nn.Module):
        def forward(self, x):
            return torch.arange(16.0)[None, None, :, None].expand(len(x), 1, 16, 16)

    logits = predict_case(Row(), volume((16, 4, 16)), patch=(16, 16), dims=2, slice_axis=1, batch_size=4)
    torch.testing.assert_close(logits[0], torch.arange(16.0)[:, None, None].expand(16, 4, 16))


def test_a_volume_that_fits_one_window_takes_one_call():
    network = Pointwise(3)
    predict_case(network, volume((10, 11, 16)), patch=(16, 16, 16), dims=3, slice_axis=2, batch_size=4)
    assert network.calls == [(1, 2, 16, 16, 16)]


@pytest.mark.parametrize("axes", [(), (1,), (0, 2), (0, 1, 2)])
def test_mirrored_copies_are_averaged(axes):
    torch.manual_seed(0)
    network = nn.Conv3d(1, 2, 3, padding=1)
    image = volume((16, 16, 16), channels=1)
    logits = predict_case(network, image, patch=(16, 16, 16), dims=3, slice_axis=2, mirror_axes=axes)
    flips = chain.from_iterable(combinations([axis + 2 for axis in axes], n) for n in range(len(axes) + 1))
    x = torch.from_numpy(image)[None]
    with torch.no_grad():
        mean = torch.stack([network(x.flip(flip)).flip(flip) for flip in flips]).mean(0)[0]
    torch.testing.assert_close(logits, mean, rtol=1e-4, atol=1e-5)


def test_axes_that_slices_lack_are_not_mirrored():
    network = Pointwise(2)
    predict_case(network, volume((8, 8, 4)), patch=(8, 8), dims=2, slice_axis=2, mirror_axes=(0, 1, 2), batch_size=4)
    assert len(network.calls) == 4


@pytest.mark.parametrize("training", [True, False])
def test_the_networks_mode_is_put_back_even_after_an_error(training):
    network = Pointwise(3).train(training)
    modes = []
    network.register_forward_hook(lambda module, *_: modes.append(module.dropout.training))
    predict_case(network, volume((8, 8, 8)), patch=(8, 8, 8), dims=3, slice_axis=2)
    assert modes == [False]
    with pytest.raises(RuntimeError):
        predict_case(network, volume((8, 8, 8), channels=5), patch=(8, 8, 8), dims=3, slice_axis=2)
    assert network.training == network.dropout.training == training


def test_runs_under_the_precision_and_without_gradients():
    entered = []

    @contextmanager
    def context():
        entered.append(torch.is_grad_enabled())
        with torch.autocast("cpu", torch.bfloat16):
            yield

    network, image = Pointwise(3), volume((8, 8, 8))
    logits = predict_case(network, image, patch=(8, 8, 8), dims=3, slice_axis=2, precision_context=context)
    assert entered == [False]
    assert logits.dtype == torch.float32
    difference = (logits - expected(network, image)).abs().max()
    assert 1e-4 < difference < 5e-2


def test_takes_read_only_memory_maps(tmp_path):
    np.save(tmp_path / "image.npy", volume((8, 8, 8)))
    image = np.load(tmp_path / "image.npy", mmap_mode="r")
    assert predict_case(Pointwise(3), image, patch=(8, 8, 8), dims=3, slice_axis=2).shape == (3, 8, 8, 8)


@pytest.mark.gpu
def test_gpu_agrees_with_cpu():
    network, image = Pointwise(3), volume((40, 30, 20))
    options = {"patch": (16, 16, 16), "dims": 3, "slice_axis": 2, "mirror_axes": (0,), "batch_size": 3}
    on_cpu = predict_case(network, image, **options)
    on_gpu = predict_case(network.to("cuda"), image, **options, device="cuda")
    assert on_gpu.device.type == "cpu"
    torch.testing.assert_close(on_gpu, on_cpu, rtol=1e-3, atol=1e-4)


def test_over_shifts_is_the_mean_of_the_probabilities_of_moved_volumes():
    """By hand: a predictor that answers by the place in its own grid, as a strided network does."""

    def predict(image):
        x, y, _ = np.indices(image.shape[1:])
        odd = torch.from_numpy((x + y) % 2).float()
        return torch.stack([torch.zeros_like(odd), odd + torch.from_numpy(image[0])])

    image = np.random.default_rng(0).normal(size=(1, 4, 5, 3)).astype(np.float32)
    logits = over_shifts(predict, image, (0, 1))
    value = torch.from_numpy(image[0])
    expected = (value.sigmoid() + (value + 1).sigmoid()) / 2  # two of the four grids see each voxel as odd
    torch.testing.assert_close(logits.exp()[1], expected)
    torch.testing.assert_close(logits.exp().sum(0), torch.ones(4, 5, 3))
    torch.testing.assert_close(over_shifts(predict, image, ()).softmax(0), predict(image).softmax(0))
