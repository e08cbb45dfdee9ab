"""What a training would be, before it is run: leaks, memory, minutes, disk, and a sheet of cases to look at."""

import logging
import math
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import torch
from omegaconf import DictConfig

from seg.data.cases import Case
from seg.data.classes import IGNORE, class_indices
from seg.data.leaks import FIX
from seg.data.nifti import to_ras
from seg.data.preprocess import read_scan
from seg.data.sampling import Batch
from seg.data.volumes import read_label
from seg.engine.build import Built
from seg.engine.cases import Material, find_leaks, processes
from seg.engine.device import memory_mib, peak_mib, total_mib
from seg.engine.distributed import World
from seg.engine.loop import Hooks, Settings, fit
from seg.engine.progress import Budget
from seg.errors import counted, times
from seg.files import file_name
from seg.models import Network, parameter_count
from seg.models.cost import gflops

log = logging.getLogger(__name__)
SHOWN = 6  # cases
LIMIT = {"cpu": 15.0, "mps": 200.0, "cuda": 4000.0}  # 10⁹ operations of a forward pass that is still tried
STEPS = 2  # that are timed, after one that pays for threads and memory


class Trial(NamedTuple):
    """What a whole step takes, from a few on noise."""

    seconds: float
    mib: float  # at its peak
    patches: str  # that were tried, in words
    busy: bool  # whether others held the processors meanwhile


def end_check(cfg: DictConfig, built: Built, world: World) -> None:
    """Logs what ``check=true`` found beside faults, which end it earlier, and what the training would take.

    The network is trained a few steps, on noise.
    """
    material = built.material
    if found := find_leaks(cfg, material):
        log.warning("leaks, which make scores too good:\n%s\n%s", "\n".join(f"  {leak}." for leak in found), FIX)
    log.info("check: no fault found, in the configuration and in %d cases.", len(material.cases.cases))
    log.info("  leaks %s", "as above" if found else "none: no image and no mask belongs to two patients")
    tried = try_steps(cfg, built, world)
    early = bool(cfg.trainer.early_stopping or cfg.trainer.stop)  # before the budget is spent
    minutes = _minutes(built.budget, tried, early=early)
    for line in (_network(cfg, built), minutes, _memory(built, tried), _disk(cfg, material)):
        log.info("  %s", line)
    if world.leads:
        log.info("  look at %s: %d cases with their labels and the patch", *sheet(cfg, material))


def try_steps(cfg: DictConfig, built: Built, world: World) -> Trial | None:
    """Trains a few steps on noise: of fewer patches where a step has many, of smaller ones where even two are too much.

    What a step takes grows with the voxels, and what the optimizer takes does not. None where a network does not say
    what it computes.
    """
    plan, training, device = built.material.plan, built.training, built.precision.device
    channels, classes = len(built.material.cases.channels), len(built.material.cases.classes)
    cost, share = gflops(training.network, channels, plan.patch), plan.batch_size // world.size
    if cost is None:
        return None
    at_once = LIMIT[device.type] / cost
    size = max(min(2, share), min(share, int(at_once)))
    patch = _smaller(plan.patch, cast(Network, training.network).multiple, at_once / size)
    batch: Batch = {
        "image": torch.randn(size, channels, *patch),
        "label": torch.randint(classes, (size, *patch), dtype=torch.uint8),
        "case": ["noise"] * size,
    }
    settings = Settings(built.precision, size, 1, cfg.trainer.clip_norm, 1, 1, within=built.material.cases.within)
    hooks = Hooks(None, lambda *_: None, lambda _: False, lambda _: None, lambda: False)

    def seconds(steps: int) -> float:
        begin, budget = time.perf_counter(), Budget(training.progress.step + steps, None, 10**9)
        fit(training, budget, iter([batch] * steps), built.loss, settings, hooks)
        return (time.perf_counter() - begin) / steps

    before = memory_mib(device)
    seconds(1)
    computed = time.process_time()
    step = seconds(STEPS)
    busy = device.type == "cpu" and time.process_time() - computed < step * STEPS / 2
    for weight in training.network.parameters():
        weight.grad = torch.zeros_like(weight)
    begin = time.perf_counter()
    training.optimizer.step()
    own = time.perf_counter() - begin
    peak = memory_mib(device) if device.type == "cuda" else peak_mib()
    more = share * math.prod(plan.patch) / (size * math.prod(patch))
    whole = max(0.0, step - own) * more * cfg.trainer.accumulate + own
    return Trial(whole, before + max(0.0, peak - before) * more, f"{size} patches of {times(patch)}", busy)


