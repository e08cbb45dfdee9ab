"""Random changes to a patch: MONAI transforms as listed in YAML, then mirroring."""

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import combinations

import numpy as np
import torch
import torch.nn.functional as F
from monai.config import NdarrayOrTensor
from monai.data import set_track_meta
from monai.transforms import MapTransform, Randomizable, RandSimulateLowResolutiond
from torch import Tensor

from seg.errors import ConfigError

Transform = Callable[[dict[str, Tensor]], dict[str, Tensor]]
Augment = Callable[[Tensor, Tensor, np.random.Generator], tuple[Tensor, Tensor]]
ANISOTROPY = 3.0  # a plane with sides more uneven than this is not turned


class Augmentation:
    """MONAI dictionary transforms and mirroring, as a pure function of a patch and a random generator.

    All transforms share one random state, seeded again for each sample: what happens to a sample depends on its index
    alone. Seeding each transform for itself would cost more than most transforms do.

    Args:
        transforms: MONAI dictionary transforms on the keys ``image`` (C, *S) and ``label`` (1, *S). They keep the
            shape, and those on the label interpolate by nearest neighbour.
        mirror_axes: spatial axes to mirror, each with probability one half; axes that a 2-D patch lacks are left out.
    """

    def __init__(self, transforms: Sequence[Transform], mirror_axes: Sequence[int] = ()) -> None:
        self._transforms, self._mirror_axes, self._state = transforms, mirror_axes, np.random.RandomState()
        _share(transforms, self._state)

    def __call__(self, image: Tensor, label: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Image (C, *S) float32 and label (*S) uint8, changed.

        Raises:
            ConfigError: a transform changed the shape or blended label values.
        """
        self._state.seed(int(rng.integers(2**32)))
        set_track_meta(False)  # MONAI's bookkeeping of affines costs more than most transforms
        sample = {"image": image, "label": label[None]}
        for transform in self._transforms:
            sample = transform(sample)
        _check(sample, list(image.shape))
        axes = [axis for axis in self._mirror_axes if axis < label.ndim and rng.random() < 0.5]
        return sample["image"].flip([axis + 1 for axis in axes]), sample["label"][0].to(torch.uint8).flip(axes)


class RandWarpd(MapTransform, Randomizable):
    """Turns about every axis, stretches and bends a patch, all on one grid, so that it is interpolated once.

    The positions to read are computed at few nodes and filled in linearly, which is exact but for the bending. With a
    gather in place of PyTorch's sampler, 48 x 64 x 48 voxels cost 3 ms, a sixth of MONAI's RandAffined.
    Where an axis is much shorter than the others, as in a scan with thick slices, it is left as it is and the rest
    is changed within its plane, for turning across would shear the anatomy.

    Beyond the patch is 0: corners that rotate in are empty, which trains no worse than real content does
    (benchmarks/RESULTS.md).

    Raises:
        ConfigError: ``scale`` does not begin above 0, or there are fewer than 2 ``nodes``.
    """

    def __init__(
        self,
        keys: Sequence[str],  # of the image and the label, in the order of ``mode``
        *,
        mode: Sequence[str],  # bilinear (in 3-D trilinear) or nearest
        affine_prob: float = 0.0,  # of turning and stretching
        rotate_degrees: float = 0.0,  # the angle about every axis is even in ± this
        scale: Sequence[float] = (1.0, 1.0),  # range of the scaling factor of each axis, log-uniform
        elastic_prob: float = 0.0,  # of bending
        elastic_voxels: float = 0.0,  # largest standard deviation of a node's displacement; drawn evenly from 0
        nodes: int = 5,  # per axis, evenly from the first voxel of the patch to its last
    ) -> None:
        MapTransform.__init__(self, keys)
        self._names = tuple(keys)
        if min(scale) <= 0 or nodes < 2:
            raise ConfigError(
                f"RandWarpd in augmentation.transforms has scale {list(scale)} and nodes {nodes}: "
                "scale must be above 0, and nodes at least 2."
            )
        self._mode, self._affine_prob, self._elastic_prob = tuple(mode), affine_prob, elastic_prob
        self._rotate, self._scale = math.radians(rotate_degrees), [float(bound) for bound in np.log(list(scale))]
        self._elastic, self._nodes = elastic_voxels, nodes

    def __call__(self, data: dict[str, Tensor]) -> dict[str, Tensor]:
        """The sample with its keys read at the same places."""
        shape = list(data[self._names[0]].shape[1:])
        affine, elastic = self.R.random_sample(2) < (self._affine_prob, self._elastic_prob)
        if not (affine or elastic):
            return data
        axes = np.meshgrid(*[np.linspace(-1, 1, self._nodes) * (side - 1) / 2 for side in shape], indexing="ij")
        nodes = np.stack(axes)
        planes = _even_planes(shape)
        free = np.isin(np.arange(len(shape)), planes)
        if affine:
            nodes = np.tensordot(self._matrix(planes, free), nodes, 1)
        if elastic:
            bend = self.R.standard_normal(nodes.shape) * self.R.uniform(0, self._elastic)
            nodes += bend * free.reshape(-1, *[1] * len(shape))
        place = _Place(_fill(nodes, shape), shape)
        return {**data, **{key: place.read(data[key], mode) for key, mode in zip(self._names, self._mode, strict=True)}}

    def _matrix(self, planes: Sequence[tuple[int, int]], free: np.ndarray) -> np.ndarray:
        """From places in the output to places in the input, both from the middle."""
        turn = np.eye(len(free))
        for first, second in planes:
            angle, step = self.R.uniform(-self._rotate, self._rotate), np.eye(len(free))
            step[first, first] = step[second, second] = math.cos(angle)
            step[first, second], step[second, first] = -math.sin(angle), math.sin(angle)
            turn = turn @ step
        low, high = self._scale
        return turn / np.where(free, np.exp(self.R.uniform(low, high, size=len(free))), 1)


class RandLowResolutiond(RandSimulateLowResolutiond):
    """MONAI's RandSimulateLowResolutiond for 2-D and 3-D: its own interpolation back is either for one or the other."""

    def __call__(self, data: Mapping[Hashable, NdarrayOrTensor]) -> dict[Hashable, NdarrayOrTensor]:
        """The sample, perhaps read at fewer voxels and brought back linearly."""
        self.sim_lowres_tfm.upsample_mode = "trilinear" if data[next(iter(self.keys))].ndim == 4 else "bilinear"
        return super().__call__(data)


class _Place:
    """Where to read, in voxels from the middle of an input of ``shape``; the weights serve every key.

    One voxel of 0 around the input stands for everything beyond it, as ``padding_mode="zeros"`` of ``F.grid_sample``.
    """

    def __init__(self, position: Tensor, shape: Sequence[int]) -> None:
        last = torch.tensor([side + 1.0 for side in shape]).reshape(-1, *[1] * len(shape))
        self._position = torch.minimum((position + last / 2).clamp_(min=0), last)
        self._strides = [math.prod(side + 3 for side in shape[axis + 1 :]) for axis in range(len(shape))]

    def read(self, volume: Tensor, mode: str) -> Tensor:
        """``volume`` (C, *shape) at the places, in its own dtype."""
        flat = F.pad(volume, [1, 2] * (volume.ndim - 1)).flatten(1)  # one more behind: a second neighbour of weight 0
        channels = [self._nearest(channel) if mode == "nearest" else self._linear(channel) for channel in flat]
        return torch.stack(channels)

    def _nearest(self, flat: Tensor) -> Tensor:
        return flat.index_select(0, self._index(self._position.round())).view(self._position.shape[1:])

    def _linear(self, flat: Tensor) -> Tensor:
        below = self._position.floor()
        index, weights = self._index(below), (self._position - below).flatten(1)

        def along(axis: int, start: int) -> Tensor:
            if axis == len(self._strides):
                return flat[start:].index_select(0, index)
            return along(axis + 1, start).lerp_(along(axis + 1, start + self._strides[axis]), weights[axis])

        return along(0, 0).view(self._position.shape[1:])

    def _index(self, voxels: Tensor) -> Tensor:
        index = torch.zeros(voxels[0].numel(), dtype=torch.int32)
        for along, stride in zip(voxels.flatten(1).int(), self._strides, strict=True):
            index.add_(along, alpha=stride)
        return index.long()  # twice as fast to read by


def _even_planes(shape: Sequence[int]) -> list[tuple[int, int]]:
    """The pairs of axes that are about as long as each other; at least the most even."""
    unevenness = {(a, b): max(shape[a] / shape[b], shape[b] / shape[a]) for a, b in combinations(range(len(shape)), 2)}
    limit = max(ANISOTROPY, min(unevenness.values()))
    return [plane for plane, value in unevenness.items() if value <= limit]


def _fill(nodes: np.ndarray, shape: Sequence[int]) -> Tensor:
    """``nodes`` (C, *coarse) brought to (C, *shape) linearly, first node on first voxel and last on last.

    Axis by axis, as products with matrices: a tenth of the time of ``F.interpolate``.
    """
    filled = torch.from_numpy(nodes.astype(np.float32))
    for side, count in zip(shape, nodes.shape[1:], strict=True):
        weights = F.interpolate(torch.eye(count)[None], size=side, mode="linear", align_corners=True)[0]
        filled = torch.tensordot(filled, weights, dims=([1], [0]))
    return filled


def _share(transforms: Sequence[object], state: np.random.RandomState) -> None:
    for transform in transforms:
        if isinstance(transform, Randomizable):
            transform.set_random_state(state=state)
        _share(getattr(transform, "transforms", ()), state)


def _check(sample: dict[str, Tensor], shape: list[int]) -> None:
    label = sample["label"]
    if list(sample["image"].shape) != shape or list(label.shape[1:]) != shape[1:]:
        raise ConfigError(
            f"augmentation.transforms made {list(sample['image'].shape)} of a patch of {shape} (label "
            f"{list(label.shape)}): they must keep the shape. Set the size by data.patch."
        )
    if label.is_floating_point() and not torch.equal(label, label.round()):
        raise ConfigError(
            "augmentation.transforms blended label values: set mode: [bilinear, nearest] for image and label."
        )
