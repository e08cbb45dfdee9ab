"""Prediction beside the network's own forward passes, and its peak memory.

``python -m benchmarks predict``: seconds a scan for a folder of small scans, and how many times those of the bare
forward passes of the same windows they are; then, each in a process of its own, the peak resident memory of reading,
predicting and writing one large scan, by networks of made-up weights as the default configuration builds them.
"""

import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import torch
from torch import Tensor, nn

SCANS, TURNS = 20, 5
RUNS = {
    "the recipe without shifts": ["experiments=hippocampus", "inference.shifts=false"],
    "the recipe": ["experiments=hippocampus"],
    "the default network": [],
}


class Large(NamedTuple):
    """A scan and the networks that predict it."""

    voxels: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    classes: int
    network_mm: tuple[float, float, float] | None = None  # None: as the scan
    networks: int = 1
    limit_gib: float | None = None


CT = ((512, 512, 300), (0.8, 0.8, 1.0))
LARGE = {
    "256³, 8 classes": Large((256, 256, 256), (1.0, 1.0, 1.0), 8, limit_gib=2),
    "256³, 8 classes, three networks": Large((256, 256, 256), (1.0, 1.0, 1.0), 8, networks=3),
    "512×512×300, 117 classes, resampled from 1.5 mm": Large(*CT, 117, (1.5, 1.5, 1.5), limit_gib=4),
    "512×512×300, 8 classes": Large(*CT, 8),
}


def made_up(large: Large, seed: int) -> Any:
    """A package as a training on such scans would make it, with the weights that its network begins with."""
    from hydra import compose, initialize_config_dir

    from seg.config.content import plain
    from seg.config.options import CONF
    from seg.data.fingerprint import CasePrint, Fingerprint, Intensity
    from seg.data.plan import make_plan
    from seg.deploy.package import Package
    from seg.engine.build import build_network, suited

    names = {f"structure {k}" if k else "background": k for k in range(large.classes)}
    values = Intensity(50.0, 100.0, tuple(np.linspace(-150, 250, 100).tolist()))
    voxels = dict.fromkeys(range(1, large.classes), 9000)
    case = CasePrint("a", "a", large.voxels, large.spacing_mm, "", "", voxels, (values,))
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", overrides=["data=folder", "data.root=.", "tracking=none"])
    prints = Fingerprint((case,) * 50, ("CT",), names)
    plan = make_plan(prints, ["CT"], dims=3, spacing=large.network_mm or "auto")
    torch.manual_seed(seed)
    network = build_network(cfg, plan, 1, large.classes)
    settings: dict[str, Any] = {key: plain(cfg)[key] for key in ("dims", "model", "attention", "inference")}
    settings["augmentation"] = {"mirror_axes": []}
    settings["data"] = {"patch_voxels": cfg.data.patch_voxels, "allow_shear": False}
    return Package(
        settings,
        names,
        ("CT",),
        suited(plan, network, automatic=True),
        {"precision": "bf16", "layout": "contiguous"},
        {"run_id": "0" * 32},
        ({"shape": large.voxels, "spacing_mm": large.spacing_mm, "volumes_ml": {}, "intensity": []},),
        {},
        network.state_dict(),
        {},
    )


