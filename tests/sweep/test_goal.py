"""Every sampler with every kind of space and objective: it works, or says before the first trial why it cannot."""

import random
from pathlib import Path
from typing import Any

import pytest

from seg.errors import ConfigError
from seg.records.state import Process
from seg.sweep.goal import SAMPLERS, Goal, check
from seg.sweep.jobs import Space, read_space
from seg.sweep.search import Search, Trial

SOON: dict[str, dict[str, Any]] = {  # options with which a few trials reach what the sampler is about
    "tpe": {"n_startup_trials": 4},
    "gp": {"n_startup_trials": 4},
    "nsga2": {"population_size": 4},
}
NUMBERS = ["lr=tag(log,interval(1e-5,1e-1))", "depth=range(2,6)", "drop=range(0.1,0.5,0.1)"]
CHOICES = ["model=choice(unet,unetpp)", "scheduler=choice(constant,onecycle)"]


def space(*lines: str, **when: Any) -> Space:
    return read_space(list(lines), {}, when, None)


SPACES = {
    "numbers": space(*NUMBERS),
    "conditional": space(*NUMBERS, *CHOICES, "max_lr=tag(log,interval(1e-4,1e-1))", max_lr={"scheduler": "onecycle"}),
}


def search(path: Path, sampler: str, among: Space, objectives: int = 1, seed: int = 0, n_trials: int = 8) -> Search:
    names, ways = ("val_dice", "params")[:objectives], ("maximize", "minimize")[:objectives]
    goal = Goal(names, ways, n_trials, sampler, SOON.get(sampler, {}), seed=seed)
    check(goal, among)
    hand = Search("tune", path / "journal.log", goal, Process.this(), among)
    hand.enter()
    return hand


def run(hand: Search, stop: int = 1000) -> list[Trial]:
    taken: list[Trial] = []
    while len(taken) < stop and (trial := hand.take()):
        luck = random.Random(trial.number).random()
        hand.complete(trial.number, [float(trial.params["drop"]) + luck, luck][: len(hand.goal.objectives)])
        taken.append(trial)
    return taken


def values(trials: list[Trial]) -> list[dict[str, Any]]:
    return [trial.params for trial in trials]


@pytest.mark.parametrize(("kind", "objectives"), [*((kind, 1) for kind in SPACES), ("conditional", 2)])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_sampler_works_or_refuses_before_the_first_trial(
    sampler: str, kind: str, objectives: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if sampler == "cmaes" and objectives > 1:
        with pytest.raises(ConfigError, match="multi-objective optimization, CmaEsSampler cannot be used"):
            search(tmp_path, sampler, SPACES[kind], objectives)
        assert not list(tmp_path.iterdir()), "nothing was begun"
        return
    hand = search(tmp_path, sampler, SPACES[kind], objectives)
    trials = run(hand)
    assert hand.over()
    assert len(trials) == 8
    for trial in trials:
        asked = list(SPACES[kind].suggest(lambda parameter, given=trial.params: given[parameter.key]))
        assert sorted(trial.params) == sorted(asked), "a condition decides what is asked"
        assert SPACES[kind].starts([trial.params]) == [trial.params]
        assert trial.overrides == SPACES[kind].overrides(trial.params)
    if sampler != "cmaes":  # which draws choices at random, and says so
        assert not [record for record in caplog.records if "independent" in record.message]


@pytest.mark.parametrize(  # Gaussian processes take ten times as long as all others together
    "sampler", [pytest.param(one, marks=pytest.mark.slow if one == "gp" else ()) for one in SAMPLERS]
)
def test_the_same_seed_gives_the_same_trials_and_what_goes_on_gives_others(sampler: str, tmp_path: Path) -> None:
    kind = "numbers" if sampler == "cmaes" else "conditional"
    first, same = (run(search(tmp_path / name, sampler, SPACES[kind])) for name in ("first", "same"))
    other = run(search(tmp_path / "other", sampler, SPACES[kind], seed=1))
    assert values(first) == values(same) != values(other)
    parts = run(search(tmp_path / "parts", sampler, SPACES[kind]), 3) + run(
        search(tmp_path / "parts", sampler, SPACES[kind])
    )
    assert len({str(sorted(params.items())) for params in values(parts)}) == 8, "no point is drawn again"


def test_tpe_learns_what_depends_on_a_choice(tmp_path: Path) -> None:
    hand = search(tmp_path, "tpe", SPACES["conditional"], n_trials=40)
    while trial := hand.take():
        rate = float(trial.params.get("max_lr", 1e-1))
        hand.complete(trial.number, [1.0 if rate < 1e-3 else 0.0])
    late = [row for row in hand.frame().tail(15).to_dict("records") if row["scheduler"] == "onecycle"]
    assert len(late) > 10, "the choice that can win"
    assert sum(row["max_lr"] < 1e-3 for row in late) > 0.6 * len(late), "where a third would be luck"


GOOD: dict[str, dict[str, Any]] = {
    "tpe": {"n_startup_trials": 5, "n_ei_candidates": 8, "multivariate": True, "group": True, "constant_liar": False},
    "gp": {"n_startup_trials": 5, "deterministic_objective": True},
    "cmaes": {"n_startup_trials": 2, "popsize": 6, "with_margin": True, "consider_pruned_trials": True},
    "qmc": {"qmc_type": "halton", "scramble": False},
    "nsga2": {"population_size": 6, "mutation_prob": 0.1, "crossover_prob": 0.5, "swapping_prob": 0.4},
}


@pytest.mark.parametrize("sampler", GOOD)
def test_options_are_optunas_own(sampler: str) -> None:
    check(Goal(("a",), ("minimize",), 8, sampler, GOOD[sampler]), SPACES["numbers"])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"sampler": "tpee"}, "hydra.sweeper.sampler=tpee is not known. Did you mean 'tpe'? Choose tpe, gp, cmaes"),
        ({"sampler": "os.system"}, "hydra.sweeper.sampler=os.system is not known"),
        ({"sampler": "optuna.samplers.Best"}, "hydra.sweeper.sampler=optuna.samplers.Best is not known"),
        ({"sampler": "optuna.samplers.intersection_search_space"}, "is not known"),
        ({"sampler": "RandomSampler"}, "is not known"),
        ({"pruner": "medain"}, "hydra.sweeper.pruner=medain is not known. Did you mean 'median'? Choose none"),
        ({"sampler_options": {"n_startup": 3}}, "unexpected keyword argument 'n_startup'"),
        ({"sampler": "qmc", "sampler_options": {"qmc_type": "sobel"}}, "qmc_type='sobel'"),
        ({"sampler": "nsga2", "sampler_options": {"population_size": 1}}, "population_size"),
        ({"pruner": "median", "pruner_options": {"n_startup_trials": -1}}, "does not suit Optuna's MedianPruner"),
    ],
)
def test_faults_are_told(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check(Goal(**{"objectives": ("a",), "directions": ("maximize",), "n_trials": 3} | settings), SPACES["numbers"])
    assert said in str(caught.value)


@pytest.mark.parametrize("sampler", ["optuna.samplers.TPESampler", "optuna.samplers.RandomSampler"])
def test_any_sampler_of_optunas_is_named_by_its_path(sampler: str, tmp_path: Path) -> None:
    assert len(run(search(tmp_path, sampler, SPACES["conditional"]))) == 8
