"""The scheduler contract, held by every option of conf/scheduler, and each curve against PyTorch's."""

import pytest
import torch
from hydra.utils import instantiate
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from torch.optim import lr_scheduler

from seg import schedulers
from seg.config.options import CONF
from seg.errors import ConfigError

SCHEDULERS = sorted(path.stem for path in (CONF / "scheduler").glob("*.yaml"))
EACH = pytest.mark.parametrize("name", SCHEDULERS)
PEAK = 0.1


def _optimizer(lr=PEAK):
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)


def _scheduler(name, optimizer, steps, **changes):
    node = OmegaConf.load(CONF / "scheduler" / f"{name}.yaml")
    return instantiate(node, _convert_="all", **changes)(optimizer, steps)


def _curve(scheduler, steps, metrics=()):
    """The rate of each step; the metric of step n is reported after it."""
    rates = []
    for step in range(steps):
        rates.append(scheduler.optimizer.param_groups[0]["lr"])
        scheduler.optimizer.step()
        scheduler.step()
        if step < len(metrics) and hasattr(scheduler, "report"):
            scheduler.report(metrics[step])
    return rates


METRICS = [0.1, 0.5, *[0.5] * 30, 0.6, *[0.4] * 30]


@EACH
@settings(max_examples=20, deadline=None)
@given(steps=st.integers(1, 80), warmup=st.sampled_from([0.0, 0.1, 0.5]))
def test_rate_stays_between_zero_and_the_optimizers_even_past_the_end(name, steps, warmup):
    scheduler = _scheduler(name, _optimizer(), steps, warmup_fraction=warmup)
    rates = _curve(scheduler, steps + 20, METRICS)
    assert all(0 <= rate <= PEAK * (1 + 1e-9) for rate in rates)
    if not hasattr(scheduler, "report"):
        assert len(set(rates[steps:])) == 1


@EACH
@settings(max_examples=15, deadline=None)
@given(steps=st.integers(2, 60), stop=st.integers(0, 59), warmup=st.sampled_from([0.0, 0.2]))
def test_resumed_midway_it_gives_the_same_curve(name, steps, stop, warmup):
    stop = min(stop, steps)
    whole = _curve(_scheduler(name, _optimizer(), steps, warmup_fraction=warmup), steps, METRICS)
    first = _scheduler(name, _optimizer(), steps, warmup_fraction=warmup)
    begun = _curve(first, stop, METRICS)
    second = _scheduler(name, _optimizer(), steps, warmup_fraction=warmup)
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    second.load_state_dict(first.state_dict())
    assert begun + _curve(second, steps - stop, METRICS[stop:]) == whole


@EACH
def test_state_can_be_loaded_as_weights_only(name, tmp_path):
    scheduler = _scheduler(name, _optimizer(), 10)
    torch.save(scheduler.state_dict(), tmp_path / "state.pt")
    assert torch.load(tmp_path / "state.pt", weights_only=True)["last_epoch"] == 0


@EACH
@given(steps=st.lists(st.integers(0, 100), min_size=1, max_size=8))
@settings(max_examples=15, deadline=None)
def test_advance_goes_to_any_step(name, steps):
    whole = _curve(_scheduler(name, _optimizer(), 100), 101)
    scheduler = _scheduler(name, _optimizer(), 100)
    for step in steps:
        schedulers.advance(scheduler, step)
        assert scheduler.optimizer.param_groups[0]["lr"] == whole[step]


@EACH
def test_warmup_multiplies_a_linear_rise(name):
    plain = _curve(_scheduler(name, _optimizer(), 40, warmup_fraction=0.0), 40)
    risen = _curve(_scheduler(name, _optimizer(), 40, warmup_fraction=0.25), 40)
    expected = [rate * min(1, (step + 1) / 10) for step, rate in enumerate(plain)]
    assert risen == pytest.approx(expected)


@EACH
def test_every_group_keeps_its_own_rate(name):
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (0.1, 0.01)]
    optimizer = torch.optim.SGD(groups)
    scheduler = _scheduler(name, optimizer, 20)
    schedulers.advance(scheduler, 7)
    first, second = (group["lr"] for group in optimizer.param_groups)
    assert first == pytest.approx(10 * second)