def write(name: str, where: Path) -> None:
    """The packages and the scan, smooth noise in 16 bits: in a process of its own, whose memory does not count."""
    from scipy import ndimage

    large = LARGE[name]
    for seed in range(large.networks):
        made_up(large, seed).store(where / f"{seed}.zip")
    coarse = np.random.default_rng(0).normal(0, 300, [side // 8 + 1 for side in large.voxels]).astype(np.float32)
    voxels = ndimage.zoom(coarse, 8, order=1)[tuple(map(slice, large.voxels))].astype(np.int16)
    (where / "in").mkdir()
    nib.save(nib.Nifti1Image(voxels, np.diag([*large.spacing_mm, 1])), where / "in/scan.nii.gz")


def predict_one(where: Path) -> None:
    """Reads, predicts and writes the scan; prints the row of the report."""
    from seg.data.scans import scans
    from seg.deploy import Predictor
    from seg.deploy.worklist import predict_all

    members = [Predictor.load(path) for path in sorted(where.glob("*.zip"))]
    predict_all(members, scans(where / "in", 1), where / "out")
    (row,) = json.loads((where / "out/report.json").read_text("utf-8"))["scans"]
    print(json.dumps(row))


def memory() -> None:
    for name, large in LARGE.items():
        with tempfile.TemporaryDirectory() as where:
            in_process("write", name, where)
            row = json.loads(in_process("predict", where).splitlines()[-1])
        limit = f" (limit {large.limit_gib} GiB)" if large.limit_gib else ""
        stages = ", ".join(f"{stage} {seconds:.0f} s" for stage, seconds in row["stages"].items())
        print(f"{name}: {row['status']}, peak {row['peak_mb'] / 1024:.2f} GiB{limit}; {stages}", flush=True)


def in_process(*arguments: str) -> str:
    command = [sys.executable, "-m", "benchmarks.predict", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


class Recorded(nn.Module):
    """A network that keeps the windows that it is given."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.windows = network, list[Tensor]()

    def forward(self, windows: Tensor) -> Tensor:
        self.windows.append(windows.clone())
        logits: Tensor = self.network(windows)
        return logits


def speed() -> None:
    """Whole commands' work on a folder and the bare forward passes of the same windows, in turns."""
    for name, chosen in RUNS.items():
        with tempfile.TemporaryDirectory() as made:
            predictor, cases, where = trained(Path(made), chosen)
            turns = [one_turn(predictor, cases, where) for _ in range(TURNS + 1)][1:]  # the first warms up
        folder, bare = (median(column) / len(cases) for column in zip(*turns, strict=True))
        ratios = sorted(whole / forward for whole, forward in turns)
        print(
            f"{name}: {len(cases)} scans, {folder:.4f} s each, {bare:.4f} s the bare forward passes; ratio within each "
            f"turn {median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f}), aim 1.1",
            flush=True,
        )


def one_turn(predictor: Any, cases: list[Any], where: Path) -> tuple[float, float]:
    """Seconds of the folder, and of the bare forward passes."""
    from seg.deploy.predictor import predict_together
    from seg.deploy.worklist import predict_all

    recorded = dataclasses.replace(predictor, network=Recorded(predictor.network).eval())
    for case in cases:
        predict_together([recorded], *case.images)

    @torch.no_grad()
    def bare() -> None:
        for windows in recorded.network.windows:
            with predictor.precision.autocast():
                predictor.network(windows).float()

    return seconds(lambda: predict_all([predictor], cases, where, overwrite=True)), seconds(bare)


def seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def trained(folder: Path, chosen: list[str]) -> tuple[Any, list[Any], Path]:
    """A network after a short training, so that its masks are whole, SCANS scans, and a folder for their masks."""
    from hydra import compose, initialize_config_dir

    from benchmarks.data import options
    from seg.config.options import CONF
    from seg.data.cases import Case
    from seg.deploy import Predictor
    from seg.train import train

    few = [*chosen, "trainer.max_minutes=null", "trainer.max_steps=100", "inference.part=none"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", overrides=[*options(folder), *few])
    result = train(cfg, "predict")
    assert result is not None
    images = sorted((Path(cfg.data.root) / "imagesTr").glob("*.nii.gz"))[:SCANS]
    predictor = Predictor.load(folder / "runs" / result.predictions.name)
    return predictor, [Case(path.name.removesuffix(".nii.gz"), "", (path,), None) for path in images], folder / "masks"


def main() -> None:
    match sys.argv[1:]:
        case ["write", name, where]:
            write(name, Path(where))
        case ["predict", where]:
            predict_one(Path(where))
        case ["memory"]:
            memory()
        case ["speed"]:
            speed()
        case _:
            speed()
            memory()


if __name__ == "__main__":
    main()
