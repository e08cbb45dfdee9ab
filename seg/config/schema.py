"""Every key of a training, declared once with type, range and unit; the rules between keys; one list of all faults.

A new key is one line in ``KEYS`` and one line, with its default and its meaning, in a file of ``conf/``. In a section
that names a ``_target_`` the keys are those of the option's own file.

Only omegaconf and the standard library are imported here, so that a wrong key is refused at once.
"""

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from seg.config.content import PLACES, first_line, flat, keyed
from seg.config.kind import Kind, choice, real, whole
from seg.config.trust import local_settings
from seg.errors import ConfigError, nearest, together

_TEXT, _TEXT_OR_NULL, _FLAG = Kind(str), Kind(str, (None,)), Kind(bool)

KEYS: dict[str, Kind] = {
    "seed": whole(0, high=2**32 - 1),
    "dims": whole(2, "auto", high=3),
    "study": _TEXT,
    "arm": _TEXT_OR_NULL,
    "check": _FLAG,
    "allow_targets": replace(_TEXT, many=True),
    "resume": _TEXT_OR_NULL,
    "data.name": _TEXT_OR_NULL,
    "data.root": _TEXT,
    "data.layout": choice("auto", "csv", "datalist", "decathlon", "nnunet", "folders", "case_folders"),
    "data.patient": _TEXT_OR_NULL,
    "data.fold": whole(0, "all"),
    "data.folds": whole(2),
    "data.test_fraction": real(0, high=0.99),  # of the patients
    "data.split_seed": whole(0, high=2**32 - 1),
    "data.split_file": _TEXT_OR_NULL,
    "data.allow_shear": _FLAG,
    "data.spacing": replace(real(1e-3, "auto"), many=True),  # mm per axis
    "data.normalization": choice("auto", "zscore", "ct"),
    "data.patch": replace(whole(1, "auto"), many=True),  # voxels per axis
    "data.patch_voxels": whole(512),
    "data.batch_size": whole(1, "auto"),
    "data.slice_axis": choice("auto", "x", "y", "z"),
    "data.foreground": real(0, high=1),  # share of patches
    "data.jitter": whole(0),  # voxels
    "data.max_steps": whole(1, None),
    "data.max_minutes": real(0.001, None),
    "attention.where": choice("encoder", "decoder", "bottleneck", "all"),
    "augmentation.mirror_axes": replace(whole(0, high=2), many=True),
    "trainer.max_epochs": whole(1, "auto", None),
    "trainer.max_steps": whole(1, None),  # of the optimizer
    "trainer.max_minutes": real(0.001, None),  # wall clock
    "trainer.steps_per_epoch": whole(1, "auto"),
    "trainer.precision": choice("auto", "fp32", "bf16", "fp16"),
    "trainer.layout": choice("auto", "contiguous", "channels_last"),
    "trainer.device": choice("auto", "cpu", "cuda", "mps"),
    "trainer.accumulate": whole(1),  # batches
    "trainer.clip_norm": real(1e-6, None),
    "trainer.ema": real(0, high=0.999999),  # decay a step
    "trainer.validate_every": whole(1),  # epochs
    "trainer.early_stopping": whole(1, None),  # epochs
    "trainer.stop": choice("plateau", None),
    "trainer.save_every": whole(1),  # epochs
    "trainer.workers": whole(0, "auto"),  # processes
    "trainer.deterministic": _FLAG,
    "inference.overlap": real(0, high=0.95),  # share of a window
    "inference.mirror": _FLAG,
    "inference.shifts": _FLAG,
    "inference.batch_size": whole(1, "auto"),  # windows
    "inference.part": choice("test", "val", "none"),
    "inference.checkpoint": choice("best", "last"),
    "inference.nsd_tolerance_mm": real(0),
    "predictions.slices": whole(1, "best", "foreground", "all"),
    "predictions.dpi": whole(30, high=1200),
    "predictions.upload": choice("sheet", "all"),
    "tracking.kind": _TEXT,
    "tracking.uri": _TEXT_OR_NULL,
    "tracking.experiment": _TEXT_OR_NULL,
    "tracking.every_steps": whole(1, "auto"),
    "tracking.system_metrics": _FLAG,
    "tracking.log_model": _FLAG,
    "tracking.parent": _TEXT_OR_NULL,
    "paths.outputs": _TEXT,
    "paths.cache": _TEXT,
}
OPTIONAL = ("attention.where", "data.layout")  # attention=none has no place, and data sets of their own no layout
_BUILT = ("model", "attention", "loss", "optimizer", "scheduler")  # typed by the example of their option's file
_NEEDED = ("data.cases", "model", "loss", "optimizer", "scheduler")  # each names what it is built by
_BUDGETS = ("trainer.max_epochs", "trainer.max_steps", "trainer.max_minutes")
Values = Mapping[str, Any]  # of KEYS, each in the type that its Kind gives
OWN_TAGS = (  # every run sets these itself (seg/engine/results.py)
    *("run_id", "run_id_short", "experiment_type", "dataset_version", "split_hash", "config_hash", "study", "arm"),
    *("seed", "fold", "predictions", "git_commit", "git_dirty", "code_hash", "developer", "environment"),
    *("error", "status", "sweep", "trial"),
)


