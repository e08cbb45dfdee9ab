import gc
import itertools
import multiprocessing
import os
import signal
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.transforms import RandGaussianNoised

from seg.data.augmentation import Augmentation
from seg.data.sampling import Patches, batches
from seg.errors import ConfigError

SHAPES = {"a": (20, 24, 18), "b": (10, 30, 9), "c": (16, 16, 16), "d": (25, 12, 21), "e": (8, 8, 8)}


def entry(case, shape, channels=2):
    """A prepared case whose voxels tell where they lie, and with two classes, one of them rare."""
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"))
    image = np.stack([grid[0] * 10_000 + grid[1] * 100 + grid[2] + 1] * channels).astype(np.float32)
    label = np.zeros(shape, np.uint8)
    label[2:5, 3:6, 3:6] = 1
    label[6, 6, 6] = 2
    foreground = {index: np.argwhere(label == index).astype(np.int32) for index in (1, 2)}
    return SimpleNamespace(case=case, image=image, label=label, foreground=foreground)


STORE = {case: entry(case, shape) for case, shape in SHAPES.items()}


def patches(**changes):
    options = {"patch": (8, 12, 10), "dims": 3, "slice_axis": 2, "foreground": 0.5, "seed": 3, "augment": None}
    return Patches(STORE, list(SHAPES), **options | changes)


def noisy():
    return patches(augment=Augmentation([RandGaussianNoised("image", prob=0.7)], [0, 1, 2]))


def same(one, other):
    return one["case"] == other["case"] and all(torch.equal(one[key], other[key]) for key in ("image", "label"))


def run(dataset=None, **changes):
    options = {"start_step": 0, "steps": 6, "batch_size": 4, "rank": 0, "world": 1, "workers": 0}
    return list(batches(dataset or noisy(), **options | changes))


def test_a_sample_is_a_function_of_its_index():
    forwards, backwards = noisy(), noisy()
    there = [forwards[index] for index in range(12)]
    back = [backwards[index] for index in reversed(range(12))][::-1]
    assert all(map(same, there, back))
    assert not same(there[0], there[1])
    assert not torch.equal(patches(seed=4)[0]["image"], patches(seed=3)[0]["image"])


@pytest.mark.parametrize("workers", [1, 2])
def test_loader_processes_change_nothing(workers):
    alone, many = run(), run(workers=workers)
    assert len(alone) == len(many) == 6
    assert all(map(same, alone, many))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_run_sees_what_the_whole_one_saw(workers):
    assert all(map(same, run()[4:], run(start_step=4, steps=2, workers=workers)))


def test_all_ranks_together_are_one_process():
    ranks = [run(rank=rank, world=2) for rank in range(2)]
    for whole, *parts in zip(run(), *ranks, strict=True):
        assert torch.equal(whole["image"], torch.cat([part["image"] for part in parts]))
        assert torch.equal(whole["label"], torch.cat([part["label"] for part in parts]))
        assert whole["case"] == [case for part in parts for case in part["case"]]


def test_batch_contents():
    batch = run(steps=1)[0]
    assert batch["image"].shape == (4, 2, 8, 12, 10)
    assert batch["image"].dtype == torch.float32
    assert batch["label"].shape == (4, 8, 12, 10)
    assert batch["label"].dtype == torch.uint8
    assert len(batch["case"]) == 4


@pytest.mark.parametrize("workers", [0, 1])
def test_the_runs_own_random_numbers_are_left_alone(workers):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    run(steps=2, workers=workers)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the cores of a process are asked for otherwise here")
@pytest.mark.parametrize(("cores", "threads"), [(3, {1}), (2, {2})])
def test_a_thread_loads_on_one_core_where_the_network_leaves_one(cores, threads, monkeypatch):
    seen = []

    def note(image, label, rng):
        seen.append(torch.get_num_threads())
        return image, label

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(cores))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        run(patches(augment=note), steps=2)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert set(seen) == threads


