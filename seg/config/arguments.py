"""The command line of ``seg.train``: made ready for Hydra's grammar, and explained where Hydra refuses it.

Nothing here runs unless a command is wrong, but ``ready``, ``quoted`` and ``addable``.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cache
from itertools import pairwise
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from seg.config.content import PLACES, first_line, flat, keyed
from seg.config.options import CONF
from seg.config.schema import KEYS, OPTIONAL
from seg.errors import ConfigError, nearest

MANY = {"-m", "--multirun"}
_FOLDER = ("-cd", "--config-dir")
_SHOW = ("--resolve", "-h", "--help", "--hydra-help", "--version", "-sc", "--shell-completion")
WHY = "--why"
_SHOW_WHAT = ("-c", "--cfg", "-p", "--package", "-i", "--info", WHY)
_FLAGS = (*MANY, "-r", "--run", *_FOLDER, *_SHOW, *_SHOW_WHAT)
_ALONE = ("-m", "--multirun", "-r", "--run", "-c", "--cfg", "-i", "--info", "-sc", "--shell-completion")
_SHOWN = ("job", "hydra", "all")
_SEEDS = "hydra.sweeper.study.seeds"
_OPEN = (  # below these any key may be given, or Hydra says which
    *("tracking.tags.", "hydra.sweeper.params", "hydra.sweeper.when", "hydra.sweeper.sampler_options"),
    *("hydra.sweeper.pruner_options", "hydra.sweeper.study.", "hydra.launcher", "hydra.job", "hydra.run", "hydra/"),
    *("hydra.verbose", "hydra.mode", "hydra.callbacks", "hydra.searchpath", "hydra.hydra_logging"),
    "hydra.output_subdir",
)


def ready(arguments: Sequence[str], many: bool) -> Iterator[str]:
    """The arguments, each ``quoted``, for Hydra to apply one after the other.

    Seeds may be a list or a mapping, which Hydra cannot merge with one another: the old ones are taken away first.
    """
    for argument in arguments:
        if argument.startswith(f"{_SEEDS}="):
            yield f"{_SEEDS}=null"
        yield quoted(argument, many)


def quoted(argument: str, many: bool = False) -> str:
    """Puts a value that is always text in quotes: a run id such as 12e45678 would otherwise reach us as a number,

    and Hydra would stumble over a blank, a bracket or a quote in a folder's name or a pattern. ``~/`` is home.

    Args:
        argument: as typed.
        many: whether a comma may divide the values of a sweep.
    """
    key, equals, value = argument.partition("=")
    tag = key.startswith("tracking.tags.")  # any may be given
    text = tag or (key in KEYS and KEYS[key].type is str and not KEYS[key].many)
    whole = len(value) > 1 and value[0] in "\"'" and value[-1] == value[0]
    divided = "," in value and (many or key not in PLACES)
    if not text or not value or whole or "${" in value or value == "null" or divided:
        return f"++{argument}" if tag else argument
    if value.startswith("~/") and not tag:
        value = str(Path(value).expanduser())
    escaped = re.sub(r"(\\*)('|$)", lambda found: 2 * found[1] + found[2].replace("'", r"\'"), value)
    return f"{'++' if tag else ''}{key}{equals}'{escaped}'"


def addable(argument: str) -> str:
    """Lets a key that does not exist into the configuration, where it is refused with all other faults.

    Hydra itself would stop at the first. What has no dot may be a group of options.
    """
    key = argument.partition("=")[0]
    ours = key[:1].isalpha() and "." in key and not key.startswith("hydra.") and not {*"/@"} & {*key}
    return f"++{argument}" if ours and (key not in KEYS or key in OPTIONAL) else argument


def explained(error: Exception, arguments: Sequence[str]) -> list[str]:
    """What is wrong with a command that Hydra refused: what was seen, the rule, the nearest right word.

    Args:
        error: of Hydra, OmegaConf or PyYAML; one of another kind explains nothing itself.
        arguments: as typed.

    Returns:
        Every fault; none where the error has another cause.
    """
    many = bool(MANY & {*arguments})
    if any(argument.startswith((*_FOLDER, "hydra.searchpath")) for argument in arguments):
        groups = ("experiments", *_groups())  # more of their options may be in that folder
        arguments = [argument for argument in arguments if argument.partition("=")[0] not in groups]
    faults = [fault for argument in _settings(arguments) for fault in _faults(argument, many)]
    if isinstance(error, YAMLError):
        faults.append(f"A YAML file cannot be read: {' '.join(str(error).split())}.")
    if isinstance(error, RecursionError):
        faults.append("A file names itself among its defaults, directly or through others. Leave that line out.")
    ours = not isinstance(error, HydraException | OmegaConfBaseException | YAMLError)
    return faults or ([] if ours else [_sentence(error)])


def asked(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """The key that ``--why`` names, and the other arguments; None where it is not there.

    Raises:
        ConfigError: it names none.
    """
    words = []
    for argument in arguments:
        words += argument.split("=", 1) if argument.startswith(f"{WHY}=") else [argument]
    if WHY not in words:
        return None, words
    at = words.index(WHY)
    key = "".join(words[at + 1 : at + 2])
    if not key or key.startswith("-") or "=" in key:
        raise ConfigError(f"{WHY} names no key. Write {WHY} optimizer.lr")
    return key, words[:at] + words[at + 2 :]


def divided(arguments: Sequence[str]) -> tuple[set[str], list[str]]:
    """The flags of a command that runs something, and its settings; ``--config-dir`` becomes the setting that it is.

    Raises:
        ConfigError: it names no folder.
    """
    flags, settings = set[str](), list[str]()
    rest = iter(arguments)
    for argument in rest:
        flag, equals, value = argument.partition("=")
        if flag in _FOLDER:
            folder = Path(value if equals else next(rest, "")).absolute()
            if not folder.is_dir():
                raise ConfigError(f"There is no folder {folder}, which {flag} names.")
            within = str(folder).replace("'", r"\'")
            settings.append(f"hydra.searchpath=['file://{within}','file://.']")
        elif argument.startswith("-"):
            flags.add(flag)
        else:
            settings.append(argument)
    return flags, settings


def shows(arguments: Sequence[str]) -> bool:
    """Whether a command only shows something."""
    return any(argument.partition("=")[0] in (*_SHOW, *_SHOW_WHAT) for argument in arguments)


def wrong_flags(arguments: Sequence[str]) -> list[str]:
    """A fault for each flag that does not exist, or shows what does not exist."""
    typed = [argument.partition("=")[0] for argument in arguments if argument.startswith("-")]
    faults = [
        f"There is no flag {flag}.{nearest(flag, _FLAGS)} --help lists all." for flag in typed if flag not in _FLAGS
    ]
    if len(alone := [flag for flag in typed if flag in _ALONE]) > 1:
        faults.append(f"{' and '.join(alone)} cannot be given together. Leave one out.")
    if {*typed} & {"--resolve", "--package", "-p"} and not {*typed} & {"--cfg", "-c", "--help", "-h"}:
        faults.append("--resolve and --package only work with --cfg. Add --cfg job.")
    words = [word for argument in arguments for word in argument.split("=")] + [""]
    shown = [value for flag, value in pairwise(words) if flag in ("-c", "--cfg") and value not in _SHOWN]
    return faults + [f"--cfg {value} shows nothing. Write --cfg job, hydra or all." for value in shown]


def _settings(arguments: Sequence[str]) -> list[str]:
    """The arguments that are no flags and no flag's value."""
    pairs = pairwise(["", *arguments])
    return [word for flag, word in pairs if not word.startswith("-") and flag not in (*_FOLDER, *_SHOW_WHAT)]


