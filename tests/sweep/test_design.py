"""Designs of ablation studies: which runs they ask for, and what may not differ."""

import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from composing import composed
from omegaconf import OmegaConf
from test_sweeper import Sweeps, sweeps

from seg.config.compose import sweeping
from seg.errors import ConfigError
from seg.sweep.definition import read_sweep
from seg.sweep.design import Study, check_arms, identity, read_study
from seg.sweep.jobs import Space

__all__ = ["sweeps"]  # a fixture
SECTION: dict[str, Any] = {
    "question": "Does it help?",
    "base": {"model": "unet"},
    "arms": {"baseline": {}, "se": {"attention": "se"}, "warm": {"scheduler": "onecycle"}},
    "design": "arms",
    "factors": {},
    "compare": ["baseline"],
    "allow": [],
    "seeds": [0],
    "folds": None,
    "metrics": {"primary": "dice", "secondary": ["nsd", "hd95_mm"]},
    "classes": "all",
    "groups": None,
    "anchors": {},
    "margin": None,
    "pilot": None,
    "lock": False,
    "claim": "better",
    "allow_leaks": [],
}


def study(**changes: Any) -> Study:
    return read_study("attention", SECTION | changes)


def arms(**changes: Any) -> dict[str, dict[str, Any]]:
    return {arm.name: arm.overrides for arm in study(**changes).arms}


def runs(asked: Study, given: Sequence[str] = ()) -> list[tuple[dict[str, Any], tuple[str, ...]]]:
    """What tells each run of a study, and its overrides."""
    space = asked.space(Space((), tuple(given)))
    return [(point, asked.overrides(point, space)) for point in space.points()]


def values(asked: Study, arm: int) -> dict[str, Any]:
    """Some values of an arm's configuration, as Hydra reads its overrides."""
    cfg = composed(*asked.of_arm(asked.arms[arm]))
    return {"arm": cfg.arm, "study": cfg.study, "name": cfg.data.name, "patch": cfg.data.patch, "dims": cfg.dims}


def checked(asked: Study) -> dict[str, dict[str, list[Any]]]:
    return check_arms(asked, {arm.name: composed(*asked.of_arm(arm)) for arm in asked.arms})


def shipped() -> dict[str, dict[str, Any]]:
    """The sections of the studies in ``experiments``."""
    found = {}
    for path in sorted((Path(__file__).parents[2] / "experiments").glob("*.yaml")):
        if "@package hydra.sweeper.study" in (text := path.read_text()):
            found[path.stem] = SECTION | yaml.safe_load(text)
    return found


@pytest.mark.parametrize("name", shipped())
def test_the_arms_of_each_shipped_study_may_differ_as_they_do(name: str) -> None:
    section = shipped()[name] | {"anchors": {}}
    assert len(checked(read_study(name, section))) > 1


def test_every_arm_meets_every_seed_and_fold_once() -> None:
    found = runs(study(seeds=[0, 1], folds=3), ["trainer.max_epochs=2"])
    assert len(found) == len({overrides for _, overrides in found}) == 3 * 2 * 3
    assert found[1] == (
        {"seed": "0", "data.fold": "0", "arm": "se"},
        (
            *("inference.part=val", "inference.checkpoint=last", "data.folds=3", "model=unet", "attention=se"),
            *("study=attention", "arm=se", "seed=0", "data.fold=0", "trainer.max_epochs=2"),
        ),
    )
    assert [params["data.fold"] for params, _ in found[:4]] == ["0", "0", "0", "1"]


def test_without_folds_the_configuration_says_which() -> None:
    ((_, first), *_) = runs(study())
    assert not any(override.startswith(("data.fold", "inference")) for override in first)
    assert [overrides[-1] for _, overrides in runs(study(folds=[3, 4]))[::3]] == ["data.fold=3", "data.fold=4"]


def test_each_seed_draws_its_own_folds_where_there_is_no_test_part() -> None:
    asked = study(seeds=[0, 7], folds=2, base={"data.test_fraction": 0})
    drawn = {(params["seed"], o) for params, own in runs(asked) for o in own if o.startswith("data.split_seed")}
    assert drawn == {("0", "data.split_seed=0"), ("7", "data.split_seed=7")}
    assert not any("split_seed" in o for _, own in runs(study(seeds=[0, 7], folds=2)) for o in own)