def check(
    cfg: DictConfig,
    known: Mapping[str, object] | None = None,
    where: str = "the configuration",
    typed: Collection[str] = (),
    *,
    several: bool = False,
) -> None:
    """Refuses a wrong configuration before any data are read, and gives each value the type of its key.

    Args:
        cfg: the composed configuration.
        known: the keys of the chosen options, each with a value that shows its type; None: any other key may be set.
        where: what may have set a key that does not exist, such as ``experiments=attention``.
        typed: the keys given on the command line.
        several: whether this is one of several jobs, of which a key may concern only some.

    Raises:
        ConfigError: with every fault: unknown keys, missing and wrong values, impossible combinations.
    """
    if several and not OmegaConf.select(cfg, "attention._target_"):
        with open_dict(cfg):
            OmegaConf.update(cfg, "attention", {}, merge=False)
    seen = flat(keyed(OmegaConf.to_container(cfg, resolve=False)))
    faults = [] if known is None else [*_unknown(seen, known, where, typed)]
    bare = {section for section in seen if seen[section] and any(key.startswith(f"{section}.") for key in KEYS)}
    faults += [f"{section} is {seen[section]!r}; it must be a section with keys." for section in sorted(bare)]
    gone = {key.partition(".")[0] for key in KEYS if "." in key} - {key.partition(".")[0] for key in seen}
    faults += [
        f"The section {section} is missing, and every run needs it. Leave ~{section} out." for section in sorted(gone)
    ]
    if seen.get("tracking.tags"):
        faults.append(f"tracking.tags is {seen['tracking.tags']!r}; it must be a section: tracking.tags.scanner=3T.")
    values: dict[str, Any] = {}
    for key in [*KEYS, *(key for key, value in seen.items() if value == "???" and key not in KEYS)]:
        if key in seen and seen[key] != "???":
            try:
                values[key] = _read(cfg, key)
            except ValueError as error:
                faults.append(str(error))
        elif key not in OPTIONAL and key.partition(".")[0] not in (*bare, *gone):
            faults.append(f"{key} has no value. Set it: {key}=…")
    faults += [
        f"{section} has no _target_, so it cannot be built. Choose one of its options: {section.partition('.')[0]}=…"
        for section in _NEEDED
        if section not in gone and not seen.get(f"{section}._target_")
    ]
    values["attention._target_"] = seen.get("attention._target_")
    values["scheduler._target_"] = seen.get("scheduler._target_")
    values["tracking.tags"] = {key.split(".")[2] for key in seen if key.startswith("tracking.tags.")}
    together(ConfigError, [*faults, *_impossible(values), *_without_validation(values), *_ignored(values)])


