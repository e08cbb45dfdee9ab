"""The loop on a network of one layer: what it tells where a budget ends otherwise than planned."""

import itertools
import time
from typing import Any

import pytest
import torch

from seg.engine.device import Precision
from seg.engine.loop import Hooks, Settings, Training, fit
from seg.engine.progress import Budget
from seg.schedulers import warmup_cosine


def test_a_run_whose_first_validation_leaves_no_time_for_a_second_says_so(caplog: pytest.LogCaptureFixture) -> None:
    network, off = torch.nn.Conv3d(1, 2, 1), torch.amp.GradScaler("cpu", enabled=False)
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    training = Training(network, network, optimizer, warmup_cosine(optimizer, 10_000), off, None)
    batch: Any = {"image": torch.randn(1, 1, 4, 4, 4), "label": torch.zeros(1, 4, 4, 4), "case": ["a"]}

    def validate(network: torch.nn.Module) -> dict[str, float]:
        time.sleep(0.7)
        return {"val_dice": 0.8, "val_loss": 0.1}

    hooks = Hooks(validate, lambda progress, loss: None, lambda numbers: False, lambda name: None, lambda: False)
    mean: Any = lambda logits, label: logits.square().mean()  # noqa: E731
    settings = Settings(Precision(torch.device("cpu"), None), 1, 1, None, 1, 1)
    fit(training, Budget(None, 0.02, 10), itertools.repeat(batch), mean, settings, hooks)
    assert training.progress.step == 10
    assert "% of its schedule: a validation took 1 s" in caplog.text
