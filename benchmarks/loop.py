"""Where a step's processor time goes: forward and backward, optimizer, and what the loop adds; for each optimizer.

``python -m benchmarks.loop [model …]``, the default network where none is named, with the default data and batch.
"""

import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np
from hydra import compose, initialize_config_dir

from seg.config.options import CONF
from seg.engine.allocator import keep_freed_memory

OPTIMIZERS = ("muon", "adamw")
TURNS, STEPS = 6, 10  # short turns one after the other: the speed of a shared machine drifts from minute to minute


def main() -> None:
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        for model in sys.argv[1:] or ["unet"]:
            for optimizer in OPTIMIZERS:
                measure(model, optimizer, folder)


def measure(model: str, optimizer: str, folder: str) -> None:
    from seg.engine.batches import training_batches
    from seg.engine.build import build_run
    from seg.engine.cases import prepare_cases, read_material
    from seg.engine.device import choose_device, choose_precision
    from seg.engine.distributed import World
    from seg.engine.loop import Hooks, Settings, fit
    from seg.engine.progress import Budget

    chosen = [f"model={model}", f"optimizer={optimizer}", f"paths.outputs={folder}", "tracking=none", "data.fold=all"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", overrides=chosen)
    material = read_material(cfg)
    store = prepare_cases(cfg, material)
    built = build_run(cfg, material, World(), choose_precision("auto", choose_device("auto")))
    training, plan, way = built.training, built.material.plan, built.precision
    batches = training_batches(cfg, built, store, World())
    hooks = Hooks(None, lambda *_: None, lambda _: False, lambda _: None, lambda: False)
    settings = Settings(way, plan.batch_size, 1, cfg.trainer.clip_norm, 1, 1)
    batch = next(batches)
    image, label = batch["image"].to(way.device), batch["label"].to(way.device)

    def forward_backward() -> None:
        training.optimizer.zero_grad(set_to_none=True)
        with way.autocast():
            logits = training.network(image)
        built.loss(logits, label).backward()

    def loop() -> None:
        fit(training, Budget(training.progress.step + STEPS, None, 10**9), batches, built.loss, settings, hooks)

    def bare() -> tuple[float, float]:
        """Processor seconds of forward and backward, and of the optimizer."""
        spent = [0.0, 0.0]
        for _ in range(STEPS):
            for part, work in enumerate((forward_backward, training.optimizer.step)):
                spent[part] += seconds(work)
        return spent[0], spent[1]

    bare(), loop()
    turns = np.array([(*bare(), seconds(loop)) for _ in range(TURNS)]) / STEPS
    (both, step, whole), ratio = np.median(turns, axis=0), turns[:, 2] / turns[:, :2].sum(axis=1)
    print(f"{model}, {optimizer}, batch {plan.batch_size} of {plan.patch}, {way.name} {way.layout}, {way.device}")
    print(
        f"  processor seconds a step: forward and backward {both:.3f}, optimizer {step:.3f}, the run's step {whole:.3f}"
    )
    print(f"  optimizer / forward and backward {step / both:.3f}")
    print(f"  run's step / both: median {np.median(ratio):.3f} ({ratio.min():.3f} to {ratio.max():.3f})", flush=True)


def seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


if __name__ == "__main__":
    main()
