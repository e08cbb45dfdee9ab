"""The record on Hippocampus: that its study is the recipe, and how its scores are judged."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf
from training import composed

from benchmarks.record import AIMS, judged, voted
from seg.config.content import flat
from seg.data.cases import folder
from seg.data.nifti import write_volume
from seg.data.volumes import read_header, read_label
from seg.records.folder import claim

KEPT = Path("experiments/results/schedulers/scores.csv")


def test_the_record_is_the_recipe_with_other_cases_and_budgets() -> None:
    study = OmegaConf.load("experiments/record.yaml")
    options = ("data", "model", "loss", "optimizer", "scheduler", "augmentation")
    base = [f"{key}={value}" for key, value in study.base.items() if key in options]
    values = [f"{key}={'null' if value is None else value}" for key, value in study.base.items() if key not in options]
    one = flat(OmegaConf.to_container(composed(*base, *values, "data.root=here")))  # type: ignore[arg-type]
    recipe = flat(OmegaConf.to_container(composed("experiments=hippocampus", "data.root=here")))  # type: ignore[arg-type]
    other = {key for key in {*one, *recipe} if one.get(key) != recipe.get(key)}
    assert other == {"data.test_fraction", "data.fold", "study", "trainer.max_minutes", "trainer.validate_every"}
    assert set(study.arms) == set(AIMS)


@pytest.mark.parametrize(("aim", "holds"), [(0.02, True), (0.001, False)])
def test_scores_are_judged_beside_the_tool_by_arm_and_class(aim: float, holds: bool) -> None:
    arms = ("poly", "adaptive")
    lines, reached = judged(pd.read_csv(KEPT), dict.fromkeys(arms, aim))
    assert reached == holds
    assert [line for line in lines if line.startswith("  ")] == [
        f"  {'holds' if holds else 'does NOT hold'}: no more than {aim} below" for _ in arms
    ]
    shown = [line.partition(": Dice")[0] for line in lines if not line.startswith("  ")]
    assert shown == [f"{arm}, {name}" for name in ("mean", "Anterior", "Posterior") for arm in arms]


def test_three_networks_vote_for_each_voxel(phantom_root: Path, tmp_path: Path) -> None:
    cases, run_ids = folder(phantom_root), [letter * 32 for letter in "abc"]
    ids = [case.id for case in cases.cases[:2]]
    for right, run_id in zip([{*ids}, {*ids}, {ids[0]}], run_ids, strict=True):
        own = claim(tmp_path, run_id)
        for case in cases.cases[:2]:
            assert case.label
            label, header = read_label(case.label).astype(np.uint8), read_header(case.label)
            mask = label if (case.id in right) == (case.id == ids[0]) else 0 * label
            write_volume(own.predictions / f"{case.id}.nii.gz", mask, header.affine)
    rows = [{"arm": "x", "run_id": run_id, "case": case, "patient": case} for run_id in run_ids for case in ids]
    found = voted(pd.DataFrame(rows), cases, tmp_path, "x", 1.0)
    assert found.groupby("case")["dice"].mean().to_dict() == {ids[0]: 1.0, ids[1]: 0.0}, "one of three is outvoted"