def _read(cfg: DictConfig, key: str) -> object:
    """The value of a key in its type, which it has in ``cfg`` from now on; ValueError says what is wrong with it."""
    try:
        value = OmegaConf.select(cfg, key)
    except OmegaConfBaseException as error:
        raise ValueError(f"{key}: {first_line(error)}.") from error
    value = OmegaConf.to_object(value) if OmegaConf.is_config(value) else value
    try:
        read = KEYS[key].read(value)
    except ValueError:
        seen = "null" if value is None else repr(value)
        raise ValueError(f"{key} is {seen}; it must be {KEYS[key]}.") from None
    if repr(read) != repr(value):
        OmegaConf.update(cfg, key, read)
    return read


def _unknown(
    seen: Mapping[str, object], known: Mapping[str, object], where: str, typed: Collection[str]
) -> Iterator[str]:
    """Keys that do not exist, and values of another type than the option's own file has."""
    right = {*known, *KEYS}
    branches = {key.rsplit(".", n)[0] for key in right for n in range(1, key.count(".") + 1)}
    open_ended = {"tracking.tags", *(known.keys() - KEYS.keys())}  # what is below them is for their target to check
    if any(key.startswith("experiments.") for key in seen):
        yield f"The file of {where} must begin with the line '# @package _global_'."
    for key, value in seen.items():
        section, parent = key.partition(".")[0], key.rpartition(".")[0]
        if key in right:
            if section in _BUILT and key not in KEYS and not _alike(value, known[key]):
                yield f"{key} is {value!r}; it takes a {_kind(known[key]).__name__}, such as {known[key]!r}."
        elif section == "card" and key not in typed:
            continue  # of local/default.yaml, for seg.register
        elif not (key in branches or value == {} or section == "experiments" or parent in open_ended):
            source = "the command line" if key in typed else "local/default.yaml" if key in local_settings() else where
            yield f"{source} sets '{key}', which does not exist.{nearest(key, [*known, *KEYS])}"


def _kind(value: object) -> type:
    return float if isinstance(value, int | float) and not isinstance(value, bool) else type(value)


def _alike(value: object, example: object) -> bool:
    """Whether ``value`` may replace ``example``; null and ``auto`` may replace anything."""
    if isinstance(value, list) and isinstance(example, list) and example:
        return any(isinstance(item, str) for item in example) or not any(isinstance(item, str) for item in value)
    free = value in (None, "auto") or example in (None, "auto") or "${" in str(value)
    return free or (_kind(value) is _kind(example) and not (isinstance(value, float) and not math.isfinite(value)))


# The rules between keys. A key whose own value is wrong is missing among the values: it already has a message.


def _impossible(v: Values) -> Iterator[str]:
    for key in (*PLACES, "data.split_file", "tracking.experiment", "study"):
        if v.get(key) == "":  # as in data.root=$DATA where there is no such variable
            yield f"{key} is empty. Give it a value, or leave it out."
    for key in ("paths.outputs", "paths.cache"):
        if str(v.get(key, "")).startswith("~"):
            yield f"{key} is {v[key]}; in a file ~ is not your home: write ${{oc.env:HOME}} in its place."
    given = [key for key in _BUDGETS if v.get(key) not in (None, "auto")]
    fold, folds, dims, axes = map(v.get, ("data.fold", "data.folds", "dims", "augmentation.mirror_axes"))
    patch, dims = (None, 3) if dims == "auto" else (dims, dims)  # the data decide, once they are read
    if len(given) > 1:
        yield f"{' and '.join(given)} are set; a run has one budget. Set one and leave the rest out."
    if isinstance(fold, int) and folds and fold >= folds and not v.get("data.split_file"):
        yield f"data.fold is {fold}; it must be all or a whole number from 0 to {folds - 1} (data.folds={folds})."
    for key, axes_of in (("data.spacing", 3), ("data.patch", patch)):
        if isinstance(v.get(key), list) and axes_of and len(v[key]) != axes_of:
            yield f"{key} is {v[key]}; it must be auto or {axes_of} numbers, one per axis."
    if v.get("inference.mirror") and dims and axes is not None and not any(axis < dims for axis in axes):
        yield (
            "inference.mirror is true but augmentation.mirror_axes names no axis of the patch: mirroring along axes "
            "that training did not mirror ruins a good network. Set inference.mirror=false, or "
            "augmentation.mirror_axes=[0,1]."
        )
    if v.get("trainer.precision") == "fp16" and (device := v.get("trainer.device")) in ("cpu", "mps"):
        yield f"trainer.precision=fp16 needs CUDA, and trainer.device is {device}. Set trainer.precision=auto."


