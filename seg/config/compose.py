"""How ``python -m seg.train`` starts: its configuration, composed by Hydra from one file per option."""

import gc
import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from seg.config.arguments import MANY, addable, asked, divided, explained, ready, shows, wrong_flags
from seg.config.build import allowing
from seg.config.command import exits, of_the_disk
from seg.config.content import flat, keyed
from seg.config.options import CONF
from seg.config.trust import checked, refuse_foreign
from seg.errors import ConfigError, together


def entry(root: str, main: Callable[[DictConfig], float | None]) -> Callable[[], None]:
    """The command of ``conf/<root>.yaml``, composed by Hydra."""

    def run() -> None:
        typed, begun = sys.argv[1:], False

        def task(cfg: DictConfig) -> float | None:
            nonlocal begun  # plain data: launchers pickle this function
            begun = True
            return main(cfg)

        gc.freeze()  # what imports made stays, and need not be searched for garbage
        with exits("the same command continues"), _explained(typed, lambda: begun):
            together(ConfigError, wrong_flags(typed))
            key, rest = asked(typed)
            arguments = [*ready(rest, many=bool(MANY & {*typed}))]
            if key is not None:
                from seg.config.why import why

                print(why(root, key, [*map(addable, divided(arguments)[1])]))
            elif shows(typed):
                # Hydra would print only part of an error and exit with 1; with this it hands the exception on.
                os.environ.setdefault("HYDRA_FULL_ERROR", "1")
                sys.argv[1:] = arguments
                hydra.main(config_path=str(CONF), config_name=root, version_base="1.3")(lambda _: None)()
            else:
                _started(root, task, *divided(arguments))

    return run


def _task(main: Callable[[DictConfig], float | None], allowed: set[str]) -> Callable[[DictConfig], float | None]:
    """What Hydra runs once for each job, maybe in another process, where nothing else may be built than here."""

    def task(cfg: DictConfig) -> float | None:
        alone = HydraConfig.get().mode != RunMode.MULTIRUN  # otherwise the launcher is handed the error
        with exits("then resume the run") if alone else nullcontext(), allowing(allowed):
            try:
                refuse_foreign(cfg)
                return main(cfg)
            except OSError as error:
                raise of_the_disk(error, "then resume the run") from error

    return task


def _started(
    root: str, main: Callable[[DictConfig], float | None], flags: Collection[str], settings: Sequence[str]
) -> None:
    """Runs a single job or a sweep, once its configuration is found to run nothing that the user did not name."""
    many = bool(MANY & {*flags}) or "hydra.mode=MULTIRUN" in settings
    overrides = [*map(addable, settings)]
    with _composed(root, overrides, many=many) as (session, cfg, allowed):
        own, task = cfg.hydra, _task(main, allowed)
        if many:
            session.multirun(root, task, [*overrides, "hydra.mode=MULTIRUN"])
        elif own.verbose or own.callbacks or own.job.env_set:
            session.run(root, task, overrides)
        else:  # composed once, where Hydra would compose again
            own.mode = RunMode.RUN
            HydraConfig.instance().set_config(cfg)
            with open_dict(cfg):
                del cfg["hydra"]
            task(cfg)


@contextmanager
def _composed(root: str, overrides: list[str], *, many: bool) -> Iterator[tuple[Any, DictConfig, set[str]]]:
    """Hydra, what it composed, and what may be built within, once it is found to run nothing the user did not name."""
    with hydra.initialize_config_dir(str(CONF), job_name=root, version_base="1.3"):
        session = GlobalHydra.instance().hydra
        assert session is not None
        cfg = session.compose_config(root, overrides, RunMode.MULTIRUN if many else RunMode.RUN)
        _refuse_list(cfg.hydra.runtime.choices.get("experiments"))
        allowed = checked(cfg, typed_of(cfg))
        with allowing(allowed):
            yield session, cfg, allowed


@contextmanager
def sweeping(root: str, arguments: Sequence[str]) -> Iterator[tuple[list[str], Any, HydraContext, DictConfig]]:
    """What a sweep is read from (``seg.sweep.definition.read_sweep``), as ``-m`` composes it; nothing is run.

    Raises:
        ConfigError: with every fault of the ``arguments``, as typed.
    """
    typed = ["-m", *arguments]
    with _explained(typed):
        together(ConfigError, wrong_flags(typed))
        overrides = [*map(addable, divided([*ready(arguments, many=True)])[1])]
        with _composed(root, overrides, many=True) as (session, cfg, _):
            context = HydraContext(session.config_loader, Callbacks())
            sweeper: Any = Plugins.instance().instantiate_sweeper(
                hydra_context=context, task_function=lambda _: None, config=cfg
            )
            given: Any = OmegaConf.to_container(cfg.hydra.overrides.task, resolve=False)
            yield list(map(str, given)), sweeper.settings, context, cfg


def defaults_of(root: str, options: Mapping[str, str]) -> dict[str, Any]:
    """What a choice of options composes to, flat and resolved; what must be given is ``???``.

    Raises:
        HydraException: they do not compose.
    """
    with hydra.initialize_config_dir(str(CONF), job_name=root, version_base="1.3"):
        cfg = hydra.compose(root, [f"{group}={option}" for group, option in options.items()])
    return flat(keyed(OmegaConf.to_container(cfg, resolve=True)))


def _refuse_list(study: object) -> None:
    """Refuses a study's file that holds a list: Hydra would leave it out without a word."""
    file = Path("experiments") / f"{study}.yaml"
    if file.is_file() and OmegaConf.is_list(OmegaConf.load(file)):
        raise ConfigError(f"{file} is a list; it must hold keys, such as trainer: {{max_steps: 300}}.")


def keys_of(overrides: Sequence[str]) -> list[str]:
    """The keys that overrides of the command line set, as Hydra keeps them: a list of which would resolve values."""
    plain: Any = OmegaConf.to_container(overrides, resolve=False) if OmegaConf.is_config(overrides) else overrides
    return [str(override).partition("=")[0].lstrip("+~") for override in plain]


def typed_of(cfg: DictConfig) -> list[str]:
    """The keys that the command line sets, those of Hydra's own settings included; ``cfg``: with ``hydra``."""
    return [*keys_of(cfg.hydra.overrides.task), *keys_of(cfg.hydra.overrides.hydra)]


@contextmanager
def _explained(arguments: Sequence[str], begun: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Turns what Hydra raises before the work has ``begun`` into a ConfigError with every fault of the command."""
    try:
        yield
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError, RecursionError) as error:
        if begun() or not (faults := explained(error, arguments)):
            raise
        together(ConfigError, faults, error)
