"""Where a step's processor time goes: forward and backward, optimizer, and what the loop adds; for each optimizer.

``python -m benchmarks.loop [model …]``, the default network where none is named, with the default data and batch.
"""

import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np
from hydra import compose, initialize_config_dir

from seg.config import CONF
from seg.engine.allocator import keep_freed_memory

OPTIMIZERS = ("muon", "adamw")
TURNS, SECONDS = 8, 30  # short turns one after the other: the speed of a shared machine drifts from minute to minute


def main() -> None:
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        for model in sys.argv[1:] or ["unet"]:
            for optimizer in OPTIMIZERS:
                measure(model, optimizer, folder)


def measure(model: str, optimizer: str, folder: str) -> None:
    from seg.build import build_setup, training_batches
    from seg.engine.device import choose_device, choose_precision
    from seg.engine.distributed import World
    from seg.engine.loop import Budget, Hooks, Settings, fit
    from seg.material import prepare_cases, read_material

    chosen = [f"model={model}", f"optimizer={optimizer}", f"paths.outputs={folder}", "tracking=none", "data.fold=all"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", overrides=chosen)
    material = read_material(cfg)
    store = prepare_cases(cfg, material)
    setup = build_setup(cfg, material, store, World(), choose_precision("auto", choose_device("auto")))
    training, plan, way = setup.training, setup.material.plan, setup.precision
    batches = training_batches(setup)
    hooks = Hooks(None, lambda *_: None, lambda _: False, lambda _: None, lambda: False)
    settings = Settings(way, plan.batch_size, 1, cfg.trainer.clip_norm, 1, 1)
    batch = next(batches)
    image, label = batch["image"].to(way.device), batch["label"].to(way.device)

    def forward_backward() -> None:
        training.optimizer.zero_grad(set_to_none=True)
        with way.autocast():
            logits = training.network(image)
        setup.loss(logits, label).backward()

    def loop() -> None:
        fit(training, Budget(training.progress.step + 1, None, 10**9), batches, setup.loss, settings, hooks)

    works = {"forward and backward": forward_backward, "optimizer": training.optimizer.step, "loop": loop}
    seconds = in_turns(works)
    bare, step, whole = (float(np.median(seconds[name])) for name in works)
    ratio = np.array(seconds["loop"]) / (np.array(seconds["forward and backward"]) + np.array(seconds["optimizer"]))
    print(f"{model}, {optimizer}, batch {plan.batch_size} of {plan.patch}, {way.name} {way.layout}, {way.device}")
    print(
        f"  processor seconds a step: forward and backward {bare:.3f}, optimizer {step:.3f}, the run's step {whole:.3f}"
    )
    print(f"  optimizer / forward and backward {step / bare:.3f}; run's step / both {np.median(ratio):.3f}", flush=True)


def in_turns(works: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
    """Processor seconds of each of ``works``, called in turns; the first turn does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    begin = time.perf_counter()
    for turn in range(10 * TURNS):
        if turn > TURNS and time.perf_counter() - begin > SECONDS:
            break
        for name, work in works.items():
            start = time.process_time()
            work()
            if turn:
                seconds[name].append(time.process_time() - start)
    return seconds


if __name__ == "__main__":
    main()
