"""A PostgreSQL server of the tests' own."""

import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SECRET = "s3cr:t/@{x}"
WRITTEN = "s3cr%3At%2F%40{x}"  # as it stands in an address


class Server:
    """A PostgreSQL server in a folder of its own."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self.programs, self.folder = programs, folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"postgresql://seg:{WRITTEN}@127.0.0.1:{self.port}/postgres"
        (folder / "password").write_text(SECRET)
        self.as_user = []
        if os.getuid() == 0:  # PostgreSQL refuses to be root's
            user = pwd.getpwnam("postgres")
            for path in (folder, folder / "password"):
                os.chown(path, user.pw_uid, user.pw_gid)
            self.as_user = ["runuser", "-u", "postgres", "--"]
        password = ("-A", "scram-sha-256", "-U", "seg", f"--pwfile={folder / 'password'}")
        self.run("initdb", "-D", str(folder / "data"), *password, "--no-sync")
        self.start()

    def run(self, program: str, *arguments: str) -> None:
        command = [*self.as_user, str(self.programs / program), *arguments]
        with (self.folder / "log").open("a") as log:  # not a pipe: the server keeps it open
            done = subprocess.run(command, stdout=log, stderr=log, cwd=self.folder, timeout=300, check=False)
        assert done.returncode == 0, (self.folder / "log").read_text()

    def start(self) -> None:
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        self.run("pg_ctl", "-D", str(self.folder / "data"), "-w", "-t", "120", "-o", options, "start")

    def stop(self) -> None:
        self.run("pg_ctl", "-D", str(self.folder / "data"), "-w", "-m", "fast", "stop")

    def database(self, name: str) -> str:
        """The address of a new, empty database."""
        import psycopg

        with psycopg.connect(self.address, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.address.rsplit("/", 1)[0] + f"/{name}"


@contextmanager
def serving() -> Iterator[Server]:
    """A server that runs; skips the test where PostgreSQL is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")) or [
        Path(path) for path in [shutil.which("initdb")] if path
    ]
    if not found:
        pytest.skip("no PostgreSQL here: install Debian's package `postgresql` to run this test")
    folder = Path("/tmp") / f"seg_postgres_{os.getpid()}"  # pytest's own folders are closed to other users
    folder.mkdir()
    try:
        running = Server(found[-1].parent, folder)
        yield running
        running.stop()
    finally:
        shutil.rmtree(folder)
