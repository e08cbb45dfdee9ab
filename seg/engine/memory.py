"""A plan that fits into the memory: what a step takes is known before one is taken, and batch and patch give way."""

import logging
import math
from collections.abc import Callable
from dataclasses import replace

import torch
from omegaconf import DictConfig

from seg.data.plan import Plan
from seg.engine.cases import Material, plan_of
from seg.engine.device import total_mib
from seg.engine.distributed import World, gathered
from seg.errors import times
from seg.models import Network, parameter_count
from seg.models.cost import kept_mib

log = logging.getLogger(__name__)
Build = Callable[[Plan], tuple[Network, Plan]]
SHARE = 0.8  # of the memory of the machine or the GPU that a step may take; the rest is for data and other programs
PEAK = 2.8  # highest memory of a step over what its forward pass keeps: 1.6 to 2.7, measured (benchmarks/RESULTS.md)
WEIGHTS = 4  # each weight with its gradient and what optimizers hold of it
LEAST = {2: 8, 3: 2}  # patches a step, by dims
SMALLER = 0.8  # of the voxels of a patch, each time that not even the fewest patches fit
SMALLEST = 16  # voxels, as an average over the axes, below which a patch does not give way


def fitted(
    cfg: DictConfig, material: Material, device: torch.device, world: World, build: Build
) -> tuple[Network, Plan]:
    """The network, and the plan with a batch and a patch that the memory holds, where they are automatic.

    A resumed run stays as it began. Where nothing may give way, a warning says so.

    Args:
        cfg: says what is automatic.
        material: with the plan as it was made of the data.
        device: whose memory counts.
        world: its processes share the batch, and on a processor the memory.
        build: the network for a plan, and the plan with a patch that it can take.
    """
    there, sharing = min(gathered(total_mib(device))), 1 if device.type == "cuda" else world.local_size
    plan, voxels = material.plan, math.prod(material.plan.patch)
    automatic = cfg.data.batch_size == "auto" and not cfg.resume
    least = max(world.size, LEAST[len(plan.patch)]) if automatic else plan.batch_size
    while True:
        if automatic and plan.batch_size % world.size:
            shared = max(1, plan.batch_size // world.size) * world.size
            plan = explained(plan, shared, f"the same share for each of {world.size} processes")
        network, plan = build(plan)
        kept = kept_mib(network, network.in_channels, plan.patch)
        if kept is None:
            return network, plan
        fixed, each = sharing * WEIGHTS * 4 * parameter_count(network) / 2**20, PEAK * kept * sharing / world.size
        need, room = fixed + each * plan.batch_size, int(max(0.0, SHARE * there - fixed) / each)
        said = f"memory of a step: about {need / 1024:.2g} of {there / 1024:.3g} GiB"
        voxels = int(SMALLER * min(voxels, math.prod(plan.patch)))
        if plan.batch_size <= room:
            log.info("  %s", said)
            return network, plan
        if least <= room:
            plan = explained(plan, room // world.size * world.size, _less(said))
        elif cfg.data.patch == "auto" and not cfg.resume and voxels >= SMALLEST ** len(plan.patch):
            plan = plan_of(cfg, material.fingerprint, material.split, voxels)
            plan = explained(plan, plan.batch_size, _less(said))
        else:
            log.warning("%s. Set data.batch_size or data.patch lower, or take a smaller network.", said)
            return network, plan


def _less(said: str) -> str:
    return f"the memory holds no more ({said}, as it was planned before)"


def explained(plan: Plan, batch_size: int, why: str) -> Plan:
    """The plan with this batch, and the reason why."""
    reason = f"batch {batch_size} of {times(plan.patch)}: {why}"
    log.info("  %s", reason)
    return replace(plan, batch_size=batch_size, reasons=(*plan.reasons, reason))