def test_designs() -> None:
    se, warm = {"attention": "se"}, {"scheduler": "onecycle"}
    assert arms() == {"baseline": {}, "se": se, "warm": warm}
    assert arms(design="cumulative") == {"baseline": {}, "se": se, "warm": se | warm}
    parts = {"se": se, "warm": warm}
    assert arms(design="one_at_a_time", arms=parts) == {"baseline": {}, **parts}
    assert arms(design="leave_one_out", arms=parts) == {"all": se | warm, "without_se": warm, "without_warm": se}


def test_a_factorial_design_crosses_its_factors() -> None:
    factors = {"attention": ["none", "se"], "scheduler": ["constant", "onecycle"]}
    asked = study(design="factorial", arms={}, factors=factors)
    assert asked.factors == ("attention", "scheduler")
    assert [arm.name for arm in asked.arms] == ["none-constant", "none-onecycle", "se-constant", "se-onecycle"]
    assert asked.arms[3].levels == ("se", "onecycle")
    assert asked.arms[3].overrides == {"attention": "se", "scheduler": "onecycle"}


def test_the_resolved_difference_is_told() -> None:
    told = checked(study())
    assert told["baseline"] == {}
    assert told["se"]["attention._target_"] == [None, "seg.models.attention.SE"]
    assert told["warm"]["scheduler._target_"][0] == "seg.schedulers.warmup_cosine"
    assert all(key.startswith("attention") for key in told["se"])
    assert all(key.startswith("scheduler") for key in told["warm"])


@pytest.mark.parametrize(
    "change",
    [{"augmentation": "strong"}, {"trainer.max_epochs": 3}, {"data.fold": 2}, {"data.split_seed": 1}, {"dims": 2}],
)
def test_an_arm_with_a_second_cause_is_refused(change: dict[str, Any]) -> None:
    section = {"baseline": {}, "two": {"attention": "se", **change}}
    with pytest.raises(ConfigError, match=r"two causes"):
        checked(study(arms=section))
    section["two"]["allow"] = next(iter(change)).split(".")[0]
    assert "two" in checked(study(arms=section))


STRONG: dict[str, Any] = {"augmentation": "strong", "allow": "augmentation"}


def test_what_an_arm_may_change_goes_on_with_it_in_every_design() -> None:
    parts = {"plain": {}, "strong": STRONG, "se": {"attention": "se"}}
    assert "augmentation._target_" not in checked(study(arms=parts))["se"]
    assert "attention._target_" in checked(study(design="cumulative", arms=parts))["se"]
    assert "strong" in checked(study(design="one_at_a_time", arms={**parts, "plain": {"scheduler": "onecycle"}}))
    both = {"strong": STRONG, "se": {"attention": "se"}}
    told = checked(study(design="leave_one_out", arms=both))
    assert any(key.startswith("augmentation") for key in told["without_strong"])
    assert not any(key.startswith("augmentation") for key in told["without_se"])
    with pytest.raises(ConfigError, match=r"without_se also changes .*data\.patch.*allow: data"):
        checked(study(design="leave_one_out", arms={**both, "se": {"data.patch": [32, 32, 32]}}))


def test_what_a_study_allows_holds_for_all_arms() -> None:
    factors = {"attention": ["none", "se"], "augmentation": ["spatial", "strong"]}
    crossed = {"design": "factorial", "arms": {}, "factors": factors}
    with pytest.raises(ConfigError, match=r"add `allow: augmentation` to hydra\.sweeper\.study where"):
        checked(study(**crossed))
    for allow in (["augmentation"], "augmentation"):
        assert len(checked(study(**crossed, allow=allow))) == 4
    assert "b" in checked(study(arms={"a": {}, "b": {"data.patch": [32, 32, 32]}}, allow=["data.patch"]))


@pytest.mark.parametrize("allow", ["", True, "attention", "augmentaton", "dat", "data.", ["data", 3], "data_x"])
@pytest.mark.parametrize("place", ["study", "arm"])
def test_only_what_is_shared_can_be_allowed(place: str, allow: Any) -> None:
    arm = {"data.patch": [32, 32, 32]} | ({"allow": allow} if place == "arm" else {})
    with pytest.raises(ConfigError, match=r"allow is .*it names a part that is the same for all arms"):
        study(arms={"a": {}, "b": arm}, allow=allow if place == "study" else [])