@pytest.mark.parametrize("workers", [0, 1])
def test_a_fault_in_the_loader_reaches_the_run(workers):
    def fail(image, label, rng):
        raise ConfigError("no such patch")

    with pytest.raises(ConfigError, match="no such patch"):
        run(patches(augment=fail), workers=workers)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_endless_loader_may_be_left_at_any_time(workers):
    gc.collect()
    threads, processes = set(threading.enumerate()), len(multiprocessing.active_children())
    loader = batches(noisy(), start_step=0, steps=None, batch_size=2, rank=0, world=1, workers=workers)
    list(itertools.islice(loader, 3))
    assert len(multiprocessing.active_children()) == processes + workers
    del loader
    assert len(multiprocessing.active_children()) == processes
    left = set(threading.enumerate()) - threads
    for thread in left:  # those that feed the queues end a moment later
        thread.join(5)
    assert not any(thread.is_alive() for thread in left)


def test_loaders_outlive_what_is_sent_to_the_group_but_not_what_is_sent_to_them():
    """Ctrl-C and the SIGTERM of `timeout` reach the group; Python itself ends its children by SIGTERM when it exits."""

    def tell(image, label, rng):
        return torch.tensor([os.getpgrp() == os.getpid(), signal.getsignal(signal.SIGTERM) == signal.SIG_DFL]), label

    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        batch = run(patches(augment=tell), steps=1, workers=1)[0]
    finally:
        signal.signal(signal.SIGTERM, before)
    assert batch["image"].all()


def test_each_pass_shows_every_case_once_in_a_new_order():
    dataset = patches()
    turns = [tuple(dataset[turn * 5 + i]["case"] for i in range(5)) for turn in range(6)]
    assert all(sorted(turn) == sorted(SHAPES) for turn in turns)
    assert len(set(turns)) > 3


@pytest.mark.parametrize("share", [0.0, 0.25, 1 / 3, 0.5, 1.0])
def test_the_share_of_centred_patches(share):
    dataset = patches(foreground=share, patch=(3, 3, 3))
    rare = [bool((dataset[i]["label"] > 0).any()) for i in range(240)]
    assert sum(rare) >= int(240 * share)
    assert sum(rare) <= 240 * share + 240 * (1 - share) * 0.25


def test_a_centred_patch_has_a_foreground_voxel_in_its_middle_and_classes_come_evenly():
    dataset = patches(foreground=1.0, patch=(3, 3, 3))
    middles = [int(dataset[i]["label"][1, 1, 1]) for i in range(200)]
    assert set(middles) == {1, 2}
    assert 70 < middles.count(2) < 130


def test_cases_without_foreground_are_sampled_too():
    empty = entry("x", (9, 9, 9))
    empty.foreground = {}
    dataset = Patches({"x": empty}, ["x"], patch=(4, 4, 4), dims=3, slice_axis=2, foreground=1.0, seed=0, augment=None)
    assert dataset[0]["image"].shape == (2, 4, 4, 4)


