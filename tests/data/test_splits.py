import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seg.data.fingerprint import CasePrint, Fingerprint
from seg.data.splits import Split, check_split, load_split, make_split
from seg.errors import ConfigError, DataError


def print_of(case_id, patient=None, voxels=100, image="", spacing_mm=(1.0, 1.0, 1.0)):
    image = image or f"image of {case_id}"
    return CasePrint(case_id, patient or case_id, (9, 9, 9), spacing_mm, f"{case_id}", image, {1: voxels}, ())


def data(*cases):
    return Fingerprint(tuple(cases), ("MRI",), {"background": 0, "a": 1})


def many(patients, visits=1, seed=0):
    sizes = np.random.default_rng(seed).integers(1, 10_000, patients)
    return data(
        *(print_of(f"p{n:03}_{v}", f"p{n:03}", int(sizes[n]) + v) for n in range(patients) for v in range(visits))
    )


counts = st.tuples(st.integers(2, 6), st.integers(12, 60), st.integers(1, 3), st.integers(0, 99))


@given(counts, st.sampled_from([0.0, 0.1, 0.25, 0.5]))
@settings(max_examples=40)
def test_folds_cover_every_case_once_and_share_no_patient(count, test_fraction):
    folds, patients, visits, seed = count
    fingerprint = many(patients, visits, seed)
    splits = [
        make_split(fingerprint, fold=f, folds=folds, test_fraction=test_fraction, seed=seed) for f in range(folds)
    ]
    assert {split.test for split in splits} == {splits[0].test}
    validated = [case for split in splits for case in split.val]
    assert sorted(validated + list(splits[0].test)) == [case.id for case in fingerprint.cases]
    for split in splits:
        assert sorted(split.train + split.val + split.test) == [case.id for case in fingerprint.cases]
        owners = [{case[:4] for case in part} for part in (split.train, split.val, split.test)]
        assert sum(map(len, owners)) == patients
    sizes = [len({case[:4] for case in split.val}) for split in splits]
    assert max(sizes) - min(sizes) <= 1
    assert len({case[:4] for case in splits[0].test}) == pytest.approx(test_fraction * patients, abs=0.5)


@given(counts)
@settings(max_examples=20)
def test_the_test_part_depends_on_neither_fold_nor_folds(count):
    folds, patients, visits, seed = count
    fingerprint = many(patients, visits)
    everything = make_split(fingerprint, fold="all", folds=5, test_fraction=0.2, seed=seed)
    assert everything.test == make_split(fingerprint, fold=1, folds=folds, test_fraction=0.2, seed=seed).test
    assert everything.val == ()
    assert set(everything.train) | set(everything.test) == {case.id for case in fingerprint.cases}


def test_the_order_of_the_cases_does_not_matter():
    fingerprint = many(30)
    turned = data(*reversed(fingerprint.cases))
    arguments = {"fold": 0, "folds": 5, "test_fraction": 0.2, "seed": 3}
    assert make_split(fingerprint, **arguments) == make_split(turned, **arguments)


def test_another_seed_gives_another_split():
    one, two = (make_split(many(30), fold=0, folds=5, test_fraction=0.2, seed=seed) for seed in (0, 1))
    assert one.test != two.test
    assert one.hash != two.hash


def test_parts_are_alike_in_volume():
    """By chance alone the means of 20 out of 100 differ by some 600 voxels here; strata bring that to about 50."""
    fingerprint = many(100)
    volume = {case.id: case.foreground_mm3 for case in fingerprint.cases}
    everyone = np.mean(list(volume.values()))
    for fold in range(4):
        split = make_split(fingerprint, fold=fold, folds=4, test_fraction=0.2, seed=fold)
        for part in (split.train, split.val, split.test):
            assert np.mean([volume[case] for case in part]) == pytest.approx(everyone, abs=250)


def test_a_split_once_published_stays_as_it_is():
    """Scores are compared across versions on one test part: it may never change."""
    fingerprint = data(*(print_of(f"c{n:02}", voxels=n * n % 37) for n in range(20)))
    split = make_split(fingerprint, fold=1, folds=4, test_fraction=0.2, seed=0)
    assert split.test == ("c07", "c09", "c12", "c18")
    assert split.val == ("c01", "c08", "c14", "c19")


def test_the_hippocampus_test_part_stays_as_it_is(hippocampus_root, tmp_path):
    from seg.data.cases import hippocampus
    from seg.data.fingerprint import fingerprint

    found = fingerprint(hippocampus(hippocampus_root), tmp_path)
    split = make_split(found, fold="all", folds=5, test_fraction=0.2, seed=0)
    assert split.hash == "285cfc130ef5386a1c7fe9d51381f22e7067c0a059b277d2a1fa2dc64a127190"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"fold": 5}, "data.fold=5"),
        ({"fold": -1}, "data.fold=-1"),
        ({"folds": 1}, "data.folds=1"),
        ({"test_fraction": 1.0}, "data.test_fraction=1.0"),
        ({"test_fraction": -0.1}, "data.test_fraction=-0.1"),
        ({"folds": 11}, "10 patients are left after the test part; at least 11"),
    ],
)
def test_arguments_out_of_range_are_named(changed, words):
    arguments = {"fold": 0, "folds": 5, "test_fraction": 0.2, "seed": 0} | changed
    with pytest.raises(ConfigError, match=words):
        make_split(many(12), **arguments)


