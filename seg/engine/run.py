"""One run, once all its parts are built: train, test, draw, and leave a true record."""

import logging
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from omegaconf import DictConfig
from torch import Tensor, nn

from seg.data.preprocess import Prepared
from seg.engine import checkpoint
from seg.engine.build import Built, case_predictor, training_batches
from seg.engine.console import Display
from seg.engine.distributed import World, parallel
from seg.engine.energy import joules, kwh
from seg.engine.inference import Slices
from seg.engine.loop import Hooks, Progress, Settings, fit
from seg.engine.results import (
    case_table,
    costs,
    note_start,
    open_run,
    print_results,
    record_results,
    recorded,
)
from seg.engine.seeding import seed_everything
from seg.engine.testing import Report, test, validate
from seg.errors import InterruptedRunError
from seg.records.folder import RunFolder, find
from seg.records.live import Live
from seg.records.predictions import begin_predictions
from seg.records.record import Record

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Result:
    """What a run reached: its id, its folder of predictions, and its last numbers."""

    run_id: str
    predictions: Path
    metrics: dict[str, float]


class Reporter(Protocol):
    """Whoever asked for a run and follows it, such as a sweep's trial. The run then shows nothing itself."""

    @property
    def log(self) -> Path:
        """A file for the run's log lines, besides the run's own."""

    def begin(self, run: RunFolder | None) -> None:
        """Before the record is opened (None), and as soon as the run has its folders.

        Raises:
            InterruptedRunError: the run should not begin.
        """

    def epoch(self, numbers: Mapping[str, float]) -> bool:
        """After each epoch; whether the run should end here, pruned."""

    def interrupted(self) -> bool:
        """After each step: whether the run should save and stop."""

    def stop(self) -> None:
        """A signal asks the run to stop."""


@dataclass(frozen=True)
class Job:
    """What stays fixed during a run."""

    cfg: DictConfig
    built: Built
    store: Mapping[str, Prepared]
    world: World
    reporter: Reporter | None


def run(job: Job, name: str, options: Mapping[str, str]) -> Result | None:
    """Trains and tests within an open record; None on ranks that do not lead.

    Args:
        job: what to train, and on what.
        name: of a new run.
        options: the names of the options chosen, by group.
    """
    record = _open(job, name) if job.world.leads else None
    with interruptible(job.reporter) as interrupted, recorded(record):
        if record:
            note_start(record, job.cfg, job.built, job.world.size, options)
        before = joules(job.built.precision.device)
        _fit(job, record, interrupted)
        energy = None if job.cfg.resume else kwh(before, joules(job.built.precision.device))
        return _test(job, record, interrupted, energy) if record else None


def _open(job: Job, name: str) -> Record:
    if job.reporter:
        job.reporter.begin(None)
    record = open_run(job.cfg, job.built.material.cases.name, name)
    if job.reporter:
        try:
            job.reporter.begin(record.folders)
        except InterruptedRunError:
            record.finish("KILLED")
            raise
    return record


def _fit(job: Job, record: Record | None, interrupted: Callable[[], bool]) -> None:
    """Trains; where the run is a resumed one, from its last checkpoint."""
    cfg, built, world = job.cfg, job.built, job.world
    training, t, device = built.training, cfg.trainer, built.precision.device
    if cfg.resume:
        last = find(Path(cfg.paths.outputs), cfg.resume).checkpoint("last")
        if last.exists():
            checkpoint.load(last, training)
        log.info("resumed after step %d, epoch %d", training.progress.step, training.progress.epoch)
    if not world.leads:  # dropout of its own; rank 0 keeps the stream that a checkpoint restores
        seed_everything(cfg.seed + 1_000_003 * world.rank + training.progress.step)
    training.model = parallel(training.network, world, device)
    samples = built.material.plan.batch_size * t.accumulate
    settings = Settings(built.precision, samples, t.accumulate, t.clip_norm, t.validate_every, t.save_every)
    live = Live(record, cfg.tracking.get("every_steps", "auto")) if record else None
    with Display(built.budget, world.leads, live=job.reporter is None) as display:
        hooks = _hooks(job, record, display, live, interrupted)
        try:
            fit(training, built.budget, training_batches(cfg, built, job.store, world), built.loss, settings, hooks)
        finally:
            if live:
                live.point(training.progress)


