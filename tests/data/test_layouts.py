"""Folders as people keep them: every case found, or what is wrong named."""

import gzip
import json
import unicodedata
from collections import Counter

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seg.data.cases import folder
from seg.data.fingerprint import fingerprint
from seg.errors import SegError

ENDINGS = [".nii", ".nii.gz", ".NII.GZ", ".Nii", ".NII"]


def volume(path, label=False, value=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.arange(27, dtype=np.uint8).reshape(3, 3, 3)
    if label:
        array = np.where(array > 13, value, 0).astype(np.uint8)
    content = nib.Nifti1Image(array, np.eye(4)).to_bytes()
    path.write_bytes(gzip.compress(content, 1) if path.name.lower().endswith("z") else content)
    return path


def described(root, **content):
    root.mkdir(parents=True, exist_ok=True)
    usual = {"labels": {"background": 0, "a": 1}, "channel_names": {"0": "CT"}, "file_ending": ".nii.gz"}
    (root / "dataset.json").write_text(json.dumps(usual | content))


def found(root):
    """Case ids with the number of their images; every file is there."""
    cases = folder(root).cases
    assert all(path.is_file() for case in cases for path in (*case.images, case.label) if path)
    assert all(case.label for case in cases)
    return {case.id: len(case.images) for case in cases}


def refused(root, *words):
    with pytest.raises(SegError) as caught:
        fingerprint(folder(root), root / "cache")
    for word in words:
        assert word in str(caught.value), str(caught.value)
    return str(caught.value)


ids = st.lists(
    st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9é_.-]{0,8}\Z").filter(
        lambda name: not name.lower().endswith((".nii", ".nii.gz"))
    ),
    min_size=1,
    max_size=5,
    unique_by=str.lower,
)


@given(data=st.data(), names=ids, channels=st.integers(0, 2), json_there=st.booleans())
@settings(max_examples=150, deadline=None)
def test_every_sound_case_is_found_or_a_fault_names_files(tmp_path_factory, data, names, channels, json_there):
    """Names, endings, channels, words for labels and normal forms at random: nothing vanishes."""
    root = tmp_path_factory.mktemp("set")
    suffix = data.draw(st.sampled_from(["", "_seg", "-label", "_mask"]))
    form = data.draw(st.sampled_from(["NFC", "NFD"]))
    for name in names:
        spelled = unicodedata.normalize(form, name)
        for channel in range(channels) or [None]:
            numbered = "" if channel is None else f"_{channel:04}"
            volume(root / "imagesTr" / f"{spelled}{numbered}{data.draw(st.sampled_from(ENDINGS))}")
        volume(root / "labelsTr" / f"{name}{suffix}{data.draw(st.sampled_from(ENDINGS))}", label=True)
    if json_there:
        described(root, channel_names={str(n): "x" for n in range(max(1, channels))})
    files = sorted(path.name for path in root.rglob("*.[nN]*"))
    said = ""
    try:
        cases = folder(root).cases
    except SegError as error:
        said = str(error)
    if said:
        assert any(file in said for file in files), said
        return
    used = Counter(path for case in cases for path in (*case.images, case.label) if path)
    there = {path for path in root.rglob("*") if path.is_file() and path.name != "dataset.json"}
    assert set(used) >= there, "a file is used, or its absence or presence is a fault"
    assert len(cases) >= len(names)
    if set(used) == there:
        assert {case.id for case in cases} == {unicodedata.normalize("NFC", name) for name in names}


def test_all_endings_are_one(tmp_path):
    for number, end in enumerate(ENDINGS):
        volume(tmp_path / "imagesTr" / f"c{number}_0000{end}")
        volume(tmp_path / "labelsTr" / f"c{number}{ENDINGS[-1 - number]}", label=True)
    assert found(tmp_path) == {f"c{number}": 1 for number in range(5)}
    fingerprint(folder(tmp_path), tmp_path / "cache")


