import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, label

from seg.data import nifti, volumes
from seg.data.fingerprint import fingerprint
from seg.data.phantom import phantom, volume
from seg.errors import DataError


def test_the_set_passes_the_data_check_and_both_structures_are_everywhere(phantom_root, tmp_path):
    caseset = phantom(phantom_root, cases=12, seed=0)
    found = fingerprint(caseset, tmp_path)
    assert len(found.cases) == 12
    assert caseset.names == ("background", "lobe", "tail")
    assert all(case.foreground_voxels[1] > 1000 and case.foreground_voxels[2] > 50 for case in found.cases)
    assert len({case.spacing_mm for case in found.cases}) == 12
    assert len({case.intensity[0].mean // 100 for case in found.cases}) > 3, "brightness varies from case to case"


def test_files_hold_the_volumes_whatever_their_orientation(phantom_root):
    for number, case in enumerate(phantom(phantom_root, cases=12, seed=0).cases[:2]):
        image, truth, affine = volume(0, number)
        stored, stored_affine = volumes.read_image(case.images)
        read, read_affine = nifti.to_ras(stored, stored_affine)
        np.testing.assert_array_equal(read[0], image)
        np.testing.assert_array_equal(nifti.to_ras(volumes.read_label(case.label), stored_affine)[0], truth)
        np.testing.assert_allclose(np.diag(read_affine)[:3], np.diag(affine)[:3], rtol=1e-6)
    headers = [volumes.read_header(case.images[0]) for case in phantom(phantom_root, cases=12, seed=0).cases]
    assert {np.sign(header.affine[0, 0]) for header in headers} == {1, -1}
    assert {header.dtype for header in headers} == {np.dtype(np.int16)}


@pytest.mark.parametrize("number", range(3))
def test_the_tail_grows_out_of_the_lobe(number):
    _, truth, _ = volume(0, number)
    parts, count = label(truth > 0)
    largest = max(range(1, count + 1), key=lambda part: (parts == part).sum())
    assert ((parts == largest) & (truth == 2)).sum() > 0.9 * (truth == 2).sum()
    assert (binary_dilation(truth == 1) & (truth == 2)).any()


def test_brightness_alone_does_not_find_the_structures():
    """The best threshold of all, chosen with the truth in hand, stays far from a useful Dice."""
    for number in range(3):
        image, truth, _ = volume(0, number)
        dice = [
            2 * ((image > cut) & (truth > 0)).sum() / ((image > cut).sum() + (truth > 0).sum())
            for cut in np.percentile(image, range(70, 100))
        ]
        assert max(dice) < 0.75


def test_seed_and_number_decide_every_voxel():
    np.testing.assert_array_equal(volume(3, 1)[0], volume(3, 1)[0])
    shapes = {volume(seed, number)[1].tobytes() for seed in (3, 4) for number in (1, 2)}
    assert len(shapes) == 4


def test_a_set_that_is_there_is_not_written_again(phantom_root):
    before = {path: path.stat().st_mtime_ns for path in phantom_root.rglob("*")}
    phantom(phantom_root, cases=12, seed=0)
    assert {path: path.stat().st_mtime_ns for path in phantom_root.rglob("*")} == before


@pytest.mark.parametrize("other", [{"cases": 13, "seed": 0}, {"cases": 12, "seed": 1}])
def test_other_settings_for_the_same_folder_are_refused(phantom_root, other):
    with pytest.raises(DataError, match=r"'cases': 12.*is wanted"):
        phantom(phantom_root, **other)


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(DataError, match="something other than a phantom"):
        phantom(tmp_path, cases=1)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_dataset_json_that_is_no_object_is_named(tmp_path):
    (tmp_path / "dataset.json").write_text("[]")
    with pytest.raises(DataError, match=r"dataset\.json: holds a list"):
        phantom(tmp_path, cases=1)


@pytest.mark.slow
def test_several_processes_may_start_together(tmp_path):
    root = tmp_path / "set"
    with ProcessPoolExecutor(3, multiprocessing.get_context("spawn")) as pool:
        found = list(pool.map(_start, [root] * 3))
    assert found == [2, 2, 2]
    assert list(tmp_path.iterdir()) == [root], "nothing half-made is left beside it"
    assert len(json.loads((root / "dataset.json").read_text())["training"]) == 2


def _start(root):
    return len(phantom(root, cases=2).cases)


def test_a_failed_start_leaves_nothing(tmp_path, monkeypatch):
    def full(path, array, affine):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(nifti, "write_volume", full)
    with pytest.raises(OSError, match="No space"):
        phantom(tmp_path / "set", cases=1)
    assert list(tmp_path.iterdir()) == []
