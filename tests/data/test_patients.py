"""Patients by pattern and by table: each whole in one part, or the table refused without showing a patient."""

import csv
import io
import logging
import random

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seg.data.patients import patients_of
from seg.errors import ConfigError

IDS = ["ann_1", "ann_2", "bob_1"]


def table(tmp_path, text, encoding="utf-8"):
    (tmp_path / "who.csv").write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return patients_of(IDS, tmp_path, "who.csv")


def test_a_pattern():
    assert patients_of(IDS, None, r"^(\w+)_\d") == {"ann_1": "ann", "ann_2": "ann", "bob_1": "bob"}


@pytest.mark.parametrize(
    ("patient", "words"),
    [
        (r"(ann)_\d", "no patient for 1 of 3 cases: bob_1"),
        (r"\w+", "0 groups"),
        (r"(", "not a regular expression"),
        ("none.csv", r"no file none\.csv"),
    ],
)
def test_a_pattern_that_does_not_fit_is_named(tmp_path, patient, words):
    with pytest.raises(ConfigError, match=words):
        patients_of(IDS, tmp_path, patient)


SOUND = {
    "columns swapped, more rows": "patient,case\nA,ann_1\nA,ann_2\nB,bob_1\nC,elsewhere\n",
    "blanks": " case , patient\nann_1, A\nann_2,A \n bob_1,B\n",
    "semicolons, another column": "case;age;patient\nann_1;3;A\nann_2;4;A\nbob_1;5;B\n",
    "tabs": "case\tpatient\nann_1\tA\nann_2\tA\nbob_1\tB\n",
    "capitals in the heading, empty lines": "\ufeffCase,Patient\r\n\r\nann_1,A\r\nann_2,A\r\n,\r\nbob_1,B\r\n",
    "file names": "case,patient\nann_1.nii.gz,A\nann_2.nii,A\nbob_1,B\n",
    "marks of no width": "case,patient\nann_1,\u200bA\nann_2,A\u00a0\nbob_1,B\n",
    "quotes": 'case,patient\n"ann_1","A"\nann_2,A\nbob_1,B\n',
}


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_table(tmp_path, name):
    assert [table(tmp_path, SOUND[name])[case] for case in IDS] == ["A", "A", "B"]


def test_letters_taken_apart_are_one_name(tmp_path):
    found = table(tmp_path, "case,patient\nann_1,Andr\u00e9  X\nann_2,Andre\u0301 X\nbob_1,B\n")
    assert found["ann_1"] == found["ann_2"]


WRONG = {
    "empty": ("case,patient\nann_1,SECRET\nann_2, \nbob_1,\n", "line 3 names no patient for case ann_2"),
    "unknown": ("case,patient\nann_1,SECRET\nann_2,NA\nbob_1,SECRET\n", "line 3 names no patient for case ann_2"),
    "no case": ("case,patient\nann_1,SECRET\n,SECRET\nbob_1,SECRET\n", "line 3 names no case"),
    "contradicted": ("case,patient\nann_1,SECRET\nann_2,A\nbob_1,B\nann_1,A\n", "line 5 names case ann_1 again, and"),
    "doubled": ("case,patient\nann_1,SECRET\nann_2,A\nbob_1,B\nann_1,SECRET\n", "line 5 names case ann_1 again; the"),
    "no comma": ("case,patient\nann_1,SECRET\nann_2 SECRET\nbob_1,B\n", "line 3 has 1 cells, the heading has 2"),
    "too many": ("case,patient\nann_1,SECRET\nann_2,A,B\nbob_1,B\n", "line 3 has 3 cells"),
    "capitals": ("case,patient\nann_1,SECRET\nann_2,Secret\nbob_1,B\n", "cases ann_1, ann_2 differ in capital"),
    "a number made of it": (
        "case,patient\nann_1,SECRET 7.0\nann_2,SECRET 7\nbob_1,B\n",
        "cases ann_1, ann_2 differ in",
    ),
    "zeros": ("case,patient\nann_1,SECRET 007\nann_2,SECRET 7\nbob_1,B\n", "cases ann_1, ann_2 differ in"),
    "apostrophe": ("case,patient\nann_1,'SECRET\nann_2,SECRET\nbob_1,B\n", "cases ann_1, ann_2 differ in"),
    "wide": ("case,patient\nann_1,SECRET\nann_2,\uff33ECRET\nbob_1,B\n", "cases ann_1, ann_2 differ in"),
    "separator": ("case,patient\nann_1,SECRET_1\nann_2,SECRET-1\nbob_1,B\n", "cases ann_1, ann_2 differ in"),
    "dots": ("case,patient\nann_1,SECRET\nann_2,..\nbob_1,B\n", "line 3 names no patient for case ann_2"),
    "a spreadsheet's error": ("case,patient\nann_1,SECRET\nann_2,#REF!\nbob_1,#N/A\n", "line 3 names no patient"),
    "pandas' nothing": ("case,patient\nann_1,SECRET\nann_2,<NA>\nbob_1,NaT\n", "line 3 names no patient"),
    "missing": ("case,patient\nann_1,SECRET\nann_2,SECRET\n", "no patient for 1 of 3 cases: bob_1"),
    "open quote": ('case,patient\nann_1,"SECRET\nann_2,A\nbob_1,B\n', "not readable as CSV"),
    "no heading": ("ann_1,SECRET\nann_2,A\nbob_1,B\n", "columns 'case' and 'patient'"),
    "two headings": ("case,patient,patient\nann_1,SECRET,A\n", "columns 'case' and 'patient'"),
    "nothing": ("", "columns 'case' and 'patient'"),
    "Latin-1": ("case,patient\nann_1,SECRET\u00e9\nann_2,A\nbob_1,B\n".encode("latin-1"), "not UTF-8"),
    "UTF-16": ("case,patient\nann_1,SECRET\nann_2,A\nbob_1,B\n".encode("utf-16"), "not UTF-8"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_table_is_refused_without_a_patient_in_the_message(tmp_path, name):
    text, words = WRONG[name]
    with pytest.raises(ConfigError, match=words) as caught:
        table(tmp_path, text)
    assert "secret" not in str(caught.value).lower()


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=6), min_size=3, max_size=12),
    st.randoms(use_true_random=False),
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rows_that_name_one_patient_give_one_patient_or_are_refused(tmp_path, names, rng: random.Random):
    """Whatever a patient is called: the order of rows and blanks around names change nothing."""
    pairs = [(f"c{number}", name) for number, name in enumerate(names)]
    ids = [case for case, _ in pairs]

    def read(rows):
        text = io.StringIO()
        csv.writer(text).writerows([("case", "patient"), *rows])
        (tmp_path / "who.csv").write_bytes(text.getvalue().encode())
        try:
            return patients_of(ids, tmp_path, "who.csv")
        except ConfigError as error:
            return type(error)

    first = read(pairs)
    if isinstance(first, dict):
        assert all(first.values())
        assert all(first[a] == first[b] for a, x in pairs for b, y in pairs if x == y)
    blanks = [(case, rng.choice(["", " ", "\t"]) + name + rng.choice(["", " "])) for case, name in pairs]
    rng.shuffle(blanks)
    assert read(blanks) == first


