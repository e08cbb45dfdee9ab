"""A package: a trained network with all that is needed to use it, in one folder or zip, without pickle.

Its files are ``model.json`` (how the network is built and fed, where it comes from, a hash of each other file),
``weights.safetensors``, and ``example.safetensors``, what the network answered to a made-up image. Nothing in a package
names or shows a patient.
"""

import hashlib
import json
import logging
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

from seg.config.content import plain
from seg.data.fingerprint import CasePrint, Fingerprint, Intensity
from seg.data.plan import ChannelNorm, Plan
from seg.data.splits import Split
from seg.engine import checkpoint
from seg.engine.computing import stored
from seg.errors import DataError
from seg.files import atomic, atomic_folder, digest, sha256, tuples
from seg.metrics import read_scores
from seg.records.folder import RunFolder
from seg.records.journal import Journal
from seg.records.provenance import version_of
from seg.records.state import read_state
from seg.regions import Regions, indices_within

log = logging.getLogger(__name__)
FORMAT = 1
MODEL, WEIGHTS, EXAMPLE = "model.json", "weights.safetensors", "example.safetensors"
_MOST_PACKED = 20  # times the size of a zip that a file in it may have: weights hardly shrink
_TAGS = ("dataset_version", "split_hash", "config_hash", "git_commit", "git_dirty", "seed", "fold")
_PLAIN = (
    *("settings", "classes", "channels", "computing", "origin", "training", "scores", "confidence", "cost", "regions"),
)
_COST = ("params", "gflops_a_patch", "inference_seconds_a_case")
LEVELS = (1, 25, 50, 75, 99)  # percentiles of the foreground's intensities that a package keeps per case
Json = dict[str, Any]


