"""How ``python -m seg.train`` starts: its configuration, composed by Hydra from one file per option."""

import gc
import os
import posixpath
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.hydra import Hydra
from hydra._internal.sources_registry import SourcesRegistry
from hydra.conf import ConfigSourceInfo
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException
from hydra.plugins.config_source import ConfigSource
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from seg.config.command import exits, of_the_disk
from seg.config.schema import CONF, Train, flat, nearest
from seg.errors import ConfigError

ConfigStore.instance().store(name="train_schema", node=Train)
_TEXT_KEYS = (
    *("resume", "study", "arm", "data.root", "data.patient", "data.split_file"),
    *("paths.outputs", "paths.cache", "tracking.uri"),
)


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
        # Hydra would print only part of an error and exit with 1; with this it hands the exception on.
        os.environ.setdefault("HYDRA_FULL_ERROR", "1")
        sys.argv[1:] = [quoted(argument) for argument in sys.argv[1:]]
        _compose_once()
        gc.freeze()  # what imports made stays, and need not be searched for garbage
        with exits("the same command goes on"), _explained(root):
            hydra.main(config_path=str(CONF), config_name=root, version_base="1.3")(task)()

    return run


def quoted(argument: str) -> str:
    """Puts a value that is always text in quotes: a run id such as 12e45678 would else reach us as a number,

    and Hydra would stumble over a blank or a bracket in a folder's name or a pattern.
    """
    key, equals, value = argument.partition("=")
    if key.startswith("tracking.tags."):  # any tag may be given
        return f"++{argument}"
    if key not in _TEXT_KEYS or not value or value[0] in "\"'" or "${" in value or value == "null" or "," in value:
        return argument
    return f"{key}{equals}'{value}'"


def _compose_once() -> None:
    """Keeps Hydra from composing everything one time more, only to read ``hydra.mode``, where nothing can set it."""
    asked = Hydra.get_mode

    def get_mode(self: Hydra, config_name: str | None, overrides: list[str]) -> Any:
        might_say = any(override.lstrip("+").startswith(("hydra", "experiments")) for override in overrides)
        return asked(self, config_name, overrides) if might_say else None

    Hydra.get_mode = get_mode


def known_keys(choices: Mapping[str, Any], places: Iterable[ConfigSourceInfo], root: str) -> dict[str, Any]:
    """Every key that exists, with its value: as the files of the root and of the chosen options give it.

    A study's file and this machine's own settings set keys but make none. Composing again would take far longer.

    Args:
        choices: the option of each group.
        places: where Hydra looks for options.
        root: of the configuration.
    """
    kinds = SourcesRegistry.instance()
    sources = [kinds.resolve(at.schema)(at.provider, f"{at.schema}://{at.path}") for at in places if at.schema]
    known = _keys_of(root, sources)
    for group, options in choices.items():
        if options and not group.startswith("hydra/") and group not in ("experiments", "local"):
            folder, _, place = group.partition("@")
            for option in [options] if isinstance(options, str) else options:
                known |= _keys_of(f"{folder}/{option}", sources, place)
    return known


def _keys_of(path: str, sources: Sequence[ConfigSource], place: str = "") -> dict[str, Any]:
    """The keys that a file gives, those of the files that it builds on included.

    Args:
        path: of the file in the configuration, without suffix.
        sources: of options, the first that has it counts.
        place: the package after ``@`` where it was chosen; else its first line or its group says where its keys go.
    """
    source = next((source for source in sources if source.is_config(path)), None)
    if source is None:
        return {}
    found, folder = source.load_config(path), posixpath.dirname(path)
    content: Any = OmegaConf.to_container(found.config, resolve=False)
    package = place or found.header.get("package") or "_group_"
    package = package.replace("_group_", folder.replace("/", ".")).removeprefix("_global_").lstrip(".")
    known: dict[str, Any] = {}
    for base in content.pop("defaults", []):
        # Any other is a choice of its own, and the root's schema only types what the files give.
        if isinstance(base, str) and base not in ("_self_", f"{path}_schema"):
            file, _, at = base.partition("@")
            known |= _keys_of(posixpath.join("/", folder, file)[1:], sources, f"{package}.{at}" if at else place)
    content.pop("hydra", None)
    return known | flat(content, f"{package}." if package else "")


def chosen_study(choices: dict[str, Any], root: str) -> str | None:
    """The study file chosen as ``experiments=``; Hydra would pass over one that does not exist.

    Raises:
        ConfigError: there is no such file.
    """
    study = choices.get("experiments")
    if study is None:
        return None
    there = GlobalHydra.instance().config_loader().get_group_options("experiments", config_name=root)
    if str(study).removesuffix(".yaml") not in there:
        raise ConfigError(_no_study(str(study), there))
    return str(study)


def _no_study(study: str, there: list[str]) -> str:
    return (
        f"There is no experiments/{study}.yaml in {Path.cwd()}.{nearest(study, there)} "
        f"There are: {', '.join(there) or 'none'}."
    )


@contextmanager
def _explained(root: str) -> Iterator[None]:
    try:
        yield
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise ConfigError(_words(error, root)) from error


def _words(error: Exception, root: str) -> str:
    """Hydra's message as one sentence: what was seen, the rule, the nearest right word."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    if isinstance(error, MissingConfigException) and error.options:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        return (
            f"There is no {group}={option}.{nearest(option, list(error.options))} "
            f"The options of {group} are {', '.join(error.options)}."
        )
    text, reason = (_sentence(str(e)) for e in (error, cause))
    whole = f"{error}\n{cause}"
    key = re.search(r"Could not override '([^']+)'", whole) or re.search(r"full_key: (\S+)", whole)
    if isinstance(error, YAMLError):
        return f"A YAML file cannot be read: {' '.join(str(error).split())}."
    if key and key[1].startswith("experiments"):
        study = next((a.partition("=")[2] for a in sys.argv if a.startswith("experiments=")), "")
        if (Path("experiments") / f"{study.removesuffix('.yaml')}.yaml").exists():
            return f"experiments/{study}.yaml must begin with the line '# @package _global_'."
        return _no_study(study, sorted(path.stem for path in Path("experiments").glob("*.yaml")))
    if key and re.search(r"No match in the defaults list|not in struct|Key '\w+' not in|Key '\w+' is not in", whole):
        return f"There is no key '{key[1]}'.{nearest(key[1], _known_words(root))} `--cfg job` prints every key."
    if key and key[1] not in text:
        return f"{key[1]}: {reason}."
    return text if cause is error else f"{text}: {reason}."


def _sentence(message: str) -> str:
    """The first line of a message, and the second where the first only announces it."""
    first, *rest = [" ".join(line.split()).rstrip(".") for line in message.split("\n")] or [""]
    return f"{first} {rest[0]}" if first.endswith(":") and rest else first


def _known_words(root: str) -> list[str]:
    """Keys and groups of the options that the command line chooses."""
    defaults = OmegaConf.load(CONF / f"{root}.yaml").defaults
    choices = {
        name.split()[-1]: option for entry in defaults if OmegaConf.is_dict(entry) for name, option in entry.items()
    }
    choices |= {group: option for group, _, option in (a.partition("=") for a in sys.argv[1:]) if group in choices}
    places = [ConfigSourceInfo(path=str(place), schema="file", provider="seg") for place in (CONF, Path.cwd())]
    return [*known_keys(choices, places, root), *choices]
