"""Where a run is recorded: what decides between addresses, and what to type or open to look at it."""

import os
import re
import shlex
from pathlib import Path

from seg.errors import ConfigError, without_passwords
from seg.records.state import State

ADDRESS, EXPERIMENT = "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"  # MLflow's own variables
_UI = "http://127.0.0.1:5000"  # where ``ui_command`` serves a database


def chosen(kind: str, uri: str | None, begun: State | None, where: str) -> tuple[str | None, str]:
    """The address that holds a run, None for the sink's own place, and what decides so.

    The configuration's ``uri``; else that of the run itself or of its parent, ``begun``, named by ``where``; else that
    of MLflow's own variable, where ``kind`` is MLflow.
    """
    if uri:
        return uri, "tracking.uri"
    if begun:
        return begun.uri, where
    given = address_given() if kind == "mlflow" else None
    return given, ADDRESS if given else "by default"


def address_given() -> str | None:
    """The address in MLflow's own variable: where a new run is recorded whose configuration names none."""
    return os.environ.get(ADDRESS) or None


def completed(uri: str | None) -> str | None:
    """The address with its password, where MLflow's own variable holds the same one with it."""
    given = address_given()
    return given if given and uri == without_passwords(given) else uri


def experiment_name(given: str | None, usual: str) -> str:
    """The experiment of a new run: the configuration's, otherwise that of MLflow's variable, otherwise the default."""
    return given or os.environ.get(EXPERIMENT) or usual


def default_uri(outputs: Path) -> str:
    """The database of the runs under ``outputs``.

    Raises:
        ConfigError: an address cannot hold that path.
    """
    file = (outputs / "mlflow.db").resolve()
    if "?" in str(file):
        raise ConfigError(
            f"{file} cannot be the address of a database, which ends at a ?. Set paths.outputs to a folder without "
            "one, or tracking.uri, or tracking=none."
        )
    return f"sqlite:///{file}"


def file_of(uri: str) -> Path | None:
    """The file of a sqlite database; None for any other address."""
    file = re.match(r"sqlite[^:]*:///([^?]+)", uri)
    return Path(file[1]) if file else None


def is_server(uri: str) -> bool:
    """Whether an MLflow address is that of a server; otherwise it is a database or a folder."""
    return uri.startswith(("http://", "https://"))


def ui_command(uri: str) -> str:
    """What shows the runs of a database to this machine alone; a password in its address is masked."""
    return f"python -m mlflow ui --backend-store-uri {shlex.quote(without_passwords(uri))} --host 127.0.0.1"


def pages(uri: str) -> str:
    """The beginning of the address of MLflow's pages, on its server or on the one that ``ui_command`` starts."""
    return re.sub("//[^/]*@", "//", uri).rstrip("/") if is_server(uri) else _UI
