"""What `auto` decides for real data sets, by their shapes alone, beside nnU-Net 2.8.1's planner for the same shapes."""

from dataclasses import dataclass

import numpy as np
import pytest

from seg.data.fingerprint import CasePrint, Fingerprint
from seg.data.plan import make_plan

ALL = (2, 2, 2)
PLANE = (2, 2, 1)


@dataclass(frozen=True)
class Known:
    """A data set in numbers, axes in RAS order, and nnU-Net's plan for it: 3d_fullres."""

    shape: tuple[int, int, int]
    cropped: tuple[int, int, int]  # to the non-zero voxels
    spacing_mm: tuple[float, float, float]
    cases: int
    patch: tuple[int, int, int]
    strides: tuple[tuple[int, int, int], ...]  # without the first level
    flat: int  # levels whose kernels are 3×3×1
    batch: int
    inside: bool = False  # use_mask_for_norm


SETS = {
    "LiviaNET": Known(
        (256, 256, 256), (128, 148, 186), (1, 1, 1), 10, (112, 128, 160), (*(ALL,) * 4, (1, 2, 2)), 0, 2, True
    ),
    "ACDC": Known(
        (256, 228, 10),
        (256, 228, 10),
        (1.5625, 1.5625, 8),
        100,
        (256, 256, 10),
        (PLANE, PLANE, ALL, *(PLANE,) * 3),
        2,
        4,
    ),
    "BraTS": Known((240, 240, 155), (172, 176, 112), (1, 1, 1), 4, (160, 160, 96), (*(ALL,) * 4, PLANE), 0, 2, True),
    "MR sarcoma": Known(
        (160, 150, 59), (160, 150, 59), (0.9, 0.9, 3.3), 40, (160, 160, 64), (PLANE, *(ALL,) * 4), 1, 2
    ),
    "PET": Known((38, 30, 62), (38, 30, 62), (5.47, 5.47, 3.27), 41, (40, 32, 64), (ALL,) * 3, 0, 2),
    "sts_pet": Known((35, 35, 65), (35, 35, 65), (5.47, 5.47, 3.27), 41, (40, 40, 72), (ALL,) * 3, 0, 2),
    "Hippocampus": Known((35, 50, 36), (35, 50, 36), (1, 1, 1), 200, (40, 56, 40), (ALL,) * 3, 0, 7),
}
NAMED = pytest.mark.parametrize("name", SETS)


def plan(name, strides="auto", **options):
    known = SETS[name]
    one = CasePrint("c", "c", known.shape, known.spacing_mm, "", "", {1: 9}, (), cropped=known.cropped)
    fingerprint = Fingerprint((one,) * known.cases, ("MRI",), {"background": 0, "a": 1})
    return make_plan(fingerprint, fingerprint.channels, **{"dims": 3, "strides": strides} | options)


@NAMED
def test_dynunet_is_planned_as_nnunet_plans(name):
    known, planned = SETS[name], plan(name)
    assert planned.patch == known.patch
    assert planned.strides == ((1, 1, 1), *known.strides)
    assert [1 in widths for widths in planned.kernels] == [level < known.flat for level in range(len(planned.kernels))]
    assert planned.normalization[0].inside == known.inside
    assert planned.batch_size == known.batch


@NAMED
def test_a_network_of_three_poolings_pools_as_the_first_three_and_needs_their_multiples(name):
    known, planned = SETS[name], plan(name, ["auto"] * 3)
    assert planned.strides == ((1, 1, 1), *known.strides[:3])
    assert not any(np.array(planned.patch) % np.prod(planned.strides, axis=0))


@pytest.mark.parametrize(
    ("name", "patch"), [("ACDC", (256, 232, 10)), ("MR sarcoma", (160, 152, 60)), ("BraTS", (152, 160, 96))]
)
def test_patches_of_the_default_unet(name, patch):
    assert plan(name, ["auto"] * 3).patch == patch


@pytest.mark.parametrize(("name", "axis"), [("ACDC", 2), ("MR sarcoma", 2), ("PET", 1)])
def test_slices_are_cut_across_the_coarsest_axis(name, axis):
    assert plan(name, dims=2).slice_axis == axis
