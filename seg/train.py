"""``python -m seg.train``: one run, from files to a trained network, its test scores, its pictures and its record."""

import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from seg.checks import check
from seg.cli import chosen_study, entry, reference
from seg.engine.allocator import keep_freed_memory
from seg.errors import ConfigError

if TYPE_CHECKING:
    from seg.build import Setup
    from seg.engine.loop import Hooks
    from seg.record import Run

log = logging.getLogger("seg.train")
_WHERE = ("paths.outputs", "paths.cache", "data.root", "tracking.uri")  # may differ when a run is resumed


@dataclass(frozen=True)
class Result:
    """What a run reached: its id, its folder of predictions, and its last numbers."""

    run_id: str
    predictions: Path
    metrics: dict[str, float]


def main(cfg: DictConfig) -> float | None:
    """Checks the configuration, then trains; the value is the best validation Dice, for a sweeper."""
    hydra_cfg = HydraConfig.get()
    choices = dict(hydra_cfg.runtime.choices)
    study = chosen_study(choices, "train")
    check(cfg, reference(choices, "train"), f"experiments={study}" if study else "the command line")
    if cfg.resume is not None:
        cfg = resumed(cfg, list(hydra_cfg.overrides.task))
    keep_freed_memory()
    result = train(cfg, run_name(cfg, choices))
    return result.metrics.get("best_val_dice") if result else None


def run_name(cfg: DictConfig, choices: dict[str, Any]) -> str:
    """``unetpp-cbam-onecycle-f0-s0``: the choices that studies vary, fold and seed."""
    parts = [choices.get(group) for group in ("model", "attention", "scheduler")]
    return "-".join([*(part for part in parts if part and part != "none"), f"f{cfg.data.fold}", f"s{cfg.seed}"])


def resumed(cfg: DictConfig, overrides: list[str]) -> DictConfig:
    """The configuration of the run that ``resume`` names; this call may only say where it lies.

    Raises:
        ConfigError: the run is unknown or finished, or an override would be ignored.
    """
    from seg.rundir import find

    if not cfg.resume:
        raise ConfigError("resume is empty. Give the run's id, the beginning of it, or its folder.")
    folders = find(Path(cfg.paths.outputs), cfg.resume)
    if (folders.run / "summary.json").exists():
        raise ConfigError(f"resume={cfg.resume}: run {folders.run_id} is finished; there is nothing to resume.")
    given = [override.split("=")[0].lstrip("+") for override in overrides]
    if ignored := sorted(set(given) - set(_WHERE) - {"resume"}):
        raise ConfigError(
            f"resume continues run {folders.run_id} as it began; {', '.join(ignored)} would be ignored. "
            "Leave it out, or start a new run."
        )
    old = OmegaConf.load(folders.run / "config" / "config.yaml")
    assert isinstance(old, DictConfig)
    for key in (*_WHERE[:2], *(key for key in _WHERE[2:] if key in given)):
        OmegaConf.update(old, key, OmegaConf.select(cfg, key))
    old.resume = folders.run_id
    return old


def train(cfg: DictConfig, name: str) -> Result | None:
    """Runs one training from files to scores.

    Args:
        cfg: a checked configuration.
        name: of the run.

    Returns:
        What the run reached; None where ``check=true`` and on ranks that do not lead.

    Raises:
        SegError: of the kinds in seg.errors.
    """
    from seg.console import log_to
    from seg.engine.device import choose_device, choose_precision
    from seg.engine.distributed import connect, disconnect, in_turn, join
    from seg.material import describe, prepare_cases, read_material
    from seg.seeding import seed_everything

    world = join()
    log_to(None, world.leads)
    device = choose_device(cfg.trainer.device, world.local_rank)
    precision = choose_precision(cfg.trainer.precision, device)
    connect(world, device)
    try:
        with in_turn(world):  # rank 0 reads and prepares; the others find it in the cache
            material = read_material(cfg)
            describe(material)
            log.info("  device %s, precision %s", device, precision.name)
            if not cfg.check:
                store = prepare_cases(cfg, material)
        from seg.build import build_setup  # MONAI only now: a fault of the data is told without it

        seed_everything(cfg.seed, cfg.trainer.deterministic)
        setup = build_setup(cfg, material, {} if cfg.check else store, world, precision)
        if cfg.check:
            log.info("check: no fault found, in the configuration and in %d cases.", len(material.cases.cases))
            return None
        return _run(setup, name)
    finally:
        disconnect()


