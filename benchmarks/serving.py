"""What ``mlflow models serve`` adds to a prediction: a request less the same prediction in one process.

A tiny network on phantom scans: what is added does not depend on the network, but on the bytes that are sent.
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
from urllib.request import Request, urlopen

import numpy as np

from seg.data.nifti import write_volume
from seg.deploy import Predictor
from seg.deploy.logged import log_model
from seg.deploy.registry import opened
from seg.records.folder import claimed

REPEATS = 15


def main() -> None:
    with TemporaryDirectory() as place:
        outputs = Path(place) / "outputs"
        command = [sys.executable, "-m", "seg.train", "debug=fast", "data.cases.cases=12", f"paths.outputs={outputs}"]
        subprocess.run(command, check=True, capture_output=True)
        (run,) = claimed(outputs)
        begin = time.perf_counter()
        model = log_model(run).model_uri
        print(f"looking up a model that is logged: {time.perf_counter() - begin:.2f} s")
        scans = {f"{side}³": volume(Path(place) / "scans" / f"{side}.nii.gz", side) for side in (40, 128)}
        predictor = Predictor.load(run.run, device="cpu")
        with served(model, opened(outputs).uri, Path(place) / "scans") as address:
            for name, scan in scans.items():
                measured(name, scan, predictor, address, Path(place))


def volume(file: Path, side: int) -> Path:
    """Noise, which gzip cannot make smaller: the most bytes that a scan of that size may have."""
    file.parent.mkdir(exist_ok=True)
    write_volume(file, np.random.default_rng(0).integers(0, 4000, (side,) * 3, np.int16), np.eye(4))
    return file


def measured(name: str, scan: Path, predictor: Predictor, address: str, place: Path) -> None:
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
        f"{name}, {len(sent) / 2**20:.1f} MiB in base64: predicted and written in {own:.3f} s; added by the server "
        f"{added['sent']:.0f} ms where the bytes are sent, {added['named']:.0f} ms where the file is named",
        flush=True,
    )


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
