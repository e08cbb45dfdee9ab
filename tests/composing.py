"""Hydra made quick: what a choice of options composes to is kept for the session; all else is Hydra's own."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal import config_loader_impl as hydras
from hydra._internal.defaults_list import DefaultsList, Overrides
from omegaconf import DictConfig

from seg.config.options import CONF


def composed(*overrides: str) -> DictConfig:
    """The configuration of ``seg.train``."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", overrides=list(overrides))


@contextmanager
def quick() -> Iterator[None]:
    """Composing takes a quarter of its time."""
    known: dict[Any, DefaultsList] = {}
    trees: dict[int, DictConfig | None] = {}  # by the identity of a kept list of defaults
    choose, merge = hydras.create_defaults_list, hydras.ConfigLoaderImpl._compose_config_from_defaults_list

    def chosen(repo: Any, config_name: str, overrides_list: list[Any], **settings: Any) -> DefaultsList:
        values = Overrides(repo=repo, overrides_list=overrides_list).config_overrides
        lines = [o.input_line for o in overrides_list if not (o.is_sweep_override() or any(o is v for v in values))]
        places = [(source.provider, source.path, *_texts(source.path, lines)) for source in repo.get_sources()]
        key = (config_name, *places, Path.cwd(), *lines, *settings.values())
        if key not in known:
            known[key] = choose(repo, config_name, overrides_list, **settings)
            trees[id(known[key].defaults)] = None
        return replace(known[key], config_overrides=values)

    def merged(self: Any, defaults: list[Any], repo: Any) -> DictConfig:
        if id(defaults) not in trees:
            return merge(self, defaults, repo)
        if trees[id(defaults)] is None:
            trees[id(defaults)] = merge(self, defaults, repo)
        return copy.deepcopy(trees[id(defaults)])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hydras, "create_defaults_list", chosen)
        patch.setattr(hydras.ConfigLoaderImpl, "_compose_config_from_defaults_list", merged)
        yield


def _texts(place: str, options: list[str]) -> list[str]:
    """The study files that are chosen, for tests write their own."""
    names = [line.partition("=")[2] for line in options if "experiments=" in line]
    files = [Path(place, "experiments", f"{name}.yaml") for name in names]
    return [file.read_text() for file in files if file.is_file()]
