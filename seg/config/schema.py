"""The configuration: its types, the rules between its groups, and the one place that builds what it names.

Only omegaconf and the standard library are imported here, so that ``--help``, ``--cfg job`` and a
configuration error answer at once.
"""

import difflib
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from omegaconf import MISSING, DictConfig, OmegaConf

from seg.errors import ConfigError, SegError

_INSTALLED = Path(__file__).parents[1] / "conf"
CONF = _INSTALLED if _INSTALLED.is_dir() else Path(__file__).parents[2] / "conf"
OPTIONS = ("model", "attention", "loss", "optimizer", "scheduler", "augmentation", "data")  # groups of seg.train
PLACES = ("paths.outputs", "paths.cache", "data.root", "tracking.uri")  # where things lie, not what they are


@dataclass
class Data:
    """Which cases, and how they are split, prepared and sampled."""

    name: str | None = MISSING  # null: the folder's own
    root: str = MISSING
    cases: dict[str, Any] = MISSING  # _target_ f(root, name, patient, …) -> CaseSet
    patient: str | None = MISSING
    fold: Any = MISSING  # int, or "all"
    folds: int = MISSING
    test_fraction: float = MISSING  # of the patients, 0 … 1
    split_seed: int = MISSING
    split_file: str | None = MISSING
    spacing: Any = MISSING  # "auto" or [x, y, z] in mm
    normalization: str = MISSING
    patch: Any = MISSING  # "auto" or voxels per axis
    patch_voxels: int = MISSING
    batch_size: Any = MISSING  # "auto" or int
    foreground: float = MISSING  # share of patches, 0 … 1
    jitter: int = MISSING  # voxels
    max_steps: int | None = MISSING  # the budget where trainer sets none
    max_minutes: float | None = MISSING


@dataclass
class Trainer:
    """Budget, precision and stopping."""

    max_epochs: Any = MISSING  # "auto", int or null
    max_steps: int | None = MISSING  # optimizer steps
    max_minutes: float | None = MISSING  # wall clock
    steps_per_epoch: Any = MISSING  # "auto" or int
    precision: str = MISSING
    layout: str = MISSING  # auto | contiguous | channels_last
    device: str = MISSING
    accumulate: int = MISSING  # batches a step
    clip_norm: float | None = MISSING
    ema: float = MISSING  # decay, 0 … 1
    validate_every: int = MISSING  # epochs
    early_stopping: int | None = MISSING  # epochs
    save_every: int = MISSING  # epochs
    workers: Any = MISSING  # "auto" or int
    deterministic: bool = MISSING


@dataclass
class Inference:
    """Sliding-window prediction and scoring."""

    overlap: float = MISSING  # 0 … <1
    mirror: bool = MISSING
    shifts: bool = MISSING
    batch_size: Any = MISSING  # windows: "auto" or int
    part: str = MISSING  # test | val
    checkpoint: str = MISSING  # best | last
    nsd_tolerance_mm: float = MISSING


@dataclass
class Predictions:
    """What the run's own prediction folder holds."""

    slices: Any = MISSING  # best | foreground | all | int
    dpi: int = MISSING
    upload: str = MISSING  # sheet | all


@dataclass
class Tracking:
    """Where the run is recorded."""

    kind: str = MISSING  # mlflow | none
    uri: str | None = MISSING
    experiment: str | None = MISSING
    every_steps: Any = MISSING  # "auto" or int
    system_metrics: bool = MISSING
    parent: str | None = MISSING
    tags: dict[str, Any] = MISSING


@dataclass
class Paths:
    """Every folder that is written to."""

    outputs: str = MISSING
    cache: str = MISSING


@dataclass
class Train:
    """The root of ``python -m seg.train``. The ``_target_`` sections are checked against their option's file."""

    data: Data = MISSING
    model: dict[str, Any] = MISSING
    attention: dict[str, Any] = MISSING
    loss: dict[str, Any] = MISSING
    optimizer: dict[str, Any] = MISSING
    scheduler: dict[str, Any] = MISSING
    augmentation: dict[str, Any] = MISSING
    trainer: Trainer = MISSING
    inference: Inference = MISSING
    predictions: Predictions = MISSING
    tracking: Tracking = MISSING
    paths: Paths = MISSING
    seed: int = MISSING
    dims: int = MISSING
    study: str = MISSING
    arm: str | None = MISSING
    check: bool = MISSING
    resume: str | None = MISSING


def build(node: Any, **arguments: Any) -> Any:
    """Builds what the section's ``_target_`` names; the only place that instantiates.

    Args:
        node: a section with ``_target_``.
        arguments: given to the target beside the section's own values.

    Raises:
        ConfigError: the target does not exist or refuses an argument.
    """
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    try:
        return instantiate(node, _convert_="all", **arguments)
    except InstantiationException as error:
        if isinstance(error.__cause__, SegError | OSError):
            raise error.__cause__ from error
        raise ConfigError(f"{node.get('_target_')} cannot be built from its section: {error}") from error


def plain(cfg: DictConfig) -> dict[str, Any]:
    """The resolved configuration as plain containers, with passwords in addresses replaced by ``***``."""
    content: dict[str, Any] = json.loads(without_passwords(json.dumps(OmegaConf.to_container(cfg, resolve=True))))
    return content


UI = "http://127.0.0.1:5000"
"""Where ``mlflow ui`` serves a database."""


def is_server(uri: str) -> bool:
    """Whether an address of MLflow is a server's; else it is a database or a folder."""
    return uri.startswith(("http://", "https://"))


def without_passwords(text: str, address: str = "") -> str:
    """Replaces the password of every ``scheme://user:password@host`` and ``?password=…`` in ``text`` by ``***``.

    The secrets of ``address`` are found wherever they stand, as it spells them and as a library unquotes them.
    """
    parts = urlsplit(address)
    secrets = {parts.password or "", *(value for key, value in parse_qsl(parts.query) if "pass" in key)}
    for secret in sorted(filter(None, {*secrets, *map(unquote, secrets)}), key=len, reverse=True):
        text = text.replace(secret, "***")
    text = re.sub(r"(\w+://[^\s:/@\"]*):[^\s\"]*@", r"\1:***@", text)
    text = re.sub(r"(\w+://)[^\s:/@\"]+@", r"\1***@", text)  # a token in place of a user
    return re.sub(r"(?i)([?&]\w*(?:password|passwd|pwd|token)=)[^&\s\"']+", r"\1***", text)


_WITHOUT_EFFECT = (
    "paths.",
    "tracking.",
    "check",
    "resume",
    "data.root",
    "trainer.workers",
    "trainer.layout",
    "predictions.",
    "study",
    "arm",
)


def config_hash(cfg: DictConfig) -> str:
    """Sha256 of what can change a score: all but where files lie and how the run is recorded and drawn."""
    content = {key: value for key, value in flat(plain(cfg)).items() if not key.startswith(_WITHOUT_EFFECT)}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested containers as ``{"a.b": value}``; lists stay whole."""
    out: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            out.update(flat(value, f"{prefix}{key}."))
        else:
            out[prefix + key] = value
    return out


def nearest(word: str, known: Iterator[str] | list[str]) -> str:
    """`` Did you mean 'x'?`` for the known word nearest to ``word``, or nothing."""
    known = list(known)
    match = difflib.get_close_matches(word, known, 1, 0.7)
    if not match:  # a right key in the wrong place: trainer.epochs for trainer.max_epochs, lr for optimizer.lr
        last = word.rpartition(".")[2]
        match = [key for key in known if key.rpartition(".")[2] == last or key.endswith(last)][:1]
    return f" Did you mean '{match[0]}'?" if match else ""
