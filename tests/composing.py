"""Configurations as ``seg.train`` composes them; Hydra itself is asked once a session for each choice of options."""

import copy
from functools import cache
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from omegaconf import DictConfig, OmegaConf

from seg.config import CONF


def composed(*overrides: str) -> DictConfig:
    """Plain values are set on a copy, as Hydra sets them; options, additions and deletions are composed."""
    read = OverridesParser.create().parse_overrides(list(overrides))
    options = [line for line, override in zip(overrides, read, strict=True) if not _plain(override)]
    cfg = copy.deepcopy(_composed(tuple(options), Path.cwd()))
    for override in filter(_plain, read):
        OmegaConf.update(cfg, override.key_or_group, override.value(), merge=True)
    return cfg


@cache
def _composed(options: tuple[str, ...], folder: Path) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", overrides=list(options))


def _plain(override: Override) -> bool:
    key = override.key_or_group
    group = (CONF / key).is_dir() or {"/", "@"} & set(key) or key in ("experiments", "local")
    return override.type == OverrideType.CHANGE and not group
