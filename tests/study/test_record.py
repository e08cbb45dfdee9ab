"""The record on Hippocampus: that its study is the recipe, and how its scores are judged."""

from pathlib import Path

import pandas as pd
import pytest
from omegaconf import OmegaConf
from training import composed

from benchmarks.record import AIMS, judged
from seg.config.content import flat

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
