"""Paints the four panels of one slice, and sheets of such pictures, into a Pillow image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from math import floor, log10
from pathlib import Path
from typing import TypeAlias

import matplotlib
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageColor, ImageDraw, ImageFont

from seg.data.grids import Unit
from seg.study.drawing import ERROR_COLORS, GREY, INK, class_colors

Codes: TypeAlias = npt.NDArray[np.uint8]
Entry: TypeAlias = tuple[str, str | None]  # text, colour
Box: TypeAlias = tuple[float, float, float, float]

HEADINGS = ("Image", "Reference", "Prediction", "Errors")
SIDES = {"R": "patient's right on the left (radiological view)", "A": "anterior on the left"}
SHOWN = (0.5, 99.5)  # percentiles of an image shown black and white
PANEL_INCHES = (1.6, 2.65, 3.3)  # narrowest, widest, highest


@dataclass(frozen=True)
class Picture:
    """What one picture shows.

    ``image`` (rows, columns) of any number type, or (rows, columns, 3) of colours; ``label`` and ``pred`` (rows,
    columns) class indices below 256; ``spacing_mm`` of a row and of a column; ``window`` the image values shown black
    and white; ``classes`` the legend text by class index; ``edges`` the directions at the left, top, right and bottom
    edge, None where not known.
    """

    image: np.ndarray
    label: npt.NDArray[np.integer]
    pred: npt.NDArray[np.integer]
    spacing_mm: tuple[float, float]
    window: tuple[float, float]
    title: str
    subtitle: str
    classes: Mapping[int, str]
    edges: tuple[str, str, str, str] | None = None
    unit: Unit = "mm"  # of ``spacing_mm``


def draw(picture: Picture, dpi: int) -> Image.Image:
    """The picture in RGB: title, four panels side by side, legends."""
    size = _panel_size(picture, dpi)
    margin, gap, top = (round(inches * dpi) for inches in (0.15, 0.1, 0.84))
    cell = max(size[0], round(PANEL_INCHES[0] * dpi))
    width = 2 * margin + 4 * cell + 3 * gap
    legend = _legend(picture, width - 2 * margin, dpi)
    below = top + size[1] + gap
    sheet = Image.new("RGB", (width, below + legend.height + margin), "white")
    pen = ImageDraw.Draw(sheet)
    for text, font, line in ((picture.title, font_of(13, dpi, True), 0.1), (picture.subtitle, font_of(9.5, dpi), 0.35)):
        pen.text((margin, line * dpi), fitted(text, font, width - 2 * margin), font=font, fill=INK)
    box = _close_up((picture.label > 0) | (picture.pred > 0))
    zoom = picture.image.shape[1] / (box[2] - box[0])
    for number, (name, view) in enumerate(zip(HEADINGS, _views(picture, size, box, dpi), strict=True)):
        left = margin + number * (cell + gap) + (cell - size[0]) // 2
        name += f"  ×{zoom:.1f}" if number and zoom > 1 else ""
        pen.text((left + size[0] // 2, top - 0.05 * dpi), name, font=font_of(10, dpi, True), fill=INK, anchor="ms")
        sheet.paste(view, (left, top))
    sheet.paste(legend, (margin, below))
    return sheet


def overview(picture: Picture, frame: Box, dpi: int) -> Image.Image:
    """Two panels: the whole image with the reference and ``frame`` drawn in, and what is in the frame, with neither."""
    size, line = _panel_size(picture, dpi), max(1, round(dpi / 100))
    seen = _seen(picture)
    codes = Image.fromarray(picture.label.astype(np.uint8)).resize(size, Image.Resampling.NEAREST)
    ground = np.asarray(seen.convert("L").resize(size, Image.Resampling.BICUBIC))
    colors = class_colors(int(picture.label.max()))
    whole = Image.fromarray(_painted(ground, np.asarray(codes), colors, 0.25, line))
    _annotate(whole, picture, frame, dpi)
    sides = np.subtract(frame[2:], frame[:2]) * picture.spacing_mm[::-1]
    close = np.maximum(1, np.rint(sides * np.min(np.divide(size, sides)))).astype(int).tolist()  # as large as has room
    sheet = Image.new("RGB", (2 * size[0] + line * 6, size[1]), "white")
    sheet.paste(whole)
    sheet.paste(seen.resize(tuple(close), Image.Resampling.BICUBIC, frame), (size[0] + line * 6, 0))
    return sheet


def stack(pictures: Mapping[str, Image.Image], width: int) -> Image.Image:
    """Pictures one below the other, brought to ``width`` pixels, each under its caption."""
    font = font_of(11, 150, True)
    heading = round(font.size * 2)
    scaled = {
        caption: picture.resize((width, round(picture.height * width / picture.width)), Image.Resampling.LANCZOS)
        for caption, picture in pictures.items()
    }
    sheet = Image.new("RGB", (width, sum(heading + picture.height for picture in scaled.values())), "white")
    pen, top = ImageDraw.Draw(sheet), 0
    for caption, picture in scaled.items():
        top += heading
        pen.text((width * 0.014, top), fitted(caption, font, width), font=font, fill=GREY, anchor="lb")
        sheet.paste(picture, (0, top))
        top += picture.height
    return sheet


def percentiles(image: np.ndarray, shares: Sequence[float]) -> list[float]:
    """Image values below which these percent of the image lie; without its lowest, more often padding than tissue.

    Some two million voxels tell enough, and soon.
    """
    sample = image.ravel()[:: max(1, image.size // 2_000_000)]
    inside = sample[sample > sample.min()]
    values: list[float] = np.percentile(inside if inside.size else sample, shares).tolist()
    return values


def error_codes(label: npt.NDArray[np.integer], pred: npt.NDArray[np.integer]) -> Codes:
    """0 where both are background, otherwise the index from 1 of the pixel's kind in ``ERROR_COLORS``."""
    wrong = np.where(label == 0, 2, np.where(pred == 0, 3, 4))
    return np.where(label == pred, label > 0, wrong).astype(np.uint8)