def test_sessions_of_a_subject_in_bids_are_of_one_patient(caplog):
    ids = ["sub-01_ses-1", "sub-01_ses-2", "sub-02_ses-1", "sub-02_ses-1_run-2", "sub-03"]
    subjects = ["sub-01", "sub-01", "sub-02", "sub-02", "sub-03"]
    assert patients_of(ids, None, None) == dict(zip(ids, subjects, strict=True))
    assert not caplog.text
    assert len(set(patients_of(ids, None, "^(.*)$").values())) == len(ids)


@pytest.mark.parametrize(
    ("ids", "patients"),
    [
        (["patient005_frame01", "patient005_frame13", "patient006_frame01"], 2),
        (["k1_L", "k1_R", "k2_L"], 2),
        (["k1-left", "k1-right"], 1),
        (["ann_1", "ann_2", "bob_1"], 2),
        (["p01_2020_a", "p01_2021_b", "p02_2020_c"], 2),
        (["ann-1", "ann-2", "bob-1"], 2),
        (["left_k1", "right_k1", "left_k2", "right_k2"], 2),
        (["p1.1", "p1.2", "p2.1"], 2),
        (["p1 a", "p1 b", "p2 a"], 2),
        (["p1(1)", "p1(2)", "p2(1)"], 2),
        (["p1L", "p1R", "p2L"], 2),
        (["P01t1", "P01t2", "P02t1"], 2),
        (["p1pre", "p1post", "p2pre"], 2),
        (["case_01a", "case_01b", "case_02", "case_03"], 3),
        (["case_01", "case_01b", "case_02", "case_03"], 3),
        (["pat12_t0", "pat12_t1", "pat13_t0"], 2),
    ],
)
def test_cases_that_look_like_one_patients_are_a_warning_with_the_pattern_to_set(caplog, ids, patients):
    assert patients_of(ids, None, None) == {case: case for case in ids}
    (override,) = [word for word in caplog.text.split() if word.startswith("data.patient=") and "(.*)" not in word][:1]
    pattern = OverridesParser.create().parse_override(override.rstrip(";.")).value()
    caplog.clear()
    assert len(set(patients_of(ids, None, str(pattern)).values())) == patients
    assert len(set(patients_of(ids, None, "^(.*)$").values())) == len(ids)
    assert not caplog.text


def test_where_no_pattern_fits_every_case_a_table_is_proposed(caplog):
    patients_of(["patient005_frame01", "patient005_frame13", "patient006"], None, None)
    assert "data.patient=patients.csv, a table" in caplog.text


@pytest.mark.parametrize(
    "ids",
    [
        ["amos_0001", "amos_0002"],
        ["a", "b"],
        ["case01", "case02", "case03"],
        ["hippocampus_001", "hippocampus_003", "hippocampus_004", "copy"],
        [f"{hospital}_{n:03}" for hospital in ("siteA", "siteB") for n in range(5)],
    ],
)
def test_ids_that_share_the_name_of_a_data_set_or_a_hospital_alone_are_no_warning(caplog, ids):
    with caplog.at_level(logging.WARNING):
        patients_of(ids, None, None)
    assert not caplog.text
