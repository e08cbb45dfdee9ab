"""Every option composes and passes the checks; every wrong one is refused with what to write instead."""

from pathlib import Path
from typing import Any

import pytest
from composing import composed
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from seg.config.content import config_hash, flat
from seg.config.options import CONF, known_keys
from seg.config.schema import check
from seg.errors import ConfigError

GROUPS = ("data", "model", "attention", "loss", "optimizer", "scheduler", "augmentation", "trainer", "inference",
          "predictions", "tracking", "paths", "debug")  # fmt: skip
OPTIONS = {
    group: [path.stem for path in sorted((CONF / group).glob("*.yaml")) if (group, path.stem) != ("data", "base")]
    for group in GROUPS
}
EACH = pytest.mark.parametrize(("group", "option"), [(group, name) for group in GROUPS for name in OPTIONS[group]])


def faults(*overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        check(composed(*overrides))
    return str(caught.value)


def keys(cfg: DictConfig) -> dict[str, Any]:
    return flat(OmegaConf.to_container(cfg, resolve=False))


def test_an_address_of_this_machine_is_no_hindrance_to_a_run_without_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "local").mkdir()
    (tmp_path / "local/default.yaml").write_text("# @package _global_\ntracking: {uri: http://team}\n")
    monkeypatch.chdir(tmp_path)
    check(composed("tracking=none", "tracking.uri=http://team"))


@EACH
def test_every_option_composes_and_passes_the_checks(group: str, option: str) -> None:
    row = OPTIONS[group].index(option)  # with the options of the other groups in the same row, for fewer compositions
    company = {other: names[row % len(names)] for other, names in OPTIONS.items()}
    assert company[group] == option
    check(composed(*(f"{other}={name}" for other, name in company.items()), "data.root=somewhere"))


@EACH
def test_first_line_says_what_the_option_is(group: str, option: str) -> None:
    lines = (CONF / group / f"{option}.yaml").read_text().splitlines()
    first = next(line for line in lines if "@package" not in line)
    assert first.startswith("# ")
    assert len(first) > 10


@pytest.mark.parametrize("path", sorted(Path("experiments").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_study_composes_and_passes_the_checks(path: Path) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", overrides=[f"experiments={path.stem}", "data.root=somewhere"], return_hydra_config=True)
        known = known_keys(cfg.hydra.runtime.choices, cfg.hydra.runtime.config_sources, "train")
    del cfg.hydra
    check(cfg, known, path.name)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["data.root="], ["data.root is empty"]),
        (["paths.outputs="], ["paths.outputs is empty"]),
        (["trainer.clip_norm=inf"], ["trainer.clip_norm is inf"]),
        (["trainer.max_epochs=3", "trainer.max_minutes=1"], ["one budget", "max_epochs", "max_minutes"]),
        (["trainer.max_steps=0"], ["trainer.max_steps is 0", "from 1"]),
        (["data.fold=7"], ["data.fold is 7", "0 to 4"]),
        (["data.fold=most"], ["'most'", "or all"]),
        (["dims=4"], ["dims is 4", "from 2 to 3"]),
        (["dims=2", "data.patch=[32,32,32]"], ["data.patch is [32, 32, 32]", "2 numbers"]),
        (["attention=se", "attention.where=middle"], ["attention.where", "bottleneck"]),
        (["inference.mirror=true", "augmentation=light"], ["mirror_axes", "inference.mirror=false"]),
        (["trainer.precision=fp16", "trainer.device=cpu"], ["CUDA"]),
        (["data.fold=all", "trainer.early_stopping=3"], ["early_stopping", "validation part"]),
        (["data.fold=all", "trainer.stop=plateau"], ["trainer.stop=plateau needs a validation part"]),
        (["trainer.stop=plateau", "scheduler=adaptive"], ["scheduler=adaptive does not", "warmup_cosine, poly or"]),
        (["trainer.stop=plateau", "trainer.early_stopping=5"], ["early_stopping would cut off the end"]),
        (["trainer.stop=early"], ["trainer.stop is 'early'", "one of plateau, null"]),
        (["data.fold=all", "scheduler=adaptive"], ["adaptive", "validation part"]),
        (["tracking=none", "tracking.uri=http://x"], ["tracking.uri would be ignored"]),
        (["data=folder"], ["data.root has no value"]),
        (["predictions.slices=most"], ["predictions.slices"]),
        (["trainer.ema=1.5"], ["trainer.ema"]),
        (["trainer.workers=-1"], ["trainer.workers"]),
        (["seed=-1"], ["seed is -1"]),
        (["data.patch=64"], ["data.patch is 64", "a list, each a whole number from 1, or auto"]),
        (["data.patch=[a,b,c]"], ["data.patch"]),
        (["data.spacing=[1,1]"], ["data.spacing is [1.0, 1.0]", "3 numbers"]),
        (["data.spacing=[1,1,0]"], ["data.spacing is [1, 1, 0]", "from 0.001"]),
        (["trainer.accumulate=many"], ["trainer.accumulate is 'many'", "whole number from 1"]),
        (["trainer.deterministic=maybe"], ["trainer.deterministic is 'maybe'", "true or false"]),
        (["trainer.device=gpu"], ["trainer.device is 'gpu'", "one of auto, cpu, cuda, mps"]),
        (["study=null"], ["study is null", "a text"]),
        (["study=[a]"], ["study is ['a']", "a text"]),
        (["data.folds=null"], ["data.folds is null", "whole number from 2"]),
        (["trainer.max_minutes=${oc.env:SEG_NOTHING}"], ["trainer.max_minutes: ", "SEG_NOTHING"]),
        (["~data.jitter"], ["data.jitter has no value", "data.jitter=…"]),
        (["data.fold=true"], ["data.fold is True"]),
        (["predictions.slices=true"], ["predictions.slices is True"]),
        (["predictions.dpi=0"], ["predictions.dpi is 0"]),
        (["trainer.clip_norm=0"], ["trainer.clip_norm"]),
        (["trainer.max_epochs=0.5"], ["trainer.max_epochs is 0.5", "whole"]),
        (["augmentation.mirror_axes=[-1]"], ["mirror_axes is [-1]", "from 0 to 2"]),
        (["dims=2", "augmentation.mirror_axes=[2]", "inference.mirror=true"], ["names no axis of the patch"]),
        (["trainer.early_stopping=2", "trainer.validate_every=5"], ["validate_every"]),
        (["+tracking.tags.seed=7"], ["tracking.tags sets seed"]),
        (["tracking=none", "tracking.parent=abc"], ["tracking.parent would be ignored"]),
    ],
)
def test_a_wrong_value_or_combination_is_refused_with_the_fix(overrides: list[str], words: list[str]) -> None:
    message = faults(*overrides)
    assert all(word in message for word in words), message


