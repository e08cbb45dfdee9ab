"""Designs of ablation studies: which runs they ask for, and what may not differ."""

from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from seg.config import CONF
from seg.errors import ConfigError
from seg.sweep.study import Study, check_arms, read_study

SECTION: dict[str, Any] = {
    "question": "Does it help?",
    "base": {"model": "unet"},
    "arms": {"baseline": {}, "se": {"attention": "se"}, "warm": {"scheduler": "onecycle"}},
    "design": "arms",
    "factors": {},
    "compare": ["baseline"],
    "seeds": [0],
    "folds": None,
    "margin": 0.005,
}


def study(**changes: Any) -> Study:
    return read_study("attention", SECTION | changes)


def arms(**changes: Any) -> dict[str, dict[str, Any]]:
    return {arm.name: arm.overrides for arm in study(**changes).arms}


def checked(asked: Study) -> dict[str, dict[str, Any]]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return check_arms(asked, {arm.name: compose("train", overrides=asked.overrides(arm)) for arm in asked.arms})


def test_every_arm_meets_every_seed_and_fold_once() -> None:
    runs = study(seeds=[0, 1], folds=3).runs(["trainer.max_epochs=2"])
    assert len(runs) == len({run.overrides for run in runs}) == 3 * 2 * 3
    assert runs[1].overrides == (
        *("inference.part=val", "inference.checkpoint=last", "data.folds=3", "model=unet", "attention=se"),
        *("study=attention", "arm=se", "seed=0", "data.fold=0", "trainer.max_epochs=2"),
    )
    assert runs[1].params == {"arm": "se", "seed": "0", "data.fold": "0"}
    assert [run.params["data.fold"] for run in runs[:4]] == ["0", "0", "0", "1"]


def test_without_folds_the_configuration_says_which() -> None:
    (first, *_) = study().runs([])
    assert not any(override.startswith(("data.fold", "inference")) for override in first.overrides)
    assert [run.overrides[-1] for run in study(folds=[3, 4]).runs([])[::3]] == ["data.fold=3", "data.fold=4"]


def test_each_seed_draws_its_own_folds_where_there_is_no_test_part() -> None:
    asked = study(seeds=[0, 7], folds=2, base={"data.test_fraction": 0})
    drawn = {
        (run.params["seed"], o) for run in asked.runs([]) for o in run.overrides if o.startswith("data.split_seed")
    }
    assert drawn == {("0", "data.split_seed=0"), ("7", "data.split_seed=7")}
    assert not any("split_seed" in o for run in study(seeds=[0, 7], folds=2).runs([]) for o in run.overrides)


def test_designs() -> None:
    se, warm = {"attention": "se"}, {"scheduler": "onecycle"}
    assert arms() == {"baseline": {}, "se": se, "warm": warm}
    assert arms(design="cumulative") == {"baseline": {}, "se": se, "warm": se | warm}
    parts = {"se": se, "warm": warm}
    assert arms(design="one_at_a_time", arms=parts) == {"baseline": {}, **parts}
    assert arms(design="leave_one_out", arms=parts) == {"all": se | warm, "without_se": warm, "without_warm": se}


def test_a_factorial_design_crosses_its_factors() -> None:
    factors = {"attention": ["none", "se"], "scheduler": ["constant", "onecycle"]}
    asked = study(design="factorial", arms={}, factors=factors)
    assert asked.factors == ("attention", "scheduler")
    assert [arm.name for arm in asked.arms] == ["none-constant", "none-onecycle", "se-constant", "se-onecycle"]
    assert asked.arms[3].levels == ("se", "onecycle")
    assert asked.arms[3].overrides == {"attention": "se", "scheduler": "onecycle"}


def test_the_resolved_difference_is_told() -> None:
    told = checked(study())
    assert told["baseline"] == {}
    assert "attention._target_" in told["se"]
    assert all(key.startswith("attention") for key in told["se"])
    assert all(key.startswith("scheduler") for key in told["warm"])


@pytest.mark.parametrize(
    "change",
    [{"augmentation": "strong"}, {"trainer.max_epochs": 3}, {"data.fold": 2}, {"data.split_seed": 1}, {"seed": 3}],
)
def test_an_arm_with_a_second_cause_is_refused(change: dict[str, Any]) -> None:
    section = {"baseline": {}, "two": {"attention": "se", **change}}
    with pytest.raises(ConfigError, match=r"two causes"):
        checked(study(arms=section))
    section["two"]["allow"] = next(iter(change)).split(".")[0]
    assert "two" in checked(study(arms=section))


def test_arms_that_are_the_same_are_refused() -> None:
    with pytest.raises(ConfigError, match="baseline and again are the same"):
        checked(study(arms={"baseline": {}, "again": {"attention": "none"}}))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"design": "cumulativ"}, "'cumulative'"),
        ({"arms": {"baseline": {}}}, "needs two"),
        ({"compare": ["best"]}, "best"),
        ({"question": None}, "question"),
        ({"seeds": []}, "seeds"),
        ({"seeds": [1, 1]}, "twice"),
        ({"folds": 1}, "folds"),
        ({"margin": 0}, "margin"),
        ({"design": "factorial"}, "factors"),
        ({"factors": {"attention": ["none", "se"]}}, "Leave one of the two out"),
    ],
    ids=str,
)
def test_faults(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        study(**change)
