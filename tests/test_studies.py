"""A study from its file to its report: tiny runs, all of it real."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from seg.errors import ConfigError
from seg.studies import Asked, costs, find_sweep

FILE = """# @package hydra.sweeper.study
question: Does <SE> help?
base:
  debug: fast
  tracking: none
  predictions.dpi: 72
  data.test_fraction: 0
  model.channels: [8, 16, 32]
  model.strides: [2, 2]
arms:
  baseline: {}
  se: {attention: se}
seeds: [0, 1]
folds: 2
"""


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", *arguments]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False, timeout=500)


@pytest.mark.slow
def test_a_study_ends_in_a_table_and_a_page(tmp_path: Path, phantom_root: Path) -> None:
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "tiny.yaml").write_text(FILE)
    data = ["data=folder", f"data.root={phantom_root}"]
    alone = command(tmp_path, "seg.train", "experiments=tiny", *data)
    assert alone.returncode == 2
    assert "Add -m" in alone.stderr
    done = command(tmp_path, "seg.train", "-m", "experiments=tiny", *data)
    assert done.returncode == 0, done.stderr
    assert "8 of 8 finished" in done.stderr
    assert "se against baseline" in done.stdout
    (folder,) = (tmp_path / "outputs" / "sweeps").iterdir()
    names = {path.name for path in folder.iterdir()}
    assert {"table.md", "table.tex", "table.csv", "forest.png", "differences.svg", "report.html", "scores.csv"} <= names
    scores = pd.read_csv(folder / "scores.csv", dtype={"case": str})
    assert set(scores["arm"]) == {"baseline", "se"}
    counts = scores.groupby(["arm", "seed", "case", "class"]).size()
    assert (counts == 1).all(), "each case is scored once for each seed, out of fold"
    assert scores["case"].nunique() == 12
    page = (folder / "report.html").read_text()
    assert "Does &lt;SE&gt; help?" in page
    assert "default-src 'none'" in page, "the browser fetches nothing"
    records = [path.read_text() for path in tmp_path.glob("outputs/runs/*/record.jsonl")]
    tags = [json.loads(line) for record in records for line in record.splitlines()]
    assert sum(line.get("tags", {}).get("study") == "tiny" for line in tags) == 9, "eight runs and their parent"
    again = command(tmp_path, "seg.report", "experiments=tiny")
    assert again.returncode == 0, again.stderr
    assert "se against baseline" in again.stdout
    other = command(tmp_path, "seg.report", "experiments=tyni")
    assert other.returncode == 2
    assert "tiny" in other.stderr


def asked(name: str) -> Asked:
    return Asked(name, f"{name}-1", "Why?", ("a", "b"), {"a": {}, "b": {"k": 1}}, {}, ("baseline",), 0.005, 4)


def test_the_latest_sweep_of_a_study_is_found(tmp_path: Path) -> None:
    for number in range(2):
        folder = tmp_path / "sweeps" / f"attention-{number}"
        folder.mkdir(parents=True)
        asked("attention").write(folder)
    assert Asked.read(folder) == asked("attention")
    assert find_sweep(tmp_path, "attention") == folder
    assert find_sweep(tmp_path, "attention-0").name == "attention-0"
    with pytest.raises(ConfigError, match="the studies there: attention"):
        find_sweep(tmp_path, "attntion")


def test_costs_are_means_over_an_arms_runs_and_the_largest_memory() -> None:
    table = pd.DataFrame(
        {
            "arm": ["a", "a", "b"],
            "params.parameters": [10, 10, 20],
            "total_training_seconds": [1.0, 3.0, 5.0],
            "peak_memory_mib": [100.0, 300.0, 50.0],
        }
    )
    told = costs(table)
    assert told.loc["a"].to_dict() == {"params": 10, "training_seconds": 2.0, "memory_mib": 300.0}
    assert told.loc["b", "training_seconds"] == 5.0
