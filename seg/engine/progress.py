"""Where a run stands, and how long it goes on."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from omegaconf import DictConfig

TIMED_STEPS = 10_000  # a schedule over minutes is divided into this many parts
DEFAULT_EPOCHS, LEAST_STEPS = 40, 25  # 1000 steps at least: fewer taught no network much (benchmarks/RESULTS.md)

LEAST_TO_PLATEAU = 9  # validations
_BEGUN, _RISE = 0.1, 0.002  # Dice


@dataclass
class Progress:
    """How far a run has got; all of it is in every checkpoint."""

    step: int = 0  # optimizer steps done
    epoch: int = 0  # epochs done
    seconds: float = 0.0  # of training so far, validation included
    lr: float = 0.0  # of the last step
    validation_seconds: float = 0.0  # of the last validation: kept free at the end of a budget in minutes
    best: float | None = None  # highest validation Dice
    best_epoch: int | None = None
    by_clock: bool = False  # the schedule follows the minutes of a budget that has steps, too
    plateau: tuple[int, float] | None = None  # the step, and the budget's share done, when validation rose no more
    ended: bool = False  # by a hook, before the budget was spent
    pruned: bool = False  # ended because other trials of the sweep were better at that epoch
    loss_sum: float = 0.0  # over the steps of the epoch under way
    loss_steps: int = 0
    counts: list[int] = field(default_factory=list)  # of the epoch: 2|pred ∩ label| by class, then |pred| + |label|
    history: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Budget:
    """How long a run trains: ``steps``, ``minutes`` of wall clock, or whichever of the two ends first.

    The schedule spans it exactly.
    """

    steps: int | None
    minutes: float | None
    steps_per_epoch: int

    @property
    def schedule_steps(self) -> int:
        """Length of the schedule."""
        return TIMED_STEPS if self.minutes is not None else self.steps or 0

    def schedule_step(self, progress: Progress) -> int:
        """Where the schedule stands: by the clock only where that ends the run, so that another run repeats itself."""
        if progress.plateau:
            return min(self.schedule_steps, int(self.schedule_steps * self.done(progress)))
        if self.minutes is None:
            return progress.step
        by_steps = self.steps is not None and not progress.by_clock
        done = progress.step / self.steps if by_steps and self.steps else self.done(progress)
        return min(TIMED_STEPS, int(TIMED_STEPS * done))

    def clock_ends_first(self, progress: Progress) -> bool:
        """Whether, at the speed so far, the minutes will be over before the steps."""
        whole = progress.seconds * (self.steps or 0) / progress.step
        return self.minutes is not None and (self.steps is None or whole > self._seconds(progress))

    def spent(self, progress: Progress) -> bool:
        """Whether the run is over."""
        return self.done(progress) >= 1

    def done(self, progress: Progress) -> float:
        """Share of the budget that is used up, from 0; 1 or more at the end."""
        steps = progress.step / self.steps if self.steps is not None else 0.0
        minutes = progress.seconds / max(1e-3, self._seconds(progress)) if self.minutes is not None else 0.0
        if progress.plateau is None:
            return max(steps, minutes)
        since, share = progress.plateau
        return max(steps, minutes, 1 - (1 - share) * (1 - (progress.step - since) / rest_of(since)))

    def may_plateau(self, progress: Progress) -> bool:
        """Whether the run has plateaued, in the second or last third of its budget: some structures are found late."""
        return 1 / 3 <= self.done(progress) < 1 and has_plateaued(progress.history)

    def remaining_seconds(self, progress: Progress, speed: float) -> float:
        """Seconds to go at ``speed`` steps per second."""
        steps = math.inf
        ends = [] if self.steps is None else [self.steps]
        ends += [progress.plateau[0] + rest_of(progress.plateau[0])] if progress.plateau else []
        if ends and speed > 0:
            steps = (min(ends) - progress.step) / speed
        return steps if self.minutes is None else min(steps, max(0.0, self._seconds(progress) - progress.seconds))

    def _seconds(self, progress: Progress) -> float:
        """Seconds for steps: the minutes, less what the last validation will take."""
        return 60 * (self.minutes or 0.0) - progress.validation_seconds


def rest_of(step: int) -> int:
    """Steps in which a run that rises no more after ``step`` runs through the rest of its schedule."""
    return max(1, step // 3)


def has_plateaued(history: Sequence[Mapping[str, float]]) -> bool:
    """Whether the last third of the validations is no better than the third before: by less than 0.002 in mean Dice.

    Means of at least three, for a single validation of few cases says little at a high rate. False for a network that
    has found nothing yet (Dice below 0.1): some take long to begin.
    """
    dice = [numbers["val_dice"] for numbers in history if "val_dice" in numbers]
    if len(dice) < LEAST_TO_PLATEAU:
        return False
    third = len(dice) // 3
    before, last = fmean(dice[-2 * third : -third]), fmean(dice[-third:])
    return last >= _BEGUN and last - before < _RISE


def budget_of(cfg: DictConfig, train_cases: int, batch_size: int) -> tuple[Budget, str]:
    """The budget, and why it is so, in a line."""
    t, d = cfg.trainer, cfg.data
    once = math.ceil(train_cases / (batch_size * t.accumulate))
    per_epoch = max(once, LEAST_STEPS) if t.steps_per_epoch == "auto" else int(t.steps_per_epoch)
    if t.max_minutes is not None:
        return Budget(None, float(t.max_minutes), per_epoch), f"{t.max_minutes:g} min: trainer.max_minutes"
    if t.max_steps is not None:
        return Budget(int(t.max_steps), None, per_epoch), f"{t.max_steps} steps: trainer.max_steps"
    if t.max_epochs in ("auto", None) and (d.max_steps or d.max_minutes):
        limits = [f"{d[key]:g} {unit}" for key, unit in (("max_steps", "steps"), ("max_minutes", "min")) if d[key]]
        return Budget(d.max_steps, d.max_minutes, per_epoch), f"{', at most '.join(limits)}: {d.name}'s own"
    epochs = DEFAULT_EPOCHS if t.max_epochs in ("auto", None) else int(t.max_epochs)
    why = f"{epochs * per_epoch} steps: {epochs} epochs of {per_epoch}"
    if t.steps_per_epoch == "auto":
        why += f", each case once in {once}" + (f", at least {LEAST_STEPS}" if once < LEAST_STEPS else "")
    return Budget(epochs * per_epoch, None, per_epoch), why
