"""A sheet of cases with their labels and the patch drawn in, to be looked at before a training."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from seg.data.preprocess import Scan
from seg.errors import times
from seg.pages.panels import PLANES, choose_slices, layout, plane, shades, write
from seg.pages.picture import Box, Entry, Picture, fitted, font_of, legend, overview
from seg.study.drawing import GREY, INK, class_colors

DPI = 130
COLUMNS = 2
OUTSIDE = "#404040"


class Look(NamedTuple):
    """What is shown of one case: the scan, RAS, and class indices (X, Y, Z) on its grid."""

    case: str
    scan: Scan
    label: np.ndarray


def preview(
    looks: Sequence[Look],
    path: Path,
    *,
    title: str,
    channel: str,  # the first one, which is shown
    class_names: Sequence[str],  # background first
    patch_mm: Sequence[float],  # along X, Y, Z
    patch: str,  # in words
    axis: int,  # that the slices cut
    window: tuple[float, float] | None,  # image values shown black and white; None: each image's own
) -> Path:
    """Writes a PNG with the slice of most structure of each case: the whole of it, and what a patch sees of it."""
    cells = [_cell(look, patch_mm, axis, window) for look in looks]
    width, height = (max(cell.size[side] for cell in cells) for side in (0, 1))
    gap, columns = round(0.15 * DPI), min(COLUMNS, len(cells))
    whole = columns * (width + gap) + gap
    entries: Mapping[str, Sequence[Entry]] = {
        "Labels": [*zip(class_names[1:], class_colors(len(class_names) - 1), strict=True)],
        "White frame": [
            (f"{patch} around the label (none: the whole picture); beside it what is in it", None),
            ("outside the image", OUTSIDE),
        ],
        "Shown": [(f"{channel}; the slice with most structure, from the smallest case to the largest", None)],
    }
    below, top = legend(entries, whole - 2 * gap, DPI), round(0.4 * DPI)
    lines = -(-len(cells) // columns)
    sheet = Image.new("RGB", (whole, top + lines * (height + gap) + below.height + gap), "white")
    font = font_of(13, DPI, True)
    ImageDraw.Draw(sheet).text((gap, round(0.1 * DPI)), fitted(title, font, whole - 2 * gap), font=font, fill=INK)
    for number, cell in enumerate(cells):
        row, column = divmod(number, columns)
        sheet.paste(cell, (gap + column * (width + gap), top + row * (height + gap)))
    sheet.paste(below, (gap, top + lines * (height + gap)))
    return write(sheet, path, DPI)


def _cell(look: Look, patch_mm: Sequence[float], axis: int, window: tuple[float, float] | None) -> Image.Image:
    """One case: its name, and the two panels of its slice."""
    scan, spacing = look.scan, look.scan.spacing_mm
    colours = scan.unit == "pixels" and len(scan.image) == 3
    image = scan.image if colours else scan.image[0]
    columns, rows, edges = layout(axis)
    (index,) = choose_slices(look.label, look.label, axis, "best")
    flat, label = (plane(volume, axis, index) for volume in (image, look.label))
    sides = [patch_mm[other] / spacing[other] for other in (rows, columns)]
    low, high = shades(image, window)
    flat, label, frame = _framed(flat, label, sides, low + (high - low) * int(OUTSIDE[1:3], 16) / 255)
    picture = Picture(
        image=flat,
        label=label,
        pred=label,
        spacing_mm=(spacing[rows], spacing[columns]),
        window=(low, high),
        title=look.case,
        subtitle="",
        classes={},
        edges=edges if scan.oriented and scan.unit == "mm" else None,
        unit=scan.unit,
    )
    panels = overview(picture, frame, DPI)
    shape = scan.image.shape[1:]
    about = f"{PLANES[axis]} slice {index} of 0–{shape[axis] - 1}  ·  {times(shape)} voxels, {times(spacing)} mm"
    if scan.unit == "pixels":
        about = f"{times((shape[columns], shape[rows]))} pixels"
    heading = round(0.36 * DPI)
    cell = Image.new("RGB", (panels.width, panels.height + heading), "white")
    pen = ImageDraw.Draw(cell)
    for text, font, color, line in (
        (look.case, font_of(10, DPI, True), INK, 0),
        (about, font_of(8, DPI), GREY, heading // 2),
    ):
        pen.text((0, line), fitted(text, font, cell.width), font=font, fill=color)
    cell.paste(panels, (0, heading))
    return cell


def _framed(
    image: np.ndarray, label: np.ndarray, sides: Sequence[float], outside: float
) -> tuple[np.ndarray, np.ndarray, Box]:
    """The slice, wider where a patch is larger than it, and the patch around the label's middle, within the slice."""
    shape, places = np.array(label.shape), np.argwhere(label)
    middle = (places.min(0) + places.max(0) + 1) / 2 if len(places) else shape / 2
    size = np.array(sides)
    first = np.where(size < shape, np.clip(middle - size / 2, 0, np.maximum(shape - size, 0)), (shape - size) / 2)
    before, after = (np.ceil(np.maximum(out, 0)).astype(int) for out in (-first, first + size - shape))
    around = [*zip(before, after, strict=True)]
    first = first + before
    wider = np.pad(image.astype(np.float32), [*around, (0, 0)][: image.ndim], constant_values=outside)
    label = np.pad(label, around)
    top, left, bottom, right = np.minimum([*first, *(first + size)], [*label.shape, *label.shape]).tolist()
    return wider, label, (left, top, right, bottom)
