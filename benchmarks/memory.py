"""Resident memory of training on, and of predicting, 256×256×256 voxels in eight classes."""

import json
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
import psutil
from hydra import compose, initialize_config_dir

from seg.config.options import CONF
from seg.engine.allocator import keep_freed_memory

SIDE, CLASSES, STEPS = 256, 8, 6


@contextmanager
def peak(what: str) -> Iterator[None]:
    """Prints the highest proportional set size of the process tree while the context is open."""
    ended, highest = threading.Event(), [0]

    def watch() -> None:
        while not ended.is_set():
            total = 0
            for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
                try:
                    total += process.memory_full_info().pss
                except psutil.Error:
                    continue
            highest[0] = max(highest[0], total)
            time.sleep(0.05)

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    yield
    ended.set()
    watcher.join()
    print(f"{what}: peak {highest[0] / 2**30:.2f} GiB, {time.perf_counter() - start:.1f} s")


def write_cases(root: Path) -> None:
    """Three noisy volumes with seven boxes; ``dataset.json`` beside them."""
    rng = np.random.default_rng(0)
    training = []
    for number in range(3):
        label = np.zeros((SIDE,) * 3, np.uint8)
        for k in range(1, CLASSES):
            x, y, z = rng.integers(0, SIDE - 64, 3)
            label[x : x + 64, y : y + 64, z : z + 64] = k
        image = (100 * label + rng.normal(500, 60, label.shape)).astype(np.int16)
        for folder, array in (("imagesTr", image), ("labelsTr", label)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(array, np.eye(4)), root / folder / f"case_{number}.nii.gz")
        training.append({"image": f"./imagesTr/case_{number}.nii.gz", "label": f"./labelsTr/case_{number}.nii.gz"})
    labels = {str(k): f"box {k}" if k else "background" for k in range(CLASSES)}
    content = {"name": "boxes", "modality": {"0": "CT"}, "labels": labels, "training": training}
    (root / "dataset.json").write_text(json.dumps(content))


def main() -> None:
    keep_freed_memory()
    from seg.engine.batches import training_batches
    from seg.engine.build import build_run
    from seg.engine.cases import prepare_cases, read_material
    from seg.engine.decision import decide
    from seg.engine.device import choose_device, choose_precision
    from seg.engine.distributed import World
    from seg.engine.inference import on_grid
    from seg.engine.loop import Hooks, Settings, fit
    from seg.engine.progress import Budget

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "boxes"
        write_cases(root)
        overrides = ["data=folder", f"data.root={root}", f"paths.outputs={folder}", "data.fold=all", "tracking=none"]
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose("train", overrides=[*overrides, "data.test_fraction=0.34"])
        with peak("check and prepare"):
            material = read_material(cfg)
            store = prepare_cases(cfg, material)
        precision = choose_precision("auto", choose_device("auto"))
        built = build_run(cfg, material, World(), precision)
        hooks = Hooks(None, lambda *_: None, lambda _: False, lambda _: None, lambda: False)
        settings = Settings(precision, material.plan.batch_size, 1, 12.0, 1, 1)
        print(f"patch {material.plan.patch}, batch {material.plan.batch_size}, {precision.name}")
        with peak(f"{STEPS} training steps"):
            fit(
                built.training,
                Budget(STEPS, None, STEPS),
                training_batches(cfg, built, store, World()),
                built.loss,
                settings,
                hooks,
            )
        prepared = store[material.split.test[0]]
        with peak("prediction of one volume"):
            slices = built.predict(built.training.network, np.asarray(prepared.image))
            decide(on_grid(slices, prepared.geometry), prepared.geometry)


if __name__ == "__main__":
    main()