def _smaller(patch: Sequence[int], multiple: Sequence[int], share: float) -> list[int]:
    """A patch of at most this share of the voxels that a network of these multiples takes, or of as few as it may."""
    sides = [*patch]
    while math.prod(sides) > share * math.prod(patch):
        halves = [side // 2 // by * by for side, by in zip(sides, multiple, strict=True)]
        able = [axis for axis, by in enumerate(multiple) if halves[axis] >= 2 * by]
        if not able:
            break
        axis = max(able, key=lambda axis: sides[axis])
        sides[axis] = halves[axis]
    return sides


def _network(cfg: DictConfig, built: Built) -> str:
    plan, network = built.material.plan, built.training.network
    weights = parameter_count(network) / 1e6
    cost = gflops(network, len(built.material.cases.channels), plan.patch)
    work = f", {cost:.3g} GFLOPs a patch" if cost else ""
    name = str(cfg.model._target_).rpartition(".")[2]
    return f"network {name}: {weights:.3g} million weights{work} of {times(plan.patch)}, {plan.batch_size} a step"


def _minutes(budget: Budget, tried: Trial | None, *, early: bool) -> str:
    limit = f"at most {budget.minutes:g} min, as set" if budget.minutes is not None else ""
    if budget.steps is None:
        return f"time {limit}"
    if tried is None:
        return f"time {limit or 'not known'}: what a step takes cannot be told before; the training soon says it"
    minutes = budget.steps * tried.seconds / 60
    told = f"{minutes:.{0 if minutes >= 10 else 1}f} min for {budget.steps} steps of {tried.seconds:.2g} s"
    told = f"{'at most' if early else 'about'} {told}"
    busy = ", while others used the processors" if tried.busy else ""
    limit = f", {limit}" if limit else ""
    return f"time {told}{limit}; tried with {tried.patches}{busy}; validation and test are not in it"


def _memory(built: Built, tried: Trial | None) -> str:
    device = built.precision.device
    told = f"about {_size(tried.mib * 2**20)} while it trains, from the same steps" if tried else "not known"
    return f"memory {told}; {device.type} has {_size(total_mib(device) * 2**20)}"


def _disk(cfg: DictConfig, material: Material) -> str:
    """What the prepared cases and the masks take, at most."""
    plan, cache = material.plan, Path(cfg.paths.cache)
    prepared, masks = 0.0, 0.0
    scored = set(material.split.scored(cfg.inference.part))
    for case in material.fingerprint.cases:
        scale = math.prod(case.spacing_mm) / math.prod(plan.spacing_mm)
        prepared += math.prod(case.kept) * scale * (4 * len(material.cases.channels) + 1)
        masks += math.prod(case.shape) * (case.id in scored)
    free = shutil.disk_usage(cache).free
    once, each = f"{_size(prepared)} for the prepared cases in {cache}, once for all runs", f"{_size(masks)} for masks"
    short = "; too little: set paths.cache to another disk, or make room" if prepared + masks > free else ""
    return f"disk at most {once}, and {each} of a run; {_size(free)} free{short}"


def _size(number: float) -> str:
    """Bytes in a unit that suits."""
    for unit in ("KiB", "MiB"):
        number /= 1024
        if number < 1000:
            return f"{number:.3g} {unit}"
    return f"{number / 1024:.3g} GiB"


def sheet(cfg: DictConfig, material: Material) -> tuple[Path, int]:
    """Draws cases of the training part, from the smallest structures to the largest: the picture, and how many."""
    from seg.pages.preview import Look, preview

    cases, plan = material.cases, material.plan
    ordered = sorted(material.split.train, key=lambda case: material.fingerprint.by_id[case].foreground_mm3)
    picked = {ordered[round(place)] for place in np.linspace(0, len(ordered) - 1, min(SHOWN, len(ordered)))}
    by_id = {case.id: case for case in cases.cases}

    def look(case: Case) -> Look:
        assert case.label is not None
        scan = read_scan(case.images, len(cases.channels))
        label, _ = to_ras(class_indices(read_label(case.label), cases.labels, cases.ignore), scan.original_affine)
        return Look(case.id, scan, np.where(label == IGNORE, 0, label))

    with ThreadPoolExecutor(processes()) as pool:
        looks = [*pool.map(look, (by_id[case] for case in ordered if case in picked))]
    sides = list(plan.patch)
    if len(sides) == 2:
        sides.insert(plan.slice_axis, 1)
    path = preview(
        looks,
        Path(cfg.paths.outputs) / "check" / f"{file_name(cases.name, 'data')}.png",
        title=f"{cases.name}: {counted(len(cases.cases), 'case')}, {counted(len(cases.names) - 1, 'structure')}",
        channel=f"channel {cases.channels[0]}",
        class_names=cases.names,
        patch_mm=np.multiply(sides, plan.spacing_mm).tolist(),
        patch=f"a patch of {times(plan.patch)} {'pixels' if material.fingerprint.unit == 'pixels' else 'voxels'}",
        axis=plan.slice_axis,
        window=plan.normalization[0].window,
    )
    return path, len(looks)
