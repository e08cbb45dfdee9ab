import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from hydra.utils import instantiate
from monai.data import MetaTensor
from monai.transforms import OneOf, RandAffined, RandFlipd, RandGaussianNoised, RandScaleIntensityd, RandSpatialCropd

from seg.data.augmentation import Augmentation, RandWarpd
from seg.errors import ConfigError

OPTIONS = sorted((Path(__file__).parents[2] / "conf" / "augmentation").glob("*.yaml"))
PATCHES = {2: (2, 24, 32), 3: (2, 16, 24, 20)}


def load(path):
    cfg = yaml.safe_load(path.read_text())
    return Augmentation([instantiate(node) for node in cfg["transforms"]], cfg["mirror_axes"])


def patch(dims, seed=0):
    """An image with two classes in it, and on one side the zeros that lie outside a volume."""
    rng = torch.Generator().manual_seed(seed)
    shape = PATCHES[dims]
    image, label = torch.randn(shape, generator=rng), torch.zeros(shape[1:], dtype=torch.uint8)
    label[4:12, 5:15], label[8:10, 8:12] = 1, 2
    image[:, -5:], label[-5:] = 0, 0
    return image, label


def rng(seed):
    return np.random.default_rng([7, seed])


@pytest.mark.parametrize("path", OPTIONS, ids=lambda path: path.stem)
@pytest.mark.parametrize("dims", [2, 3])
class TestOptions:
    def test_keeps_the_contract(self, path, dims):
        augment = load(path)
        for seed in range(40):
            before, classes = patch(dims)
            image, label = augment(*patch(dims), rng(seed))
            assert (image.shape, image.dtype) == (before.shape, torch.float32)
            assert (label.shape, label.dtype) == (classes.shape, torch.uint8)
            assert set(label.unique().tolist()) <= {0, 1, 2}
            assert image.isfinite().all()
            assert image.abs().max() < 4 * before.abs().max()
            assert not isinstance(image, MetaTensor)
            assert not isinstance(label, MetaTensor)

    def test_is_a_function_of_the_generator(self, path, dims):
        there, back = load(path), pickle.loads(pickle.dumps(load(path)))
        first = [there(*patch(dims), rng(seed)) for seed in range(20)]
        second = [back(*patch(dims), rng(seed)) for seed in reversed(range(20))][::-1]
        for one, other in zip(first, second, strict=True):
            assert all(map(torch.equal, one, other))

    def test_leaves_its_input_alone(self, path, dims):
        augment = load(path)
        image, label = patch(dims)
        for seed in range(20):
            augment(image, label, rng(seed))
        assert torch.equal(image, patch(dims)[0])
        assert torch.equal(label, patch(dims)[1])

    def test_changes_samples_unless_none(self, path, dims):
        augment = load(path)
        changed = [not torch.equal(augment(*patch(dims), rng(seed))[0], patch(dims)[0]) for seed in range(40)]
        assert any(changed) == (path.stem != "none")

    def test_what_lies_outside_stays_plausible(self, path, dims):
        """Beside the volume there must not appear what would outshine it."""
        augment = load(path)
        image, label = patch(dims)
        for seed in range(40):
            changed, _ = augment(torch.where(image != 0, image.abs() + 1, 0), label, rng(seed))
            assert changed.median(dim=1).values.abs().max() < image.abs().max() + 2


@pytest.mark.parametrize("axes", [(), (0,), (1, 2), (0, 1, 2)])
def test_mirrors_along_the_given_axes_only(axes):
    image, label = patch(3)
    seen = set()
    for seed in range(60):
        changed, classes = Augmentation([], axes)(image, label, rng(seed))
        flips = [
            flip
            for flip in [(), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)]
            if torch.equal(changed, image.flip([axis + 1 for axis in flip])) and torch.equal(classes, label.flip(flip))
        ]
        assert len(flips) == 1
        seen.add(flips[0])
    assert len(seen) == 2 ** len(axes)
    assert {axis for flip in seen for axis in flip} == set(axes)


def test_nested_transforms_follow_the_sample_too():
    def build():
        return Augmentation([OneOf([RandGaussianNoised("image", 1.0), RandScaleIntensityd("image", 0.5, 1.0)])])

    first, second = build(), build()
    second(*patch(3), rng(5))
    assert torch.equal(first(*patch(3), rng(1))[0], second(*patch(3), rng(1))[0])


def test_blended_labels_are_refused():
    augment = Augmentation([RandAffined(["image", "label"], prob=1.0, rotate_range=0.3, mode="bilinear")])
    with pytest.raises(ConfigError, match="nearest"):
        augment(*patch(3), rng(0))


