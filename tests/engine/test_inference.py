from contextlib import contextmanager
from itertools import chain, combinations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.inferers import sliding_window_inference
from torch import nn

from seg.data.nifti import from_ras
from seg.data.preprocess import Geometry
from seg.engine import inference
from seg.engine.decision import decide
from seg.engine.inference import Slices, Windows, on_grid, over_shifts, predict_slices


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


def predicted(network, image, axis=None, **windows):
    return predict_slices(network, image, windows=Windows(**windows), axis=axis).whole()


def expected(network, image):
    weight, bias = network.layer.weight.detach().flatten(1), network.layer.bias.detach()
    return torch.einsum("kc,cxyz->kxyz", weight, torch.from_numpy(image)) + bias[:, None, None, None]


@settings(max_examples=15, deadline=None)
@given(shape=st.tuples(*[st.integers(3, 40)] * 3), overlap=st.sampled_from([0.0, 0.25, 0.5]), batch=st.integers(1, 5))
def test_windows_make_up_the_volume(shape, overlap, batch):
    network, image = Pointwise(3), volume(shape)
    slices = predict_slices(network, image, windows=Windows((16, 12, 20), overlap=overlap, batch_size=batch))
    logits = slices.whole()
    assert slices.passes == len(network.calls)
    assert logits.shape == (3, *shape)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, expected(network, image), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("slice_axis", [0, 1, 2])
def test_slices_make_up_the_volume(slice_axis):
    network, image = Pointwise(2), volume((11, 30, 17))
    logits = predicted(network, image, patch=(16, 16), slice_axis=slice_axis, batch_size=8)
    torch.testing.assert_close(logits, expected(network, image), rtol=1e-4, atol=1e-5)


def test_slices_keep_their_axes_in_order():
    class Row(nn.Module):
        def forward(self, x):
            return torch.arange(16.0)[None, None, :, None].expand(len(x), 1, 16, 16)

    logits = predicted(Row(), volume((16, 4, 16)), patch=(16, 16), slice_axis=1, batch_size=4)
    torch.testing.assert_close(logits[0], torch.arange(16.0)[:, None, None].expand(16, 4, 16))


def test_a_volume_that_fits_one_window_takes_one_call():
    network = Pointwise(3)
    predicted(network, volume((10, 11, 16)), patch=(16, 16, 16), batch_size=4)
    assert network.calls == [(1, 2, 16, 16, 16)]


@pytest.mark.parametrize("axes", [(), (1,), (0, 2), (0, 1, 2)])
def test_mirrored_copies_are_averaged(axes):
    torch.manual_seed(0)
    network = nn.Conv3d(1, 2, 3, padding=1)
    image = volume((16, 16, 16), channels=1)
    logits = predicted(network, image, patch=(16, 16, 16), mirror_axes=axes)
    flips = chain.from_iterable(combinations([axis + 2 for axis in axes], n) for n in range(len(axes) + 1))
    x = torch.from_numpy(image)[None]
    with torch.no_grad():
        mean = torch.stack([network(x.flip(flip)).flip(flip) for flip in flips]).mean(0)[0]
    torch.testing.assert_close(logits, mean, rtol=1e-4, atol=1e-5)


def test_axes_that_slices_lack_are_not_mirrored():
    network = Pointwise(2)
    predicted(network, volume((8, 8, 4)), patch=(8, 8), slice_axis=2, mirror_axes=(0, 1, 2), batch_size=4)
    assert len(network.calls) == 4


@pytest.mark.parametrize("training", [True, False])
def test_the_networks_mode_is_put_back_even_after_an_error(training):
    network = Pointwise(3).train(training)
    modes = []
    network.register_forward_hook(lambda module, *_: modes.append(module.dropout.training))
    predicted(network, volume((8, 8, 8)), patch=(8, 8, 8))
    assert modes == [False]
    with pytest.raises(RuntimeError):
        predicted(network, volume((8, 8, 8), channels=5), patch=(8, 8, 8))
    assert network.training == network.dropout.training == training


def test_runs_under_the_precision_and_without_gradients():
    entered = []

    @contextmanager
    def context():
        entered.append(torch.is_grad_enabled())
        with torch.autocast("cpu", torch.bfloat16):
            yield

    network, image = Pointwise(3), volume((8, 8, 8))
    logits = predicted(network, image, patch=(8, 8, 8), precision_context=context)
    assert entered == [False]
    assert logits.dtype == torch.float32
    difference = (logits - expected(network, image)).abs().max()
    assert 1e-4 < difference < 5e-2


def test_takes_read_only_memory_maps(tmp_path):
    np.save(tmp_path / "image.npy", volume((8, 8, 8)))
    image = np.load(tmp_path / "image.npy", mmap_mode="r")
    assert predicted(Pointwise(3), image, patch=(8, 8, 8)).shape == (3, 8, 8, 8)


@pytest.mark.gpu
def test_gpu_agrees_with_cpu():
    network, image = Pointwise(3), volume((40, 30, 20))
    options = {"patch": (16, 16, 16), "mirror_axes": (0,), "batch_size": 3}
    on_cpu = predicted(network, image, **options)
    on_gpu = predicted(network.to("cuda"), image, **options, device="cuda")
    assert on_gpu.device.type == "cpu"
    torch.testing.assert_close(on_gpu, on_cpu, rtol=1e-3, atol=1e-4)