def test_twins_under_two_patients_are_refused_wherever_they_fall():
    cases = [print_of(f"c{n}", voxels=n) for n in range(12)]
    cases += [print_of(f"d{n}", voxels=n, image=f"image of c{n}") for n in range(12)]
    with pytest.raises(DataError, match=r"the same image is in both train and val: c\d+ = d\d+"):
        make_split(data(*cases), fold=0, folds=2, test_fraction=0, seed=0)


def test_json_keeps_the_split(tmp_path):
    fingerprint = many(20)
    split = make_split(fingerprint, fold=2, folds=4, test_fraction=0.2, seed=0)
    assert Split.from_json(split.to_json()) == split
    (tmp_path / "split.json").write_text(split.to_json())
    assert load_split(tmp_path / "split.json", fingerprint, 0).hash == split.hash


@pytest.fixture
def own(tmp_path):
    def write(content):
        (tmp_path / "own.json").write_text(content if isinstance(content, str) else json.dumps(content))
        return tmp_path / "own.json"

    return write


CASES = data(
    print_of("a1", "a"),
    print_of("a2", "a"),
    print_of("b1", "b"),
    print_of("c1", "c"),
    print_of("d1", "d", image="image of c1"),
)


def test_a_list_of_folds_without_a_test_part_is_read(own):
    path = own([{"train": ["a1", "a2"], "val": ["b1"]}, {"train": ["b1"], "val": ["a1"]}])
    split = load_split(path, CASES, 1)
    assert (split.train, split.val, split.test, split.folds) == (("b1",), ("a1",), (), 2)


def test_cases_that_the_file_leaves_out_are_named(own, caplog):
    load_split(own({"train": ["a1", "a2"], "val": ["b1"], "test": ["c1"]}), CASES, 0)
    assert "own.json names no part for 1 of 5 cases: d1" in caplog.text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"train": ["a1"], "val": ["a2"]}, "cases of one patient are in both train and val: a1, a2"),
        ({"train": ["a1"], "test": ["a2"]}, "cases of one patient are in both train and test: a1, a2"),
        ({"train": ["b1"], "val": ["a1"], "test": ["a2"]}, "cases of one patient are in both val and test: a1, a2"),
        ({"train": ["c1"], "test": ["d1"]}, "same image is in both train and test: c1 = d1"),
        ({"train": ["a1", "x"], "test": ["y"]}, r"2 faults(.|\n)*train names cases.*x(.|\n)*test names cases.*y"),
        ({"train": [], "val": ["a1"]}, "train is empty"),
        ({"train": ["a1", "a1"]}, "train names cases twice: a1"),
        ({"val": ["a1"]}, "a list of those is needed"),
        ({"training": ["a1"]}, "no key 'training'. Did you mean 'train'"),
        ({"train": ["a1"], "valid": ["b1"]}, "no key 'valid'. Did you mean 'val'"),
        ([{"train": ["a1"]}, {"train": ["a1"], "validation": ["b1"]}], "no key 'validation'. Did you mean 'val'"),
        ({"train": ["a1"], "TEST": ["b1"]}, "no key 'TEST'. Did you mean 'test'"),
        ({"train": ["a1"], "comment": "ours"}, "no key 'comment'. Keys: train, val, test"),
        ({"train": "a1"}, "a list of those is needed"),
        ([], "a list of those is needed"),
        ("{", "not readable as JSON"),
    ],
)
def test_faults_of_own_splits_are_named_with_the_file(own, content, words):
    with pytest.raises(DataError, match=words) as caught:
        load_split(own(content), CASES, 0)
    assert "own.json" in str(caught.value)


@pytest.mark.parametrize("fold", [2, -1, "all"])
def test_a_fold_that_the_file_does_not_have(own, fold):
    with pytest.raises(ConfigError, match=r"data\.fold=.*own\.json has 2"):
        load_split(own([{"train": ["a1"]}, {"train": ["b1"]}]), CASES, fold)


def test_a_sound_split_passes():
    check_split(Split(("a1", "a2"), ("b1",), ("c1",), fold=0, folds=1, seed=0), CASES)


@pytest.mark.parametrize("part", ["train", "val"])
def test_a_part_without_any_structure_is_refused(part):
    cases = data(print_of("a", voxels=0 if part == "train" else 9), print_of("b", voxels=0 if part == "val" else 9))
    with pytest.raises(DataError, match=f"no case of {part} has any structure"):
        check_split(Split(("a",), ("b",), (), fold=0, folds=1, seed=0), cases)


def test_a_class_that_no_training_case_has_is_a_warning(caplog):
    cases = Fingerprint((print_of("a"), print_of("b")), ("MRI",), {"background": 0, "a": 1, "rare": 2})
    cases.by_id["b"].foreground_voxels[2] = 5
    check_split(Split(("a",), ("b",), (), fold=0, folds=1, seed=0), cases)
    assert "no training case has the class 'rare'" in caplog.text
    assert "'a'" not in caplog.text