def test_another_shape_is_refused():
    augment = Augmentation([RandSpatialCropd(["image", "label"], roi_size=(8, 8, 8), random_size=False)])
    with pytest.raises(ConfigError, match=r"data\.patch"):
        augment(*patch(3), rng(0))


def test_transforms_without_an_image_change_keep_the_pair_together():
    augment = Augmentation([RandFlipd(["image", "label"], prob=1.0, spatial_axis=0)])
    image, label = augment(*patch(2), rng(0))
    assert torch.equal(image, patch(2)[0].flip(1))
    assert torch.equal(label, patch(2)[1].flip(0))


KEYS, MODE = ["image", "label"], ["bilinear", "nearest"]
ALL = {"affine_prob": 1.0, "rotate_degrees": 30, "scale": (0.8, 1.25), "elastic_prob": 1.0, "elastic_voxels": 2.5}


def warp(image, label, seed=0, **options):
    transform = RandWarpd(KEYS, mode=MODE, **options)
    transform.set_random_state(seed)
    sample = transform({"image": image, "label": label[None], "case": "a"})
    assert sample["case"] == "a"
    return sample["image"], sample["label"][0]


def ball(shape, radius=0.4):
    """An image and a label of a ball, and the distance of each voxel from the middle along each axis."""
    axes = torch.meshgrid(*[torch.arange(n) - (n - 1) / 2 for n in shape], indexing="ij")
    inside = sum(axis**2 for axis in axes).sqrt() < min(shape) * radius
    return inside[None].float(), inside.to(torch.uint8), axes


def dice(one, other):
    return 2 * ((one > 0) & (other > 0)).sum() / ((one > 0).sum() + (other > 0).sum())


class Extreme(np.random.RandomState):
    """Draws the upper end of every range, and everything that may happen."""

    def uniform(self, low=0.0, high=1.0, size=None):
        return high if size is None else np.full(size, high)

    def random_sample(self, size=None):
        return np.zeros(size)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize(
    "options",
    [ALL | {"affine_prob": 0.0, "elastic_prob": 0.0}, {"affine_prob": 1.0, "elastic_prob": 1.0}],
    ids=["never drawn", "empty ranges"],
)
def test_a_warp_by_nothing_changes_nothing(dims, options):
    image, label = patch(dims)
    changed, classes = warp(image, label, **options)
    torch.testing.assert_close(changed, image, rtol=0, atol=1e-4)
    assert torch.equal(classes, label)


@pytest.mark.parametrize("shape", [(9, 9), (10, 10), (8, 1, 8)])
def test_a_right_angle_is_exact(shape):
    transform = RandWarpd(KEYS, mode=MODE, affine_prob=1.0, rotate_degrees=90)
    transform.R = Extreme(0)
    image = torch.rand(1, *shape, generator=torch.Generator().manual_seed(0))
    result = transform({"image": image, "label": (image > 0.5).to(torch.uint8)})
    by_hand = torch.rot90(image, -1, (1, image.ndim - 1))
    torch.testing.assert_close(result["image"], by_hand, rtol=0, atol=1e-4)
    assert torch.equal(result["label"], (by_hand > 0.5).to(torch.uint8))


def test_three_right_angles_one_after_the_other():
    transform = RandWarpd(["image"], mode=["bilinear"], affine_prob=1.0, rotate_degrees=90)
    transform.R = Extreme(0)
    image = torch.rand(2, 7, 7, 7, generator=torch.Generator().manual_seed(0))
    result = transform({"image": image})["image"]
    by_hand = image
    for axes in [(1, 2), (1, 3), (2, 3)]:
        by_hand = torch.rot90(by_hand, -1, axes)
    torch.testing.assert_close(result, by_hand, rtol=0, atol=1e-4)


@pytest.mark.parametrize("dims", [2, 3])
def test_reads_what_pytorchs_own_sampler_reads(dims):
    """The same places, taken from an image of coordinates, given to ``F.grid_sample``."""
    generator = torch.Generator().manual_seed(1)
    shape = (12, 16, 14)[:dims]
    coordinates = torch.stack(torch.meshgrid(*[torch.linspace(-1, 1, n) for n in shape], indexing="ij"))
    image, label = torch.randn(2, *shape, generator=generator), torch.randint(0, 5, shape, generator=generator)
    for seed in range(5):
        options = ALL | {"seed": seed}
        changed, classes = warp(image, label.to(torch.uint8), **options)
        inside, _ = warp(torch.ones(1, *shape), label, **options)
        whole = inside[0] > 1 - 1e-5
        places, _ = warp(coordinates, label, **options)
        grid = places.flip(0).movedim(0, -1)[None]
        expected = F.grid_sample(image[None], grid, align_corners=True)[0]
        torch.testing.assert_close(changed[:, whole], expected[:, whole], rtol=0, atol=1e-3)
        expected = F.grid_sample(label[None, None].float(), grid, mode="nearest", align_corners=True)[0, 0]
        assert (classes == expected)[whole].float().mean() > 0.999
        assert whole.float().mean() > 0.2
        assert not whole.all()


