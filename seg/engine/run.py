"""One run, once all its parts are built: train, test, draw, and leave a true record."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from signal import Signals

import numpy as np
import pandas as pd
import torch
from omegaconf import DictConfig
from torch import nn

from seg.data.preprocess import Prepared
from seg.engine import checkpoint
from seg.engine.batches import training_batches
from seg.engine.build import Built
from seg.engine.console import Display
from seg.engine.distributed import World, parallel
from seg.engine.inference import Slices
from seg.engine.live import Live
from seg.engine.loop import Hooks, Settings, fit
from seg.engine.predictors import case_predictor, clocked
from seg.engine.progress import Progress, rest_of
from seg.engine.reporter import Reporter
from seg.engine.results import costs, note_start, print_results, record_results, recorded
from seg.engine.rows import CASE_COLUMNS
from seg.engine.seeding import seed_everything
from seg.engine.testing import test, validate
from seg.errors import InterruptedRunError
from seg.records.address import experiment_name
from seg.records.folder import find
from seg.records.opening import open_record
from seg.records.predictions import begin_predictions
from seg.records.record import Record
from seg.signals import heard

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Result:
    """What a run reached: its id, its folder of predictions, and its last numbers."""

    run_id: str
    predictions: Path
    metrics: dict[str, float]


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
    with recorded(record) if record else nullcontext(), _interruptible(job.reporter) as interrupted:
        if record:
            note_start(record, job.cfg, job.built, job.world.size, options)
        _fit(job, record, interrupted)
        ended = _test(job, record, interrupted) if record else None
    if record is None or ended is None:
        return None
    result, cases = ended
    if job.reporter is None:  # only now: what becomes of stdout is not the run's affair
        print_results(record, cases, job.built.training.progress, job.cfg.inference.part)
    return result


def _open(job: Job, name: str) -> Record:
    """Opens the record and the folders; a resumed run gets its own back."""
    if job.reporter:
        job.reporter.begin(None)
    t = job.cfg.tracking
    record = open_record(
        t.kind,
        outputs=Path(job.cfg.paths.outputs),
        uri=t.uri,
        experiment=experiment_name(t.experiment, f"{job.built.material.cases.name}/{job.cfg.study}"),
        run_name=name,
        run_id=job.cfg.resume,
        parent_run_id=t.parent,
        system_metrics=t.system_metrics,
    )
    if job.reporter:
        try:
            job.reporter.begin(record.folders)
        except InterruptedRunError as error:
            record.finish("KILLED", str(error))
            raise
    return record


def _fit(job: Job, record: Record | None, interrupted: Callable[[], bool]) -> None:
    """Trains; where the run is a resumed one, from its last checkpoint."""
    cfg, built, world = job.cfg, job.built, job.world
    training, t, device = built.training, cfg.trainer, built.precision.device
    if cfg.resume:
        checkpoint.resume(find(Path(cfg.paths.outputs), cfg.resume), training)
        log.info("resumed after step %d, epoch %d", training.progress.step, training.progress.epoch)
        if job.reporter and training.progress.pruned:  # it was stopped on its way to say so
            job.reporter.pruned = True
    if device.type == "cuda":  # of which earlier runs of this process may have taken more
        torch.cuda.reset_peak_memory_stats(device)
    if not world.leads:  # dropout of its own; rank 0 keeps the stream that a checkpoint restores
        seed_everything(cfg.seed + 1_000_003 * world.rank + training.progress.step, t.deterministic)
        # The sums of all processes in an epoch that was interrupted are in the checkpoint, and rank 0 has them.
        training.progress.loss_sum, training.progress.loss_steps, training.progress.counts = 0.0, 0, []
    training.model = parallel(training.network, world, device)
    settings = Settings(
        precision=built.precision,
        samples=built.material.plan.batch_size * t.accumulate,
        accumulate=t.accumulate,
        clip_norm=t.clip_norm,
        validate_every=t.validate_every,
        save_every=t.save_every,
        stop=t.get("stop"),  # which the configurations of older runs do not have
        within=built.material.cases.within,
    )
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
        if progress.plateau and progress.plateau[0] == progress.step:
            most = rest_of(progress.step)
            log.info("the validation Dice has stopped improving; finishing the schedule in at most %d more steps", most)
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


def _test(job: Job, record: Record, interrupted: Callable[[], bool]) -> tuple[Result, pd.DataFrame]:
    """Scores and draws the part's cases with the chosen checkpoint and records it all; a pruned run has none."""
    cfg, built, run = job.cfg, job.built, record.folders
    split, training = built.material.split, built.training
    used = run.chosen(cfg.inference.checkpoint)
    training.network.load_state_dict(checkpoint.weights(used))
    if removed := begin_predictions(run):
        log.info("removed %d older files of this run from %s", removed, run.predictions)
    predict = case_predictor(cfg, built.material.plan, built.precision, built.material.cases.within)
    seconds: list[float] = []

    def timed(network: nn.Module, image: np.ndarray, *, axis: int | None = None) -> Slices:
        if interrupted():
            raise InterruptedRunError("stopped while testing")
        slices = predict(network, image, axis=axis)
        return replace(slices, logits=clocked(slices.logits, seconds))

    part = "none" if training.progress.pruned else cfg.inference.part
    rows, pictures = test(training.network, built.material, split.scored(part), job.store, timed, run, cfg)
    table = pd.DataFrame(rows, columns=None if rows else [*CASE_COLUMNS])
    spent = costs(built, seconds)
    metrics = record_results(record, cfg, built, table, pictures, checkpoint=used, costs=spent)
    return Result(run.run_id, run.predictions, metrics), table


@contextmanager
def _interruptible(reporter: Reporter | None) -> Iterator[Callable[[], bool]]:
    """Turns SIGINT and SIGTERM into a question the loop asks after each step.

    A ``reporter`` may stop the run too, and is told of the signal.
    """
    received: list[Signals] = []

    def note(number: Signals) -> None:
        received.append(number)
        if reporter:
            reporter.stop()
        log.warning("%s: finishing this step, then saving …", number.name)

    with heard(note):
        yield lambda: bool(received) or (reporter is not None and reporter.interrupted())
