import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from seg.data.fingerprint import CasePrint, Fingerprint, Intensity
from seg.data.plan import make_plan
from seg.errors import ConfigError, DataError


def data(shapes, spacings_mm, intensity=()):
    cases = (
        CasePrint(f"c{n}", f"c{n}", shape, spacing_mm, "", "", {1: 9}, intensity)
        for n, (shape, spacing_mm) in enumerate(zip(shapes, spacings_mm, strict=True))
    )
    return Fingerprint(tuple(cases), ("MRI",), {"background": 0, "a": 1})


def one(shape, spacing_mm=(1.0, 1.0, 1.0)):
    return data([shape], [spacing_mm])


def test_hippocampus_like():
    plan = make_plan(data([(35, 50, 36)] * 200, [(1.0, 1.0, 1.0)] * 200), ["MRI"], dims=3)
    assert (plan.patch, plan.batch_size, plan.spacing_mm) == ((40, 56, 40), 7, (1.0, 1.0, 1.0))
    assert plan.strides == ((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2))


@pytest.mark.parametrize(
    ("dims", "cases", "batch"),
    [(3, 200, 8), (3, 100, 5), (3, 60, 3), (3, 1, 2), (2, 200, 32), (2, 20, 16), (2, 1, 8)],
)
def test_a_batch_sees_a_twentieth_of_the_data_at_most(dims, cases, batch):
    """Volumes of one patch, 16 slices each: 5 % of 60 cases are three volumes or 48 slices."""
    shape = (64, 64, 16)
    fingerprint = data([shape] * cases, [(1.0, 1.0, 2.0)] * cases)
    plan = make_plan(fingerprint, ["MRI"], dims=dims, patch_voxels=96**3)
    assert plan.patch == shape[:dims]
    assert plan.batch_size == batch


def test_spacing_is_the_median_and_shapes_follow_it():
    plan = make_plan(data([(10, 20, 30)] * 3, [(1.0, 1, 1), (2.0, 1, 1), (4.0, 1, 1)]), ["MRI"], dims=3)
    assert plan.spacing_mm == (2.0, 1.0, 1.0)
    assert plan.shape == (10, 20, 30)


@pytest.mark.parametrize(
    ("shape", "thick", "expected"),
    [
        ((400, 400, 30), (2.0, 5.0, 5.0, 5.0, 5.0), 3.2),  # thick slices: their 10th percentile
        ((400, 400, 200), (2.0, 5.0, 5.0, 5.0, 5.0), 5.0),  # as many slices as rows: the median
        ((400, 400, 30), (0.2, 5.0, 5.0, 5.0, 5.0), 2.12),
        ((400, 400, 30), (0.2, 0.2, 5.0, 5.0, 5.0), 1.0),  # never finer than the other axes
        ((400, 400, 30), (2.9, 2.9, 2.9, 2.9, 2.9), 2.9),  # not three times coarser
    ],
)
def test_thick_slices(shape, thick, expected):
    plan = make_plan(data([shape] * 5, [(1.0, 1.0, z) for z in thick]), ["MRI"], dims=3)
    assert plan.spacing_mm == pytest.approx((1, 1, expected))


sizes = st.tuples(*[st.integers(1, 700)] * 3)
voxels_mm = st.tuples(*[st.floats(0.3, 8)] * 3)


asked = st.sampled_from(["auto", ["auto"] * 3, ["auto"] * 5, [2, [2, 2, 1], "auto"], [2, 2, 2], None])


@example((1, 65, 161), (1.0, 1.0, 1.0), 2, ["auto"] * 5)  # the padded slice has one pooling less along the shorter axis
@given(sizes, voxels_mm, st.sampled_from([2, 3]), asked)
def test_any_volume_gets_a_patch_that_every_level_divides(shape, spacing_mm, dims, strides):
    if dims == 2 and strides and [2, 2, 1] in [*strides]:
        strides = [2, [2, 1], "auto"]
    plan = make_plan(one(shape, spacing_mm), ["MRI"], dims=dims, strides=strides, patch_voxels=96**3)
    assert len(plan.patch) == dims
    assert math.prod(plan.patch) <= (96**3 if dims == 3 else 512**2)
    assert plan.strides[0] == (1,) * dims
    assert len(plan.strides) == len(plan.kernels)
    assert len(plan.strides) == 1 + len(strides or [2] * 4) if strides != "auto" else len(plan.strides) >= 3
    kept = [axis for axis in range(3) if dims == 3 or axis != plan.slice_axis]
    for size, axis, total in zip(plan.patch, kept, np.prod(plan.strides, axis=0), strict=True):
        assert size % total == 0
        assert size - shape[axis] < total, "no longer than the volume needs"
        assert size // total >= 2 or total == 1 or strides not in ("auto", ["auto"] * 3, ["auto"] * 5)
    low, high = (2, 8) if dims == 3 else (8, 32)
    assert low <= plan.batch_size <= high


@given(st.tuples(*[st.integers(2, 700)] * 3), voxels_mm)
def test_the_slice_axis_is_the_coarsest(shape, spacing_mm):
    plan = make_plan(one(shape, spacing_mm), ["MRI"], dims=2)
    assert plan.spacing_mm[plan.slice_axis] == pytest.approx(max(plan.spacing_mm), abs=2e-3)


def test_the_slice_axis_is_the_last_of_equals():
    assert make_plan(one((50, 50, 50)), ["MRI"], dims=2).slice_axis == 2
    assert make_plan(one((50, 50, 50), (3.0, 1.0, 1.0)), ["MRI"], dims=2).slice_axis == 0


