import os
import re
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from seg.data import fingerprint as module
from seg.data.cases import Case, CaseSet
from seg.data.fingerprint import Fingerprint, fingerprint
from seg.errors import DataError

CLASSES = {"background": 0, "a": 2, "b": 5}


def save(path, array, affine=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.diag([1.0, 2, 3, 1]) if affine is None else affine), path)
    return path


def voxels(seed=0):
    """Image and label of one sound case."""
    rng = np.random.default_rng(seed)
    return rng.normal(50, 10, (6, 7, 8)).astype(np.float32), rng.choice([0, 2, 5], (6, 7, 8)).astype(np.uint8)


@pytest.fixture
def caseset(tmp_path):
    cases = []
    for number in range(3):
        image, label = voxels(number)
        paths = save(tmp_path / f"i/c{number}.nii.gz", image), save(tmp_path / f"l/c{number}.nii.gz", label)
        cases.append(Case(f"c{number}", f"p{number}", (paths[0],), paths[1]))
    return CaseSet("set", tuple(cases), ("MRI",), CLASSES)


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def test_a_case_is_described(caseset, cache):
    found, (image, label) = fingerprint(caseset, cache).by_id["c1"], voxels(1)
    assert found.foreground_voxels == {1: (label == 2).sum(), 2: (label == 5).sum()}
    assert (found.shape, found.spacing_mm, found.patient) == ((6, 7, 8), (1.0, 2.0, 3.0), "p1")
    assert found.foreground_mm3 == (label > 0).sum() * 6
    (intensity,) = found.intensity
    assert intensity.mean == pytest.approx(image[label > 0].mean(), rel=1e-5)
    assert intensity.std == pytest.approx(image[label > 0].std(), rel=1e-5)
    assert np.percentile(intensity.quantiles, 50) == pytest.approx(np.median(image[label > 0]), abs=0.5)


def test_shape_and_spacing_are_in_ras_order(tmp_path, cache):
    image, label = voxels()
    affine = np.array([[0, 0, -3.0, 9], [1, 0, 0, 0], [0, 2, 0, 0], [0, 0, 0, 1]])
    case = Case("c", "c", (save(tmp_path / "i.nii", image, affine),), save(tmp_path / "l.nii", label, affine))
    (found,) = fingerprint(CaseSet("set", (case,), ("MRI",), CLASSES), cache).cases
    assert (found.shape, found.spacing_mm) == ((8, 6, 7), (3.0, 1.0, 2.0))


def test_a_label_without_foreground_is_fine_among_others(caseset, tmp_path, cache):
    image, label = voxels()
    case = Case("c", "c", (save(tmp_path / "i.nii", image),), save(tmp_path / "l.nii", 0 * label))
    found = fingerprint(CaseSet("set", (*caseset.cases, case), ("MRI",), CLASSES), cache).by_id["c"]
    assert found.foreground_voxels == {1: 0, 2: 0}
    assert found.intensity == ()
    assert "set: no case has any structure" in faults_of(case, cache)


def test_a_class_that_no_case_has_is_a_warning(caseset, cache, caplog):
    fingerprint(replace(caseset, classes=CLASSES | {"never": 9}), cache)
    assert "no case has the class 'never'" in caplog.text
    assert "'a'" not in caplog.text


def test_what_nobody_annotated_is_neither_a_fault_nor_foreground(tmp_path, cache):
    image, label = voxels()
    label[:3] = 7
    image[:3] = 1e6
    case = Case("c", "c", (save(tmp_path / "i.nii", image),), save(tmp_path / "l.nii", label))
    (found,) = fingerprint(CaseSet("set", (case,), ("MRI",), CLASSES, ignore=7), cache).cases
    assert found.foreground_voxels == {1: (label == 2).sum(), 2: (label == 5).sum()}
    assert found.intensity[0].mean < 100
    assert "{7: 168}" in faults_of(case, cache)


@pytest.mark.parametrize("value", [255, -1])
def test_a_value_that_may_mean_ignore_is_a_question(tmp_path, cache, value):
    image, label = voxels()
    label = label.astype(np.int16)
    label[0] = value
    case = Case("c", "c", (save(tmp_path / "i.nii", image),), save(tmp_path / "l.nii", label))
    assert f'"ignore": {value}' in faults_of(case, cache)


