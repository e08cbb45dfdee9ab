"""Every layout, made as small as it can be: found by itself and by its name; and wrong ones refused whole."""

import json
import shutil

import nibabel as nib
import numpy as np
import pytest

from seg.data.cases import folder
from seg.data.fingerprint import fingerprint
from seg.data.lists import parts_of
from seg.data.splits import load_split
from seg.errors import DataError, SegError
from seg.study.subsets import read_groups

RANDOM = np.random.default_rng(0)
NAMES = ("p1", "p2", "p3")
LABELS = {"0": "background", "1": "liver"}


def volume(path, label=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    array = RANDOM.integers(0, 200, (4, 4, 4)).astype(np.uint8)
    nib.save(nib.Nifti1Image(array // 100 if label else array, np.eye(4)), path)
    return path.as_posix()


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def pairs(root, channels=("_0000", "_0001"), images="imagesTr", labels="labelsTr", label=""):
    for name in NAMES:
        for channel in channels:
            volume(root / images / f"{name}{channel}.nii.gz")
        volume(root / labels / f"{name}{label}.nii.gz", label=True)


def listing(name, **more):
    both = [f"imagesTr/{name}_0000.nii.gz", f"imagesTr/{name}_0001.nii.gz"]
    return {"image": both, "label": f"labelsTr/{name}.nii.gz"} | more


def decathlon(root):
    pairs(root)
    write(root / "dataset.json", {"modality": ["T1", "T2"], "labels": LABELS, "training": [listing(n) for n in NAMES]})


def nnunet_1(root):
    pairs(root)
    training = [{"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"} for n in NAMES]
    settings = {"modality": {"0": "T1", "1": "T2"}, "labels": LABELS, "numTraining": 3, "numTest": 0, "test": []}
    write(root / "dataset.json", settings | {"training": training})


def nnunet_2(root):
    pairs(root)
    settings = {"channel_names": {"0": "T1", "1": "T2"}, "labels": {"background": 0, "liver": 1}, "numTraining": 3}
    write(root / "dataset.json", settings | {"file_ending": ".nii.gz"})


def nnunet_2_listed(root):
    nnunet_2(root)
    shutil.move(root / "imagesTr", root / "scans")
    where = root / "dataset.json"
    cases = {
        name: {"images": [f"scans/{name}_{n:04}.nii.gz" for n in range(2)], "label": f"labelsTr/{name}.nii.gz"}
        for name in NAMES
    }
    write(where, json.loads(where.read_text()) | {"dataset": cases})


def pair_of_folders(root):
    pairs(root, images="images", labels="masks", label="_mask")


def one_folder(root):
    pairs(root, ("",), "", "", "_seg")


def brats(root):
    for name in NAMES:
        for role in ("T1", "T2"):
            volume(root / name / f"{name}-{role}.nii.gz")
        volume(root / name / f"{name}-seg.nii.gz", label=True)


def brats_2018(root):
    brats(root / "HGG")
    (root / "LGG").mkdir()
    shutil.move(root / "HGG/p3", root / "LGG/p3")


def bids(root):
    write(root / "dataset_description.json", {"Name": "x", "BIDSVersion": "1.8.0"})
    for name in NAMES:
        for role in ("T1", "T2"):
            volume(root / f"sub-{name}/anat/sub-{name}_{role}.nii.gz")
        volume(root / f"derivatives/manual/sub-{name}/anat/sub-{name}_dseg.nii.gz", label=True)


def kits(root):
    write(root / "kits.json", [{"case_id": name} for name in NAMES])
    for name in NAMES:
        volume(root / name / "imaging.nii.gz")
        volume(root / name / "segmentation.nii.gz", label=True)


def kits_2023(root):
    kits(root)
    for name in NAMES:
        volume(root / name / "instances/kidney_instance-1_annotation-1.nii.gz", label=True)


def datalist(root):
    pairs(root)
    write(root / "folds.json", {"training": [listing(n, fold=f) for f, n in enumerate(NAMES)], "testing": []})


def table(root):
    pairs(root)
    lines = [
        f"{n},{','.join(listing(n)['image'])},{listing(n)['label']},{n[0]}{i},site{i % 2}" for i, n in enumerate(NAMES)
    ]
    write(root / "cases.csv", "\n".join(["case,image,image2,label,patient,group", *lines]))


T1_T2, NUMBERED = ("T1", "T2"), ("image_0", "image_1")
LAYOUTS = {
    decathlon: ("decathlon", T1_T2),
    nnunet_1: ("decathlon", T1_T2),
    nnunet_2: ("nnunet", T1_T2),
    nnunet_2_listed: ("nnunet", T1_T2),
    pair_of_folders: ("folders", NUMBERED),
    one_folder: ("folders", ("image",)),
    brats: ("case_folders", T1_T2),
    brats_2018: ("case_folders", T1_T2),
    bids: ("case_folders", T1_T2),
    kits: ("case_folders", ("imaging",)),
    kits_2023: ("case_folders", ("imaging",)),
    datalist: ("datalist", NUMBERED),
    table: ("csv", NUMBERED),
}


@pytest.mark.parametrize("make", LAYOUTS, ids=lambda make: make.__name__)
def test_a_layout_is_found_by_itself_and_by_its_name(tmp_path, make):
    root, (layout, channels) = tmp_path / "set", LAYOUTS[make]
    make(root)
    found = folder(root)
    fingerprint(found, tmp_path / "cache")  # every file is there, and fits its case
    assert [case.id.removeprefix("sub-") for case in found.cases] == [*NAMES]
    assert found.channels == channels
    assert {len(case.images) for case in found.cases} == {len(channels)}
    assert all(case.id.removeprefix("sub-") in path.as_posix() for case in found.cases for path in case.images)
    assert [*found.classes.values()] == [0, 1]
    assert folder(root, layout=layout) == found


def test_a_table_or_list_may_itself_be_the_root(tmp_path):
    table(tmp_path)
    datalist(tmp_path)
    said = refused(tmp_path, "several files list cases", "cases.csv (csv)", "folds.json (datalist)")
    assert f"data.root={tmp_path / 'cases.csv'}" in said
    assert folder(tmp_path / "cases.csv") == folder(tmp_path, layout="csv")
    assert folder(tmp_path / "folds.json") == folder(tmp_path, layout="datalist")
    assert folder(tmp_path, layout="folders").cases == folder(tmp_path / "folds.json").cases


def refused(root, *words, layout="auto", **options):
    with pytest.raises(SegError) as caught:
        folder(root, layout=layout, **options)
    for word in words:
        assert word in str(caught.value), str(caught.value)
    return str(caught.value)


def test_what_is_asked_for_and_not_there_is_named_with_what_is(tmp_path):
    brats(tmp_path)
    for layout, wanted in {
        "csv": "case, image, label",
        "datalist": '"training"',
        "decathlon": "dataset.json",
        "nnunet": "imagesTr",
        "folders": "a_seg.nii.gz",
    }.items():
        refused(tmp_path, f"data.layout={layout}", wanted, "9 files .nii.gz", layout=layout)
    refused(tmp_path, "data.layout is 'kits'", "case_folders", layout="kits")
    write(tmp_path / "cases.csv", "case,image,label\na,b,c\n")
    refused(tmp_path / "cases.csv", "cases.csv, which data.layout=case_folders would not read", layout="case_folders")
    write(tmp_path / "notes.csv", "case,age\np1,7\n")
    refused(tmp_path / "notes.csv", "notes.csv: lists no cases", "case, image, label")


def test_labels_of_several_annotators_are_not_chosen_from(tmp_path):
    kits(tmp_path)
    for name in NAMES:
        for kind in ("AND", "MAJ"):
            shutil.copy(tmp_path / name / "segmentation.nii.gz", tmp_path / name / f"aggregated_{kind}_seg.nii.gz")
        (tmp_path / name / "segmentation.nii.gz").unlink()
    refused(tmp_path, "several labels: aggregated_AND_seg, aggregated_MAJ_seg", "case,image,label")
    lines = [f"{name},{name}/imaging.nii.gz,{name}/aggregated_MAJ_seg.nii.gz" for name in NAMES]
    write(tmp_path / "cases.csv", "\n".join(["case,image,label", *lines]))
    assert [case.label.name for case in folder(tmp_path).cases] == ["aggregated_MAJ_seg.nii.gz"] * 3


def test_a_description_names_channels_and_classes_of_any_layout(tmp_path):
    about = {"channel_names": {"0": "CT", "1": "PET"}, "labels": {"background": 0, "tumour": 1}}
    table(tmp_path / "a")
    write(tmp_path / "a/dataset.json", about)
    assert folder(tmp_path / "a").channels == ("CT", "PET")
    assert folder(tmp_path / "a").names == ("background", "tumour")
    brats(tmp_path / "b")
    write(tmp_path / "b/dataset.json", about | {"channel_names": {"0": "t2", "1": "t1"}})
    assert folder(tmp_path / "b").channels == ("T1", "T2"), "as the files are in order"
    write(tmp_path / "b/dataset.json", about)
    refused(tmp_path / "b", "the channels are CT, PET, and each case has T1, T2")


def test_patients_and_groups_of_a_table_count(tmp_path):
    table(tmp_path)
    assert [case.patient for case in folder(tmp_path).cases] == ["p0", "p1", "p2"]
    assert {case.patient for case in folder(tmp_path, patient="^(p)").cases} == {"p"}
    assert read_groups(tmp_path / "cases.csv") == {"case": {"p1": "site0", "p2": "site1", "p3": "site0"}}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("case;image;label\np1;imagesTr/p1_0000.nii.gz\n", ["line 2 has 2 cells, the heading has 3"]),
        ("case,image,label\np1,,x\n,y,z\n", ["line 2 has nothing in image", "line 3 has nothing in case"]),
        ("case,image,label\na/b,x,y\n", ["line 2: 'a/b' cannot be the name"]),
        ("case,image,label\np,x,y\np,z,w\n", ["case p is there 2 times"]),
        ("case,image,label\np,x,y\nq,x,z\n", ["x is listed 2 times"]),
        ("case,image,label\np,../x.nii,/etc/y.nii\n", ["../x.nii is outside", "/etc/y.nii is outside"]),
        ("case,image,label\np,x,.\n", [". is outside"]),
        ("case,image,image3,label\np,x,y,z\n", ["its columns are case, image, image3, label"]),
        ("case,image,label,label\np,x,y,z\n", ["each once"]),
        ("case,image,label,patient\np,x,y,\n", ["line 2 names no patient"]),
    ],
)
def test_a_wrong_table_is_refused_with_every_line(tmp_path, content, words):
    pairs(tmp_path)
    write(tmp_path / "dataset.json", {"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1}})
    write(tmp_path / "cases.csv", content)
    refused(tmp_path, *words)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("cases.csv", "case,image,label\nä,x,y\n".encode("latin-1"), "cases.csv: not UTF-8"),
        ("list.json", b'{"training": [{"image": "x",}]}', "list.json: not readable as JSON"),
    ],
)
def test_a_list_that_cannot_be_read_is_named(tmp_path, caplog, name, content, words):
    pair_of_folders(tmp_path)
    (tmp_path / name).write_bytes(content)
    assert len(folder(tmp_path).cases) == 3
    assert f"not read as a list of cases: {tmp_path}/{words}" in caplog.text
    refused(tmp_path / name, "lists no cases")


def test_folds_are_numbered_from_0_so_that_each_is_called_by_its_number(tmp_path):
    datalist(tmp_path)
    assert [fold["val"] for fold in parts_of(tmp_path / "folds.json")] == [[name] for name in NAMES]
    entries = [listing(name, fold=fold) for fold, name in enumerate(NAMES, 1)]
    write(tmp_path / "folds.json", {"training": entries})
    with pytest.raises(DataError, match=r"the folds are 1, 2, 3\. Number them 0 to 2"):
        parts_of(tmp_path / "folds.json")


def test_a_path_may_leave_the_folder_if_it_comes_back(tmp_path):
    pairs(tmp_path / "set", ("",))
    lines = [f"{name},../set/imagesTr/{name}.nii.gz,labelsTr/../labelsTr/{name}.nii.gz" for name in NAMES]
    write(tmp_path / "set/cases.csv", "\n".join(["case,image,label", *lines]))
    cases = folder(tmp_path / "set").cases
    assert [case.images[0] for case in cases] == [tmp_path / f"set/imagesTr/{name}.nii.gz" for name in NAMES]


def test_the_folder_above_data_sets_is_refused_with_theirs(tmp_path):
    nnunet_2(tmp_path / "Dataset001_Liver")
    refused(tmp_path, "Data sets are in Dataset001_Liver: set data.root to one of these folders")


def test_folders_of_cases_without_any_label_are_refused(tmp_path):
    for name in NAMES:
        volume(tmp_path / name / f"{name}_t1.nii.gz")
    refused(tmp_path, "t1 (3)", "No name ends in seg, label, mask")


def test_channels_beyond_those_declared_are_refused_with_their_number(tmp_path):
    nnunet_2(tmp_path)
    write(tmp_path / "dataset.json", {"channel_names": {"0": "T1"}, "labels": {"background": 0, "liver": 1}})
    refused(tmp_path, "p1_0001.nii.gz: belongs to no case: 1 channel a case, so files are named <case>_0000.")


def test_columns_that_are_not_read_are_named(tmp_path, caplog):
    pairs(tmp_path, ("",))
    lines = [f"{name},imagesTr/{name}.nii.gz,labelsTr/{name}.nii.gz,7" for name in NAMES]
    write(tmp_path / "cases.csv", "\n".join(["Case, Image ,LABEL,age", *lines]))
    assert len(folder(tmp_path).cases) == 3
    assert "columns that are not read: age" in caplog.text


def test_the_parts_of_a_datalist_are_a_split(tmp_path, caplog):
    datalist(tmp_path)
    prints = fingerprint(folder(tmp_path), tmp_path / "cache")
    assert f"data.split_file={tmp_path / 'folds.json'}" in caplog.text
    split = load_split(tmp_path / "folds.json", prints, fold=1)
    assert (split.train, split.val, split.test, split.folds) == (("p1", "p3"), ("p2",), (), 3)
    content = {"training": [listing("p1")], "validation": [listing("p2")], "testing": [listing("p3"), {"image": "x"}]}
    write(tmp_path / "folds.json", content)
    assert [case.id for case in folder(tmp_path).cases] == [*NAMES]
    assert "left out: 1 case without a label" in caplog.text
    split = load_split(tmp_path / "folds.json", prints, fold=0)
    assert (split.train, split.val, split.test) == (("p1",), ("p2",), ("p3",))
    write(tmp_path / "folds.json", {"training": [listing("p1"), listing("p2"), {"image": "x"}]})
    assert [case.id for case in folder(tmp_path).cases] == ["p1", "p2"]
    write(tmp_path / "folds.json", {"training": [listing("p1", fold=0), listing("p2")]})
    with pytest.raises(SegError, match="each case of training has one"):
        load_split(tmp_path / "folds.json", prints, fold=0)
    write(tmp_path / "folds.json", {"training": [listing("p1", fold="a")]})
    refused(tmp_path, "the fold 'a'")
    write(tmp_path / "folds.json", {"training": [listing("p1", fold=0), listing("p2", fold=True)]})
    refused(tmp_path, "the fold True")
    write(tmp_path / "folds.json", {"training": [listing("p1")], "val": [listing("p2")]})
    refused(tmp_path, "val would not be read. The parts are training, validation, testing, test")
