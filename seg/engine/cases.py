"""From the configuration to the data of a run; PyTorch only once volumes are prepared, so faults are reported early."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from seg.config.build import build
from seg.config.content import plain
from seg.data.cases import CaseSet
from seg.data.fingerprint import Fingerprint, fingerprint
from seg.data.leaks import Leak, leaks
from seg.data.plan import Plan, make_plan
from seg.data.processors import processors
from seg.data.splits import Fold, Split, load_split, make_split
from seg.errors import ConfigError
from seg.files import private_folder
from seg.records.folder import find

if TYPE_CHECKING:
    from seg.data.preprocess import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Material:
    """What the ``data`` section describes, read and checked."""

    cases: CaseSet
    fingerprint: Fingerprint  # of all cases
    split: Split
    plan: Plan


def read_material(cfg: DictConfig) -> Material:
    """Finds the cases, reads and checks every file once, splits them by patient and decides every ``auto``.

    What ``dims=auto`` becomes it writes into ``cfg``, as ``settle`` does.

    Raises:
        DataError: with every fault of every file.
        ConfigError: the split or the plan cannot be made so.
    """
    d, cache = cfg.data, Path(cfg.paths.cache)
    for folder in (Path(cfg.paths.outputs), cache):
        private_folder(folder)
    cases: CaseSet = build(d.cases, root=d.root, name=d.name, patient=d.patient)
    prints = fingerprint(cases, cache, workers=processes(), allow_shear=d.get("allow_shear", False))
    split = split_of(cfg, prints, d.fold)
    settle(cfg, prints)
    return Material(cases, prints, split, plan_of(cfg, prints, split))


def plan_of(cfg: DictConfig, prints: Fingerprint, split: Split, patch_voxels: int | None = None) -> Plan:
    """What ``auto`` decides of the cases to train and validate on; a resumed run keeps its own plan.

    ``patch_voxels``: in place of the configured number.
    """
    if cfg.resume and (run := find(Path(cfg.paths.outputs), cfg.resume)).plan.exists():
        return run.read(run.plan, Plan.from_json)
    known = {*split.train, *split.val}
    seen = prints.of([case.id for case in prints.cases if case.id in known])
    d, strides = plain(cfg.data), plain(cfg.model).get("strides")
    options = {key: d[key] for key in ("spacing", "patch", "batch_size", "normalization", "patch_voxels")}
    options |= {"slice_axis": d.get("slice_axis", "auto")} | ({"patch_voxels": patch_voxels} if patch_voxels else {})
    return make_plan(seen, prints.channels, dims=cfg.dims, strides=strides, **options)


def settle(cfg: DictConfig, prints: Fingerprint) -> None:
    """Sets ``dims`` where it is auto: 2 for pictures and where all volumes are one slice, otherwise 3.

    Raises:
        ConfigError: it is 3, and the data are pictures.
    """
    if cfg.dims == "auto":
        cfg.dims = 2 if any(all(case.shape[axis] == 1 for case in prints.cases) for axis in range(3)) else 3
    elif cfg.dims == 3 and prints.unit == "pixels":
        raise ConfigError("dims is 3, and the images are pictures, which have two. Set dims=2, or leave it at auto.")


def split_of(cfg: DictConfig, prints: Fingerprint, fold: Fold, seed: int | None = None) -> Split:
    """The parts of the cases in ``fold``, drawn by the configured seed or ``seed``; raises as ``read_material``."""
    d = cfg.data
    if d.split_file:
        return load_split(Path(d.split_file).expanduser(), prints, fold=fold)
    drawn = d.split_seed if seed is None else seed
    return make_split(prints, fold=fold, folds=d.folds, test_fraction=d.test_fraction, seed=drawn)


def prepare_cases(cfg: DictConfig, material: Material) -> "Store":
    """Every case, prepared once into the cache that all runs share."""
    from seg.data.preprocess import prepare

    return prepare(material.cases, material.fingerprint, material.plan, Path(cfg.paths.cache), workers=processes())


def find_leaks(cfg: DictConfig, material: Material) -> list[Leak]:
    """Cases that count as two patients and look like one."""
    return leaks(material.cases, material.fingerprint, Path(cfg.paths.cache), workers=processes())


def processes() -> int:
    """Processors this process may use, at most 8."""
    return min(8, processors())


def describe(material: Material, extra: Mapping[str, object] | None = None) -> None:
    """Logs what a run will work on and what every ``auto`` became; ``extra`` goes with each line."""
    split, cases = material.split, material.cases
    sizes = f"{len(split.train)} for training, {len(split.val)} for validation, {len(split.test)} for the test"
    log.info("%s: %d cases, %s; classes %s", cases.name, len(cases.cases), sizes, ", ".join(cases.names), extra=extra)
    for line in material.plan.reasons:
        log.info("  %s", line, extra=extra)
