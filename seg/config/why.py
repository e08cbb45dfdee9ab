"""``python -m seg.train --why optimizer.lr``: its value, what set it, what that overrode, what others would set.

Hydra composes, and says which files it read in which order; here each of these is asked for its own value of the key.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from seg.config.arguments import addable
from seg.config.content import flat, keyed
from seg.config.options import CONF, keys_of_file
from seg.config.schema import KEYS
from seg.errors import ConfigError, nearest, without_passwords

STUDY = "hydra.sweeper.study"


@dataclass(frozen=True)
class Setting:
    """Who sets a key to what."""

    place: str  # ``conf/optimizer/muon.yaml:4``, or the command line
    value: object
    meaning: str = ""  # the comment beside it


def why(root: str, key: str, overrides: Sequence[str]) -> str:
    """Everything about ``key``, for the terminal.

    Args:
        root: of the configuration.
        key: of a value such as ``optimizer.lr``, or a group of options such as ``optimizer``.
        overrides: of the command line, for Hydra.

    Raises:
        ConfigError: there is no such key, or it is a section.
    """
    with hydra.initialize_config_dir(str(CONF), job_name=root, version_base="1.3"):
        session = GlobalHydra.instance().hydra
        assert session is not None
        cfg = session.compose_config(root, [*overrides], RunMode.RUN)
        base = _of_study(cfg, overrides)
        if base:  # what a study sets for all of its arms may be a choice of another file
            cfg = session.compose_config(root, [*base, *overrides], RunMode.RUN)
        read = session.config_loader.compute_defaults_list(root, [*base, *overrides], RunMode.RUN).defaults
    folders = [Path(at.path) for at in cfg.hydra.runtime.config_sources if at.schema == "file"]
    found = [
        (file, str(default.package or ""))
        for default in read
        if (file := _file(folders, str(default.config_path))) is not None
    ]
    group = key if (CONF / key).is_dir() and key != "hydra" else None
    value = dict(cfg.hydra.runtime.choices).get(key) if group else _value(cfg, key, folders)
    given = [override for override in overrides if override.partition("=")[0].lstrip("+~") == key]
    settings = [setting for file, package in found for setting in _settings(file, package, key, group)]
    settings += [Setting("the command line", yaml.safe_load(text.partition("=")[2])) for text in given]
    lines = [f"{key} = {_text(value)}", *_described(settings)]
    lines += [f"  varied by   {place}: {text}" for place, text in _varied(cfg, key)]
    return without_passwords("\n".join([*lines, *_others(key, group, folders, cfg)]))


def _file(folders: Sequence[Path], path: str) -> Path | None:
    return next((file for folder in folders if (file := folder / f"{path}.yaml").is_file()), None)


def _of_study(cfg: DictConfig, overrides: Sequence[str]) -> list[str]:
    """What a study's ``base`` sets for all arms, as overrides; the command line's take the place of its own."""
    typed = {override.partition("=")[0].lstrip("+~") for override in overrides}
    section = OmegaConf.select(cfg, f"{STUDY}.base")
    base = flat(keyed(OmegaConf.to_container(section, resolve=False))) if OmegaConf.is_config(section) else {}
    return [addable(f"{key}={_quoted(value)}") for key, value in base.items() if key not in typed]


def _quoted(value: object) -> str:
    plain = isinstance(value, str) and re.fullmatch(r"[\w.:/@%+-]+", value)
    return str(value) if plain else json.dumps(value)


def _value(cfg: DictConfig, key: str, folders: Sequence[Path]) -> object:
    """The value of ``key``, resolved.

    Raises:
        ConfigError: there is none, with the nearest that there is.
    """
    known = flat(keyed(OmegaConf.to_container(cfg, resolve=False)))
    if key in known:
        value = known[key] if known[key] == "???" else OmegaConf.select(cfg, key)
        return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
    if below := [other for other in known if other.startswith(f"{key}.")]:
        raise ConfigError(f"{key} is a section. Ask for one of its keys: {', '.join(below)}.")
    section = key.partition(".")[0]
    if options := [option for option, values in _options(section, folders).items() if key in values]:
        chosen = dict(cfg.hydra.runtime.choices).get(section)
        raise ConfigError(
            f"{section}={chosen} has no {key.partition('.')[2]}. These have: "
            f"{', '.join(f'{section}={option}' for option in options)}."
        )
    groups = [path.name for path in CONF.iterdir() if path.is_dir() and path.name != "hydra"]
    raise ConfigError(f"There is no key '{key}'.{nearest(key, [*known, *groups])} `--cfg job` prints every key.")


def _settings(file: Path, package: str, key: str, group: str | None) -> Iterator[Setting]:
    """What ``file`` sets ``key`` to, itself and as the base of a study; of a group, which option it chooses."""
    text = file.read_text("utf-8")
    content, lines = keyed(OmegaConf.to_container(OmegaConf.create(text), resolve=False)), text.splitlines()
    place = file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file

    def setting(value: object, line: int, words: str = "") -> Setting:
        comment = re.search(r"\s# *(.+)$", lines[line])
        return Setting(f"{place}:{line + 1}{words}", value, comment[1] if comment else "")

    if group:
        for choice in content.get("defaults") or []:  # type: ignore[attr-defined]
            for name, option in keyed(choice).items():
                if name.split()[-1].lstrip("/") == group:
                    yield setting(
                        option, next(n for n, line in enumerate(lines) if re.search(rf"\b{re.escape(name)}:", line))
                    )
    content.pop("defaults", None)
    prefix = f"{package}." if package else ""
    at = dict(_lines(yaml.compose(text), prefix))
    for name, value in flat(content, prefix).items():
        if name == key and not group:
            yield setting(value, at[name])
        if name == f"{STUDY}.base.{key}":
            yield setting(value, at[name], " (base)")


def _lines(node: Any, prefix: str) -> Iterator[tuple[str, int]]:
    """The line, from 0, of each key of a YAML document, with its full name."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield f"{prefix}{key.value}", key.start_mark.line
            yield from _lines(value, f"{prefix}{key.value}.")