def _run(setup: "Setup", name: str) -> Result | None:
    """Trains and tests within an open record."""
    from seg.record import note_start, open_run, recorded

    run = open_run(setup, name) if setup.world.leads else None
    with interruptible() as interrupted, recorded(run):
        if run:
            note_start(run, setup, name)
        _fit(setup, run, interrupted)
        return _test(setup, run, interrupted) if run else None


def _fit(setup: "Setup", run: "Run | None", interrupted: Callable[[], bool]) -> None:
    """Trains; where the run is a resumed one, from its last checkpoint."""
    from seg.build import training_batches
    from seg.console import Display
    from seg.engine import checkpoint
    from seg.engine.distributed import parallel
    from seg.engine.loop import Settings, fit
    from seg.rundir import find
    from seg.seeding import seed_everything

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
    with Display(setup.budget, setup.world.leads) as display:
        fit(
            training,
            setup.budget,
            training_batches(setup),
            setup.loss,
            settings,
            _hooks(setup, run, display, interrupted),
        )


def _hooks(setup: "Setup", run: "Run | None", display: Any, interrupted: Callable[[], bool]) -> "Hooks":
    from seg.engine import checkpoint
    from seg.engine.loop import Hooks
    from seg.evaluate import validate
    from seg.record import record_epoch

    progress, patience = setup.training.progress, setup.cfg.trainer.early_stopping
    val, names = setup.material.split.val, setup.material.cases.names[1:]

    def on_validate(network: Any) -> dict[str, float]:
        return validate(network, setup.store, val, setup.predict, setup.loss, names, setup.world)

    def on_epoch(numbers: dict[str, float]) -> bool:
        display.epoch(numbers)
        if run:
            record_epoch(run, numbers)
        return (
            patience is not None and "val_dice" in numbers and progress.epoch - (progress.best_epoch or 0) >= patience
        )

    def save(name: str) -> None:
        if run:
            checkpoint.save(run.folders.run / "checkpoints" / f"{name}.pt", setup.training)

    return Hooks(on_validate if val else None, display.step, on_epoch, save, interrupted)


def _test(setup: "Setup", run: "Run", interrupted: Callable[[], bool]) -> Result:
    """Scores and draws the test cases with the chosen checkpoint, and closes the record."""
    from seg.build import test_predictor
    from seg.engine import checkpoint
    from seg.engine.loop import InterruptedRunError
    from seg.evaluate import Report, test
    from seg.record import chosen_checkpoint, record_results
    from seg.rundir import begin_predictions

    cfg, material = setup.cfg, setup.material
    path = chosen_checkpoint(run, cfg.inference.checkpoint)
    checkpoint.load_weights(path, setup.training.network)
    if removed := begin_predictions(run.folders):
        log.info("removed %d older files of this run from %s", removed, run.folders.predictions)

    def stop_if_interrupted() -> None:
        if interrupted():
            raise InterruptedRunError("stopped while testing")

    report = Report(
        run.folders.predictions,
        run.folders.short,
        cfg.inference.nsd_tolerance_mm,
        cfg.predictions.slices,
        material.plan.slice_axis,
        cfg.predictions.dpi,
    )
    network, split = setup.training.network, material.split
    rows, pictures = test(
        network, material.cases, split.test, setup.store, test_predictor(setup), report, stop_if_interrupted
    )
    metrics = record_results(run, setup, rows, pictures, path)
    return Result(run.folders.run_id, run.folders.predictions, metrics)


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Turns SIGINT and SIGTERM into a question the loop asks after each step; a second SIGINT ends at once."""
    received: list[int] = []

    def note(number: int, _: object) -> None:
        if number == signal.SIGINT and received:
            raise KeyboardInterrupt
        received.append(number)
        log.warning("%s: finishing this step, then saving …", signal.Signals(number).name)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


run = entry("train", main)

if __name__ == "__main__":
    run()
