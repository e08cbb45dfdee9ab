"""The loop on a network of one layer: what it tells where a budget ends otherwise than planned."""

import itertools
import time
from typing import Any

import pytest
import torch

from seg.engine import loop
from seg.engine.device import Precision
from seg.engine.loop import Hooks, Settings, Training, fit
from seg.engine.progress import Budget
from seg.errors import InterruptedRunError, SegError
from seg.schedulers import warmup_cosine

SETTINGS = Settings(Precision(torch.device("cpu"), None), 1, 1, None, 1, 1)
BATCHES: Any = [{"image": torch.randn(1, 1, 4, 4, 4), "label": torch.zeros(1, 4, 4, 4), "case": ["a"]}]


def hooks(validate: Any = None, interrupted: Any = lambda: False, save: Any = lambda name: None) -> Hooks:
    return Hooks(validate, lambda progress, loss: None, lambda numbers: False, save, interrupted)


def small_training(**scaler: Any) -> Training:
    network = torch.nn.Conv3d(1, 2, 1)
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    scaling = torch.amp.GradScaler("cpu", **scaler)
    return Training(network, network, optimizer, warmup_cosine(optimizer, 10_000), scaling, None)


def mean_square(logits: torch.Tensor, label: torch.Tensor) -> Any:
    return logits.square().mean()


def no_gradient(logits: torch.Tensor, label: torch.Tensor) -> Any:
    """A loss of 0 whose gradient is infinite."""
    return (logits * 0).sqrt().mean()


@pytest.mark.parametrize("scaler", [{"enabled": False}, {"init_scale": 1.0}])
def test_a_gradient_that_stays_infinite_ends_the_run(scaler: dict[str, Any]) -> None:
    """In float16 only where no lower scale of the loss helps: single steps are skipped."""
    training = small_training(**scaler)
    with pytest.raises(SegError, match="gradient is not finite at step"):
        fit(training, Budget(50, None, 100), itertools.cycle(BATCHES), no_gradient, SETTINGS, hooks())
    assert training.progress.step == (0 if scaler.get("enabled") is False else 10)  # halved ten times to 1e-3


def test_an_interrupted_epoch_is_saved_with_the_numbers_of_all_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "gathered", lambda own: [own, own, own])
    training, saved = small_training(enabled=False), []

    def save(name: str) -> None:
        saved.append((training.progress.loss_steps, sum(training.progress.counts)))

    stop = hooks(interrupted=lambda: training.progress.step == 1, save=save)
    with pytest.raises(InterruptedRunError):
        fit(training, Budget(50, None, 100), itertools.cycle(BATCHES), mean_square, SETTINGS, stop)
    assert saved[0][0] == 3 * 2
    assert saved[0][1] % 3 == 0


def test_a_run_whose_first_validation_leaves_no_time_for_a_second_says_so(caplog: pytest.LogCaptureFixture) -> None:
    training = small_training(enabled=False)

    def validate(network: torch.nn.Module) -> dict[str, float]:
        time.sleep(0.7)
        return {"val_dice": 0.8, "val_loss": 0.1}

    fit(training, Budget(None, 0.02, 10), itertools.cycle(BATCHES), mean_square, SETTINGS, hooks(validate))
    assert training.progress.step == 10
    assert "% of its schedule: a validation took 1 s" in caplog.text
