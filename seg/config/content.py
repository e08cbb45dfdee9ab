"""Configurations, and what users type, as plain data."""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from omegaconf import DictConfig, OmegaConf

from seg.errors import without_passwords
from seg.files import digest

PLACES = ("paths.outputs", "paths.cache", "data.root", "tracking.uri")  # where things are, not what they are
WITHOUT_EFFECT = (
    *("paths.", "tracking.", "check", "allow_targets", "card.", "resume", "data.root", "trainer.workers"),
    *("trainer.layout", "predictions.", "study", "arm"),
)


def plain(cfg: DictConfig) -> dict[str, Any]:
    """The resolved configuration as plain containers, with passwords in addresses replaced by ``***``."""
    content: dict[str, Any] = json.loads(without_passwords(json.dumps(OmegaConf.to_container(cfg, resolve=True))))
    return content


def keyed(content: object) -> dict[str, object]:
    """A mapping with texts as keys; nothing of what is no mapping."""
    return {str(key): value for key, value in content.items()} if isinstance(content, dict) else {}


def plain_value(value: object) -> object:
    """A section as plain containers, resolved; any other value as it is."""
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def config_hash(cfg: DictConfig) -> str:
    """Sha256 of what can change a score: everything but where files are and how the run is recorded and drawn."""
    content = {key: value for key, value in flat(plain(cfg)).items() if not key.startswith(WITHOUT_EFFECT)}
    return digest(content)


def flat(values: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Nested containers as ``{"a.b": value}``; lists stay whole."""
    out: dict[str, object] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            out.update(flat(value, f"{prefix}{key}."))
        else:
            out[f"{prefix}{key}"] = value
    return out


def number(value: object) -> object:
    """The number that a text is; any other value as it is."""
    for kind in (int, float):
        with suppress(ValueError, TypeError):
            return kind(value) if isinstance(value, str) else value
    return value


def first_line(error: BaseException, *, where: bool = False) -> str:
    """The first line of a library's message, and the second where the first only announces it, without a full stop.

    With ``where`` the key comes first that OmegaConf stumbled over.
    """
    first, *rest = [" ".join(line.split()).rstrip(".") for line in str(error).split("\n")]
    line = f"{first} {rest[0]}" if first.endswith(":") and rest else first
    key = getattr(error, "full_key", None) if where else None
    return (f"{key}: " if key else "") + re.sub(r'^\w+ raised while resolving interpolation: "(.*)"', r"\1", line)
