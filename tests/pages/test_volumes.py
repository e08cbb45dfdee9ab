"""How the volumes of a case are brought under their budget for the compare page."""

import base64
import zlib
from dataclasses import replace

import numpy as np

from seg.pages import volumes
from seg.pages.volumes import Volumes, pack


def large() -> Volumes:
    """A noisy volume of uneven spacing with one structure, and a prediction with a stray voxel."""
    image = np.random.default_rng(0).normal(100, 20, (80, 90, 40)).astype(np.float32)
    label = np.zeros(image.shape, np.uint8)
    label[30:50, 40:60, 15:25] = 1
    pred = label.copy()
    pred[20, 20, 12] = 1
    return Volumes(image, label, [pred, None], (1.0, 1.0, 3.0))


def test_a_volume_stays_whole_while_it_fits() -> None:
    packed = pack(large(), 10**6)
    assert packed is not None
    assert packed.how == "whole"
    assert len(packed.payload) <= 10**6


def test_a_larger_one_is_cropped_around_all_masks() -> None:
    packed = pack(large(), 150_000)
    assert packed is not None
    assert packed.how == "cropped"
    assert len(packed.payload) <= 150_000
    assert packed.about["offset"] == [10, 10, 9], "the stray voxel minus 10 mm"
    assert packed.about["dims"] == [50, 60, 19], "to the end of the structure plus 10 mm"


def test_a_volume_of_microns_is_cropped_too() -> None:
    label = np.zeros((120, 120, 120), np.uint8)
    label[60:64, 60:64, 60:64] = 1
    image = np.random.default_rng(0).normal(100, 20, label.shape).astype(np.float32)
    packed = pack(Volumes(image, label, [], (0.0005, 0.0005, 0.0005)), 1_200_000)
    assert packed is not None
    assert packed.how == "cropped"
    assert packed.about["dims"] == [84, 84, 84]


def test_a_still_larger_one_becomes_coarser_along_its_finest_axes() -> None:
    packed = pack(large(), 20_000)
    assert packed is not None
    assert packed.how == "coarser"
    assert len(packed.payload) <= 20_000
    x, y, z = packed.about["step"]
    assert x >= y > z
    content = zlib.decompress(base64.b64decode(packed.payload))
    grey, label, _ = np.frombuffer(content, np.uint8).reshape(3, *packed.about["dims"])
    at = [slice(o + s // 2, None, s) for o, s in zip(packed.about["offset"], (x, y, z), strict=True)]
    assert (label == large().label[tuple(at)][tuple(slice(0, n) for n in label.shape)]).all()
    assert np.cumsum(grey, axis=1, dtype=np.uint8).std() > 10


def test_voxels_of_half_a_micron_keep_their_size() -> None:
    packed = pack(replace(large(), spacing_mm=(0.0005, 0.00048828125, 0.7)), 10**6)
    assert packed is not None
    assert packed.about["spacing"] == [0.0005, 0.000488281, 0.7]


def test_what_cannot_fit_is_told() -> None:
    assert pack(large(), 100) is None


def test_a_mean_of_blocks_repeats_the_edge() -> None:
    image = np.arange(5, dtype=np.float32).reshape(5, 1, 1)
    assert volumes._means(image, (2, 1, 1)).ravel().tolist() == [0.5, 2.5, 4]
    assert volumes._middles(image.astype(np.uint8), (2, 1, 1)).ravel().tolist() == [1, 3, 4]


def test_a_given_window_keeps_half_its_width_more() -> None:
    packed = pack(large(), 10**6, (60.0, 140.0))
    assert packed is not None
    assert packed.about["window"] == [60, 140]
    assert packed.about["kept"] == [20, 180]


def test_a_volume_of_one_value_and_no_structure_can_be_shown() -> None:
    empty = np.zeros((20, 20, 20), np.uint8)
    packed = pack(Volumes(empty.astype(np.float32), empty, [empty], (1.0, 1.0, 1.0)), 10**6)
    assert packed is not None
    assert packed.about["kept"][0] < packed.about["kept"][1]