def test_nsd_has_one_tolerance_in_all_arms_whatever_is_allowed() -> None:
    arms = {"a": {}, "b": {"inference.nsd_tolerance_mm": 2.0, "attention": "se", "allow": "inference"}}
    with pytest.raises(ConfigError, match=r"b changes inference\.nsd_tolerance_mm: NSD at two tolerances is two"):
        checked(study(arms=arms))
    assert "b" in checked(study(arms=arms, metrics={"primary": "dice", "secondary": ["hd95_mm"]}))


def test_a_key_is_allowed_by_its_parts() -> None:
    with pytest.raises(ConfigError, match=r"two causes"):
        checked(study(arms={"a": {}, "b": {"data.patch_voxels": 999, "allow": "data.patch"}}))
    plain = OmegaConf.create({"seed": 0})
    told = check_arms(study(arms={"a": {}, "b": {}}), {"a": plain, "b": OmegaConf.create({"seed": 0, "seeding": 3})})
    assert told["b"] == {"seeding": [None, 3]}, "which is not the seed"


AWKWARD = [
    *("1e3", "1_000", "true", "null", "0x1", "ü", "a & b", "(x)", "a'b", 'a"b', "a\\'b", "a\\", "a,b", "x=[1]", " {y}"),
    *("#", "a/b", "~", "@x", "nan", "→", "a:b", "$", "*"),
]


@pytest.mark.parametrize("name", AWKWARD)
def test_every_name_and_text_survives_hydra(name: str) -> None:
    asked = read_study(name, SECTION | {"arms": {"baseline": {}, name: {"attention": "se", "data.name": name}}})
    seen = values(asked, 1)
    assert (seen["arm"], seen["study"], seen["name"]) == (name, name, name)
    assert runs(asked)[1][0]["arm"] == name


