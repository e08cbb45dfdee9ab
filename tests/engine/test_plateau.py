"""A run whose validation Dice rises no more, and the rest of its schedule."""

import itertools
import math
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seg.engine.device import Precision
from seg.engine.loop import Hooks, Settings, Training, fit
from seg.engine.progress import Budget, Progress, has_plateaued, rest_of
from seg.errors import InterruptedRunError
from seg.schedulers import warmup_cosine


def validations(dice: Callable[[int], float], count: int) -> list[dict[str, float]]:
    """So many epochs' numbers; only every second epoch validates."""
    return [{"epoch": n} | ({"val_dice": dice(n // 2)} if n % 2 else {}) for n in range(2 * count)]


@pytest.mark.parametrize(
    ("dice", "count", "ended"),
    [
        (lambda n: 0.8, 8, False),  # too few to say
        (lambda n: 0.8, 9, True),
        (lambda n: 0.5 + 0.01 * n, 40, False),
        (lambda n: 0.9 - 0.6 * math.exp(-n / 5), 15, False),
        (lambda n: 0.9 - 0.6 * math.exp(-n / 5), 75, True),
        (lambda n: 0.8 + 0.02 * (-1) ** n + 0.004 * n, 18, False),  # rises by less than it swings
        (lambda n: 0.8 + 0.02 * (-1) ** n, 18, True),
        (lambda n: 0.9 - 0.01 * n, 12, True),  # falls
        (lambda n: 0.0, 30, False),  # has not begun
    ],
)
def test_when_the_validation_dice_has_stopped_improving(dice: Callable[[int], float], count: int, ended: bool) -> None:
    assert has_plateaued(validations(dice, count)) == ended


@given(
    steps=st.one_of(st.none(), st.integers(10, 1000)),
    minutes=st.one_of(st.none(), st.floats(0.1, 20)),
    share=st.floats(0.05, 0.95),
    pace=st.floats(1, 5),
)
def test_the_rest_of_a_schedule_is_whole_and_no_longer(
    steps: int | None, minutes: float | None, share: float, pace: float
) -> None:
    if steps is None and minutes is None:
        steps = 1000
    budget = Budget(steps, minutes, 10)
    progress = Progress()
    while budget.done(progress) < share:  # as a run at this pace
        progress.step += 1
        progress.seconds += pace
    if budget.spent(progress):
        return
    since, before = progress.step, budget.schedule_step(progress)
    progress.plateau = since, budget.done(progress)
    places = []
    while not budget.spent(progress):
        expected = budget.remaining_seconds(progress, 1 / pace)
        assert expected <= (since + rest_of(since) - progress.step) * pace + 1e-6
        progress.step += 1
        progress.seconds += pace
        places.append(budget.schedule_step(progress))
    assert len(places) <= rest_of(since)
    assert before <= places[0] + 1
    assert places == sorted(places)
    assert places[-1] == budget.schedule_steps, "the schedule is run through to its end"


@pytest.mark.parametrize("stopped", [None, 110])
def test_a_run_ends_early_with_the_rates_of_the_schedules_end(stopped: int | None) -> None:
    torch.manual_seed(0)
    network, off = torch.nn.Conv3d(1, 2, 1), torch.amp.GradScaler("cpu", enabled=False)
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    schedule = warmup_cosine(optimizer, 300, warmup_fraction=0.0)
    training = Training(network, network, optimizer, schedule, off, None)
    batch = {"image": torch.randn(1, 1, 4, 4, 4), "label": torch.zeros(1, 4, 4, 4), "case": ["a"]}
    rates: list[float] = []
    hooks = Hooks(
        validate=lambda network: {"val_dice": 0.8, "val_loss": 0.1},
        on_step=lambda progress, loss: rates.append(optimizer.param_groups[0]["lr"]),
        on_epoch=lambda numbers: False,
        save=lambda name: None,
        interrupted=lambda: len(rates) + 1 == stopped,
    )
    settings = Settings(Precision(torch.device("cpu"), None), 1, 1, None, 1, 1, "plateau")

    def train() -> None:
        mean: Any = lambda logits, label: logits.square().mean()  # noqa: E731
        fit(training, Budget(300, None, 10), itertools.repeat(batch), mean, settings, hooks)  # type: ignore[arg-type]

    if stopped:  # while it finishes its schedule
        with pytest.raises(InterruptedRunError):
            train()
        training.progress = Progress(**asdict(training.progress))  # as a checkpoint keeps it
    train()
    assert training.progress.plateau == (100, 1 / 3), "a third of the budget, and ten validations"
    assert training.progress.step == 133
    assert rates[99] == pytest.approx(0.5 * (1 + math.cos(math.pi / 3)), abs=0.01)
    assert rates[-1] == pytest.approx(0, abs=1e-6)
    assert rates == sorted(rates, reverse=True)