@lru_cache
def font_of(points: float, dpi: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib carries: the same on every machine, with accents, Greek and Cyrillic."""
    file = Path(matplotlib.get_data_path(), "fonts", "ttf", f"DejaVuSans{'-Bold' if bold else ''}.ttf")
    return ImageFont.truetype(file, round(points * dpi / 72), layout_engine=ImageFont.Layout.BASIC)


def fitted(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """The text, cut in its middle until it fits ``width`` pixels."""
    line, keep = text, len(text)
    while font.getlength(line) > width and keep > 2:
        keep -= 1
        line = f"{text[: (keep + 1) // 2]}…{text[-(keep // 2) :]}"
    return line


def _panel_size(picture: Picture, dpi: int) -> tuple[int, int]:
    """Width and height in pixels of each panel, in the proportions of the slice in mm."""
    rows_mm, columns_mm = np.multiply(picture.label.shape, picture.spacing_mm).tolist()
    _, widest, highest = PANEL_INCHES
    pixels_a_mm = dpi * min(widest / columns_mm, highest / rows_mm)
    return max(1, round(columns_mm * pixels_a_mm)), max(1, round(rows_mm * pixels_a_mm))


def _views(picture: Picture, size: tuple[int, int], box: Box, dpi: int) -> list[Image.Image]:
    """The four panels, each of ``size``: the whole image, and the masks on the part of it that ``box`` holds."""
    seen = _seen(picture)
    grey = seen.convert("L")
    whole = seen.resize(size, Image.Resampling.BICUBIC).convert("RGB")
    _annotate(whole, picture, box, dpi)
    close = np.asarray(grey.resize(size, Image.Resampling.BICUBIC, box))
    classes, errors = class_colors(int(max(picture.label.max(), picture.pred.max()))), list(ERROR_COLORS.values())
    masks = [(picture.label, close, classes, 0.35), (picture.pred, close, classes, 0.35)]
    masks.append((error_codes(picture.label, picture.pred), close // 2, errors, 0.7))
    views = [whole]
    for codes, ground, colors, opacity in masks:
        large = Image.fromarray(codes.astype(np.uint8)).resize(size, Image.Resampling.NEAREST, box)
        views.append(Image.fromarray(_painted(ground, np.asarray(large), colors, opacity, max(1, round(dpi / 100)))))
    return views


def _seen(picture: Picture) -> Image.Image:
    """The image in its window, grey or in colours."""
    low, high = picture.window
    shade = (picture.image.astype(np.float32) - low) * (255 / max(high - low, 1e-12))
    return Image.fromarray(np.clip(shade, 0, 255).astype(np.uint8))


def _painted(grey: Codes, codes: Codes, colors: Sequence[str], opacity: float, line: int) -> Codes:
    """(H, W, 3): regions filled with their colour at ``opacity`` and outlined ``line`` pixels wide within themselves.

    One look-up in a table (code, grey value) -> colour, since that is what makes it fast.
    """
    edge = np.zeros(codes.shape, np.bool_)
    for moved, still in ((np.s_[line:], np.s_[:-line]), (np.s_[:, line:], np.s_[:, :-line])):
        step = codes[moved] != codes[still]
        edge[moved] |= step
        edge[still] |= step
    greys = np.repeat(np.arange(256.0)[:, None], 3, 1)
    inks = np.array([ImageColor.getrgb(color) for color in colors], float).reshape(-1, 1, 3)
    fills = [greys[None], (1 - opacity) * greys + opacity * inks]
    lines = [greys[None], np.broadcast_to(inks, (len(colors), 256, 3))]
    painted: Codes = np.concatenate(fills + lines).astype(np.uint8)[codes + edge * np.uint16(len(colors) + 1), grey]
    return painted


def _close_up(mask: npt.NDArray[np.bool_]) -> Box:
    """(left, top, right, bottom) around the mask, twice as large and in the proportions of the slice.

    The whole slice where the mask is empty, or so large that less than a third would be won.
    """
    shape = np.array(mask.shape)
    places = np.argwhere(mask)
    low, high = (places.min(0), places.max(0) + 1) if len(places) else (0 * shape, shape)
    share = max(2 * float(np.max((high - low) / shape)), float(np.max(12 / shape)))
    side = shape * (share if share < 1 / 1.5 else 1)
    top, left = np.clip((low + high - side) / 2, 0, shape - side).tolist()
    return left, top, left + float(side[1]), top + float(side[0])


def _annotate(view: Image.Image, picture: Picture, box: Box, dpi: int) -> None:
    """Draws the frame of the close-up and, where there is room, the directions and a scale bar onto the image."""
    pen, font, pad = ImageDraw.Draw(view), font_of(9, dpi, True), round(0.05 * dpi)
    width, height = view.size
    line = max(1, round(dpi / 100))
    rows, columns = picture.label.shape
    if box != (0, 0, columns, rows):
        x, y = width / columns, height / rows
        pen.rectangle((box[0] * x, box[1] * y, box[2] * x - 1, box[3] * y - 1), outline="white", width=line)
    if min(view.size) < 0.7 * dpi:
        return
    write = partial(pen.text, font=font, fill="white", stroke_width=line, stroke_fill="black")
    places = ((pad, height // 2), (width // 2, pad), (width - pad, height // 2), (width // 2, height - pad))
    for text, place, anchor in zip(picture.edges or (), places, ("lm", "ma", "rm", "md"), strict=False):
        write(place, text, anchor=anchor)
    across = columns * picture.spacing_mm[1]
    bar, base = scale_bar(across), height - 2 * pad
    pen.rectangle((pad, base - 3 * line, pad + bar / across * width, base), fill="white", outline="black")
    write((pad, base - 4 * line), f"{bar:g} {picture.unit}", anchor="ld")


def scale_bar(across: float) -> float:
    """The length of a bar on a slice ``across`` wide: 1, 2 or 5 times a power of ten, below 0.4 of it."""
    power = 10.0 ** floor(log10(0.4 * across))
    return max(times * power for times in (0.5, 1, 2, 5) if times * power < 0.4 * across)


def _legend(picture: Picture, width: int, dpi: int) -> Image.Image:
    """Colours of the classes and of the errors, and how the slice is shown, in as many lines as they need."""
    shades = class_colors(max(picture.classes, default=0))
    note = "pixels {1:.3g} × {0:.3g} mm".format(*picture.spacing_mm) if picture.unit == "mm" else "as in the file"
    if picture.edges:
        note = f"{SIDES[picture.edges[0]]}  ·  {note}"
    where = " in this slice" if picture.unit == "mm" else ""
    groups: dict[str, list[Entry]] = {
        f"Dice{where}": [(text, shades[k - 1]) for k, text in picture.classes.items()]
        or [(f"no structure{where}", None)],
        "Errors": list(ERROR_COLORS.items()),
        "View": [(note, None)],
    }
    return legend(groups, width, dpi)


def legend(groups: Mapping[str, Sequence[Entry]], width: int, dpi: int) -> Image.Image:
    """Entries with their colours under headings, in as many lines as they need."""
    font, strong = font_of(8.5, dpi), font_of(8.5, dpi, True)
    indent, swatch, pitch = round(1.25 * dpi), round(0.1 * dpi), round(0.19 * dpi)
    sheet = Image.new("RGB", (width, pitch * sum(map(len, groups.values()))), "white")
    pen, y = ImageDraw.Draw(sheet), pitch // 2
    for heading, entries in groups.items():
        pen.text((0, y), heading, font=strong, fill=INK, anchor="lm")
        x = indent
        for text, color in entries:
            needed = font.getlength(text) + 3.6 * swatch
            if x > indent and x + needed > width:
                x, y = indent, y + pitch
            if color:
                pen.rectangle((x, y - swatch // 2, x + swatch, y + swatch // 2), fill=color, outline=INK)
            pen.text((x + 1.4 * swatch if color else x, y), text, font=font, fill=INK, anchor="lm")
            x += round(needed)
        y += pitch
    return sheet.crop((0, 0, width, y - pitch // 2))
