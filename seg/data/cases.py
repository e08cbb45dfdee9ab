"""Cases of a data set: which files belong together, whose patient they are, and what channels and classes mean."""

import logging
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from seg.data import layouts, volumes
from seg.data.classes import Classes, classes_of, mapping_of, one_palette, seen_classes
from seg.data.names import Files, channel_names, unfit
from seg.data.patients import SUBJECT, columns_of, patients_of, rows_of
from seg.errors import ConfigError, DataError, few, together
from seg.regions import Regions, indices_within

log = logging.getLogger(__name__)
COLOURS = ("red", "green", "blue")
PART_FOLDERS = ("train", "training", "val", "valid", "validation", "test", "testing")


@dataclass(frozen=True)
class Case:
    """One examination: ``images`` is one file per channel, or one file with the channels on its fourth axis."""

    id: str
    patient: str
    images: tuple[Path, ...]
    label: Path | None


@dataclass(frozen=True)
class CaseSet:
    """A data set. ``classes`` maps a name to its value in the label files, background (0) first.

    Everywhere else a class is its index 0…K-1, the position in ``classes``; ``values[index]`` is the value in the file.
    ``ignore`` is the value of voxels that nobody annotated, where there is one; their index is IGNORE. Of a data set
    with ``regions``, sets of label values, ``classes`` are these: see ``seg.regions``.
    """

    name: str
    cases: tuple[Case, ...]
    channels: tuple[str, ...]
    classes: dict[str, int]
    ignore: int | None = None
    regions: Regions | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Class names by class index."""
        return tuple(self.classes)

    @property
    def values(self) -> tuple[int, ...]:
        """Values that are written into label files, by class index."""
        return tuple(self.classes.values())

    @property
    def labels(self) -> tuple[int | tuple[int, ...], ...]:
        """Values in the label files by class index; one that several indices have is the last of them."""
        return self.values if self.regions is None else (0, *self.regions)

    @property
    def within(self) -> Regions | None:
        """Of regions, the class indices that are in each."""
        return indices_within(self.values, self.regions)

    @property
    def outputs(self) -> int:
        """Channels of a network's logits: one a class, background too; or one a region."""
        return len(self.regions or self.classes)


def folder(root: str | Path, *, name: str | None = None, patient: str | None = None, layout: str = "auto") -> CaseSet:
    """Data set in a folder: Decathlon, nnU-Net, a table, a datalist, images and labels by name, or a folder a case.

    Only names are looked at here; ``fingerprint`` opens the files and lists every fault.

    Args:
        root: the folder; or the table or list in it that names the cases (docs/data.md has all layouts).
        name: of the data set in reports; by default the folder's.
        patient: which cases are of one patient: a pattern with one group, searched in the case id, or the path of a
            .csv file with the columns ``case`` and ``patient``. By default every case is a patient of its own, or of
            the one that a table, its name in BIDS or the folder around it says.
        layout: one of ``seg.data.layouts.LAYOUTS``, or auto.

    Raises:
        DataError: no such folder, no layout that is known, or files that belong to no case.
        ConfigError: ``dataset.json``, ``patient`` or ``layout`` says something that cannot be.
    """
    place = layouts.place_of(Path(root).expanduser(), layout)
    files, channels, classes = _found(place)
    strange = [case_id for case_id, _, _ in files if unfit(case_id)]
    rule = "cannot be the name of a mask's file, which begins with no dot and has no slash and no control character"
    together(DataError, [f"case {case_id!r} {rule}. Rename it." for case_id in strange])
    values = [*classes.values.values()]
    if classes.regions:
        log.info("regions of label values: %s", dict(zip([*classes.values][1:], classes.regions, strict=True)))
    elif values != list(range(len(values))):
        log.info("label values become class indices: %s", {value: i for i, value in enumerate(values)})
    table = place.listing if place.layout == "csv" else None
    if patient is None and table and "patient" in columns_of(rows_of(table)):
        patient = str(table)
    ids = [case_id for case_id, _, _ in files]
    patients = (_outer_folders(files, place.root) if patient is None else {}) or patients_of(ids, place.root, patient)
    cases = [Case(case_id, patients[case_id], images, label) for case_id, images, label in files]
    cases.sort(key=lambda case: case.id)
    return CaseSet(name or place.root.resolve().name, tuple(cases), channels, *classes)


