"""From the configuration to the objects of a run: its network and all that trains it and predicts with it."""

import copy
import json
import logging
import math
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from seg.config.build import build
from seg.data.augmentation import Augmentation
from seg.data.plan import Plan
from seg.data.preprocess import Prepared
from seg.data.sampling import Patches, batches
from seg.engine.cases import Material, processes
from seg.engine.computing import fastest, laid_out, ways_to_compute
from seg.engine.device import Precision
from seg.engine.distributed import World, from_leader
from seg.engine.inference import Predict, Windows, over_shifts, predict_slices
from seg.engine.loop import Budget, Training, weight_average
from seg.errors import ConfigError, times
from seg.losses import DeepSupervision
from seg.models import Network, insert_attention
from seg.records.folder import find, one_at_a_time

log = logging.getLogger(__name__)
DEFAULT_EPOCHS, LEAST_STEPS = 40, 25  # 1000 steps at least: fewer taught no network much (benchmarks/RESULTS.md)


@dataclass(frozen=True)
class Built:
    """What a configuration gives for its cases, ready to train."""

    material: Material  # its plan suits the network
    precision: Precision
    training: Training
    budget: Budget
    loss: nn.Module
    predict: Predict


def build_run(cfg: DictConfig, material: Material, world: World, precision: Precision) -> Built:
    """Network, optimizer, schedule and loss, built for this material and tried once on shapes.

    Raises:
        ConfigError: something cannot be built so, the network cannot take the patch, or the batch cannot be shared out.
    """
    cases = material.cases
    network = build_network(cfg, material.plan, len(cases.channels), len(cases.classes))
    plan = suited(material.plan, network, automatic=cfg.data.patch == "auto")
    if plan.batch_size % world.size:
        larger = math.ceil(plan.batch_size / world.size) * world.size
        raise ConfigError(
            f"data.batch_size is {plan.batch_size}, over {world.size} processes; each needs the same share. "
            f"Set data.batch_size={larger}."
        )
    if not material.split.val and (cfg.trainer.early_stopping or "adaptive" in str(cfg.scheduler.get("_target_"))):
        raise ConfigError(
            "trainer.early_stopping and scheduler=adaptive follow the validation Dice, and this split has no "
            "validation part. Choose another fold or leave them out."
        )
    precision = computing(cfg, network, plan, len(cases.classes), world, precision)
    budget, why = budget_of(cfg, len(material.split.train), plan.batch_size)
    log.info("  budget %s", why)
    training = build_training(cfg, network, budget, precision)
    loss = DeepSupervision(build(cfg.loss)).to(precision.device)
    predict = predictor(cfg, plan, precision)
    return Built(replace(material, plan=plan), precision, training, budget, loss, predict)


