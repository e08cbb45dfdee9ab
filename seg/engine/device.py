"""Which device computes, in which precision, and what memory it takes."""

import platform
import re
import sys
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from seg.errors import ConfigError

_GROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Precision:
    """How the forward pass computes: ``dtype`` of autocast (None: plain float32), ``layout`` of kernels and maps."""

    device: torch.device
    dtype: torch.dtype | None
    layout: str = "contiguous"  # or channels_last

    def autocast(self) -> AbstractContextManager[object]:
        """The context of every forward pass; losses leave it for float32 by themselves."""
        return torch.autocast(self.device.type, self.dtype) if self.dtype else nullcontext()

    @property
    def name(self) -> str:
        """fp32, bf16 or fp16."""
        return {None: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}[self.dtype]


def choose_device(name: str, local_rank: int = 0, local_size: int = 1) -> torch.device:
    """The device called ``name`` (auto, cpu, cuda, mps); auto takes cuda, then mps, then cpu.

    Raises:
        ConfigError: that device is not there.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, present in there.items() if present)
    if not there.get(name):
        seen = ", ".join(kind for kind, present in there.items() if present)
        raise ConfigError(f"The device is {name}, and PyTorch sees {seen} here. Choose what is here, or auto.")
    if name == "cuda" and (needed := max(local_size, local_rank + 1)) > (count := torch.cuda.device_count()):
        raise ConfigError(
            f"{needed} processes of this machine need a GPU each, and there are {count}. "
            f"Start torchrun with --nproc_per_node={count}."
        )
    return torch.device(name, local_rank) if name == "cuda" else torch.device(name)


def choose_precision(name: str, device: torch.device) -> Precision:
    """The precision called ``name`` (auto, fp32, bf16, fp16) on ``device``.

    auto takes bf16 only if the hardware multiplies it natively (emulated, it is slower than float32), else fp16 with
    scaling on CUDA, else float32.

    Raises:
        ConfigError: the device cannot compute so.
    """
    if name == "fp16" and device.type != "cuda":
        raise ConfigError(f"trainer.precision is fp16, which needs CUDA; the device is {device.type}. Set it to auto.")
    if name == "bf16" and device.type == "mps":
        raise ConfigError("trainer.precision is bf16, which is untested on mps. Set it to auto.")
    if name == "auto":
        name = "bf16" if _has_bf16(device) else "fp16" if device.type == "cuda" else "fp32"
    return Precision(device, {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[name])


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu" and "AVX512" in torch.backends.cpu.get_cpu_capability():  # ATEN_CPU_CAPABILITY lowers it
        return any(flag in _cpuinfo() for flag in ("avx512_bf16", "amx_bf16"))
    return False


def machine(device: torch.device) -> str:
    """What decides how fast the device computes: its model, a processor's instructions and threads, PyTorch."""
    if device.type == "cuda":
        model = torch.cuda.get_device_name(device)
    else:
        named = re.search(r"model name\s*: (.+)", _cpuinfo())
        model = f"{named[1] if named else platform.processor()}, {torch.backends.cpu.get_cpu_capability()}"
        model += f", {torch.get_num_threads()} threads"
    return f"{model}, torch {torch.__version__}"


def _cpuinfo() -> str:
    file = Path("/proc/cpuinfo")
    return file.read_text("utf-8") if file.exists() else ""


def memory_mib(device: torch.device) -> float:
    """Memory held now: of the GPU at its peak on CUDA, else of this process (resident), in MiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return float(psutil.Process().memory_info().rss / 2**20)


def total_mib(device: torch.device) -> float:
    """Memory of the GPU on CUDA, else of this machine, or what the system lets this process have of it, in MiB."""
    if device.type == "cuda":
        return float(torch.cuda.get_device_properties(device).total_memory / 2**20)
    limits = [psutil.virtual_memory().total]
    for file in ("memory.max", "memory/memory.limit_in_bytes"):  # of a container or a queue: version 2, version 1
        with suppress(OSError, ValueError):
            limits.append(int((_GROUP / file).read_text("utf-8")))
    return float(min(limits) / 2**20)


def peak_mib() -> float:
    """The most memory that this process has held so far (resident), in MiB."""
    memory = psutil.Process().memory_info()
    if hasattr(memory, "peak_wset"):  # Windows
        return float(memory.peak_wset / 2**20)
    from resource import RUSAGE_SELF, getrusage

    return getrusage(RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
