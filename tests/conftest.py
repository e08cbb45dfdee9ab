"""What the tests share: small data sets on disk, composed configurations, one finished run."""

import os
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from composing import quick
from killed import forking

# Tiny networks gain nothing from a second thread and lose much where the machine is busy. Before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
for variable in [name for name in os.environ if name.startswith("MLFLOW_")]:
    del os.environ[variable]  # of whoever runs the tests: his server is no place for their runs


@pytest.fixture(scope="session", autouse=True)
def quick_compositions() -> Iterator[None]:
    """Hundreds of tests compose the configuration."""
    with quick():
        yield


@pytest.fixture(scope="session", autouse=True)
def nothing_waits_for_the_disk() -> Iterator[None]:
    """No power fails in a test: a synchronised write takes milliseconds, a new database seconds of waiting."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    def off(connection: Any, _: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous=OFF")

    event.listen(Engine, "connect", off)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield
    event.remove(Engine, "connect", off)


@pytest.fixture(autouse=True)
def the_same_numbers() -> None:
    """What a test draws depends neither on the tests before it nor on the process that it runs in."""
    np.random.seed(0)  # for code that draws from it, as MONAI does
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="session")
def phantom_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small phantom in the Decathlon layout: 12 cases."""
    from seg.data.phantom import phantom

    root = tmp_path_factory.mktemp("data") / "phantom"
    phantom(root, cases=12, seed=0)
    return root


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared cases, shared by all trainings."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def tiny(phantom_root: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Trains, and draws no curves: those of one run are enough."""
    from training import TINY, arguments, composed

    from seg.train import train

    monkeypatch.setattr("seg.engine.results.curves", lambda *_: [])

    def run(*overrides: str, name: str = "tiny", outputs: Path = tmp_path) -> Any:
        result = train(composed(*TINY, *arguments(phantom_root, outputs, cache), *overrides), name)
        assert result is not None
        return result

    return run


@pytest.fixture(scope="session")
def whole(phantom_root: Path, tmp_path_factory: pytest.TempPathFactory, cache: Path) -> tuple[Path, Any]:
    """The outputs and the result of one run of two epochs with everything on, MLflow too.

    It is the one that resumed runs must end as. Its files are everybody's, to read.
    """
    from training import TINY, WHOLE, arguments, composed

    from seg.train import train

    outputs = tmp_path_factory.mktemp("outputs")
    overrides = [*TINY, *arguments(phantom_root, outputs, cache), *WHOLE]
    result = train(
        composed(*overrides, "tracking=mlflow", "+tracking.tags.scanner=3T"), "unet-f0-s0", options={"model": "unet"}
    )
    assert result is not None
    return outputs, result


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new ``mlflow.db``, to be copied into outputs: making one takes MLflow seconds."""
    from seg.records.mlflow import Mlflow

    outputs = tmp_path_factory.mktemp("mlflow")
    Mlflow(None, outputs, create=True)
    return outputs / "mlflow.db"


@pytest.fixture(scope="session")
def forked() -> Iterator[Callable[..., tuple[int, str]]]:
    """Runs code in a process of its own that may be killed; gives its exit code and what it printed."""
    with forking() as run:
        yield run


@pytest.fixture(scope="session")
def hippocampus_root() -> Path:
    """Task04_Hippocampus, from $SEG_HIPPOCAMPUS or from the folder `shared` beside the checkout."""
    root = Path(os.environ.get("SEG_HIPPOCAMPUS", "../shared/data/Task04_Hippocampus"))
    if not (root / "dataset.json").exists():
        pytest.skip("no Task04_Hippocampus here: set SEG_HIPPOCAMPUS to its folder to run this test on real MRI")
    return root.resolve()
