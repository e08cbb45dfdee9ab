"""The whole training loop against a bare forward, backward and step on one fixed batch, in turns within one process."""

import tempfile
import time
from pathlib import Path

from hydra import compose, initialize_config_dir

from benchmarks.data import options
from seg.config import CONF
from seg.engine.allocator import keep_freed_memory

ROUNDS, STEPS = 20, 10  # many short turns: the speed of a shared machine drifts from minute to minute


def main() -> None:
    keep_freed_memory()
    import numpy as np

    from seg.build import build_setup, training_batches
    from seg.engine.device import choose_device, choose_precision
    from seg.engine.distributed import World
    from seg.engine.loop import Budget, Hooks, Settings, fit
    from seg.material import prepare_cases, read_material

    with tempfile.TemporaryDirectory() as folder:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose("train", overrides=[*options(Path(folder)), "data.fold=all", "data.batch_size=4"])
        material = read_material(cfg)
        store = prepare_cases(cfg, material)
        device = choose_device("auto")
        precision = choose_precision("auto", device)
        setup = build_setup(cfg, material, store, World(), precision)
        training, batches = setup.training, training_batches(setup)
        hooks = Hooks(None, lambda *_: None, lambda _: False, lambda _: None, lambda: False)
        settings = Settings(precision, 4, 1, cfg.trainer.clip_norm, 1, 1)
        batch = next(batches)
        image, label = batch["image"].to(device), batch["label"].to(device)

        def bare() -> None:
            for _ in range(STEPS):
                with precision.autocast():
                    logits = training.network(image)
                setup.loss(logits, label).backward()
                training.optimizer.step()
                training.optimizer.zero_grad(set_to_none=True)

        def loop() -> None:
            fit(training, Budget(training.progress.step + STEPS, None, 10**9), batches, setup.loss, settings, hooks)

        bare(), loop()
        seconds = {"bare": [], "loop": []}
        for _ in range(ROUNDS):
            for name, work in (("bare", bare), ("loop", loop)):
                start = time.perf_counter()
                work()
                seconds[name].append(time.perf_counter() - start)
        speed = {name: 4 * STEPS / np.array(values) for name, values in seconds.items()}
        ratios = speed["loop"] / speed["bare"]
        print(f"{cfg.model._target_}, patch {material.plan.patch}, batch 4, {precision.name}, {device}")
        print(f"bare {np.median(speed['bare']):.2f}, loop {np.median(speed['loop']):.2f} samples a second")
        print(f"loop / bare: median {np.median(ratios):.3f} ({ratios.min():.3f} to {ratios.max():.3f})")


if __name__ == "__main__":
    main()
