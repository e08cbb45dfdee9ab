import gc
import itertools
import multiprocessing
import os
import pickle
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seg.data import preprocess
from seg.data.cases import Case, CaseSet
from seg.data.classes import IGNORE
from seg.data.fingerprint import fingerprint
from seg.data.nifti import from_ras, write_volume
from seg.data.plan import ChannelNorm, Plan
from seg.data.preprocess import VOXELS_PER_CLASS, Store, prepare, prepare_case
from seg.engine.decision import decide
from seg.engine.inference import Slices, on_grid
from seg.errors import DataError

ZSCORE = ChannelNorm("zscore")
ORIENTATIONS = list(itertools.product(itertools.permutations(range(3)), itertools.product([1, -1], repeat=3)))


def plan_of(spacing, norms=(ZSCORE,)):
    return Plan(tuple(spacing), (1, 1, 1), (16, 16, 16), 2, 2, ((1, 1, 1),), tuple(norms), ())


def write_case(folder: Path, image: np.ndarray, label: np.ndarray, affine: np.ndarray, name: str = "a") -> Case:
    write_volume(folder / f"{name}.nii.gz", image, affine)
    write_volume(folder / f"{name}_label.nii.gz", label, affine)
    return Case(name, name, (folder / f"{name}.nii.gz",), folder / f"{name}_label.nii.gz")


def random_case(folder: Path, seed: int = 0, affine=None, name: str = "a", shape=(9, 8, 7)) -> Case:
    rng = np.random.default_rng(seed)
    label = rng.choice([0, 2, 5], size=shape, p=[0.6, 0.2, 0.2]).astype(np.uint8)
    image = rng.normal(100, 20, shape).astype(np.float32)
    return write_case(folder, image, label, np.eye(4) if affine is None else affine, name)


@pytest.fixture
def cases(tmp_path):
    files = tuple(random_case(tmp_path, seed, name=f"case{seed}", shape=(9, 8, 7 + seed)) for seed in range(4))
    return CaseSet("test", files, ("MRI",), {"background": 0, "two": 2, "five": 5})


def prepared(cases, tmp_path, spacing=(1, 1, 1), workers=2):
    return prepare(
        cases, fingerprint(cases, tmp_path / "prints", workers=1), plan_of(spacing), tmp_path / "cache", workers
    )


def test_outside_of_the_object_is_0_where_the_norm_says_so(tmp_path):
    image = np.zeros((12, 12, 12), np.float32)
    image[2:9, 2:9, 2:9] = np.random.default_rng(0).normal(100, 20, (7, 7, 7))
    image[2:4, 2:4, :] = 0  # an edge of the box outside of the object
    image[5, 5, 5] = 0  # a hole in it, which belongs to it
    case = write_case(tmp_path, image, (image > 100).astype(np.uint8), np.eye(4))
    whole, inside = (
        prepare_case(case, (0, 1), plan_of((1, 1, 1), [ChannelNorm("zscore", inside=inside)]))[0][0]
        for inside in (False, True)
    )
    assert whole.shape == (7, 7, 7)
    assert whole[0, 0, 0] < -3
    assert inside[0, 0, 0] == 0
    assert inside[3, 3, 3] == whole[3, 3, 3] < -3
    same = image[2:9, 2:9, 2:9] != 0
    assert np.array_equal(inside[same], whole[same])


def test_a_hole_in_a_picture_belongs_to_the_object(tmp_path):
    image = np.zeros((12, 12, 1), np.float32)
    image[2:11, 2:11] = np.random.default_rng(0).normal(100, 20, (9, 9, 1))
    image[2:4, 2:4] = 0  # an edge of the box outside of the object
    image[5:8, 5:8] = 0  # enclosed by it
    case = write_case(tmp_path, image, (image > 100).astype(np.uint8), np.eye(4))
    inside = prepare_case(case, (0, 1), plan_of((1, 1, 1), [ChannelNorm("zscore", inside=True)]))[0][0]
    assert inside.shape == (9, 9, 1)
    assert inside[0, 0, 0] == 0
    assert (inside[3:6, 3:6] < -3).all()


