"""Which images of a place are to be predicted, by their names."""

import json
from pathlib import Path

import pytest

from seg.data.scans import scans
from seg.errors import DataError, InputError


def put(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def found(where: Path, channels: int = 1) -> dict[str, list[str]]:
    return {case.id: [path.name for path in case.images] for case in scans(where, channels)}


@pytest.mark.parametrize(
    ("files", "channels", "expected"),
    [
        (["b.nii.gz", "a.nii", "._a.nii"], 1, {"a": ["a.nii"], "b": ["b.nii.gz"]}),
        (["a_0000.nii.gz", "b_0000.nii.gz"], 1, {"a": ["a_0000.nii.gz"], "b": ["b_0000.nii.gz"]}),
        (["amos_0003.nii.gz", "amos_0004.nii.gz"], 1, {f"amos_000{n}": [f"amos_000{n}.nii.gz"] for n in (3, 4)}),
        (["a_0000.nii.gz", "a_0001.nii.gz"], 2, {"a": ["a_0000.nii.gz", "a_0001.nii.gz"]}),
        (["a_0001.nii.gz"], 2, {"a": ["a_0000.nii.gz", "a_0001.nii.gz"]}),  # the missing one is a fault of this scan
        (["a.nii.gz"], 2, {"a": ["a.nii.gz"]}),  # the channels on a fourth axis
        (["imagesTs/a.nii.gz", "imagesTr/b.nii.gz"], 1, {"a": ["a.nii.gz"]}),
    ],
)
def test_folders(tmp_path: Path, files: list[str], channels: int, expected: dict[str, list[str]]) -> None:
    assert found(put(tmp_path, *files), channels) == expected


def test_a_file_and_its_other_channels(tmp_path: Path) -> None:
    put(tmp_path, "a_0000.nii.gz", "a_0001.nii.gz", "b.nii")
    assert found(tmp_path / "a_0000.nii.gz", 2) == {"a": ["a_0000.nii.gz", "a_0001.nii.gz"]}
    assert found(tmp_path / "b.nii", 2) == {"b": ["b.nii"]}


def test_the_test_images_of_a_decathlon_data_set(tmp_path: Path) -> None:
    put(tmp_path, "imagesTs/a.nii.gz")
    (tmp_path / "dataset.json").write_text(
        json.dumps({"test": ["./imagesTs/a.nii.gz", {"image": "imagesTs/b.nii.gz"}]})
    )
    assert found(tmp_path / "dataset.json") == {"a": ["a.nii.gz"], "b": ["b.nii.gz"]}


def test_a_table(tmp_path: Path) -> None:
    text = "case, image, image2\nNA, x/a.nii.gz, b.nii.gz\n007, c.nii, d.nii\n"
    for written in (text, text.replace("case, image,", "Case, Image,").replace(",", ";")):  # as for training
        (tmp_path / "scans.csv").write_text(written)
        assert found(tmp_path / "scans.csv", 2) == {"007": ["c.nii", "d.nii"], "NA": ["a.nii.gz", "b.nii.gz"]}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (b"name,image\na,b.nii\n", "it needs case, image"),
        (b"case,image\na,\n", "an empty cell"),
        (b"case,image\na,b.nii,c.nii\n", "line 2 has 3 cells, the heading has 2"),
        (b"case,image\na,b.nii\na,c.nii\n", "a is there twice"),
        (b"case,image\n../a,b.nii\n", "cannot be the name of a mask"),
        (b"case,image\n.a,b.nii\n", "cannot be the name of a mask"),
        (b"case,image\na\\b,b.nii\n", "cannot be the name of a mask"),
        (b"case,image\nM\xfcller,b.nii\n", r"not UTF-8 \(at byte 12\)"),
        (b"", "it needs case, image"),
    ],
)
def test_tables_that_are_refused(tmp_path: Path, table: bytes, message: str) -> None:
    (tmp_path / "scans.csv").write_bytes(table)
    with pytest.raises(InputError, match=message) as error:
        scans(tmp_path / "scans.csv", 1)
    assert "ller" not in str(error.value)


def test_names_that_a_training_takes_are_taken(tmp_path: Path) -> None:
    names = ("scan\u00a01", "患者\u300002", "Jose\u0301")
    for name in names:
        put(tmp_path, f"{name}.nii.gz")
    assert [case.id for case in scans(tmp_path, 1)] == sorted(names)


def test_places_without_scans(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="There is no"):
        scans(tmp_path / "none", 1)
    with pytest.raises(DataError, match="has nothing that ends in"):
        scans(tmp_path, 1)
    with pytest.raises(DataError, match="1 Analyze"):
        scans(put(tmp_path, "a.img"), 1)


@pytest.mark.parametrize(
    ("files", "channels", "message"),
    [
        (["a.nii", "a.nii.gz"], 1, r"a\.nii\.gz: is a\.nii again"),
        (["a_0000.nii", "a_0000.nii.gz"], 1, "again"),
        (
            [f"a_000{n}.nii" for n in range(4)],
            2,
            r"(?s)2 faults.*a_0002\.nii: is channel 0002, and the network takes 2",
        ),
    ],
)
def test_no_image_of_a_folder_is_left_out_in_silence(
    tmp_path: Path, files: list[str], channels: int, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        scans(put(tmp_path, *files), channels)


def test_a_link_gives_its_own_name(tmp_path: Path) -> None:
    put(tmp_path, "store/MD5-123.nii.gz")
    (tmp_path / "sub-01.nii.gz").symlink_to("store/MD5-123.nii.gz")
    assert found(tmp_path / "sub-01.nii.gz") == {"sub-01": ["sub-01.nii.gz"]}
