"""What ``mlflow models serve`` adds to a prediction: a request less the same prediction in one process.

A small network on a small scan, both with one thread, for a pool of threads is not as fast in a server's thread as in a
process's first. And a request of many bytes that are no scan: all that a server does with them but predict.
"""

import base64
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import torch

from seg.data.nifti import write_volume
from seg.deploy import Predictor
from seg.deploy.logged import log_model
from seg.deploy.registry import opened
from seg.records.folder import claimed

REPEATS = 15
os.environ["OMP_NUM_THREADS"] = "1"


def main() -> None:
    torch.set_num_threads(1)
    with TemporaryDirectory() as place:
        outputs = Path(place) / "outputs"
        command = [sys.executable, "-m", "seg.train", "debug=fast", "data.cases.cases=12", f"paths.outputs={outputs}"]
        subprocess.run(command, check=True, capture_output=True)
        (run,) = claimed(outputs)
        begin = time.perf_counter()
        model = log_model(run).model_uri
        print(f"looking up a model that is logged: {time.perf_counter() - begin:.2f} s")
        scan = volume(Path(place) / "scans" / "40.nii.gz", 40)
        predictor = Predictor.load(run.run, device="cpu")
        with served(model, opened(outputs).uri, Path(place) / "scans") as address:
            measured(scan, predictor, address, Path(place))
            for mib in (5, 50):
                refused(address, mib)


def volume(file: Path, side: int) -> Path:
    """Noise, which gzip cannot make smaller: the most bytes that a scan of that size may have."""
    file.parent.mkdir(exist_ok=True)
    write_volume(file, np.random.default_rng(0).integers(0, 4000, (side,) * 3, np.int16), np.eye(4))
    return file


def measured(scan: Path, predictor: Predictor, address: str, place: Path) -> None:
    sent = base64.b64encode(scan.read_bytes()).decode()
    seconds: dict[str, list[float]] = {"in one process": [], "sent": [], "named": []}
    for _ in range(REPEATS + 1):  # the first does not count
        begin = time.perf_counter()
        predictor(scan).save(place / "mask.nii.gz")
        seconds["in one process"].append(time.perf_counter() - begin)
        for how, cell in (("sent", sent), ("named", scan.name)):
            begin = time.perf_counter()
            asked(address, cell)
            seconds[how].append(time.perf_counter() - begin)
    own = median(seconds["in one process"][1:])
    added = {how: 1000 * (median(seconds[how][1:]) - own) for how in ("sent", "named")}
    print(
        f"40³, {len(sent) / 2**20:.1f} MiB in base64: predicted and written in {own:.3f} s; added by the server "
        f"{added['sent']:.0f} ms where the bytes are sent, {added['named']:.0f} ms where the file is named",
        flush=True,
    )


def refused(address: str, mib: int) -> None:
    cell = base64.b64encode(os.urandom(mib * 2**20 * 3 // 4)).decode()
    seconds = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        try:
            asked(address, cell)
        except HTTPError as error:
            error.read()
        seconds.append(time.perf_counter() - begin)
    print(f"{mib} MiB in base64 that are no scan: refused in {1000 * median(seconds):.0f} ms", flush=True)


def asked(address: str, cell: str) -> None:
    content = json.dumps({"dataframe_records": [{"image": cell}]}).encode()
    with urlopen(Request(address, content, {"Content-Type": "application/json"})) as answer:
        assert json.loads(answer.read())["predictions"][0]["mask"]


@contextmanager
def served(model: str, uri: str, scans: Path) -> Iterator[str]:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", model, "--env-manager", "local"]
    process = subprocess.Popen(
        [*command, "--port", str(port)],
        env=os.environ | {"MLFLOW_TRACKING_URI": uri, "SEG_SERVE_FOLDER": str(scans), "PATH": path},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        while True:
            with suppress(OSError):
                urlopen(f"http://127.0.0.1:{port}/ping", timeout=5)
                break
            assert process.poll() is None, "the server did not start"
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/invocations"
    finally:
        os.killpg(process.pid, 9)
        process.wait()


if __name__ == "__main__":
    main()
