"""Learning-rate schedules ``f(optimizer, total_steps, …) -> LambdaLR``, stepped once per optimizer step.

Each multiplies the optimizer's own rate, the largest of the run, by a factor from 0 to 1 that depends on the share of
steps done, and by a linear rise over the first ``warmup_fraction`` of all steps. Past the end the rate stays as it is.
"""

import bisect
import math
from collections.abc import Callable

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from seg.errors import ConfigError


def constant(optimizer: Optimizer, total_steps: int, *, warmup_fraction: float = 0.0) -> LambdaLR:
    """The same rate throughout."""
    return _schedule(optimizer, total_steps, warmup_fraction, lambda done: 1.0)


def warmup_cosine(
    optimizer: Optimizer, total_steps: int, *, warmup_fraction: float = 0.05, min_factor: float = 0.0
) -> LambdaLR:
    """Half a cosine from the full rate to ``min_factor`` of it, under a warm-up.

    Source: Loshchilov & Hutter, SGDR, ICLR 2017, eq. 5, without restarts.
    """
    return _schedule(optimizer, total_steps, warmup_fraction, lambda done: _cosine(1.0, min_factor, done))


def poly(optimizer: Optimizer, total_steps: int, *, warmup_fraction: float = 0.0, power: float = 0.9) -> LambdaLR:
    """(1 - share done) to a power, nnU-Net's. Source: Isensee et al., nnU-Net, Nature Methods 2021."""
    return _schedule(optimizer, total_steps, warmup_fraction, lambda done: (1 - done) ** power)


def onecycle(
    optimizer: Optimizer,
    total_steps: int,
    *,
    warmup_fraction: float = 0.0,
    rise_fraction: float = 0.3,  # share of the steps in which the rate rises
    start_factor: float = 0.04,
    end_factor: float = 4e-6,
) -> LambdaLR:
    """Up to the full rate and down to almost nothing, both along half a cosine; momentum stays.

    Source: Smith & Topin, Super-convergence, 2018; step for step PyTorch's OneCycleLR.
    """
    if not 0 < rise_fraction < 1:
        raise ConfigError(f"scheduler.rise_fraction is {rise_fraction}; it must be between 0 and 1.")
    top, end = rise_fraction - 1 / total_steps, 1 - 1 / total_steps

    def curve(done: float) -> float:
        if done < top:
            return _cosine(start_factor, 1.0, done / top)
        return _cosine(1.0, end_factor, min(1.0, (done - top) / (end - top)))

    return _schedule(optimizer, total_steps, warmup_fraction, curve)


def cosine_restarts(
    optimizer: Optimizer,
    total_steps: int,
    *,
    warmup_fraction: float = 0.0,
    cycles: int = 3,
    growth: float = 2.0,  # length of a cycle relative to the one before
    min_factor: float = 0.0,
) -> LambdaLR:
    """``cycles`` half cosines, each starting again at the full rate, that end exactly with the run.

    Source: Loshchilov & Hutter, SGDR, ICLR 2017.
    """
    if cycles < 1 or growth <= 0:
        raise ConfigError(f"scheduler.cycles={cycles} and growth={growth}; they must be at least 1 and above 0.")
    lengths = [growth**n for n in range(cycles)]
    starts = [sum(lengths[:n]) / sum(lengths) for n in range(cycles)]

    def curve(done: float) -> float:
        n = bisect.bisect_right(starts, done) - 1
        return _cosine(1.0, min_factor, (done - starts[n]) * sum(lengths) / lengths[n])

    return _schedule(optimizer, total_steps, warmup_fraction, curve)


class Adaptive(LambdaLR):
    """Lowers the rate when the validation metric stops rising: PyTorch's ReduceLROnPlateau (max, abs) and a warm-up."""

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int,
        *,
        warmup_fraction: float = 0.0,
        factor: float = 0.5,
        patience: int = 5,  # validations without a better value that are tolerated
        threshold: float = 1e-4,  # a better value is better by more than this
        min_factor: float = 0.001,
    ) -> None:
        if not 0 < factor < 1:
            raise ConfigError(f"scheduler.factor is {factor}; it must be between 0 and 1.")
        self.factor, self.patience, self.threshold, self.min_factor = factor, patience, threshold, min_factor
        self.scale, self.best, self.waited = 1.0, -math.inf, 0
        warmup = _warmup(total_steps, warmup_fraction)
        super().__init__(optimizer, lambda step: self.scale * warmup(step))

    def report(self, metric: float) -> None:
        """Takes the validation metric (higher is better) and sets the rate at once."""
        self.waited += 1
        if metric > self.best + self.threshold:
            self.best, self.waited = metric, 0
        if self.waited > self.patience:
            self.scale, self.waited = max(self.scale * self.factor, self.min_factor), 0
            advance(self, self.last_epoch)


adaptive = Adaptive  # named as the option is


def advance(scheduler: LambdaLR, step: int) -> None:
    """Sets the rate of ``step``, wherever the schedule stood; the steps of a schedule over minutes are parts of it."""
    scheduler.last_epoch = step
    # Not scheduler.step(): it warns where the optimizer has not stepped, as under a scaler that skips the first step.
    rates = [base * factor(step) for base, factor in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)]
    for group, rate in zip(scheduler.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    scheduler._last_lr = rates


def _schedule(
    optimizer: Optimizer, total_steps: int, warmup_fraction: float, curve: Callable[[float], float]
) -> LambdaLR:
    warmup = _warmup(total_steps, warmup_fraction)
    return LambdaLR(optimizer, lambda step: warmup(step) * curve(min(1.0, step / total_steps)))


def _warmup(total_steps: int, fraction: float) -> Callable[[int], float]:
    if total_steps < 1 or not 0 <= fraction < 1:
        raise ConfigError(
            f"A schedule over {total_steps} steps with scheduler.warmup_fraction={fraction} cannot be made: it needs "
            "at least one step, and a share from 0 to below 1."
        )
    rise = max(1.0, fraction * total_steps)
    return lambda step: min(1.0, (step + 1) / rise)


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
