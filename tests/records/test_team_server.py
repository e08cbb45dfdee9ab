"""A team's MLflow: on PostgreSQL, its files in an S3 store behind it, a user and a password for everybody."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psycopg
import pytest
from postgres import serving
from training import TINY

pytestmark = [pytest.mark.slow, pytest.mark.network]
ADMIN, SECRET = "admin", "a-long-password-1"
PASSWORDS = {ADMIN: SECRET, "ann": "anns-long-password", "bob": "bobs-long-password"}
KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
RESTORED = ("records_restored", "users_restored")
LONG = ("trainer.max_epochs=30",)


def until(condition: Callable[[], Any], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.2)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def process(*command: str, health: str, log: Path, **variables: str) -> Iterator[None]:
    """A server in a process group of its own, once it answers at ``health``."""

    def answers() -> bool:
        assert running.poll() is None, log.read_text()[-3000:]
        with suppress(OSError):
            return bool(urlopen(health, timeout=5).status == 200)
        return False

    with log.open("a") as file:
        running = subprocess.Popen(
            command, env=os.environ | variables, stdout=file, stderr=file, cwd=log.parent, start_new_session=True
        )
    try:
        until(answers)
        yield
    finally:
        with suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
        running.wait()


@dataclass
class Team:
    """PostgreSQL and an S3 store, and how the MLflow server between them and its users is started."""

    folder: Path
    databases: str  # address of PostgreSQL with MLflow's own user, without the name of a database
    store: str  # address of the S3 store
    port: int

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def server(self, records: str = "records", users: str = "users", bucket: str = "runs") -> Any:
        """``mlflow server`` as docs/team.md has it."""
        place = self.databases.replace("postgresql://", "postgresql+psycopg://")
        auth = self.folder / "auth.ini"
        auth.write_text(
            f"[mlflow]\ndefault_permission = NO_PERMISSIONS\ndatabase_uri = {place}/{users}\nadmin_username = {ADMIN}\n"
            "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\nauth_cache_ttl_seconds = 60\n"
        )
        arguments = ["--app-name", "basic-auth", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        arguments += ["--backend-store-uri", f"{place}/{records}"]
        arguments += ["--serve-artifacts", "--artifacts-destination", f"s3://{bucket}/mlflow"]
        settings = {"MLFLOW_AUTH_CONFIG_PATH": str(auth), "MLFLOW_AUTH_ADMIN_PASSWORD": SECRET}
        settings |= {"MLFLOW_FLASK_SERVER_SECRET_KEY": "k" * 40, "MLFLOW_S3_ENDPOINT_URL": self.store}
        settings |= {"MLFLOW_DISABLE_TELEMETRY": "true"} | KEYS
        command = [sys.executable, "-m", "mlflow", "server", *arguments]
        return process(*command, health=f"{self.address}/health", log=self.folder / "server.log", **settings)

    def ask(self, what: str, **content: str) -> None:
        """Asks the server as its administrator."""
        import requests

        answer = requests.post(f"{self.address}/api/{what}", json=content, auth=(ADMIN, SECRET), timeout=60)
        assert answer.ok, answer.text

    def s3(self) -> Any:
        import boto3

        keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
        return boto3.client("s3", endpoint_url=self.store, **keys)


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    for name, package in (("moto", "moto[s3]"), ("boto3", "boto3"), ("flask_wtf", "mlflow[auth]")):
        if not find_spec(name):
            pytest.skip(f"no {name} here: pip install '{package}' to run this test")
    folder, port = tmp_path_factory.mktemp("team"), free_port()
    store = f"http://127.0.0.1:{port}"
    moto = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with serving() as database, process(*moto, health=f"{store}/moto-api/", log=folder / "store.log"):
        new = [f"CREATE DATABASE {name} OWNER mlflow" for name in ("records", "users", *RESTORED)]
        with psycopg.connect(database.address, autocommit=True) as connection:
            for statement in (f"CREATE USER mlflow PASSWORD '{SECRET}'", *new):
                connection.execute(statement)
        team = Team(folder, f"postgresql://mlflow:{SECRET}@127.0.0.1:{database.port}", store, free_port())
        team.s3().create_bucket(Bucket="runs")
        with team.server():
            for user in ("ann", "bob"):
                team.ask("2.0/mlflow/users/create", username=user, password=PASSWORDS[user])
        yield team


@contextmanager
def as_user(name: str) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for key, value in login(name).items():
            patch.setenv(key, value)
        yield


def login(name: str, password: str | None = None) -> dict[str, str]:
    return {"MLFLOW_TRACKING_USERNAME": name, "MLFLOW_TRACKING_PASSWORD": password or PASSWORDS[name]}


@dataclass(frozen=True)
class Desk:
    """Where one user's commands run."""

    user: str
    folder: Path
    data: tuple[str, ...]

    def command(self, verb: str, *arguments: str) -> list[str]:
        new = verb == "train" and not arguments[0].startswith("resume=")
        quick = [word for word in (*TINY, *self.data) if word != "tracking=none"] if new else []
        return [sys.executable, "-m", f"seg.{verb}", *quick, *arguments]

    def seg(self, verb: str, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        settings: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 550}
        settings |= {"cwd": self.folder, "env": self.environment(variables)}
        return subprocess.run(self.command(verb, *arguments), check=False, **settings)

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        command = self.command("train", *arguments)
        return subprocess.Popen(command, cwd=self.folder, env=self.environment({}), text=True, **pipes)

    def environment(self, variables: Mapping[str, str]) -> dict[str, str]:
        patient = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "120"}  # where other tests keep the processors busy
        return os.environ | {"OMP_NUM_THREADS": "1"} | patient | login(self.user) | variables

    def runs(self) -> list[Path]:
        return sorted(self.folder.glob("outputs/runs/run_*"), key=lambda run: (run / "run_id").stat().st_mtime_ns)