def test_all_faults_are_listed_at_once() -> None:
    cfg = composed("data=folder", "data.fold=9", "dims=5", "++trainer.max_step=1", "optimizer.lr=fast", "tracking=none",
                   "tracking.parent=a", "trainer.max_minutes=${oc.env:SEG_NOTHING}")  # fmt: skip
    with pytest.raises(ConfigError) as caught:
        check(cfg, keys(composed("data=folder", "data.root=x")), "here", ["trainer.max_step"])
    lines = str(caught.value).splitlines()
    assert lines[0] == "7 faults:"
    for words in (
        "the command line sets 'trainer.max_step', which does not exist. Did you mean 'trainer.max_steps'?",
        "optimizer.lr is 'fast'",
        "data.root has no value",
        "dims is 5",
        "SEG_NOTHING",
        "data.fold is 9",
        "tracking.parent would be ignored",
    ):
        assert sum(words in line for line in lines) == 1, words


def test_a_value_gets_the_type_of_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEG_STEPS", "30")
    monkeypatch.setenv("SEG_SLOW", "true")
    numbers = ("trainer.max_steps=${oc.env:SEG_STEPS}", "trainer.ema=0", "data.spacing=[1,2,3]", "data.fold='1'")
    cfg = composed(*numbers, "study=2026", "trainer.deterministic=${oc.env:SEG_SLOW}")
    check(cfg)
    assert (
        repr([cfg.trainer.max_steps, cfg.trainer.ema, cfg.data.spacing, cfg.data.fold])
        == "[30, 0.0, [1.0, 2.0, 3.0], 1]"
    )
    assert (cfg.study, cfg.trainer.deterministic) == ("2026", True)


def test_a_section_that_is_no_section_is_one_fault() -> None:
    cfg = composed()
    OmegaConf.set_struct(cfg, False)
    cfg.trainer = 5
    with pytest.raises(ConfigError, match=r"^trainer is 5; it must be a section with keys\.$"):
        check(cfg, keys(composed()))


def test_an_unknown_key_of_a_study_file_names_file_key_and_nearest_right_key() -> None:
    cfg, known = composed(), keys(composed())
    OmegaConf.set_struct(cfg, False)
    cfg.optimizer.learning_rat = 1
    cfg.model.chanels = [1]
    with pytest.raises(ConfigError, match=r"(?s)study\.yaml sets 'model\.chanels'.*'model\.channels'.*learning_rat"):
        check(cfg, known, "study.yaml")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("optimizer.lr=inf", "optimizer.lr is inf"),
        ("optimizer.lr=abc", "optimizer.lr is 'abc'"),
        ("model.channels=8", "model.channels is 8"),
        ("loss.batch=3", "loss.batch"),
    ],
)
def test_a_value_of_another_type_than_its_option_has_is_refused(wrong: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check(composed(wrong), keys(composed()), "here")


def test_in_a_sweep_the_place_of_a_block_concerns_the_jobs_that_have_one() -> None:
    without, block = (composed(f"attention={name}", "++attention.where=encoder") for name in ("none", "se"))
    for cfg in (without, block):
        check(cfg, several=True)
    assert (without.attention, block.attention.where) == ({}, "encoder")
    assert config_hash(without) == config_hash(composed())


@pytest.mark.parametrize(
    ("lost", "words"),
    [("~trainer", "^The section trainer is missing"), ("++data.cases._target_=null", "^data.cases has no _target_")],
)
def test_what_every_run_needs_is_one_fault(lost: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check(composed(lost))


def test_tags_are_free() -> None:
    cfg, known = composed("+tracking.tags.scanner=3T"), keys(composed())
    check(cfg, known, "here")
