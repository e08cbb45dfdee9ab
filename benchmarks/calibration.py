"""What the reliability tables of a test add to its cases: seconds of one core, in turn with and without them.

``python -m benchmarks.calibration [root of Task04_Hippocampus]``: a phantom of 64³ and, if given, six real cases; the
default network, untrained. A case is predicted, decided and scored, which is what a test does but for files.
"""

import os
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import median

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from seg.data.preprocess import Geometry
from seg.data.volumes import read_image, read_label
from seg.engine.calibration import Reliability
from seg.engine.decision import decide
from seg.engine.inference import Windows, on_grid, predict_slices
from seg.metrics import score_case
from seg.models import unet

REPEATS = 9
NAMES = ("background", "one", "other")


def tested(network: torch.nn.Module, image: np.ndarray, label: np.ndarray, kept: bool) -> None:
    shape = label.shape
    geometry = Geometry(
        tuple(map(tuple, np.eye(4))), shape, (1.0,) * 3, tuple((0, n) for n in shape), shape, (1.0,) * 3
    )
    slices = on_grid(predict_slices(network, image, windows=Windows((48, 64, 48))), geometry)
    reliability = Reliability(label, geometry, slices.axis, len(NAMES))
    decided = decide(slices, geometry, reliability.add if kept else None)
    if kept:
        reliability.rows("case", NAMES)
    score_case(decided.indices, label, NAMES, (1.0, 1.0, 1.0), 1.0)


def volumes() -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(0)
    label = np.zeros((64, 64, 64), np.uint8)
    label[20:40, 20:40, 20:40], label[40:50, 20:40, 20:40] = 1, 2
    yield "phantom 64³", (rng.normal(size=label.shape) + label)[None].astype(np.float32), label
    for root in sys.argv[1:]:
        for path in sorted((Path(root) / "labelsTr").glob("*.nii.gz"))[:6]:
            image, _ = read_image((Path(root) / "imagesTr" / path.name,))
            yield (
                path.name,
                ((image - image.mean()) / image.std()).astype(np.float32),
                read_label(path).astype(np.uint8),
            )


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    network = unet(1, len(NAMES), 3).eval()
    ratios = []
    for name, image, label in volumes():
        seconds: dict[bool, list[float]] = {False: [], True: []}
        for repeat in range(2 * REPEATS):
            work = partial(tested, network, image, label, kept := bool(repeat % 2))
            begin = time.process_time()
            work()
            seconds[kept].append(time.process_time() - begin)
        without, with_them = median(seconds[False]), median(seconds[True])
        ratios.append(with_them / without)
        print(f"{name} {label.shape}: {without:.3f} s a case without, {with_them:.3f} with: {with_them / without:.3f}")
    print(f"median {median(ratios):.3f}")


if __name__ == "__main__":
    main()
