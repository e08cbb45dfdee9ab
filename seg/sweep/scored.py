"""What a study is scored on, known before its first run."""

from collections.abc import Iterator

from omegaconf import DictConfig

from seg.engine.cases import Material, split_of
from seg.errors import ConfigError, counted
from seg.sweep.design import Study
from seg.sweep.rules import WHERE


def scored_cases(study: Study, cfg: DictConfig, material: Material) -> tuple[str, ...]:
    """The cases that some run of the study is scored on: those of its folds, pooled, or of the test part."""
    found = set[str]()
    for seed in study.seeds if study.redraws else (None,):
        for fold in study.folds or (cfg.data.fold,):
            found |= {*split_of(cfg, material.fingerprint, fold, seed).scored(cfg.inference.part)}
    return tuple(sorted(found))


def scored_patients(study: Study, cfg: DictConfig, material: Material) -> int:
    """How many patients these cases are of.

    Raises:
        ConfigError: fewer than two, so that no report could judge the arms.
    """
    count = len({material.fingerprint.by_id[case].patient for case in scored_cases(study, cfg, material)})
    if count < 2:
        raise ConfigError(
            f"The study {study.name} would be scored on {counted(count, 'patient')}, and two are needed to judge arms "
            f"by. Set {WHERE}.folds=5 to score every case out of fold, or inference.part=test and a split with a test "
            "part (data.test_fraction)."
        )
    return count


def scored_structures(study: Study, cfg: DictConfig, material: Material) -> Iterator[tuple[str, str]]:
    """(case, class) of each structure that the reference of these cases has."""
    for case in material.fingerprint.of(scored_cases(study, cfg, material)).cases:
        yield from ((case.id, material.cases.names[k]) for k, voxels in case.foreground_voxels.items() if voxels)
