"""Paints the four panels of one slice, and sheets of such pictures, into a Pillow image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import matplotlib
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Codes: TypeAlias = npt.NDArray[np.uint8]
Color: TypeAlias = tuple[int, int, int]
Entry: TypeAlias = tuple[str, Color | None]
Box: TypeAlias = tuple[float, float, float, float]

# Okabe and Ito 2008, some made lighter for dark images; last those that come near a colour of the error map.
CLASS_COLORS: tuple[Color, ...] = (
    (0, 178, 125), (204, 121, 167), (240, 228, 66), (230, 159, 0), (86, 180, 233), (60, 110, 255), (213, 94, 0),
)  # fmt: skip
ERROR_COLORS: dict[str, Color] = {
    "correct": (215, 215, 215),
    "false positive": (235, 90, 0),
    "false negative": (60, 165, 255),
    "wrong class": (250, 235, 70),
}
HEADINGS = ("Image", "Reference", "Prediction", "Errors")
INK, FAINT, FRAME = (20, 20, 20), (100, 100, 100), (255, 255, 255)
SCALE_BARS_MM = (1, 2, 5, 10, 20, 50, 100)
PANEL_INCHES = (1.6, 2.65, 3.3)  # narrowest, widest, highest


@dataclass(frozen=True)
class Picture:
    """What one picture shows.

    ``image`` (rows, columns) of any number type, ``label`` and ``pred`` (rows, columns) class indices below 256;
    ``spacing_mm`` of a row and of a column; ``window`` the image values shown black and white; ``classes`` the legend
    text by class index; ``edges`` the directions at the left, top, right and bottom edge, None where not known.
    """

    image: npt.NDArray[Any]
    label: npt.NDArray[np.integer]
    pred: npt.NDArray[np.integer]
    spacing_mm: tuple[float, float]
    window: tuple[float, float]
    title: str
    subtitle: str
    classes: Mapping[int, str]
    edges: tuple[str, str, str, str] | None = None


def draw(picture: Picture, dpi: int) -> Image.Image:
    """The picture in RGB: title, four panels (two by two where the slice is wide), legends."""
    size = _panel_size(picture, dpi)
    margin, gap, head = (round(inches * dpi) for inches in (0.15, 0.1, 0.62))
    heading = round(0.22 * dpi)
    columns = _columns(size[0] / size[1])
    cell = max(size[0], round(PANEL_INCHES[0] * dpi))
    width = 2 * margin + columns * cell + (columns - 1) * gap
    legend = _legend(picture, width - 2 * margin, dpi)
    below = head + (4 // columns) * (heading + size[1] + gap)
    sheet = Image.new("RGB", (width, below + legend.height + margin), "white")
    pen = ImageDraw.Draw(sheet)
    for text, points, top, bold in ((picture.title, 13, 0.1, True), (picture.subtitle, 9.5, 0.35, False)):
        line, font = fitted(text, points, width - 2 * margin, dpi, bold=bold)
        pen.text((margin, top * dpi), line, font=font, fill=INK)
    box = _close_up((picture.label > 0) | (picture.pred > 0))
    zoom = picture.image.shape[1] / (box[2] - box[0])
    for number, (name, view) in enumerate(zip(HEADINGS, _views(picture, size, box, dpi), strict=True)):
        row, column = divmod(number, columns)
        left = margin + column * (cell + gap) + (cell - size[0]) // 2
        top = head + row * (heading + size[1] + gap) + heading
        name += f"  ×{zoom:.1f}" if number and zoom > 1 else ""
        pen.text((left + size[0] // 2, top - 0.05 * dpi), name, font=font_of(10, dpi, True), fill=INK, anchor="ms")
        sheet.paste(view, (left, top))
    sheet.paste(legend, (margin, below))
    return sheet


def stack(pictures: Mapping[str, Image.Image], columns: int, width: int) -> Image.Image:
    """Pictures in a grid ``width`` pixels wide, read row by row, each under its caption."""
    cell, font = width // columns, font_of(11, 150, True)
    heading = round(font.size * 2)
    small = [p.resize((cell, round(p.height * cell / p.width)), Image.Resampling.LANCZOS) for p in pictures.values()]
    rows = [range(start, min(start + columns, len(small))) for start in range(0, len(small), columns)]
    heights = [heading + max(small[n].height for n in row) for row in rows]
    sheet = Image.new("RGB", (width, sum(heights)), "white")
    pen, captions = ImageDraw.Draw(sheet), list(pictures)
    for row, top in zip(rows, np.cumsum([0, *heights[:-1]]).tolist(), strict=True):
        for column, n in enumerate(row):
            pen.text((column * cell + cell * 0.014, top + heading), captions[n], font=font, fill=FAINT, anchor="lb")
            sheet.paste(small[n], (column * cell, top + heading))
    return sheet


def error_codes(label: npt.NDArray[np.integer], pred: npt.NDArray[np.integer]) -> Codes:
    """0 where both are background, else the place of the pixel's kind in ``ERROR_COLORS``, from 1."""
    wrong = np.where(label == 0, 2, np.where(pred == 0, 3, 4))
    return np.where(label == pred, label > 0, wrong).astype(np.uint8)