def computing(
    cfg: DictConfig, network: Network, plan: Plan, classes: int, world: World, precision: Precision
) -> Precision:
    """The fastest precision and layout of those that the configuration leaves open, the same on every rank.

    A measurement holds for the model with any attention block, so that all arms of a study that differ in it compute
    alike: the first to be measured decides. A resumed run computes as it began.
    """
    ways = ways_to_compute(precision, cfg.trainer.precision, cfg.trainer.layout)
    file = find(Path(cfg.paths.outputs), cfg.resume).computing if cfg.resume else None
    if file and file.exists():  # as it began, whatever a measurement would say now
        began = json.loads(file.read_text())
        ways = [
            replace(precision, dtype=precision.dtype if began["precision"] != "fp32" else None, layout=began["layout"])
        ]
    if cfg.check:
        return ways[0]
    best, why = ways[0], ""
    if world.leads:
        batch = (plan.batch_size // world.size, network.in_channels, *plan.patch)
        about = {"model": _plain(cfg.model), "classes": classes}
        cache = Path(cfg.paths.cache)
        try:
            with one_at_a_time(cache):
                best, why = fastest(ways, network, batch, cache / "computing.json", about)
        except (OSError, sqlite3.Error) as error:  # a cache that may only be read, or a neighbour that measures long
            why = f"{best.name} {best.layout}: the measurement cannot be stored in {cache} ({error})"
    number, why = from_leader((ways.index(best), why))
    log.info("  computes in %s", why)
    return ways[number]


def training_batches(
    cfg: DictConfig, built: Built, store: Mapping[str, Prepared], world: World
) -> Iterator[dict[str, Any]]:
    """Endless batches, from the step that the training has reached."""
    plan, device = built.material.plan, built.precision.device
    dataset = Patches(
        store,
        built.material.split.train,
        patch=plan.patch,
        dims=cfg.dims,
        slice_axis=plan.slice_axis,
        foreground=cfg.data.foreground,
        jitter=cfg.data.jitter,
        seed=cfg.seed,
        augment=Augmentation(**build(cfg.augmentation)),
    )
    return batches(
        dataset,
        start_step=built.training.progress.step * cfg.trainer.accumulate,
        steps=None,
        batch_size=plan.batch_size,
        rank=world.rank,
        world=world.size,
        workers=loader_workers(cfg, world, device),
        pin_memory=device.type == "cuda",
    )


def loader_workers(cfg: DictConfig, world: World, device: torch.device) -> int:
    """Processes that load patches for this one; auto takes none on a CPU, where a thread beside the network does."""
    if cfg.trainer.workers != "auto":
        return int(cfg.trainer.workers)
    return max(1, processes() // world.local_size) if device.type == "cuda" else 0


def build_network(cfg: DictConfig, plan: Plan, channels: int, classes: int) -> Network:
    """The network with its attention block, and the patch checked against what it can take.

    Args:
        cfg: the sections ``model``, ``attention`` and ``dims``.
        plan: patch, and the strides that ``auto`` stands for.
        channels: of the image.
        classes: of the label, background included.

    Raises:
        ConfigError: the network cannot be built so, or cannot take the patch.
    """
    model, attention = _plain(cfg.model), _plain(cfg.attention)
    if model.get("strides") == "auto":
        model["strides"] = plan.strides
    network: Network = build(model, in_channels=channels, out_channels=classes, dims=cfg.dims)
    if attention:
        where = attention.pop("where")
        network = insert_attention(network, build(attention), where)
    return network


def suited(plan: Plan, network: Network, automatic: bool) -> Plan:
    """The plan with a patch that the network can take; an automatic one is rounded up to it.

    Raises:
        ConfigError: the given patch does not suit the network.
    """
    right = tuple(math.ceil(size / by) * by for size, by in zip(plan.patch, network.multiple, strict=True))
    if right != plan.patch and not automatic:
        raise ConfigError(
            f"The patch {times(plan.patch)} does not suit this network, which takes multiples of "
            f"{times(network.multiple)}. Set data.patch={list(right)}."
        )
    try:
        with torch.no_grad():
            copy.deepcopy(network).to("meta").eval()(torch.empty(1, network.in_channels, *right, device="meta"))
    except RuntimeError as error:
        raise ConfigError(
            f"The network with its attention block cannot take a patch of {times(right)}: {error}"
        ) from error
    return replace(plan, patch=right)


def build_training(cfg: DictConfig, network: nn.Module, budget: Budget, precision: Precision) -> Training:
    """Network on its device, optimizer, scheduler, scaler and weight average."""
    laid_out(network, precision)
    try:
        optimizer = build(cfg.optimizer)(network.parameters())
        scheduler = build(cfg.scheduler)(optimizer, budget.schedule_steps)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"The optimizer or the scheduler cannot be built from its section: {error}") from error
    scaler = torch.amp.GradScaler(precision.device.type, enabled=precision.dtype is torch.float16)
    average = weight_average(network, cfg.trainer.ema) if cfg.trainer.ema else None
    return Training(network, network, optimizer, scheduler, scaler, average)


def budget_of(cfg: DictConfig, train_cases: int, batch_size: int) -> tuple[Budget, str]:
    """The budget, and why it is so, in a line."""
    t, d = cfg.trainer, cfg.data
    once = math.ceil(train_cases / (batch_size * t.accumulate))
    per_epoch = max(once, LEAST_STEPS) if t.steps_per_epoch == "auto" else int(t.steps_per_epoch)
    if t.max_minutes is not None:
        return Budget(None, float(t.max_minutes), per_epoch), f"{t.max_minutes:g} min: trainer.max_minutes"
    if t.max_steps is not None:
        return Budget(int(t.max_steps), None, per_epoch), f"{t.max_steps} steps: trainer.max_steps"
    if t.max_epochs in ("auto", None) and (d.max_steps or d.max_minutes):
        limits = [f"{d[key]:g} {unit}" for key, unit in (("max_steps", "steps"), ("max_minutes", "min")) if d[key]]
        return Budget(d.max_steps, d.max_minutes, per_epoch), f"{', at most '.join(limits)}: {d.name}'s own"
    epochs = DEFAULT_EPOCHS if t.max_epochs in ("auto", None) else int(t.max_epochs)
    why = f"{epochs * per_epoch} steps: {epochs} epochs of {per_epoch}"
    if t.steps_per_epoch == "auto":
        why += f", each case once in {once}" + (f", at least {LEAST_STEPS}" if once < LEAST_STEPS else "")
    return Budget(epochs * per_epoch, None, per_epoch), why


def predictor(cfg: DictConfig, plan: Plan, precision: Precision) -> Predict:
    """Sliding-window prediction as the ``inference`` section says."""
    at_once = cfg.inference.batch_size
    if at_once == "auto":
        at_once = max(1, min(32, cfg.data.patch_voxels // math.prod(plan.patch)))
    windows = Windows(
        plan.patch,
        slice_axis=plan.slice_axis,
        overlap=cfg.inference.overlap,
        mirror_axes=tuple(cfg.augmentation.mirror_axes) if cfg.inference.mirror else (),
        batch_size=at_once,
        device=precision.device,
        precision_context=precision.autocast,
    )
    return partial(predict_slices, windows=windows)


def case_predictor(cfg: DictConfig, plan: Plan, precision: Precision) -> Predict:
    """As the validation predicts, and over shifts where ``inference.shifts`` asks for it."""
    predict = predictor(cfg, plan, precision)
    if not cfg.inference.shifts:
        return predict
    axes = [axis for axis in range(3) if cfg.dims == 3 or axis != plan.slice_axis]
    return partial(over_shifts, predict, axes=axes)


def _plain(node: Any) -> Any:
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