@pytest.fixture
def ann(tmp_path: Path, phantom_root: Path, cache: Path) -> Desk:
    return desk("ann", tmp_path, phantom_root, cache)


@pytest.fixture
def bob(tmp_path: Path, phantom_root: Path, cache: Path) -> Desk:
    return desk("bob", tmp_path, phantom_root, cache)


def desk(user: str, place: Path, root: Path, cache: Path) -> Desk:
    folder = place / user
    folder.mkdir()
    return Desk(user, folder, ("data=folder", f"data.root={root}", f"paths.cache={cache}"))


def test_stopped_resumed_while_the_server_dies_and_sent_again(team: Team, ann: Desk) -> None:
    from mlflow import MlflowClient

    where = f"tracking.uri={team.address}"
    with team.server():
        process = ann.start(*LONG, where)
        until(lambda: list(ann.folder.glob("outputs/runs/*/checkpoints/last.pt")) or process.poll() is not None)
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=500)
        assert process.returncode == 1, said
        (run,) = ann.runs()
        run_id = (run / "run_id").read_text().strip()
        begun = len((run / "log.txt").read_text())
        process = ann.start(f"resume={run_id[:8]}")
        until(lambda: "step" in (run / "log.txt").read_text()[begun:] or process.poll() is not None)
    said, _ = process.communicate(timeout=500)
    assert process.returncode == 0, said
    assert "seg.sync" in said
    with team.server(), as_user("ann"):
        done = ann.seg("sync", "run=all")
        assert done.returncode == 0, done.stderr
        client = MlflowClient(team.address)
        record = client.get_run(run_id)
        assert record.info.status == "FINISHED"
        assert record.info.artifact_uri.startswith("mlflow-artifacts:/")
        assert "data/cases.csv" in [file.path for file in client.list_artifacts(run_id, "data")]
        table = ann.seg("runs", where)
        assert run_id[:8] in table.stdout
    stored = [found["Key"] for found in team.s3().list_objects_v2(Bucket="runs")["Contents"]]
    assert any(key.endswith(f"{run_id}/artifacts/data/cases.csv") for key in stored)


