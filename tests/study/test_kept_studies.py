"""The studies whose results are kept in experiments/: their tables are what their scores give."""

from pathlib import Path

import pandas as pd
import pytest
from omegaconf import OmegaConf

from seg.study import analyse, read_scores
from seg.study.analysis import Analysis
from seg.study.anchors import with_anchors
from seg.study.looks import analysis_at, looks_of
from seg.study.question import Asked, Seeds
from seg.study.tables import wide

KEPT = sorted(Path("experiments/results").glob("*/study.json"))


def analysed(asked: Asked, folder: Path) -> Analysis:
    scores = read_scores(folder / "scores.csv")
    options = {"arms": asked.arms, "against": asked.against, "margin": asked.margin}
    if asked.until is None:
        found = analyse(scores, baseline=asked.arms[0], **options)
    else:
        judged = {"primary": asked.primary, "classes": asked.classes}
        looks = looks_of(scores, Seeds(*asked.until), **options, **judged)
        found = analysis_at(looks, scores, baseline=asked.arms[0], **options, **judged)
    return with_anchors(found, scores, asked.anchors, arms=asked.arms)


@pytest.mark.parametrize("kept", KEPT, ids=lambda path: path.parent.name)
def test_a_kept_table_is_what_its_scores_give(kept: Path) -> None:
    found = wide(analysed(Asked.read(kept.parent), kept.parent))
    table = pd.read_csv(kept.parent / "table.csv")
    cost = {"params", "gflops", "training_seconds", "memory_mib", "inference_seconds_a_case"}
    claims = {name for name in table if name.endswith(("baseline_claim", "previous_claim"))}  # of the lock
    assert set(table) - cost - claims == set(found)
    for name in found:
        expected = pd.Series(table[name].tolist(), dtype=object)
        assert found[name].astype(object).fillna("").tolist() == pytest.approx(expected.fillna("").tolist()), name


@pytest.mark.parametrize("kept", KEPT, ids=lambda path: path.parent.name)
def test_a_kept_study_is_whole_and_asked_by_its_file(kept: Path) -> None:
    asked = Asked.read(kept.parent)
    file = OmegaConf.load(f"experiments/{asked.name}.yaml")
    assert asked.question == file.question
    assert list(asked.arms) == list(file.arms)
    scores = pd.read_csv(kept.parent / "scores.csv", dtype={"fold": str})
    runs = scores.groupby(["arm", "seed", "fold"])["run_id"].first().unstack(["seed", "fold"])
    assert runs.notna().to_numpy().all(), "every arm has every seed and fold"
    assert runs.size == asked.runs or asked.until
    page = (kept.parent / "report.html").read_text()
    assert asked.question in page
    assert "Preliminary" not in page
    assert "compare.html" not in page, "slices are the data's, and are not ours to give away"


def test_the_studies_that_ended_are_kept() -> None:
    assert [path.parent.name for path in KEPT] == ["attention", "recipe", "record", "schedulers"]
