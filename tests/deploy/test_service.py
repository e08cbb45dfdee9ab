"""The service over HTTP, by a server in a thread: what it takes, what it refuses, and what it leaves behind."""

import gzip
import http.client
import json
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seg import serve
from seg.config.command import read
from seg.config.options import CONF
from seg.data.nifti import write_volume
from seg.data.volumes import read_header, read_label
from seg.deploy import Predictor
from seg.deploy.incoming import Incoming
from seg.deploy.jobs import Job, Jobs
from seg.deploy.service import service
from seg.errors import ConfigError


@dataclass
class Service:
    """A service that is running, and someone who asks it."""

    port: int
    folder: Path
    log: Path
    token: str = ""

    def ask(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, Any, http.client.HTTPMessage]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        given = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        connection.request(method, path, body, given | {name.replace("_", "-"): text for name, text in headers.items()})
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        json_ = answer.headers.get_content_type() == "application/json"
        return answer.status, json.loads(content) if json_ else content, answer.headers

    def send(self, scan: bytes, query: str = "") -> str:
        status, job, _ = self.ask("POST", f"/jobs{query}", scan)
        assert status == 202, job
        return str(job["id"])

    def job(self, name: str) -> dict[str, Any]:
        return dict(self.ask("GET", f"/jobs/{name}")[1])

    def until(self, name: str, *states: str) -> dict[str, Any]:
        pause = threading.Event()
        for _ in range(1500):
            if (job := self.job(name))["status"] in states:
                return job
            pause.wait(0.02)
        raise AssertionError(f"still {job}")

    @property
    def files(self) -> list[Path]:
        return [Path(folder, name) for folder, _, names in os.walk(self.folder) for name in names]


Start = Callable[..., Any]


@pytest.fixture(scope="module")
def network(whole: tuple[Path, Any]) -> Predictor:
    return Predictor.load(whole[0] / "runs" / whole[1].predictions.name)