@dataclass(frozen=True)
class Package:
    """What a package holds, read and checked."""

    settings: Json  # of the run's configuration, what its network and its prediction need
    classes: dict[str, int]  # name → value in written masks, background first
    channels: tuple[str, ...]
    plan: Plan
    computing: dict[str, str]  # precision and layout of the training
    origin: dict[str, str]  # run, data set and its version, code, environment
    training: tuple[Json, ...]  # of each case outside the test part: shape, spacing, volumes, intensities
    scores: dict[str, list[float]]  # Dice of the cases scored after training, by class, the lowest first
    weights: dict[str, Tensor]
    example: dict[str, Tensor]  # mask and some logits of ``made_up``; empty where the network was never asked
    answered_by: str = ""  # the machine that did, and how it computed
    confidence: dict[str, list[float]] = field(default_factory=dict)  # of the scored cases, by class, lowest first
    cost: dict[str, float] = field(default_factory=dict)  # number of weights, GFLOPs a patch, seconds a scan
    regions: Regions | None = None  # the label values of each, where the network was trained on regions
    id: str = ""  # hash of all that; "" while it is not stored

    @property
    def within(self) -> Regions | None:
        """Of regions, the class indices that are in each: see ``seg.regions``."""
        return indices_within([*self.classes.values()], self.regions)

    @property
    def outputs(self) -> int:
        """Channels of the logits: one a class, background too; or one a region."""
        return len(self.regions or self.classes)

    @classmethod
    def of_run(cls, folder: RunFolder) -> "Package":
        """The package of a run that has a checkpoint.

        Raises:
            DataError: the run's folder lacks a file, or holds a damaged one.
        """
        cfg, state = plain(folder.read_config()), read_state(folder.run)
        if state and state.true_status != "FINISHED":
            log.warning("Run %s is %s: its network has not trained to the end.", folder.short, state.true_status)
        prints = folder.read(folder.fingerprint, Fingerprint.from_json)
        split, plan = folder.read(folder.split, Split.from_json), folder.read(folder.plan, Plan.from_json)
        settings = {key: cfg[key] for key in ("dims", "model", "attention", "inference")}
        settings["augmentation"] = {"mirror_axes": cfg["augmentation"].get("mirror_axes", [])}
        settings["data"] = {key: cfg["data"].get(key) for key in ("patch_voxels", "allow_shear")}
        journal = Journal(folder.run)
        tags, data = journal.tags(), journal.dataset() or str(cfg["data"]["name"])
        path = folder.chosen(str(cfg["inference"]["checkpoint"]))
        weights = checkpoint.weights(path)
        origin = {"run_id": folder.run_id, "data": data, "weights": sha256(path)[:12]}
        origin |= {name: version_of(name) for name in ("seg", "torch", "monai")}
        seen = prints.of([*split.train, *split.val])
        return cls(
            settings,
            prints.classes,
            prints.channels,
            plan,
            folder.read(folder.computing, stored),
            origin | {key: tags[key] for key in _TAGS if key in tags},
            tuple(_described(case, prints, plan) for case in seen.cases),
            _scores(folder),
            weights,
            {},
            confidence=_confidence(folder),
            cost=_cost(folder),
            regions=prints.regions,
        )

    def store(self, place: Path) -> "Package":
        """Writes a new folder, or a zip where ``place`` ends in ``.zip``, whole or not at all; the package with its id.

        Raises:
            DataError: there is something at ``place`` already.
        """
        if place.exists():
            raise DataError(f"{place} exists already. Choose another place, or remove it.")
        place.parent.mkdir(parents=True, exist_ok=True)
        plain = {name: value.contiguous() for name, value in self.weights.items()}  # of a network in channels-last
        files = {WEIGHTS: save(plain), EXAMPLE: save(self.example)}
        hashes = {name: _hash(content) for name, content in files.items()}
        about = {"format": FORMAT, "sha256": hashes}
        about |= {key: getattr(self, key) for key in (*_PLAIN, "answered_by")} | {"plan": asdict(self.plan)}
        hashes[MODEL] = digest(about)  # of all else in it
        files[MODEL] = json.dumps(about, indent=1).encode()
        if place.suffix == ".zip":
            with atomic(place) as draft, zipfile.ZipFile(draft, "w") as archive:
                for name, content in files.items():
                    archive.writestr(name, content)
        else:
            with atomic_folder(place) as draft:
                for name, content in files.items():
                    (draft / name).write_bytes(content)
        return replace(self, id=_hash(files[MODEL]))


def is_package(place: Path) -> bool:
    """Whether ``place`` is a folder or a zip that says it is a package."""
    return (place / MODEL).is_file() or (place.suffix == ".zip" and place.is_file())


def read(place: Path) -> Package:
    """Reads a package from its folder or zip; of a zip nothing is unpacked to disk.

    Raises:
        DataError: a file is missing or not as it was written, or a later version wrote it.
    """
    try:
        content = _reader(place)
        model = content(MODEL)
        about = json.loads(model)
        if about["format"] != FORMAT:
            raise DataError(f"{place} is a package of format {about['format']}; this version reads {FORMAT}.")
        files = {name: content(name) for name in (WEIGHTS, EXAMPLE)}
        written = about["sha256"].pop(MODEL, None)  # none in packages of earlier versions
        damaged = [name for name, found in files.items() if _hash(found) != about["sha256"][name]]
        damaged += [MODEL] * (written not in (None, digest(about)))
        if damaged:
            raise DataError(f"{place} is damaged: {', '.join(damaged)} is not as it was written. Take another copy.")
        described = {key: about[key] for key in _PLAIN if key in about}
        described |= {key: tuples(about[key]) for key in ("channels", "training")}
        described |= {"regions": tuples(about.get("regions"))}
        return Package(
            **described,
            plan=Plan.from_json(json.dumps(about["plan"])),
            weights=load(files[WEIGHTS]),
            example=load(files[EXAMPLE]),
            answered_by=about["answered_by"],
            id=_hash(model),
        )
    except DataError:
        raise
    except Exception as error:  # of JSON, zip and safetensors, and of what a damaged file lacks
        said = f"{type(error).__name__}: {error}"
        raise DataError(
            f"{place} cannot be read as a package ({said}). Take another copy, or pack the run again."
        ) from None


