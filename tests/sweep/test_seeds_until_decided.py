"""Studies whose seeds are added until they are decided: which trainings are made, after stops and side by side, too."""

import os
import signal
from pathlib import Path

import pandas as pd
import pytest
from test_design import run, study
from test_sweeper import Sweeps, sweeps, until

from seg.records.journal import Journal
from seg.sweep.design import identity

__all__ = ["sweeps"]  # a fixture
FILE = """# @package hydra.sweeper.study
question: Does it help?
arms:
  score_0.80: {}
  score_0.84: {scheduler: onecycle}
  score_0.800: {scheduler: constant}
compare: baseline
seeds: {start: 3, most: 6}
"""
CLEAR, SAME = "score_0.84", "score_0.800"


def trained(sweeps: Sweeps) -> dict[str, list[int]]:
    """The seeds of each arm, in the order in which they were trained."""
    acts = pd.DataFrame(sweeps.acts)
    return {str(arm): own.tolist() for arm, own in acts.groupby("arm")["seed"]}


def tags(sweeps: Sweeps) -> dict[str, str]:
    found: dict[str, str] = {}
    for folder in (sweeps.outputs / "runs").iterdir():
        for report in Journal(folder).read():
            found |= {key: value for key, value in report.get("tags", {}).items() if key.startswith("seeds.")}
    return found


@pytest.mark.slow
def test_only_arms_of_open_comparisons_get_more_seeds(sweeps: Sweeps) -> None:
    said = run(sweeps, file=FILE)
    seeds = trained(sweeps)
    assert seeds[CLEAR] == [0, 1, 2], "decided at the first look"
    assert seeds[SAME] == seeds["score_0.80"]
    assert len(seeds[SAME]) > 3
    assert "after 3 seeds 1 of 2 comparisons decided" in said
    assert "one more seed for score_0.80, score_0.800" in said
    count = len(seeds[SAME])
    assert tags(sweeps)["seeds.trained"] == str(count)
    assert tags(sweeps)["seeds.trainings_saved"] == str(18 - 3 - 2 * count)
    table = pd.read_csv(sweeps.folder / "table.csv").set_index("arm")
    assert table.loc[CLEAR, "dice_baseline_verdict"] == "better"
    assert table["seeds"].tolist() == [count, 3, count]
    report = (sweeps.folder / "table.md").read_text()
    assert "Seeds until decided: from 3 to 6 an arm" in report
    assert "### Looks" in report
    assert "Preliminary" not in report
    before = sorted(path.name for path in sweeps.outputs.glob("runs/*"))
    run(sweeps, file=FILE)
    assert trained(sweeps) == seeds, "the same command trains nothing again"
    assert sorted(path.name for path in sweeps.outputs.glob("runs/*")) == before


@pytest.mark.slow
def test_a_killed_sweep_goes_on_at_the_same_look_and_decides_the_same(sweeps: Sweeps, tmp_path: Path) -> None:
    path = tmp_path / "experiments" / "two.yaml"
    path.parent.mkdir()
    path.write_text(FILE)
    arguments = ("experiments=two", "--config-dir", str(tmp_path))
    process = sweeps.start(*arguments)
    until(lambda: len(sweeps.acts) > 9 or process.poll() is not None)  # a trial of the fourth seed
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    begun = {(act["arm"], act["seed"]) for act in sweeps.acts}
    assert ("score_0.80", 3) in begun
    said = run(sweeps, file=FILE)
    assert "after 3 seeds" not in said, "what was decided is kept"
    seeds = trained(sweeps)
    assert seeds[CLEAR] == [0, 1, 2]
    assert len(set(seeds[SAME])) > 3
    assert list(sweeps.trials["state"]) == ["finished"] * len(sweeps.trials)
    assert not sweeps.trials.duplicated(["arm", "seed"]).any()


@pytest.mark.slow
def test_processes_that_share_a_storage_agree(sweeps: Sweeps, tmp_path: Path) -> None:
    path = tmp_path / "experiments" / "two.yaml"
    path.parent.mkdir()
    path.write_text(FILE)
    shared = ("experiments=two", "--config-dir", str(tmp_path), f"hydra.sweeper.storage={tmp_path / 'all.log'}")
    processes = [sweeps.start(*shared, "hydra.sweeper.n_jobs=2"), sweeps.start(*shared)]
    for process in processes:
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, out + err
    assert {arm: sorted(own) for arm, own in trained(sweeps).items()}[CLEAR] == [0, 1, 2]
    assert len({act["pid"] for act in sweeps.acts}) > 1
    assert not sweeps.trials.duplicated(["arm", "seed"]).any()


@pytest.mark.slow
def test_a_failed_training_is_waited_for_before_the_look(sweeps: Sweeps) -> None:
    file = FILE.replace("score_0.800", "fail")
    said = run(sweeps, "hydra.sweeper.retries=0", file=file, code=1)
    assert "3 of 18 jobs of the grid did not finish" in said
    assert max(act["seed"] for act in sweeps.acts) == 2
    assert "seeds.ended" not in tags(sweeps)
    assert "Preliminary: 6 of 18 runs are finished" in (sweeps.folder / "table.md").read_text()


def test_a_study_of_given_seeds_is_the_one_it_was() -> None:
    given = study(seeds=[0, 1])
    assert (given.seeds, given.until) == ((0, 1), None)
    added = study(seeds={"start": 2, "most": 4})
    assert (added.seeds, added.until) == ((0, 1, 2, 3), (2, 4))
    runs = [{"seed": str(seed), "arm": "se"} for seed in range(4)]
    assert [run["seed"] for run in added.first(runs)] == ["0", "1"]
    assert given.first(runs[:2]) == runs[:2]
    assert "seeds" in identity({"seeds": [0], "margin": None, "arms": {}, "factors": {}, "compare": "baseline"})


@pytest.mark.parametrize("seeds", ["{start: 1, most: 4}", "{start: 3, most: 3}", "{start: 3}", "{first: 3, most: 4}"])
def test_a_rule_that_cannot_be_is_refused(sweeps: Sweeps, seeds: str) -> None:
    said = run(sweeps, "check=true", file=FILE.replace("{start: 3, most: 6}", seeds), code=2)
    assert "{start: 3, most: 10}, from 2 on" in said
    assert "hydra.sweeper.study.seeds is {" in said
