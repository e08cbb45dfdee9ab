"""Every sampler with every kind of space and objective: it works, or says before the first trial why it cannot."""

import inspect
import os
import random
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from seg.errors import ConfigError
from seg.records.folder import Process
from seg.sweep import samplers
from seg.sweep.entries import grid_points
from seg.sweep.ledger import Ledger, Settings, Trial
from seg.sweep.space import Space, read_space

SAMPLERS, PRUNERS = list(samplers._SAMPLERS), list(samplers._PRUNERS)
SOON: dict[str, dict[str, Any]] = {  # options with which a few trials reach what the sampler is about
    "tpe": {"n_startup_trials": 4},
    "gp": {"n_startup_trials": 4},
    "nsga2": {"population_size": 4},
}
NUMBERS = ["lr=tag(log,interval(1e-5,1e-1))", "depth=range(2,6)", "drop=range(0.1,0.5,0.1)"]
CHOICES = ["model=choice(unet,unetpp)", "scheduler=choice(constant,onecycle)"]
DEPENDENT = ["max_lr=tag(log,interval(1e-4,1e-1))"]
COUNTABLE = ["depth=range(2,4)", "drop=range(0.1,0.35,0.1)", *CHOICES, "warmup=choice(1,5)"]


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A journal waits for the disk at every line; here no power fails."""
    monkeypatch.setattr(os, "fsync", lambda file: None)


def space(*lines: str, **when: Any) -> Space:
    return read_space(list(lines), {}, when, lambda group: [])


SPACES = {
    "numbers": space(*NUMBERS),
    "choices": space(*NUMBERS, *CHOICES),
    "conditional": space(*NUMBERS, *CHOICES, *DEPENDENT, max_lr={"scheduler": "onecycle"}),
    "countable": space(*COUNTABLE),
    "countable, conditional": space(*COUNTABLE, warmup={"scheduler": "onecycle"}),
}

HARD = ("numbers", "conditional", "countable, conditional")  # two objectives add nothing to the kinds between


def ledger(path: Path, sampler: str, among: Space, objectives: int = 1, seed: int = 0, n_trials: int = 8) -> Ledger:
    names, ways = ("val_dice", "params")[:objectives], ("maximize", "minimize")[:objectives]
    settings = Settings(names, ways, n_trials, sampler, SOON.get(sampler, {}), seed=seed)
    return Ledger("tune", path / "journal.log", settings, Process.this(), among)


def run(ledger: Ledger, stop: int = 1000) -> list[Trial]:
    taken: list[Trial] = []
    while len(taken) < stop and (trial := ledger.take()):
        luck = random.Random(trial.number).random()
        ledger.complete(trial.number, [trial.params["drop"] + luck, luck][: len(ledger.settings.objectives)])
        taken.append(trial)
    return taken


def values(trials: list[Trial]) -> list[dict[str, Any]]:
    return [trial.params for trial in trials]


def refusal(sampler: str, kind: str, objectives: int) -> str | None:
    """What a ledger must say, if anything."""
    if sampler == "cmaes" and objectives > 1:
        return "cmaes takes one objective, and there are 2"
    if sampler == "cmaes" and kind != "numbers":
        return "cmaes searches numbers only"
    if sampler == "grid" and not kind.startswith("countable"):
        return "grid tries every value, and lr"
    return None


@pytest.mark.parametrize(("kind", "objectives"), [*((kind, 1) for kind in SPACES), *((kind, 2) for kind in HARD)])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_sampler_works_or_refuses_before_the_first_trial(
    sampler: str, kind: str, objectives: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if said := refusal(sampler, kind, objectives):
        with pytest.raises(ConfigError, match=said):
            ledger(tmp_path, sampler, SPACES[kind], objectives)
        assert not list(tmp_path.iterdir()), "nothing was begun"
        return
    hand = ledger(tmp_path, sampler, SPACES[kind], objectives)
    trials = run(hand)
    assert hand.over()
    assert len(trials) == 8
    known = {parameter.key: parameter for parameter in SPACES[kind].parameters}
    for trial in trials:
        asked = list(SPACES[kind].suggest(lambda parameter, given=trial.params: given[parameter.key]))
        assert sorted(trial.params) == sorted(asked), "a condition decides what is asked"
        assert all(
            known[key].read(value) is not None or value in known[key].choices for key, value in trial.params.items()
        )
        assert trial.overrides == tuple(SPACES[kind].overrides(trial.params))
    assert not [record for record in caplog.records if "independent" in record.message]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_same_seed_gives_the_same_trials_also_after_a_stop(sampler: str, tmp_path: Path) -> None:
    kind = {"cmaes": "numbers", "grid": "countable, conditional"}.get(sampler, "conditional")
    whole = run(ledger(tmp_path / "whole", sampler, SPACES[kind]))
    parts: list[Trial] = []
    for count in (3, 1, 2, 20):
        parts += run(ledger(tmp_path / "parts", sampler, SPACES[kind]), count)
    other = run(ledger(tmp_path / "other", sampler, SPACES[kind], seed=1))
    assert values(parts) == values(whole)
    assert values(other) != values(whole)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_processes_side_by_side_never_draw_the_same(sampler: str, tmp_path: Path) -> None:
    kind = {"grid": "countable"}.get(sampler, "numbers")
    hands = [ledger(tmp_path, sampler, SPACES[kind], n_trials=9) for _ in range(3)]
    taken = [hand.take() for _ in range(3) for hand in hands]
    drawn = [tuple(sorted(trial.params.items())) for trial in taken if trial]
    assert len(set(drawn)) == 9


def test_qmc_spreads_its_points_over_a_conditional_space(tmp_path: Path) -> None:
    trials = run(ledger(tmp_path, "qmc", SPACES["conditional"], n_trials=32))
    quarters = [sum(low <= trial.params["lr"] < 10 * low for trial in trials) for low in (1e-5, 1e-4, 1e-3, 1e-2)]
    assert quarters == [8, 8, 8, 8]
    assert sorted({trial.params["depth"] for trial in trials}) == [2, 3, 4, 5]
    assert sum(trial.params["model"] == "unet" for trial in trials) == 16


def test_tpe_learns_what_depends_on_a_choice(tmp_path: Path) -> None:
    hand = ledger(tmp_path, "tpe", SPACES["conditional"], n_trials=40)
    while trial := hand.take():
        rate = trial.params.get("max_lr", 1e-1)
        hand.complete(trial.number, [1.0 if rate < 1e-3 else 0.0])
    late = [row for row in hand.frame().tail(15).to_dict("records") if row["scheduler"] == "onecycle"]
    assert len(late) > 10, "the choice that can win"
    assert sum(row["max_lr"] < 1e-3 for row in late) > 0.6 * len(late), "where a third would be luck"


def test_a_grid_tries_every_point_once_and_then_the_search_is_over(tmp_path: Path) -> None:
    among = SPACES["countable, conditional"]
    hand = ledger(tmp_path, "grid", among, n_trials=1000)
    trials = run(hand)
    expected = [
        {"depth": depth, "drop": drop, "model": model, "scheduler": scheduler} | extra
        for depth, drop, model in product((2, 3), (0.1, 0.2, 0.3), ("unet", "unetpp"))
        for scheduler, extras in (("constant", [{}]), ("onecycle", [{"warmup": "1"}, {"warmup": "5"}]))
        for extra in extras
    ]
    assert len(trials) == len(expected) == 36
    assert all(point in values(trials) for point in expected)
    assert hand.over()
    assert len(hand.frame()) == 36
    assert values(trials[:3]) != list(grid_points(among))[:3], "shuffled, so that a part of it is a fair sample"


def test_a_point_of_a_grid_that_failed_for_good_is_replaced_where_there_are_others(tmp_path: Path) -> None:
    hand = ledger(tmp_path, "grid", SPACES["countable"], n_trials=4)
    first = hand.take()
    assert first
    hand.fail(first.number, "broken", retry=True)
    assert len(run(hand)) == 4
    assert first.params not in values(run(hand))


@pytest.mark.parametrize(("kind", "known"), [("sampler", samplers._SAMPLERS), ("pruner", samplers._PRUNERS)])
def test_every_option_that_is_named_exists_and_every_other_is_refused(kind: str, known: Any, tmp_path: Path) -> None:
    for name, (made_by, options) in known.items():
        signature = inspect.signature(made_by).parameters
        assert set(options) <= set(signature)
        with pytest.raises(ConfigError, match=f"hydra.sweeper.{kind}_options.seed is no option of {name}"):
            samplers.check(
                Settings(("a",), ("minimize",), 1, **{kind: name, f"{kind}_options": {"seed": 1}}), space("x=1,2")
            )


GOOD: dict[str, dict[str, Any]] = {
    "tpe": {"n_startup_trials": 5, "n_ei_candidates": 8, "multivariate": True, "group": True, "constant_liar": False},
    "gp": {"n_startup_trials": 5, "deterministic_objective": True},
    "cmaes": {"n_startup_trials": 2, "popsize": 6, "with_margin": True, "consider_pruned_trials": True},
    "random": {},
    "qmc": {"qmc_type": "halton", "scramble": False},
    "nsga2": {"population_size": 6, "mutation_prob": 0.1, "crossover_prob": 0.5, "swapping_prob": 0.4},
    "grid": {},
}


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_options_are_heeded(sampler: str, tmp_path: Path) -> None:
    kind = {"grid": "countable"}.get(sampler, "numbers")
    settings = Settings(("a",), ("minimize",), 8, sampler, GOOD[sampler])
    hand = Ledger("tune", tmp_path / "journal.log", settings, Process.this(), SPACES[kind])
    assert len(run(hand)) == 8


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"sampler": "tpee"}, "hydra.sweeper.sampler=tpee does not exist. Did you mean 'tpe'? Choose tpe, gp, cmaes"),
        ({"pruner": "medain"}, "hydra.sweeper.pruner=medain does not exist. Did you mean 'median'? Choose median"),
        ({"sampler_options": {"n_startup": 3}}, "n_startup is no option of tpe. Did you mean 'n_startup_trials'?"),
        ({"sampler_options": {"n_startup_trials": "ten"}}, "n_startup_trials is 'ten'; tpe takes int."),
        ({"sampler_options": {"n_startup_trials": True}}, "n_startup_trials is True; tpe takes int."),
        ({"sampler": "qmc", "sampler_options": {"qmc_type": "sobel"}}, "qmc_type='sobel'"),
        ({"sampler": "nsga2", "sampler_options": {"population_size": 1}}, "population_size"),
        (
            {"pruner": "hyperband", "pruner_options": {"max_resource": 1.5}},
            "max_resource is 1.5; hyperband takes str or int",
        ),
        ({"pruner": "wilcoxon", "pruner_options": {"p_threshold": 2}}, "p_threshold must be between 0 and 1"),
        ({"sampler": "random", "sampler_options": {"seed": 1}}, "seed is no option of random. It takes none."),
        (
            {"pruner": "median", "objectives": ("a", "b"), "directions": ("maximize",) * 2},
            "pruner=median compares trials",
        ),
        ({"sampler": "grid"}, "has no end of them"),
    ],
)
def test_faults_are_told(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        samplers.check(
            Settings(**{"objectives": ("a",), "directions": ("maximize",), "n_trials": 3} | settings), SPACES["numbers"]
        )
    assert said in str(caught.value)


def test_all_faults_are_told_at_once() -> None:
    settings = Settings(("a", "b"), ("maximize",) * 2, 3, "cmaes", {"popsise": 1}, "media", {})
    with pytest.raises(ConfigError) as caught:
        samplers.check(settings, SPACES["choices"])
    assert all(part in str(caught.value) for part in ("3 faults", "popsise", "media"))


def test_a_search_without_anything_to_vary_is_refused() -> None:
    with pytest.raises(ConfigError, match="n_trials=3 searches, but no key is varied"):
        samplers.check(Settings(("a",), ("maximize",), 3), None)


def test_a_grid_without_end_in_sight_is_refused() -> None:
    among = space(*(f"x{n}=range(0,10)" for n in range(6)))
    with pytest.raises(ConfigError, match="would try more than 100000 trials"):
        samplers.check(Settings(("a",), ("maximize",), 3, "grid"), among)
