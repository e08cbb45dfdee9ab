"""A team's registry: an MLflow server with PostgreSQL behind it, and what two do there at once."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from postgres import serving

from seg.deploy import Predictor
from seg.deploy.card import Facts
from seg.deploy.registry import fetched
from seg.deploy.versions import register, state
from seg.errors import DataError
from seg.records.folder import find
from seg.records.mlflow import Mlflow

pytestmark = [pytest.mark.slow, pytest.mark.network]

PROMOTE = """
import sys, time
from pathlib import Path
from seg.deploy import versions
from seg.errors import SegError
from seg.records.mlflow import Mlflow

uri, outputs, number, alias, start = sys.argv[1:]
store = Mlflow(uri, Path(outputs))
read = versions.state
def waiting(*arguments):
    known = read(*arguments)  # both have read before either writes
    Path(start, alias).touch()
    while len(list(Path(start).iterdir())) < 2:
        time.sleep(0.01)
    return known
versions.state = waiting
try:
    print(versions.promote(store, f"organs/{number}", "champion", who=alias, require="none", margin=0.01, why="")[0])
except SegError as error:
    print("refused:", error)
"""


@contextmanager
def mlflow_server(folder: Path, database: str) -> Iterator[str]:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    arguments = ["--host", "127.0.0.1", "--port", str(port), "--workers", "2", "--backend-store-uri", database]
    arguments += ["--artifacts-destination", str(folder / "artifacts")]
    with (folder / "log.txt").open("w") as log:
        command = [sys.executable, "-m", "mlflow", "server", *arguments]
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)
    try:
        until = time.monotonic() + 300
        while not answers(f"http://127.0.0.1:{port}/health"):
            assert process.poll() is None, (folder / "log.txt").read_text()
            assert time.monotonic() < until, (folder / "log.txt").read_text()
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def answers(place: str) -> bool:
    with suppress(OSError):
        return bool(urlopen(place, timeout=5).status == 200)
    return False


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def address(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of an MLflow server that keeps artifacts and gives them over HTTP."""
    folder = tmp_path_factory.mktemp("server")
    if request.param == "sqlite":
        with mlflow_server(folder, f"sqlite:///{folder / 'server.db'}") as at:
            yield at
    else:
        with serving() as postgres, mlflow_server(folder, postgres.database("mlflow")) as at:
            yield at


def test_a_team_registers_downloads_once_and_of_two_promotions_at_once_one_wins(
    address: str, tiny: Any, phantom_root: Path, tmp_path: Path
) -> None:
    store = Mlflow(address, tmp_path)
    runs = [
        find(tmp_path, tiny("tracking=mlflow", f"tracking.uri={address}", f"seed={seed}").run_id) for seed in (0, 1)
    ]
    for run in runs:
        assert not run.is_pending
        register(store, run, "organs", Facts("Ada", "", "", "no", "pending", ""))
    began = tmp_path / "began"
    began.mkdir()
    people = {
        who: subprocess.Popen(
            [sys.executable, "-c", PROMOTE, address, str(tmp_path), number, who, str(began)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for who, number in (("Ada", "1"), ("Bob", "2"))
    }
    said = {who: process.communicate(timeout=300)[0].strip() for who, process in people.items()}
    (winner,) = [who for who in said if "is champion" in said[who]]
    (loser,) = {*said} - {winner}
    assert "changed at the same time" in said[loser]
    assert winner in said[loser]
    known = state(store, "organs")
    assert [(entry.action, entry.who) for entry in known.history.entries[2:]] == [("promoted", winner)]
    assert not known.history.faults
    assert known.aliases == {"champion": {"Ada": "1", "Bob": "2"}[winner]}

    elsewhere = tmp_path / "elsewhere"
    place = fetched("organs@champion", outputs=elsewhere, uri=address)
    assert place.is_relative_to(elsewhere)
    run = runs[int(known.aliases["champion"]) - 1]
    scan = phantom_root / "imagesTr" / "phantom_000.nii.gz"
    assert (Predictor.load(place)(scan).mask == Predictor.load(run.run)(scan).mask).all()
    weights = place / "weights.safetensors"
    written = weights.stat().st_mtime_ns
    assert fetched("organs@champion", outputs=elsewhere, uri=address) == place
    assert weights.stat().st_mtime_ns == written, "downloaded once"
    weights.write_bytes(weights.read_bytes()[:-1])
    fetched("organs@champion", outputs=elsewhere, uri=address)
    Predictor.load(place)  # a damaged copy was downloaded again

    store.client.create_registered_model("theirs")
    source = store.client.get_run(run.run_id).info.artifact_uri
    store.client.create_model_version("theirs", f"{source}/data", run.run_id)
    with pytest.raises(DataError, match="not made by seg"):
        fetched("theirs/1", outputs=elsewhere, uri=address)
