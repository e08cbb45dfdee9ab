"""Reads pictures (PNG, JPEG, TIFF) as volumes one voxel deep, and writes their masks; functions as in ``nifti``.

What a reader must know:

- Columns become X and rows Y, from the left and from the top, as ITK has them: X points left and Y posterior, so that
  slices are drawn as viewers show the picture. Masks come out as pictures were shown: also where EXIF turns one.
- A picture says no mm (its dots per inch are for printers): every pixel has the side 1, and ``Header.unit`` is pixels.
- Colours are three channels. A mask has one number a pixel: a grey value, or the index of a palette's colour.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from seg.data.grids import LPS, Header, reading
from seg.errors import DataError, few

ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
KINDS = ("PNG", "JPEG", "TIFF")  # as Pillow calls them
ORIENTATION, DESCRIPTION = 0x0112, 270  # tags of EXIF and of TIFF
GREYS = {"1": "u1", "L": "u1", "I;16": "u2", "I;16L": "u2", "I;16B": "u2", "I": "i4", "F": "f4"}  # modes of Pillow
COLOURS = ("RGB", "RGBA", "LA", "P", "PA")
HIGHEST = 65535  # of a PNG
_TRANSPARENT = "parts of it are transparent, and nothing says what is there. Save it without transparency."


def read_header(path: Path) -> Header:
    """As that of NIfTI; (X, Y, 1), or (X, Y, 1, 3) of colours."""
    with _opened(path) as (image, notes):
        return _described(image, notes)


def read(path: Path, dtype: np.dtype[np.generic] | None = None) -> tuple[Header, np.ndarray]:
    """As that of NIfTI: what is seen, as ``dtype``; or, where that is None, the numbers of a mask."""
    with _opened(path) as (image, notes):
        if dtype is not None and "transparency" in image.info:  # of a colour; the index of a mask is its class anyway
            raise DataError(_TRANSPARENT)
        array = _mask(image) if dtype is None else np.asarray(image.convert(_mode(image)))
        voxels = np.swapaxes(array, 0, 1)[:, :, None]
        return _described(image, notes), voxels.astype(dtype or (np.uint8 if array.dtype == bool else array.dtype))


def packed(array: np.ndarray, affine: np.ndarray, end: str, like: Path | None) -> bytes:
    """As that of NIfTI; a PNG, whatever ``like`` is."""
    if like is None:
        raise DataError(f"{end} holds the mask of a picture, and this is the mask of a volume. Write it as .nii.gz.")
    if array.min() < 0 or array.max() > HIGHEST:
        raise DataError(f"a PNG holds values from 0 to {HIGHEST}; the mask has {array.min()} to {array.max()}.")
    content = BytesIO()
    Image.fromarray(np.ascontiguousarray(array[..., 0].T)).save(content, "PNG")
    return content.getvalue()


def other_palettes(masks: Iterable[Path]) -> str:
    """What is wrong where one index has several colours: then it is not one class. Nothing where all agree."""
    palettes: dict[Path, list[tuple[int, ...]]] = {}
    for path in masks:
        with suppress(OSError, Image.DecompressionBombError), Image.open(path, formats=KINDS) as image:
            palettes[path] = _palette(image)  # one that cannot be read is reported with the rest
    if len({*map(tuple, palettes.values())}) < 2:
        return ""
    first: dict[int, tuple[Path, tuple[int, ...]]] = {}
    for path in filter(palettes.get, palettes):
        for index in np.unique(read(path)[1]).tolist():
            if index >= len(palettes[path]):
                return f"{path}: colour {index} is not in its palette of {len(palettes[path])}. Save it again."
            colour = palettes[path][index]
            earlier, known = first.setdefault(index, (path, colour))
            if known != colour:
                return (
                    f"{path}: colour {index} of its palette is {_hex(colour)}; in {earlier.name} it is {_hex(known)}. "
                    "The index is the class, so all masks need one palette. Save them again with the same one, or "
                    "as grey values."
                )
    return ""


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Image.Image, tuple[str, ...]]]:
    """The picture, turned as viewers show it, and what is odd about it; DataError names the file."""
    with reading(path, "picture"):
        if not path.stat().st_size:
            raise DataError("the file is empty (0 bytes). Copy it again.")
        try:
            image = Image.open(path, formats=KINDS)
        except UnidentifiedImageError:
            raise DataError(f"neither {', nor '.join(KINDS)}, or cut off. Copy or convert it again.") from None
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise DataError(_too_large()) from None
        with image:
            if image.width * image.height > (Image.MAX_IMAGE_PIXELS or np.inf):
                raise DataError(_too_large())
            _check(image)
            notes = _notes(image)
            ImageOps.exif_transpose(image, in_place=True)
            yield image, notes


def _too_large() -> str:
    limit = Image.MAX_IMAGE_PIXELS or 0
    return f"over {limit / 1e6:.0f} million pixels, which is the most that is read. Cut it into tiles."


def _check(image: Image.Image) -> None:
    """Refuses what has no one meaning as an image or a mask."""
    if (pages := getattr(image, "n_frames", 1)) > 1:
        raise DataError(
            f"{pages} pictures in one file. A picture is one; a stack of slices is a volume, whose distances must be "
            "known: save each page by itself, or the stack as NIfTI."
        )
    if image.mode not in (*GREYS, *COLOURS):
        raise DataError(f"its colours are {image.mode}; grey, RGB, RGBA and palettes are read. Convert it to RGB.")
    if image.mode not in GREYS and any(";16" in str(tile[3]) for tile in getattr(image, "tile", ())):
        raise DataError(
            "colours of 16 bits each, of which 8 would be lost. Save each channel as a grey picture of 16 bits, "
            "<case>_0000, <case>_0001 …, or all as RGB of 8 bits."
        )
    if image.mode in ("RGBA", "LA", "PA") and image.getchannel("A").getextrema() != (255, 255):
        raise DataError(_TRANSPARENT)


def _notes(image: Image.Image) -> tuple[str, ...]:
    turn, described = image.getexif().get(ORIENTATION, 1), str(getattr(image, "tag_v2", {}).get(DESCRIPTION, ""))
    notes = [f"EXIF orientation {turn}: turned as viewers show it"] if turn not in (0, 1) else []
    if "PhysicalSizeX" in described or ("ImageJ=" in described and "unit=" in described):
        notes.append("says how large a pixel is, which is not read: pictures are measured in pixels")
    return tuple(notes)


def _described(image: Image.Image, notes: tuple[str, ...]) -> Header:
    mode = _mode(image)
    shape = (*image.size, 1, 3) if mode == "RGB" else (*image.size, 1)
    return Header(shape, LPS, np.dtype(GREYS.get(mode, "u1")), notes, unit="pixels")


def _mode(image: Image.Image) -> str:
    """That of Pillow in which the picture is read: one channel, or RGB."""
    if image.mode in GREYS:
        return image.mode
    grey = image.mode == "LA" or (image.mode in ("P", "PA") and not _palette(image))
    return "L" if grey else "RGB"


def _palette(image: Image.Image) -> list[tuple[int, ...]]:
    """The colours of a palette, red, green and blue of 0 to 255; none where there are only greys, read as such."""
    if image.mode not in ("P", "PA") or image.palette is None:
        return []
    flat = image.getpalette("RGB") or []
    colours = [tuple(flat[at : at + 3]) for at in range(0, len(flat), 3)]
    return colours if any(len(set(colour)) > 1 for colour in colours) else []


def _mask(image: Image.Image) -> np.ndarray:
    """(rows, columns) of the numbers of a mask: indices of a palette's colours, grey values otherwise."""
    if image.mode in GREYS:
        mask = np.asarray(image)
    elif image.mode in ("P", "PA") and _palette(image):
        mask = np.asarray(image if image.mode == "P" else image.getchannel(0))
    else:
        colours = np.asarray(image.convert("RGB"))
        mask = colours[..., 0]
        if (colours != mask[..., None]).any():
            kinds = [_hex(colour) for colour in np.unique(colours[(colours != mask[..., None]).any(-1)], axis=0)]
            raise DataError(
                f"a mask in colours ({few(kinds)}), and nothing says which class each is. Save it with one number a "
                "pixel: the class, as a grey value or the index of a palette."
            )
    if image.format == "JPEG" and not np.isin(mask, (0, 255)).all():
        raise DataError(
            "a mask as JPEG, which changes values at edges: here are others than 0 and 255. Save it from its source as "
            "PNG; where that is lost, set what is 128 or more to 255, the rest to 0, and look at the edges."
        )
    return mask


def _hex(colour: Iterable[int]) -> str:
    return "#" + "".join(f"{part:02x}" for part in colour)