def test_a_wrong_password_is_one_sentence_without_it(team: Team, ann: Desk) -> None:
    with team.server():
        nobody = dict.fromkeys(login("ann"), "")
        tries = [
            (f"tracking.uri={team.address}", login("ann", "not-her-password")),
            (f"tracking.uri={team.address.replace('//', '//ann:not-her-password@')}", nobody),
            (f"tracking.uri={team.address}", nobody),
        ]
        for address, variables in tries:
            done = ann.seg("train", address, **variables)
            assert done.returncode == 2, done.stderr
            assert "does not accept this user and password" in done.stderr
            assert "MLFLOW_TRACKING_USERNAME" in done.stderr
            assert "not-her-password" not in done.stdout + done.stderr
            assert "Traceback" not in done.stderr
        address = team.address.replace("//", f"//ann:{PASSWORDS['ann']}@")
        found = ann.seg("runs", f"tracking.uri={address}", **nobody)
        assert found.returncode == 0 or "There is no run in" in found.stderr
    assert not ann.runs()


def test_who_may_not_write_is_told_and_who_died_stops_nobody(team: Team, ann: Desk, bob: Desk) -> None:
    from mlflow import MlflowClient

    where = f"tracking.uri={team.address}"
    with team.server():
        process = ann.start(*LONG, where, "tracking.experiment=anns")
        until(lambda: list(ann.folder.glob("outputs/runs/*/checkpoints/last.pt")) or process.poll() is not None)
        process.kill()  # her run says RUNNING from now on
        process.communicate()
        with as_user(ADMIN):
            experiment = MlflowClient(team.address).get_experiment_by_name("anns")
        number = experiment.experiment_id
        team.ask(
            "3.0/mlflow/users/permissions/grant",
            username="bob",
            resource_type="experiment",
            resource_id=number,
            permission="READ",
        )
        refused = bob.seg("train", where, "tracking.experiment=anns")
        assert refused.returncode == 2, refused.stderr
        assert "does not allow this to the user bob" in refused.stderr
        assert "Traceback" not in refused.stderr
        assert not bob.runs()
        done = bob.seg("train", where, "tracking.experiment=bobs")
        assert done.returncode == 0, done.stderr
        done = ann.seg("train", where, "tracking.experiment=anns")
        assert done.returncode == 0, done.stderr
        with as_user("ann"):
            client = MlflowClient(team.address)
            states = [run.info.status for run in client.search_runs([number])]
            assert sorted(states) == ["FINISHED", "KILLED"]


def test_a_backup_comes_back_whole(team: Team, ann: Desk) -> None:
    """By the commands of docs/team.md."""
    from mlflow import MlflowClient

    if not shutil.which("pg_dump"):
        pytest.skip("no pg_dump here: install Debian's package `postgresql-client` to run this test")
    with team.server():
        done = ann.seg("train", f"tracking.uri={team.address}", "tracking.experiment=kept")
        assert done.returncode == 0, done.stderr
    run_id = (ann.runs()[-1] / "run_id").read_text().strip()
    for name, fresh in zip(("records", "users"), RESTORED, strict=True):
        dump = team.folder / f"{name}.dump"
        subprocess.run(["pg_dump", "-Fc", "-f", dump, f"{team.databases}/{name}"], check=True)
        subprocess.run(["pg_restore", "-d", f"{team.databases}/{fresh}", dump], check=True)
    store = team.s3()
    store.create_bucket(Bucket="restored")
    for found in store.list_objects_v2(Bucket="runs")["Contents"]:
        store.copy({"Bucket": "runs", "Key": found["Key"]}, "restored", found["Key"])
    with team.server(*RESTORED, "restored"), as_user("ann"):
        client = MlflowClient(team.address)
        record = client.get_run(run_id)
        assert record.info.status == "FINISHED"
        wanted = json.loads((ann.runs()[-1] / "summary.json").read_text())["metrics"]["test_dice"]
        assert record.data.metrics["test_dice"] == pytest.approx(wanted)
        file = client.download_artifacts(run_id, "data/cases.csv", str(ann.folder))
        assert Path(file).read_bytes() == (ann.runs()[-1] / "data" / "cases.csv").read_bytes()
