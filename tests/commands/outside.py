"""The commands as a user runs them, in processes of their own. Nothing here, or in the tests beside it, imports seg."""

import csv
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

QUICK = (
    "debug=fast",
    "data.cases.cases=12",
    "model.channels=[8,16,32]",
    "model.strides=[2,2]",
    "data.folds=3",
    "trainer.precision=fp32",
    "trainer.layout=contiguous",
    "predictions.dpi=72",
)
"""A network of 36,000 parameters on twelve small volumes, for eight steps."""
LONG = ("trainer.max_epochs=30",)  # of four steps: long enough for something to happen midway


@dataclass(frozen=True)
class Home:
    """A working folder, with ``outputs`` in it as a user has it, and a cache that all of a session's share."""

    folder: Path
    shared: Path

    @property
    def outputs(self) -> Path:
        return self.folder / "outputs"

    def seg(self, verb: str, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        """Runs ``python -m seg.<verb>`` to its end."""
        settings: dict[str, Any] = {"cwd": self.folder, "env": environment(variables), "timeout": 300}
        return subprocess.run(command(verb, *arguments), capture_output=True, text=True, check=False, **settings)

    def train(self, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        """A quick training on the shared phantom."""
        return self.seg("train", *self.quick, *arguments, **variables)

    def start(self, *arguments: str, **variables: str) -> "subprocess.Popen[str]":
        """The same, not waited for."""
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        asked = command("train", *self.quick, *arguments)
        return subprocess.Popen(asked, cwd=self.folder, env=environment(variables), text=True, **pipes)

    @property
    def quick(self) -> list[str]:
        return [*QUICK, f"data.root={self.shared / 'phantom'}", f"paths.cache={self.shared / 'cache'}"]

    def runs(self) -> list[Path]:
        """The runs' own folders, oldest first."""
        found = self.outputs.glob("runs/run_*")
        return sorted(found, key=lambda run: (run / "run_id").stat().st_mtime_ns)

    def mlflow(self) -> Any:
        """A client of the database that a user's runs are in."""
        from mlflow import MlflowClient

        return MlflowClient(f"sqlite:///{self.outputs / 'mlflow.db'}")


def command(verb: str, *arguments: str) -> list[str]:
    options = [argument for argument in arguments if argument.startswith("-")]  # Hydra takes them first
    return [sys.executable, "-m", f"seg.{verb}", *options, *(word for word in arguments if word not in options)]


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"} | variables


def until(condition: Callable[[], Any], seconds: float = 180) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def short(run: Path) -> str:
    """What a user types for the run whose folder this is."""
    return run.name.removeprefix("run_")


def rows(table: Path) -> list[dict[str, str]]:
    with table.open(newline="") as file:
        return list(csv.DictReader(file))


def hashes(folder: Path) -> dict[str, str]:
    """The sha256 of every file, by its path in ``folder``."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest() for path in files}


def weights(run: Path) -> dict[str, Any]:
    import torch

    return dict(torch.load(run / "checkpoints" / "last.pt", weights_only=True)["network"])


def same_training(one: Path, other: Path) -> None:
    """Fails unless two runs ended with the same weights, numbers and scores, bit for bit."""
    import torch

    a, b = weights(one), weights(other)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)
    timed = ("epoch_seconds", "samples_per_second", "memory_mib")
    histories = [
        [{key: value for key, value in row.items() if key not in timed} for row in rows(run / "history.csv")]
        for run in (one, other)
    ]
    assert histories[0] == histories[1]
    tables = [(run / "data/cases.csv").read_text().replace(short(run), "id") for run in (one, other)]
    assert tables[0] == tables[1]
