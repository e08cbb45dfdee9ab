"""Pictures (PNG, JPEG, TIFF) as images and masks: what is read, what comes back, and what is refused."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from seg.data.cases import folder
from seg.data.fingerprint import fingerprint
from seg.data.grids import same_grid
from seg.data.nifti import to_ras
from seg.data.scans import scans
from seg.data.volumes import read_header, read_image, read_label, write_label
from seg.errors import DataError

SHAPE = (6, 9)  # rows, columns
MASK = np.zeros(SHAPE, np.uint8)
MASK[0, :3] = MASK[4, 5:7] = 1  # no symmetry
GREY = np.arange(54, dtype=np.uint8).reshape(SHAPE)
COLOURS = np.stack([GREY, 255 - GREY, GREY // 2], -1)


def save(path: Path, array: np.ndarray, mode: str = "", **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def palette(path: Path, array: np.ndarray, *colours: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.frombytes("P", array.shape[::-1], array.tobytes())
    image.putpalette(colours)
    image.save(path)
    return path


def pair(root: Path, case: str = "a", image: np.ndarray = COLOURS, mask: np.ndarray = MASK * 255) -> None:
    save(root / "images" / f"{case}.png", image)
    save(root / "masks" / f"{case}.png", mask)


@pytest.mark.parametrize(
    ("name", "array", "mode"),
    [
        ("a.png", COLOURS, ""),
        ("A.TIF", COLOURS, ""),
        ("a.png", COLOURS, "RGBA"),
        ("a.png", GREY, ""),
        ("a.tiff", GREY, "LA"),
        ("a.png", GREY.astype(np.uint16) * 1000, ""),
        ("a.tif", GREY.astype(np.float32) / 7, ""),
        ("a.png", MASK > 0, ""),
    ],
)
def test_a_picture_is_read_column_by_column(name: str, array: np.ndarray, mode: str, tmp_path: Path) -> None:
    path = save(tmp_path / name, array, mode)
    image, _ = read_image([path])
    seen = np.atleast_3d(array).astype(np.float32)
    assert image.shape == (seen.shape[2], 9, 6, 1)
    np.testing.assert_array_equal(image[..., 0].transpose(2, 1, 0), seen)
    header = read_header(path)
    assert (header.unit, header.spacing_mm, header.oriented) == ("pixels", (1, 1, 1), False)
    assert header.shape[:3] == (9, 6, 1)


def test_pictures_are_drawn_as_viewers_show_them(tmp_path: Path) -> None:
    from seg.pages.panels import case_panels

    path = save(tmp_path / "a.png", np.kron(COLOURS, np.ones((40, 40, 1), np.uint8)))
    image, affine = read_image([path])
    none = np.zeros(image.shape[1:], np.uint8)
    turned, _ = to_ras(image, affine)
    about: dict[str, Any] = {"case": "a", "run": "r", "dice_of_case": 1.0, "class_names": ["background"]}
    (panel,) = case_panels(
        turned, none, none, spacing_mm=(1, 1, 1), axis=2, folder=tmp_path, dpi=100, unit="pixels", **about
    )
    sheet = np.asarray(Image.open(panel).convert("RGB")).astype(int)
    first = sheet[84 : 84 + 177, 15 : 15 + 265]  # the first of the four, 2.65 inches wide
    for row, column in ((0, 0), (0, 8), (4, 0), (3, 8)):
        at = first[int((row + 0.5) * 177 / 6), int((column + 0.5) * 265 / 9)]
        assert np.abs(at - COLOURS[row, column]).max() <= 2


def test_a_mask_comes_back_as_it_went_in(tmp_path: Path) -> None:
    image = save(tmp_path / "a.jpg", COLOURS)
    label = read_label(save(tmp_path / "m.png", MASK * 255))
    write_label(tmp_path / "out.png", label, like=image)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out.png")), MASK * 255)
    write_label(tmp_path / "out.nii.gz", label, like=image)
    assert same_grid(read_header(tmp_path / "out.nii.gz"), read_header(image))
    write_label(tmp_path / "high.png", label.astype(np.int32) * 200, like=image)
    assert np.asarray(Image.open(tmp_path / "high.png")).max() == 51_000
    with pytest.raises(DataError, match="from 0 to 65535; the mask has 0 to 76500"):
        write_label(tmp_path / "higher.png", label.astype(np.int32) * 300, like=image)
    with pytest.raises(DataError, match=r"mask of a volume. Write it as \.nii\.gz"):
        write_label(tmp_path / "other.png", label, like=tmp_path / "out.nii.gz")


def test_exif_turns_a_picture_as_viewers_do(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(tmp_path / "a.png", COLOURS, exif=exif)
    image, _ = read_image([path])
    np.testing.assert_array_equal(image[..., 0].transpose(2, 1, 0), np.rot90(COLOURS, -1))
    header = read_header(path)
    assert header.shape == (6, 9, 1, 3)
    assert header.notes == ("EXIF orientation 6: turned as viewers show it",)


def test_a_mask_is_grey_values_or_indices_of_a_palette(tmp_path: Path) -> None:
    two = MASK + (MASK & 1) * (np.arange(9) == 1).astype(np.uint8)
    for path in (
        save(tmp_path / "grey.png", two),
        save(tmp_path / "rgb.png", two, "RGB"),
        palette(tmp_path / "palette.png", two, 0, 0, 0, 255, 0, 0, 0, 255, 0),
        palette(tmp_path / "greys.png", 2 - two, 2, 2, 2, 1, 1, 1, 0, 0, 0),  # in any order, they mean themselves
    ):
        np.testing.assert_array_equal(read_label(path)[..., 0].T, two)
    image, _ = read_image([tmp_path / "palette.png"])  # and seen as an image, its colours
    assert image[:, 1, 0, 0].tolist() == [0, 255, 0]


def test_white_is_the_foreground(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    save(tmp_path / "images/a.JPG", COLOURS)
    save(tmp_path / "masks/a.png", MASK * 255)
    save(tmp_path / "images/b.png", COLOURS)
    save(tmp_path / "masks/b.png", MASK > 0)  # of one bit
    Image.fromarray(MASK * 255).save(tmp_path / "masks/b.png")
    cases = folder(tmp_path)
    assert cases.classes == {"background": 0, "foreground": 255}
    assert cases.channels == ("red", "green", "blue")
    assert [case.id for case in cases.cases] == ["a", "b"]
    assert "255 in its masks is the class foreground" in caplog.text
    prints = fingerprint(cases, tmp_path / "cache")
    assert prints.unit == "pixels"
    assert [case.foreground_voxels for case in prints.cases] == [{1: 5}] * 2
    assert prints.cases[0].shape == (9, 6, 1)


def test_masks_that_may_mean_several_things_are_refused(tmp_path: Path) -> None:
    pair(tmp_path, "a")
    pair(tmp_path, "b", mask=MASK)
    with pytest.raises(DataError, match=r"values \[0, 1, 255\].*What is 255\?"):
        folder(tmp_path)
    pair(tmp_path, "b", mask=GREY)
    with pytest.raises(DataError, match=r"55 values from 0 to 255.*smoothed edges.*255 and the rest to 0"):
        folder(tmp_path)


def test_palettes_that_differ_are_refused(tmp_path: Path) -> None:
    for case, colours in (("a", (0, 0, 0, 255, 0, 0)), ("b", (0, 0, 0, 0, 0, 255))):
        pair(tmp_path, case)
        palette(tmp_path / "masks" / f"{case}.png", MASK, *colours)
    with pytest.raises(DataError, match=r"b\.png: colour 1 of its palette is #0000ff; in a\.png it is #ff0000"):
        folder(tmp_path)
    labels = {"background": 0, "cell": 1}
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels, "channel_names": {"0": "grey"}}))
    with pytest.raises(DataError, match="colour 1 of its palette is"):
        folder(tmp_path)


def refused_colours(path: Path) -> Path:
    return save(path / "m.png", COLOURS)


def refused_jpeg(path: Path) -> Path:
    return save(path / "m.jpg", np.kron(MASK * 255, np.ones((5, 5), np.uint8)), quality=60)


def refused_pages(path: Path) -> Path:
    more = [Image.fromarray(GREY)] * 2
    more[0].save(path / "m.tif", save_all=True, append_images=more)
    return path / "m.tif"


def refused_transparent(path: Path) -> Path:
    return save(path / "m.png", np.concatenate([COLOURS, GREY[..., None]], -1))


def test_a_colour_that_is_transparent_is_refused_in_an_image_and_an_index_of_a_mask(tmp_path: Path) -> None:
    picture = Image.fromarray(MASK, "P")
    picture.putpalette([0, 0, 0, 255, 0, 0])
    picture.save(tmp_path / "a.png", transparency=0)
    assert np.array_equal(read_label(tmp_path / "a.png")[..., 0].T, MASK)
    with pytest.raises(DataError, match="parts of it are transparent"):
        read_image([tmp_path / "a.png"])


def refused_cut_off(path: Path) -> Path:
    noise = np.random.default_rng(0).integers(0, 255, (99, 99), np.uint8)
    whole = save(path / "m.png", noise)
    whole.write_bytes(whole.read_bytes()[:5000])
    return whole


def refused_empty(path: Path) -> Path:
    (path / "m.png").write_bytes(b"")
    return path / "m.png"


def refused_other(path: Path) -> Path:
    (path / "m.png").write_bytes(b"<svg/>")
    return path / "m.png"


def refused_cmyk(path: Path) -> Path:
    return save(path / "m.jpg", COLOURS, "CMYK")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (refused_colours, "a mask in colours .*#00ff00.* Save it with one number a pixel"),
        (refused_jpeg, "a mask as JPEG, which changes values at edges"),
        (refused_pages, "3 pictures in one file"),
        (refused_transparent, "parts of it are transparent"),
        (refused_cut_off, "the file is cut off or damaged"),
        (refused_empty, "the file is empty"),
        (refused_other, "neither PNG, nor JPEG, nor TIFF"),
        (refused_cmyk, "its colours are CMYK"),
    ],
)
def test_what_has_no_one_meaning_is_refused(make: Callable[[Path], Path], words: str, tmp_path: Path) -> None:
    path = make(tmp_path)
    with pytest.raises(DataError, match=f"{path.name}: {words}"):
        read_label(path)


def test_too_large_a_picture_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.png", GREY)
    for limit in (20, 40):  # Pillow's error, and its warning
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(DataError, match="million pixels, which is the most that is read"):
            read_header(path)


def test_an_image_and_its_mask_share_one_size(tmp_path: Path) -> None:
    pair(tmp_path, "a")
    pair(tmp_path, "b", image=COLOURS[:, :-1])
    pair(tmp_path, "c", image=GREY)
    with pytest.raises(DataError) as error:
        fingerprint(folder(tmp_path), tmp_path / "cache")
    assert "b.png: 9×6 pixels, but b.png has 8×6 pixels" in str(error.value)
    assert "c.png: 1 channel, but 3 should be in this file. Save all pictures in colours (RGB)" in str(error.value)


def test_a_mask_that_is_not_turned_as_its_image_is_refused_with_the_turn(tmp_path: Path) -> None:
    pair(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6
    save(tmp_path / "images" / "a.png", COLOURS, exif=exif)
    with pytest.raises(DataError, match=r"a\.png: 9×6 pixels, but a\.png has 6×9 pixels — EXIF orientation 6"):
        fingerprint(folder(tmp_path), tmp_path / "cache")


def test_smoothed_masks_are_refused_with_their_range(tmp_path: Path) -> None:
    pair(tmp_path, mask=np.arange(54, dtype=np.uint8).reshape(6, 9))
    with pytest.raises(DataError, match="the labels hold 54 values from 0 to 53, and no dataset"):
        folder(tmp_path)


def test_beside_volumes_pictures_are_previews(tmp_path: Path) -> None:
    from scans import save as save_volume

    for place, array in (("imagesTr", GREY), ("labelsTr", MASK)):
        save_volume(tmp_path / place / "a.nii.gz", array[..., None].astype(np.uint8), np.eye(4))
        save(tmp_path / place / "a.png", array)
        save(tmp_path / place / "b.jpg", array)
    (case,) = folder(tmp_path).cases
    assert [path.name for path in case.images] == ["a.nii.gz"]


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("imagesTr/{}_0000.png", "labelsTr/{}.png"),
        ("{}.png", "{}_mask.png"),
        ("{}/image.png", "{}/mask.png"),
    ],
)
@pytest.mark.parametrize("described", [True, False])
def test_pictures_have_the_layouts_of_volumes(image: str, label: str, described: bool, tmp_path: Path) -> None:
    for case in ("a", "b"):
        save(tmp_path / image.format(case), COLOURS)
        save(tmp_path / label.format(case), MASK)
    if described:
        channels = {"0": "R", "1": "G", "2": "B"}
        content = {"channel_names": channels, "labels": {"background": 0, "cell": 1}, "file_ending": ".png"}
        (tmp_path / "dataset.json").write_text(json.dumps(content))
    cases = folder(tmp_path)
    assert [(case.id, len(case.images)) for case in cases.cases] == [("a", 1), ("b", 1)]
    assert cases.channels == (("R", "G", "B") if described else ("red", "green", "blue"))
    assert fingerprint(cases, tmp_path / "cache").cases[0].foreground_voxels == {1: 5}


def test_new_pictures_are_found_one_by_one(tmp_path: Path) -> None:
    for name in ("frame_0001.png", "frame_0002.JPG", "other.tif"):
        save(tmp_path / name, COLOURS)
    found = scans(tmp_path, channels=3)
    assert [(case.id, [path.name for path in case.images]) for case in found] == [
        ("frame_0001", ["frame_0001.png"]),
        ("frame_0002", ["frame_0002.JPG"]),
        ("other", ["other.tif"]),
    ]


@pytest.mark.slow
def test_from_pictures_to_masks_of_new_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from training import TINY, composed

    from seg.config.command import read
    from seg.config.options import CONF
    from seg.engine.masks import matched, score_masks
    from seg.pages.compare import compare
    from seg.predict import main
    from seg.records.folder import RunFolder
    from seg.train import train

    rng = np.random.default_rng(0)
    for number in range(9):
        mask = np.zeros((40, 52), np.uint8)
        mask[4 + number : 16 + number, 30:48] = 255
        image = np.stack([mask // 2, 200 - mask // 3, mask * 0 + 90], -1) + rng.integers(0, 20, (40, 52, 3))
        pair(tmp_path / "set", f"c{number}", image.astype(np.uint8), mask)
    where = [f"data.root={tmp_path / 'set'}", f"paths.outputs={tmp_path}", f"paths.cache={tmp_path / 'cache'}"]
    result = train(composed(*TINY, "data=folder", *where), "tiny")
    assert result is not None
    run = RunFolder.at(tmp_path / "runs" / result.predictions.name)
    assert run.read_config().dims == 2
    table = pd.read_csv(run.cases)
    assert {*table["unit"]} == {"pixels"}
    masks = list(result.predictions.glob("c?.png"))
    assert {path.stem for path in masks} == {*table["case"]}
    assert {np.asarray(Image.open(path)).shape for path in masks} == {(40, 52)}
    page = compare([run], tmp_path).text
    assert '"unit":"pixels"' in page
    assert "HD95 pixels, mean" in page

    new = save(tmp_path / "new/x.JPG", COLOURS.repeat(6, 0).repeat(6, 1))
    keys = (CONF / "predict.yaml").read_text() + "paths:\n  outputs: outputs\n"
    main(
        read(keys, [f"paths.outputs={tmp_path}", f"run={result.run_id}", f"input={new}", f"output={tmp_path / 'out'}"])
    )
    made = np.asarray(Image.open(tmp_path / "out/x.png"))
    assert made.shape == (36, 54)
    assert {*np.unique(made)} <= {0, 255}
    (row,) = json.loads((tmp_path / "out/report.json").read_text())["scans"]
    assert (row["status"], row["scan"]["unit"]) == ("finished", "pixels")

    for path in (tmp_path / "set/masks").iterdir():
        if path.stem not in {*table["case"]}:
            path.unlink()
    again = score_masks(matched({"run": result.predictions}, tmp_path / "set/masks", name="set"), 1.0)
    np.testing.assert_allclose(again["dice"], table["dice"], atol=1e-4)
