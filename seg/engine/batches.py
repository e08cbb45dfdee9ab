"""From prepared cases to the endless batches of a training."""

from collections.abc import Iterator, Mapping

import torch
from omegaconf import DictConfig

from seg.config.build import build
from seg.data.augmentation import Augmentation
from seg.data.preprocess import Prepared
from seg.data.sampling import Batch, Patches, batches
from seg.engine.build import Built
from seg.engine.cases import processes
from seg.engine.distributed import World


def training_batches(cfg: DictConfig, built: Built, store: Mapping[str, Prepared], world: World) -> Iterator[Batch]:
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
