"""A run that continues: with the configuration it began with, on the data it began with."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from seg.config.content import PLACES
from seg.config.trust import refuse_foreign
from seg.errors import ConfigError, DataError
from seg.records.folder import RunFolder, find
from seg.records.state import read_state

if TYPE_CHECKING:
    from seg.engine.cases import Material


def resumed(cfg: DictConfig, given: Sequence[str]) -> DictConfig:
    """The configuration of the run that ``resume`` names; this call may only say where it is.

    Raises:
        ConfigError: the run is unknown or finished, or an override would be ignored.
        DataError: its folder lacks the configuration, or holds a damaged one.
    """
    if not cfg.resume:
        raise ConfigError("resume is empty. Give the run's id, the beginning of it, or its folder.")
    run = find(Path(cfg.paths.outputs), cfg.resume)
    state = read_state(run.run)
    if state and state.status == "FINISHED":
        raise ConfigError(f"resume={cfg.resume}: run {run.run_id} is finished; there is nothing to resume.")
    if state and state.status == "RUNNING" and not state.process.here and not state.process.lost(run.last_sign):
        raise ConfigError(
            f"resume={cfg.resume}: run {run.run_id} is still running as process {state.process.pid} of "
            f"{state.process.host}. If that machine is gone, try again five minutes after its last line."
        )
    if ignored := sorted(set(given) - set(PLACES) - {"resume", "allow_targets"}):
        raise ConfigError(
            f"resume continues run {run.run_id} as it began; {', '.join(ignored)} would be ignored. "
            "Leave it out, or start a new run."
        )
    return as_begun(cfg, run, (*PLACES[:2], *(key for key in PLACES[2:] if key in given)))


def as_begun(cfg: DictConfig, run: RunFolder, places: Sequence[str]) -> DictConfig:
    """The configuration that a run began with, to continue it; ``places`` are where they are now.

    Raises:
        ConfigError: an earlier version began the run, or it would run code that the user did not allow.
        DataError: as ``resumed``.
    """
    old = run.read_config()
    if "resume" not in old:  # its last key
        raise DataError(f"{run.config} is damaged: it ends early. Restore it from a copy, or start a new run.")
    if "layout" not in old.trainer:
        raise ConfigError(
            f"Run {run.run_id} was begun by an earlier version, with another budget and optimizer. Start a new run."
        )
    for key in places:
        OmegaConf.update(old, key, OmegaConf.select(cfg, key))
    refuse_foreign(old)
    old.resume = run.run_id
    return old


def refuse_other_data(run: RunFolder, material: "Material") -> None:
    """A run continues only with the data and split it began with: otherwise a training case could become a test case.

    One that was killed before it had noted them has not trained on any.

    Raises:
        ConfigError: they changed.
        DataError: what it noted is damaged.
    """
    if not (run.split.exists() and run.fingerprint.exists()):
        return
    split = run.read(run.split, material.split.from_json)
    began = run.read(run.fingerprint, material.fingerprint.from_json)
    then, now = ({case.id: case.sha256 for case in prints.cases} for prints in (began, material.fingerprint))
    if (split.hash, began.hash, then) != (material.split.hash, material.fingerprint.hash, now):
        raise ConfigError(
            f"resume: the data of run {run.run_id} changed since it began ({len(then)} cases then, {len(now)} now). "
            "Restore them, or start a new run."
        )
