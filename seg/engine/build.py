"""From the configuration to the objects of a run: its network and all that trains it."""

import copy
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from omegaconf import DictConfig
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from seg.config.build import build
from seg.config.content import first_line, flat, plain
from seg.config.schema import followers
from seg.data.augmentation import Augmentation
from seg.data.plan import Plan
from seg.data.topology import flat_axes
from seg.engine.cases import Material
from seg.engine.computing import choose_computing, laid_out
from seg.engine.device import Precision
from seg.engine.distributed import World
from seg.engine.inference import Predict
from seg.engine.loop import Training
from seg.engine.memory import fitted
from seg.engine.predictors import window_predictor
from seg.engine.progress import LEAST_TO_PLATEAU, Budget, budget_of
from seg.engine.seeding import seed_everything
from seg.errors import ConfigError, SegError, few, times
from seg.losses import DeepSupervision
from seg.models import Network, insert_attention
from seg.models.thick import narrow_kernels
from seg.optimizers import weight_average
from seg.regions import Regions

log = logging.getLogger(__name__)
TRIED = 64  # voxels a side, at most, of the patch that the augmentation is tried on


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

    def planned(plan: Plan) -> tuple[Network, Plan]:
        seed_everything(cfg.seed, cfg.trainer.deterministic)  # weights do not depend on how many plans were tried
        network = build_network(cfg, plan, len(cases.channels), cases.outputs)
        return network, suited(plan, network, automatic=cfg.data.patch == "auto")

    network, plan = fitted(cfg, material, precision.device, world, planned)
    if plan.batch_size % world.size:
        larger = math.ceil(plan.batch_size / world.size) * world.size
        fix = f"Set data.batch_size={larger}." if not cfg.resume else "Resume it with as many as it began with."
        raise ConfigError(
            f"data.batch_size is {plan.batch_size}, over {world.size} processes; each needs the same share. {fix}"
        )
    _check_validated(material, followers(flat(cfg)))
    _check_scored(cfg, material)
    _try_augmentation(cfg, len(cases.channels), plan)
    precision = choose_computing(cfg, network, plan, cases.outputs, world, precision)
    budget, why = budget_of(cfg, len(material.split.train), plan.batch_size)
    log.info("  budget %s", why)
    if cfg.trainer.get("stop") and budget.steps is not None:
        count = budget.steps // budget.steps_per_epoch // cfg.trainer.validate_every
        if count < LEAST_TO_PLATEAU:
            raise ConfigError(
                f"trainer.stop=plateau needs {LEAST_TO_PLATEAU} validations, and this budget has {count}. Lower "
                "trainer.validate_every or trainer.steps_per_epoch, or leave trainer.stop out."
            )
    training = build_training(cfg, network, budget, precision)
    _check_validated(material, ["the scheduler"] if hasattr(training.scheduler, "report") else [])
    loss = _loss(cfg, cases.within, len(plan.patch)).to(precision.device)
    predict = window_predictor(cfg, plan, precision, cases.within)
    return Built(replace(material, plan=plan), precision, training, budget, loss, predict)


def _check_validated(material: Material, following: Sequence[str]) -> None:
    if following and not material.split.val:
        raise ConfigError(
            f"The validation Dice is needed for {few(following)}, and this split has no validation part. Choose "
            "another fold or leave them out."
        )


def _check_scored(cfg: DictConfig, material: Material) -> None:
    """ConfigError where there is no validation part that could be scored; a warning where there is no test part."""
    part = cfg.inference.part
    if part == "none" or material.split.scored(part):
        return
    if part == "val":
        raise ConfigError(
            "inference.part=val scores the validation part, and this split has none. Choose another fold."
        )
    fix = f"Add a part test to {cfg.data.split_file}" if cfg.data.split_file else "Set data.test_fraction"
    if material.split.val:
        fix += ", or inference.part=val inference.checkpoint=last to score the validation part"
    log.warning("This split has no test part: no case will be scored. %s.", fix)