def class_colors(count: int) -> list[Color]:
    """Colours of classes 1 … ``count``: seven, then the same ones again, darker."""
    rounds = [(index % len(CLASS_COLORS), 0.6 ** (index // len(CLASS_COLORS))) for index in range(count)]
    return [tuple(round(part * shade) for part in CLASS_COLORS[place]) for place, shade in rounds]  # type: ignore[misc]


@lru_cache
def font_of(points: float, dpi: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib carries: the same on every machine, with accents, Greek and Cyrillic."""
    file = Path(matplotlib.get_data_path(), "fonts", "ttf", f"DejaVuSans{'-Bold' if bold else ''}.ttf")
    return ImageFont.truetype(file, round(points * dpi / 72), layout_engine=ImageFont.Layout.BASIC)


def fitted(text: str, points: float, width: int, dpi: int, *, bold: bool = False) -> tuple[str, ImageFont.FreeTypeFont]:
    """The text and a font with which it fits ``width`` pixels: smaller down to 7 points, then cut in its middle."""
    while (font := font_of(points, dpi, bold)).getlength(text) > width and points > 7:
        points -= 0.5
    keep = len(text)
    line = text
    while font.getlength(line) > width and keep > 2:
        keep -= 1
        line = f"{text[: (keep + 1) // 2]}…{text[-(keep // 2) :]}"
    return line, font


def _columns(aspect: float) -> int:
    """Panels side by side, for a slice so many times as wide as it is high."""
    return 4 if aspect < 2.2 else 2 if aspect < 6 else 1


def _panel_size(picture: Picture, dpi: int) -> tuple[int, int]:
    """Width and height in pixels of each panel, in the proportions of the slice in mm."""
    rows_mm, columns_mm = np.multiply(picture.image.shape, picture.spacing_mm).tolist()
    _, widest, highest = PANEL_INCHES
    inches_a_mm = min(widest * 4 / _columns(columns_mm / rows_mm) / columns_mm, highest / rows_mm)
    return max(1, round(columns_mm * inches_a_mm * dpi)), max(1, round(rows_mm * inches_a_mm * dpi))


def _views(picture: Picture, size: tuple[int, int], box: Box, dpi: int) -> list[Image.Image]:
    """The four panels, each of ``size``: the whole image, and the masks on the part of it that ``box`` holds."""
    low, high = picture.window
    shade = (picture.image.astype(np.float32) - low) * (255 / max(high - low, 1e-12))
    grey = Image.fromarray(np.clip(shade, 0, 255).astype(np.uint8))
    whole = grey.resize(size, Image.Resampling.BICUBIC).convert("RGB")
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


def _painted(grey: Codes, codes: Codes, colors: Sequence[Color], opacity: float, line: int) -> Codes:
    """(H, W, 3): regions filled with their colour at ``opacity`` and outlined ``line`` pixels wide within themselves.

    One look-up in a table (code, grey value) -> colour, since that is what makes it fast.
    """
    edge = np.zeros(codes.shape, np.bool_)
    for moved, still in ((np.s_[line:], np.s_[:-line]), (np.s_[:, line:], np.s_[:, :-line])):
        step = codes[moved] != codes[still]
        edge[moved] |= step
        edge[still] |= step
    greys = np.repeat(np.arange(256.0)[:, None], 3, 1)
    inks = np.array(colors, float).reshape(-1, 1, 3)
    fills = np.concatenate([greys[None], (1 - opacity) * greys + opacity * inks])
    lines = np.concatenate([greys[None], np.broadcast_to(inks, (len(colors), 256, 3))])
    table = np.concatenate([fills, lines]).astype(np.uint8)
    painted: Codes = table[codes + edge * np.uint16(len(colors) + 1), grey]
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
    rows, columns = picture.image.shape
    if box[2] - box[0] < columns:
        x, y = width / columns, height / rows
        pen.rectangle((box[0] * x, box[1] * y, box[2] * x - 1, box[3] * y - 1), outline=FRAME, width=line)
    if min(view.size) < 0.7 * dpi:
        return
    places = ((pad, height // 2, "lm"), (width // 2, pad, "ma"), (width - pad, height // 2, "rm"))
    for (x, y, anchor), text in zip((*places, (width // 2, height - pad, "md")), picture.edges or (), strict=False):
        pen.text((x, y), text, font=font, fill=FRAME, stroke_width=line, stroke_fill="black", anchor=anchor)
    pixels_a_mm = width / (columns * picture.spacing_mm[1])
    bar_mm = max((n for n in SCALE_BARS_MM if n * pixels_a_mm < 0.4 * width), default=SCALE_BARS_MM[0])
    base = height - 2 * pad
    pen.rectangle((pad, base - 3 * line, pad + bar_mm * pixels_a_mm, base), fill=FRAME, outline="black")
    pen.text(
        (pad, base - 4 * line),
        f"{bar_mm:g} mm",
        font=font_of(8, dpi),
        fill=FRAME,
        stroke_width=line,
        stroke_fill="black",
        anchor="ld",
    )


def _legend(picture: Picture, width: int, dpi: int) -> Image.Image:
    """Colours of the classes and of the errors, and how the slice is shown, in as many lines as they need."""
    shades = class_colors(max(picture.classes, default=0))
    classes: list[Entry] = [(text, shades[k - 1]) for k, text in picture.classes.items()]
    rows_mm, columns_mm = picture.spacing_mm
    note = f"pixels {columns_mm:.3g} × {rows_mm:.3g} mm"
    if picture.edges:
        sides = {"R": "patient's right on the left (radiological view)", "A": "anterior on the left"}
        note = f"{sides[picture.edges[0]]}  ·  {note}"
    groups: list[tuple[str, list[Entry]]] = [
        ("Dice in this slice", classes or [("no structure in this slice", None)]),
        ("Errors", list(ERROR_COLORS.items())),
        ("View", [(note, None)]),
    ]
    font, strong = font_of(8.5, dpi), font_of(8.5, dpi, True)
    indent, swatch, pitch = round(1.25 * dpi), round(0.1 * dpi), round(0.19 * dpi)
    placed: list[tuple[int, int, Entry]] = []
    line = 0
    for heading, entries in groups:
        x = indent
        placed.append((0, line, (heading, None)))
        for text, color in entries:
            needed = round(font.getlength(text) + 3.6 * swatch)
            if x > indent and x + needed > width:
                x, line = indent, line + 1
            placed.append((x, line, (text, color)))
            x += needed
        line += 1
    sheet = Image.new("RGB", (width, line * pitch), "white")
    pen = ImageDraw.Draw(sheet)
    for x, line, (text, color) in placed:
        y = line * pitch + pitch // 2
        if color:
            pen.rectangle((x, y - swatch // 2, x + swatch, y + swatch // 2), fill=color, outline=INK)
        pen.text((x + 1.4 * swatch if color else x, y), text, font=font if x else strong, fill=INK, anchor="lm")
    return sheet