def test_beyond_the_input_lies_zero():
    for seed in range(5):
        image, label = warp(torch.ones(1, 12, 12, 12), torch.ones(12, 12, 12), seed, **ALL | {"scale": (0.5, 0.5)})
        assert image[0, 0, 0, 0] == image[0, -1, -1, -1] == label[0, 0, 0] == 0
        assert image.min() == 0
        assert image.max() == pytest.approx(1)


@pytest.mark.parametrize("shape", [(20, 50, 40), (30, 60)])
def test_turning_keeps_a_ball_a_ball_and_image_and_label_together(shape):
    image, label, _ = ball(shape)
    for seed in range(8):
        changed, classes = warp(image, label, seed, affine_prob=1.0, rotate_degrees=90)
        assert dice(classes, label) > 0.93
        assert ((changed[0] > 0.5) == classes.bool()).float().mean() > 0.98


@pytest.mark.parametrize("shape", [(24, 32, 28), (32, 40)])
def test_image_and_label_stay_together_however_they_are_warped(shape):
    image, label, _ = ball(shape)
    for seed in range(8):
        changed, classes = warp(image, label, seed, **ALL)
        assert dice(changed[0] > 0.5, classes) > 0.95
        assert dice(classes, label) < 0.995


def test_labels_never_blend():
    label = torch.where(ball((16, 16, 16))[1] > 0, 200, 0).to(torch.uint8)
    for seed in range(10):
        _, classes = warp(torch.zeros(1, 16, 16, 16), label, seed, **ALL)
        assert classes.dtype == torch.uint8
        assert set(classes.unique().tolist()) == {0, 200}


def test_scale_is_the_factor_on_size_along_every_axis():
    image, label, axes = ball((48, 48, 48), 0.3)
    _, larger = warp(image, label, affine_prob=1.0, scale=(1.3, 1.3))
    assert larger.sum() / label.sum() == pytest.approx(1.3**3, rel=0.05)
    lengths = set()
    for seed in range(6):
        _, changed = warp(image, label, seed, affine_prob=1.0, scale=(0.7, 1.4))
        extent = [int(axis[changed > 0].max() - axis[changed > 0].min()) + 1 for axis in axes]
        assert all(0.7 * 27 <= length <= 1.4 * 31 for length in extent)
        lengths.add(tuple(extent))
    assert len({a for a, _, _ in lengths}) > 2
    assert any(len(set(extent)) > 1 for extent in lengths)


def test_bending_moves_as_many_voxels_as_asked_and_differently_from_place_to_place():
    coordinates = torch.stack(torch.meshgrid(*[torch.arange(21.0)] * 3, indexing="ij"))
    inner = (slice(None), *[slice(5, 16, 5)] * 3)  # the nodes that lie within
    deviations = []
    for seed in range(30):
        places, _ = warp(coordinates, torch.zeros(coordinates.shape[1:]), seed, elastic_prob=1.0, elastic_voxels=1.0)
        deviations.append((places - coordinates)[inner].std().item())
    assert 0.35 < np.mean(deviations) < 0.65
    assert max(deviations) < 1.4
    assert min(deviations) < 0.3


def test_thick_slices_are_changed_only_within_their_plane():
    height = ball((64, 12, 64))[2][1]
    image, label = torch.stack([height, torch.ones_like(height)]), torch.zeros(height.shape)
    for seed in range(8):
        (changed, inside), _ = warp(image, label, seed, **ALL | {"scale": (1.25, 1.25)})
        whole = inside > 1 - 1e-5
        torch.testing.assert_close(changed[whole], height[whole], rtol=0, atol=1e-3)
        assert whole.float().mean() > 0.6
        assert not torch.equal(warp(image, label, seed, **ALL)[0][1], inside)


@pytest.mark.parametrize("wrong", [{"scale": (0.0, 1.0)}, {"nodes": 1}])
def test_settings_without_meaning_are_refused(wrong):
    with pytest.raises(ConfigError, match="RandWarpd"):
        RandWarpd(KEYS, mode=MODE, **wrong)