def build_network(cfg: DictConfig, plan: Plan, channels: int, outputs: int) -> Network:
    """The network with its attention block, and the patch checked against what it can take.

    Args:
        cfg: the sections ``model``, ``attention`` and ``dims``.
        plan: patch, and the strides that ``auto`` stands for.
        channels: of the image.
        outputs: channels of the logits, as of ``CaseSet.outputs``.

    Raises:
        ConfigError: the network cannot be built so, or cannot take the patch.
    """
    model, attention = plain(cfg.model), plain(cfg.attention) if cfg.attention else {}
    strides = model.get("strides")
    if strides == "auto":
        model["strides"] = plan.strides
    elif isinstance(strides, list) and "auto" in strides:
        model["strides"] = plan.strides[-len(strides) :]
    network: Network = build(model, in_channels=channels, out_channels=outputs, dims=cfg.dims)
    if any(1 in widths for widths in plan.kernels):
        patch, voxel = rounded_up(plan.patch, network), plan.voxel_mm
        narrow_kernels(network, patch, lambda grid, last: flat_axes(grid, patch, voxel, last))
    if attention:
        where = attention.pop("where")
        network = insert_attention(network, build(attention), where)
    return network


def suited(plan: Plan, network: Network, automatic: bool) -> Plan:
    """The plan with a patch that the network can take; an automatic one is rounded up to it.

    Raises:
        ConfigError: the given patch does not suit the network.
    """
    right = rounded_up(plan.patch, network)
    if right != plan.patch and not automatic:
        raise ConfigError(
            f"The patch {times(plan.patch)} does not suit this network, which takes multiples of "
            f"{times(network.multiple)}, two such blocks at least. Set data.patch={list(right)}."
        )
    try:
        with torch.no_grad():
            copy.deepcopy(network).to("meta").eval()(torch.empty(1, network.in_channels, *right, device="meta"))
    except RuntimeError as error:
        raise ConfigError(
            f"The network with its attention block cannot take a patch of {times(right)}: {error}"
        ) from error
    if right == plan.patch:
        return plan
    rounded = f"patch {times(right)}: rounded up, since this network takes multiples of {times(network.multiple)}"
    log.info("  %s", rounded)
    return replace(plan, patch=right, reasons=(*plan.reasons, rounded))


def rounded_up(patch: Sequence[int], network: Network) -> tuple[int, ...]:
    """The smallest patch that the network can take and that holds ``patch``: two blocks of its multiples or more."""
    blocks = [math.ceil(size / by) for size, by in zip(patch, network.multiple, strict=True)]
    if math.prod(blocks) == 1:
        blocks[patch.index(max(patch))] = 2
    return tuple(count * by for count, by in zip(blocks, network.multiple, strict=True))


def _loss(cfg: DictConfig, within: Regions | None, dims: int) -> DeepSupervision:
    """The loss, tried on regions where there are any: one of the user's own may know classes alone."""
    loss = DeepSupervision(build(cfg.loss), within)
    if within is None:
        return loss
    try:
        loss(torch.zeros(1, len(within), *[4] * dims), torch.zeros(1, *[4] * dims, dtype=torch.uint8))
    except Exception as error:
        raise ConfigError(
            f"loss cannot be computed of regions, whose logits and target are (B, R, …): {first_line(error)}. "
            "Choose one of conf/loss."
        ) from error
    return loss


def _try_augmentation(cfg: DictConfig, channels: int, plan: Plan) -> None:
    """Changes one patch of noise: what the transforms cannot do is known before the first volume is prepared."""
    augment, rng = Augmentation(**build(cfg.augmentation)), np.random.default_rng(0)
    patch = [min(size, TRIED) for size in plan.patch]
    image = torch.from_numpy(rng.standard_normal((channels, *patch), np.float32))
    try:
        augment(image, torch.zeros(patch, dtype=torch.uint8), rng)
    except SegError:
        raise
    except Exception as error:
        raise ConfigError(f"augmentation.transforms cannot change a patch: {first_line(error)}.") from error


def build_training(cfg: DictConfig, network: nn.Module, budget: Budget, precision: Precision) -> Training:
    """Network on its device, optimizer, scheduler, scaler and weight average."""
    laid_out(network, precision)
    try:
        optimizer = build(cfg.optimizer)(network.parameters())
        scheduler = build(cfg.scheduler)(optimizer, budget.schedule_steps)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"The optimizer or the scheduler cannot be built from its section: {error}") from error
    if not isinstance(scheduler, LambdaLR):
        raise ConfigError(
            f"scheduler._target_ makes a {type(scheduler).__name__}; it must make a torch.optim.lr_scheduler.LambdaLR, "
            "as those of seg.schedulers do."
        )
    scaler = torch.amp.GradScaler(precision.device.type, enabled=precision.dtype is torch.float16)
    average = weight_average(network, cfg.trainer.ema) if cfg.trainer.ema else None
    return Training(network, network, optimizer, scheduler, scaler, average)
