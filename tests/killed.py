"""Processes that begin a run and are killed: each a fork of one that has imported MLflow, which takes a second."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_FORKING = """
import json, os, sys
import seg.records.mlflow
import mlflow
for line in sys.stdin:
    code, arguments = json.loads(line)
    if not (child := os.fork()):
        sys.argv[1:] = arguments
        exec(code, {})
        os._exit(0)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(json.dumps(["ended", ended]), flush=True)
"""


@contextmanager
def forking() -> Iterator[Callable[..., tuple[int, str]]]:
    """A function that runs code in a process with some arguments; it gives the exit code and what was printed."""
    environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"}  # which would start a thread
    command = [sys.executable, "-c", _FORKING]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as server:

        def run(code: str, *arguments: object) -> tuple[int, str]:
            server.stdin.write(json.dumps([code, [str(argument) for argument in arguments]]) + "\n")
            server.stdin.flush()
            printed = []
            for line in server.stdout:
                if line.startswith('["ended"'):
                    return json.loads(line)[1], "".join(printed)
                printed.append(line)
            raise AssertionError("the process that forks has died")

        yield run
        server.stdin.close()
