"""Runs a sweep: ``python -m seg.train -m …``. Every sweep is a ledger of trials, worked off by workers.

A grid's trials are all entered beforehand, a search's are asked for one by one; all else is the same: one parent run,
trials in folders of their own, retries, going on after a stop, tables and plots.
"""

import json
import logging
import os
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from copy import deepcopy
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from seg.engine.cases import Material, processes, read_material
from seg.engine.console import log_to
from seg.errors import ConfigError, InterruptedRunError, SegError
from seg.files import atomic_write
from seg.records.folder import Process, one_at_a_time
from seg.records.record import experiment_name
from seg.sweep.display import Display
from seg.sweep.ledger import Ledger, Settings, Trial
from seg.sweep.parent import Parent, open_parent, unfinished
from seg.sweep.plan import Plan, differences, make_plan
from seg.sweep.samplers import check
from seg.sweep.workers import OWNER, Desk, Order, Workers

log = logging.getLogger(__name__)
_LOCAL = ("basic", "submitit_local", "joblib")  # launchers whose trials run on this machine
_OPENING = 60.0  # seconds that the opening of the sweep's run may take
_FOREVER = 60 * 24 * 365  # minutes; submitit's own limit is one hour


def sweep(
    arguments: list[str],
    settings: dict[str, Any],
    hydra_context: HydraContext,
    task_function: TaskFunction,
    config: DictConfig,
) -> None:
    """Runs the sweep, or goes on with it.

    Args:
        arguments: overrides of the command line.
        settings: the section ``hydra.sweeper``.
        hydra_context: for the launchers.
        task_function: of one trial.
        config: the composed root configuration.

    Raises:
        ConfigError: what can be known to be wrong before the first trial.
        InterruptedRunError: stopped by a signal; the same command goes on.
        SegError: too many trials failed, or a grid is not whole.
    """
    settings = {key: _plain(value) for key, value in settings.items()}
    settings |= {key: settings[key] or {} for key in ("when", "sampler_options", "pruner_options")}
    log_to()
    plan = make_plan(arguments, settings, hydra_context, config)
    material = read_material(plan.cfg)  # its faults are told before the first trial
    _check_classes(plan, material)
    check(_ledger_settings(plan), plan.space)
    if plan.cfg.check:
        log.info("check: no fault found, in the sweep and in %d cases.", len(material.cases.cases))
        return
    with one_at_a_time(Path(plan.cfg.paths.outputs)):
        owns = _claim(plan)
    log_to(plan.folder / "log.txt")
    address = settings["storage"] or plan.folder / "journal.log"
    with closing(Ledger(plan.name, address, _ledger_settings(plan), Process.this(), plan.space)) as ledger:
        with one_at_a_time(plan.folder):
            ledger.enqueue(plan.jobs, again=owns)
        experiment = experiment_name(plan.cfg.tracking.experiment, f"{material.cases.name}/{plan.cfg.study}")
        desks = _desks(plan, hydra_context, task_function, config)
        parent = open_parent(plan, ledger, experiment, arguments) if owns else None
        if not owns:
            _await_parent(ledger)
        inherit = partial(_heir, plan, ledger, experiment, arguments)
        _work(plan, ledger, parent, experiment, desks, inherit)


def _heir(plan: Plan, ledger: Ledger, experiment: str, arguments: list[str]) -> Parent | None:
    """The sweep's own run where the process that kept it has gone without its last word; None elsewhere."""
    with one_at_a_time(Path(plan.cfg.paths.outputs)):
        left = unfinished(plan, ledger) and _claim(plan)
    return open_parent(plan, ledger, experiment, arguments) if left else None


def _work(
    plan: Plan,
    ledger: Ledger,
    parent: Parent | None,
    experiment: str,
    desks: list[Desk],
    inherit: Callable[[], Parent | None],
) -> None:
    settings = plan.settings
    order = Order(
        plan.name,
        plan.folder,
        ledger.parent,
        plan.cfg.tracking.uri,
        experiment,
        plan.objectives,
        settings["pruner"] != "none" and len(plan.objectives) == 1,
        tuple(settings["folds"]) if settings["folds"] else None,
        plan.given,
        settings["retries"],
        settings["max_failures"],
    )

    def ended(trial: Trial, status: str, said: str) -> None:
        if workers.in_process:  # the trial had the log to itself
            log_to(plan.folder / "log.txt")
        display.ended(trial, status, said)
        if parent:
            parent.progress(ledger)

    with ExitStack() as record:
        if parent:
            record.enter_context(parent.recorded())
        display = Display(plan, ledger)
        workers = Workers(ledger, order, desks, ended)
        with display.watching(workers):
            workers.work()
        log_to(plan.folder / "log.txt")
        if not (parent or workers.stopped) and (parent := inherit()):
            record.enter_context(parent.recorded())
        if parent:
            parent.conclude(ledger)
        failures = workers.failures()
        if workers.stopped:
            raise InterruptedRunError("The sweep is stopped and saved; the same command goes on with it.")
        if len(failures) >= settings["max_failures"] and not ledger.over():
            number, error = failures[0]
            raise SegError(
                f"{len(failures)} trials failed, the sweep ends (hydra.sweeper.max_failures). The first was trial "
                f"{number}: {error}. Its log: {plan.folder / 'trials' / str(number) / 'log.txt'}"
            )
        if plan.space is None and (missing := _missing(ledger)):
            raise SegError(
                f"{missing} of {len(plan.jobs)} jobs of the grid did not finish. Mend the cause; the same command "
                "tries them again."
            )


