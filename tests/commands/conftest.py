"""Working folders for the commands, and the runs that several tests look at."""

import shutil
from pathlib import Path

import pytest
from outside import LONG, Home


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds the phantom and the cache of all quick trainings, made by the first of them."""
    folder = tmp_path_factory.mktemp("shared")
    done = Home(folder, folder).train("check=true", "tracking=none")
    assert done.returncode == 0, done.stderr
    shutil.rmtree(folder / "outputs", ignore_errors=True)
    return folder


@pytest.fixture
def home(tmp_path: Path, shared: Path) -> Home:
    """A new working folder."""
    return Home(tmp_path, shared)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> tuple[Home, str]:
    """A working folder with one finished run in MLflow, and what the run printed. To read only."""
    home = Home(tmp_path_factory.mktemp("finished"), shared)
    done = home.train("tracking.tags.scanner=3T")
    assert done.returncode == 0, done.stderr
    return home, done.stdout


@pytest.fixture(scope="session")
def unbroken(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Path:
    """The folder of a long run that nobody stopped."""
    home = Home(tmp_path_factory.mktemp("unbroken"), shared)
    done = home.train(*LONG, "tracking=none")
    assert done.returncode == 0, done.stderr
    return home.runs()[0]
