"""Tiny trainings in this process: what they have in common, and how two of them are compared."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from composing import composed as as_hydra_does
from omegaconf import DictConfig

from seg.config.arguments import quoted
from seg.engine.run import Result

Runner = Callable[..., Result]
TINY = (
    "debug=fast",
    "tracking=none",
    "model.channels=[8,16,32]",
    "model.strides=[2,2]",
    "trainer.workers=0",
    "trainer.precision=fp32",  # auto measures for a second or two, and is another on another processor
    "trainer.layout=contiguous",
    "data.folds=3",
    "predictions.dpi=72",
)
WHOLE = ("trainer.ema=0.9", "tracking.every_steps=3")


def composed(*overrides: str) -> DictConfig:
    return as_hydra_does(*map(quoted, overrides))


def arguments(root: Path, outputs: Path, cache: Path) -> list[str]:
    return ["data=folder", f"data.root={root}", f"paths.outputs={outputs}", f"paths.cache={cache}"]


def where(outputs: Path, cache: Path) -> list[str]:
    return [f"paths.outputs={outputs}", f"paths.cache={cache}"]


def weights(outputs: Path, run_id: str) -> dict[str, torch.Tensor]:
    (path,) = outputs.glob(f"runs/run_{run_id[:8]}/checkpoints/last.pt")
    return dict(torch.load(path, weights_only=True)["network"])


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def history(outputs: Path, run: Result) -> pd.DataFrame:
    return pd.read_csv(outputs / f"runs/run_{run.run_id[:8]}/history.csv")


def series(outputs: Path, run: Result, metric: str) -> list[tuple[int, float]]:
    """What a run reported of ``metric``: steps and values."""
    record = (outputs / f"runs/run_{run.run_id[:8]}/record.jsonl").read_text()
    reports = map(json.loads, record.splitlines())
    return [(r["step"], r["metrics"][metric]) for r in reports if metric in r.get("metrics", ())]


def command(*overrides: str, **settings: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "seg.train", *overrides], capture_output=True, text=True, check=False, **settings
    )
