"""The painted picture: proportions, colours, close-up, and text that fits."""

from dataclasses import replace
from itertools import combinations, pairwise

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageColor
from scipy import ndimage

from seg.pages.picture import Picture, draw, error_codes, fitted, font_of, scale_bar, stack
from seg.study.drawing import CLASS_COLORS, ERROR_COLORS, class_colors

DPI = 100


def picture(label: npt.ArrayLike, pred: npt.ArrayLike, **changes: object) -> Picture:
    masks = np.array(label, np.uint8), np.array(pred, np.uint8)
    image = np.random.default_rng(0).normal(size=masks[0].shape)
    fixed = {"spacing_mm": (1.0, 1.0), "window": (-2.0, 2.0), "title": "case", "subtitle": "slice", "classes": {1: "a"}}
    return Picture(image, *masks, **(fixed | changes))  # type: ignore[arg-type]


def largest(sheet: Image.Image, color: str) -> tuple[int, int]:
    """Height and width of the largest connected thing drawn in exactly this colour."""
    parts, _ = ndimage.label((np.asarray(sheet) == ImageColor.getrgb(color)).all(-1))
    boxes = ndimage.find_objects(parts)
    return max(((rows.stop - rows.start, cols.stop - cols.start) for rows, cols in boxes), key=np.prod, default=(0, 0))


def square(size: int, low: int, high: int) -> npt.NDArray[np.uint8]:
    mask = np.zeros((size, size), np.uint8)
    mask[low:high, low:high] = 1
    return mask


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0), (2.0, 1.0), (0.8, 1.6)])
def test_pixels_keep_their_proportions_in_mm(spacing_mm: tuple[float, float]) -> None:
    mask = square(20, 4, 16)
    height, width = largest(draw(picture(mask, mask, spacing_mm=spacing_mm), 200), CLASS_COLORS[0])
    assert height / width == pytest.approx(spacing_mm[0] / spacing_mm[1], rel=0.02)


def test_error_codes_name_each_kind() -> None:
    label, pred = np.array([[0, 1, 0, 1, 1]]), np.array([[0, 1, 2, 0, 2]])
    kinds = ["", *ERROR_COLORS]
    assert [kinds[code] for code in error_codes(label, pred)[0]] == [
        "",
        "correct",
        "false positive",
        "false negative",
        "wrong class",
    ]


def test_a_missed_structure_shows_in_the_reference_and_as_false_negative_only() -> None:
    mask, empty = square(20, 4, 16), np.zeros((20, 20))
    sheet = draw(picture(mask, empty), DPI)
    swatch = round(0.1 * DPI) + 2
    shown = {name: max(largest(sheet, color)) > swatch for name, color in ERROR_COLORS.items()}
    assert shown == {"correct": False, "false positive": False, "false negative": True, "wrong class": False}
    assert max(largest(sheet, CLASS_COLORS[0])) > swatch


def test_nothing_is_painted_where_there_is_no_structure() -> None:
    mask = square(30, 10, 20)
    empty = draw(picture(0 * mask, 0 * mask, classes={}), DPI)
    for color in (*CLASS_COLORS, *ERROR_COLORS.values()):
        assert max(largest(empty, color)) <= round(0.1 * DPI) + 2


def test_a_small_structure_is_shown_close_up() -> None:
    mask = square(512, 300, 310)
    sheet = draw(picture(mask, mask), DPI)
    assert largest(sheet, CLASS_COLORS[0])[0] > 0.4 * 2.65 * DPI


def test_a_close_up_at_the_border_stays_inside_the_slice() -> None:
    mask = np.zeros((200, 100), np.uint8)
    mask[:8, -6:] = 1
    height, width = largest(draw(picture(mask, mask), DPI), CLASS_COLORS[0])
    assert height / width == pytest.approx(8 / 6, rel=0.1)


@pytest.mark.parametrize("shape", [(35, 24), (24, 35), (1, 1), (3, 200), (200, 3), (40, 320), (512, 512)])
def test_any_shape_can_be_drawn(shape: tuple[int, int]) -> None:
    mask = np.arange(np.prod(shape)).reshape(shape) % 3
    sheet = draw(picture(mask, mask[::-1], classes={1: "a", 2: "b"}, edges=("R", "A", "L", "P")), DPI)
    assert max(sheet.size) < 16 * DPI
    assert sheet.width > 4 * DPI


