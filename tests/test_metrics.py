"""Metrics against MONAI, against a brute force, and by their properties."""

from itertools import product

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from monai.metrics import (
    ConfusionMatrixMetric,
    compute_average_surface_distance,
    compute_dice,
    compute_hausdorff_distance,
    compute_iou,
    compute_surface_dice,
)

from benchmarks.statistics import study
from seg import metrics
from seg.errors import DataError
from seg.study import analyse
from seg.study.tables import markdown

Mask = npt.NDArray[np.bool_]

EVERY = list(metrics.METRICS.values())
SHARES = [metric for metric in EVERY if metric.limits == (0, 1)]
DISTANCES = [metric for metric in EVERY if metric.unit == "mm"]
SYMMETRIC = [metric for metric in EVERY if metric.name not in ("precision", "recall", "volume_difference_ml")]
SPACINGS = [(1.0, 1.0, 1.0), (0.7, 1.3, 5.0), (3.0, 0.5, 0.9)]


def blobs(seed: int, shape: tuple[int, ...] = (14, 17, 11)) -> tuple[Mask, Mask]:
    """Two overlapping uneven structures that touch the border of the volume for some seeds."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    masks = []
    for _ in range(2):
        centre, radius = rng.uniform(0.3, 0.7, len(shape)) * shape, rng.uniform(2, 6, len(shape))
        masks.append((((grid - centre) / radius) ** 2).sum(-1) + 0.3 * rng.normal(size=shape) < 1)
    return masks[0], masks[1]


def brute_surface(mask: Mask) -> npt.NDArray[np.int64]:
    """Voxels of the mask with a face neighbour that is outside the mask or outside the array, one by one."""
    points = []
    for voxel in map(tuple, np.argwhere(mask)):
        axes = [axis for axis, size in enumerate(mask.shape) if size > 1] or [0]
        for axis, step in product(axes, (-1, 1)):
            near = tuple(v + step * (a == axis) for a, v in enumerate(voxel))
            if any(not 0 <= n < size for n, size in zip(near, mask.shape, strict=True)) or not mask[near]:
                points.append(voxel)
                break
    return np.array(points)


def brute_distances(start: Mask, goal: Mask, spacing_mm: tuple[float, ...]) -> npt.NDArray[np.float64]:
    a, b = (brute_surface(mask) * np.array(spacing_mm) for mask in (start, goal))
    return np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1)).min(1)


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("metric", EVERY, ids=lambda metric: metric.name)
def test_a_picture_is_no_volume_of_one_slice(metric: metrics.Metric, axis: int) -> None:
    """A pixel has four neighbours, whether or not its picture has a third axis."""
    pred, label = blobs(1, (24, 31))
    spacing_mm = [0.7, 1.3]
    volume_mm = [*spacing_mm[:axis], 1.0, *spacing_mm[axis:]]
    flat = metric(pred, label, spacing_mm)
    assert metric(np.expand_dims(pred, axis), np.expand_dims(label, axis), volume_mm) == pytest.approx(flat)


@pytest.mark.parametrize("mm", [0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9, 1.1, 1.2, 1.25, 1.6])
@pytest.mark.parametrize("stored", [np.float32, np.float64])
def test_a_voxel_is_within_a_tolerance_of_a_voxel(mm: float, stored: type[np.floating]) -> None:
    label = np.zeros((12, 12, 40), bool)
    label[3:9, 3:9, 5:30] = True
    spacing_mm = [float(stored(mm))] * 3
    assert metrics.nsd(np.roll(label, 1, 2), label, spacing_mm, mm) == 1
    assert metrics.nsd(np.roll(label, 1, 2), label, spacing_mm, 0.99 * mm) < 1


@pytest.mark.parametrize("spacing_mm", SPACINGS)
@pytest.mark.parametrize("seed", range(4))
def test_every_metric_agrees_with_a_brute_force(seed: int, spacing_mm: tuple[float, ...]) -> None:
    pred, label = blobs(seed)
    there, back = brute_distances(pred, label, spacing_mm), brute_distances(label, pred, spacing_mm)
    tp, fp, fn = (pred & label).sum(), (pred & ~label).sum(), (~pred & label).sum()
    expected = {
        metrics.dice: 2 * tp / (2 * tp + fp + fn),
        metrics.iou: tp / (tp + fp + fn),
        metrics.precision: tp / (tp + fp),
        metrics.recall: tp / (tp + fn),
        metrics.hd95_mm: max(np.percentile(there, 95), np.percentile(back, 95)),
        metrics.assd_mm: (there.sum() + back.sum()) / (len(there) + len(back)),
        metrics.nsd: ((there <= 1).sum() + (back <= 1).sum()) / (len(there) + len(back)),
        metrics.volume_difference_ml: (pred.sum() - label.sum()) * np.prod(spacing_mm) / 1000,
    }
    for metric, value in expected.items():
        assert metric(pred, label, spacing_mm) == pytest.approx(value, abs=1e-9), metric.name


@pytest.mark.filterwarnings("ignore:monai.metrics.utils get_mask_edges:FutureWarning")
@pytest.mark.parametrize("shape", [(14, 17, 11), (23, 19)])
@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_monai(seed: int, shape: tuple[int, ...]) -> None:
    pred, label = blobs(seed, shape)
    spacing_mm = SPACINGS[1][: len(shape)]
    a, b = (torch.from_numpy(np.stack([~mask, mask])[None]).float() for mask in (pred, label))
    monai = {
        metrics.dice: compute_dice(a, b, include_background=False),
        metrics.iou: compute_iou(a, b, include_background=False),
        metrics.hd95_mm: compute_hausdorff_distance(a, b, percentile=95, spacing=spacing_mm),
        metrics.assd_mm: compute_average_surface_distance(a, b, symmetric=True, spacing=spacing_mm),
        metrics.nsd: compute_surface_dice(a, b, class_thresholds=[1.0], spacing=spacing_mm),
    }
    for name, metric in {"precision": metrics.precision, "recall": metrics.recall}.items():
        confusion = ConfusionMatrixMetric(include_background=False, metric_name=name)
        confusion(a, b)
        monai[metric] = confusion.aggregate()[0]
    for metric, value in monai.items():
        assert metric(pred, label, spacing_mm) == pytest.approx(value.item(), rel=1e-5), metric.name


def test_values_known_by_hand_on_uneven_spacing() -> None:
    pred, label = np.zeros((5, 5, 9), bool), np.zeros((5, 5, 9), bool)
    pred[2, 2, 2], label[2, 2, 4:6] = True, True
    spacing_mm = (1.0, 1.0, 3.0)  # two and three voxels of 3 mm lie between them
    assert metrics.assd_mm(pred, label, spacing_mm) == pytest.approx((6 + 6 + 9) / 3)
    assert metrics.hd95_mm(pred, label, spacing_mm) == pytest.approx(6 + 0.95 * 3)
    assert metrics.nsd(pred, label, spacing_mm, tolerance_mm=6.0) == pytest.approx(2 / 3)
    assert metrics.volume_difference_ml(pred, label, spacing_mm) == pytest.approx(-0.003)
    assert metrics.dice(pred, label, spacing_mm) == 0


pairs = st.tuples(st.integers(1, 7), st.integers(1, 7), st.integers(1, 5)).flatmap(
    lambda shape: st.tuples(hnp.arrays(bool, shape), hnp.arrays(bool, shape))
)
spacings = st.tuples(*[st.floats(0.1, 9, allow_nan=False)] * 3)
checked = settings(max_examples=60, deadline=None, derandomize=True)


@checked
@given(pairs, spacings)
def test_bounds_and_symmetry(pair: tuple[Mask, Mask], spacing_mm: tuple[float, ...]) -> None:
    pred, label = pair
    diagonal_mm = np.linalg.norm(np.multiply(pred.shape, spacing_mm))
    for metric in EVERY:
        assert metric.limits[0] <= metric(pred, label, spacing_mm) <= metric.limits[1]
    for metric in DISTANCES:
        assert 0 <= metric(pred, label, spacing_mm) <= diagonal_mm
    for metric in SYMMETRIC:
        assert metric(pred, label, spacing_mm) == pytest.approx(metric(label, pred, spacing_mm))
    assert metrics.precision(pred, label, spacing_mm) == metrics.recall(label, pred, spacing_mm)


@checked
@given(pairs, spacings)
def test_identity_is_best_and_only_identity(pair: tuple[Mask, Mask], spacing_mm: tuple[float, ...]) -> None:
    pred, label = pair
    for metric in EVERY:
        best = metric.limits[{1: 1, -1: 0}[metric.better]] if metric.better else 0
        assert metric(label, label, spacing_mm) == best, metric.name
    if not np.array_equal(pred, label):
        assert metrics.dice(pred, label, spacing_mm) < 1


@checked
@given(pairs, spacings, st.floats(0.5, 4))
def test_distances_scale_with_spacing(pair: tuple[Mask, Mask], spacing_mm: tuple[float, ...], factor: float) -> None:
    wider = tuple(factor * s for s in spacing_mm)
    for metric in DISTANCES:
        assert metric(*pair, wider) == pytest.approx(factor * metric(*pair, spacing_mm))
    assert metrics.nsd(*pair, wider, 1.001 * factor) == metrics.nsd(*pair, spacing_mm, 1.001)
    assert metrics.volume_difference_ml(*pair, wider) == pytest.approx(
        factor**3 * metrics.volume_difference_ml(*pair, spacing_mm)
    )


@checked
@given(pairs, spacings, st.sampled_from(list(product((1, -1), repeat=3))), st.permutations(range(3)))
def test_flips_and_swapped_axes_change_nothing(
    pair: tuple[Mask, Mask], spacing_mm: tuple[float, ...], flip: tuple[int, ...], order: list[int]
) -> None:
    turned = [mask[tuple(slice(None, None, step) for step in flip)].transpose(order) for mask in pair]
    swapped = [spacing_mm[axis] for axis in order]
    for metric in EVERY:
        assert metric(*turned, swapped) == pytest.approx(metric(*pair, spacing_mm))


@checked
@given(pairs, spacings)
def test_a_missed_structure_is_never_better_than_any_attempt(
    pair: tuple[Mask, Mask], spacing_mm: tuple[float, ...]
) -> None:
    attempt, label = pair
    missed = np.zeros_like(label)
    if label.any() and attempt.any():
        for metric in SHARES:
            assert metric(missed, label, spacing_mm) == 0 <= metric(attempt, label, spacing_mm)
        for metric in DISTANCES:
            assert metric(missed, label, spacing_mm) > metric(attempt, label, spacing_mm)


@pytest.mark.parametrize("tolerance_mm", [1.0, 1e6])
def test_empty_rule(tolerance_mm: float) -> None:
    empty, full, spacing_mm = np.zeros((3, 4, 12), bool), np.ones((3, 4, 12), bool), (1.0, 1.0, 1.0)
    for metric in SHARES:
        assert metric(empty, empty, spacing_mm, tolerance_mm) == 1
        assert metric(empty, full, spacing_mm, tolerance_mm) == metric(full, empty, spacing_mm, tolerance_mm) == 0
    for metric in DISTANCES:
        assert metric(empty, empty, spacing_mm) == 0
        assert metric(empty, full, spacing_mm) == metric(full, empty, spacing_mm) == 13  # 3-4-12 diagonal
    assert metrics.volume_difference_ml(empty, full, spacing_mm) == pytest.approx(-0.144)


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0), (1.0, 1.0, 0.0), (1.0, float("nan"), 1.0)])
def test_a_wrong_spacing_is_refused(spacing_mm: tuple[float, ...]) -> None:
    mask = np.ones((2, 2, 2), bool)
    with pytest.raises(DataError, match="spacing_mm"):
        metrics.dice(mask, mask, spacing_mm)


def test_masks_of_different_shape_are_refused() -> None:
    with pytest.raises(DataError, match=r"\(2, 2\).*\(2, 3\)"):
        metrics.hd95_mm(np.ones((2, 2), bool), np.ones((2, 3), bool), (1.0, 1.0))


def test_score_case_gives_the_single_metrics_and_counts_what_was_missed() -> None:
    pred_mask, label_mask = blobs(1)
    pred, label = pred_mask.astype(np.uint8), label_mask.astype(np.uint8)
    pred[0, 0, 0], label[-1, -1, -1] = 2, 3
    spacing_mm = SPACINGS[1]
    first, false, missed, absent = metrics.score_case(pred, label, ["bg", "a", "b", "c", "d"], spacing_mm, 2.0)
    for name in metrics.METRICS:
        extra = (2.0,) if name == "nsd" else ()
        assert first[name] == getattr(metrics, name)(pred == 1, label == 1, spacing_mm, *extra), name
    assert [row["class"] for row in (first, false, missed, absent)] == ["a", "b", "c", "d"]
    assert [(row["missed"], row["false"]) for row in (first, false, missed, absent)] == [(0, 0), (0, 1), (1, 0), (0, 0)]
    assert (false["dice"], missed["dice"]) == (0, 0)
    assert all(np.isnan(absent[name]) for name in metrics.METRICS), "nothing was there to be found"


def test_what_nobody_annotated_is_not_scored() -> None:
    label = np.zeros((6, 6, 6), np.uint8)
    label[:2], label[2:4] = 1, 255
    pred = np.ones_like(label)
    pred[4:] = 0
    (row,) = metrics.score_case(pred, label, ["bg", "a"], (1, 1, 1), 1.0)
    assert (row["dice"], row["hd95_mm"], row["volume_difference_ml"]) == (1, 0, 0)
    (row,) = metrics.score_case(pred, np.where(label == 1, 0, label), ["bg", "a"], (1, 1, 1), 1.0)
    assert (row["dice"], row["false"]) == (0, 1)


@given(seed=st.integers(0, 999), classes=st.integers(2, 30))
@settings(max_examples=30, deadline=None)
def test_classes_that_no_case_has_change_no_mean(seed: int, classes: int) -> None:
    """The mean over classes is that over the classes there are, whatever the list of classes holds beside them."""
    rng = np.random.default_rng(seed)
    cases = [rng.integers(0, 3, (2, 5, 5, 5)) for _ in range(3)]

    def mean(names: list[str]) -> pd.Series:
        rows = [
            {"case": str(number)} | row
            for number, (pred, label) in enumerate(cases)
            for row in metrics.score_case(pred, label, names, (1, 1, 1), 1.0)
        ]
        table = metrics.summary(pd.DataFrame(rows))
        assert table.iloc[2:-1]["dice_mean"].isna().all()
        assert (table.iloc[2:-1]["cases"] == 0).all()
        return table.loc[metrics.MEAN_OF_CLASSES]

    few = mean(["bg", "a", "b"])
    pd.testing.assert_series_equal(mean(["bg", "a", "b", *(f"never {n}" for n in range(classes))]), few)


def test_an_empty_prediction_scores_nothing() -> None:
    label = np.zeros((6, 6, 6), np.uint8)
    label[2:4, 2:4, 2:4] = 1
    rows = pd.DataFrame({"case": "a"} | row for row in metrics.score_case(0 * label, label, "bxyz", (1, 1, 1), 1.0))
    table = metrics.summary(rows)
    assert table.loc[metrics.MEAN_OF_CLASSES, ["dice_mean", "present", "missed", "false"]].tolist() == [0, 1, 1, 0]


def test_a_new_metric_is_one_object(monkeypatch: pytest.MonkeyPatch) -> None:
    size = metrics.Metric("size_ml", "Size", "ml", 1, 2, (0, np.inf), lambda pair: pair.in_pred / 1000)
    monkeypatch.setitem(metrics.METRICS, "size_ml", size)
    label = np.ones((10, 10), np.uint8)
    rows = pd.DataFrame([{"case": "a"} | row for row in metrics.score_case(label, label, "bx", (1, 1), 1.0)])
    assert list(rows.columns[-3:]) == ["size_ml", "missed", "false"]
    assert metrics.summary(rows).loc["x", "size_ml_mean"] == 0.1
    table = study({"base": 0.0, "new": 0.0}, patients=5)
    scores = pd.concat([table.assign(size_ml=table["dice"] + 9 * (table["arm"] == "new"))])
    found = analyse(scores, baseline="base", metrics=["size_ml"], draws=400)
    assert "Size (ml) ↑" in markdown(found)


def test_summary_counts_a_missed_structure_in_the_mean() -> None:
    label = np.zeros((6, 6, 6), np.uint8)
    label[1:3, 1:3, 1:3], label[4, 4, 4] = 1, 2
    preds = {"right": label, "misses": np.where(label == 2, 0, label), "half": np.where(np.arange(6) < 2, label, 0)}
    rows = pd.DataFrame(
        [
            {"case": case} | row
            for case, pred in preds.items()
            for row in metrics.score_case(pred, label, ["background", "big", "small"], (1, 1, 1), 1.0)
        ]
    )
    table = metrics.summary(rows)
    assert list(table.index) == ["big", "small", metrics.MEAN_OF_CLASSES]
    assert table.loc["small", ["cases", "missed", "false"]].tolist() == [3, 2, 0]
    assert table.loc["small", "dice_mean"] == pytest.approx(1 / 3)
    assert table.loc["small", "hd95_mm_mean"] == pytest.approx(2 / 3 * np.sqrt(108))
    assert table.loc["big", "dice_median"] == 1
    per_case = [1, 1 / 2, 1 / 3]
    assert table.loc[metrics.MEAN_OF_CLASSES, "dice_mean"] == pytest.approx(np.mean(per_case))
    assert table.loc[metrics.MEAN_OF_CLASSES, "dice_sd"] == pytest.approx(np.std(per_case, ddof=1))
    assert table.loc[metrics.MEAN_OF_CLASSES, "missed"] == 2
    assert table.notna().all(axis=None)
