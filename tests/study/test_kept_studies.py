"""The studies whose results are kept in experiments/: their tables are what their scores give."""

import json
from pathlib import Path

import pandas as pd
import pytest
from omegaconf import OmegaConf

from seg.study import analyse, read_scores
from seg.study.tables import wide

KEPT = sorted(Path("experiments/results").glob("*/study.json"))


@pytest.mark.parametrize("kept", KEPT, ids=lambda path: path.parent.name)
def test_a_kept_table_is_what_its_scores_give(kept: Path) -> None:
    folder, asked = kept.parent, json.loads(kept.read_text())
    options = {"arms": asked["arms"], "against": asked["against"], "margin": asked["margin"]}
    found = wide(analyse(read_scores(folder / "scores.csv"), baseline=asked["arms"][0], **options))
    table = pd.read_csv(folder / "table.csv")
    cost = {"params", "gflops", "training_seconds", "memory_mib", "inference_seconds_a_case", "energy_kwh"}
    assert set(table) - cost == set(found)
    for name in found:
        expected = pd.Series(table[name].tolist(), dtype=object)
        assert found[name].astype(object).fillna("").tolist() == pytest.approx(expected.fillna("").tolist()), name


@pytest.mark.parametrize("kept", KEPT, ids=lambda path: path.parent.name)
def test_a_kept_study_is_whole_and_asked_by_its_file(kept: Path) -> None:
    asked = json.loads(kept.read_text())
    file = OmegaConf.load(f"experiments/{asked['name']}.yaml")
    assert asked["question"] == file.question
    assert asked["arms"] == list(file.arms)
    runs = pd.read_csv(kept.parent / "scores.csv").groupby(["arm", "seed"])["run_id"].first().unstack()
    assert runs.notna().to_numpy().all(), "every arm has every seed"
    assert runs.size == asked["runs"]
    page = (kept.parent / "report.html").read_text()
    assert file.question in page
    assert "Preliminary" not in page
    assert "compare.html" not in page, "slices are the data's, and are not ours to give away"


def test_two_studies_are_kept() -> None:
    assert [path.parent.name for path in KEPT] == ["attention", "schedulers"]