def test_a_stem_that_is_there_twice_is_named(tmp_path):
    for end in (".nii", ".nii.gz"):
        volume(tmp_path / "imagesTr" / f"case00{end}")
    volume(tmp_path / "labelsTr/case00.nii.gz", label=True)
    refused(tmp_path, "case00.nii.gz", "case00.nii again", "remove one of the two")


def test_ids_of_four_digits_are_no_channels(tmp_path):
    for number in range(5):
        volume(tmp_path / "imagesTr" / f"amos_{number:04}.nii.gz")
        if number != 3:
            volume(tmp_path / "labelsTr" / f"amos_{number:04}.nii.gz", label=True)
    said = refused(tmp_path, "case amos_0003 has no label")
    assert "faults" not in said
    volume(tmp_path / "labelsTr/amos_0003.nii.gz", label=True)
    described(tmp_path)
    assert found(tmp_path) == {f"amos_{number:04}": 1 for number in range(5)}


def test_a_missing_channel_and_a_missing_label_are_named(tmp_path):
    for name in ("a_0000", "a_0001", "b_0000", "c_0000", "c_0001"):
        volume(tmp_path / "imagesTr" / f"{name}.nii.gz")
    for name in ("a", "b"):
        volume(tmp_path / "labelsTr" / f"{name}.nii.gz", label=True)
    assert refused(tmp_path, "b_0001.nii.gz: no such file", "case c has no label").startswith("2 faults")


def test_years_are_no_channels(tmp_path):
    volume(tmp_path / "imagesTr/scan_2019.nii.gz")
    volume(tmp_path / "labelsTr/scan.nii.gz", label=True)
    refused(tmp_path, "scan_2019.nii.gz", "0000, 0001")


@pytest.mark.parametrize("names", [("images", "masks"), ("Images", "Labels"), ("img", "seg"), ("imagesTr", "labelsTr")])
def test_folders_by_other_names(tmp_path, names):
    volume(tmp_path / names[0] / "a.nii.gz")
    volume(tmp_path / names[1] / "a.nii.gz", label=True)
    assert found(tmp_path) == {"a": 1}


@pytest.mark.parametrize(
    ("image", "label", "name"),
    [
        ("a.nii.gz", "a_seg.nii.gz", "a"),
        ("a_image.nii.gz", "a_label.nii.gz", "a"),
        ("img0001.nii.gz", "label0001.nii.gz", "0001"),
        ("a_0000.nii.gz", "a-mask.nii.gz", "a"),
        ("a_seg.nii.gz", "a_seg.nii.gz", "a_seg"),
    ],
)
def test_words_for_images_and_labels_in_names(tmp_path, image, label, name):
    volume(tmp_path / "imagesTr" / image)
    volume(tmp_path / "labelsTr" / label, label=True)
    assert found(tmp_path) == {name: 1}


def test_one_folder_of_images_and_labels(tmp_path):
    for name in ("a", "b"):
        volume(tmp_path / f"{name}.nii.gz")
        volume(tmp_path / f"{name}_seg.nii.gz", label=True)
    assert found(tmp_path) == {"a": 1, "b": 1}


def test_a_folder_for_each_case(tmp_path):
    for name in ("BraTS_1", "BraTS_2"):
        for role in ("t1", "flair"):
            volume(tmp_path / name / f"{name}_{role}.nii.gz")
        volume(tmp_path / name / f"{name}_seg.nii.gz", label=True)
    assert found(tmp_path) == {"BraTS_1": 2, "BraTS_2": 2}
    assert folder(tmp_path).channels == ("flair", "t1")
    (tmp_path / "BraTS_2/BraTS_2_flair.nii.gz").unlink()
    refused(tmp_path, "flair is in 1 of 2 cases, not in BraTS_2")


def test_a_folder_for_each_case_with_a_file_for_each_class_is_explained(tmp_path):
    for name in ("s1", "s2"):
        volume(tmp_path / name / "ct.nii.gz")
        for organ in ("liver", "spleen"):
            volume(tmp_path / name / "segmentations" / f"{organ}.nii.gz", label=True)
    refused(tmp_path, "segmentations/liver (2)", '"training"')


