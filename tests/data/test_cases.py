import json
import re
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest

from seg.data.cases import folder, hippocampus
from seg.data.classes import IGNORE, class_indices
from seg.errors import ConfigError, DataError

DECATHLON = {
    "modality": {"0": "T1", "1": "T2"},
    "labels": {"0": "background", "7": "tumour", "2": "oedema"},
    "training": [{"image": "./imagesTr/b_1.nii.gz", "label": "./labelsTr/b_1.nii.gz"}],
}
NNUNET = {"channel_names": {"0": "CT", "1": "PET"}, "labels": {"background": 0, "liver": 1}, "file_ending": ".nii.gz"}


def make(root, settings, *files):
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    if settings is not None:
        (root / "dataset.json").write_text(json.dumps(settings))
    return root


def label_file(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.array(values, np.uint8).reshape(-1, 1, 1), np.eye(4)), path)


def test_decathlon(tmp_path):
    found = folder(make(tmp_path, DECATHLON))
    (case,) = found.cases
    assert (case.id, case.patient) == ("b_1", "b_1")
    assert case.images == (tmp_path / "imagesTr/b_1.nii.gz",)
    assert case.label == tmp_path / "labelsTr/b_1.nii.gz"
    assert found.channels == ("T1", "T2")
    assert found.name == tmp_path.name


def test_classes_are_ordered_by_value_and_keep_it(tmp_path):
    found = folder(make(tmp_path, DECATHLON))
    assert found.names == ("background", "oedema", "tumour")
    assert found.values == (0, 2, 7)


def test_background_is_added_where_it_is_not_declared(tmp_path):
    assert folder(make(tmp_path, NNUNET | {"labels": {"a": 3}}, "imagesTr/x", "labelsTr/x")).values == (0, 3)


def test_nnunet(tmp_path):
    files = [f"imagesTr/{case}_{channel:04}.nii.gz" for case in ("p_2", "p_1") for channel in range(2)]
    root = make(tmp_path, NNUNET, *files, "labelsTr/p_1.nii.gz", "labelsTr/p_2.nii.gz", "imagesTr/._p_1_0000.nii.gz")
    found = folder(root, name="mine")
    assert [case.id for case in found.cases] == ["p_1", "p_2"]
    assert [path.name for path in found.cases[0].images] == ["p_1_0000.nii.gz", "p_1_0001.nii.gz"]
    assert (found.name, found.channels, found.values) == ("mine", ("CT", "PET"), (0, 1))


def test_nnunet_case_with_a_label_only_is_kept_so_that_the_check_can_name_it(tmp_path):
    found = folder(
        make(tmp_path, NNUNET, "labelsTr/p_1.nii.gz", "imagesTr/p_2_0001.nii.gz", "imagesTr/p_1_0000.nii.gz")
    )
    assert [case.id for case in found.cases] == ["p_1", "p_2"]


def test_names_of_labels_that_no_image_has_are_one_fault(tmp_path):
    files = [f"{place}{name}.nii.gz" for name in "abc" for place in ("imagesTr/", "labelsTr/tumour")]
    with pytest.raises(DataError, match=r"images are a\.nii\.gz.*labels are tumoura\.nii\.gz") as caught:
        folder(make(tmp_path, NNUNET, *files))
    assert "faults" not in str(caught.value)


def test_nnunet_images_that_belong_to_no_case_are_named(tmp_path):
    files = ["imagesTr/p_0000.nii.gz", "imagesTr/p_0001.nii.gz", "labelsTr/p.nii.gz"]
    root = make(tmp_path, NNUNET, *files, "imagesTr/p_0002.nii.gz", "imagesTr/stray.nii.gz")
    with pytest.raises(DataError, match=r"2 faults(.|\n)*p_0002.nii.gz: belongs to no case(.|\n)*stray.nii.gz"):
        folder(root)


@pytest.mark.parametrize("names", [("imagesTr", "labelsTr"), ("images", "labels")])
def test_plain_folder_reads_its_classes_off_the_labels(tmp_path, names):
    root = make(tmp_path, None, f"{names[0]}/a.nii.gz", f"{names[0]}/b.nii")
    label_file(root / names[1] / "a.nii.gz", [0, 4])
    label_file(root / names[1] / "b.nii", [0, 9, 4])
    found = folder(root)
    assert found.classes == {"background": 0, "class_4": 4, "class_9": 9}
    assert found.channels == ("image",)
    assert found.cases[1].images == (root / names[0] / "b.nii",)


