"""Which files of a folder are images and labels of one case, by their names alone; every file is used or named."""

import logging
import os
import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path, PureWindowsPath
from typing import Any
from unicodedata import normalize

from seg.data.formats import WRITE, has_volumes, listed, there
from seg.data.volumes import ending, is_volume, stem
from seg.errors import DataError, few, together

log = logging.getLogger(__name__)
Files = list[tuple[str, tuple[Path, ...], Path | None]]  # case id, images, label
CHANNEL = re.compile(r"(.+)_(\d{4})")
IMAGE_WORDS = r"(?:images?|imgs?|vol(?:ume)?|scan)"
LABEL_WORDS = r"(?:d?seg|segmentations?|labels?|lbl|masks?|gt|ground_?truth|annotations?|manual)"
IMAGE_FOLDERS = ("imagestr", "images", "image", "imgs", "img", "volumes", "scans")
LABEL_FOLDERS = ("labelstr", "labels", "label", "masks", "mask", "segmentations", "seg", "annotations")
TEST_FOLDERS = ("imagests", "labelsts")  # of a Decathlon or nnU-Net data set: not for training
BIDS = re.compile(r"(sub-[^_]+(?:_ses-[^_]+)?)_(.+)")


def by_name(root: Path, declared: int | None) -> tuple[Files, tuple[str, ...]]:
    """Cases of a folder for images and one for labels; or of one folder with labels ``…_seg``; or of a folder a case.

    An image has the name of its label, or that name and a channel of four digits; ``_seg``, ``label…``, ``img…`` and
    the like may differ. ``declared`` is the number of channels, where ``dataset.json`` says it.

    Returns:
        Files, and a name for each channel.

    Raises:
        DataError: no layout that is known; or files that belong to no case, are there twice, or are not read.
    """
    folders = {path.name.lower(): path for path in sorted(root.iterdir(), reverse=True) if path.is_dir()}
    found = [
        next((folders[name] for name in names if name in folders), None) for names in (IMAGE_FOLDERS, LABEL_FOLDERS)
    ]
    if found[0] and found[1]:
        used = [path.name for path in found if path]
        beside = [path for path in root.iterdir() if path.name not in used and path.name.lower() not in TEST_FOLDERS]
        if unread := [path.name for path in beside if is_volume(path) or has_volumes(path)]:
            log.warning("%s: only %s are read, not %s.", root, " and ".join(used), few(unread))
        return _matched(listed(found[0]), listed(found[1]), found[0], declared)
    if declared is None:
        files = [path for path in sorted(root.iterdir()) if is_volume(path)]
        labels = [path for path in files if _bare(stem(path), LABEL_WORDS) != stem(path)]
        if 0 < len(labels) < len(files):
            return _matched([path for path in files if path not in labels], labels, root, declared)
        if any(is_volume(path) for folder in folders.values() for path in (folder, *folder.rglob("*"))):
            return by_folder(root)
    raise DataError(
        f"{root}: there is {'neither a dataset.json nor' if declared is None else 'not'} a pair of folders imagesTr "
        f"and labelsTr. {there(root)} {WRITE}"
    )


def _matched(
    images: list[Path], labels: list[Path], where: Path, declared: int | None
) -> tuple[Files, tuple[str, ...]]:
    faults: list[str] = []
    by_id = _labels(images, labels, faults)
    own = [next((name for name in _names(path) if name in by_id), None) for path in images]
    if images and labels and not any(own):
        raise DataError(
            f"{where}: no label has the name of an image: images are {few(path.name for path in images)}; labels are "
            f"{few(path.name for path in labels)}. Give a label its image's name. {WRITE}"
        )
    channels = [_channel(path, name) for path, name in zip(images, own, strict=True) if name]
    numbered = 2 * channels.count("") < len(channels) or (not channels and any(_base(path) for path in images))
    cases: dict[str, dict[str, Path]] = {
        name: {} for name in by_id
    }  # images by the digits of their channel, "" if none
    for path, name in zip(images, own, strict=True):
        case = name or (_base(path) if numbered or (declared or 0) > 1 else "") or _name(path)
        _add(cases.setdefault(case, {}), _channel(path, case), path, faults)
    count = _count(cases, declared)
    wanted = [f"{number:04}" for number in range(count)]
    rule = f"files are named <case>_0000 to <case>_{count - 1:04}, one for each channel"
    faults += [
        f"{path}: belongs to no case; {rule}."
        for case, by in cases.items()
        for digits, path in by.items()
        if digits not in wanted and (digits or (numbered and (len(by) > 1 or case not in by_id)))
    ]
    together(DataError, faults)
    files: Files = []
    for case, by in cases.items():
        end = ending(next(iter([*by.values(), by_id.get(case, where / "a.nii.gz")])))
        alone = "" in by or not (by or numbered)
        paths = [
            by.get(digits, where / f"{case}{digits and '_'}{digits}{end}") for digits in ([""] if alone else wanted)
        ]
        files.append((case, tuple(paths), by_id.get(case)))
    return files, tuple(f"image_{number}" for number in range(count)) if numbered else ("image",)


def _labels(images: list[Path], labels: list[Path], faults: list[str]) -> dict[str, Path]:
    """Labels by case: under their own name, or without ``_seg`` and the like where an image is called so."""
    names = {name for path in images for name in _names(path)}
    by_id: dict[str, Path] = {}
    for path in labels:
        name, bare = _name(path), _bare(_name(path), LABEL_WORDS)
        _add(by_id, name if name in names or bare not in names else bare, path, faults)
    return by_id


