"""Memory of a training step of each network, beside what is counted before: ``seg.engine.memory.PEAK`` is from here.

Each is measured in a process of its own, in float32, on noise; Linux only.
"""

import re
import subprocess
import sys
from pathlib import Path

from seg.engine.allocator import keep_freed_memory

STEPS = (
    ("unet", 2, "64x64x64"),
    ("unet", 2, "96x96x96"),
    ("unet", 4, "256x256"),
    ("attention_unet", 2, "64x64x64"),
    ("unetpp", 1, "64x64x64"),
    ("segresnet", 1, "64x64x64"),
    ("dynunet", 1, "64x64x64"),
    ("swin_unetr", 1, "64x64x64"),
)
CLASSES = 3


def resident_mib(which: str) -> float:
    found = re.search(rf"{which}:\s*(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024 if found else float("nan")


def measured(name: str, batch: int, patch: list[int]) -> str:
    import torch
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    from seg.config.options import CONF
    from seg.losses import DeepSupervision, dice_ce
    from seg.models import parameter_count
    from seg.models.cost import kept_mib

    section = OmegaConf.to_container(OmegaConf.load(CONF / "model" / f"{name}.yaml"))
    if (strides := section.get("strides")) is not None:
        section["strides"] = [1, 2, 2, 2, 2] if strides == "auto" else [2 for _ in strides]
    network = instantiate(section, in_channels=1, out_channels=CLASSES, dims=len(patch), _convert_="all").train()
    kept, weights = batch * kept_mib(network, 1, patch), parameter_count(network) * 4 / 2**20
    loss, optimizer = DeepSupervision(dice_ce), torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)
    before = resident_mib("VmRSS")
    for _ in range(2):
        label = torch.randint(0, CLASSES, (batch, *patch))
        loss(network(torch.randn(batch, 1, *patch)), label).backward()
        optimizer.step()
        optimizer.zero_grad()
    step = resident_mib("VmHWM") - before - 3 * weights
    return f"{name}, {batch} of {patch}: kept {kept:.0f} MiB, a step {step:.0f}, ratio {step / kept:.2f}"


def main() -> None:
    if len(sys.argv) > 1:
        keep_freed_memory()
        print(measured(sys.argv[1], int(sys.argv[2]), [int(side) for side in sys.argv[3].split("x")]))
        return
    for name, batch, patch in STEPS:
        subprocess.run([sys.executable, "-m", "benchmarks.steps", name, str(batch), patch], check=True)


if __name__ == "__main__":
    main()
