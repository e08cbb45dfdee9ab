"""What can be wrong with the files of one case: each fault and each oddity of a header in a sentence."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from seg.data import grids
from seg.data.cases import CaseSet
from seg.data.classes import in_words, question
from seg.data.volumes import is_picture
from seg.errors import counted

TILTED = (
    "its axes are not at right angles (sheared, as by a tilted gantry), so volumes and distances would come out wrong. "
    "Resample it to a straight grid"
)
SHEAR = f"{TILTED}, or set data.allow_shear=true"


def image_faults(path: Path, image: np.ndarray, declared: int) -> list[str]:
    """What is wrong with the voxels (C, X, Y, Z) of one file that should hold ``declared`` channels."""
    faults = []
    if len(image) != declared:
        fix = "Declare the channels in dataset.json, or split the file"
        if is_picture(path):
            fix = "Save all pictures in colours (RGB) or all in grey, and declare as many channels in dataset.json"
        seen = counted(len(image), "channel")
        faults.append(f"{path}: {seen}, but {declared} should be in this file. {fix}.")
    bad = image.size - np.count_nonzero(np.isfinite(image))
    if bad:
        faults.append(f"{path}: {bad} voxels are NaN or infinite. Replace them, for instance by 0.")
    for number, channel in enumerate(image):
        if channel.min() == channel.max():
            which = f"channel {number}: " if len(image) > 1 else ""
            faults.append(
                f"{path}: {which}every voxel is {channel.flat[0]:g}, so there is nothing to see. Export it again or"
                " leave the case out."
            )
    return faults


def repeated(paths: Sequence[Path], images: Sequence[np.ndarray]) -> list[tuple[Path, str]]:
    """Files with a channel that is there twice; ``images`` are (C, X, Y, Z), one per file."""
    channels = [(path, channel) for path, image in zip(paths, images, strict=True) for channel in image]
    return [
        (path, f"channel {number} of the case is the same as channel {earlier}")
        for number, (path, channel) in enumerate(channels)
        for earlier in range(number)
        if np.array_equal(channels[earlier][1], channel)
    ]


def label_faults(path: Path, label: np.ndarray, caseset: CaseSet) -> list[str]:
    """Values of a label (X, Y, Z) that are not classes, and what they may mean."""
    values, counts = np.unique(label, return_counts=True)
    found = zip(values.tolist(), counts.tolist(), strict=True)
    known = {caseset.ignore, *caseset.values, *chain.from_iterable(caseset.regions or ())}
    if not (strange := {value: n for value, n in found if value not in known}):
        return []
    classes = dict(zip(caseset.names, caseset.labels, strict=True))
    ask = question(strange)
    return [
        f"{path}: label has {in_words(strange)} that are not classes; the classes are {classes}."
        f" {ask or 'Add them to dataset.json or fix the file.'}"
    ]


def grid_faults(headers: dict[Path, grids.Header]) -> list[str]:
    """Compares the files of one case with the first that could be read."""
    first = next(iter(headers), None)
    return [
        f"{path}: {grids.grid(header)}, but {first.name} has {grids.grid(headers[first])}."
        " All files of a case must share one grid: resample or re-export one of them."
        for path, header in headers.items()
        if first and not grids.same_grid(headers[first], header)
    ]


def notes(headers: dict[Path, grids.Header]) -> list[tuple[str, str]]:
    """Files, and what their headers say against themselves; sheared axes are reported for the first file alone."""
    notes = [(str(path), note) for path, header in headers.items() for note in header.notes]
    return notes + [(str(path), SHEAR) for path, header in headers.items() if grids.sheared(header.affine)][:1]