@pytest.mark.parametrize(
    ("across", "bar"),
    [(0.256, "0.1"), (0.0006, "0.0002"), (24, "5"), (40, "10"), (300, "100"), (2500, "500")],
)
def test_the_scale_bar_is_a_round_length_that_fits_whatever_the_magnitude(across: float, bar: str) -> None:
    assert f"{scale_bar(across):g}" == bar


def test_the_scale_bar_has_the_length_that_it_tells() -> None:
    image, empty = np.full((512, 512), -2.0), np.zeros((512, 512))
    for spacing_mm in (0.0005, 0.8):
        sheet = draw(replace(picture(empty, empty, spacing_mm=(spacing_mm,) * 2), image=image), DPI)
        panel = np.asarray(sheet)[84:349, 15:280]  # 2.65 inches of the first one, which is black
        white, _ = ndimage.label((panel == 255).all(-1))
        bar = max(part[1].stop - part[1].start for part in ndimage.find_objects(white))
        assert bar / 265 == pytest.approx(scale_bar(512 * spacing_mm) / (512 * spacing_mm), abs=0.02)


@pytest.mark.parametrize("window", [(0.0, 0.0), (5.0, 5.0), (-1e9, 1e9)])
def test_a_flat_image_can_be_drawn(window: tuple[float, float]) -> None:
    mask = square(9, 2, 5)
    assert draw(picture(mask, mask, window=window), DPI).mode == "RGB"


def test_dpi_scales_the_whole_picture() -> None:
    mask = square(9, 2, 5)
    small, large = (draw(picture(mask, mask), dpi).size for dpi in (100, 300))
    assert large == pytest.approx(np.multiply(small, 3), rel=0.01)


def test_many_classes_get_a_longer_legend_and_colours_of_their_own() -> None:
    mask = np.arange(900).reshape(30, 30) % 15
    many = {k: f"a structure with a long name {k}" for k in range(1, 15)}
    few = draw(picture(mask, mask, classes={1: "a"}), DPI)
    assert draw(picture(mask, mask, classes=many), DPI).height > few.height


@pytest.mark.parametrize("count", [1, 7, 8, 33, 117, 255])
def test_every_class_has_a_colour_that_can_be_seen_and_is_no_errors_colour(count: int) -> None:
    colors = class_colors(count)
    assert len(set(colors)) == len(colors) == count
    assert not set(colors) & set(ERROR_COLORS.values())
    assert min(lab(color, SIGHT["full"])[0] for color in colors) > 30, "none comes near black"
    near = [np.linalg.norm(lab(one, SIGHT["full"]) - lab(other, SIGHT["full"])) for one, other in pairwise(colors)]
    assert min(near, default=99) > 25, "neighbours least of all look alike"


@pytest.mark.parametrize("length", [1, 30, 90, 400])
def test_a_title_always_fits_and_keeps_both_ends(length: int) -> None:
    text = "start_" + "W" * length + "_end"
    font = font_of(13, 100)
    line = fitted(text, font, 900)
    assert font.getlength(line) <= 900
    assert line.startswith("start")
    assert line.endswith("end")


# Machado et al. 2009, full protanopia, deuteranopia, tritanopia, on linear RGB.
SIGHT = {
    "full": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def lab(color: str, sight: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """CIE L*a*b* (D65) of a colour as someone of this sight sees it."""
    share = np.array(ImageColor.getrgb(color)) / 255
    linear = np.clip(
        np.array(sight) @ np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4), 0, 1
    )
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt(to_xyz @ linear / to_xyz.sum(1))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("sight", SIGHT)
def test_colours_are_told_apart_by_every_kind_of_sight(sight: str) -> None:
    """Those of the first classes and of the errors, among themselves and from each other."""
    for one, other in combinations([*CLASS_COLORS, *ERROR_COLORS.values()], 2):
        assert np.linalg.norm(lab(one, SIGHT[sight]) - lab(other, SIGHT[sight])) > 11, (one, other)


def test_stack_keeps_proportions_and_order() -> None:
    pictures = {"first": Image.new("RGB", (400, 200), "red"), "second": Image.new("RGB", (200, 200), "blue")}
    sheet = stack(pictures, 600)
    assert sheet.width == 600
    assert largest(sheet, "red") == (300, 600)
    assert largest(sheet, "blue") == (600, 600)
    assert sheet.getpixel((10, 100)) == (255, 0, 0)
