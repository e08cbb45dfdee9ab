"""Trainings that are killed at a chosen write to the disk: each a fork of a process that has imported all it needs."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_FORKING = """
import json, os, re, signal, sys
sys.path.insert(0, sys.argv[1])
import torch, torch._dynamo
import seg.engine.run, seg.engine.build, seg.records.mlflow, mlflow, training
from seg.engine.resume import resumed
from seg.train import train

def watched(outputs, kill, points):
    seen = {}
    def hook(event, args):
        writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT
        place = {"open": 0, "os.rename": 1, "os.mkdir": 0, "os.remove": 0, "os.rmdir": 0}.get(event)
        if place is None or (event == "open" and not args[2] & writes) or isinstance(args[place], int):
            return
        path = os.fsdecode(args[place])
        if not path.startswith(outputs + "/"):
            return
        name = re.sub(r"run_[0-9a-f]{8,}", "run", path[len(outputs) + 1:])
        name = re.sub(r"[0-9a-f]{32}", "draft", re.sub(r"\\.[0-9a-f]{8}(?=[./]|$)", ".draft", name))
        name = re.sub(r"_Slice_[0-9]+|phantom_[0-9]+", "", name)
        seen[event, name] = seen.get((event, name), 0) + 1
        point = f"{event} {name} {seen[event, name]}"
        if points:
            print(point, file=points, flush=True)
        if point == kill:
            os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)

for line in sys.stdin:
    job = json.loads(line)
    if not (child := os.fork()):
        with open(job["log"], "a") as log:
            os.dup2(log.fileno(), 1), os.dup2(log.fileno(), 2)
        watched(job["outputs"], job["kill"], open(job["points"], "w") if job["points"] else None)
        cfg = training.composed(*job["overrides"])
        train(resumed(cfg, []) if cfg.resume else cfg, "tiny")
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Killer:
    """Runs trainings one after the other; what they print is added to the file ``log``."""

    def __init__(self, server: "subprocess.Popen[str]", log: Path) -> None:
        self._server, self.log = server, log

    def train(self, outputs: Path, *overrides: str, kill: str | None = None, points: Path | None = None) -> int:
        """The exit code of a training, -9 where it was killed before the write ``kill``; ``points`` gets all writes."""
        job: dict[str, Any] = {"outputs": str(outputs), "overrides": overrides, "kill": kill}
        job |= {"log": str(self.log), "points": points and str(points)}
        self._server.stdin.write(json.dumps(job) + "\n")
        self._server.stdin.flush()
        return int(self._server.stdout.readline())


@contextmanager
def killer(log: Path) -> Iterator[Killer]:
    command = [sys.executable, "-c", _FORKING, str(Path(__file__).parent)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        yield Killer(server, log)
        server.stdin.close()