def test_other_values_stay_what_they_are() -> None:
    base = {"data": {"name": "1e3", "patch": [32, 48, 32]}, "dims": 3, "attention": None}
    seen = values(study(base=base, arms={True: {}, 2: {"attention": "se"}}), 1)
    assert seen == {"arm": "2", "study": "attention", "name": "1e3", "patch": [32, 48, 32], "dims": 3}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"arms": {"": {}, "se": {}}}, "called ''"),
        ({"arms": {"a": {}, " ": {}}}, "called ' '"),
        ({"arms": {"a": {}, "b\n": {}}}, "line of text"),
        ({"arms": {"a": {}, "${b}": {}}}, "line of text"),
        ({"arms": {1: {}, "1": {}}}, "2 arms would be called '1'. Rename"),
        (
            {"design": "one_at_a_time", "arms": {"baseline": {"attention": "se"}, "warm": {"scheduler": "onecycle"}}},
            "2 arms would be called 'baseline': the design adds one",
        ),
        (
            {"design": "factorial", "arms": {}, "factors": {"a": ["x", "x-y"], "b": ["y-z", "z"]}},
            "2 arms would be called 'x-y-z': the levels",
        ),
    ],
    ids=str,
)
def test_names_tell_the_arms_apart(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as told:
        study(**change)
    assert words in str(told.value)


def test_no_anchor_takes_the_columns_of_the_studys_own_comparisons(tmp_path: Path) -> None:
    (tmp_path / "tool.csv").write_text("case,class,dice\na,b,0.5\n")
    tool = str(tmp_path / "tool.csv")
    assert study(anchors={"nnU-Net": tool}).anchors
    with pytest.raises(ConfigError, match=r"(?s)2 faults.*baseline is what table.*previous is what table"):
        study(arms={"plain": {}, "se": {"attention": "se"}}, anchors={"baseline": tool, "previous": tool})


def test_with_some_of_the_folds_all_seeds_have_the_same() -> None:
    some, every = (study(base={"data.test_fraction": 0}, folds=folds) for folds in ([0, 1], 2))
    assert (some.redraws, every.redraws) == (False, True), "the cases of two folds would be others in each seed"


def test_each_seeds_own_folds_need_the_test_part_that_the_file_says() -> None:
    asked = study(base={"data.test_fraction": 0}, folds=2)
    with pytest.raises(ConfigError, match=r"sets data\.test_fraction; .*Change it there"):
        runs(asked, ["data.test_fraction=0.2"])


@pytest.mark.parametrize("key", ["seed", "data.fold", "data.folds", "data.split_seed", "arm", "study"])
def test_what_the_study_sets_itself_is_refused(key: str) -> None:
    asked: dict[str, Any] = {"folds": 2, "base": {"data.test_fraction": 0}}
    for sign in ("", "+", "++"):
        with pytest.raises(ConfigError, match=rf"The command line sets {key}, which the study sets.*Leave it out; "):
            runs(study(**asked), ["trainer.max_epochs=2", f"{sign}{key}=1"])
    with pytest.raises(ConfigError, match=rf"base sets {key},"):
        study(**asked | {"base": {"data.test_fraction": 0, key: 1}})
    with pytest.raises(ConfigError, match=rf"The arm se sets {key},"):
        study(**asked, arms={"baseline": {}, "se": {"attention": "se", key: 1}})


def test_what_the_study_leaves_open_is_the_users() -> None:
    ((_, first), *_) = runs(study(), ["data.fold=3", "data.folds=4", "data.split_seed=5"])
    assert first[-3:] == ("data.fold=3", "data.folds=4", "data.split_seed=5")
    assert runs(study(folds=[0, 1]), ["data.folds=4"])
    assert runs(study(folds=2), ["data.split_seed=5"])


@pytest.mark.parametrize("design", ["arms", "cumulative", "leave_one_out", "one_at_a_time", "factorial"])
def test_an_arm_is_compared_with_its_neighbour_where_that_means_something(design: str) -> None:
    crossed = {"factors": {"attention": ["none", "se"]}, "arms": {}} if design == "factorial" else {}
    stepwise = design in ("arms", "cumulative")
    asked = study(design=design, compare=None, **crossed)
    assert asked.against == (("baseline", "previous") if stepwise else ("baseline",))
    assert study(design=design, compare="previous", **crossed).against == ("previous",)


def test_a_sweep_is_known_again_after_a_default_was_written_down() -> None:
    assert identity(SECTION | {"compare": None}) == {
        **{
            key: value
            for key, value in SECTION.items()
            if key not in ("allow", "metrics", "classes", "groups", "anchors", "allow_leaks", "pilot", "lock", "claim")
        },
        "compare": ["baseline", "previous"],
        "margin": 0.005,
    }
    assert json.dumps(identity(SECTION | {"arms": {1: {}, "a": {}}}), sort_keys=True)
    assert identity(SECTION | {"allow": "data"})["allow"] == "data"
    changed = {"allow_leaks": ["a=b"], "anchors": {"x": "x.csv"}, "pilot": "before"}
    assert identity(SECTION | changed) == identity(SECTION)
    assert identity(SECTION | {"lock": True}) != identity(SECTION), "what has begun is not locked afterwards"


def test_arms_that_are_the_same_are_refused() -> None:
    with pytest.raises(ConfigError, match="baseline and again are the same"):
        checked(study(arms={"baseline": {}, "again": {"attention": "none"}}))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seedz": [0, 1]}, r"no hydra\.sweeper\.study\.seedz\. Did you mean 'seeds'"),
        ({"lock": True, "claim": ["better"]}, r"claim is \['better'\]"),
        ({"classes": [["tumour"]]}, "classes is"),
        ({"design": "factorial", "arms": {}, "factors": "attention"}, "two or more levels"),
        ({"design": "cumulativ"}, "'cumulative'"),
        ({"arms": {"baseline": {}}}, "needs two"),
        ({"compare": ["best"]}, r"compare is \['best'\]; it must be \[baseline, previous\]"),
        ({"compare": "best"}, "compare is 'best'"),
        ({"compare": True}, "compare is True"),
        ({"compare": []}, r"compare is \[\]"),
        ({"compare": ["baseline", "baseline"]}, "compare is"),
        ({"arms": ["baseline", "se"]}, "must be a mapping"),
        ({"arms": {"baseline": {}, "se": "se"}}, r"arms\.se is 'se'; it must be a mapping"),
        ({"base": None}, "base is None"),
        ({"design": "factorial", "arms": {}, "factors": {"attention": "se"}}, "two or more levels"),
        ({"question": None}, "question"),
        ({"seeds": []}, "seeds"),
        ({"seeds": [1, 1]}, "each once"),
        ({"folds": 1}, "folds"),
        ({"margin": 0}, "margin"),
        ({"lock": "yes"}, r"lock is 'yes'; it must be true or false"),
        ({"lock": True, "claim": "good"}, r"claim is 'good'; it must be one of better, equivalent, not_worse"),
        ({"claim": "equivalent"}, r"claim would be ignored: only a locked study claims something"),
        ({"allow_leaks": "a=b"}, r"allow_leaks is 'a=b'; it must be a list of leaks by their names"),
        (
            {"metrics": {"primary": "dise", "secondary": []}},
            r"metrics is .*Metrics with a better direction are dice, iou",
        ),
        ({"metrics": {"primary": "dice", "secondary": ["volume_difference_ml"]}}, "metrics is"),
        ({"metrics": "nsd"}, "metrics is 'nsd'"),
        ({"metrics": {"primary": "hd95_mm", "secondary": ["dice"]}}, "which difference does not matter.*margin, in mm"),
        ({"classes": "tumour"}, r"classes is 'tumour'; it must be all, or a list of classes, each once: \[tumour\]"),
        ({"groups": 3}, "groups is 3; it must be the path of a CSV"),
        ({"groups": "nowhere.csv"}, "nowhere.csv is not a readable CSV"),
        ({"anchors": ["anchor.csv"]}, r"anchors is \['anchor.csv'\]; it must be the path of a CSV by the name of each"),
        ({"anchors": {"nnU-Net": None}}, "anchors is"),
        ({"anchors": {"a": "nowhere.csv", "b": "neither.csv"}}, r"(?s)2 faults:.*nowhere\.csv is not .*neither\.csv"),
        ({"anchors": {"se": "experiments/anchors/hippocampus.csv"}}, "se is an arm, too"),
        ({"classes": []}, r"classes is \[\]"),
        ({"pilot": 3}, "pilot is 3; it must be a study that was run before"),
        ({"design": "factorial"}, "factors"),
        ({"factors": {"attention": ["none", "se"]}}, "Leave one of the two out"),
    ],
    ids=str,
)
def test_faults(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        study(**change)


def test_a_study_is_judged_by_dice_over_all_classes_unless_it_says_otherwise() -> None:
    usual = study()
    assert (usual.primary, usual.secondary, usual.classes, usual.margin) == ("dice", ("nsd", "hd95_mm"), None, 0.005)
    other = study(metrics={"primary": "nsd", "secondary": ["nsd", "hd95_mm"]}, classes=["tumour"], margin=0.02)
    assert (other.primary, other.secondary, other.classes, other.margin) == ("nsd", ("hd95_mm",), ("tumour",), 0.02)
    assert identity(SECTION) == identity(SECTION | {"margin": 0.005})
    assert "classes" not in identity(SECTION), "a study of an earlier version continues under its name"
    assert identity(SECTION | {"classes": ["tumour"]}) != identity(SECTION)


FILE = """# @package hydra.sweeper.study
question: Does it help?
arms:
  1: {}
  "it's 1e3 & (ü)": {scheduler: onecycle}
"""


def run(sweeps: Sweeps, *arguments: str, file: str = FILE, code: int = 0) -> str:
    """Runs ``file`` as a study."""
    path = sweeps.outputs.parent / "experiments" / "two.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(file)
    return sweeps.run("experiments=two", *arguments, "--config-dir", str(path.parents[1]), code=code)


def test_a_study_says_first_what_each_arm_changes(sweeps: Sweeps) -> None:
    said = run(sweeps, "check=true")
    assert "what each arm changes:\n  1: the baseline\n  it's 1e3 & (ü): " in said
    assert "scheduler._target_: seg.schedulers.warmup_cosine → " in said
    assert "; " in said.partition("(ü): ")[2].splitlines()[0]
    assert not (sweeps.outputs / "sweeps").exists()


def test_a_pruner_would_end_runs_whose_scores_a_study_needs(sweeps: Sweeps) -> None:
    assert "A study needs the scores of every run" in run(sweeps, "hydra.sweeper.pruner=median", code=2)


@pytest.mark.slow
def test_a_study_says_before_its_first_run_what_it_can_find(sweeps: Sweeps) -> None:
    said = run(sweeps, "check=true", "data.batch_size=2")
    assert "study two: 2 trainings (2 arms × 1 seed)" in said
    assert "warning: One seed an arm can conclude nothing" in said
    (more,) = re.findall(r"More: python -m seg\.plan (.*)", said)
    assert shlex.split(more)[:-2] == [*sweeps.common, "experiments=two", "data.batch_size=2"], "then --config-dir …"
    file = f"{FILE}base: {{data.test_fraction: 0.5}}\nseeds: [0, 1, 2]\n"
    assert "warning: With 3 seeds an arm it finds a true difference in Dice of" in run(sweeps, file=file), (
        "and is not refused"
    )
    assert len(sweeps.acts) == 6
    planned = json.loads((sweeps.folder / "study.json").read_text())["planned"]
    assert 0.005 < planned < 0.2
    assert "warning" not in run(sweeps, "check=true", file=f"{file}margin: 0.2\n")
    kept = (sweeps.folder / "study.json").read_text()
    (sweeps.folder / "study.json").write_text(kept.replace(str(planned), "0.123"))
    run(sweeps, file=file)
    assert json.loads((sweeps.folder / "study.json").read_text())["planned"] == 0.123, "what was planned first stays"


@pytest.mark.slow
def test_a_study_has_no_winner(sweeps: Sweeps) -> None:
    said = run(sweeps, "trainer.max_epochs=3")
    assert said.count("what each arm changes") == 1
    assert [act["arm"] for act in sweeps.acts] == ["1", "it's 1e3 & (ü)"], "a name is text"
    summary = (sweeps.folder / "summary.md").read_text()
    assert "2 trials: 2 finished" in summary
    assert "report.html and table.md" in summary
    assert f"python -m seg.report study={sweeps.folder.name} paths.outputs={sweeps.outputs}" in summary
    assert not [word for word in ("Best by", "the best trial", "experiments=best", "val_dice") if word in summary]
    assert not {"plots", "experiments"} & {path.name for path in sweeps.folder.iterdir()}
    asked = json.loads((sweeps.folder / "study.json").read_text())
    assert asked["arms"] == ["1", "it's 1e3 & (ü)"]
    assert asked["base"]["trainer.max_epochs"] == 3, "what was typed counts"
    assert not [key for key in asked["base"] if key.startswith(("paths.", "data.root"))]
    assert asked["different"]["it's 1e3 & (ü)"]["scheduler._target_"][0] == "seg.schedulers.warmup_cosine"
    records = "".join(path.read_text() for path in sweeps.outputs.glob("runs/*/record.jsonl"))
    assert "best.run_id" not in records
    run(sweeps, "trainer.max_epochs=3")
    assert len(sweeps.acts) == 2, "its jobs are known again"


def test_a_half_done_study_names_what_failed_and_no_report(sweeps: Sweeps) -> None:
    run(sweeps, "hydra.sweeper.retries=0", file=FILE.replace('"it\'s 1e3 & (ü)"', "fail"), code=1)
    summary = (sweeps.folder / "summary.md").read_text()
    assert "- trial 1: the loss is not finite" in summary
    assert "nothing to compare so far" in summary


def test_a_study_that_scores_nobody_is_refused_before_its_first_run(sweeps: Sweeps) -> None:
    said = run(sweeps, file=f"{FILE}base: {{data.test_fraction: 0}}\n", code=2)
    assert "would be scored on 0 patients" in said
    assert "hydra.sweeper.study.folds=5" in said
    assert not sweeps.acts


def test_a_study_refuses_a_seed_of_the_command_line(sweeps: Sweeps) -> None:
    for seed in ("seed=5", "seed=1,2"):
        assert "hydra.sweeper.study.seeds=[5]" in run(sweeps, seed, code=2)


def test_a_run_id_without_a_letter_names_a_pilot() -> None:
    assert study(pilot=[7712, "a1b2"]).pilot == ["7712", "a1b2"]


@pytest.mark.parametrize(
    ("study", "start"), [("../../x", "x"), ("a/b", "a-b"), ("..", "study"), ("phase 2.5", "phase 2.5")]
)
def test_the_name_of_a_study_leads_out_of_no_folder(tmp_path: Path, study: str, start: str) -> None:
    with sweeping("train", ["seed=0,1", f"study='{study}'", f"paths.outputs={tmp_path}"]) as described:
        found = read_sweep(*described)
    assert found.folder == tmp_path / "sweeps" / found.name
    assert found.name[:-9] == start
