import random
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from optuna.distributions import FloatDistribution, IntDistribution

from seg.config.options import CONF
from seg.errors import ConfigError
from seg.sweep.jobs import Parameter, Space, choice, read_space

OPTIONS = {"model": ["dynunet", "unet", "unetpp"], "attention": ["cbam", "none", "se"]}
GROUPS: Any = SimpleNamespace(get_group_options=lambda group, **_: OPTIONS.get(group, []))


@pytest.fixture
def loader() -> Iterator[Any]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield GlobalHydra.instance().config_loader()


def hydra_jobs(overrides: Sequence[str], params: Mapping[str, Any], loader: Any, folder: Path) -> list[list[str]]:
    """What Hydra's basic sweeper really gives its launcher."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper  # made anew by Hydra's search for plugins

    jobs: list[list[str]] = []

    def launch(batch: list[list[str]], initial_job_idx: int) -> list[Any]:
        jobs.extend(batch)
        return []

    sweeper = BasicSweeper(max_batch_size=None, params=dict(params))
    sweeper.config = OmegaConf.create({"hydra": {"sweep": {"dir": str(folder)}}})
    sweeper.hydra_context = SimpleNamespace(config_loader=loader)
    sweeper.launcher = SimpleNamespace(launch=launch)
    sweeper.validate_batch_is_legal = lambda batch: None
    sweeper.sweep(list(overrides))
    return jobs


def read(overrides: Sequence[str], params: Mapping[str, Any] | None = None, **when: Any) -> Space:
    return read_space(overrides, params or {}, when, GROUPS)


def grid(overrides: Sequence[str], params: Mapping[str, Any], loader: Any) -> list[list[str]]:
    space = read_space(overrides, params, {}, loader, grid=True)
    return [list(space.overrides(point)) for point in space.points()]


def in_any_order(jobs: list[list[str]]) -> list[list[str]]:
    """What does not vary comes first."""
    return [sorted(job) for job in jobs]


def override(parameter: Parameter, value: Any) -> str:
    return Space((parameter,)).overrides({parameter.key: value})[0]


def meaning(parameter: Parameter, value: Any) -> Any:
    """What a value of a YAML file means; None where it is refused."""
    try:
        return Space((parameter,)).starts([{parameter.key: value}])[0][parameter.key]
    except ConfigError:
        return None


def faults(function: Callable[..., Any], *arguments: Any, **when: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        function(*arguments, **when)
    return str(caught.value)


def value_of(override: str) -> Any:
    return OverridesParser.create().parse_override(override).value()


FORMS = [
    ["model=unet,unetpp", "attention=none,se,cbam"],
    ["seed=choice(1,2)", "dims=3"],
    ["seed=range(3)", "a=range(1,10,4)", "b=range(5,1,-2)"],
    ["a=range(0,1,0.1)"],
    ["a=range(0,0.9,0.3)", "b=range(1,0,-0.25)", "c=range(0.5,4)"],
    ["a=float(range(1,3))", "b=int(choice(1.7,2.2))", "c=str(1,2)", "d=bool(0,1)"],
    ["a=sort(3,1,2)", "b=sort(choice(x,z,y),reverse=true)", "c=sort(range(5,1,-1))"],
    ["a=tag(x,choice(1,2))", "b=tag(x,y,range(1,3))"],
    ["model=glob(*)", "attention=glob([s*,c*],exclude=se)"],
    ["+a=1,2", "++b=x,y", "~seed", "~dims=3"],
    ["group@package=a,b", "group/inner=c,d"],
    ["a='x,y','1',2", 'b="it\'s",choice', "c=choice('x y','1')", "d=x y,z"],
    ["a=[1,2],[3,'4']", "b={x:1,y:[2]},{x:2}", "c=null,true,1e-05,-0.0,1_000"],
    ["a=", "b='',x", "c=${seed},${oc.env:HOME}", "d=int(3.7)"],
    ["seed=1,2", "dims=3", "seed=3,4"],
    ["seed=3"],
    [],
]


@pytest.mark.parametrize("overrides", FORMS, ids=" ".join)
def test_a_grid_is_the_jobs_of_hydras_basic_sweeper(overrides: list[str], loader: Any, tmp_path: Path) -> None:
    assert in_any_order(grid(overrides, {}, loader)) == in_any_order(hydra_jobs(overrides, {}, loader, tmp_path))


def test_params_stand_before_the_command_line_which_wins(loader: Any, tmp_path: Path) -> None:
    params = {"seed": "1,2", "dims": 3, "trainer.precision": "fp32", "optimizer.lr": "choice(0.1,1e-3)", "check": True}
    overrides = ["model=unet,unetpp", "seed=5,6,7"]
    jobs = grid(overrides, params, loader)
    assert in_any_order(jobs) == in_any_order(hydra_jobs(overrides, params, loader, tmp_path))
    assert jobs[0] == ["dims=3", "trainer.precision=fp32", "check=True", "seed=5", "optimizer.lr=0.1", "model=unet"]


def test_params_may_be_lists_and_nested_sections(loader: Any) -> None:
    params = {
        "optimizer": {"lr": [0.1, 1e-05], "name": "a,b"},
        "resume": [None, "1", "x y", ""],
        "one": [3],
        "no": None,
    }
    assert grid(["seed=0"], params, loader) == [
        ["one=3", "no=null", "seed=0", f"optimizer.lr={lr}", f"optimizer.name={name}", f"resume={resume}"]
        for lr, name, resume in product(["0.1", "1e-05"], "ab", ["null", "'1'", "x\\ y", "''"])
    ]


@pytest.mark.parametrize("sweep", ["shuffle(1,2,3,4,5,6,7,8)", "shuffle(range(8))", "shuffle([1,2,3,4,5,6,7,8])"])
def test_a_shuffled_sweep_has_the_same_order_each_time(sweep: str, loader: Any, tmp_path: Path) -> None:
    random.seed(1)
    state = random.getstate()
    first, second = (grid([f"a={sweep}", "b=1,2"], {}, loader) for _ in range(2))
    assert random.getstate() == state
    assert first == second
    if "[" not in sweep:
        assert sorted(first) == sorted(hydra_jobs([f"a={sweep}", "b=1,2"], {}, loader, tmp_path))
        assert first != sorted(first)
        assert repr(read([f"a={sweep}"])) == repr(read([f"a={sweep}"]))


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)


@given(st.lists(PLAIN, min_size=2, max_size=4, unique_by=repr))
def test_values_of_a_list_are_read_by_hydra_as_they_stand_in_the_file(values: list[Any]) -> None:
    jobs = grid([], {"a": values}, None)
    assert repr([value_of(job[0]) for job in jobs]) == repr(values)


@given(st.sampled_from(["", "a", "b c", "1", "null", "tür", "it's", "\\", "x\\'", "a,b", "[", "${", "true "]))
def test_a_choice_is_found_by_its_value_in_the_file(value: str) -> None:
    (parameter,) = read([], {"a": [value, "other", 1, None, True, 2.0]}).parameters
    assert value_of(override(parameter, meaning(parameter, value))) == value
    assert [meaning(parameter, known) for known in (1, None, True, 2.0)] == ["1", "null", "True", "2.0"]
    assert [meaning(parameter, unknown) for unknown in (1.0, 2, False, "others", [1])] == [None] * 5


HUNDREDTHS = st.integers(-500, 500).map(lambda n: n / 100)


@given(HUNDREDTHS, st.integers(1, 300).map(lambda n: n / 100), st.integers(1, 25))
def test_a_range_of_floats_holds_exactly_hydras_values(start: float, step: float, count: int) -> None:
    sweep = f"a=range({start},{start + (count - 0.5) * step},{step})"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (parameter,) = read([sweep]).parameters
    hydras = [job[0] for job in grid([sweep], {}, None)]
    among = parameter.distribution
    assert isinstance(among, FloatDistribution)
    drawn = [round(among.low + n * step, 9) for n in range(len(hydras))]
    assert drawn == [round(value_of(line), 9) for line in hydras]
    assert among.high == pytest.approx(drawn[-1])
    assert meaning(parameter, among.low + 0.4 * step) is None
    assert meaning(parameter, among.high + step) is None


@given(st.integers(-20, 20), st.integers(-20, 20), st.integers(-7, 7).filter(bool))
def test_a_range_of_whole_numbers_holds_exactly_hydras_values(start: int, stop: int, step: int) -> None:
    values = sorted(range(start, stop, step))
    if not values:
        assert "holds no value" in faults(read, [f"a=range({start},{stop},{step})"])
        return
    (parameter,) = read([f"a=range({start},{stop},{step})"]).parameters
    among = parameter.distribution
    assert isinstance(among, IntDistribution)
    assert list(range(among.low, among.high + 1, among.step)) == values
    assert [number for number in range(-30, 30) if meaning(parameter, number) is not None] == values


def test_a_falling_range_of_floats_rises() -> None:
    (parameter,) = read(["a=range(1,0,-0.25)"]).parameters
    assert parameter.distribution == FloatDistribution(0.25, 1.0, step=0.25)


@pytest.mark.parametrize(
    ("sweep", "low", "high", "log", "integer"),
    [
        ("interval(1,5)", 1, 5, False, True),
        ("interval(1.0,5)", 1.0, 5.0, False, False),
        ("float(interval(0,1))", 0.0, 1.0, False, False),
        ("int(interval(1.5,5.5))", 1, 5, False, True),
        ("tag(log,interval(1e-4,1))", 1e-4, 1.0, True, False),
        ("tag(log,interval(1,64))", 1, 64, True, True),
        ("int(tag(log,interval(1.0,64)))", 1, 64, True, True),
        ("interval(start=-1.5,end=2.5)", -1.5, 2.5, False, False),
    ],
)
def test_an_interval_is_whole_where_both_bounds_are(
    sweep: str, low: float, high: float, log: bool, integer: bool
) -> None:
    kind = IntDistribution if integer else FloatDistribution
    expected = Parameter("a.b", sweep, kind(low, high, log), "++")  # type: ignore[arg-type]
    for space in (read([f"++a.b={sweep}"]), read([], {"++a.b": sweep})):
        assert space == Space((expected,))


def test_a_number_is_read_within_its_bounds_only() -> None:
    whole, real = read(["a=interval(1,5)", "b=interval(0.1,0.5)"]).parameters
    assert [meaning(whole, value) for value in (1, "2", 0, 6, 2.5, True, None, [2])] == [1, 2, *[None] * 6]
    assert [meaning(real, value) for value in (0.1, 0.333, "0.2", 0.6, 0, "x")] == [0.1, 0.333, 0.2, *[None] * 3]


def test_a_space_keeps_what_does_not_vary_and_the_prefixes() -> None:
    space = read(["model=glob(un*)", "dims=2", "+a='1','x y'", "~seed"], {"group@package": "c,d", "dims": "2,3"})
    assert [parameter.choices for parameter in space.parameters] == [("c", "d"), ("unet", "unetpp"), ("'1'", "'x y'")]
    assert space.fixed == ("dims=2", "~seed=null")
    assert space.overrides({"group@package": "d", "model": "unetpp", "a": "'1'"}) == (
        "dims=2", "~seed=null", "group@package=d", "model=unetpp", "+a='1'"
    )  # fmt: skip
    with pytest.raises(KeyError):
        space.overrides({"modle": "unet"})


def test_a_choice_stands_once_and_a_sorted_one_in_order() -> None:
    space = read(["a=sort(c,a,b,a)", "b=x,y,x"])
    assert [parameter.choices for parameter in space.parameters] == [("a", "b", "c"), ("x", "y")]


def test_the_command_line_wins_over_params_whatever_the_prefix() -> None:
    space = read(["++optimizer.lr=0.1,0.2"], {"optimizer.lr": "tag(log,interval(1e-4,1))", "seed": "1,2"})
    assert [(one.prefix, one.key, one.choices) for one in space.parameters] == [
        ("++", "optimizer.lr", ("0.1", "0.2")),
        ("", "seed", ("1", "2")),
    ]


SCHEDULES = {
    "scheduler.max_lr": "tag(log,interval(1e-3,1e-1))",
    "scheduler": "choice(constant,poly,onecycle)",
    "scheduler.power": "interval(0.5,2.0)",
}
WHEN = {"scheduler.max_lr": {"scheduler": "onecycle"}, "scheduler.power": {"scheduler": ["poly", "onecycle"]}}


def test_a_conditional_parameter_is_asked_only_where_its_condition_holds() -> None:
    space = read([], SCHEDULES, **WHEN)
    assert [parameter.key for parameter in space.parameters] == ["scheduler", "scheduler.max_lr", "scheduler.power"]
    asked = {
        values["scheduler"]: list(values)
        for values in (space.suggest(lambda p, s=s: s) for s in ("constant", "poly", "onecycle"))
    }
    assert asked == {
        "constant": ["scheduler"],
        "poly": ["scheduler", "scheduler.power"],
        "onecycle": ["scheduler", "scheduler.max_lr", "scheduler.power"],
    }


@pytest.mark.parametrize(
    ("overrides", "asked"),
    [
        (["scheduler=onecycle"], {"scheduler", "scheduler.max_lr", "scheduler.power"}),
        (["scheduler=poly"], {"scheduler", "scheduler.power"}),
        (["scheduler=constant", "seed=1,2"], {"scheduler", "seed"}),
        (["scheduler=poly,constant"], {"scheduler", "scheduler.power"}),
        (["scheduler.max_lr=0.5"], {"scheduler", "scheduler.max_lr", "scheduler.power"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_conditions_hold_where_the_command_line_fixes_or_narrows_a_study(overrides: list[str], asked: set[str]) -> None:
    space = read(overrides, SCHEDULES, **WHEN)
    assert {line.split("=")[0] for example in examples(space) for line in example} == asked
    for example in examples(space):
        lines = dict(line.split("=") for line in example)
        assert ("scheduler.max_lr" in lines) == (lines["scheduler"] == "onecycle")


def examples(space: Space) -> list[list[str]]:
    return [list(space.overrides(values)) for values in space.examples()]


def test_conditions_may_be_chained_and_several() -> None:
    space = read(
        ["d=interval(0.0,1.0)", "c=u,v", "b=1,2,3", "a=x,y", "z=1,2"],
        d={"c": "v", "a": "x"}, c={"b": [2, 3]}, b={"a": "x"},
    )  # fmt: skip
    assert [parameter.key for parameter in space.parameters].index("d") == 4
    found = examples(space)
    assert {line for example in found for line in example} == {
        "a=x", "a=y", "b=1", "b=2", "b=3", "c=u", "c=v", "d=0.0", "d=1.0", "z=1", "z=2"
    }  # fmt: skip
    assert len(found) <= 8


def test_what_can_never_be_asked_does_not_hold_up_the_examples() -> None:
    space = read(["a=1,2", "b=x,y", "c=p,q"], b={"a": 1}, c={"a": 2, "b": "x"})
    assert {line for example in examples(space) for line in example} == {"a=1", "a=2", "b=x", "b=y"}


@st.composite
def spaces(draw: st.DrawFn) -> Space:
    parameters: list[Parameter] = []
    for number in range(draw(st.integers(1, 5))):
        known = [parameter for parameter in parameters if parameter.choices]
        others = draw(st.lists(st.sampled_from(known), max_size=2, unique_by=lambda p: p.key)) if known else []
        when = {p.key: tuple(draw(st.lists(st.sampled_from(p.choices), min_size=1, unique=True))) for p in others}
        texts = "pqr"[: draw(st.integers(0, 3))]
        among = choice("", texts).distribution if texts else FloatDistribution(0.25, 0.75)
        parameters.append(Parameter(f"k{number}", "", among, when=when))
    return Space(tuple(parameters), ("seed=0",))


def every_trial(space: Space) -> list[dict[str, Any]]:
    trials: list[dict[str, Any]] = [{}]
    for parameter in space.parameters:
        asked = [all(trial.get(key) in values for key, values in parameter.when.items()) for trial in trials]
        trials = [
            {**trial, **extra}
            for trial, holds in zip(trials, asked, strict=True)
            for extra in ([{parameter.key: end} for end in parameter.ends] if holds else [{}])
        ]
    return trials


@pytest.mark.slow
@given(spaces())
def test_examples_are_trials_that_use_every_end_that_can_be_reached(space: Space) -> None:
    possible = every_trial(space)
    found = examples(space)
    assert {tuple(example) for example in found} <= {space.overrides(trial) for trial in possible}
    assert {line for example in found for line in example} == {
        line for trial in possible for line in space.overrides(trial)
    }
    assert len(found) <= sum(len(parameter.ends) for parameter in space.parameters)


def test_examples_of_a_real_space_compose(loader: Any) -> None:
    space = read_space(
        ["model=glob(un*)", "+tracking.tags.note='a b','1'", "seed=range(1,4)"],
        {"optimizer.lr": "tag(log,interval(1e-5,1e-1))", "attention": ["none", "se"], "scheduler": "poly,constant"}
        | {"scheduler.power": "interval(0.5,2.0)"},
        {"scheduler.power": {"scheduler": "poly"}},
        loader,
    )
    rates, notes = set(), set()
    for overrides in examples(space):
        cfg = compose("train", overrides=overrides)
        rates.add(cfg.optimizer.lr)
        notes.add(cfg.tracking.tags.note)
        assert ("power" in cfg.scheduler) == ("scheduler=poly" in overrides)
    assert rates == {1e-5, 1e-1}
    assert notes == {"a b", "1"}


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["a=interval(5,1)"], ["a=interval(5,1)", "low=5, high=1"]),
        (["a=interval(0.0,inf)"], ["finite number", "interval(0.1,0.5)"]),
        (["a=interval(nan,1)"], ["finite number"]),
        (["a=tag(log,interval(0,4))"], ["a=tag(log,interval(0,4))", "low=0"]),
        (["a=interval(0,1)"], ["just 0 and 1", "interval(0.0,1.0)"]),
        (["a=tag(lgo,interval(1,4))"], ["tag lgo", "tag(log,interval(…))"]),
        (["a=tag(log,choice(1,4))"], ["tag log would be ignored"]),
        (["a=tag(log,range(1,4))"], ["tag log would be ignored"]),
        (["a=interval(1)"], ["a=interval(1)", "missing a required argument: 'end'"]),
        (["a=interval(x,1)"], ["a=interval(x,1)", "str is incompatible"]),
        (["a=choice()"], ["empty choice is not legal"]),
        (["a=tür,x"], ["a=tür,x"]),
        (["a=range(0,1,0)"], ["must not be zero"]),
        (["a=range(0,1.0,0)"], ["Invalid range values"]),
        (["a=range(0,inf,1)"], ["range are finite"]),
        (["a=range(3,3)"], ["a=range(3,3)", "holds no value"]),
        (["model=glob(x*)"], ["model=glob(x*)", "holds no value", "among options"]),
        (["a=[choice(1,2)]"], ["inside a list or another sweep"]),
        (["a=choice(1,2),3"], ["inside a list or another sweep"]),
        (["hydra.job.num=1,2"], ["hydra.job.num=1,2", "take one value"]),
        (["hydra/launcher=glob(*)"], ["hydra/launcher=glob(*)", "take one value"]),
    ],
    ids=" ".join,
)
def test_what_cannot_be_searched_is_refused(overrides: list[str], words: list[str]) -> None:
    key, _, sweep = overrides[0].partition("=")
    for said in (faults(read, ["z=1,2", *overrides]), faults(read, ["z=1,2"], {key: sweep})):
        assert "faults" not in said
        assert all(word in said for word in words), said


@pytest.mark.parametrize(
    ("overrides", "params", "words"),
    [
        (["seed=1"], {"model": "unet"}, "at least one key"),
        ([], {}, "at least one key"),
        (["b=1,2"], {"a": []}, "empty choice is not legal"),
    ],
)
def test_one_key_at_least_varies(overrides: list[str], params: dict[str, Any], words: str) -> None:
    said = faults(read, overrides, params)
    assert words in said
    assert "faults" not in said


@pytest.mark.parametrize(
    ("when", "words"),
    [
        ({"attentoin": {"model": "unet"}}, ["when.attentoin names attentoin", "Did you mean 'attention'?"]),
        ({"attention": {"modle": "unet"}}, ["when.attention names modle", "Did you mean 'model'?"]),
        ({"attention": {"model": "unnet"}}, ["unnet is not a choice of model", "unet, unetpp"]),
        ({"attention": {"model": ["unet", "x", 1]}}, ["['unet', 'x', 1] is not a choice of model"]),
        ({"attention": {"model": []}}, ["is not a choice of model"]),
        ({"attention": {"lr": 0.1}}, ["0.1 is not a choice of lr", "only choice(…) can be named"]),
        ({"attention": {"depth": 2}}, ["2 is not a choice of depth", "only choice(…) can be named"]),
        ({"attention": "unet"}, ["when.attention is 'unet'", "{model: unetpp}"]),
        ({"attention": {"attention": "se"}}, ["circular: attention → attention"]),
        ({"attention": {"model": "unet"}, "model": {"attention": "se"}}, ["circular: ", "attention → model"]),
    ],
)
def test_a_condition_that_cannot_hold_is_refused(when: dict[str, Any], words: list[str]) -> None:
    space = ["model=unet,unetpp", "attention=none,se", "lr=interval(0.1,0.2)", "depth=range(1,4)"]
    said = faults(read, space, **when)
    assert "faults" not in said
    assert all(word in said for word in words), said


def test_all_faults_are_told_at_once() -> None:
    said = faults(read, ["a=interval(2,1)", "a=1", "b=1,2", "c=tag(x,interval(1,5))"], {"d": "2"}, b={"e": 1}, f=3)
    assert said.startswith("3 faults:")  # a is the fixed one in the end
    said = faults(read, ["a=choice(", "b=interval(2,1)", "b=1", "hydra.x=1,2"], {"c": "range(1,1)"}, b={"a": 1})
    assert said.startswith("3 faults:")  # what cannot be read is not missed a second time, by the condition


@pytest.mark.parametrize("sweep", ["interval(1,5)", "tag(log,interval(1e-4,1e-1))", "int(interval(1,5))"])
def test_a_grid_takes_no_interval(sweep: str) -> None:
    for arguments in (([f"a={sweep}", "b=1,2"], {}), (["b=1,2"], {"a": sweep})):
        said = faults(grid, *arguments, None)
        assert f"a={sweep}: a grid takes no interval(…)" in said
        assert "hydra.sweeper.n_trials=…" in said


def test_a_grid_without_any_job_is_refused(loader: Any) -> None:
    assert "model=glob(x*): it holds no value" in faults(grid, ["model=glob(x*)", "seed=1,2"], {}, loader)
    said = faults(grid, ["a=range(3,3)", "hydra.job.num=1,2", "b=interval(1,2)"], {"c": "choice()"}, loader)
    assert said.startswith("3 faults:")


def test_a_grid_leaves_out_what_a_condition_excludes() -> None:
    space = read_space(["depth=range(2,4)", "s=u,v", "warmup=1,5"], {}, {"warmup": {"s": "v"}}, None, grid=True)
    assert space.points() == [
        {"depth": depth, "s": s} | extra
        for depth in ("2", "3")
        for s, extras in (("u", [{}]), ("v", [{"warmup": "1"}, {"warmup": "5"}]))
        for extra in extras
    ]


def test_a_search_says_at_once_which_of_its_starts_it_cannot_reach() -> None:
    space = read(
        ["lr=tag(log,interval(1e-5,1e-1))", "depth=range(2,6)", "model=unet,swin", "max_lr=interval(0.1,0.2)"],
        max_lr={"model": "unet"},
    )
    starts: list[dict[str, Any]] = [{"modle": "unet"}, {"model": "vnet"}, {"depth": 7}, {"lr": "fast"}]
    starts += [{"model": "swin", "max_lr": 0.15}]
    said = faults(space.starts, starts)
    for part in ("5 faults", "Did you mean 'model'", "model=vnet", "depth=7", "lr=fast", "max_lr is not searched"):
        assert part in said
    assert space.starts([{"depth": "5", "lr": "1e-2", "model": "swin"}]) == [{"depth": 5, "lr": 0.01, "model": "swin"}]
