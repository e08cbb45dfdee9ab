"""The rules of a configuration: every fault is found before any data are read, and all are told at once."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from seg.config.schema import flat, nearest
from seg.errors import ConfigError, together


def check(cfg: DictConfig, known: Mapping[str, Any] | None = None, where: str = "the configuration") -> None:
    """Holds the rules between groups, before any data are read.

    Args:
        cfg: the composed configuration.
        known: the keys that exist, each with a value that shows its type.
        where: named in the message of an unknown key.

    Raises:
        ConfigError: with every fault found.
    """
    faults = list(_key_faults(cfg, known, where)) if known is not None else []
    if missing := sorted(OmegaConf.missing_keys(cfg)):
        faults += [f"{key} has no value. Set it: {key}=…" for key in missing]
    else:
        faults += [*_number_faults(cfg), *_list_faults(cfg), *_choice_faults(cfg)]
        faults += [*_combination_faults(cfg), *_validation_faults(cfg), *_ignored_faults(cfg)]
    together(ConfigError, faults)


def _key_faults(cfg: DictConfig, right: Mapping[str, Any], where: str) -> Iterator[str]:
    seen = flat(OmegaConf.to_container(cfg, resolve=False))  # type: ignore[arg-type]
    branches = {key.rsplit(".", n)[0] for key in right for n in range(1, key.count(".") + 1)} | set(right)
    for key, value in seen.items():
        parent = key.rpartition(".")[0]
        free = key.startswith("tracking.tags.") or value == {}
        if key not in branches and not free and parent not in right:
            yield f"{where} sets '{key}', which does not exist.{nearest(key, list(right))}"
        elif key.partition(".")[0] in _BUILT and key in right and not _alike(value, right[key]):
            yield f"{key} is {value!r}; it takes a {_kind(right[key]).__name__}, such as {right[key]!r}."


# Tags that every run sets (seg/engine/results.py).
OWN_TAGS = (
    *("run_id", "run_id_short", "experiment_type", "dataset_version", "split_hash", "config_hash", "study", "arm"),
    *("seed", "fold", "predictions", "git_commit", "git_dirty", "developer", "environment"),
    *("error", "status", "sweep", "trial"),
)

_BUILT = ("model", "attention", "loss", "optimizer", "scheduler")  # sections without a schema of their own


def _kind(value: Any) -> type:
    return float if isinstance(value, int | float) and not isinstance(value, bool) else type(value)


def _alike(value: Any, example: Any) -> bool:
    """Whether ``value`` may stand where ``example`` stands; null and ``auto`` may stand for anything."""
    return value is None or value == "auto" or example in (None, "auto") or _kind(value) is _kind(example)


# key: (lowest, highest, whole numbers only, words that may stand instead)
_NUMBERS: dict[str, tuple[float, float, bool, tuple[str | None, ...]]] = {
    "seed": (0, 2**32 - 1, True, ()),
    "data.fold": (0, math.inf, True, ("all",)),
    "data.folds": (2, math.inf, True, ()),
    "data.test_fraction": (0, 0.99, False, ()),
    "data.split_seed": (0, 2**32 - 1, True, ()),
    "data.batch_size": (1, math.inf, True, ("auto",)),
    "data.patch_voxels": (512, math.inf, True, ()),
    "data.foreground": (0, 1, False, ()),
    "data.jitter": (0, math.inf, True, ()),
    "data.max_steps": (1, math.inf, True, (None,)),
    "data.max_minutes": (0.001, math.inf, False, (None,)),
    "trainer.max_epochs": (1, math.inf, True, ("auto", None)),
    "trainer.max_steps": (1, math.inf, True, (None,)),
    "trainer.max_minutes": (0.001, math.inf, False, (None,)),
    "trainer.steps_per_epoch": (1, math.inf, True, ("auto",)),
    "trainer.accumulate": (1, math.inf, True, ()),
    "trainer.clip_norm": (1e-6, math.inf, False, (None,)),
    "trainer.ema": (0, 0.999999, False, ()),
    "trainer.validate_every": (1, math.inf, True, ()),
    "trainer.early_stopping": (1, math.inf, True, (None,)),
    "trainer.save_every": (1, math.inf, True, ()),
    "trainer.workers": (0, math.inf, True, ("auto",)),
    "inference.overlap": (0, 0.95, False, ()),
    "inference.batch_size": (1, math.inf, True, ("auto",)),
    "inference.nsd_tolerance_mm": (0, math.inf, False, ()),
    "predictions.slices": (1, math.inf, True, ("best", "foreground", "all")),
    "predictions.dpi": (30, 1200, True, ()),
    "tracking.every_steps": (1, math.inf, True, ("auto",)),
}


def _number_faults(cfg: DictConfig) -> Iterator[str]:
    for key, (low, high, whole, words) in _NUMBERS.items():
        value = OmegaConf.select(cfg, key)
        if value not in words and not _is_number(value, low, high, whole):
            limits = f"from {low:g}" + (f" to {high:g}" if high < math.inf else "")
            others = "".join(f", or {'null' if word is None else word}" for word in words)
            yield f"{key} is {value!r}; it must be a {'whole ' if whole else ''}number {limits}{others}."


def _is_number(value: Any, low: float, high: float, whole: bool) -> bool:
    kinds = (int,) if whole else (int, float)
    return isinstance(value, kinds) and not isinstance(value, bool) and low <= value <= high


def _list_faults(cfg: DictConfig) -> Iterator[str]:
    axes = cfg.augmentation.mirror_axes
    for key, length, whole in (("spacing", 3, False), ("patch", cfg.dims, True)):
        value = cfg.data[key]
        numbers = OmegaConf.is_list(value) and all(_is_number(v, 1 if whole else 1e-3, math.inf, whole) for v in value)
        if value != "auto" and not (numbers and len(value) == length):
            yield f"data.{key} is {value}; it must be 'auto' or {length} {'whole ' if whole else ''}numbers above 0."
    if not OmegaConf.is_list(axes) or not all(_is_number(axis, 0, 2, True) for axis in axes):
        yield f"augmentation.mirror_axes is {axes}; it must be a list of axes, each 0, 1 or 2."


def _choice_faults(cfg: DictConfig) -> Iterator[str]:
    choices: dict[str, tuple[Any, ...]] = {
        "dims": (2, 3),
        "data.normalization": ("auto", "zscore", "ct"),
        "trainer.precision": ("auto", "fp32", "bf16", "fp16"),
        "trainer.layout": ("auto", "contiguous", "channels_last"),
        "trainer.device": ("auto", "cpu", "cuda", "mps"),
        "inference.part": ("test", "val"),
        "inference.checkpoint": ("best", "last"),
        "predictions.upload": ("sheet", "all"),
        "tracking.kind": ("mlflow", "none"),
    }
    if "where" in cfg.attention:
        choices["attention.where"] = ("encoder", "decoder", "bottleneck", "all")
    for key, allowed in choices.items():
        if (value := OmegaConf.select(cfg, key)) not in allowed:
            yield f"{key} is {value!r}; it must be one of {', '.join(map(str, allowed))}."


def _combination_faults(cfg: DictConfig) -> Iterator[str]:
    t, d = cfg.trainer, cfg.data
    given = [key for key in ("max_epochs", "max_steps", "max_minutes") if t[key] not in (None, "auto")]
    if len(given) > 1:
        names = " and ".join(f"trainer.{key}" for key in given)
        yield f"{names} are all set; a run has one budget. Set one and leave the others out."
    if isinstance(d.fold, int) and d.fold >= d.folds and not d.split_file:
        highest = f"{d.folds - 1} (data.folds={d.folds})"
        yield f"data.fold is {d.fold}; it must be 'all' or a whole number from 0 to {highest}."
    if cfg.inference.mirror and not any(axis in range(cfg.dims) for axis in cfg.augmentation.mirror_axes or ()):
        yield (
            "inference.mirror is true but augmentation.mirror_axes names no axis of the patch: mirroring along axes "
            "that training did not mirror ruins a good network. Set inference.mirror=false, or "
            "augmentation.mirror_axes=[0,1]."
        )
    if t.precision == "fp16" and t.device in ("cpu", "mps"):
        yield f"trainer.precision=fp16 needs CUDA, and trainer.device is {t.device}. Set trainer.precision=auto."


def _validation_faults(cfg: DictConfig) -> Iterator[str]:
    t = cfg.trainer
    if cfg.inference.part == "val" and cfg.inference.checkpoint == "best":
        yield (
            "inference.part=val would score the cases that inference.checkpoint=best was chosen on, too high. "
            "Set inference.checkpoint=last."
        )
    if cfg.data.fold == "all":
        if cfg.inference.part == "val":
            yield "inference.part=val needs a validation part, and data.fold=all has none. Choose a fold."
        if t.early_stopping is not None:
            yield "trainer.early_stopping needs a validation part, and data.fold=all has none. Choose a fold."
        if str(cfg.scheduler.get("_target_")).endswith(".adaptive"):
            yield "scheduler=adaptive needs a validation part, and data.fold=all has none. Choose a fold."
    if t.early_stopping is not None and t.early_stopping < t.validate_every:
        yield (
            f"trainer.early_stopping is {t.early_stopping} epochs, but a validation comes only every "
            f"{t.validate_every}. Set it to at least trainer.validate_every."
        )


def _ignored_faults(cfg: DictConfig) -> Iterator[str]:
    """Options that would change nothing."""
    t, d = cfg.tracking, cfg.data
    if t.kind == "none":
        for key, idle in (("uri", None), ("parent", None), ("experiment", None), ("system_metrics", False)):
            if t[key] != idle:
                yield f"tracking.{key} would be ignored under tracking=none. Leave one of the two out."
    if taken := sorted(set(t.tags) & set(OWN_TAGS)):
        yield f"tracking.tags sets {', '.join(taken)}, which every run sets by itself. Choose another name."
    if d.split_file and d.fold == "all":
        yield "data.fold=all would ignore the parts of data.split_file. Choose the fold's number in that file."
