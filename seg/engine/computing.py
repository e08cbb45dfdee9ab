"""How a network computes fastest on this machine: memory layout and precision, measured once and kept."""

import copy
import json
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from seg.config.content import plain
from seg.data.plan import Plan
from seg.engine.device import Precision, machine
from seg.engine.distributed import World, from_leader
from seg.files import atomic_write, digest
from seg.models import Network
from seg.records.folder import find, one_at_a_time

log = logging.getLogger(__name__)

_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}  # by the dimensions of a kernel
_TURNS, _SECONDS = 5, 1.5  # a measurement ends with the first of them, after one turn at least
_TIE = 1.05  # a way replaces an earlier one only if it is this many times as fast


def choose_computing(
    cfg: DictConfig, network: Network, plan: Plan, classes: int, world: World, precision: Precision
) -> Precision:
    """The fastest precision and layout of those that the configuration leaves open, the same on every rank.

    A measurement holds for the model with any attention block, so that all arms of a study that differ in it compute
    alike: the first to be measured decides. A resumed run computes as it began.
    """
    ways, reason = ways_to_compute(precision, cfg.trainer.precision, cfg.trainer.layout), "as the options say"
    if cfg.resume and (run := find(Path(cfg.paths.outputs), cfg.resume)).computing.exists():
        ways, reason = [as_before(run.read(run.computing, stored), precision)], "as the run began"
    if cfg.check:
        return ways[0]
    number, why = 0, f"{ways[0].name} {ways[0].layout}: {reason}"
    if world.leads and len(ways) > 1:
        batch = (plan.batch_size // world.size, network.in_channels, *plan.patch)
        about = {"model": plain(cfg.model), "classes": classes}
        cache = Path(cfg.paths.cache)
        try:
            with one_at_a_time(cache):
                number, why = fastest(ways, network, batch, cache / "computing.json", about)
        except OSError as error:  # a cache that may only be read, or a neighbour that measures long
            why = f"{ways[0].name} {ways[0].layout}: the measurement cannot be stored in {cache} ({error})"
    number, why = from_leader((number, why))
    log.info("  computes in %s", why)
    return ways[number]


def stored(text: str) -> dict[str, str]:
    """``precision`` and ``layout`` of the text of ``computing.json``."""
    content = json.loads(text)
    return {key: str(content[key]) for key in ("precision", "layout")}


def as_before(computed: Mapping[str, str], precision: Precision) -> Precision:
    """How a run computed that left what ``stored`` gives; its half precision becomes what this device has."""
    dtype = None if computed["precision"] == "fp32" else precision.dtype
    return replace(precision, dtype=dtype, layout=computed["layout"])


def ways_to_compute(chosen: Precision, precision: str, layout: str) -> list[Precision]:
    """What the options leave open, the usual way first.

    Args:
        chosen: device and data type, as ``choose_precision`` gives them.
        precision: as it was asked for; with both on auto, float32 is open beside a processor's bfloat16, which PyTorch
            computes slowly in 2-D (pytorch issue 183815).
        layout: auto, contiguous or channels_last.
    """
    if layout != "auto":
        return [replace(chosen, layout=layout)]
    ways = [chosen]
    if chosen.device.type == "cpu" and chosen.dtype and precision == "auto":
        ways.append(replace(chosen, dtype=None))
    layouts = ["contiguous"] if chosen.device.type == "mps" else ["contiguous", "channels_last"]  # not tried on mps
    return [replace(way, layout=layout) for way in ways for layout in layouts]


def fastest(
    ways: Sequence[Precision], network: nn.Module, batch: Sequence[int], kept: Path, about: Mapping[str, object]
) -> tuple[int, str]:
    """The fastest of ``ways``: measured in a few passes, or as it was measured before.

    Args:
        ways: the usual one first, which wins a tie.
        network: is left as it is.
        batch: shape (B, C, *S) of a step's images; a processor is measured with two of them.
        kept: the JSON file of all measurements; made anew where it is damaged.
        about: what a measurement holds for, besides machine and batch.

    Returns:
        Its number, and why, in a line.
    """
    names = [f"{way.name} {way.layout}" for way in ways]
    holds_for = {"machine": machine(ways[0].device), "batch": list(batch), "ways": names, **about}
    key = digest(holds_for)[:16]
    known: dict[str, dict[str, object]] = {}
    with suppress(OSError, ValueError, TypeError):  # none yet, or damaged
        known = {**json.loads(kept.read_text("utf-8"))}
    seconds = known[key].get("seconds") if isinstance(known.get(key), dict) else None
    if not (isinstance(seconds, list) and len(seconds) == len(ways) and all(isinstance(s, float) for s in seconds)):
        seconds = _measured(ways, network, batch)
        atomic_write(kept, json.dumps(known | {key: holds_for | {"seconds": seconds}}, indent=1))
    best = next(number for number, value in enumerate(seconds) if value <= _TIE * min(seconds))
    others = ", ".join(f"{names[n]} {value:.2g}" for n, value in enumerate(seconds) if n != best)
    return best, f"{names[best]}: {seconds[best]:.2g} s forward and backward; {others}"


def laid_out(network: nn.Module, way: Precision) -> nn.Module:
    """``network``, on its device and with its kernels in the layout of ``way``; changed in place."""
    network.to(way.device)
    for weight in network.parameters():
        if way.layout == "channels_last" and weight.ndim in _CHANNELS_LAST:
            weight.data = weight.data.to(memory_format=_CHANNELS_LAST[weight.ndim])
    return network


def _measured(ways: Sequence[Precision], network: nn.Module, batch: Sequence[int]) -> list[float]:
    """Seconds of forward and backward in each way, the least of several turns; the random state stays as it is."""
    device = ways[0].device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        networks = [laid_out(copy.deepcopy(network), way).train() for way in ways]
        size = min(2, batch[0]) if device.type == "cpu" else batch[0]  # one alone has no deviation for a batch norm
        images = torch.randn([size, *batch[1:]], device=device)
        _pass(networks[0], images, ways[0])  # the first of all pays for threads and memory
        seconds = [float("inf")] * len(ways)
        begin = time.perf_counter()
        for turn in range(_TURNS):
            if turn and time.perf_counter() - begin > _SECONDS:
                break
            for number, way in enumerate(ways):
                seconds[number] = min(seconds[number], _pass(networks[number], images, way))
    return seconds


def _pass(network: nn.Module, images: Tensor, way: Precision) -> float:
    _wait(way)
    begin = time.perf_counter()
    with way.autocast():
        logits = network(images)
    sum(level.float().square().mean() for level in (logits if isinstance(logits, list) else [logits])).backward()
    network.zero_grad()
    _wait(way)
    return time.perf_counter() - begin


def _wait(way: Precision) -> None:
    if way.device.type == "cuda":
        torch.cuda.synchronize(way.device)
