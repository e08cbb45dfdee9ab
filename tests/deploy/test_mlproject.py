"""``mlflow run`` of the project, by the real command."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def mlflow_run(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mlflow", "run", str(ROOT), "--env-manager", "local", *arguments]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # the python of this environment
    env = os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}", "PATH": path}
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=env)


@pytest.mark.slow
def test_overrides_reach_the_training_one_by_one(tmp_path: Path) -> None:
    overrides = (
        f"data.root={tmp_path}/phantom paths.outputs='{tmp_path}/my outputs' debug=fast check=true optimizer.lr=0.5"
    )
    done = mlflow_run(tmp_path, "-P", f"overrides={overrides}")
    assert done.returncode == 0, done.stderr
    assert "check: no fault found" in done.stderr + done.stdout
    assert (tmp_path / "my outputs").is_dir()
    wrong = mlflow_run(tmp_path, "-P", f"overrides={overrides} optimizer.lrr=1")
    assert wrong.returncode != 0
    assert "optimizer.lrr" in wrong.stderr + wrong.stdout


@pytest.mark.slow
@pytest.mark.parametrize("entry", ["predict", "report"])
def test_other_entry_points(tmp_path: Path, entry: str) -> None:
    done = mlflow_run(tmp_path, "-e", entry)
    assert done.returncode == 0, done.stderr
    assert f"python -m seg.{entry}" in done.stdout + done.stderr