def test_sheared_axes_are_refused_unless_they_are_allowed(tmp_path, cache, caplog):
    image, label = voxels()
    affine = np.array([[1, 0, 0.5, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    case = Case("c", "c", (save(tmp_path / "i.nii", image, affine),), save(tmp_path / "l.nii", label, affine))
    for _ in range(2):  # from the cache, too
        found = faults_of(case, cache)
        assert "i.nii: its axes are not at right angles" in found
        assert "data.allow_shear=true" in found
    fingerprint(CaseSet("set", (case,), ("MRI",), CLASSES), cache, allow_shear=True)
    assert "not at right angles" in caplog.text


def test_headers_that_contradict_themselves_are_named_each_time(tmp_path, cache, caplog):
    image, label = voxels()
    case = Case("c", "c", (save(tmp_path / "i.nii", image),), save(tmp_path / "l.nii", label))
    content = bytearray(case.images[0].read_bytes())
    content[80:92] = np.array([1.3, 1.3, 10], np.float32).tobytes()  # pixdim
    case.images[0].write_bytes(content)
    for _ in range(2):
        caplog.clear()
        fingerprint(CaseSet("set", (case,), ("MRI",), CLASSES), cache)
        assert "i.nii: pixdim says voxels of 1.3×1.3×10 mm, the sform 1×2×3 mm, which was taken" in caplog.text
        assert "l.nii" not in caplog.text


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:-9],
        lambda text: text.replace("1", "2", 1),
        *(lambda text, content=content: content for content in ("", "{", "[]", "null", '{"cases": null}')),
    ],
)
def test_a_damaged_cache_is_read_again_and_said(caseset, cache, damage, caplog):
    first = fingerprint(caseset, cache)
    (path,) = cache.iterdir()
    path.write_text(damage(path.read_text()))
    assert fingerprint(caseset, cache) == first
    assert "is damaged" in caplog.text
    caplog.clear()
    assert fingerprint(caseset, cache) == first
    assert not caplog.text


def broken(caseset, tmp_path):
    """Every fault that the check knows, one a case; the words that must name it."""
    image, label = voxels()
    nan = image.copy()
    nan[0, 0, :2] = np.nan, np.inf
    good, files = caseset.cases[0], tmp_path / "broken"
    (files / "empty.nii.gz").parent.mkdir()
    (files / "empty.nii.gz").touch()
    whole = save(files / "whole.nii.gz", np.random.default_rng(0).random((9, 9, 9)).astype(np.float32)).read_bytes()
    (files / "cut.nii.gz").write_bytes(whole[:1500])
    shape = save(files / "shape.nii.gz", label[1:])
    moved = save(files / "moved.nii.gz", label, np.diag([-1.0, 2, 3, 1]))
    return {
        r"gone\.nii\.gz: no such file": ((files / "gone.nii.gz",), good.label),
        r"empty\.nii\.gz.*empty": ((files / "empty.nii.gz",), good.label),
        r"cut\.nii\.gz.*cut off": ((files / "cut.nii.gz",), save(files / "same.nii", np.zeros((9, 9, 9), np.uint8))),
        r"four\.nii\.gz.*2 channels, but 1": ((save(files / "four.nii.gz", np.stack([image, image], -1)),), good.label),
        r"nan\.nii\.gz: 2 voxels are NaN": ((save(files / "nan.nii.gz", nan),), good.label),
        r"values\.nii\.gz: label has values \{3: 1\}": (
            good.images,
            save(files / "values.nii.gz", np.where(np.arange(336).reshape(6, 7, 8) == 4, 3, 2).astype(np.uint8)),
        ),
        r"half\.nii\.gz.*not whole": (good.images, save(files / "half.nii.gz", image)),
        r"shape\.nii\.gz: shape 5×7×8": (good.images, shape),
        r"moved\.nii\.gz.*share one grid": (good.images, moved),
        r"black\.nii\.gz: every voxel is 0": ((save(files / "black.nii.gz", 0 * image),), good.label),
        r"case unlabelled has no label": (good.images, None),
    }


def test_every_fault_of_every_case_is_in_one_message(caseset, cache, tmp_path):
    faults = broken(caseset, tmp_path)
    names = ["unlabelled" if label is None else f"bad{n}" for n, (_, label) in enumerate(faults.values())]
    bad = tuple(Case(name, name, *files) for name, files in zip(names, faults.values(), strict=True))
    with pytest.raises(DataError) as caught:
        fingerprint(CaseSet("set", caseset.cases + bad + caseset.cases[:1], ("MRI",), CLASSES), cache)
    for words in faults:
        assert re.search(words, str(caught.value)), words
    assert "case c0 appears 2 times" in str(caught.value)
    assert str(caught.value).startswith(f"{len(faults) + 1} faults")


def faults_of(case, cache, channels=("MRI",)):
    with pytest.raises(DataError) as caught:
        fingerprint(CaseSet("set", (case,), channels, CLASSES), cache)
    return str(caught.value)


def test_every_fault_of_one_case_is_in_one_message(tmp_path, cache):
    image, label = voxels()
    image[0, 0, 0], label[0, 0, 0] = np.nan, 99
    moved = save(tmp_path / "l.nii", label, np.diag([1.0, 2, 4, 1]))
    found = faults_of(Case("c", "c", (save(tmp_path / "i.nii", image),), moved), cache)
    for words in ("3 faults", "i.nii: 1 voxels are NaN", "l.nii: label has values {99: 1}", "must share one grid"):
        assert words in found