def restored_of(classes, geometry, axis=0):
    logits = F.one_hot(torch.from_numpy(classes).long(), int(classes.max()) + 1).movedim(-1, 0).float()
    slices = on_grid(Slices(axis, iter(logits.unbind(axis + 1))), geometry)
    return from_ras(decide(slices, geometry).indices, np.array(geometry.original_affine))


def affine_of(axes, signs, spacing, tilt=0.0):
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[:, list(axes)] * np.array(signs) * np.array(spacing)
    turn = np.array([[np.cos(tilt), -np.sin(tilt), 0], [np.sin(tilt), np.cos(tilt), 0], [0, 0, 1]])
    affine[:3, :3] = turn @ affine[:3, :3]
    affine[:3, 3] = [-3.5, 20, 7]
    return affine


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    orientation=st.sampled_from(ORIENTATIONS),
    tilt=st.floats(-0.3, 0.3),
    margins=st.lists(st.integers(0, 2), min_size=6, max_size=6),
    seed=st.integers(0, 99),
    axis=st.integers(0, 2),
)
def test_a_label_comes_back_bit_for_bit(tmp_path, orientation, tilt, margins, seed, axis):
    axes, signs = orientation
    rng = np.random.default_rng(seed)
    inner = rng.integers(3, 7, 3)
    pad = list(zip(margins[::2], margins[1::2], strict=True))
    label = np.pad(rng.integers(0, 3, inner), pad).astype(np.uint8)
    image = np.pad(rng.integers(1, 99, inner), pad).astype(np.int16)
    spacing = rng.uniform(0.5, 1.4, 3)
    case = write_case(tmp_path, image, label, affine_of(axes, signs, spacing, tilt))
    ras_spacing = np.zeros(3)
    ras_spacing[list(axes)] = spacing
    _, classes, geometry = prepare_case(case, (0, 1, 2), plan_of(ras_spacing))
    assert classes.shape == geometry.shape == tuple(inner[list(np.argsort(axes))])
    restored = restored_of(classes, geometry, axis)
    assert restored.dtype == np.uint8
    np.testing.assert_array_equal(restored, label)


def test_axes_are_ras_after_preparation(tmp_path):
    image = np.ones((4, 5, 6), np.float32)
    image[3, 0, 2] = 9  # the file's axes are posterior, left, superior
    case = write_case(tmp_path, image, np.zeros(image.shape, np.uint8), affine_of((1, 0, 2), (-1, -1, 1), (1, 1, 1)))
    volume, *_ = prepare_case(case, (0, 1), plan_of((1, 1, 1)))
    assert volume.shape == (1, 5, 4, 6)
    assert np.unravel_index(volume.argmax(), volume.shape) == (0, 4, 0, 2)


def test_a_wrong_voxel_size_makes_no_volume_of_absurd_size(tmp_path):
    case = random_case(tmp_path, affine=np.diag([300.0, 300, 300, 1]))
    with pytest.raises(
        DataError, match=r"a\.nii\.gz: voxels of 300×300×300 mm become 2700×2400×2100 of 1×1×1.* Correct"
    ):
        prepare_case(case, (0, 2, 5), plan_of((1, 1, 1)))


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e3])
def test_what_counts_as_another_spacing_follows_the_voxel(tmp_path, unit):
    """2 and 2.9 micrometres are as different as 2 and 2.9 mm; rounding is as small in both."""
    case = random_case(tmp_path, affine=np.diag([2 * unit, 2 * unit, 2 * unit, 1]))
    *_, geometry = prepare_case(case, (0, 2, 5), plan_of([2.9 * unit] * 3))
    assert geometry.shape == (6, 6, 5)
    *_, geometry = prepare_case(case, (0, 2, 5), plan_of([2.0001 * unit] * 3))
    assert geometry.shape == (9, 8, 7)