def _count(cases: Mapping[str, Mapping[str, Path]], declared: int | None) -> int:
    """How many channels a case has."""
    by_digits = {digits: path for by in cases.values() for digits, path in by.items() if digits}
    last = max(by_digits, default="")
    if declared is None and last > "0099":
        raise DataError(
            f"{by_digits[last]}: read as channel {last}, for no label has its name. Channels are numbered 0000, 0001 …"
        )
    return declared or (int(last) + 1 if last else 1)


def _add(known: dict[str, Path], key: str, path: Path, faults: list[str]) -> None:
    if key in known:
        faults.append(f"{path}: is {known[key].name} again. A case has one such file: remove one of the two.")
    else:
        known[key] = path


def _name(path: Path) -> str:
    """The stem, spelled one way: macOS takes letters with accents apart."""
    return normalize("NFC", stem(path))


def _base(path: Path) -> str:
    """The name before the four digits of a channel; nothing where there are none."""
    found = CHANNEL.fullmatch(_name(path))
    return found[1] if found else ""


def _names(path: Path) -> list[str]:
    """What a label of this image may be called, the likeliest first."""
    names = [name for name in (_name(path), _base(path)) if name]
    return list(dict.fromkeys([*names, *(_bare(name, IMAGE_WORDS) for name in names)]))


def _bare(name: str, words: str) -> str:
    """``name`` without a leading or trailing word for images or labels."""
    bare = re.sub(rf"[_-]{words}$|^{words}[_-]?(?=.*\d)", "", name, count=1, flags=re.IGNORECASE)
    return bare or name


def _channel(path: Path, case: str) -> str:
    """The digits of the channel, where they are no part of the case's name."""
    base = _base(path)
    return _name(path)[-4:] if base and case in (base, _bare(base, IMAGE_WORDS)) else ""


def by_list(root: Path, entries: Any, where: Path, labelled: bool = True) -> Files:
    """Cases as ``dataset.json`` lists them: in ``training``, or in ``test``, whose images have no label.

    An image is one file, a list, or a name for channels; one without a label may stand alone.

    Raises:
        DataError: no such list, or paths that leave the folder.
    """
    wanted, part = ({"image", "label"}, "training") if labelled else ({"image"}, "test")
    listed = [entry if isinstance(entry, dict) else {"image": entry} for entry in entries or [""]]
    if not isinstance(entries, list) or not all(
        wanted <= e.keys() and isinstance(e.get("label", ""), str) for e in listed
    ):
        form = ", ".join(f'"{key}": …' for key in sorted(wanted))
        raise DataError(f"{where}: {part} must be a list of {{{form}}}.")
    faults, files, known = list[str](), Files(), dict[Path, dict[str, list[Path]]]()
    for entry in listed:
        texts = [entry["image"]] if isinstance(entry["image"], str) else entry["image"]
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
            raise DataError(f"{where}: the image {entry['image']!r} must be a path, or a list of paths, one a channel.")
        paths = [_inside(root, text, where, faults) for text in texts]
        label = _lying(_inside(root, entry["label"], where, faults), known)[0] if labelled else None
        if not paths[0].name.startswith("._"):
            images = [one for path in paths for one in _lying(path, known)]
            name = (_base(paths[0]) if len(texts) > 1 else "") or _name(paths[0])
            files.append((name, tuple(images), label))
    times = Counter(path for _, images, label in files for path in (*images, label) if path)
    faults += [
        f"{where}: {path} is listed {n} times. A file belongs to one case." for path, n in times.items() if n > 1
    ]
    together(DataError, faults)
    used = {*times}
    if strange := _of_another(files):
        log.warning("%s: labels have the names of other cases: %s. Are the lines mixed up?", where, few(strange))
    lying = {path for by_stem in known.values() for paths in by_stem.values() for path in paths}
    if unlisted := [path.name for path in lying - used]:
        log.warning("%s does not list %d files, which take no part: %s.", where, len(unlisted), few(unlisted))
    if len({name for name, _, _ in files}) < len(files) == len({images[0].parent for _, images, _ in files}):
        return [(normalize("NFC", images[0].parent.name), images, label) for _, images, label in files]
    return files


def _of_another(files: Files) -> list[str]:
    """Labels that are called like the image of another case, and not like their own."""
    names = [({name for path in images for name in _names(path)}, label) for _, images, label in files if label]
    known = {name for own, _ in names for name in own}
    return [
        label.name
        for own, label in names
        if not (called := {_name(label), _bare(_name(label), LABEL_WORDS)}) & own and called & known
    ]


def _inside(root: Path, text: str, where: Path, faults: list[str]) -> Path:
    """The file a listed path means, within the data folder."""
    plain = text if os.path.exists(root / text) or "\\" not in text else text.replace("\\", "/")
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
            if is_volume(file):
                known[path.parent][_name(file)].append(file)
    if os.path.exists(path):
        return [path]
    names, name = known[path.parent], _name(path)
    if len(names.get(name, [])) == 1:
        return names[name]
    return [names[key][0] for key in sorted(names) if _base(names[key][0]) == name] or [path]


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
        if not is_volume(path) or (len(parts) < 2 and path.is_file()) or any(part.startswith(".") for part in parts):
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
            f"{root}: which files are images and labels is not plain. {there(root)} Found, in so many cases: "
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