def _faults(argument: str, many: bool) -> Iterator[str]:
    key, equals, value = argument.lstrip("+~").partition("=")
    group, _, place = key.partition("@")
    if not key or (not equals and argument[0] != "~"):
        yield f"'{argument}' is not of the form key=value."
        return
    try:
        override = OverridesParser.create().parse_overrides([quoted(argument, many)])[0]
    except (HydraException, ValueError):
        yield (
            f"'{argument}' cannot be read. Write a text with commas, quotes, brackets or blanks in quotes, within "
            f"those of the shell: '{key}=\"a, b\"'."
        )
        return
    if override.is_sweep_override() and not many:
        quotes = f" For one text with commas write '{key}=\"{value}\"'." if key in KEYS else ""
        yield f"{argument} has several values, and one run takes one. Add -m for a sweep.{quotes}"
    elif group in ("experiments", *_groups()):
        if override.is_delete() and group in _groups():
            yield f"{argument} leaves nothing to choose. Every run has its {group}: name an option, {group}=…"
        elif place and not override.is_add():
            yield f"'{argument}': there is no {group} at {place}. Write {group}={value}."
        elif not override.is_delete():
            with suppress(HydraException):  # a glob or an interval names no option
                yield from _wrong_options(override, group)
    elif argument[0] not in "+~" and not key.startswith(_OPEN) and key not in _keys():
        shown = "hydra" if key.startswith("hydra.") else "job"
        yield f"There is no key '{key}'.{nearest(key, [*_keys(), *_groups()])} `--cfg {shown}` prints every key."


def _wrong_options(override: Override, group: str) -> Iterator[str]:
    """A fault for each option that a group does not have."""
    folders = [folder for folder in (CONF / group, Path.cwd() / group) if folder.is_dir()]
    there = sorted({file.stem for folder in folders for file in folder.glob("*.yaml")} - {"base"})
    values = override.sweep_iterator() if override.is_sweep_override() else [override.value()]
    for value in values:
        option = "null" if value is None else str(value).removesuffix(".yaml")
        if isinstance(value, list) or any((folder / f"{option}.yaml").is_file() for folder in folders):
            continue
        rule = f"The options of {group} are {', '.join(there)}" if folders else f"{Path.cwd()} has no folder {group}"
        yield f"There is no {group}={option}.{nearest(option, there)} {rule}."


@cache
def _groups() -> list[str]:
    return sorted(path.name for path in CONF.iterdir() if path.is_dir() and path.name != "hydra")


@cache
def _keys() -> list[str]:
    """Every key of every option, whichever is chosen, and those of sweeps."""
    keys = [*KEYS]
    for group in (*_groups(), "hydra/sweeper"):
        for folder in (CONF / group, Path.cwd() / group):
            for file in sorted(folder.glob("*.yaml")):
                with suppress(YAMLError, OSError):
                    content = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
                    prefix = "" if "@package _global_" in file.read_text("utf-8") else f"{group.replace('/', '.')}."
                    keys += flat(keyed(content), prefix)
    return list(dict.fromkeys(keys))


def _sentence(error: Exception) -> str:
    """Hydra's message as one sentence."""
    if isinstance(error, MissingConfigException) and error.options:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        there = list(error.options)
        return f"There is no {group}={option}.{nearest(option, there)} The options of {group} are {', '.join(there)}."
    if refused := re.search(r"Could not override '(.+)'\.\nTo append to your config use \+(.*)", str(error)):
        return f"There is no key '{refused[1]}'.{nearest(refused[1], _keys())} `--cfg all` prints every key."
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    said = first_line(error, where=True)
    return f"{said}." if cause is error else f"{said}: {first_line(cause)}."