def made_up(channels: int, shape: tuple[int, ...]) -> Tensor:
    """An image float32 (C, *shape) for an example: bright blobs in noise, always the same, of no patient."""
    random = np.random.RandomState(0)  # whose numbers never change, unlike those of default_rng
    grid = np.indices(shape)
    centre = np.array(shape).reshape(-1, *[1] * len(shape)) / 2
    radius = np.sqrt((((grid - centre) / centre) ** 2).mean(0))
    image = random.standard_normal((channels, *shape)) + 3 * (radius < 0.4) - 2 * (radius > 0.7)
    return torch.from_numpy(image.astype(np.float32))


def levels(channel: Intensity) -> list[float]:
    """The percentiles 1, 25, 50, 75 and 99 of a channel's values inside the structures."""
    return [*map(float, np.percentile(channel.quantiles, LEVELS))]


def normalised(channels: Sequence[Intensity], norms: Sequence[ChannelNorm]) -> list[list[float]]:
    """The same of each channel, as the network sees them."""
    found = []
    for channel, norm in zip(channels, norms, strict=False):
        values = np.array(levels(channel))
        values = np.clip(values, norm.low, norm.high) if norm.kind == "ct" else values
        found.append([*map(float, (values - norm.mean) / max(norm.std, 1e-8))])
    return found


def _reader(place: Path) -> Callable[[str], bytes]:
    if place.suffix != ".zip":
        return lambda name: (place / name).read_bytes()

    def content(name: str) -> bytes:
        with zipfile.ZipFile(place) as archive:
            size, whole = archive.getinfo(name).file_size, place.stat().st_size
            if size > _MOST_PACKED * whole:
                raise DataError(f"{place} has {whole} bytes and {name} in it {size}: no package. Take another copy.")
            return archive.read(name)

    return content


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _described(case: CasePrint, prints: Fingerprint, plan: Plan) -> Json:
    """What may be known of a case outside its hospital: no id, no hash."""
    names, millilitres = [*prints.classes], float(np.prod(case.spacing_mm)) / 1000
    return {
        "shape": case.shape,
        "spacing_mm": case.spacing_mm,
        "volumes_ml": {names[index]: count * millilitres for index, count in case.foreground_voxels.items()},
        "oriented": case.oriented,
        "unit": case.unit,
        "intensity": [*map(levels, case.intensity)],
        "normalised": _normalised(case, plan),
    }


def _normalised(case: CasePrint, plan: Plan) -> list[list[float]]:
    """None of a fingerprint that an earlier version made."""
    numbers = [channel.image for channel in case.intensity if channel.image]
    norms = [norm.of(*own) for norm, own in zip(plan.normalization, numbers, strict=False)]
    return normalised(case.intensity, norms)


def _scores(folder: RunFolder) -> dict[str, list[float]]:
    """Dice by class of the cases that the run scored; empty where it scored none."""
    if not folder.cases.exists():
        return {}
    table = read_scores(folder.cases).dropna(subset=["dice"])
    return {str(name): sorted(map(float, part["dice"])) for name, part in table.groupby("class", sort=False)}


def _confidence(folder: RunFolder) -> dict[str, list[float]]:
    """The same of the mean probability within each class's mask."""
    if not folder.confidence.exists():
        return {}
    by_case: dict[str, dict[str, float]] = folder.read(folder.confidence, json.loads)
    names = {name: None for case in by_case.values() for name in case}
    return {name: sorted(case[name] for case in by_case.values() if name in case) for name in names}


def _cost(folder: RunFolder) -> dict[str, float]:
    """What the network costs, by the names of the run's own numbers; empty while the run has not come to its end."""
    if not folder.summary.exists():
        return {}
    numbers: dict[str, float] = folder.read(folder.summary, json.loads)["metrics"]
    return {name: numbers[name] for name in _COST if name in numbers}
