"""The shipped studies, from their kept scores put into folders as version 0.1.0 writes them."""

import json
import math
from collections import defaultdict
from pathlib import Path

import pandas as pd
import pytest
from outside import Home

pytestmark = pytest.mark.slow
EVERY = sorted(Path("experiments/results").resolve().glob("*/study.json"))
KEPT = [path for path in EVERY if not json.loads(path.read_text()).get("lock")]  # 0.1.0 locked none


def rebuilt(home: Home, kept: Path) -> Path:
    """Puts the runs of a kept study into ``outputs``; the sweep's folder."""
    asked = json.loads((kept / "study.json").read_text())
    scores = pd.read_csv(kept / "scores.csv", dtype={"case": str, "patient": str, "fold": str, "seed": str})
    costs = pd.read_csv(kept / "table.csv").set_index("arm")
    for number, (run_id, table) in enumerate(scores.groupby("run_id", sort=False)):
        whose = table.iloc[0]
        run = home.outputs / f"runs/run_{run_id[:8]}"
        (run / "data").mkdir(parents=True)
        (run / "run_id").write_text(f"{run_id}\n")
        process = {"host": "elsewhere", "pid": 1, "started": 1.7e9}
        place = {"kind": "none", "uri": None, "experiment": f"hippocampus/{asked['name']}"}
        state = place | {"name": f"{whose['arm']}-{whose['seed']}", "status": "FINISHED", "process": process}
        (run / "state.json").write_text(json.dumps(state))
        own = table.drop(columns=["arm", "seed", "fold"]).assign(run_id=run_id[:8])
        own.to_csv(run / "data/cases.csv", index=False)
        part = "test" if whose["fold"] != "pooled" else "oof"
        tags = {key: str(whose[key]) for key in ("arm", "seed", "fold")} | {"study": asked["name"]}
        tags |= {"sweep": asked["sweep"], "dataset_version": "v", "split_hash": f"s{whose['seed']}"}
        metrics = defaultdict(float, {f"{part}_dice": own["dice"].mean()})
        names = {"gflops": "gflops_a_patch", "training_seconds": "total_training_seconds"}
        names |= {"memory_mib": "peak_memory_mib", "inference_seconds_a_case": "inference_seconds_a_case"}
        metrics |= {f"system/{filed}": float(costs.loc[whose["arm"], name]) for name, filed in names.items()}
        params = {"parameters": str(int(costs.loc[whose["arm"], "params"]))}
        time = 1_700_000_000_000 + 1000 * number
        lines = [{"status": "RUNNING", "error": "", "time": time}, {"tags": tags}, {"params": params}]
        lines += [{"metrics": metrics, "step": 120, "time": time}, {"status": "FINISHED", "error": "", "time": time}]
        (run / "record.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    folder = home.outputs / "sweeps" / asked["sweep"]
    folder.mkdir(parents=True)
    (folder / "study.json").write_text((kept / "study.json").read_text())
    return folder


@pytest.mark.parametrize("kept", KEPT, ids=lambda path: path.parent.name)
def test_the_kept_scores_give_the_kept_table(kept: Path, tmp_path: Path) -> None:
    home = Home(tmp_path, tmp_path)
    folder = rebuilt(home, kept.parent)
    asked = json.loads(kept.read_text())
    done = home.seg("report", f"experiments={asked['name']}")
    assert done.returncode == 0, done.stderr
    found, expected = (pd.read_csv(where / "table.csv") for where in (folder, kept.parent))
    assert list(found) == list(expected)
    for name in expected:
        for got, wanted in zip(found[name], expected[name], strict=True):
            same = got == wanted or (pd.isna(got) and pd.isna(wanted))
            assert same or math.isclose(got, wanted, rel_tol=1e-9, abs_tol=1e-12), name
    assert asked["question"] in (folder / "report.html").read_text()
    assert (folder / "table.md").read_text() == (kept.parent / "table.md").read_text()


def test_runs_of_version_0_1_0_are_listed(tmp_path: Path) -> None:
    home = Home(tmp_path, tmp_path)
    rebuilt(home, KEPT[-1].parent)
    done = home.seg("runs", "study=schedulers", "csv=table.csv")
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(tmp_path / "table.csv")
    assert len(table) == 12
    assert set(table["arm"]) == {"warmup_cosine", "adaptive", "onecycle", "poly"}
    assert set(table["status"]) == {"FINISHED"}
    assert table["test_dice"].between(0, 1).all()


def test_the_shipped_studies_are_kept() -> None:
    assert {path.parent.name for path in EVERY} >= {"attention", "schedulers"}
    assert [path.parent.name for path in KEPT] == ["schedulers"]
