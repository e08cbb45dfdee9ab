"""Which files of a folder are images and labels of one case, by their names alone; every file is used or named."""

import logging
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from unicodedata import normalize

from seg.data.formats import WRITE, has_volumes, images_of, listed, rest_of, there
from seg.data.volumes import ending, is_volume, stem
from seg.errors import DataError, counted, few, together

log = logging.getLogger(__name__)
Files = list[tuple[str, tuple[Path, ...], Path | None]]  # case id, images, label
Found = tuple[Files, tuple[str, ...]]  # and a name for each channel
CHANNEL = re.compile(r"(.+)_(\d{4})")
IMAGE_WORDS = r"(?:images?|imgs?|vol(?:ume)?|scan)"
LABEL_WORDS = r"(?:d?seg|segmentations?|labels?|lbl|masks?|gt|ground_?truth|annotations?|manual)"
IMAGE_FOLDERS = ("imagestr", "images", "image", "imgs", "img", "volumes", "scans")
LABEL_FOLDERS = ("labelstr", "labels", "label", "masks", "mask", "segmentations", "seg", "annotations")
TEST_FOLDERS = ("imagests", "labelsts")  # of a Decathlon or nnU-Net data set: not for training
ANNOTATORS = re.compile(rf"(?:{LABEL_WORDS}|instances|raw)/", re.IGNORECASE)  # folders within that of a case
BIDS = re.compile(r"(sub-[^_]+(?:_ses-[^_]+)?)_(.+)")
# In a name: line feeds, escapes, bytes that are no UTF-8, and what cannot be seen but turns or parts what is printed.
CONTROL = r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]"


def unfit(case: str) -> bool:
    """Whether no mask's file can be called so: it is hidden, in another folder, or has what cannot be seen."""
    return not case or case[0] == "." or bool({*case} & {*"/\\"}) or bool(re.search(CONTROL, case))


def by_name(root: Path, declared: int | None = None) -> Found:
    """Cases of a folder for images and one for labels; or of one folder with labels ``…_seg``; or of a folder a case.

    An image has the name of its label, or that name and a channel of four digits; ``_seg``, ``label…``, ``img…`` and
    the like may differ. ``declared`` is the number of channels, where ``dataset.json`` says it.

    Raises:
        DataError: no layout that is known; or files that belong to no case, are there twice, or are not read.
    """
    if found := by_pair(root, declared):
        return found
    folders = [path for path in root.iterdir() if path.is_dir()]
    halves = [path.name for path in folders if path.name.lower() in (*IMAGE_FOLDERS, *LABEL_FOLDERS)]
    if not halves and images_of([path for folder in folders for path in (folder, *folder.rglob("*"))]):
        return by_folder(root)
    pair = f"pair of folders imagesTr and labelsTr{f', only {few(halves)}' if halves else ''}"
    raise DataError(
        f"{root}: there is no list of cases (dataset.json, a datalist of MONAI, a table with the columns case, image, "
        f"label), no {pair}, and no folder for each case. {there(root)} {WRITE}"
    )


def by_pair(root: Path, declared: int | None = None) -> Found | None:
    """The same for the pair of folders, or the one folder; None where there is neither."""
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
    files = [path for path in images_of(sorted(root.rglob("*"))) if path.parent == root and path.name[0] != "."]
    labels = dict.fromkeys(path for path in files if bare_name(stem(path), LABEL_WORDS) != stem(path))
    if 0 < len(labels) < len(files):
        rest_of(root, (path for path in root.iterdir() if path.is_file()), files)
        return _matched([path for path in files if path not in labels], [*labels], root, declared)
    return None


