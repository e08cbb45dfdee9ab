"""What a configuration from elsewhere may not do: run code. Only its user may allow that, where no foreign file can.

A study's file, a run's folder and a search's parameters may come from anywhere. The command line is the user's, and so
is ``local/default.yaml``: whoever can write into the working folder can put modules there that Python would import.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from seg.config.build import allowing, refused, targets
from seg.config.content import first_line, flat, keyed, plain_value
from seg.config.options import CONF
from seg.errors import ConfigError, together

_PLUGINS = ("hydra_plugins", "hydra._internal")  # Hydra takes no sweeper or launcher from elsewhere
_RUN_CODE = ("hydra.job.env_set.", "hydra.job_logging.", "hydra.hydra_logging.")
_HARMLESS = ("version", "root", "disable_existing_loggers", "incremental")  # of a logging section
_TEXTS = ("${hydra.sweep.dir}/.submitit/%j", "${hydra.job.name}")  # of a launcher
_WORD = re.compile(r"[\w.:,/@%+=-]*")  # what stays one word in the script of a cluster's job


def local_settings() -> dict[str, object]:
    """What ``local/default.yaml`` sets, flat: this machine's own settings."""
    for folder in (CONF, Path.cwd()):  # in Hydra's order
        if (file := folder / "local/default.yaml").is_file():
            text, content = file.read_text("utf-8"), OmegaConf.to_container(OmegaConf.load(file), resolve=False)
            if re.search(r"^# *@package +_global_", text, re.MULTILINE) and isinstance(content, dict):
                return flat({str(key): value for key, value in content.items() if key != "defaults"})
    return {}


def checked(cfg: DictConfig, typed: Collection[str]) -> set[str]:
    """Refuses a configuration that would run code which the user did not name, before any of it is built.

    Args:
        cfg: composed, with the section ``hydra``.
        typed: keys of the command line.

    Returns:
        What the user allows as targets: ``allow_targets``, and each target that he set himself.

    Raises:
        ConfigError: with every such target and key.
    """
    allowed = _permissions(cfg, typed, local_settings())
    with allowing(allowed):
        check_origin(cfg, typed)
    return allowed


def check_origin(cfg: DictConfig, typed: Collection[str]) -> None:
    """The same for what was allowed before, as in the jobs of a sweep; ConfigError with every such target and key."""
    # A launcher that is typed does not make what a file sets in its section the user's.
    own = {key.replace("/", ".") for key in (*typed, *local_settings()) if key != "hydra/launcher"}
    together(ConfigError, [*_foreign(cfg), *_of_hydra(cfg.hydra, own)])


def refuse_foreign(cfg: DictConfig) -> None:
    """Refuses a run's configuration that names a target, at whatever depth, which may not be built.

    Raises:
        ConfigError: with every such target.
    """
    together(ConfigError, _foreign(cfg))


def _foreign(cfg: DictConfig) -> list[str]:
    content = _content(cfg)
    kind = str(OmegaConf.select(cfg, "tracking.kind"))
    sinks = [("tracking.kind", kind)] if "." in kind else []
    return refused([*targets(content), *sinks])


def _content(cfg: DictConfig) -> dict[str, object]:
    """All but ``hydra``; a section is unresolved where it names what is not there, which is a fault of its own."""
    whole = keyed(OmegaConf.to_container(cfg, resolve=False))
    content = {key: value for key, value in whole.items() if key != "hydra"}
    for key in content:
        with suppress(OmegaConfBaseException):
            content[key] = plain_value(cfg[key])
    return content


def _permissions(cfg: DictConfig, typed: Collection[str], local: Mapping[str, object]) -> set[str]:
    asked = _listed(OmegaConf.select(cfg, "allow_targets"))
    given = asked if "allow_targets" in typed else _listed(local.get("allow_targets"))
    if not {*asked} <= {*given}:
        raise ConfigError(
            f"allow_targets is {asked}, which neither the command line nor local/default.yaml says: a file from "
            "elsewhere cannot allow itself. If you trust it, give allow_targets on the command line."
        )
    own = {key: _typed(cfg, key) for key in typed} | dict(local)
    named = [target for key, value in own.items() for _, target in targets({key.rpartition(".")[2]: value})]
    return {*given, *named, str(own.get("tracking.kind"))}


def _listed(value: object) -> list[str]:
    """A list's texts; what is no list has none, and its key's own check says so."""
    plain = plain_value(value)
    return [str(item) for item in plain] if isinstance(plain, list) else []


def _typed(cfg: DictConfig, key: str) -> object:
    """The value that a key of the command line has; none of a whole section, for a file may have added to it."""
    value = OmegaConf.select(cfg, key) if re.fullmatch(r"\w+(\.\w+)*", key) else None
    return None if isinstance(value, DictConfig) else plain_value(value)


def _of_hydra(hydra: DictConfig, own: Collection[str]) -> Iterator[str]:
    """What Hydra itself would run: targets within its sections, callbacks, loggers, variables, lines for a shell."""
    for name in ("sweeper", "launcher", "callbacks"):
        try:
            content = plain_value(hydra.get(name))
        except OmegaConfBaseException as error:
            yield f"hydra.{name}: {first_line(error)}."
            continue
        plugin = content.pop("_target_", None) if name != "callbacks" and isinstance(content, dict) else None
        yield from refused([(f"hydra.{name}._target_", str(plugin))] if plugin else [], ours=_PLUGINS)
        yield from refused(targets(content, f"hydra.{name}"), ours=())
    for key, value in flat(keyed(OmegaConf.to_container(hydra, resolve=False)), "hydra.").items():
        by_user = any(f"{key}.".startswith(f"{mine}.") for mine in own)
        if not by_user and value not in (None, {}, []) and _runs_code(key, value):
            yield (
                f"{key} is {value!r}, which could run any code, so no file from elsewhere may set it. "
                "If you trust it, give it on the command line or in local/default.yaml."
            )


def _runs_code(key: str, value: object) -> bool:
    name = key.removeprefix("hydra.launcher.")
    if key == "hydra.job.name":  # which becomes a line of a job's script
        return not _WORD.fullmatch(str(value))
    if name == key:
        return key.startswith(_RUN_CODE) and key.rpartition(".")[2] not in _HARMLESS
    if name == "setup" or name.startswith("additional_parameters"):
        return True
    return name != "_target_" and isinstance(value, str) and value not in _TEXTS and not _WORD.fullmatch(value)