@pytest.mark.parametrize(("shape", "mm", "axis"), [((64, 64, 1), 9.0, 2), ((1, 64, 64), 0.2, 0), ((64, 1, 1), 1.0, 2)])
def test_an_axis_of_one_voxel_is_the_slice_axis_whatever_its_spacing(shape, mm, axis):
    spacing_mm = [1.0, 1.0, 1.0]
    spacing_mm[(axis + 1) % 3] = mm
    plan = make_plan(one(shape, tuple(spacing_mm)), ["MRI"], dims=2, spacing=[1, 1, 1])
    assert plan.slice_axis == axis


def test_slices_of_one_slice_that_would_be_lines_are_refused():
    assert make_plan(one((64, 64, 1)), ["MRI"], dims=2, slice_axis="z").patch == (64, 64)
    with pytest.raises(ConfigError, match=r"data\.slice_axis=x would cut lines out of images of 64×64×1 voxels"):
        make_plan(one((64, 64, 1)), ["MRI"], dims=2, slice_axis="x")


def test_the_slice_axis_as_given():
    plan = make_plan(one((40, 50, 60), (5.5, 5.5, 3.3)), ["PET"], dims=2, slice_axis="z")
    assert (plan.slice_axis, plan.patch) == (2, (40, 56))
    assert make_plan(one((40, 50, 60), (5.5, 5.5, 3.3)), ["PET"], dims=2).slice_axis == 1


def test_the_empty_margin_of_the_volumes_does_not_count():
    whole = one((256, 256, 256))
    cropped = replace(whole, cases=tuple(replace(case, cropped=(120, 100, 90)) for case in whole.cases))
    plan = make_plan(cropped, ["MRI"], dims=3)
    assert plan.shape == (120, 100, 90)
    assert plan.normalization[0].inside
    assert "the crop keeps 6% of a volume" in " ".join(plan.reasons)
    assert not make_plan(whole, ["MRI"], dims=3).normalization[0].inside


def test_thick_axes_are_pooled_last():
    """Poolings of nnU-Net for 5 mm slices: in the plane until voxels are alike, then everywhere."""
    plan = make_plan(one((320, 320, 16), (1.0, 1.0, 5.0)), ["MRI"], dims=3, patch=[256, 256, 16])
    assert plan.strides == ((1, 1, 1), (2, 2, 1), (2, 2, 1), *((2, 2, 2),) * 2, *((2, 2, 1),) * 2)
    assert plan.kernels == ((3, 3, 1), (3, 3, 1), *((3, 3, 3),) * 5)


def test_what_is_given_is_taken():
    plan = make_plan(
        one((35, 50, 36)), ["CT"], dims=3, spacing=[2, 2, 2], patch=[40, 56, 40], batch_size=5, normalization="zscore"
    )
    assert (plan.spacing_mm, plan.patch, plan.batch_size) == ((2.0, 2.0, 2.0), (40, 56, 40), 5)
    assert plan.normalization[0].kind == "zscore"
    assert sum("as given" in line for line in plan.reasons) == 4


def test_patch_of_another_length_is_named():
    with pytest.raises(ConfigError, match=r"data\.patch=\[32, 32, 32\].*dims=2"):
        make_plan(one((50, 50, 50)), ["MRI"], dims=2, patch=[32, 32, 32])


def test_a_spacing_that_makes_absurd_volumes_is_refused():
    with pytest.raises(ConfigError, match=r"data\.spacing.*50000×50000×50000"):
        make_plan(one((50, 50, 50)), ["MRI"], dims=3, spacing=[0.001, 0.001, 0.001])


def test_a_channel_named_ct_is_clipped_to_the_foreground_of_all_cases():
    rng = np.random.default_rng(0)
    values = rng.normal(60, 20, 100_000)
    levels = (np.arange(100) + 0.5) / 100
    halves = [
        Intensity(float(half.mean()), float(half.std()), tuple(np.quantile(half, levels)))
        for half in (values[:50_000], values[50_000:] + 100)
    ]
    cases = [
        CasePrint(f"c{n}", f"c{n}", (50, 50, 50), (1.0,) * 3, "", "", {1: 9}, (i, i)) for n, i in enumerate(halves)
    ]
    fingerprint = Fingerprint(tuple(cases), ("Ct", "PET"), {"background": 0, "a": 1})
    ct, pet = make_plan(fingerprint, fingerprint.channels, dims=3).normalization
    pooled = np.concatenate([values[:50_000], values[50_000:] + 100])
    assert (ct.kind, pet.kind) == ("ct", "zscore")
    assert ct.mean == pytest.approx(pooled.mean(), rel=1e-6)
    assert ct.std == pytest.approx(pooled.std(), rel=1e-6)
    assert (ct.low, ct.high) == pytest.approx(np.percentile(pooled, [0.5, 99.5]), abs=5)


def test_ct_without_any_foreground_is_named():
    with pytest.raises(DataError, match=r"data\.normalization=zscore"):
        make_plan(one((50, 50, 50)), ["CT"], dims=3)


def test_every_decision_has_its_reason_and_the_plan_is_plain_json():
    plan = make_plan(one((35, 50, 36)), ["T1", "T2"], dims=2)
    assert [line.split()[0] for line in plan.reasons] == [
        "spacing", "patch", "batch", "strides", "normalisation", "normalisation", "slices",
    ]  # fmt: skip
    assert json.loads(json.dumps(asdict(plan), allow_nan=False))["patch"] == list(plan.patch)
