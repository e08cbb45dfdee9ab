"""Runs a sweep: ``python -m seg.train -m …``.

A grid's trials are all entered beforehand, a search's are asked for one by one; everything after that is the same: one
parent run, trials in folders of their own, retries, continuing after a stop, tables and plots.
"""

import json
import logging
import time
from contextlib import ExitStack, closing
from dataclasses import asdict, replace

from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from seg.engine.cases import Material, read_material
from seg.engine.console import log_to
from seg.engine.device import choose_device, choose_precision
from seg.engine.distributed import World
from seg.errors import ConfigError, InterruptedRunError, SegError, together
from seg.files import atomic_write
from seg.records.address import experiment_name
from seg.records.folder import one_at_a_time
from seg.records.state import SILENT, Process
from seg.study.anchors import check_anchors
from seg.study.subsets import patient_groups
from seg.sweep.definition import Settings, Sweep, read_sweep
from seg.sweep.forecast import announce
from seg.sweep.goal import check
from seg.sweep.launch import OWNER, Workers, make_workers, worker_of
from seg.sweep.leaks import allowed_leaks
from seg.sweep.live import LiveTable
from seg.sweep.lock import locked, with_plan
from seg.sweep.parent import Parent, open_parent, status_of
from seg.sweep.scored import scored_cases, scored_structures
from seg.sweep.search import Search, Trial

log = logging.getLogger(__name__)
_PAUSE = 5.0  # seconds between two looks at the sweep's run
_OPENING = 60.0  # seconds that the opening of the sweep's run may take


def sweep(
    arguments: list[str], settings: Settings, context: HydraContext, task: TaskFunction, config: DictConfig
) -> None:
    """Runs the sweep, or continues it.

    Args:
        arguments: overrides of the command line.
        settings: the section ``hydra.sweeper``, in plain containers.
        context: for the launchers.
        task: one trial.
        config: the composed root configuration.

    Raises:
        ConfigError: what can be known to be wrong before the first trial.
        InterruptedRunError: stopped by a signal; the same command continues.
        SegError: too many trials failed, or a grid is not whole.
    """
    log_to()
    asked = read_sweep(arguments, settings, context, config)
    check(asked.goal, asked.space)
    material = read_material(asked.cfg)  # its faults come before the first trial
    _check_classes(asked, material)
    asked = replace(asked, leaks=allowed_leaks(asked, material), planned=announce(asked, material))
    if asked.cfg.check:
        build_each(asked)
        log.info("check: no fault found, in the sweep and in %d cases.", len(material.cases.cases))
        return
    asked = with_plan(asked, material)
    with one_at_a_time(asked.outputs):
        owns = _claim(asked)
    log_to(asked.folder / "log.txt")
    experiment = experiment_name(asked.cfg.tracking.experiment, f"{material.cases.name}/{asked.cfg.study}")
    definition = asked.definition | {"data": material.fingerprint.hash, "split": material.split.hash}
    with closing(_opened(asked, definition)) as search, ExitStack() as record:
        asked = replace(asked, locked=locked(asked, material))
        atomic_write(asked.folder / "sweep.json", json.dumps(definition, indent=1))
        search.enter(again=owns)

        def ended(trial: Trial, status: str, message: str) -> None:
            if workers.in_process:  # the trial had the log to itself
                log_to(asked.folder / "log.txt")
            table.ended(trial, status, message)
            if parent:
                parent.progress(search)

        workers = Workers(search, asked, experiment, make_workers(asked, context, task, config), ended)
        parent = open_parent(asked, search, experiment) if owns else None
        if parent:
            record.enter_context(parent.recorded())
        else:
            _await_parent(search)
        table = LiveTable(asked, search)
        with table.watching(workers):
            workers.work()
        log_to(asked.folder / "log.txt")
        if not (parent or workers.stopped) and (parent := _taken_over(asked, search, experiment)):
            record.enter_context(parent.recorded())
        if parent:
            parent.conclude(search)
        _check_end(asked, search, workers)


