"""MLflow servers that are there, die, or never answer."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.request import urlopen

import pytest
from outside import LONG, Home, environment, rows, short, until

pytestmark = [pytest.mark.slow, pytest.mark.network]


@contextmanager
def server(folder: Path, port: int) -> Iterator[str]:
    """An MLflow server that keeps its database in ``folder``."""
    arguments = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    arguments += ["--backend-store-uri", f"sqlite:///{folder / 'server.db'}"]
    arguments += ["--artifacts-destination", str(folder / "artifacts")]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", *arguments], env=environment({}), cwd=folder, **pipes
    )
    address = f"http://127.0.0.1:{port}"
    try:
        until(lambda: answers(address))
        yield address
    finally:
        import os
        import signal

        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def answers(address: str) -> bool:
    with suppress(OSError):
        return bool(urlopen(f"{address}/health", timeout=5).status == 200)
    return False


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def test_a_server_that_dies_costs_nothing_and_gets_all_by_sync(home: Home) -> None:
    from mlflow import MlflowClient

    port = free_port()
    with server(home.folder, port) as address:
        process = home.start(*LONG, f"tracking.uri={address}")
        until(lambda: list(home.outputs.glob("runs/*/checkpoints/last.pt")) or process.poll() is not None)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    (run,) = home.runs()
    assert json.loads((run / "summary.json").read_text())["status"] == "finished"
    assert "seg.sync" in said
    assert home.seg("sync", f"run={short(run)}").returncode == 2, "it is still away"
    with server(home.folder, port) as address:
        done = home.seg("sync", f"run={short(run)}")
        assert done.returncode == 0, done.stderr
        client, run_id = MlflowClient(address), (run / "run_id").read_text().strip()
        record = client.get_run(run_id)
        assert record.info.status == "FINISHED"
        steps = [point.step for point in client.get_metric_history(run_id, "val_dice")]
        assert steps == [int(row["step"]) for row in rows(run / "history.csv")]
        assert "test_dice" in record.data.metrics
        assert "data/cases.csv" in [file.path for file in client.list_artifacts(run_id, "data")]
        assert "Nothing" in home.seg("sync").stdout


def test_mlflow_s_own_variables_are_honoured(home: Home) -> None:
    from mlflow import MlflowClient

    with server(home.folder, free_port()) as address:
        done = home.train("trainer.max_epochs=1", MLFLOW_TRACKING_URI=address, MLFLOW_EXPERIMENT_NAME="mine")
        assert done.returncode == 0, done.stderr
        client = MlflowClient(address)
        (run,) = client.search_runs([client.get_experiment_by_name("mine").experiment_id])
        assert run.info.run_id == (home.runs()[0] / "run_id").read_text().strip()
    assert not (home.outputs / "mlflow.db").exists()


def test_a_server_that_never_answers_is_refused_without_its_password(home: Home) -> None:
    done = home.train(f"tracking.uri=http://me:secret@127.0.0.1:{free_port()}")
    assert done.returncode == 2, done.stderr
    assert "tracking" in done.stderr
    assert "secret" not in done.stderr + done.stdout
    assert not [path for path in home.folder.rglob("*") if path.is_file() and b"secret" in path.read_bytes()]