def followers(v: Mapping[str, object]) -> list[str]:
    """The options in use that follow the validation Dice, of a configuration as ``flat`` gives it."""
    following = {
        "trainer.early_stopping": v.get("trainer.early_stopping") is not None,
        "trainer.stop=plateau": v.get("trainer.stop") is not None,
        "scheduler=adaptive": str(v.get("scheduler._target_")).endswith(".adaptive"),
    }
    return [option for option, used in following.items() if used]


def _without_validation(v: Values) -> Iterator[str]:
    stopping, every = v.get("trainer.early_stopping"), v.get("trainer.validate_every")
    if v.get("inference.part") == "val" and v.get("inference.checkpoint") == "best":
        yield (
            "inference.part=val would score the cases that inference.checkpoint=best was chosen on, too high. "
            "Set inference.checkpoint=last."
        )
    if v.get("data.fold") == "all":
        scored = ["inference.part=val"] if v.get("inference.part") == "val" else []
        for option in [*scored, *followers(v)]:
            yield f"{option} needs a validation part, and data.fold=all has none. Choose a fold."
    if v.get("trainer.stop") and stopping:
        yield "trainer.early_stopping would cut off the end that trainer.stop=plateau leaves a run. Leave one out."
    scheduler = str(v.get("scheduler._target_")).rpartition(".")[2]
    if v.get("trainer.stop") and scheduler in ("constant", "adaptive", "cosine_restarts"):
        yield (
            f"trainer.stop=plateau finishes a schedule that falls to its end, and scheduler={scheduler} does not. "
            "Choose warmup_cosine, poly or onecycle."
        )
    if stopping and every and stopping < every:
        yield (
            f"trainer.early_stopping is {stopping} epochs, but a validation comes only every {every}. "
            "Set it to at least trainer.validate_every."
        )


def _ignored(v: Values) -> Iterator[str]:
    """Options that would change nothing."""
    kind = v.get("tracking.kind")
    if kind not in (None, "mlflow", "none") and "." not in kind:
        yield f"tracking.kind is {kind!r}; it must be mlflow, none, or the path of a class such as my_package.MySink."
    if kind == "none":
        for key in ("uri", "parent", "experiment", "system_metrics", "log_model"):
            if v.get(f"tracking.{key}") and f"tracking.{key}" not in local_settings():
                yield f"tracking.{key} would be ignored under tracking=none. Leave one of the two out."
    if v.get("data.slice_axis") in ("x", "y", "z") and v.get("dims") in (3, "auto"):
        yield f"data.slice_axis would be ignored under dims={v['dims']}. Leave it out, or set dims=2."
    if v.get("attention.where") and not v.get("attention._target_"):
        yield "attention.where would be ignored under attention=none. Leave it out, or choose a block: attention=se."
    if taken := sorted(v["tracking.tags"] & {*OWN_TAGS}):
        yield f"tracking.tags sets {', '.join(taken)}, which every run sets itself. Choose another name."
    if v.get("data.split_file") and v.get("data.fold") == "all":
        yield "data.fold=all would ignore the parts of data.split_file. Choose the fold's number in that file."