@pytest.mark.parametrize("target", [(0.7, 1.0, 2.0), (1.7, 0.8, 1.3)])
def test_resampling_keeps_every_point_in_its_place(tmp_path, target):
    """A ramp along each axis must read, at each new voxel centre, the coordinate of that centre."""
    shape, spacing = (24, 20, 28), (1.0, 0.9, 1.2)
    for axis in range(3):
        ramp = np.broadcast_to(
            np.arange(1, shape[axis] + 1.0).reshape([-1 if a == axis else 1 for a in range(3)]), shape
        )
        case = write_case(
            tmp_path, ramp.astype(np.float32), np.zeros(shape, np.uint8), affine_of((0, 1, 2), (1, 1, 1), spacing)
        )
        norm = ChannelNorm("ct", -1e9, 1e9, 0.0, 1.0)
        volume, _, geometry = prepare_case(case, (0, 1), plan_of(target, [norm]))
        n = geometry.shape[axis]
        assert n == round(shape[axis] * spacing[axis] / target[axis])
        centres = (np.arange(n) + 0.5) * shape[axis] / n + 0.5
        inside = slice(n // 4, -(n // 4))
        profile = volume[0].mean(axis=tuple({0, 1, 2} - {axis}))
        np.testing.assert_allclose(profile[inside], centres[inside], atol=0.02)


def test_a_resampled_label_keeps_its_shape_and_place(tmp_path):
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in (30, 30, 20)], indexing="ij"), -1) * [1, 1, 1.5]
    label = (np.linalg.norm(grid - [14, 16, 15], axis=-1) < 9).astype(np.uint8)
    label[14:16, 16, 10] = 2
    case = write_case(tmp_path, np.ones(label.shape, np.float32), label, affine_of((0, 1, 2), (1, -1, 1), (1, 1, 1.5)))
    _, classes, geometry = prepare_case(case, (0, 1, 2), plan_of((0.8, 0.8, 0.8)))
    restored = restored_of(classes, geometry)
    assert 2 * ((restored > 0) & (label > 0)).sum() / ((restored > 0).sum() + (label > 0).sum()) > 0.98
    assert set(np.unique(classes)) <= {0, 1, 2}
    assert (classes == 1).sum() * 0.8**3 == pytest.approx((label == 1).sum() * 1.5, rel=0.03)


def test_slices_far_apart_are_not_blended(tmp_path):
    image = np.broadcast_to(np.arange(1, 7.0), (16, 16, 6)).astype(np.float32)
    case = write_case(tmp_path, image, np.zeros(image.shape, np.uint8), affine_of((0, 1, 2), (1, 1, 1), (1, 1, 5)))
    norm = ChannelNorm("ct", -1e9, 1e9, 0.0, 1.0)
    volume, _, geometry = prepare_case(case, (0, 1), plan_of((0.8, 0.8, 2), [norm]))
    assert geometry.coarse_axis == 2
    assert volume.shape == (1, 20, 20, 15)
    np.testing.assert_allclose(volume, np.rint(volume), atol=1e-4)


@pytest.mark.parametrize("background", [0, 7])
def test_zscore_is_of_the_nonzero_voxels(tmp_path, background):
    rng = np.random.default_rng(0)
    image = rng.normal(1.7e6, 3e5, (12, 12, 12)).astype(np.float32)
    image[3:6, 3:6, 3:6] = background
    case = write_case(tmp_path, image, np.zeros(image.shape, np.uint8), np.eye(4))
    volume = prepare_case(case, (0, 1), plan_of((1, 1, 1)))[0][0]
    counted = volume[image != 0]
    assert counted.mean() == pytest.approx(0, abs=1e-4)
    assert counted.std() == pytest.approx(1, abs=1e-4)
    assert volume.dtype == np.float32


