"""The compare page of twelve made-up runs on 60 phantoms of hippocampus size: its bytes, and seconds until it shows.

``python -m benchmarks.compare`` prints how long the page took to make, how large it is, and, for a fresh headless
Chromium, the seconds from asking for the file to its load event and until the first case is drawn, and how long
the next cases take. The masks of the runs are the reference with smooth errors at its surface.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
from omegaconf import OmegaConf
from scipy import ndimage

from seg.data.cases import CaseSet
from seg.data.classes import class_indices
from seg.data.fingerprint import fingerprint
from seg.data.phantom import phantom
from seg.data.volumes import read_header, read_label, write_label
from seg.files import atomic_write
from seg.metrics import score_case
from seg.records.folder import RunFolder, claim
from seg.records.journal import Journal
from seg.records.state import Process, State, write_state

CASES, RUNS, LOADS = 60, 12, 7


@dataclass(frozen=True)
class MadeUp:
    """A run to make up: its masks are off by about ``error_mm`` and lie ``bias_mm`` too far out."""

    run_id: str
    arm: str | None = None
    seed: int = 0
    fold: int = 0
    error_mm: float = 1.0
    bias_mm: float = 0.0
    uri: str | None = None
    kind: str = "none"
    study: str = "default"  # and name of its sweep


def make_up(outputs: Path, cases: CaseSet, run: MadeUp, ids: Sequence[str]) -> RunFolder:
    """Writes the folders of a finished run that was tested on the cases ``ids``."""
    folders = claim(outputs, run.run_id)
    name = f"unet-f{run.fold}-s{run.seed}"
    write_state(folders.run, State(run.kind, run.uri, f"{cases.name}/x", name, "FINISHED", Process.this()))
    tags = {
        "study": run.study,
        "sweep": run.study,
        "arm": run.arm or name,
        "seed": str(run.seed),
        "fold": str(run.fold),
    }
    Journal(folders.run).append({"tags": tags})
    root = cases.cases[0].images[0].parent.parent
    data = {"name": cases.name, "root": str(root), "cases": {"_target_": "seg.data.cases.folder"}, "fold": run.fold}
    cfg = {"data": data | {"patient": None}, "seed": run.seed, "arm": run.arm, "study": run.study}
    atomic_write(folders.run / "config/config.yaml", OmegaConf.to_yaml(OmegaConf.create(cfg)))
    atomic_write(folders.run / "data/fingerprint.json", fingerprint(cases, outputs / "cache").to_json())
    by_id = {case.id: case for case in cases.cases}
    rows: list[dict[str, Any]] = []
    for number, case in enumerate(by_id[name] for name in ids):
        assert case.label is not None
        spacing_mm = read_header(case.images[0]).spacing_mm
        label = class_indices(read_label(case.label), cases.values)
        pred = disturbed(label, spacing_mm, run, seed=[run.seed, int(run.run_id[:8], 16), number])
        write_label(folders.predictions / f"{case.id}.nii.gz", np.asarray(cases.values)[pred], like=case.images[0])
        about = {"run_id": folders.short, "case": case.id, "patient": case.patient}
        scores = score_case(pred, label, cases.names, spacing_mm, 1.0)
        rows += [about | score | {"nsd_tolerance_mm": 1.0} for score in scores]
    atomic_write(folders.run / "data/cases.csv", pd.DataFrame(rows).to_csv(index=False))
    return folders


def disturbed(label: np.ndarray, spacing_mm: Sequence[float], run: MadeUp, seed: Sequence[int]) -> np.ndarray:
    """The label (X, Y, Z) with its surfaces moved by smooth random distances."""
    rng = np.random.default_rng(seed)
    moved = np.zeros_like(label)
    for k in range(label.max(), 0, -1):
        depth = ndimage.distance_transform_edt(label == k, spacing_mm)
        depth = depth - ndimage.distance_transform_edt(label != k, spacing_mm)
        noise = ndimage.gaussian_filter(rng.normal(size=label.shape), 2 / np.asarray(spacing_mm))
        moved[depth + run.bias_mm + run.error_mm * (0.6 + rng.gamma(2, 0.2)) * noise / noise.std() > 0] = k
    return moved


def twelve(outputs: Path, cases: CaseSet) -> list[RunFolder]:
    """Four arms of three seeds each."""
    arms = {"baseline": 1.1, "se": 1.0, "cbam": 0.9, "cbam_warmup": 0.7}
    ids = [case.id for case in cases.cases]
    made = []
    for place, (arm, error_mm) in enumerate(arms.items()):
        for seed in range(RUNS // len(arms)):
            run = MadeUp(f"{place:x}{seed:x}" * 16, arm, seed, error_mm=error_mm, bias_mm=0.1 * (seed - 1))
            made.append(make_up(outputs, cases, run, ids))
    return made


def loads(path: Path) -> tuple[list[float], list[float], list[float]]:
    """Seconds to the load event, to the first case drawn, and from case to case, of a fresh browser each time."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or "chromium"
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    drawn = (
        "const done = arguments[arguments.length - 1], look = () => document.getElementById('case-name').textContent"
        " !== '' && now ? done(performance.now()) : requestAnimationFrame(look); look()"
    )
    step = (
        "const done = arguments[arguments.length - 1], from = performance.now(); now = null; stepCase(1);"
        "const look = () => now ? done(performance.now() - from) : requestAnimationFrame(look); look()"
    )
    seconds: tuple[list[float], list[float], list[float]] = ([], [], [])
    for _ in range(LOADS):
        browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
        try:
            browser.set_window_size(1280, 800)
            browser.get(path.as_uri())
            seconds[1].append(browser.execute_async_script(drawn) / 1000)
            loaded = "return performance.getEntriesByType('navigation')[0].loadEventEnd"
            seconds[0].append(browser.execute_script(loaded) / 1000)
            seconds[2].extend(browser.execute_async_script(step) / 1000 for _ in range(5))
        finally:
            browser.quit()
    return seconds


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        outputs = Path(folder)
        cases = phantom(outputs / "data/phantom", cases=CASES, seed=0)
        made = twelve(outputs, cases)
        for count in (2, RUNS):
            path = outputs / f"{count}.html"
            names = ",".join(run.run_id for run in made[:: RUNS // count])
            command = [
                sys.executable,
                "-m",
                "seg.compare",
                f"paths.outputs={outputs}",
                f"runs=[{names}]",
                f"file={path}",
            ]
            start = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            took = time.perf_counter() - start
            print(f"{count} runs, {CASES} cases: {path.stat().st_size / 1e6:.1f} MB, made in {took:.1f} s")
            for what, seconds in zip(("loaded", "first case drawn", "next case drawn"), loads(path), strict=True):
                print(f"  {what}: median {np.median(seconds):.2f} s, {min(seconds):.2f} to {max(seconds):.2f}")


if __name__ == "__main__":
    main()
