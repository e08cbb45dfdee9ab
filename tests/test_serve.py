"""The command as a user starts it: with a page in a browser, under load, and until it is stopped."""

import http.client
import json
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from browser import headless

from seg.data.nifti import to_ras
from seg.data.volumes import read_header, read_label

pytestmark = [pytest.mark.slow, pytest.mark.network]

Start = Callable[..., Any]


@pytest.fixture
def start(whole: tuple[Path, Any], tmp_path: Path) -> Start:
    """Starts the command on the run; gives its process and its port, and stops it by SIGTERM."""
    outputs, result = whole

    @contextmanager
    def started(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
        command = [sys.executable, "-m", "seg.serve", f"run={result.run_id}", f"paths.outputs={outputs}", "port=0"]
        with (tmp_path / "stderr").open("w") as said:
            process = subprocess.Popen(
                [*command, f"log={tmp_path / 'log'}", *arguments], stdout=subprocess.PIPE, stderr=said, text=True
            )
        try:
            address = process.stdout.readline()
            assert address, (tmp_path / "stderr").read_text()
            yield process, int(re.findall(r":(\d+)/", address)[0])
            if process.poll() is None:
                process.terminate()
                assert process.wait(60) == 0, (tmp_path / "stderr").read_text()
                assert not (tmp_path / "log" / "jobs").exists()
        finally:
            process.kill()
            process.communicate()

    return started


@pytest.fixture
def images(whole: tuple[Path, Any], phantom_root: Path) -> list[Path]:
    """The run's own test images; what it made of each is in its predictions."""
    return [phantom_root / "imagesTr" / mask.name for mask in sorted(whole[1].predictions.glob("*.nii.gz"))]


def ask(port: int, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, json.loads(content) if answer.headers.get_content_type() == "application/json" else content


def ended(port: int, name: str) -> dict[str, Any]:
    while True:
        status, job = ask(port, "GET", f"/jobs/{name}")
        assert status == 200, job
        if job["status"] not in ("waiting", "running"):
            return dict(job)
        time.sleep(0.1)


# ------------------------------------------------------------------------------------------------ load


def accepted(port: int, body: Any) -> str:
    """The id of the job, once there was room for it."""
    while True:
        status, said = ask(port, "POST", "/jobs", body() if callable(body) else body)
        if status == 202:
            return str(said["id"])
        assert status == 429, said
        time.sleep(0.1)


def in_drops(scan: bytes) -> Iterator[bytes]:
    """As a slow client sends it, who does not say how much it will be."""
    for place in range(0, len(scan), 1 + len(scan) // 10):
        time.sleep(0.1)
        yield scan[place : place + 1 + len(scan) // 10]


def cut_off(port: int, scan: bytes) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    connection.putrequest("POST", "/jobs")
    connection.putheader("Content-Length", str(len(scan)))
    connection.endheaders(scan[: len(scan) // 2])
    time.sleep(0.2)
    connection.close()


def test_32_clients_lose_nothing_and_leave_nothing(
    start: Start, images: list[Path], whole: tuple[Path, Any], tmp_path: Path
) -> None:
    def client(number: int) -> str:
        image = images[number % len(images)]
        scan = image.read_bytes()
        match number % 4:
            case 0:
                cut_off(port, scan)
            case 1:
                status, said = ask(port, "POST", "/jobs", (bytes(65536) for _ in range(64)))  # no Content-Length
                assert (status, "error" in said) in ((413, True), (429, True)), said
            case 2:
                status, said = ask(port, "POST", "/jobs", b"no scan")
                assert (status, "error" in said) in ((400, True), (429, True)), said
        job = ended(port, accepted(port, (lambda: in_drops(scan)) if number % 4 == 3 else scan))
        mask = ask(port, "GET", f"/jobs/{job['id']}/mask")
        assert mask == (200, (whole[1].predictions / image.name).read_bytes())
        return str(job["status"])

    with start("queue=4", "max_mb=2") as (process, port):
        ended(port, accepted(port, images[0].read_bytes()))
        before = psutil.Process(process.pid).memory_info().rss
        with ThreadPoolExecutor(32) as pool:
            found = Counter(pool.map(client, range(32)))
        assert found == {"finished": 32}
        assert psutil.Process(process.pid).memory_info().rss - before < 200 * 2**20
        left = [path.name for path in (tmp_path / "log/jobs").rglob("*") if path.is_file()]
        assert Counter(name[32:] for name in left) == {".nii.gz": 33}  # the masks, and no scan
    rows = json.loads((tmp_path / "log/report.json").read_text())["scans"]
    assert Counter(row["status"] for row in rows) == {"finished": 33}
    said = (tmp_path / "stderr").read_text()
    assert "Traceback" not in said
    assert "phantom" not in said


def test_a_stop_cancels_what_runs_and_waits_and_a_killed_service_leaves_nothing_to_the_next(
    start: Start, images: list[Path], tmp_path: Path
) -> None:
    scan = images[0].read_bytes()
    with start("queue=9") as (_, port):
        names = [accepted(port, scan) for _ in range(9)]
        ended(port, names[0])
    said = (tmp_path / "stderr").read_text()
    assert len(re.findall(r"^job \w{32} (?:finished|cancelled)$", said, re.MULTILINE)) == 9
    with start() as (process, port):
        ended(port, accepted(port, scan))
        process.kill()
        process.wait()
    assert [*(tmp_path / "log/jobs").iterdir()]
    with start():
        assert [*(tmp_path / "log/jobs").iterdir()] == []


# ------------------------------------------------------------------------------------------------ the page


def covered(browser: Any) -> float:
    """The share of the axial slice that changes when the mask is painted."""
    script = (
        "document.querySelector(`#modes [value=${arguments[0]}]`).click();"
        "const canvas = document.querySelector('canvas');"
        "return [...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data]"
    )
    with_mask, without = (np.array(browser.execute_script(script, mode)) for mode in ("fill", "off"))
    return float((with_mask != without).reshape(-1, 4).any(1).mean())


def bars(browser: Any) -> list[tuple[float, float]]:
    """Of each slice shown: mm on the screen by its scale bar, and by the voxels that are shown."""
    script = (
        "const pen = CanvasRenderingContext2D.prototype, { fillRect, fillText } = pen, seen = [];"
        "pen.fillRect = function (...box) { seen.push([this.canvas.width / box[2]]); fillRect.apply(this, box); };"
        "pen.fillText = function (text, ...at) {"
        "  if (/mm$/.test(text)) seen.at(-1).push(parseFloat(text)); fillText.call(this, text, ...at); };"
        "paintAll();"
        "Object.assign(pen, { fillRect, fillText });"
        "return seen.map(([bars, mm], place) => {"
        "  const plane = shown.planes[place], [left, , right] = boxOf(plane);"
        "  return [bars * mm, (right - left) * plane.columnMm]; })"
    )
    return [(drawn, shown) for drawn, shown in browser.execute_script(script)]


def test_a_person_drops_a_scan_and_takes_its_mask(
    start: Start, images: list[Path], whole: tuple[Path, Any], tmp_path: Path
) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    made = whole[1].predictions / images[0].name
    mask = to_ras(read_label(made), read_header(made).affine)[0]
    with start("token=a-token-of-the-test") as (_, port), headless() as browser:

        def find(identity: str) -> Any:
            return browser.find_element(By.ID, identity)

        def until(identity: str) -> Any:
            WebDriverWait(browser, 60, 0.05).until(lambda _: find(identity).is_displayed())
            return find(identity)

        behavior = {"behavior": "allow", "downloadPath": str(tmp_path)}
        browser.execute_cdp_cmd("Browser.setDownloadBehavior", behavior)
        browser.get(f"http://127.0.0.1:{port}/")
        until("token").send_keys("a-wrong-token-of-the-test\n")
        assert "not the token" in until("failure").text
        browser.get(f"http://127.0.0.1:{port}/#token=a-token-of-the-test")
        until("files")
        assert "token" not in browser.current_url
        bad = tmp_path / "bad.nii.gz"
        bad.write_bytes(images[0].read_bytes()[:1000])
        find("files").send_keys(str(bad))
        assert "cut off or damaged" in until("failure").text
        find("files").send_keys(str(images[0]))
        until("tiles")
        assert not find("failure").is_displayed()
        assert find("found-name").text == images[0].name.removesuffix(".nii.gz")
        assert find("volumes").text.count(" ml") == 2
        assert find("risk").text.startswith("Risk: ")
        axial = int(browser.execute_script("return document.querySelector('#tiles input').value"))
        assert covered(browser) == pytest.approx(float((mask[:, :, axial] > 0).mean()), abs=0.02)
        whole_slices = bars(browser)
        browser.execute_script("for (const plane of shown.planes) plane.closeUp = [4, 6, 20, 22]")
        find("zoom").click()
        close_up = bars(browser)
        assert len(whole_slices) == len(close_up) == 3
        assert [drawn for drawn, _ in whole_slices + close_up] == pytest.approx(
            [shown for _, shown in whole_slices + close_up], rel=1e-6
        )
        find("download").click()
        target = tmp_path / f"{images[0].name.removesuffix('.nii.gz')}_mask.nii.gz"
        WebDriverWait(browser, 30).until(lambda _: target.exists() and target.stat().st_size)
        assert target.read_bytes() == made.read_bytes()
        browser.refresh()  # a page that is loaded again finds its job again
        until("tiles")
        find("remove").click()
        until("files")
        assert [*(tmp_path / "log/jobs").iterdir()] == []
        severe = [line["message"] for line in browser.get_log("browser") if line["level"] == "SEVERE"]
        assert [line for line in severe if "status of 40" not in line] == []