class Parity(nn.Module):
    """Answers by the place in its own window, as a strided network does."""

    def forward(self, x):
        odd = (torch.stack(torch.meshgrid(*map(torch.arange, x.shape[2:]), indexing="ij")).sum(0) % 2).float()
        return torch.stack([torch.zeros_like(x[:, 0]), odd + x[:, 0]], dim=1)


@pytest.mark.parametrize("shape", [(16, 12, 20), (15, 11, 19), (14, 10, 18), (13, 9, 3), (18, 14, 22), (34, 28, 20)])
def test_over_shifts_is_the_mean_of_the_probabilities_of_moved_windows(shape):
    """Every voxel is odd in two of the four grids, where its first and last window are even."""
    image = volume(shape, channels=1)
    value = torch.from_numpy(image[0])
    wanted = (value.sigmoid() + (value + 1).sigmoid()) / 2
    windows = Windows((16, 12, 20))
    for axis in range(3):
        logits = over_shifts(Parity(), image, windows=windows, axes=(0, 1), axis=axis).whole()
        torch.testing.assert_close(logits.exp()[1], wanted)
        torch.testing.assert_close(logits.exp().sum(0), torch.ones(shape))
    still = over_shifts(Parity(), image, windows=windows, axes=()).whole()
    torch.testing.assert_close(still.exp(), predict_slices(Parity(), image, windows=windows).whole().softmax(0))


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(*[st.integers(3, 40)] * 3),
    overlap=st.sampled_from([0.0, 0.3, 0.5, 0.75]),
    batch=st.integers(1, 5),
    axis=st.integers(0, 2),
)
def test_slices_across_any_axis_are_those_of_monai(shape, overlap, batch, axis):
    torch.manual_seed(0)
    network, image, patch = nn.Conv3d(1, 3, 3, padding=1).eval(), volume(shape, channels=1), (16, 12, 20)
    with torch.no_grad():
        whole = torch.from_numpy(image)[None]
        reference = sliding_window_inference(whole, patch, batch, network, overlap=overlap, mode="gaussian")[0]
    logits = predicted(network, image, axis, patch=patch, overlap=overlap, batch_size=batch)
    torch.testing.assert_close(logits, reference, rtol=1e-5, atol=1e-5)


def test_a_wide_slab_is_added_up_in_half_precision_and_hardly_differs(monkeypatch):
    torch.manual_seed(0)
    network, image = nn.Conv3d(1, 3, 3, padding=1), volume((30, 41, 17), channels=1)
    exact = predicted(network, image, patch=(16, 16, 16))
    monkeypatch.setattr(inference, "HALF_BYTES", 0)
    torch.testing.assert_close(predicted(network, image, patch=(16, 16, 16)), exact, rtol=0, atol=1e-2)


def test_only_a_slab_of_the_logits_is_held():
    """64 windows deep: what is held is one window deep."""
    network, image = Pointwise(3, classes=4), volume((512, 8, 8))
    slices = predict_slices(network, image, windows=Windows((8, 8, 8))).logits
    for number, _ in enumerate(slices):
        assert len(network.calls) <= number // 4 + 2  # no window before it is needed


COARSE = [
    *(((1, 1, 1), (1.2, 1.22, 1.41)), ((1, 1, 6), (1.2, 1.22, 3.5)), ((6, 1, 1), (3.5, 1.25, 1))),
    *(((1, 6, 1), (1.2, 3.5, 1.2)), ((1, 1, 1), (1, 1, 1))),
]


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize(("spacing", "planned"), COARSE)
def test_logits_are_resampled_to_the_files_grid_then_compared(spacing, planned, axis):
    """As interpolation of the whole volume gives it; across thick slices, by the nearest one."""
    crop, ras, shape = ((2, 38), (0, 50), (3, 27)), (40, 50, 30), (30, 41, 17)
    logits = torch.randn(5, *shape, generator=torch.Generator().manual_seed(0))
    affine = tuple(map(tuple, np.diag([*spacing, 1.0]).tolist()))
    geometry = Geometry(affine, ras, spacing, crop, shape, planned)
    size = [high - low for low, high in crop]
    coarse = geometry.coarse_axis
    smooth = [shape[n] if n == coarse else side for n, side in enumerate(size)]
    whole = F.interpolate(logits[None], smooth, mode="trilinear")[0]
    if coarse is not None:
        nearest = ((np.arange(size[coarse]) + 0.5) * shape[coarse] / size[coarse]).astype(int)
        whole = whole.index_select(coarse + 1, torch.from_numpy(nearest))
    expected = np.zeros(ras, np.uint8)
    expected[tuple(slice(*side) for side in crop)] = whole.argmax(0)
    slices = on_grid(Slices(axis, iter(logits.unbind(axis + 1))), geometry)
    found = from_ras(decide(slices, geometry).indices, np.array(geometry.original_affine))
    assert (found != expected).mean() < 1e-4  # a tie may be rounded otherwise
    assert found.dtype == np.uint8
