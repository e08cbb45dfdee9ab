"""Energy drawn by the processor and the GPU, where the machine allows it to be read."""

from contextlib import suppress
from pathlib import Path

import torch

_RAPL = Path("/sys/class/powercap")  # Intel and AMD processors on Linux; readable by root, or where an admin allows it
_JOULES_PER_KWH = 3.6e6


def joules(device: torch.device) -> float | None:
    """Joules drawn since some fixed moment by this machine's processors and, on CUDA, by ``device``.

    The difference of two calls is what everything on this machine drew between them, other processes included. A
    processor's counter restarts after some hours at full load, which a negative difference shows.

    Returns:
        The sum of what can be read; None where nothing can.
    """
    values = []
    for counter in sorted(_RAPL.glob("*-rapl:[0-9]/energy_uj")):
        with suppress(OSError, ValueError):
            values.append(int(counter.read_text()) / 1e6)
    if device.type == "cuda":
        with suppress(ImportError, RuntimeError):
            import pynvml

            with suppress(pynvml.NVMLError):
                pynvml.nvmlInit()
                handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
                values.append(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3)
    return sum(values) if values else None


def kwh(before: float | None, after: float | None) -> float | None:
    """What was drawn between two calls of ``joules``, in kilowatt-hours."""
    if before is None or after is None or after < before:
        return None
    return (after - before) / _JOULES_PER_KWH
