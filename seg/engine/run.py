"""One run, once everything it works with is built: train, test, draw, and leave a true record."""

import logging
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from seg.engine import checkpoint
from seg.engine.build import Setup, test_predictor, training_batches
from seg.engine.console import Display
from seg.engine.distributed import parallel
from seg.engine.energy import joules, kwh
from seg.engine.loop import Hooks, Progress, Settings, fit
from seg.engine.results import Run, chosen_checkpoint, costs, note_start, open_run, record_results, recorded
from seg.engine.seeding import seed_everything
from seg.engine.testing import Report, test, validate
from seg.errors import InterruptedRunError
from seg.records.folder import begin_predictions, find
from seg.records.live import Live
from seg.sweep.trial import Trial

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Result:
    """What a run reached: its id, its folder of predictions, and its last numbers."""

    run_id: str
    predictions: Path
    metrics: dict[str, float]


def run(setup: Setup, name: str, options: Mapping[str, str]) -> Result | None:
    """Trains and tests within an open record; None on ranks that do not lead."""
    record = open_run(setup, name) if setup.world.leads else None
    with interruptible(setup.trial) as interrupted, recorded(record):
        if record:
            note_start(record, setup, options)
        before = joules(setup.precision.device)
        _fit(setup, record, interrupted)
        energy = None if setup.cfg.resume else kwh(before, joules(setup.precision.device))
        return _test(setup, record, interrupted, energy) if record else None


def _fit(setup: Setup, record: Run | None, interrupted: Callable[[], bool]) -> None:
    """Trains; where the run is a resumed one, from its last checkpoint."""
    training, t = setup.training, setup.cfg.trainer
    if setup.cfg.resume:
        last = find(Path(setup.cfg.paths.outputs), setup.cfg.resume).run / "checkpoints" / "last.pt"
        if last.exists():
            checkpoint.load(last, training)
        log.info("resumed after step %d, epoch %d", training.progress.step, training.progress.epoch)
    if not setup.world.leads:  # dropout of its own; rank 0 keeps the stream that a checkpoint restores
        seed_everything(setup.cfg.seed + 1_000_003 * setup.world.rank + training.progress.step)
    training.model = parallel(training.network, setup.world, setup.precision.device)
    samples = setup.material.plan.batch_size * t.accumulate
    settings = Settings(setup.precision, samples, t.accumulate, t.clip_norm, t.validate_every, t.save_every)
    live = Live(record.tracker, setup.cfg.tracking.get("every_steps", "auto")) if record else None
    with Display(setup.budget, setup.world.leads, live=setup.trial is None) as display:
        hooks = _hooks(setup, record, display, live, interrupted)
        try:
            fit(training, setup.budget, training_batches(setup), setup.loss, settings, hooks)
        finally:
            if live:
                live.point(training.progress)


def _hooks(
    setup: Setup, record: Run | None, display: Display, live: Live | None, interrupted: Callable[[], bool]
) -> Hooks:
    progress, patience = setup.training.progress, setup.cfg.trainer.early_stopping
    val, names = setup.material.split.val, setup.material.cases.names[1:]

    def on_validate(network: nn.Module) -> dict[str, float]:
        return validate(network, setup.store, val, setup.predict, setup.loss, names, setup.world)

    def on_step(progress: Progress, loss: float) -> None:
        display.step(progress, loss)
        if live:
            live.step(progress, loss)

    def on_epoch(numbers: dict[str, float]) -> bool:
        display.epoch(numbers)
        if live:
            live.epoch(progress, numbers)
        if setup.trial and setup.trial.report(numbers):
            log.info("pruned after epoch %d: the sweep's other trials were better by then", progress.epoch)
            return True
        return (
            patience is not None and "val_dice" in numbers and progress.epoch - (progress.best_epoch or 0) >= patience
        )

    def save(name: str) -> None:
        if record:
            checkpoint.save(record.folders.run / "checkpoints" / f"{name}.pt", setup.training)

    return Hooks(on_validate if val else None, on_step, on_epoch, save, interrupted)


def _test(setup: Setup, record: Run, interrupted: Callable[[], bool], energy_kwh: float | None) -> Result:
    """Scores and draws the part's cases with the chosen checkpoint, and closes the record; a pruned trial has none."""
    cfg, material = setup.cfg, setup.material
    pruned = setup.trial is not None and setup.trial.pruned
    ids = () if pruned else material.split.test if cfg.inference.part == "test" else material.split.val
    path = chosen_checkpoint(record, cfg.inference.checkpoint)
    checkpoint.load_weights(path, setup.training.network)
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
    network, predict, seconds = setup.training.network, test_predictor(setup), list[float]()

    def timed(network: nn.Module, image: np.ndarray) -> Tensor:
        begin = time.perf_counter()
        logits = predict(network, image)
        seconds.append(time.perf_counter() - begin)
        return logits

    rows, pictures = test(network, material.cases, ids, setup.store, timed, report, stop_if_interrupted)
    metrics = record_results(record, setup, rows, pictures, path, costs(setup, seconds, energy_kwh))
    return Result(record.folders.run_id, record.folders.predictions, metrics)


@contextmanager
def interruptible(trial: Trial | None = None) -> Iterator[Callable[[], bool]]:
    """Turns SIGINT and SIGTERM into a question the loop asks after each step; a second SIGINT ends at once.

    A ``trial`` also stops where its sweep says so.
    """
    received: list[int] = []

    def note(number: int, _: object) -> None:
        if number == signal.SIGINT and received:
            raise KeyboardInterrupt
        received.append(number)
        if trial:
            trial.stop()
        log.warning("%s: finishing this step, then saving …", signal.Signals(number).name)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(received) or (trial is not None and trial.told_to_stop)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
