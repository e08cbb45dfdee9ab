"""Pictures of predictions: image, reference, prediction and error map side by side, drawn by Pillow.

Pillow rather than matplotlib, because a run draws hundreds of them and a figure canvas costs several times as much.

What a reader must know to read one, and what the picture itself says:

- Volumes come in RAS+ order and are shown in the radiological convention: the patient's right on the left of the
  picture, anterior or superior at the top; a sagittal slice has anterior on the left. The letters on the image say so.
- Pixels keep their true proportions in mm. The image is interpolated, masks are not: each step is one voxel.
- Where the structures fill a small part of the slice, the three mask panels show the framed part of the image, larger.
- Colour-blind readers can distinguish the colours (Okabe and Ito 2008); a class has the same one in every slice.
"""

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from seg.data.grids import Unit
from seg.errors import ConfigError, times
from seg.files import atomic_write
from seg.metrics import dice
from seg.pages.picture import SHOWN, Picture, draw, percentiles, stack
from seg.regions import Regions, inside

PLANES = ("sagittal", "coronal", "axial")
OPPOSITE = {"R": "L", "A": "P", "S": "I"}


def panel(picture: Picture, path: Path, *, dpi: int = 300) -> Path:
    """Draws one picture and writes it as a PNG, whole or not at all; text and lines keep their size in print."""
    return write(draw(picture, dpi), path, dpi)


def case_panels(
    image: np.ndarray,
    label: npt.NDArray[np.integer],
    pred: npt.NDArray[np.integer],
    *,
    case: str,
    run: str,  # short run id
    dice_of_case: float,  # mean over the classes of the whole case; NaN where none is scored
    class_names: Sequence[str],  # background first
    spacing_mm: Sequence[float],  # along X, Y, Z
    axis: int,  # that the slices cut: 0 sagittal, 1 coronal, 2 axial
    folder: Path,
    slices: str | int = "best",  # as in ``choose_slices``
    window: tuple[float, float] | None = None,  # image values shown black and white, such as the plan's of CT
    dpi: int = 300,
    unit: Unit = "mm",  # of ``spacing_mm``; a picture, in pixels, is shown as it is, without directions
    within: Regions | None = None,  # of regions, as in seg.regions
) -> list[Path]:
    """Writes ``<case>_Slice_<nnn>.png`` for the chosen slices of one case, ``nnn`` being the index from 0.

    Volumes are (X, Y, Z) in RAS+ order, ``label`` and ``pred`` class indices; ``image`` may be (3, X, Y, Z) of red,
    green and blue up to 255. Without a ``window`` an image of one channel is shown from its 0.5th to its 99.5th
    percentile, its lowest value left out, which is padding more often than tissue.
    """
    low, high = shades(image, window)
    columns, rows, edges = layout(axis)
    score = "nothing to find" if np.isnan(dice_of_case) else f"case dice {dice_of_case:.3f}"
    paths: list[Path] = []
    for index in choose_slices(label, pred, axis, slices):
        flat, flat_label, flat_pred = (plane(array, axis, index) for array in (image, label, pred))
        where = f"{PLANES[axis]} slice {index} of 0–{label.shape[axis] - 1}"
        if unit == "pixels":
            where = f"{times(flat_label.shape[::-1])} pixels"
        picture = Picture(
            image=flat,
            label=flat_label,
            pred=flat_pred,
            spacing_mm=(spacing_mm[rows], spacing_mm[columns]),
            window=(low, high),
            title=case,
            subtitle=f"{where}  ·  {score}  ·  run {run}",
            classes=_class_texts(flat_label, flat_pred, class_names, within),
            edges=edges if unit == "mm" else None,
            unit=unit,
        )
        paths.append(panel(picture, folder / f"{case}_Slice_{index:03d}.png", dpi=dpi))
    return paths


def layout(axis: int) -> tuple[int, int, tuple[str, str, str, str]]:
    """The axes of a slice's columns and rows, and the directions at its left, top, right and bottom edge."""
    columns, rows = (other for other in range(3) if other != axis)
    left, top = "RAS"[columns], "RAS"[rows]
    return columns, rows, (left, top, OPPOSITE[left], OPPOSITE[top])