def _matched(images: list[Path], labels: list[Path], where: Path, declared: int | None) -> Found:
    faults: list[str] = []
    by_id = _labels(images, labels, faults)
    own = [next((name for name in names_of(path) if name in by_id), None) for path in images]
    if images and labels and not any(own):
        raise DataError(
            f"{where}: no label has the name of an image: images are {few(path.name for path in images)}; labels are "
            f"{few(path.name for path in labels)}. Give a label its image's name. {WRITE}"
        )
    channels = [_channel(path, name) for path, name in zip(images, own, strict=True) if name]
    numbered = 2 * channels.count("") < len(channels) or (not channels and any(base_of(path) for path in images))
    cases: dict[str, dict[str, Path]] = {
        name: {} for name in by_id
    }  # images by the digits of their channel, "" if none
    for path, name in zip(images, own, strict=True):
        case = name or (base_of(path) if numbered or (declared or 0) > 1 else "") or name_of(path)
        add(cases.setdefault(case, {}), _channel(path, case), path, faults)
    count = _count(cases, declared)
    wanted = [f"{number:04}" for number in range(count)]
    last = f" to <case>_{count - 1:04}" if count > 1 else ""
    rule = f"{counted(count, 'channel')} a case, so files are named <case>_0000{last}"
    faults += [
        f"{path}: belongs to no case: {rule}."
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
    return files, channel_names(count) if numbered else ("image",)


def channel_names(count: int) -> tuple[str, ...]:
    """For channels that have no name."""
    return tuple(f"image_{number}" for number in range(count))


def _labels(images: list[Path], labels: list[Path], faults: list[str]) -> dict[str, Path]:
    """Labels by case: under their own name, or without ``_seg`` and the like where an image is called so."""
    names = {name for path in images for name in names_of(path)}
    by_id: dict[str, Path] = {}
    for path in labels:
        name, bare = name_of(path), bare_name(name_of(path), LABEL_WORDS)
        add(by_id, name if name in names or bare not in names else bare, path, faults)
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


def add(known: dict[str, Path], key: str, path: Path, faults: list[str]) -> None:
    """``known[key] = path``; a fault where there is one of that name."""
    if key in known:
        faults.append(f"{path}: is {known[key].name} again. A case has one such file: remove one of the two.")
    else:
        known[key] = path


def name_of(path: Path) -> str:
    """The stem, spelled one way: macOS takes letters with accents apart."""
    return normalize("NFC", stem(path))


def base_of(path: Path) -> str:
    """The name before the four digits of a channel; nothing where there are none."""
    found = CHANNEL.fullmatch(name_of(path))
    return found[1] if found else ""


def names_of(path: Path) -> list[str]:
    """What a label of this image may be called, the likeliest first."""
    names = [name for name in (name_of(path), base_of(path)) if name]
    return list(dict.fromkeys([*names, *(bare_name(name, IMAGE_WORDS) for name in names)]))


def bare_name(name: str, words: str) -> str:
    """``name`` without a leading or trailing word for images or labels."""
    bare = re.sub(rf"[_-]{words}$|^{words}[_-]?(?=.*\d)", "", name, count=1, flags=re.IGNORECASE)
    return bare or name


def _channel(path: Path, case: str) -> str:
    """The digits of the channel, where they are no part of the case's name."""
    base = base_of(path)
    return name_of(path)[-4:] if base and case in (base, bare_name(base, IMAGE_WORDS)) else ""


def by_folder(root: Path) -> Found:
    """Cases of which each has a folder of its own, and of BIDS: a label, and the same images in each.

    Channels are called by the names that the images have in common. Folders may lie in folders, as BraTS 2018 has them
    in ``HGG`` and ``LGG``. Where a case has one label right in its folder, further ones in folders such as
    ``segmentations`` or ``instances`` (the annotators', in KiTS) take no part.

    Raises:
        DataError: it is not clear which files are labels or channels, with what was found.
    """
    faults: list[str] = []
    groups = _groups(root, faults)
    counts = Counter(role for roles in groups.values() for role in roles)
    labels = [role for role in counts if _is_label(role)]
    if len(plain := [role for role in labels if "/" not in role]) == 1:
        if others := [role for role in counts if ANNOTATORS.match(role)]:
            log.warning("%s: the label is %s; %s take no part.", root, plain[0], few(others))
        labels, counts = plain, Counter({role: n for role, n in counts.items() if role not in others})
    images = sorted(counts.keys() - set(labels))
    if len(labels) != 1 or not images or any("/" in role for role in images):
        seen = {0: "No name ends in seg, label, mask or the like. ", 1: ""}
        raise DataError(
            f"{root}: it is not clear which files are images and which are labels. {there(root)} Found, in so many "
            f"cases: {', '.join(f'{role} ({n})' for role, n in counts.most_common(12)) or 'nothing'}. "
            "One label and the same images a case are read. "
            f"{seen.get(len(labels), f'There are several labels: {few(labels)}. ')}{WRITE}"
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


def _groups(root: Path, faults: list[str]) -> dict[str, dict[str, Path]]:
    """The volumes of each case, by their role: what their name has beyond that of the case."""
    parts_of = {path: path.relative_to(root).parts for path in images_of(sorted(root.rglob("*")))}
    found = {
        path: parts
        for path, parts in parts_of.items()
        if (len(parts) > 1 or path.is_dir()) and not any(part.startswith(".") for part in parts)
    }
    groups: dict[str, dict[str, Path]] = defaultdict(dict)
    depth = _depth([*found.values()])
    for path, parts in found.items():
        bids, own = BIDS.fullmatch(name_of(path)), normalize("NFC", parts[depth])
        case = bids[1] if bids else own
        role = bids[2] if bids else "/".join([*parts[depth + 1 : -1], name_of(path).removeprefix(own).lstrip("_-")])
        if bids and parts[0] == "derivatives" and not _is_label(role):
            continue  # images that a pipeline made of the others
        add(groups[case], role or "image", path, faults)
    if found:
        rest_of(root, (path for path in root.rglob("*") if path.is_file() and _is_of_a_case(path, root)), [*parts_of])
    return groups


_NO_CASES = ("derivatives", "sourcedata", "code", "__MACOSX")
_BESIDE_CASES = (".zip", ".gz", ".tar", ".tgz", ".7z", ".mat", ".h5", "dicomdir")


def _is_of_a_case(path: Path, root: Path) -> bool:
    """Whether it is in a folder of a case, not hidden, and no archive, transform or index that often lies there."""
    parts = path.relative_to(root).parts
    if len(parts) < 2 or parts[0] in _NO_CASES or any(part[0] == "." for part in parts):
        return False
    return ".nii" in path.name.lower() or not path.name.lower().endswith(_BESIDE_CASES)


def _depth(found: Sequence[tuple[str, ...]]) -> int:
    """At which part of their paths the folders of cases are: above the volumes that lie highest, if names differ."""
    depth = max(0, min(map(len, found), default=0) - 2)
    folders = {parts[: depth + 1] for parts in found}
    return depth if len({parts[-1] for parts in folders}) == len(folders) else 0


def _is_label(role: str) -> bool:
    return bool(re.search(rf"(?:^|[_-]){LABEL_WORDS}$", role, re.IGNORECASE))