def test_an_unreadable_image_hides_no_fault_of_the_label_nor_of_another_channel(tmp_path, cache):
    image, label = voxels()
    cut = save(tmp_path / "i_0000.nii", image, np.diag([1.0, 2, 4, 1]))
    cut.write_bytes(cut.read_bytes()[:-100])
    paths = (cut, tmp_path / "gone.nii", save(tmp_path / "i_0002.nii", np.full_like(image, np.inf)))
    found = faults_of(Case("c", "c", paths, save(tmp_path / "l.nii", label + 90)), cache, ("T1", "T2", "T3"))
    for words in (
        "i_0000.nii: the file is cut off",
        "gone.nii: no such file",
        "voxels are NaN",
        "label has values {90:",
    ):
        assert words in found
    assert found.count("but i_0000.nii has shape 6×7×8, spacing 1×2×4 mm") == 2


def test_an_unreadable_label_hides_no_fault_of_the_image(tmp_path, cache):
    image, _ = voxels()
    both = save(tmp_path / "i.nii", np.stack([image, np.full_like(image, 7), image], -1))
    found = faults_of(Case("c", "c", (both,), tmp_path / "gone.nii"), cache, ("T1", "T2"))
    for words in ("3 faults", "gone.nii: no such file", "3 channels, but 2", "channel 1: every voxel is 7"):
        assert words in found


def test_no_case_at_all_is_an_error(cache):
    with pytest.raises(DataError, match="set: no case was found"):
        fingerprint(CaseSet("set", (), ("MRI",), CLASSES), cache)


def test_a_look_at_some_cases_keeps_what_is_known_of_the_others(caseset, cache, monkeypatch):
    first = fingerprint(caseset, cache)
    fingerprint(replace(caseset, cases=caseset.cases[:2]), cache)
    monkeypatch.setattr(module, "_inspect", lambda case, caseset: pytest.fail(f"{case.id} was read again"))
    assert fingerprint(caseset, cache) == first


def test_second_time_no_file_is_read(caseset, cache, monkeypatch):
    first = fingerprint(caseset, cache)
    monkeypatch.setattr(module, "_inspect", lambda case, caseset: pytest.fail(f"{case.id} was read again"))
    assert fingerprint(caseset, cache) == first


def test_a_changed_file_is_read_again_and_changes_the_hash(caseset, cache):
    first, path = fingerprint(caseset, cache), caseset.cases[1].images[0]
    time = path.stat().st_mtime_ns
    save(path, voxels(1)[0] + 1)
    os.utime(path, ns=(time, time + 1))
    second = fingerprint(caseset, cache)
    assert second.hash != first.hash
    assert second.by_id["c1"].intensity[0].mean == pytest.approx(first.by_id["c1"].intensity[0].mean + 1, rel=1e-4)
    assert second.by_id["c0"] == first.by_id["c0"]


def test_hash_follows_the_meaning_of_the_labels_not_the_place_of_the_files(caseset, cache, tmp_path):
    first = fingerprint(caseset, cache).hash
    other = CaseSet("other", caseset.cases, caseset.channels, {"background": 0, "b": 2, "a": 5})
    assert fingerprint(other, cache).hash != first
    for folder in ("i", "l"):
        (tmp_path / folder).rename(tmp_path / f"moved_{folder}")

    def moved(path):
        return Path(tmp_path / f"moved_{path.parent.name}" / path.name)

    cases = tuple(Case(c.id, c.patient, (moved(c.images[0]),), moved(c.label)) for c in caseset.cases)
    assert fingerprint(CaseSet("set", cases, caseset.channels, CLASSES), cache).hash == first


def test_patients_are_not_taken_from_the_cache(caseset, cache):
    fingerprint(caseset, cache)
    cases = tuple(Case(c.id, "everyone", c.images, c.label) for c in caseset.cases)
    found = fingerprint(CaseSet("set", cases, caseset.channels, CLASSES), cache)
    assert {case.patient for case in found.cases} == {"everyone"}


def test_json_and_restriction(caseset, cache):
    whole = fingerprint(caseset, cache)
    assert Fingerprint.from_json(whole.to_json()) == whole
    part = whole.of(["c2", "c0"])
    assert [case.id for case in part.cases] == ["c0", "c2"]
    assert part.hash != whole.hash


def test_a_label_that_is_its_image_is_named(caseset, cache):
    image, label = caseset.cases[1].images[0], caseset.cases[1].label
    image.write_bytes(label.read_bytes())
    with pytest.raises(DataError, match=rf"{label.name}: is one of its images"):
        fingerprint(caseset, cache)


def test_a_channel_that_is_there_twice_is_a_note(caseset, cache, caplog):
    cases = tuple(replace(case, images=case.images * 2) for case in caseset.cases[:1])
    fingerprint(replace(caseset, cases=cases, channels=("T1", "T2")), cache)
    assert "channel 1 of the case is the same as channel 0" in caplog.text