def _await_parent(ledger: Ledger) -> None:
    """Lets the process that keeps the sweep's run open it, so that the trials of this one are its children, too."""
    deadline = time.monotonic() + _OPENING
    while ledger.parent is None and time.monotonic() < deadline:
        time.sleep(0.2)


def _missing(ledger: Ledger) -> int:
    frame = ledger.frame()
    return int((~frame["retried"] & (frame["state"] == "failed")).sum())


def _check_classes(plan: Plan, material: Material) -> None:
    names = material.cases.names[1:]
    for objective in plan.objectives:
        if objective.startswith("val_dice_") and objective.removeprefix("val_dice_") not in names:
            raise ConfigError(
                f"hydra.sweeper.objective is {objective}; the classes of {material.cases.name} are {', '.join(names)}."
            )


def _claim(plan: Plan) -> bool:
    """Makes the sweep's folder this process's own; False where another one works there and the storage is shared.

    Raises:
        ConfigError: the folder is another sweep's, or this sweep is running already.
    """
    plan.folder.mkdir(parents=True, exist_ok=True)
    definition, owner = plan.folder / "sweep.json", plan.folder / OWNER
    if definition.exists() and (changed := differences(json.loads(definition.read_text()), plan.definition)):
        raise ConfigError(
            f"The sweep {plan.name} in {plan.folder} was begun with other settings ({', '.join(changed[:5])}). "
            "Choose another hydra.sweeper.name, or leave it out."
        )
    process = Process(**json.loads(owner.read_text())) if owner.exists() else Process.this()
    if process != Process.this() and not process.lost(owner.stat().st_mtime):
        if plan.settings["storage"]:
            return False
        raise ConfigError(
            f"This sweep is running already, as process {process.pid} of {process.host}. Wait for it, or set "
            "hydra.sweeper.name for a second one, or hydra.sweeper.storage to share its trials."
        )
    atomic_write(definition, json.dumps(plan.definition, indent=1))
    atomic_write(owner, json.dumps(asdict(Process.this())))
    return True


def _ledger_settings(plan: Plan) -> Settings:
    names = ("n_trials", "sampler", "sampler_options", "pruner", "pruner_options", "seed", "retries", "max_failures")
    return Settings(plan.objectives, plan.directions, **{name: plan.settings[name] for name in names})


def _desks(plan: Plan, context: HydraContext, task: TaskFunction, config: DictConfig) -> list[Desk]:
    """A launcher for each worker, with its share of this machine's processors and GPUs."""
    name, jobs = config.hydra.runtime.choices["hydra/launcher"], plan.settings["n_jobs"]
    config = deepcopy(config)
    with open_dict(config):
        if name == "basic" and jobs > 1:  # this process can do one at a time only
            name = "submitit_local"
            config.hydra.launcher = ConfigStore.instance().load("hydra/launcher/submitit_local.yaml").node
        if name == "submitit_local":
            config.hydra.launcher.timeout_min = _FOREVER
        if name == "joblib":
            config.hydra.launcher.n_jobs = max(2, jobs)  # of its pool, which else has a process for each processor
        config.hydra.sweep.dir = str(plan.folder.absolute())  # where a launcher keeps its own files
        config.hydra.sweeper.storage = None  # a launcher writes this down, and an address may hold a password
        config.hydra.overrides.hydra = [o for o in config.hydra.overrides.hydra if "hydra.sweeper.storage" not in o]
    shares = [_share(slot, jobs) if jobs > 1 and name in _LOCAL else {} for slot in range(jobs)]
    launch = partial(Plugins.instance().instantiate_launcher, hydra_context=context, task_function=task)
    return [
        Desk(launch(config=config), tuple(f"+hydra.job.env_set.{key}='{value}'" for key, value in share.items()))
        for share in shares
    ]


def _share(slot: int, jobs: int) -> dict[str, str]:
    """Environment of a worker: threads that do not fight over the processors, and a GPU of its own."""
    share = {}
    if "OMP_NUM_THREADS" not in os.environ:
        share["OMP_NUM_THREADS"] = str(max(1, processes() // jobs))
    if gpus := _gpus():
        share["CUDA_VISIBLE_DEVICES"] = gpus[slot % len(gpus)]
    return share


def _gpus() -> list[str]:
    """The GPUs this process may use, by number."""
    if given := os.environ.get("CUDA_VISIBLE_DEVICES"):
        return given.split(",")
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