def _outer_folders(files: Files, root: Path) -> dict[str, str]:
    """The patient of each case where each has a folder that holds those of the examinations; otherwise nothing.

    Few folders that hold many cases are no patients: BraTS' HGG and LGG, the hospitals of a trial; nor are parts.
    """
    if all(re.match(SUBJECT, case_id) for case_id, _, _ in files):
        return {}
    within = [(case_id, images[0]) for case_id, images, _ in files if images[0].is_relative_to(root)]
    parts = {case_id: image.relative_to(root).parts for case_id, image in within}
    if len(parts) < len(files) or min(map(len, parts.values()), default=0) < 3:
        return {}
    counts = Counter(own[0] for own in parts.values())
    if not 1 < max(counts.values()) <= len(counts) or {*PART_FOLDERS} & {name.lower() for name in counts}:
        return {}
    log.warning(
        "Cases in one folder are taken for one patient: %s. If they are not: data.patient='^(.*)$'.",
        few(f"{name} ({n})" for name, n in counts.items() if n > 1),
    )
    return {case_id: own[0] for case_id, own in parts.items()}


def hippocampus(root: str | Path, *, name: str = "hippocampus", patient: str | None = None) -> CaseSet:
    """Task04 of the Medical Segmentation Decathlon: hippocampus on T1 MRI, anterior and posterior part.

    Its 390 numbered cases are both sides of 195 subjects, numbered one after the other: the cases 1 and 2 are one
    patient, and so are 3 and 4. Nothing in the data set says so; docs/data.md has what shows it.

    Source: Antonelli et al. 2022, The Medical Segmentation Decathlon, Nature Communications 13, 4128.
    """
    if not Path(root).expanduser().is_dir():
        raise DataError(
            f"{root}: no such folder. Get Task04_Hippocampus.tar (27 MB, CC-BY-SA 4.0) from"
            " http://medicaldecathlon.com, unpack it and set data.root to the folder Task04_Hippocampus."
        )
    cases = folder(root, name=name, patient=patient)
    if patient is not None:
        return cases
    numbers = [re.fullmatch(r"hippocampus_(\d+)", case.id) for case in cases.cases]
    own = [number and f"subject_{(int(number[1]) + 1) // 2:03d}" for number in numbers]
    paired = [replace(case, patient=subject or case.patient) for case, subject in zip(cases.cases, own, strict=True)]
    return replace(cases, cases=tuple(paired))


def _found(place: layouts.Place) -> tuple[Files, tuple[str, ...], Classes]:
    """Files, channels and classes; what ``dataset.json`` does not name has names of its own."""
    where, settings = place.about, place.settings
    if where is None:
        files, channels = layouts.files_of(place, None)
        classes = seen_classes([label for _, _, label in files if label], place.root)
        return files, _colours(files, channels), classes
    key = "channel_names" if "channel_names" in settings or "training" not in settings else "modality"
    listed = settings.get(key)
    files, seen = layouts.files_of(place, len(listed) if isinstance(listed, dict | list) else None)
    one_palette([label for _, _, label in files if label])
    files = [(case, volumes.whole(images), label) for case, images, label in files]
    needed = key in settings or place.layout in ("decathlon", "nnunet")
    channels = _agreed(_channels(settings, key, where), seen, where) if needed else _colours(files, seen)
    return files, channels, classes_of(settings, where, value_first=key == "modality")


def _colours(files: Files, channels: tuple[str, ...]) -> tuple[str, ...]:
    """The channels; of pictures in colours, by their first, red, green and blue."""
    return COLOURS if len(channels) == 1 and files and volumes.has_colours(files[0][1][0]) else channels


def _agreed(declared: tuple[str, ...], seen: tuple[str, ...], where: Path) -> tuple[str, ...]:
    """The channels in the order of the files, where these have names of their own.

    Raises:
        ConfigError: they have other names than those declared.
    """
    if len(seen) == 1 or seen == channel_names(len(seen)):
        return declared
    if sorted(map(str.casefold, declared)) != sorted(map(str.casefold, seen)):
        raise ConfigError(
            f"{where}: the channels are {', '.join(declared)}, and each case has {', '.join(seen)}. Name the channels "
            "as their files, so that none changes places."
        )
    return seen


def _channels(settings: Mapping[str, object], key: str, where: Path) -> tuple[str, ...]:
    listed = settings.get(key)
    if isinstance(listed, list) and listed:
        return tuple(map(str, listed))
    named = mapping_of(settings, key, where)
    if sorted(named) != sorted(str(number) for number in range(len(named))):
        raise ConfigError(f"{where}: channels are numbered {', '.join(named)}; they must be 0 to {len(named) - 1}.")
    return tuple(str(named[str(number)]) for number in range(len(named)))