def test_what_to_write_of_many_structures_is_in_the_message(tmp_path):
    root = make(tmp_path, None, "images/a.nii.gz")
    label_file(root / "labels/a.nii.gz", [*range(25)])
    with pytest.raises(DataError, match=r"name all of them in a dataset\.json") as caught:
        folder(root)
    shown = json.loads(re.search(r"{.*}", str(caught.value))[0])
    shown["labels"] |= {f"structure {value}": value for value in range(3, 25)}
    (root / "dataset.json").write_text(json.dumps(shown))
    found = folder(root)
    assert (len(found.classes), found.classes["liver"], found.channels) == (25, 1, ("MR",))


def test_plain_folder_with_numbered_channels(tmp_path):
    root = make(tmp_path, None, *(f"imagesTr/a_000{channel}.nii.gz" for channel in range(3)))
    label_file(root / "labelsTr/a.nii.gz", [0, 1])
    found = folder(root)
    assert found.channels == ("image_0", "image_1", "image_2")
    assert [path.name for path in found.cases[0].images] == [f"a_000{channel}.nii.gz" for channel in range(3)]


FAULTS = {
    "region": (NNUNET | {"labels": {"background": 0, "whole": [1, 2]}}, "regions_class_order is missing"),
    "ignore": (NNUNET | {"labels": {"background": 0, "ignore": 1, "a": 2}}, "'ignore' has the value 1; it must be the"),
    "one metric": (NNUNET | {"labels": {"a<2cm": 1, "a>2cm": 2}}, "'a<2cm' and 'a>2cm' would be one metric"),
    "capitals": (NNUNET | {"labels": {"lesion": 1, "Lesion": 2}}, "would be one metric"),
    "doubled blanks": (NNUNET | {"labels": {"a b": 1, "a  b": 2}}, "would be one metric"),
    "accents apart": (NNUNET | {"labels": {"\u00e9": 1, "e\u0301": 2}}, "'\u00e9' = 2 appears twice"),
    "ignore in capitals": (NNUNET | {"labels": {"background": 0, "Ignore": 1, "a": 2}}, "it must be the highest"),
    "Background": (NNUNET | {"labels": {"Background": 1, "a": 2}}, "Background has the value 1"),
    "too long a number": (NNUNET | {"labels": {"a": 10**4000}}, "one integer"),
    "a name that is none": (DECATHLON | {"labels": {"0": "background", "1": None}}, "cannot be a class's name"),
    "path": (NNUNET | {"labels": {"lobe//left": 1}}, "cannot be a class's name"),
    "blank": (NNUNET | {"labels": {" ": 1}}, "cannot be a class's name"),
    "unprintable": (NNUNET | {"labels": {"a\nb": 1}}, "cannot be a class's name"),
    "twice": (NNUNET | {"labels": {"background": 0, "a": 1, "b": 1}}, "'b' = 1 appears twice"),
    "half": (NNUNET | {"labels": {"background": 0, "a": 1.5}}, "one integer"),
    "background": (NNUNET | {"labels": {"background": 1, "a": 0}}, "background has the value 1"),
    "ending": (NNUNET | {"file_ending": ".bmp"}, "file_ending is '.bmp'"),
    "channel numbers": (NNUNET | {"channel_names": {"1": "CT"}}, "numbered 1"),
    "no labels": ({"channel_names": {"0": "CT"}, "file_ending": ".nii"}, "labels is missing"),
    "two backgrounds": (
        NNUNET | {"labels": {"background": 0, "air": 0, "whole": [1, 2], "core": [2]}, "regions_class_order": [1, 2]},
        "'air' = 0 appears twice",
    ),
    "reserved": (NNUNET | {"labels": {"Mean of classes": 1}}, "cannot be a class's name"),
    "blanks": (NNUNET | {"labels": {"a": 1, " a": 2}}, "'a' = 2 appears twice"),
    "many": (NNUNET | {"labels": {f"c{value}": value for value in range(300)}}, "300 classes"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_settings_that_cannot_be_are_named(tmp_path, fault):
    settings, words = FAULTS[fault]
    with pytest.raises(ConfigError, match=words) as caught:
        folder(make(tmp_path, settings, "imagesTr/x", "labelsTr/x"))
    assert "dataset.json" in str(caught.value)


@pytest.mark.parametrize("path", ["../secret.nii.gz", "/etc/secret.nii.gz", "./imagesTr/../../secret.nii.gz"])
def test_dataset_json_may_not_leave_the_folder(tmp_path, path):
    settings = DECATHLON | {"training": [{"image": path, "label": "./labelsTr/a.nii.gz"}]}
    with pytest.raises(DataError, match=r"secret\.nii\.gz is outside the folder"):
        folder(make(tmp_path, settings))


@pytest.mark.parametrize("case", ["../../evil", "/scans/labelsTr/a", "p1/t0", ".a"])
def test_nor_may_the_name_of_a_case(tmp_path, case):
    for name in "ab":
        label_file(tmp_path / f"{name}.nii.gz", [0, 1])
    entry = {"images": ["a.nii.gz"], "label": "b.nii.gz"}
    with pytest.raises(DataError, match="cannot be the name of a mask's file"):
        folder(make(tmp_path, NNUNET | {"channel_names": {"0": "CT"}, "dataset": {case: entry}}))


@pytest.mark.parametrize(
    "content",
    ["{", "[]", "null", "[" * 100_000, '{"training": {"image": 1}}', '{"labels": {"a": 1, "a": 2}}', '{"dataset": {}}'],
)
def test_unreadable_dataset_json_is_named(tmp_path, content):
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(DataError, match=r"dataset\.json"):
        folder(tmp_path)


def test_missing_or_empty_root(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        folder(tmp_path / "nowhere")
    with pytest.raises(DataError, match="imagesTr and labelsTr"):
        folder(tmp_path)
    with pytest.raises(DataError, match=r"medicaldecathlon\.com.*CC-BY-SA|CC-BY-SA.*medicaldecathlon\.com"):
        hippocampus(tmp_path / "nowhere")


def test_both_sides_of_a_subject_of_hippocampus_are_one_patient(tmp_path):
    def patients(*more, **options):
        names = [f"hippocampus_{number:03d}" for number in (1, 3, 4, 105, 106, 107)] + list(more)
        pairs = [{"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in names]
        make(tmp_path, DECATHLON | {"training": pairs}, *(f"imagesTr/{name}.nii.gz" for name in names))
        return {case.id.removeprefix("hippocampus_"): case.patient for case in hippocampus(tmp_path, **options).cases}

    found = patients()
    assert found["003"] == found["004"]
    assert found["105"] == found["106"]
    assert len({*found.values()}) == 4
    assert len({*patients(patient="(.*)").values()}) == 6
    assert len({*patients("other").values()}) == 5, "another case among them is a patient of its own"


@pytest.mark.parametrize("value", [2, 255, -1])
def test_a_label_ignore_is_no_class(tmp_path, value):
    labels = {"background": 0, "liver": 1, "ignore": value}
    found = folder(make(tmp_path, NNUNET | {"labels": labels}, "imagesTr/x", "labelsTr/x"))
    assert (found.classes, found.ignore) == ({"background": 0, "liver": 1}, value)
    label = np.array([0, 1, value], np.int16)
    assert class_indices(label, found.values, found.ignore).tolist() == [0, 1, IGNORE]
    with pytest.raises(DataError, match=str(value)):
        class_indices(label, found.values)


@pytest.mark.parametrize("value", [255, -1, 65535, 32767])
def test_a_value_that_may_mean_ignore_is_a_question_with_two_answers(tmp_path, value):
    make(tmp_path, None, "imagesTr/a.nii.gz", "labelsTr/a.nii.gz")
    nib.save(
        nib.Nifti1Image(np.array([0, 1, value], np.int32).reshape(-1, 1, 1), np.eye(4)), tmp_path / "labelsTr/a.nii.gz"
    )
    with pytest.raises(DataError, match=rf'{value}.*"ignore": {value}.*if it is a structure') as caught:
        folder(tmp_path)
    assert "dataset.json" in str(caught.value)


@pytest.mark.parametrize("labels", [{"0": "background", "1": "liver"}, {"background": 0, "liver": 1}])
@pytest.mark.parametrize("channels", [{"modality": {"0": "CT"}}, {"modality": ["CT"]}])
def test_names_and_values_of_a_list_are_read_whichever_comes_first(tmp_path, labels, channels):
    found = folder(make(tmp_path, DECATHLON | channels | {"labels": labels}))
    assert (found.classes, found.channels) == ({"background": 0, "liver": 1}, ("CT",))


def test_cases_do_not_pay_for_torch():
    modules = "seg.data.cases, seg.data.fingerprint, seg.data.splits, seg.data.plan, seg.data.phantom"
    code = f"import sys, {modules}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
