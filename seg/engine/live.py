"""What is recorded during training: loss and learning rate point by point, and the numbers of each epoch.

All of them use one axis, the optimizer step.
"""

import time
from collections.abc import Mapping
from statistics import fmean

from seg.engine.progress import Progress
from seg.records.record import Record

_SECONDS = 10.0  # between two points where every_steps is auto


class Live:
    """Records a training's numbers as they come.

    A point of ``train_loss`` is the mean over the steps since the point before. A resumed run repeats the steps since
    its last checkpoint; what the record has of them already is not noted again.

    Args:
        record: of the run.
        every: steps between two points; ``auto``: about ten seconds of training, the first after the first step.
    """

    def __init__(self, record: Record, every: int | str) -> None:
        self._record, self._every = record, every
        self._loss_until, self._epochs_until = (record.reached(name) for name in ("train_loss", "epoch"))
        self._losses: list[float] = []  # of the steps since the last point
        self._due = 0.0

    def step(self, progress: Progress, loss: float) -> None:
        """After each optimizer step."""
        if progress.step <= self._loss_until:
            return
        self._losses.append(loss)
        now = time.monotonic()
        if now >= self._due if self._every == "auto" else progress.step % int(self._every) == 0:
            self._due = now + _SECONDS
            self.point(progress)

    def point(self, progress: Progress) -> None:
        """A point of the steps that have none yet."""
        if self._losses:
            self._record.log_metrics({"train_loss": fmean(self._losses), "lr": progress.lr}, step=progress.step)
            self._losses = []

    def epoch(self, progress: Progress, numbers: Mapping[str, float]) -> None:
        """At an epoch's end; its loss and learning rate are a point of their series like any other."""
        self.point(progress)
        if progress.step > self._epochs_until:
            others = {name: value for name, value in numbers.items() if name not in ("step", "train_loss", "lr")}
            self._record.log_metrics(others, step=progress.step)