def shades(image: np.ndarray, window: tuple[float, float] | None) -> tuple[float, float]:
    """The image values shown black and white: of colours (3, X, Y, Z) all, otherwise ``window``, or percentiles."""
    if image.ndim == 4:
        return 0, 255
    low, high = window or percentiles(image, SHOWN)
    return low, high


def choose_slices(
    label: npt.NDArray[np.integer], pred: npt.NDArray[np.integer], axis: int, slices: str | int
) -> list[int]:
    """Indices along ``axis``, rising, of volumes (X, Y, Z) of class indices.

    ``slices`` is "best": the one with most foreground in the reference, or in the prediction where the reference has
    none; "foreground": all with some in either; "all"; or a number: as many of the foreground slices, evenly spread, or
    all of them where there are fewer. Where nothing is foreground, the middle slice.

    Raises:
        ConfigError: ``slices`` is none of these.
    """
    others = tuple(other for other in range(3) if other != axis)
    in_label, in_pred = (np.count_nonzero(mask, axis=others) for mask in (label, pred))
    filled = np.flatnonzero(in_label + in_pred)
    middle = len(in_label) // 2
    if slices == "all":
        return list(range(len(in_label)))
    if slices == "best":
        counts = in_label if in_label.any() else in_pred
        return [int(counts.argmax()) if counts.any() else middle]
    if slices == "foreground":
        return filled.tolist() or [middle]
    if isinstance(slices, int) and not isinstance(slices, bool) and slices > 0:
        places = (np.arange(slices) + 0.5) * len(filled) / slices
        return np.unique(filled[places.astype(int)]).tolist() if len(filled) else [middle]
    raise ConfigError(f"predictions.slices is {slices!r}; give best, foreground, all or a number of slices above 0")


def contact_sheet(panels: Mapping[str, Path], path: Path, *, width: int = 2000) -> Path:
    """Puts PNG files, by caption, one below the other onto a sheet of ``width`` pixels, itself a PNG."""
    pictures = {caption: Image.open(file).convert("RGB") for caption, file in panels.items()}
    return write(stack(pictures, width), path, dpi=150)


def extremes(dice_by_case: Mapping[str, float]) -> dict[str, str]:
    """The cases of best, median and worst dice, by caption; fewer where there are fewer cases."""
    ranked = sorted(dice_by_case, key=lambda case: (-dice_by_case[case], case))
    names = {len(ranked) // 2: "median", len(ranked) - 1: "worst", 0: "best"} if ranked else {}
    return {
        f"{names[place]} of {len(ranked)}: dice {dice_by_case[ranked[place]]:.3f}": ranked[place]
        for place in sorted(names)
    }


def write(sheet: Image.Image, path: Path, dpi: int) -> Path:
    """Writes a picture as a PNG, whole or not at all."""
    content = BytesIO()
    sheet.save(content, "png", dpi=(dpi, dpi), compress_level=3)
    atomic_write(path, content.getvalue())
    return path


def plane(volume: np.ndarray, axis: int, index: int) -> np.ndarray:
    """(rows, columns) of a slice of an RAS+ volume: rows from superior or anterior, columns from right or anterior.

    Of colours (3, X, Y, Z): (rows, columns, 3).
    """
    if volume.ndim == 4:
        return np.stack([plane(colour, axis, index) for colour in volume], -1)
    cut: np.ndarray = np.take(volume, index, axis)[::-1, ::-1].T
    return cut


def _class_texts(
    label: npt.NDArray[np.integer], pred: npt.NDArray[np.integer], class_names: Sequence[str], within: Regions | None
) -> dict[int, str]:
    """Legend of the classes, or regions, in this slice: name and dice within the slice, by class index."""
    masks = {k: (inside(pred, k, within), inside(label, k, within)) for k in range(1, len(class_names))}
    return {
        k: f"{class_names[k]} {dice(mine, theirs, (1.0, 1.0)):.2f}"
        for k, (mine, theirs) in masks.items()
        if mine.any() or theirs.any()
    }
