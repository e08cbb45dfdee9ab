"""Milliseconds a sample on one thread: the patch with each augmentation of conf/augmentation, and what adds to it.

    python -m benchmarks.augmentation

CPU time of this process, so that other work on the machine does not count; its memory is kept as in a training run.
"""

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from seg.data.augmentation import Augmentation
from seg.data.sampling import Patches
from seg.engine.allocator import keep_freed_memory

VOLUME, PATCH = (96, 96, 96), (48, 64, 48)
SAMPLES = 300


def patches(augment: object) -> Patches:
    rng = np.random.default_rng(0)
    label = (rng.random(VOLUME) > 0.95).astype(np.uint8)
    case = SimpleNamespace(
        case="a",
        image=rng.standard_normal((1, *VOLUME), dtype=np.float32),
        label=label,
        foreground={1: np.argwhere(label)[:10_000]},
    )
    return Patches({"a": case}, ["a"], patch=PATCH, dims=3, slice_axis=2, foreground=0.33, seed=0, augment=augment)


def milliseconds(call: Callable[[int], object]) -> float:
    for index in range(10):
        call(index)
    start = time.process_time()
    for index in range(SAMPLES):
        call(index)
    return (time.process_time() - start) / SAMPLES * 1000


def main() -> None:
    keep_freed_memory()
    torch.set_num_threads(1)
    bare = milliseconds(patches(None).__getitem__)
    for path in sorted((Path(__file__).parent.parent / "conf" / "augmentation").glob("*.yaml")):
        cfg = OmegaConf.to_container(OmegaConf.load(path))
        transforms = [instantiate(node) for node in cfg["transforms"]]
        taken = milliseconds(patches(Augmentation(transforms, cfg["mirror_axes"])).__getitem__)
        print(f"{path.stem:8} {taken:6.2f} ms")
        for number, node in enumerate(cfg["transforms"]):
            taken = milliseconds(patches(Augmentation([transforms[number]])).__getitem__) - bare
            print(f"    + {taken:6.2f} ms  {node['_target_'].split('.')[-1]}")


if __name__ == "__main__":
    main()