def test_bids(tmp_path, caplog):
    (tmp_path / "dataset_description.json").write_text("{}")
    for name in ("sub-01_ses-1", "sub-01_ses-2", "sub-02_ses-1"):
        sub, ses = name.split("_")
        for modality in ("T1w", "FLAIR"):
            volume(tmp_path / sub / ses / "anat" / f"{name}_{modality}.nii.gz")
        volume(tmp_path / "derivatives/manual" / sub / ses / "anat" / f"{name}_dseg.nii.gz", label=True)
    assert found(tmp_path) == {"sub-01_ses-1": 2, "sub-01_ses-2": 2, "sub-02_ses-1": 2}
    assert folder(tmp_path).channels == ("FLAIR", "T1w")
    assert [case.patient for case in folder(tmp_path).cases] == ["sub-01", "sub-01", "sub-02"]
    assert "patient" not in caplog.text


def listing(root, *pairs, **more):
    described(root, modality={"0": "CT"}, training=[{"image": i, "label": lab} for i, lab in pairs], **more)
    content = json.loads((root / "dataset.json").read_text())
    del content["channel_names"], content["file_ending"]
    (root / "dataset.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    "image", ["./imagesTr/a.nii.gz", "imagesTr\\a.nii.gz", ".\\imagesTr\\a.nii.gz", "{root}/imagesTr/a.nii.gz"]
)
def test_a_listed_path_however_it_is_written(tmp_path, image):
    volume(tmp_path / "imagesTr/a.nii.gz")
    volume(tmp_path / "labelsTr/a.nii.gz", label=True)
    listing(tmp_path, (image.format(root=tmp_path), "./labelsTr/a.nii.gz"))
    assert found(tmp_path) == {"a": 1}


@pytest.mark.parametrize("image", ["a.nii", "a.NII.GZ", "a_0000.nii.gz"])
def test_a_listed_file_that_has_another_ending_or_a_channel(tmp_path, image):
    volume(tmp_path / "imagesTr" / image)
    volume(tmp_path / "labelsTr/a.nii.gz", label=True)
    listing(tmp_path, ("./imagesTr/a.nii.gz", "./labelsTr/a.nii.gz"))
    assert found(tmp_path) == {"a": 1}


def test_a_gap_in_the_channels_of_a_listed_case_is_a_file_that_is_missing(tmp_path):
    for name in ("a_0000", "a_0001", "b_0000", "b_0002"):
        volume(tmp_path / "imagesTr" / f"{name}.nii.gz")
    for name in ("a", "b"):
        volume(tmp_path / "labelsTr" / f"{name}.nii.gz", label=True)
    listing(tmp_path, *((f"imagesTr/{name}.nii.gz", f"labelsTr/{name}.nii.gz") for name in ("a", "b")))
    (tmp_path / "dataset.json").write_text((tmp_path / "dataset.json").read_text().replace('"CT"', '"CT", "1": "PET"'))
    refused(tmp_path, "b_0001.nii.gz")


def test_a_case_with_more_or_fewer_images_than_channels_is_refused(tmp_path):
    for name in ("a", "b", "c"):
        volume(tmp_path / "imagesTr" / f"{name}.nii.gz")
    volume(tmp_path / "labelsTr/a.nii.gz", label=True)
    listing(tmp_path, ([f"imagesTr/{name}.nii.gz" for name in ("a", "b", "c")], "labelsTr/a.nii.gz"))
    (tmp_path / "dataset.json").write_text((tmp_path / "dataset.json").read_text().replace('"CT"', '"CT", "1": "PET"'))
    refused(tmp_path, "has 3 images; there are 2 channels (CT, PET)")


