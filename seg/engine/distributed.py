"""Several processes as one: everything the rest needs to know of ``torchrun``."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """This process among its peers: ``rank`` 0 … size-1; one process alone is rank 0 of 1."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1  # processes on this machine

    @property
    def leads(self) -> bool:
        """Whether this process writes files and the tracked run."""
        return self.rank == 0


def join() -> World:
    """The world that ``torchrun`` announces in the environment, without connecting yet."""
    told = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    return World(*(int(os.environ.get(name, alone)) for name, alone in told.items()))


def connect(world: World, device: torch.device) -> None:
    """Opens the process group: nccl between GPUs, gloo between CPU processes."""
    if world.size > 1 and not dist.is_initialized():
        if device.type == "cuda":
            torch.cuda.set_device(device)
        # The others wait while rank 0 prepares a large data set.
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=timedelta(days=1))


def disconnect() -> None:
    """Closes the process group where there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def parallel(network: nn.Module, world: World, device: torch.device) -> nn.Module:
    """``network`` itself, or wrapped so that gradients are averaged over the world."""
    if world.size == 1:
        return network
    return DistributedDataParallel(network, device_ids=[device.index] if device.type == "cuda" else None)


def without_sync(model: nn.Module, last: bool) -> AbstractContextManager[object]:
    """Holds back the exchange of gradients until the last batch of a step."""
    if last or not isinstance(model, DistributedDataParallel):
        return nullcontext()
    return model.no_sync()


@contextmanager
def in_turn(world: World) -> Iterator[None]:
    """Rank 0 first, then all others at once: what rank 0 writes to a cache the others find there."""
    if not world.leads:
        dist.barrier()
    yield
    if world.leads and dist.is_initialized():
        dist.barrier()


def from_leader(value: T) -> T:
    """Rank 0's value on every rank."""
    return gathered(value)[0]


def gathered(value: T) -> list[T]:
    """Every rank's value, in rank order, on every rank."""
    if not dist.is_initialized():
        return [value]
    box: list[T | None] = [None] * dist.get_world_size()
    dist.all_gather_object(box, value)
    return box  # type: ignore[return-value]