def _hooks(
    job: Job, record: Record | None, display: Display, live: Live | None, interrupted: Callable[[], bool]
) -> Hooks:
    built, patience = job.built, job.cfg.trainer.early_stopping
    progress, val, names = built.training.progress, built.material.split.val, built.material.cases.names[1:]

    def on_validate(network: nn.Module) -> dict[str, float]:
        return validate(network, job.store, val, built.predict, built.loss, names, job.world)

    def on_step(progress: Progress, loss: float) -> None:
        display.step(progress, loss)
        if live:
            live.step(progress, loss)

    def on_epoch(numbers: dict[str, float]) -> bool:
        display.epoch(numbers)
        if live:
            live.epoch(progress, numbers)
        if job.reporter and job.reporter.epoch(numbers):
            log.info("pruned after epoch %d: other trials of the sweep were better at this epoch", progress.epoch)
            progress.pruned = True
            return True
        return (
            patience is not None and "val_dice" in numbers and progress.epoch - (progress.best_epoch or 0) >= patience
        )

    def save(name: str) -> None:
        if record:
            checkpoint.save(record.folders.checkpoint(name), built.training)

    return Hooks(on_validate if val else None, on_step, on_epoch, save, interrupted)


def _test(job: Job, record: Record, interrupted: Callable[[], bool], energy_kwh: float | None) -> Result:
    """Scores and draws the part's cases with the chosen checkpoint, and closes the record; a pruned run has none."""
    cfg, built = job.cfg, job.built
    material, training = built.material, built.training
    part = material.split.test if cfg.inference.part == "test" else material.split.val
    path = record.folders.chosen(cfg.inference.checkpoint)
    checkpoint.load_weights(path, training.network)
    if removed := begin_predictions(record.folders):
        log.info("removed %d older files of this run from %s", removed, record.folders.predictions)

    def stop_if_interrupted() -> None:
        if interrupted():
            raise InterruptedRunError("stopped while testing")

    report = Report(
        record.folders.predictions,
        record.folders.short,
        cfg.inference.nsd_tolerance_mm,
        cfg.predictions.slices,
        material.plan.slice_axis,
        cfg.predictions.dpi,
    )
    predict, seconds = case_predictor(cfg, material.plan, built.precision), list[float]()

    def timed(network: nn.Module, image: np.ndarray, *, axis: int | None = None) -> Slices:
        slices = predict(network, image, axis=axis)
        return Slices(slices.axis, clocked(slices.logits, seconds))

    ids = () if training.progress.pruned else part
    rows, pictures = test(training.network, material.cases, ids, job.store, timed, report, stop_if_interrupted)
    spent = costs(built, seconds, energy_kwh)
    cases = case_table(rows)
    metrics = record_results(record, cfg, built, cases, pictures, checkpoint=path, costs=spent)
    if job.reporter is None:
        print_results(record, cases, training.progress)
    return Result(record.folders.run_id, record.folders.predictions, metrics)


def clocked(items: Iterator[Tensor], seconds: list[float]) -> Iterator[Tensor]:
    """The items; and how long their making took, added to ``seconds`` once they are all made."""
    spent, begin = 0.0, time.perf_counter()
    for item in items:
        spent += time.perf_counter() - begin
        yield item
        begin = time.perf_counter()
    seconds.append(spent + time.perf_counter() - begin)


@contextmanager
def interruptible(reporter: Reporter | None = None) -> Iterator[Callable[[], bool]]:
    """Turns SIGINT and SIGTERM into a question the loop asks after each step; a second SIGINT ends at once.

    A ``reporter`` may stop the run too, and is told of the signal.
    """
    received: list[int] = []

    def note(number: int, _: object) -> None:
        if number == signal.SIGINT and received:
            raise KeyboardInterrupt
        received.append(number)
        if reporter:
            reporter.stop()
        log.warning("%s: finishing this step, then saving …", signal.Signals(number).name)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(received) or (reporter is not None and reporter.interrupted())
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
