"""Which files of a folder are images and labels of one case, by their names alone; every file is used or named."""

import logging
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path, PureWindowsPath
from typing import Any
from unicodedata import normalize

from seg.data.nifti import ending, stem
from seg.errors import DataError, few, together

log = logging.getLogger(__name__)
Files = list[tuple[str, tuple[Path, ...], Path | None]]  # case id, images, label
CHANNEL = re.compile(r"(.+)_(\d{4})")
IMAGE_WORDS = r"(?:images?|imgs?|vol(?:ume)?|scan)"
LABEL_WORDS = r"(?:d?seg|segmentations?|labels?|lbl|masks?|gt|ground_?truth|annotations?|manual)"
IMAGE_FOLDERS = ("imagestr", "images", "image", "imgs", "img", "volumes", "scans")
LABEL_FOLDERS = ("labelstr", "labels", "label", "masks", "mask", "segmentations", "seg", "annotations")
WRITE = (
    'Any files may be listed in a dataset.json: "training": [{"image": …, "label": …}, …]; docs/data.md has the '
    "layouts that are read without."
)
BIDS = re.compile(r"(sub-[^_]+(?:_ses-[^_]+)?)_(.+)")
OTHERS = {  # what else people keep images in, and how it becomes NIfTI
    "DICOM": ((".dcm", ".dicom", ".ima"), "dcm2niix -z y -o imagesTr FOLDER"),
    "NRRD": ((".nrrd", ".nhdr"), "SimpleITK: WriteImage(ReadImage('a.nrrd'), 'a.nii.gz')"),
    "MetaImage": ((".mha", ".mhd"), "SimpleITK: WriteImage(ReadImage('a.mha'), 'a.nii.gz')"),
    "MGH": ((".mgz", ".mgh"), "mri_convert a.mgz a.nii.gz, or nibabel"),
    "Analyze": ((".img", ".hdr"), "nibabel: save(load('a.hdr'), 'a.nii.gz')"),
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


def by_name(root: Path, declared: int | None) -> tuple[Files, tuple[str, ...]]:
    """Cases of a folder for images and one for labels; or of one folder with labels ``…_seg``; or of a folder a case.

    An image has the name of its label, or that name and a channel of four digits; ``_seg``, ``label…``, ``img…`` and
    the like may differ. ``declared`` is the number of channels, where ``dataset.json`` says it.

    Returns:
        Files, and a name for each channel.

    Raises:
        DataError: no layout that is known; or files that belong to no case, are there twice, or are no NIfTI.
    """
    folders = {path.name.lower(): path for path in sorted(root.iterdir(), reverse=True) if path.is_dir()}
    found = [
        next((folders[name] for name in names if name in folders), None) for names in (IMAGE_FOLDERS, LABEL_FOLDERS)
    ]
    if found[0] and found[1]:
        return _matched(listed(found[0]), listed(found[1]), found[0], declared)
    if declared is None:
        files = [path for path in sorted(root.iterdir()) if ending(path)]
        labels = [path for path in files if _bare(stem(path), LABEL_WORDS) != stem(path)]
        if 0 < len(labels) < len(files):
            return _matched([path for path in files if path not in labels], labels, root, declared)
        if any(ending(path) for folder in folders.values() for path in folder.rglob("*")):
            return by_folder(root)
    raise DataError(
        f"{root}: there is {'neither a dataset.json nor' if declared is None else 'not'} a pair of folders imagesTr "
        f"and labelsTr. {_there(root)} {WRITE}"
    )


def _matched(
    images: list[Path], labels: list[Path], where: Path, declared: int | None
) -> tuple[Files, tuple[str, ...]]:
    faults: list[str] = []
    names = {name for path in images for name in _names(path)}
    by_id: dict[str, Path] = {}
    for path in labels:
        name, bare = _name(path), _bare(_name(path), LABEL_WORDS)
        _add(by_id, name if name in names or bare not in names else bare, path, faults)
    matched: list[str | None] = [next((name for name in _names(path) if name in by_id), None) for path in images]
    pairs = [(path, name) for path, name in zip(images, matched, strict=True) if name]
    if images and labels and not pairs:
        raise DataError(
            f"{where}: no label has the name of an image: images are {few(path.name for path in images)}; labels are "
            f"{few(path.name for path in labels)}. Give a label its image's name. {WRITE}"
        )
    exact = sum(_channel(path, name) is None for path, name in pairs)
    numbered = 2 * exact < len(pairs) or (not pairs and any(map(CHANNEL.fullmatch, map(_name, images))))
    whole, parts = dict[str, Path](), defaultdict[str, dict[str, Path]](dict)
    for path, match in zip(images, matched, strict=True):
        found = CHANNEL.fullmatch(_name(path))
        case = match or (found[1] if found and (numbered or (declared or 0) > 1) else _name(path))
        channel = _channel(path, case)
        if channel is None:
            _add(whole, case, path, faults)
        else:
            _add(parts[case], channel, path, faults)
    count = _count(parts, declared)
    rule = f"files are named <case>_0000 to <case>_{count - 1:04}, one for each channel"
    wanted = [f"{number:04}" for number in range(count)]
    faults += [
        f"{path}: belongs to no case; {rule}." for by in parts.values() for n, path in by.items() if n not in wanted
    ]
    if numbered:
        faults += [
            f"{path}: belongs to no case; {rule}." for case, path in whole.items() if case not in by_id or parts[case]
        ]
    together(DataError, faults)
    files: Files = []
    for case in whole.keys() | parts.keys() | by_id.keys():
        by = parts.get(case, {})
        end = ending(next(iter([*by.values(), *by_id.values()])))
        paths = [by.get(number, where / f"{case}_{number}{end}") for number in wanted]
        alone = case in whole or not (by or numbered)
        files.append((case, (whole.get(case, where / (case + end)),) if alone else tuple(paths), by_id.get(case)))
    return files, tuple(f"image_{number}" for number in range(count)) if numbered else ("image",)


def _count(parts: Mapping[str, Mapping[str, Path]], declared: int | None) -> int:
    """How many channels a case has."""
    numbers = sorted({int(number) for by in parts.values() for number in by})
    if declared is None and numbers and numbers[-1] > 99:
        path = next(path for by in parts.values() for path in by.values())
        raise DataError(
            f"{path}: read as channel {path.name[-11:]}, for no label has its name. Channels are numbered 0000, 0001 …"
        )
    return declared or (numbers[-1] + 1 if numbers else 1)


def _add(known: dict[str, Path], key: str, path: Path, faults: list[str]) -> None:
    if key in known:
        faults.append(f"{path}: is {known[key].name} again. A case has one such file: remove one of the two.")
    else:
        known[key] = path


def _name(path: Path) -> str:
    """The stem, spelled one way: macOS takes letters with accents apart."""
    return normalize("NFC", stem(path))


def _names(path: Path) -> list[str]:
    """What a label of this image may be called, the likeliest first."""
    name = _name(path)
    found = CHANNEL.fullmatch(name)
    names = [name, *([found[1]] if found else [])]
    return list(dict.fromkeys([*names, *(_bare(name, IMAGE_WORDS) for name in names)]))


def _bare(name: str, words: str) -> str:
    """``name`` without a leading or trailing word for images or labels."""
    bare = re.sub(rf"[_-]{words}$|^{words}[_-]?(?=.*\d)", "", name, count=1, flags=re.IGNORECASE)
    return bare or name


def _channel(path: Path, case: str) -> str | None:
    """The digits of the channel, where they are no part of the case's name."""
    found = CHANNEL.fullmatch(_name(path))
    return found[2] if found and case in (found[1], _bare(found[1], IMAGE_WORDS)) else None


def by_list(root: Path, entries: Any, where: Path) -> Files:
    """Cases as ``training`` in ``dataset.json`` lists them, an image being one file, a list, or a name for channels.

    Raises:
        DataError: no such list, or paths that leave the folder.
    """
    if not isinstance(entries, list) or not all(
        isinstance(e, dict) and {"image", "label"} <= e.keys() and isinstance(e["label"], str) for e in entries
    ):
        raise DataError(f'{where}: training must be a list of {{"image": …, "label": …}}.')
    faults, files, known = list[str](), list[tuple[str, tuple[Path, ...], Path]](), dict[Path, dict[str, list[Path]]]()
    for entry in entries:
        texts = [entry["image"]] if isinstance(entry["image"], str) else entry["image"]
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
            raise DataError(f"{where}: the image {entry['image']!r} must be a path, or a list of paths, one a channel.")
        paths = [_inside(root, text, where, faults) for text in (*texts, entry["label"])]
        if not paths[0].name.startswith("._"):
            images = [one for path in paths[:-1] for one in _lying(path, known)]
            found = CHANNEL.fullmatch(_name(paths[0])) if len(texts) > 1 else None
            files.append((found[1] if found else _name(paths[0]), tuple(images), _lying(paths[-1], known)[0]))
    together(DataError, faults)
    used = {path for _, images, label in files for path in (*images, label)}
    lying = {path for by_stem in known.values() for paths in by_stem.values() for path in paths}
    if unlisted := [path.name for path in lying - used]:
        log.warning("%s does not list %d files, which take no part: %s.", where, len(unlisted), few(unlisted))
    if len({name for name, _, _ in files}) < len(files) == len({images[0].parent for _, images, _ in files}):
        return [(normalize("NFC", images[0].parent.name), images, label) for _, images, label in files]
    return [*files]


def _inside(root: Path, text: str, where: Path, faults: list[str]) -> Path:
    """The file a listed path means, within the data folder."""
    plain = text if (root / text).exists() or "\\" not in text else text.replace("\\", "/")
    path = Path(os.path.normpath(plain))
    for base in (root.absolute(), root.resolve()):
        if path.is_absolute() and path.is_relative_to(base):
            path = path.relative_to(base)
    if path.is_absolute() or path.parts[:1] == ("..",) or PureWindowsPath(plain).drive:
        faults.append(f"{where}: {text} is outside the folder.")
    return root / path


def _lying(path: Path, known: dict[Path, dict[str, list[Path]]]) -> list[Path]:
    """The file of this path; or the one of its name with another ending; or, as in nnU-Net 1, its numbered channels."""
    if path.parent not in known:
        known[path.parent] = defaultdict(list)
        for file in path.parent.glob("[!.]*"):
            if ending(file):
                known[path.parent][_name(file)].append(file)
    if path.exists():
        return [path]
    names, name = known[path.parent], _name(path)
    if len(names.get(name, [])) == 1:
        return names[name]
    found = sorted(key for key in names if (match := CHANNEL.fullmatch(key)) and match[1] == name)
    return [names[key][0] for key in found] or [path]


def by_folder(root: Path) -> tuple[Files, tuple[str, ...]]:
    """Cases of which each has a folder of its own, and of BIDS: a label, and the same images in each.

    Returns:
        Files, and the channels by the names that the images have in common.

    Raises:
        DataError: it is not plain which files are labels or channels, with what was found.
    """
    groups: dict[str, dict[str, Path]] = defaultdict(dict)
    faults: list[str] = []
    for path in sorted(root.rglob("*")):
        parts = path.relative_to(root).parts
        if not ending(path) or len(parts) < 2 or any(part.startswith(".") for part in parts):
            continue
        found = BIDS.fullmatch(_name(path))
        case = found[1] if found else normalize("NFC", parts[0])
        role = found[2] if found else "/".join([*parts[1:-1], _name(path).removeprefix(parts[0]).lstrip("_-")])
        if found and parts[0] == "derivatives" and not _is_label(role):
            continue  # images that a pipeline made of the others
        _add(groups[case], role or "image", path, faults)
    counts = Counter(role for roles in groups.values() for role in roles)
    labels = [role for role in counts if _is_label(role)]
    images = sorted(counts.keys() - set(labels))
    if len(labels) != 1 or not images or any("/" in role for role in images):
        raise DataError(
            f"{root}: which files are images and labels is not plain. {_there(root)} Found, in so many cases: "
            f"{', '.join(f'{role} ({n})' for role, n in counts.most_common(12)) or 'nothing'}. One label and the same "
            "images a case are read. " + WRITE
        )
    for role in images:
        if lacking := [case for case, roles in groups.items() if role not in roles]:
            faults.append(
                f"{root}: {role} is in {counts[role]} of {len(groups)} cases, not in {few(lacking)}. Each case needs "
                "the same images: add it, or take it away from the others."
            )
    together(DataError, faults)
    files = [(case, tuple(roles[role] for role in images), roles.get(labels[0])) for case, roles in groups.items()]
    return files, tuple(images)


def _is_label(role: str) -> bool:
    return bool(re.search(rf"(?:^|[_-]){LABEL_WORDS}$", role, re.IGNORECASE))


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
    return volumes


def _other_images(where: Path, paths: Iterable[Path], beside: bool = False) -> str:
    """What lies in ``where`` that is an image, but no NIfTI, and how it becomes one; nothing where there is none.

    ``beside`` volumes, pictures are only there to be looked at.
    """
    kinds: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        if path.is_dir() and any(ending(inner) for inner in path.iterdir()):
            kinds["folders of volumes"].append(path.name)
        elif path.is_file() and (kind := _kind(path)) and not (beside and kind == "pictures"):
            kinds[kind].append(path.name)
    said = [
        f"{len(names)} {kind} ({few(names)}): {OTHERS.get(kind, ('', 'move the files up, one name per case'))[1]}"
        for kind, names in sorted(kinds.items())
    ]
    return f"{where}: only NIfTI files (.nii, .nii.gz) are read here. There are {'; '.join(said)}." if said else ""


def _kind(path: Path) -> str:
    end = path.suffix.lower()
    if not end or end[1:].isdigit():  # DICOM files often have no ending, or a number
        with path.open("rb") as file:
            return "DICOM" if file.read(132)[128:] == b"DICM" else ""
    return next((kind for kind, (ends, _) in OTHERS.items() if end in ends), "")


def _there(root: Path) -> str:
    """What lies in the folder, in a sentence."""
    within = [path for path in root.rglob("*") if path.is_file() and not path.name.startswith(".")]
    if not within:
        return "The folder is empty."
    if said := _other_images(root, within):
        return said
    counts = Counter(ending(path).lower() or path.suffix.lower() or "without ending" for path in within)
    return "It holds " + ", ".join(f"{n} files {end}" for end, n in counts.most_common(5)) + "."