@pytest.mark.parametrize("values", [(0, 0), (4, 4), (0, 4)])
def test_flat_images_stay_finite(tmp_path, values):
    image = np.full((6, 6, 6), values[0], np.float32)
    image[2:4, 2:4] = values[1]
    image[0, 0, 0] = image[-1, -1, -1] = values[1]
    case = write_case(tmp_path, image, np.zeros(image.shape, np.uint8), np.eye(4))
    volume, _, geometry = prepare_case(case, (0, 1), plan_of((1, 1, 1)))
    assert geometry.shape == (6, 6, 6)
    assert np.abs(volume).max() < 10


def test_ct_is_clipped_and_scaled_by_the_data_sets_numbers(tmp_path):
    image = np.linspace(-1000, 1000, 6**3).reshape(6, 6, 6).astype(np.float32)
    case = write_case(tmp_path, image, np.zeros(image.shape, np.uint8), np.eye(4))
    volume = prepare_case(case, (0, 1), plan_of((1, 1, 1), [ChannelNorm("ct", -100, 300, 50, 80)]))[0][0]
    np.testing.assert_allclose(volume, (np.clip(image, -100, 300) - 50) / 80, rtol=1e-5)


def test_the_cache_holds_what_prepare_case_gives(cases, tmp_path):
    store = prepared(cases, tmp_path)
    assert list(store) == [case.id for case in cases.cases]
    for case in cases.cases:
        image, label, geometry = prepare_case(case, (0, 2, 5), plan_of((1, 1, 1)))
        entry = store[case.id]
        assert isinstance(entry.image, np.memmap)
        np.testing.assert_array_equal(entry.image, image)
        np.testing.assert_array_equal(entry.label, label)
        assert entry.geometry == geometry
        assert set(np.unique(label)) == {0, 1, 2}
        for index, voxels in entry.foreground.items():
            assert len(voxels) == (label == index).sum()
            assert (label[tuple(voxels.T)] == index).all()


def test_foreground_is_a_bounded_sample(tmp_path):
    label = np.ones((30, 30, 30), np.uint8)
    label[0] = 0
    files = (write_case(tmp_path, (label + 1).astype(np.float32), label, np.eye(4)),)
    store = prepared(CaseSet("test", files, ("MRI",), {"background": 0, "one": 1, "absent": 2}), tmp_path)
    (index, voxels), *others = store["a"].foreground.items()
    assert (index, others) == (1, [])
    assert voxels.shape == (VOXELS_PER_CLASS, 3)
    assert len(np.unique(voxels, axis=0)) == VOXELS_PER_CLASS
    assert abs(voxels.mean(0) - [15, 14.5, 14.5]).max() < 0.5


def entries(tmp_path):
    return {path: path.stat().st_mtime_ns for path in sorted((tmp_path / "cache").rglob("*.npy"))}


def test_entries_are_shared_until_content_or_settings_change(cases, tmp_path):
    prepared(cases, tmp_path)
    first = entries(tmp_path)
    prepared(cases, tmp_path)
    assert entries(tmp_path) == first
    prepared(cases, tmp_path, spacing=(2, 1, 1))
    assert len(entries(tmp_path)) == 2 * len(first)
    random_case(tmp_path, seed=77, name="case0")
    prepared(cases, tmp_path)
    assert len(entries(tmp_path)) == 2 * len(first) + 3


