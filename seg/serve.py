"""``python -m seg.serve run=…``: a page and a service that takes scans one after the other and gives their masks."""

import math
import os
import re
import secrets
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from seg.config.command import verb
from seg.errors import ConfigError, SegError, few, together
from seg.signals import heard

if TYPE_CHECKING:
    from starlette.types import ASGIApp

_LIMITS = ("queue", "max_mb", "max_voxels", "keep", "keep_hours")
_SHORTEST = 16  # characters of a token
_LONGEST = 200  # characters of a folder's name
_CONNECTIONS = 256  # at a time; each holds up to 64 KiB
_CLOSING_SECONDS = 5  # for answers that are on their way when the service stops


def main(cfg: DictConfig) -> None:
    """Answers until SIGINT or SIGTERM; then cancels what runs or waits, and removes every scan and mask.

    Raises:
        ConfigError: it is not clear which network, the address cannot be had, the token is short, or a limit is none.
        DataError: a network cannot be used.
    """
    wrong = [f"{key} is {cfg[key]}; it must be a number above 0." for key in _LIMITS if not 0 < cfg[key] < math.inf]
    if not isinstance(cfg.port, int) or cfg.port not in range(65536):
        wrong.append(f"port is {cfg.port}; it must be a whole number up to 65535.")
    if not (cfg.run or cfg.package or cfg.model or cfg.study):
        wrong.append("Give a network: model=hippocampus@champion, package=model.zip, run=a1b2c3d4, or study=… arm=….")
    together(ConfigError, wrong)

    from seg.deploy.choice import networks
    from seg.deploy.incoming import Incoming
    from seg.deploy.jobs import Jobs
    from seg.deploy.service import is_loopback, service
    from seg.engine.console import log_to
    from seg.files import digest, private_folder

    log_to()
    token = _token(cfg.token or os.environ.get("SEG_TOKEN", ""), needed=not is_loopback(cfg.host))
    with _listening(cfg.host, cfg.port) as place:
        members = networks(cfg)
        name = "+".join((one.package.id or one.package.origin["run_id"])[:12] for one in members)
        name = name if len(name) <= _LONGEST else f"{len(members)}_networks_{digest(name)[:12]}"
        folder = Path(cfg.log) if cfg.log else Path(cfg.paths.outputs) / "served" / name
        private_folder(folder)
        with _alone(folder), _emptied(folder / "jobs") as files:
            incoming = Incoming(members, folder, max_voxels=cfg.max_voxels)
            jobs = Jobs(incoming, files, queue=cfg.queue, keep=cfg.keep, keep_seconds=3600 * cfg.keep_hours)
            try:
                _answer(service(incoming, jobs, token=token, max_mb=cfg.max_mb), place, token)
            finally:
                jobs.stop()


def _token(given: str, *, needed: bool) -> str:
    if given and (len(given) < _SHORTEST or not given.isascii()):
        raise ConfigError(
            f"The token has {len(given)} characters. It needs {_SHORTEST}, in ASCII. Without token= one is made."
        )
    return given or (secrets.token_urlsafe(24) if needed else "")


def _listening(host: str, port: int) -> socket.socket:
    """The address is taken before the network is loaded, which may take a while."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise ConfigError(
            f"host={host} port={port}: {error.strerror}. Choose an address of this machine and a free port."
        ) from None


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Held while the service is there, for two would write into each other's log."""
    from seg.records.folder import one_at_a_time

    with ExitStack() as held:
        try:
            held.enter_context(one_at_a_time(folder, wait_s=0.1))
        except PermissionError as error:
            why = "another service writes to it. Stop it" if "is locked" in str(error) else f"{error.strerror}. Make it"
            raise ConfigError(f"{folder} cannot be used: {why}, or set log to a folder of your own.") from None
        yield


@contextmanager
def _emptied(folder: Path) -> Iterator[Path]:
    """A private folder for scans and masks, of which nothing stays, even of a service that was killed.

    Raises:
        ConfigError: it holds what no service left there.
    """
    there = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    if strange := [name for name in there if not re.fullmatch(r"[0-9a-f]{32}", name)]:
        raise ConfigError(f"{folder} would be emptied, and holds {few(strange)}. Set log to another folder.")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _answer(app: "ASGIApp", place: socket.socket, token: str) -> None:
    """Until a signal. The server has a thread of its own: in the first one it would take the signals for itself."""
    import uvicorn

    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        log_level="warning",
        server_header=False,
        limit_concurrency=_CONNECTIONS,
        timeout_graceful_shutdown=_CLOSING_SECONDS,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([place],), name="http", daemon=True)

    def stop(signal: object) -> None:
        server.should_exit = True

    host, port = place.getsockname()[:2]
    host = socket.gethostname() if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    with heard(stop):
        thread.start()
        print(f"http://{host}:{port}/{f'#token={token}' if token else ''}", flush=True)
        thread.join()
    if not server.should_exit:
        raise SegError("The server ended by itself. The lines above say why.")


run = verb("serve", main, lists=("run", "package", "model"))

if __name__ == "__main__":
    run()
