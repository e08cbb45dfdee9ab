"""Which files of a folder are volumes that can be read, and what to do about other images there."""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

from seg.data.volumes import ending
from seg.errors import DataError, few

log = logging.getLogger(__name__)
WRITE = (
    'Any files may be listed in a dataset.json: "training": [{"image": …, "label": …}, …]; docs/data.md has the '
    "layouts that are read without."
)
OTHERS = {  # what else people keep images in, and how it becomes NIfTI
    "DICOM": ((".dcm", ".dicom", ".ima"), "dcm2niix -z y -o imagesTr FOLDER"),
    "NRRD": ((".nrrd", ".nhdr"), "SimpleITK: WriteImage(ReadImage('a.nrrd'), 'a.nii.gz')"),
    "MetaImage": ((".mha", ".mhd"), "SimpleITK: WriteImage(ReadImage('a.mha'), 'a.nii.gz')"),
    "MGH": ((".mgz", ".mgh"), "mri_convert a.mgz a.nii.gz, or nibabel"),
    "Analyze": ((".img", ".hdr"), "nibabel: save(load('a.hdr'), 'a.nii.gz')"),
    "MINC": ((".mnc",), "mnc2nii a.mnc a.nii"),
    "HDF5 or MATLAB": ((".h5", ".hdf5", ".mat"), "nibabel: save(Nifti1Image(array, affine), 'a.nii.gz')"),
    "packed": ((".gz", ".xz", ".bz2", ".zip", ".zst", ".7z", ".tar", ".tgz"), "unpack, or name them .nii.gz"),
    "NIfTI under another ending": ((), "end the names with .nii or .nii.gz, or take the files away"),
    "NumPy": (
        (".npy", ".npz"),
        "nibabel: save(Nifti1Image(array, affine), 'a.nii.gz'), with the voxel sizes in affine",
    ),
    "pictures": (
        (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"),
        "stack the slices of a case into one volume; nibabel: save(Nifti1Image(stack, affine), 'a.nii.gz'), with the "
        "voxel sizes in affine",
    ),
}

BESIDE = (".json", ".txt", ".md", ".csv", ".tsv", ".bval", ".bvec", ".db", ".ini", *OTHERS["pictures"][0])  # no scans


def listed(where: Path) -> list[Path]:
    """The NIfTI files of a folder.

    Raises:
        DataError: no such folder, or images of another kind in it, which would go unread.
    """
    if not where.is_dir():
        raise DataError(f"{where}: no such folder. {WRITE}")
    # macOS writes a companion '._<name>' beside every file it copies to a foreign disk.
    files = sorted(path for path in where.iterdir() if not path.name.startswith("."))
    volumes = [path for path in files if ending(path)]
    if others := _other_images(where, files, beside=bool(volumes)):
        raise DataError(others)
    if unread := [path.name for path in files if path not in volumes and path.suffix.lower() not in BESIDE]:
        log.warning("%s: %d files are not read: %s.", where, len(unread), few(unread))
    return volumes


def has_volumes(path: Path) -> bool:
    """Whether ``path`` is a folder with NIfTI files right in it."""
    return path.is_dir() and any(ending(inner) for inner in path.iterdir())


def _other_images(where: Path, paths: Iterable[Path], beside: bool = False) -> str:
    """What is in ``where`` that is an image, but no NIfTI, and how it becomes one; nothing where there is none.

    ``beside`` volumes, pictures are only there to be looked at.
    """
    kinds: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        if has_volumes(path):
            kinds["folders of volumes"].append(path.name)
        elif path.is_file() and (kind := _kind(path)) and not (beside and kind == "pictures"):
            kinds[kind].append(path.name)
    said = [
        f"{len(names)} {kind} ({few(names)}): {OTHERS.get(kind, ('', 'move the files up, one name per case'))[1]}"
        for kind, names in sorted(kinds.items())
    ]
    return f"{where}: only NIfTI files (.nii, .nii.gz) are read here. There are {'; '.join(said)}." if said else ""


def _kind(path: Path) -> str:
    end = path.suffix.lower().strip()
    if ending(path):
        return ""
    with path.open("rb") as file:
        start = file.read(348)
    if start[344:347] in (b"n+1", b"ni1") and end not in OTHERS["Analyze"][0]:
        return "NIfTI under another ending"
    if not end or end[1:].isdigit():  # DICOM files often have no ending, or a number
        return "DICOM" if start[128:132] == b"DICM" else "packed" if start[:2] == b"\x1f\x8b" else ""
    if ".nii" in path.name.lower() and start[:2] == b"\x1f\x8b":
        return "NIfTI under another ending"
    return next((kind for kind, (ends, _) in OTHERS.items() if end in ends), "")


def there(root: Path) -> str:
    """What is in the folder, in a sentence."""
    within = [path for path in root.rglob("*") if path.is_file() and not path.name.startswith(".")]
    if not within:
        return "The folder is empty."
    if said := _other_images(root, within):
        return said
    counts = Counter(ending(path).lower() or path.suffix.lower() or "without ending" for path in within)
    return "It holds " + ", ".join(f"{n} files {end}" for end, n in counts.most_common(5)) + "."