@pytest.fixture
def start(network: Predictor, tmp_path: Path) -> Start:
    """Starts a service of the run's network; ``gate`` holds its jobs back until it is set."""
    own = network
    import uvicorn

    @contextmanager
    def started(
        *,
        network: Predictor = own,
        work: Callable[[Job], Any] | None = None,
        gate: threading.Event | None = None,
        token: str = "",
        max_mb: float = 10,
        **limits: Any,
    ) -> Iterator[Service]:
        incoming = Incoming([network], tmp_path / "log", max_voxels=1e6)

        def held_back(job: Job) -> dict[str, Any]:
            while gate and not gate.wait(0.02):
                job.note(0.5)
            return incoming(job)

        (folder := tmp_path / "jobs").mkdir(exist_ok=True)
        jobs = Jobs(work or held_back, folder, **{"queue": 4, "keep": 50, "keep_seconds": 3600.0} | limits)
        config = uvicorn.Config(
            service(incoming, jobs, token=token, max_mb=max_mb),
            port=0,
            http="h11",
            lifespan="off",
            log_config=None,
            access_log=False,
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive()
            yield Service(server.servers[0].sockets[0].getsockname()[1], folder, tmp_path / "log", token)
        finally:
            server.should_exit = True
            thread.join()
            jobs.stop()
        assert [*folder.iterdir()] == []

    return started


@pytest.fixture
def image(whole: tuple[Path, Any], phantom_root: Path) -> Path:
    """One of the run's own test images."""
    return phantom_root / "imagesTr" / min(mask.name for mask in whole[1].predictions.glob("*.nii.gz"))


def test_a_scan_becomes_the_mask_that_the_run_made_of_it(
    start: Start, image: Path, whole: tuple[Path, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with start() as there:
        name = there.send(image.read_bytes(), "?view=true")
        job = there.until(name, "finished")
        status, mask, headers = there.ask("GET", f"/jobs/{name}/mask")
        assert (status, mask) == (200, (whole[1].predictions / image.name).read_bytes())
        assert 'filename="mask.nii.gz"' in headers["content-disposition"]
        view = there.ask("GET", f"/jobs/{name}/view")[1]
        assert view["about"]["shape"] == list(read_header(image).shape)
        assert sorted(path.name for path in there.files) == sorted([f"{name}.nii.gz", "view.json"])
        (row,) = json.loads((there.log / "report.json").read_text())["scans"]
    (tmp_path / "mask.nii.gz").write_bytes(mask)
    voxel_ml = float(np.prod(read_header(image).spacing_mm)) / 1000
    found = read_label(tmp_path / "mask.nii.gz")
    assert job["result"]["volumes_ml"]["lobe"] == pytest.approx(float((found == 1).sum()) * voxel_ml)
    for key in ("volumes_ml", "findings", "risk", "expected_dice", "stages"):
        assert row[key] == job["result"][key]
    assert row["case"] == name
    assert image.name.removesuffix(".nii.gz") not in caplog.text + json.dumps(row)


def test_what_cannot_be_right_is_refused_at_once(start: Start, image: Path, tmp_path: Path) -> None:
    scan = image.read_bytes()
    raw = gzip.decompress(scan)
    two = tmp_path / "two.nii.gz"
    write_volume(two, np.zeros((4, 4, 4, 2), np.float32), np.eye(4))
    large = tmp_path / "large.nii"
    write_volume(large, np.zeros((128, 128, 64), np.uint8), np.eye(4))
    bomb = gzip.compress(raw + bytes(10**8))
    cases = [
        (b"", "", 400, "empty"),
        (b"no scan", "", 400, "not a readable NIfTI"),
        (scan[: len(scan) // 2], "", 400, "cut off or damaged"),
        (two.read_bytes(), "", 400, "2 channels. The network takes 1"),
        (large.read_bytes(), "", 400, "voxels. The service takes up to"),
        (bomb, "", 400, "more in it than its header says"),
        (bytes(2_000_001), "", 413, "larger than 2 MB"),
        (scan, "?sizes=7", 400, "sizes does not fit"),
        (scan, "?sizes=x", 400, "sizes does not fit"),
        (scan, "?ending=.exe", 400, "must be one of .nii.gz"),
        (scan, "?view=perhaps", 400, "view"),
    ]
    with start(max_mb=2) as there:
        for body, query, status, words in cases:
            answered, said, _ = there.ask("POST", f"/jobs{query}", body)
            assert (answered, words in said["error"]) == (status, True), said
            assert str(there.folder) not in said["error"]
            assert there.files == []
        for path, status in (
            ("/jobs/unknown", 404),
            ("/jobs/unknown/mask", 404),
            ("/jobs/..%2f..%2fx", 404),
            ("/x", 404),
        ):
            answered, said, _ = there.ask("GET", path)
            assert (answered, [*said]) == (status, ["error"])
        assert there.until(there.send(scan), "finished")


def test_a_scan_may_have_a_file_for_each_channel(start: Start, image: Path, network: Predictor) -> None:
    first = image.read_bytes()
    second = gzip.compress(gzip.decompress(first), 1)
    both = first + second
    found = []

    def work(job: Job) -> dict[str, Any]:
        found.extend(path.read_bytes() for path in job.images)
        return {}

    two = replace(network, package=replace(network.package, channels=("T1", "T2")))
    with start(network=two, work=work) as there:
        there.until(there.send(both, f"?sizes={len(first)},{len(second)}"), "finished")
        assert found == [first, second]
        for body, sizes in ((both, f"{len(first)}"), (both, f"{len(first)},1"), (both, "1,1,1")):
            assert there.ask("POST", f"/jobs?sizes={sizes}", body)[0] == 400
        assert "1 channel. The network takes 2 (T1, T2)" in there.ask("POST", "/jobs", first)[1]["error"]
        assert there.files == []


def test_a_bad_scan_fails_alone_and_says_why(start: Start, image: Path, tmp_path: Path) -> None:
    flat = tmp_path / "flat.nii"
    write_volume(flat, np.ones((20, 20, 20), np.float32), np.eye(4))
    with start() as there:
        job = there.until(there.send(flat.read_bytes(), "?ending=.nii"), "failed")
        assert job["error"].startswith("scan.nii: every voxel of a channel has the same value")
        answered, said, _ = there.ask("GET", f"/jobs/{job['id']}/mask")
        assert (answered, job["error"] in said["error"]) == (409, True)
        there.until(there.send(image.read_bytes()), "finished")
        rows = json.loads((there.log / "report.json").read_text())["scans"]
    assert sorted(row["status"] for row in rows) == ["failed", "finished"]


def test_an_error_that_nobody_foresaw_ends_a_job_and_nothing_else(start: Start, image: Path) -> None:
    with start(work=lambda job: 1 // 0) as there:
        job = there.until(there.send(image.read_bytes()), "failed")
        assert "ZeroDivisionError" in job["error"]
        assert there.ask("GET", "/ready")[0] == 200


def test_the_queue_has_an_end_and_each_job_a_place_in_it(start: Start, image: Path) -> None:
    gate, scan = threading.Event(), image.read_bytes()
    with start(gate=gate, queue=2) as there:
        first = there.send(scan)
        there.until(first, "running")
        second, third = there.send(scan), there.send(scan)
        assert [there.job(name)["ahead"] for name in (first, second, third)] == [0, 1, 2]
        status, said, headers = there.ask("POST", "/jobs", scan)
        assert (status, "full" in said["error"]) == (429, True)
        assert int(headers["retry-after"]) >= 1
        assert there.ask("GET", f"/jobs/{second}/mask")[0] == 409
        assert there.ask("DELETE", f"/jobs/{second}")[1]["status"] == "cancelled"  # of those that wait
        there.ask("DELETE", f"/jobs/{first}")  # and the one that runs
        there.until(first, "cancelled")
        gate.set()
        assert there.until(third, "finished")["progress"] == 1
        assert there.job(second)["status"] == "cancelled"
        assert [path.parent.name for path in there.files] == [third]


def test_a_job_is_cancelled_between_two_passes_of_the_network(start: Start, image: Path, network: Predictor) -> None:
    begun, go = threading.Event(), threading.Event()

    def predict(net: Any, scan: np.ndarray, *, axis: int | None = None) -> Any:
        begun.set()
        go.wait(30)
        return network.predict(net, scan, axis=axis)

    with start(network=replace(network, predict=predict)) as there:
        name = there.send(image.read_bytes())
        assert begun.wait(30)
        there.ask("DELETE", f"/jobs/{name}")
        go.set()
        there.until(name, "cancelled")
        assert there.files == []
        assert not (there.log / "report.json").exists()


def test_results_are_kept_for_a_while_and_go_at_once_when_told(start: Start, image: Path) -> None:
    scan = image.read_bytes()
    with start(keep=1) as there:
        first = there.send(scan)
        there.until(first, "finished")
        second = there.send(scan)
        there.until(second, "finished")
        assert there.ask("GET", f"/jobs/{first}")[0] == 404
        assert there.ask("DELETE", f"/jobs/{second}")[1]["status"] == "removed"
        assert there.ask("GET", f"/jobs/{second}/mask")[0] == 404
        assert there.files == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_service_that_takes_no_more_scans_says_so(start: Start, image: Path) -> None:
    pause = threading.Event()
    with start(work=lambda job: sys.exit()) as there:  # which ends the thread of the jobs
        there.send(image.read_bytes())
        for _ in range(1500):
            if there.ask("GET", "/ready")[0] == 503:
                break
            pause.wait(0.02)
        status, said, _ = there.ask("POST", "/jobs", image.read_bytes())
        assert (status, "is stopping" in said["error"]) == (503, True)


def served(outputs: Path, *arguments: str) -> None:
    text = (CONF / "serve.yaml").read_text() + "paths:\n  outputs: outputs\n  cache: cache\n"
    serve.main(read(text, [f"paths.outputs={outputs}", "run=a", "port=0", *arguments]))


def test_many_networks_have_a_log_of_a_short_name(
    network: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seg.serve._answer", lambda *_: None)
    for count in (1, 30):
        monkeypatch.setattr("seg.deploy.choice.networks", lambda _, count=count: [network] * count)
        served(tmp_path)
    one, many = sorted((path.name for path in (tmp_path / "served").iterdir()), key=len)
    assert one == network.package.origin["run_id"][:12]
    assert many.startswith("30_networks_")


@pytest.mark.parametrize("value", ["inf", "nan", "0"])
def test_a_limit_is_a_number(tmp_path: Path, value: str) -> None:
    with pytest.raises(ConfigError, match=f"max_mb is {value}; it must be a number above 0"):
        served(tmp_path, f"max_mb={value}")


def test_an_upload_that_breaks_off_leaves_nothing_and_frees_its_place(start: Start, image: Path) -> None:
    scan = image.read_bytes()
    with start(queue=1) as there:
        connection = http.client.HTTPConnection("127.0.0.1", there.port, timeout=30)
        connection.putrequest("POST", "/jobs")
        connection.putheader("Content-Length", str(len(scan)))
        connection.endheaders(scan[: len(scan) // 2])
        while not there.files:
            pass
        assert there.ask("POST", "/jobs", scan)[0] == 429  # its place is taken
        connection.close()
        while there.files:
            pass
        there.until(there.send(scan), "finished")


def test_only_who_may_ask_is_answered(start: Start, image: Path) -> None:
    with start(token="a-token-of-the-test") as there:
        assert there.ask("GET", "/network", Host="scans.example")[0] == 200
        for wrong in ("", "another", "a-token-of-the-tesT", "ä"):
            status, said, headers = there.ask("GET", "/network", Authorization=f"Bearer {wrong}")
            assert (status, headers["www-authenticate"], "token" in said["error"]) == (401, "Bearer", True)
        assert there.ask("POST", "/jobs", image.read_bytes(), Authorization="")[0] == 401
        assert there.files == []
        for path in ("/", "/health", "/ready"):
            assert there.ask("GET", path, Authorization="")[0] == 200
    with start() as there:
        for host in ("scans.example", "127.0.0.1.example", "[", ""):  # names that an attacker may give this machine
            assert there.ask("GET", "/network", Host=host)[0] == 403
        for host in ("localhost", f"localhost:{there.port}", "[::1]:80"):
            assert there.ask("GET", "/network", Host=host)[0] == 200
        assert there.ask("GET", "/network", Origin="http://scans.example")[0] == 403
        status, _, headers = there.ask("GET", "/")
        assert (headers["x-frame-options"], headers["x-content-type-options"]) == ("DENY", "nosniff")
        assert "access-control-allow-origin" not in headers
