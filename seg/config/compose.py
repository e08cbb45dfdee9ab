"""How ``python -m seg.train`` starts: its configuration, composed by Hydra from one file per option."""

import gc
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from seg.config.command import exits, of_the_disk
from seg.config.content import first_line
from seg.config.options import CONF
from seg.config.schema import KEYS
from seg.errors import ConfigError, nearest


def entry(root: str, main: Callable[[DictConfig], float | None]) -> Callable[[], None]:
    """The command of ``conf/<root>.yaml``, composed by Hydra."""

    def task(cfg: DictConfig) -> float | None:
        alone = HydraConfig.get().mode != RunMode.MULTIRUN  # otherwise the launcher is handed the error
        with exits("then resume the run") if alone else nullcontext():
            try:
                return main(cfg)
            except OSError as error:
                raise of_the_disk(error, "then resume the run") from error

    def run() -> None:
        arguments = [quoted(argument) for argument in sys.argv[1:]]
        gc.freeze()  # what imports made stays, and need not be searched for garbage
        with exits("the same command continues"), _explained():
            if not any(argument.startswith("-") for argument in arguments) and _ran_once(root, task, arguments):
                return
            # Hydra would print only part of an error and exit with 1; with this it hands the exception on.
            os.environ.setdefault("HYDRA_FULL_ERROR", "1")
            sys.argv[1:] = arguments
            hydra.main(config_path=str(CONF), config_name=root, version_base="1.3")(task)()

    return run


def _ran_once(root: str, task: Callable[[DictConfig], float | None], arguments: Sequence[str]) -> bool:
    """Runs a single job, composed once, where ``hydra.main`` would compose twice.

    Returns:
        False, and nothing was run, where the configuration asks for what only Hydra's own start does.
    """
    with hydra.initialize_config_dir(str(CONF), job_name=root, version_base="1.3"):
        cfg = hydra.compose(root, [addable(argument) for argument in arguments], return_hydra_config=True)
        own = cfg.hydra
        if own.mode or own.verbose or own.callbacks or own.job.env_set:
            return False
        own.mode = RunMode.RUN
        HydraConfig.instance().set_config(cfg)
        with open_dict(cfg):
            del cfg["hydra"]
        task(cfg)
    return True


def quoted(argument: str) -> str:
    """Puts a value that is always text in quotes: a run id such as 12e45678 would otherwise reach us as a number,

    and Hydra would stumble over a blank or a bracket in a folder's name or a pattern.
    """
    key, equals, value = argument.partition("=")
    if key.startswith("tracking.tags."):  # any tag may be given
        return f"++{argument}"
    text = key in KEYS and KEYS[key].type is str
    if not text or not value or value[0] in "\"'" or "${" in value or value == "null" or "," in value:
        return argument
    escaped = value.replace("'", r"\'")
    return f"{key}{equals}'{escaped}'"


def addable(argument: str) -> str:
    """Lets a key that does not exist into the configuration, where it is refused with all other faults.

    Hydra itself would stop at the first. What has no dot may be a group of options.
    """
    key = argument.partition("=")[0]
    ours = key[:1].isalpha() and "." in key and not key.startswith("hydra.") and not {*"/@"} & {*key}
    return f"++{argument}" if ours and key not in KEYS else argument


def keys_of(overrides: ListConfig) -> list[str]:
    """The keys that overrides of the command line set, as Hydra keeps them."""
    plain: Any = OmegaConf.to_container(overrides, resolve=False)
    return [str(override).partition("=")[0].lstrip("+~") for override in plain]


@contextmanager
def _explained() -> Iterator[None]:
    """Turns what Hydra raises into a ConfigError of one sentence."""
    try:
        yield
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise ConfigError(_sentence(error)) from error


def _sentence(error: Exception) -> str:
    """Hydra's message as one sentence: what was seen, the rule, the nearest right word."""
    if isinstance(error, YAMLError):
        return f"A YAML file cannot be read: {' '.join(str(error).split())}."
    if isinstance(error, MissingConfigException) and error.options:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        there = list(error.options)
        return f"There is no {group}={option}.{nearest(option, there)} The options of {group} are {', '.join(there)}."
    if refused := re.search(r"Could not override '(.+)'\.\nTo append to your config use \+(.*)", str(error)):
        key, override = refused.groups()
        if key == "experiments":
            return f"There is no {override}: {Path.cwd()} has no folder experiments."
        groups, group = [path.name for path in CONF.iterdir() if path.is_dir()], key.partition(".")[0]
        options = [OmegaConf.load(file) for file in sorted((CONF / group).glob("*.yaml"))]
        words = [*KEYS, *(f"{group}.{name}" for option in options for name in map(str, option)), *groups]
        return f"There is no key '{key}'.{nearest(key, words)} `--cfg job` prints every key."
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    return f"{first_line(error)}." if cause is error else f"{first_line(error)}: {first_line(cause)}."