def _described(settings: Sequence[Setting]) -> Iterator[str]:
    """The last one, which set the value, then those that it overrode, the last first."""
    width = max((len(setting.place) for setting in settings), default=0)
    values = [_text(setting.value) for setting in settings]
    room = max(map(len, values), default=0)
    for n in reversed(range(len(settings))):
        words = "set by" if n == len(settings) - 1 else "it overrode"
        yield f"  {words:<11} {settings[n].place:<{width}}  {values[n]:<{room}}  {settings[n].meaning}".rstrip()


def _varied(cfg: DictConfig, key: str) -> Iterator[tuple[str, str]]:
    """What the arms or factors of a study, or a search, set instead: the key, or the option that it comes from."""
    sweeper = keyed(OmegaConf.to_container(cfg.hydra.sweeper, resolve=False))
    study = keyed(sweeper.get("study"))
    sections = {f"the arm {arm}": values for arm, values in keyed(study.get("arms")).items()}
    sections |= {"the study's factors": study.get("factors"), "hydra.sweeper.params": sweeper.get("params")}
    for place, values in sections.items():
        for name, value in flat(keyed(values)).items():
            if name in (key, key.partition(".")[0]):
                yield place, f"{name}={_text(value)}"


def _options(group: str, folders: Sequence[Path]) -> dict[str, Mapping[str, object]]:
    """The keys and values of each option of a group."""
    names = sorted({file.stem for folder in folders for file in (folder / group).glob("*.yaml")} - {"base"})
    return {name: keys_of_file(f"{group}/{name}", folders) for name in names}


def _others(key: str, group: str | None, folders: Sequence[Path], cfg: DictConfig) -> Iterator[str]:
    """What other options of the key's group, and the files of ``experiments/``, would set."""
    section = key.partition(".")[0]
    chosen = dict(cfg.hydra.runtime.choices)
    if group:
        yield f"  options     {', '.join(_options(group, folders))}"
    elif (options := _options(section, folders)) and len(options) > 1 and any(key in own for own in options.values()):
        yield from (
            f"  {section}={option} would set {_text(own[key]) if key in own else 'nothing: it has no such key'}"
            for option, own in options.items()
            if option != chosen.get(section)
        )
    for name, own in _options("experiments", folders).items():
        value = own.get(key, own.get(f"{STUDY}.base.{key}"))
        if value is not None and name != chosen.get("experiments") and not group:
            yield f"  experiments={name} would set {_text(value)}"
    if key in KEYS:
        yield f"  It takes {KEYS[key]}."


def _text(value: object) -> str:
    """A value as YAML has it, in one line."""
    text = str(yaml.safe_dump(value, default_flow_style=True, width=10_000)).removesuffix("...\n").strip()
    return "no value: it must be given" if value == "???" else text