def _reference(make, steps):
    return _curve(make(_optimizer()), steps)


@pytest.mark.parametrize("steps", [1, 2, 37, 200])
def test_cosine_is_pytorchs(steps):
    ours = _curve(schedulers.warmup_cosine(_optimizer(), steps, warmup_fraction=0.0, min_factor=0.05), steps)
    theirs = _reference(lambda o: lr_scheduler.CosineAnnealingLR(o, steps, eta_min=0.05 * PEAK), steps)
    assert ours == pytest.approx(theirs)


@pytest.mark.parametrize("steps", [5, 37, 200])
@pytest.mark.parametrize("rise", [0.25, 0.3, 0.5])
def test_onecycle_is_pytorchs(steps, rise):
    ours = _curve(schedulers.onecycle(_optimizer(), steps, rise_fraction=rise), steps)
    theirs = _reference(
        lambda o: lr_scheduler.OneCycleLR(o, PEAK, total_steps=steps, pct_start=rise, cycle_momentum=False), steps
    )
    assert ours == pytest.approx(theirs)


@pytest.mark.parametrize("power", [0.9, 2.0])
def test_poly_is_pytorchs(power):
    ours = _curve(schedulers.poly(_optimizer(), 50, power=power), 50)
    assert ours == pytest.approx(_reference(lambda o: lr_scheduler.PolynomialLR(o, 50, power), 50))


@pytest.mark.parametrize(("growth", "first", "cycles"), [(1, 10, 4), (2, 10, 3), (2, 7, 4), (3, 5, 3)])
def test_restarts_are_pytorchs(growth, first, cycles):
    steps = sum(first * growth**n for n in range(cycles))
    ours = _curve(schedulers.cosine_restarts(_optimizer(), steps, cycles=cycles, growth=growth, min_factor=0.1), steps)
    theirs = _reference(lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, first, growth, eta_min=0.1 * PEAK), steps)
    assert ours == pytest.approx(theirs)
    scheduler = schedulers.cosine_restarts(_optimizer(), steps, cycles=cycles, growth=growth)
    schedulers.advance(scheduler, steps)
    assert scheduler.get_last_lr()[0] == pytest.approx(0, abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(metrics=st.lists(st.sampled_from([0.1, 0.2, 0.20005, 0.3, 0.4]), max_size=40), patience=st.integers(0, 4))
def test_adaptive_is_pytorchs_reduce_on_plateau(metrics, patience):
    ours = schedulers.adaptive(_optimizer(), 100, factor=0.3, patience=patience, min_factor=0.01)
    theirs = lr_scheduler.ReduceLROnPlateau(
        _optimizer(), "max", 0.3, patience, threshold=1e-4, threshold_mode="abs", min_lr=0.01 * PEAK
    )
    for metric in metrics:
        ours.report(metric)
        theirs.step(metric)
        assert ours.get_last_lr() == pytest.approx(theirs.get_last_lr())


def test_adaptive_ignores_a_metric_that_is_no_number():
    scheduler = schedulers.adaptive(_optimizer(), 100, patience=1)
    for metric in (0.5, float("nan"), float("nan")):
        scheduler.report(metric)
    assert scheduler.best == 0.5
    assert scheduler.get_last_lr() == [PEAK / 2]


@pytest.mark.parametrize(
    ("build", "arguments", "says"),
    [
        (schedulers.constant, {"warmup_fraction": 1.0}, "warmup_fraction=1.0"),
        (schedulers.onecycle, {"rise_fraction": 0.0}, "rise_fraction is 0.0"),
        (schedulers.cosine_restarts, {"cycles": 0}, "cycles=0"),
        (schedulers.adaptive, {"factor": 1.5}, "factor is 1.5"),
    ],
)
def test_wrong_arguments_are_explained(build, arguments, says):
    with pytest.raises(ConfigError, match=says):
        build(_optimizer(), 10, **arguments)