def flipped(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize("damage", ["truncated", "removed", "description", "flipped", "geometry"])
def test_a_damaged_entry_is_made_again_and_said(cases, tmp_path, damage, caplog):
    before = {case: np.array(entry.image) for case, entry in prepared(cases, tmp_path).items()}
    victim = sorted((tmp_path / "cache").rglob("image.npy"))[0]
    if damage == "truncated":
        victim.write_bytes(victim.read_bytes()[:-10])
    elif damage == "removed":
        victim.unlink()
    elif damage == "flipped":
        flipped(victim, -9)
    elif damage == "geometry":
        about = victim.parent / "about.json"
        about.write_text(about.read_text().replace("9", "8", 1))
    else:
        (victim.parent / "about.json").write_text('{"by')
    store = prepared(cases, tmp_path)
    for case, image in before.items():
        np.testing.assert_array_equal(store[case].image, image)
    assert caplog.text.count("prepared again") == 1
    caplog.clear()
    prepared(cases, tmp_path)
    assert not caplog.text


def test_what_nobody_annotated_stays_so_and_is_no_foreground(tmp_path):
    label = np.zeros((6, 6, 6), np.uint8)
    label[:3], label[4:, 2:4, 2:4] = 9, 1
    case = write_case(tmp_path, np.ones(label.shape, np.float32), label, np.eye(4))
    cases = CaseSet("test", (case,), ("MRI",), {"background": 0, "one": 1}, ignore=9)
    image = np.random.default_rng(0).normal(5, 1, label.shape).astype(np.float32)
    write_case(tmp_path, image, label, np.eye(4))
    for spacing, share in (((1, 1, 1), 0.5), ((0.5, 0.5, 0.5), 0.5)):
        found = prepared(cases, tmp_path, spacing)["a"]
        assert set(np.unique(found.label)) == {0, 1, IGNORE}
        assert (found.label == IGNORE).mean() == pytest.approx(share, abs=0.05)
        assert set(found.foreground) == {1}


def test_a_full_disk_leaves_nothing_behind(cases, tmp_path, monkeypatch):
    save = np.save

    def full(path, array):
        if path.name == "label.npy":
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        save(path, array)

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(OSError, match="No space left"):
        prepared(cases, tmp_path)
    assert list((tmp_path / "cache").iterdir()) == []
    monkeypatch.undo()
    assert len(prepared(cases, tmp_path)) == 4


def _prepare_at_once(cases, tmp_path, barrier, results):
    prints = fingerprint(cases, tmp_path / "prints", workers=1)
    barrier.wait()
    store = prepare(cases, prints, plan_of((1, 1, 1)), tmp_path / "cache", 2)
    results.put({case: float(entry.image.sum()) for case, entry in store.items()})


def test_what_a_killed_process_left_goes_after_a_day(cases, tmp_path):
    old, new = tmp_path / "cache/.draft-old", tmp_path / "cache/.draft-new"
    for draft in (old, new):
        draft.mkdir(parents=True)
        (draft / "image.npy").write_bytes(b"half")
    os.utime(old, (time.time() - 90_000,) * 2)
    prepared(cases, tmp_path)
    assert not old.exists()
    assert new.exists(), "another process may be at work there"


def test_processes_may_start_together(cases, tmp_path):
    fingerprint(cases, tmp_path / "prints", workers=1)
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    barrier, results = context.Barrier(3), context.Queue()
    started = [context.Process(target=_prepare_at_once, args=(cases, tmp_path, barrier, results)) for _ in range(3)]
    for process in started:
        process.start()
    sums = [results.get(timeout=60) for _ in started]
    for process in started:
        process.join()
    assert sums[0] == sums[1] == sums[2]
    assert len(list((tmp_path / "cache").iterdir())) == 4


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts the handles as Linux shows them")
def test_a_store_holds_few_file_handles(cases, tmp_path, monkeypatch):
    def handles():
        return len(list(Path("/proc/self/fd").iterdir()))

    monkeypatch.setattr(preprocess, "KEPT_OPEN", 2)
    store = prepared(cases, tmp_path)
    list(store.values())
    gc.collect()
    before = handles()
    for _ in range(3):
        assert all(store[case].image.any() for case in store)
    assert handles() <= before
    assert len(store) == 4
    del store
    gc.collect()
    assert before - 2 * 3 <= handles() < before


def test_a_store_travels_as_paths(cases, tmp_path):
    store = prepared(cases, tmp_path)
    assert len(store) == len([entry.image for entry in store.values()])
    content = pickle.dumps(store)
    assert len(content) < 200 * len(store) + 500
    arrived: Store = pickle.loads(content)
    np.testing.assert_array_equal(arrived["case2"].image, store["case2"].image)
