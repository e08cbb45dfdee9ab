"""``mlflow models serve``, by the real command: what it answers is what the network predicts."""

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from seg.deploy import Predictor
from seg.records.folder import find
from seg.records.mlflow import Mlflow

pytestmark = [pytest.mark.slow, pytest.mark.network]


@pytest.fixture(scope="module")
def address(whole: tuple[Path, Any], phantom_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a server of the run's network, registered as ``organs@champion``, that may read the phantom's images."""
    outputs, result = whole
    store = Mlflow(None, outputs)
    (model,) = [one for one in store.client.search_logged_models(["1"]) if one.source_run_id == result.run_id]
    store.client.create_registered_model("organs")
    store.client.create_model_version("organs", model.artifact_location, result.run_id, model_id=model.model_id)
    store.client.set_registered_model_alias("organs", "champion", "1")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    arguments = ["-m", "models:/organs@champion", "--env-manager", "local", "--port", str(port)]
    env = os.environ | {
        "MLFLOW_TRACKING_URI": store.uri,
        "SEG_SERVE_FOLDER": str(phantom_root / "imagesTr"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",  # where uvicorn is
    }
    log = tmp_path_factory.mktemp("served") / "log.txt"
    with log.open("w") as written:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "models", "serve", *arguments],
            env=env,
            cwd=log.parent,
            stdout=written,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        until = time.monotonic() + 300
        while not answers(f"http://127.0.0.1:{port}/ping"):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/invocations"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        store.client.delete_registered_model("organs")


def answers(place: str) -> bool:
    with suppress(OSError):
        return bool(urlopen(place, timeout=5).status == 200)
    return False


def asked(address: str, content: bytes, kind: str = "application/json") -> tuple[int, str]:
    try:
        with urlopen(Request(address, content, {"Content-Type": kind}), timeout=60) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as refused:
        return refused.code, refused.read().decode()


def rows(*images: object) -> bytes:
    return json.dumps({"dataframe_records": [{"image": image} for image in images]}).encode()


def test_masks_are_those_of_the_predictor_whether_sent_or_named(
    address: str, whole: tuple[Path, Any], phantom_root: Path, tmp_path: Path
) -> None:
    outputs, result = whole
    scan = phantom_root / "imagesTr" / "phantom_000.nii.gz"
    expected = Predictor.load(find(outputs, result.run_id).run)(scan)
    expected.save(tmp_path / "mask.nii.gz")
    status, text = asked(address, rows(base64.b64encode(scan.read_bytes()).decode(), scan.name))
    assert status == 200, text
    sent, named = json.loads(text)["predictions"]
    assert base64.b64decode(sent["mask"]) == (tmp_path / "mask.nii.gz").read_bytes()
    assert sent == named
    assert sent["volumes_ml"] == pytest.approx(expected.volumes_ml)
    assert sent["findings"] == [finding.text for finding in expected.findings]
    assert sent["risk"] == expected.risk
    table = f"image\n{scan.name}\n".encode()
    assert json.loads(asked(address, table, "text/csv")[1])["predictions"] == [named]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"dataframe_records": 3}',
        json.dumps({"dataframe_records": [{"picture": "x"}]}).encode(),
        rows("nonsense"),
        rows(""),
        rows(None),
        rows(base64.b64encode(b"nothing").decode()),
        rows("../labelsTr/phantom_000.nii.gz"),
        rows("/etc/passwd"),
        rows("gone.nii.gz"),
        rows("no\x00name.nii.gz"),
        rows(f"{'long' * 2000}.nii.gz"),
    ],
)
def test_nonsense_is_refused_in_words(address: str, content: bytes, phantom_root: Path) -> None:
    status, text = asked(address, content)
    assert 400 <= status < 500, text
    assert "Traceback" not in text
    assert str(phantom_root) not in text
    assert str(Path(__file__).parents[2]) not in text


def test_a_header_cannot_lead_to_a_file_elsewhere(
    whole: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.exceptions import MlflowException
    from pandas import DataFrame

    from seg.deploy.served import Served

    outputs, result = whole
    Predictor.load(find(outputs, result.run_id).run).store(tmp_path / "package")
    folder = tmp_path / "incoming"
    folder.mkdir()
    (folder / "scan.nhdr").write_text("NRRD0004\ntype: uchar\ndimension: 3\nsizes: 9 9 9\ndata file: voxels.raw\n\n")
    (tmp_path / "secret").write_bytes(bytes(range(256)) * 3)
    (folder / "voxels.raw").symlink_to(tmp_path / "secret")
    monkeypatch.setenv("SEG_SERVE_FOLDER", str(folder))
    served = Served()
    served.load_context(SimpleNamespace(artifacts={"package": str(tmp_path / "package")}, model_config=None))
    with pytest.raises(MlflowException, match="names a file out of the server's folder"):
        served.predict(None, DataFrame({"image": ["scan.nhdr"]}))
