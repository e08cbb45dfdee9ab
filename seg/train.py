"""``python -m seg.train``: one run, from files to a trained network, its test scores, its pictures and its record.

With ``-m`` a sweep of such runs, see seg.sweep.
"""

import logging
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from seg.config.compose import entry, keys_of
from seg.config.content import PLACES
from seg.config.options import OPTIONS, known_keys
from seg.config.schema import check
from seg.engine.allocator import imports, keep_freed_memory
from seg.engine.resume import as_begun, resumed
from seg.errors import ConfigError
from seg.records.folder import find
from seg.sweep.trial import TrialReporter, current_trial

if TYPE_CHECKING:
    from seg.engine.reporter import Reporter
    from seg.engine.run import Result

log = logging.getLogger("seg.train")


def main(cfg: DictConfig) -> float | None:
    """Checks the configuration, then trains; the value is the best validation Dice, for a sweeper."""
    hydra_cfg = HydraConfig.get()
    trial = current_trial(hydra_cfg.runtime.output_dir) if hydra_cfg.mode == RunMode.MULTIRUN else None
    metrics: dict[str, float] = {}
    with trial.reported(metrics) if trial else nullcontext():
        choices = dict(hydra_cfg.runtime.choices)
        study, typed = choices.get("experiments"), keys_of(hydra_cfg.overrides.task)
        asked = hydra_cfg.sweeper.get("study") or {}
        if hydra_cfg.mode != RunMode.MULTIRUN and (asked.get("arms") or asked.get("factors")):
            raise ConfigError(f"experiments={study} is a study of many runs. Add -m: it is a sweep.")
        known = known_keys(choices, hydra_cfg.runtime.config_sources, "train")
        where, several = f"experiments={study}" if study else "the configuration", hydra_cfg.mode == RunMode.MULTIRUN
        check(cfg, known, where, typed, several=several)
        if cfg.resume is not None:
            cfg = resumed(cfg, typed)
        elif trial and trial.begun:  # by a job before this one, which was stopped or died
            cfg = as_begun(cfg, find(Path(cfg.paths.outputs), trial.begun), PLACES)
        if trial:
            OmegaConf.update(cfg, "tracking", trial.tracking, force_add=True)
        keep_freed_memory()
        chosen = {} if cfg.resume else {group: str(choices[group]) for group in OPTIONS if choices.get(group)}
        if result := train(cfg, run_name(cfg, choices, trial), trial, chosen):
            metrics |= result.metrics
    return metrics.get("best_val_dice")


def run_name(cfg: DictConfig, choices: Mapping[str, str], trial: TrialReporter | None = None) -> str:
    """``unetpp-cbam-onecycle-f0-s0``: the choices that studies vary, fold and seed.

    What tells it from its neighbours comes first where there are any: ``se f0 s0 · unetpp-se-onecycle`` for an arm,
    ``t7 f0 s0 · …`` for another trial of a sweep.
    """
    groups = [choices.get(group) for group in ("model", "attention", "scheduler")]
    options = "-".join(str(option) for option in groups if option and option != "none")
    first = cfg.arm or (f"t{trial.assignment.number}" if trial else None)
    fold, seed = f"f{cfg.data.fold}", f"s{cfg.seed}"
    return f"{first} {fold} {seed} · {options}" if first else f"{options}-{fold}-{seed}"


def train(
    cfg: DictConfig, name: str, reporter: "Reporter | None" = None, options: Mapping[str, str] | None = None
) -> "Result | None":
    """Runs one training from files to scores.

    Args:
        cfg: a checked configuration.
        name: of the run.
        reporter: follows the run, which then shows nothing itself.
        options: the names of the options chosen, by group; the record holds them as parameters.

    Returns:
        What the run reached; None where ``check=true`` and on ranks that do not lead.

    Raises:
        SegError: of the kinds in seg.errors.
    """
    with imports():
        from seg.engine.cases import describe, prepare_cases, read_material
        from seg.engine.console import log_to
        from seg.engine.device import choose_device, choose_precision
        from seg.engine.distributed import connect, disconnect, from_leader, in_turn, join
        from seg.records.sink import sink_class

    world = join()
    if reporter:
        log_to(reporter.log, level=logging.CRITICAL)
    else:
        log_to(level=logging.INFO if world.leads else logging.WARNING)
    sink_class(cfg.tracking.kind)  # a tracker that does not exist is refused before the data are read
    device = choose_device(cfg.trainer.device, world.local_rank, world.local_size)
    connect(world, device)
    try:
        precision = replace(from_leader(choose_precision(cfg.trainer.precision, device)), device=device)
        with in_turn(world):  # rank 0 reads; the others find it in the cache
            material = read_material(cfg)
            describe(material)
            log.info("  device %s", device)
        with imports():  # MONAI only now: a fault in the data is reported without it
            import torch._dynamo  # noqa: F401  every optimizer imports it, at its first step

            from seg.engine.build import build_run
            from seg.engine.run import Job, run

        built = build_run(cfg, material, world, precision)
        if cfg.check:
            from seg.engine.foresight import end_check

            end_check(cfg, built, world)
            return None
        with in_turn(world):  # what cannot be built is known before the first volume is prepared
            store = prepare_cases(cfg, material)
        result = run(Job(cfg, built, store, world, reporter), name, options or {})
        if result:
            _log_model(cfg, result.run_id)
        return result
    finally:
        disconnect()


def _log_model(cfg: DictConfig, run_id: str) -> None:
    """Logs the network to MLflow, where the run is recorded there and it is wanted."""
    if cfg.tracking.kind == "mlflow" and cfg.tracking.get("log_model"):
        from seg.deploy.logged import log_after_training

        log_after_training(find(Path(cfg.paths.outputs), run_id))


run = entry("train", main)

if __name__ == "__main__":
    run()