@settings(max_examples=60, deadline=None)
@given(index=st.integers(0, 10**6), patch=st.tuples(*[st.integers(1, 40)] * 3), foreground=st.sampled_from([0.0, 1.0]))
def test_a_patch_is_the_volume_at_its_place_and_zero_around_it(index, patch, foreground):
    sample = patches(patch=patch, foreground=foreground)[index]
    volume, label = STORE[sample["case"]].image, STORE[sample["case"]].label
    image, classes = sample["image"].numpy(), sample["label"].numpy()
    assert image.shape == (2, *patch)
    inside = image[0] > 0
    assert inside.sum() == np.prod([min(n, p) for n, p in zip(label.shape, patch, strict=True)])
    code = image[0][inside].astype(int) - 1
    at = (code // 10_000, code // 100 % 100, code % 100)
    np.testing.assert_array_equal(image[:, inside], volume[(slice(None), *at)])
    np.testing.assert_array_equal(classes[inside], label[at])
    assert not classes[~inside].any()
    for axis, (n, p) in enumerate(zip(label.shape, patch, strict=True)):
        filled = np.flatnonzero(inside.any(axis=tuple({0, 1, 2} - {axis})))
        if n < p:  # padded as sliding-window inference pads: the half, rounded down, before
            assert filled[0] == (p - n) // 2


def places(sample):
    """Of each axis the first and last voxel of the volume in the patch, and where the first of them lies in it."""
    image = sample["image"][0]
    code = torch.where(image > 0, image - 1, -1).long().numpy()
    inside = np.argwhere(code >= 0)
    first, last = (int(code[tuple(end)]) for end in (inside.min(0), inside.max(0)))
    low, high = ((end // 10_000, end // 100 % 100, end % 100) for end in (first, last))
    return list(zip(low, high, inside.min(0).tolist(), strict=True))


@pytest.mark.parametrize("foreground", [0.0, 1.0])
@pytest.mark.parametrize("patch", [(8, 12, 10), (26, 32, 24)], ids=["smaller", "larger than the volumes"])
def test_jitter_reaches_so_far_outside_and_no_further(patch, foreground):
    dataset, before, behind = patches(patch=patch, foreground=foreground, jitter=3), [], []
    for index in range(300):
        sample = dataset[index]
        for (low, high, at), side, size in zip(places(sample), patch, SHAPES[sample["case"]], strict=True):
            first = min(0, -((side - size) // 2))
            before.append(first - (low - at))
            behind.append(low - at - max(size - side, first))
            assert high == min(size, low - at + side) - 1
    assert max(before) <= 3
    assert max(behind) <= 3
    assert foreground or max(before) == max(behind) == 3


@pytest.mark.parametrize("foreground", [0.0, 1.0])
def test_a_patch_that_holds_the_whole_volume_shows_it_at_varying_places(foreground):
    def seen(jitter):
        dataset = patches(patch=(32, 32, 32), foreground=foreground, jitter=jitter)
        samples = [sample for sample in map(dataset.__getitem__, range(60)) if sample["case"] == "a"]
        return {tuple(at for _, _, at in places(sample)) for sample in samples}

    middle = (6, 4, 7)
    assert seen(0) == {middle}
    assert len(seen(2)) > (5 if foreground == 0 else 0)
    assert all(abs(a - b) <= 2 for place in seen(2) for a, b in zip(place, middle, strict=True))


def test_jitter_further_than_the_volume_leaves_nothing_but_zeros():
    empty = [not patches(patch=(4, 4, 4), foreground=0.0, jitter=30)[index]["image"].any() for index in range(60)]
    assert any(empty)
    assert not all(empty)


@pytest.mark.parametrize("slice_axis", [0, 1, 2])
def test_slices_are_jittered_only_within_their_plane(slice_axis):
    jittered = patches(dims=2, patch=(6, 14), slice_axis=slice_axis, jitter=4, foreground=0.0)
    images = [jittered[index]["image"] for index in range(40)]
    assert all(image.any() for image in images)
    assert sum(not image.all() for image in images) > 5


@pytest.mark.parametrize("slice_axis", [0, 1, 2])
def test_slices_are_cut_across_the_slice_axis(slice_axis):
    dataset = patches(dims=2, patch=(6, 14), slice_axis=slice_axis)
    seen = set()
    for index in range(40):
        sample = dataset[index]
        assert sample["image"].shape == (2, 6, 14)
        assert sample["label"].shape == (6, 14)
        code = sample["image"][0][sample["image"][0] > 0].long() - 1
        position = (code // 10_000, code // 100 % 100, code % 100)[slice_axis]
        assert len(set(position.tolist())) == 1
        seen.add(position[0].item())
    assert len(seen) > 3


def test_only_the_patch_is_read():
    class Volume:
        """Counts the voxels that are asked for."""

        def __init__(self, array):
            self.array, self.shape, self.dtype, self.read = array, array.shape, array.dtype, 0

        def __getitem__(self, place):
            part = self.array[place]
            self.read += part.size
            return part

    case = entry("x", (40, 40, 40), channels=1)
    case.image = Volume(case.image)
    dataset = Patches({"x": case}, ["x"], patch=(8, 8, 8), dims=3, slice_axis=2, foreground=0.5, seed=0, augment=None)
    for index in range(10):
        dataset[index]
    assert case.image.read == 10 * 8**3
