"""What a study asks and will run, fixed before its first run where its file says ``lock: true``."""

import logging
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace

from seg.config.content import config_hash
from seg.data.jitter import jitter_costs
from seg.engine.cases import Material, settle, split_of
from seg.errors import ConfigError
from seg.records.provenance import common_tags
from seg.records.readings import part_of
from seg.study.lock import FILE, keep_lock, lock_of
from seg.sweep.definition import Sweep
from seg.sweep.looks import asked_by
from seg.sweep.scored import scored_cases

log = logging.getLogger(__name__)
_BUDGET = ("max_epochs", "max_steps", "max_minutes")


def with_plan(sweep: Sweep, material: Material) -> Sweep:
    """A study with its runs, the version of the cases that they score, and how exactly their labels can be known.

    Of each run the hashes of its settings and its split are known beforehand: its configuration is that of its arm,
    with seed and fold set as the study sets them. Another sweep stays as it is.
    """
    if (study := sweep.study) is None:
        return sweep
    found = list[Mapping[str, str]]()
    composed = dict(zip((arm.name for arm in study.arms), sweep.examples.values(), strict=True))
    for start in sweep.starts:
        cfg = deepcopy(composed[str(start["arm"])])
        cfg.seed = int(str(start["seed"]))
        fold = cfg.data.fold = int(str(start["data.fold"])) if study.folds else cfg.data.fold
        cfg.data.split_seed = cfg.seed if study.redraws else cfg.data.split_seed
        settle(cfg, material.fingerprint)  # as the run will
        split = split_of(cfg, material.fingerprint, fold)
        run = {"arm": str(start["arm"]), "seed": str(cfg.seed), "fold": str(fold)}
        found.append(run | {"config_hash": config_hash(cfg), "split_hash": split.hash})
    scored = scored_cases(study, sweep.cfg, material)
    part = part_of({case: material.fingerprint.by_id[case].sha256 for case in scored})
    return replace(sweep, foreseen=tuple(found), part=part, jitter=jitter_costs(material.cases))


def locked(sweep: Sweep, material: Material) -> str:
    """Writes down what the study commits itself to; its hash, and "" where it does not.

    Raises:
        ConfigError: the study goes on, and something is not as it was locked.
    """
    study, cfg = sweep.study, sweep.cfg
    if study is None or not study.lock:
        return ""
    lock = lock_of(
        asked_by(sweep),
        runs=[dict(run) for run in sweep.foreseen],
        data=material.fingerprint.hash,
        code={key: value for key, value in common_tags().items() if key in ("git_commit", "code_hash")},
        stop={"seeds": study.seeds, "folds": study.folds} | {key: cfg.trainer[key] for key in _BUDGET},
    )
    digest, changed = keep_lock(sweep.folder, lock)
    if changed:
        raise ConfigError(
            f"The study was locked in {sweep.folder / FILE}, and is not as it was: {'; '.join(changed)}. Go back to "
            "that, choose another hydra.sweeper.name to begin anew, or, to go on with a study that its report calls "
            f"CHANGED, remove {FILE}."
        )
    log.info("locked before the first run: %s, sha256 %s", sweep.folder / FILE, digest)
    return digest
