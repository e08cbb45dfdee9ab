"""Which files of a folder are volumes that can be read, and what to do about other images there."""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from seg.data import dicom
from seg.data.pictures import ENDINGS
from seg.data.volumes import HEADERS, READ, ending, files_of, is_picture, is_volume
from seg.errors import DataError, few

log = logging.getLogger(__name__)
WRITE = (
    'Any files may be listed in a cases.csv (case,image,label) or a dataset.json ("training": [{"image": …, "label": '
    "…}, …]); docs/data.md has the layouts that are read without."
)
OTHERS = {  # what else people keep images in, and how it becomes a volume that is read
    "slices of DICOM": (dicom.ENDINGS, "put those of each case into a folder of its own, which counts as its image"),
    "Analyze": ((".img", ".hdr"), "nibabel: save(load('a.hdr'), 'a.nii.gz')"),
    "MINC": ((".mnc",), "mnc2nii a.mnc a.nii"),
    "HDF5 or MATLAB": ((".h5", ".hdf5", ".mat"), "nibabel: save(Nifti1Image(array, affine), 'a.nii.gz')"),
    "packed": ((".gz", ".xz", ".bz2", ".zip", ".zst", ".7z", ".tar", ".tgz"), "unpack, or name them .nii.gz"),
    "NIfTI under another ending": ((), "end the names with .nii or .nii.gz, or take the files away"),
    "NumPy": (
        (".npy", ".npz"),
        "nibabel: save(Nifti1Image(array, affine), 'a.nii.gz'), with the voxel sizes in affine",
    ),
    "pictures": ((".bmp", ".gif", ".webp", ".jp2"), "save them as PNG"),
}

MAPS = ("probabilities", "disagreement")  # folders that ``seg.predict`` makes beside its masks
BESIDE = (  # no scans
    *(".json", ".txt", ".md", ".csv", ".tsv", ".bval", ".bvec", ".db", ".ini"),
    *OTHERS["pictures"][0],
    *ENDINGS,
)


def listed(where: Path) -> list[Path]:
    """The images of a folder: volumes, files or folders with a DICOM series in each; pictures where there are none.

    Raises:
        DataError: no such folder, or images of another kind in it, which would go unread.
    """
    if not where.is_dir():
        raise DataError(f"{where}: no such folder. {WRITE}")
    # macOS writes a companion '._<name>' beside every file it copies to a foreign disk.
    files = sorted(path for path in where.iterdir() if not path.name.startswith(".") and path.name not in MAPS)
    volumes = images_of(files)
    rest = rest_of(where, files, volumes)
    if unread := [path.name for path in rest if path.suffix.lower() not in BESIDE]:
        log.warning("%s: %d files are not read: %s.", where, len(unread), few(unread))
    return volumes


def rest_of(where: Path, files: Iterable[Path], volumes: Sequence[Path]) -> list[Path]:
    """The files and folders that are none of ``volumes``, nor slices or voxels of them.

    Raises:
        DataError: there are images among them, of another kind, which would go unread.
    """
    known = {*volumes, *files_of(path for path in volumes if ending(path).lower() in HEADERS)}  # with their voxels
    rest = [path for path in files if path.name[0] != "." and path not in known and path.parent not in known]
    if others := _other_images(where, rest, among=any(map(is_volume, volumes))):
        raise DataError(others)
    return rest


def images_of(paths: Sequence[Path]) -> list[Path]:
    """The volumes among some paths; where there are none, the pictures, which beside volumes are mere previews."""
    return [path for path in paths if is_volume(path)] or [path for path in paths if is_picture(path)]


def has_volumes(path: Path) -> bool:
    """Whether ``path`` is a folder with volumes right in it."""
    return path.is_dir() and any(map(is_volume, path.iterdir()))


def _other_images(where: Path, paths: Iterable[Path], among: bool = False) -> str:
    """What is in ``where`` that is an image, but none that is read, and how it becomes one; nothing without such.

    ``among`` volumes, pictures are only there to be looked at.
    """
    kinds: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        if has_volumes(path):
            kinds["folders of volumes"].append(path.name)
        elif path.is_file() and (kind := _kind(path)) and not (among and kind == "pictures"):
            kinds[kind].append(path.name)
    said = [
        f"{len(names)} {kind} ({few(names)}): {OTHERS.get(kind, ('', 'move the files up, one name per case'))[1]}"
        for kind, names in sorted(kinds.items())
    ]
    return f"{where}: what is read here ends in {READ}. There are {'; '.join(said)}." if said else ""


def _kind(path: Path) -> str:
    end = path.suffix.lower().strip()
    if ending(path):
        return ""
    with path.open("rb") as file:
        start = file.read(348)
    if start[344:347] in (b"n+1", b"ni1") and end not in OTHERS["Analyze"][0]:
        return "NIfTI under another ending"
    if dicom.is_dicom(path):
        return "slices of DICOM"
    if not end or end[1:].isdigit():
        return "packed" if start[:2] == b"\x1f\x8b" else ""
    if ".nii" in path.name.lower() and start[:2] == b"\x1f\x8b":
        return "NIfTI under another ending"
    return next((kind for kind, (ends, _) in OTHERS.items() if end in ends), "")


def there(root: Path) -> str:
    """What is in the folder, in a sentence."""
    within = [path for path in root.rglob("*") if path.is_file() and not path.name.startswith(".")]
    if not within:
        return "The folder is empty."
    slices = {path for path in within if path.parent != root and dicom.is_dicom(path)}  # in folders, as they should be
    if said := _other_images(root, (path for path in within if path not in slices)):
        return said
    counts = Counter(ending(path).lower() or path.suffix.lower() or "without ending" for path in within)
    within_it = [path.parent.name for path in root.glob("*/dataset.json")]
    inner = f" Data sets are in {few(within_it)}: set data.root to one of these folders." if within_it else ""
    return "It holds " + ", ".join(f"{n} files {end}" for end, n in counts.most_common(5)) + f".{inner}"