def test_examinations_in_a_patients_folder_are_of_one_patient_but_grades_of_tumours_are_none(tmp_path, caplog):
    days = {"anna": ("20200103", "20210504"), "bert": ("20200207", "20210608"), "carl": ("20200309",)}
    for patient, own in days.items():
        for day in own:
            volume(tmp_path / "trial" / patient / day / "t1.nii.gz")
            volume(tmp_path / "trial" / patient / day / "seg.nii.gz", label=True)
    patients = {case.id: case.patient for case in folder(tmp_path / "trial").cases}
    assert patients == {day: patient for patient, own in days.items() for day in own}
    assert "anna (2), bert (2)" in caplog.text
    assert len({case.patient for case in folder(tmp_path / "trial", patient="^(.*)$").cases}) == 5
    for number in range(6):
        volume(tmp_path / "brats" / ("HGG" if number % 3 else "LGG") / f"case{number}" / "t1.nii.gz")
        volume(tmp_path / "brats" / ("HGG" if number % 3 else "LGG") / f"case{number}" / "seg.nii.gz", label=True)
    assert len({case.patient for case in folder(tmp_path / "brats").cases}) == 6
    for number, part in enumerate(("train", "train", "val", "test")):
        volume(tmp_path / "parts" / part / f"case{number}" / "t1.nii.gz")
        volume(tmp_path / "parts" / part / f"case{number}" / "seg.nii.gz", label=True)
    assert len({case.patient for case in folder(tmp_path / "parts").cases}) == 4


def test_a_list_of_images_is_a_file_for_each_channel(tmp_path):
    for name in ("a_0000", "a_0001"):
        volume(tmp_path / "imagesTr" / f"{name}.nii.gz")
    volume(tmp_path / "labelsTr/a.nii.gz", label=True)
    listing(tmp_path, (["imagesTr/a_0000.nii.gz", "imagesTr/a_0001.nii.gz"], "labelsTr/a.nii.gz"))
    assert found(tmp_path) == {"a": 2}


def test_files_of_one_name_in_folders_of_their_own_are_called_as_these(tmp_path):
    for name in ("a", "b"):
        volume(tmp_path / name / "t1.nii.gz")
        volume(tmp_path / name / "seg.nii.gz", label=True)
    listing(tmp_path, ("a/t1.nii.gz", "a/seg.nii.gz"), ("b/t1.nii.gz", "b/seg.nii.gz"))
    assert found(tmp_path) == {"a": 1, "b": 1}


def test_files_that_the_list_leaves_out_are_named(tmp_path, caplog):
    for name in ("a", "b"):
        volume(tmp_path / "imagesTr" / f"{name}.nii.gz")
        volume(tmp_path / "labelsTr" / f"{name}.nii.gz", label=True)
    listing(tmp_path, ("imagesTr/a.nii.gz", "labelsTr/a.nii.gz"))
    assert found(tmp_path) == {"a": 1}
    assert "left out: 2 files that it does not list" in caplog.text


def test_nnunet_finds_files_by_name_though_its_json_lists_some(tmp_path, caplog):
    for name in ("a", "b"):
        volume(tmp_path / "imagesTr" / f"{name}_0000.nii.gz")
        volume(tmp_path / "labelsTr" / f"{name}.nii.gz", label=True)
    described(tmp_path, training=[{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}])
    assert found(tmp_path) == {"a": 1, "b": 1}
    assert "lists 1 cases in training; 2 were found" in caplog.text


def test_a_list_counts_where_there_is_no_folder_of_images(tmp_path):
    volume(tmp_path / "scans/x/a.nii.gz")
    volume(tmp_path / "truth/a.nii.gz", label=True)
    described(tmp_path, training=[{"image": "scans/x/a.nii.gz", "label": "truth/a.nii.gz"}])
    assert found(tmp_path) == {"a": 1}


@pytest.mark.parametrize(
    "training", [["a.nii.gz"], [{"image": 3, "label": "x"}], [{"image": [], "label": "x"}], None, {}]
)
def test_a_list_that_cannot_be_read_is_named(tmp_path, training):
    listing(tmp_path)
    content = json.loads((tmp_path / "dataset.json").read_text()) | {"training": training}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    refused(tmp_path, "dataset.json")