def build_each(asked: Sweep) -> None:
    """Builds the network and the optimizer of each trial that can be known before it starts.

    Raises:
        ConfigError: with every trial that cannot be built, and why.
    """
    from seg.engine.build import build_run

    faults = []
    log_to(level=logging.WARNING)
    for overrides, cfg in asked.examples.items():
        try:
            precision = choose_precision(cfg.trainer.precision, choose_device(cfg.trainer.device))
            build_run(cfg, read_material(cfg), World(), precision)
        except SegError as error:
            faults.append(f"{overrides}: {error}")
    log_to()
    together(ConfigError, faults)


def _opened(asked: Sweep, definition: dict[str, object]) -> Search:
    return Search(
        asked.name,
        asked.address,
        asked.goal,
        Process.this(),
        asked.space,
        asked.study.first(asked.starts) if asked.study else asked.starts,
        overrides=asked.overrides,
        definition=definition,
        shared=asked.storage is not None,
    )


def _check_end(asked: Sweep, search: Search, workers: Workers) -> None:
    """Raises an InterruptedRunError or a SegError where the sweep is not whole."""
    if workers.stopped:
        raise InterruptedRunError("The sweep is stopped and saved; the same command continues it.")
    failures = workers.failures()
    if len(failures) >= asked.max_failures and not search.over():
        number, error = failures[0]
        raise SegError(
            f"{len(failures)} trials failed, the sweep ends (hydra.sweeper.max_failures). The first was trial "
            f"{number}: {error}. Its log: {asked.trial(number) / 'log.txt'}"
        )
    frame = search.frame()
    missing = int((~frame["retried"] & (frame["state"] == "failed")).sum())
    if asked.goal.n_trials is None and missing:
        raise SegError(
            f"{missing} of {asked.total} jobs of the grid did not finish. Fix the cause; the same command "
            "tries them again."
        )


def _taken_over(asked: Sweep, search: Search, experiment: str) -> Parent | None:
    """The sweep's own run where the process that kept it died before its end; None otherwise.

    That a process of another machine died shows in its silence alone, which is waited for while the run says RUNNING.
    """
    deadline = time.monotonic() + SILENT + 60
    while (status := status_of(asked, search)) not in (None, "FINISHED"):
        with one_at_a_time(asked.outputs):
            left = status_of(asked, search) != "FINISHED" and _claim(asked)
        if left:
            return open_parent(asked, search, experiment)
        if status != "RUNNING" or time.monotonic() > deadline:
            break
        time.sleep(_PAUSE)
    return None


def _await_parent(search: Search) -> None:
    """Lets the process that keeps the sweep's run open it, so that the trials of this one are its children, too."""
    deadline = time.monotonic() + _OPENING
    while search.parent is None and time.monotonic() < deadline:
        time.sleep(0.2)


def _check_classes(asked: Sweep, material: Material) -> None:
    names = material.cases.names[1:]
    for objective in asked.goal.objectives:
        if objective.startswith("val_dice_") and objective.removeprefix("val_dice_") not in names:
            raise ConfigError(
                f"hydra.sweeper.objective is {objective}; the classes of {material.cases.name} are {', '.join(names)}."
            )
    if asked.study and (unknown := [name for name in asked.study.classes or () if name not in names]):
        raise ConfigError(
            f"hydra.sweeper.study.classes names {', '.join(unknown)}; the classes of {material.cases.name} are "
            f"{', '.join(names)}."
        )
    if asked.study and asked.study.groups:
        patient_groups(asked.study.groups, ((case.id, case.patient) for case in material.cases.cases))
    if asked.study and asked.study.anchors:
        every = ((case, name) for case in scored_cases(asked.study, asked.cfg, material) for name in names)
        check_anchors(asked.study.anchors, scored_structures(asked.study, asked.cfg, material), every)


def _claim(asked: Sweep) -> bool:
    """Makes the sweep's folder this process's own; False where another one works there and the storage is shared.

    Raises:
        ConfigError: this sweep is running already.
    """
    asked.folder.mkdir(parents=True, exist_ok=True)
    owner = asked.folder / OWNER
    process = worker_of(owner)
    if process and not process.own and not process.lost(owner.stat().st_mtime):
        if asked.storage:
            return False
        raise ConfigError(
            f"This sweep is running already, as process {process.pid} of {process.host}. Wait for it, or set "
            "hydra.sweeper.name for a second one, or hydra.sweeper.storage to share its trials."
        )
    atomic_write(owner, json.dumps(asdict(Process.this())))
    return True