def test_letters_taken_apart_and_doubled_blanks_are_those_of_the_files(tmp_path):
    apart = unicodedata.normalize("NFD", "m\u00fcller")
    for case in (apart, "a  b", "anna"):
        volume(tmp_path / case / f"{case}_t1.nii.gz")
        volume(tmp_path / case / f"{case}_seg.nii.gz", label=True)
    whole = found(tmp_path)
    assert set(whole) == {"m\u00fcller", "a  b", "anna"}
    lines = [f"{n},{case}/{case}_t1.nii.gz,{case}/{case}_seg.nii.gz" for n, case in enumerate((apart, "a  b", "anna"))]
    (tmp_path / "cases.csv").write_text("\n".join(["case,image,label", *lines]))
    assert set(found(tmp_path / "cases.csv")) == {"0", "1", "2"}


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[31mb", "a\udcffb"])
def test_control_characters_in_names_are_refused(tmp_path, name):
    for kind in ("imagesTr", "labelsTr"):
        volume(tmp_path / kind / f"{name}.nii.gz", label=kind == "labelsTr")
    said = refused(tmp_path, "control character")
    assert said.isprintable()


@pytest.mark.parametrize(
    ("name", "kind", "fix"),
    [
        ("a.bmp", "pictures", "PNG"),
        ("a.gif", "pictures", "PNG"),
        ("a.img", "Analyze", "nibabel"),
        ("a.npy", "NumPy", "nibabel"),
    ],
)
@pytest.mark.parametrize("where", ["imagesTr", "scans/p1"])
def test_images_of_other_kinds_are_named_with_what_to_do(tmp_path, name, kind, fix, where):
    (tmp_path / where).mkdir(parents=True)
    (tmp_path / where / name).write_bytes(bytes(128) + b"DICM")
    if where == "imagesTr":
        (tmp_path / "labelsTr").mkdir()
    refused(tmp_path, kind, name, fix)


def test_a_volume_of_another_kind_among_the_others_does_not_vanish(tmp_path):
    for name in ("a", "b"):
        volume(tmp_path / "imagesTr" / f"{name}.nii.gz")
        volume(tmp_path / "labelsTr" / f"{name}.nii.gz", label=True)
    (tmp_path / "imagesTr/preview.png").touch()
    (tmp_path / "imagesTr/a.json").touch()
    assert found(tmp_path) == {"a": 1, "b": 1}
    (tmp_path / "imagesTr/c.nrrd").touch()
    refused(tmp_path, "c.nrrd")


@pytest.mark.parametrize("other", ["c.npy", "c_seg.nii.gz.tmp", "c.nii.gz.tmp"])
@pytest.mark.parametrize("where", ["", "p1", "p3"])
def test_images_of_another_kind_vanish_in_no_layout(tmp_path, other, where):
    """One folder of images and labels, and a folder for each case."""
    for case in ("p1", "p2"):
        place = tmp_path / case if where else tmp_path
        volume(place / f"{case}.nii.gz")
        volume(place / f"{case}_seg.nii.gz", label=True)
        (place / f"._{case}.nii.gz").touch()  # macOS
    assert found(tmp_path) == {"p1": 1, "p2": 1}
    (tmp_path / where).mkdir(exist_ok=True)
    (tmp_path / where / other).write_bytes(b"\x1f\x8b")
    refused(tmp_path, other)


def test_an_empty_folder_and_a_foreign_one_are_described(tmp_path):
    refused(tmp_path, "The folder is empty")
    (tmp_path / "notes.txt").touch()
    refused(tmp_path, "1 files .txt", "imagesTr")


def test_home_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for kind in ("imagesTr", "labelsTr"):
        volume(tmp_path / "set, of O'Brien" / kind / "a.nii.gz", label=kind == "labelsTr")
    assert [case.id for case in folder("~/set, of O'Brien").cases] == ["a"]


def sound(root):
    for name in ("a", "b"):
        volume(root / "imagesTr" / f"{name}.nii.gz")
        volume(root / "labelsTr" / f"{name}.nii.gz", label=True)


@pytest.mark.parametrize(
    "name",
    ["c", "c.nii.gz.tmp", "c.nii.gz.part", "c.nii.gz ", "c.nii.xz", "c.nii.bz2", "c.nii.zip", "c.gz", "c.mnc", "c.h5"],
)
@pytest.mark.parametrize("plain", [True, False])
def test_a_case_whose_files_have_another_ending_does_not_vanish(tmp_path, name, plain):
    sound(tmp_path)
    for kind in ("imagesTr", "labelsTr"):
        volume(tmp_path / kind / f"c.nii{'' if plain else '.gz'}", label=kind == "labelsTr")
        (tmp_path / kind / f"c.nii{'' if plain else '.gz'}").rename(tmp_path / kind / name)
    refused(tmp_path, repr(name)[1:-1])


def test_files_that_are_not_read_are_named(tmp_path, caplog):
    sound(tmp_path)
    for name in ("Thumbs.db", "notes.txt", "c.vtk", "what.xyz"):
        (tmp_path / "imagesTr" / name).touch()
    assert found(tmp_path) == {"a": 1, "b": 1}
    (line,) = [line for line in caplog.messages if "not read" in line]
    assert "2 files are not read: c.vtk, what.xyz" in line


@pytest.mark.parametrize("pairs", [[("a", "a"), ("b", "a")], [("a", "a"), ("a", "b")], [("a", "a"), ("a", "a")]])
def test_a_file_that_is_listed_twice_is_named(tmp_path, pairs):
    sound(tmp_path)
    listing(tmp_path, *((f"imagesTr/{image}.nii.gz", f"labelsTr/{label}.nii.gz") for image, label in pairs))
    refused(tmp_path, "a.nii.gz is listed 2 times")


def test_a_label_in_place_of_the_image_is_named(tmp_path):
    sound(tmp_path)
    listing(tmp_path, ("labelsTr/a.nii.gz", "labelsTr/a.nii.gz"))
    refused(tmp_path, "labelsTr/a.nii.gz is listed 2 times")


def test_labels_of_other_cases_and_a_wrong_count_are_warnings(tmp_path, caplog):
    sound(tmp_path)
    pairs = ("imagesTr/a.nii.gz", "labelsTr/b.nii.gz"), ("imagesTr/b.nii.gz", "labelsTr/a.nii.gz")
    listing(tmp_path, *pairs, numTraining=9)
    assert found(tmp_path) == {"a": 1, "b": 1}
    assert "labels have the names of other cases: a.nii.gz, b.nii.gz" in caplog.text
    assert "numTraining is 9; training lists 2" in caplog.text


def test_a_path_that_no_disk_takes_is_a_missing_file(tmp_path):
    sound(tmp_path)
    listing(tmp_path, ("x" * 5000, "labelsTr/a.nii.gz"))
    refused(tmp_path, "x" * 5000)


def test_a_dataset_json_by_another_spelling_is_named(tmp_path):
    sound(tmp_path)
    (tmp_path / "Dataset.JSON").write_text("{}")
    refused(tmp_path, "Dataset.JSON", "Call it dataset.json")


@pytest.mark.parametrize("mark", ["\u200b", "\u202e", "\u2028", "\ufeff"])
def test_names_with_marks_that_cannot_be_seen_are_refused(tmp_path, mark):
    for kind in ("imagesTr", "labelsTr"):
        volume(tmp_path / kind / f"a{mark}.nii.gz", label=kind == "labelsTr")
    refused(tmp_path, "control character")


@pytest.mark.parametrize(
    ("name", "warned"), [("images/c.nii.gz", True), ("c.nii.gz", True), ("imagesTs/c.nii.gz", False)]
)
def test_volumes_beside_the_folders_that_are_read_are_named(tmp_path, caplog, name, warned):
    sound(tmp_path)
    volume(tmp_path / name)
    assert found(tmp_path) == {"a": 1, "b": 1}
    assert (f"only imagesTr and labelsTr are read, not {name.split('/')[0]}" in caplog.text) == warned
