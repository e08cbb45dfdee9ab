"""``seg.plan``: what it prints for a study's file, and where a study says the same before its first run."""

import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from benchmarks.compare import MadeUp, make_up
from seg.data.cases import folder as cases_of
from seg.errors import ConfigError, DataError
from seg.plan import run
from seg.records.journal import Journal
from seg.study.question import Asked
from seg.sweep.forecast import duration, read_pilot

FILE = """# @package hydra.sweeper.study
question: Does SE help?
base: {data: folder, data.test_fraction: 0.5, trainer.max_steps: 100}
arms: {baseline: {}, se: {attention: se}}
seeds: [0, 1, 2]
"""
Plan = Callable[..., str]
KEPT = Path("experiments/results/attention").resolve()


@pytest.fixture
def plan(
    tmp_path: Path, phantom_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Plan:
    """Runs the command on the study ``tiny``; gives what it prints, or the error where it ends with ``code``."""
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments/tiny.yaml").write_text(FILE)
    monkeypatch.chdir(tmp_path)

    def run_it(*arguments: str, code: int = 0, study: Sequence[str] = ("experiments=tiny",)) -> str:
        monkeypatch.setattr(sys, "argv", ["seg.plan", *study, f"data.root={phantom_root}", *arguments])
        ended = 0
        try:
            run()
        except SystemExit as end:
            ended = int(str(end.code))
        out, err = capsys.readouterr()
        assert ended == code, err
        return err if code else out

    return run_it


@pytest.fixture(scope="module")
def pilot(tmp_path_factory: pytest.TempPathFactory, phantom_root: Path) -> Path:
    """The outputs of four finished runs: two arms, two seeds."""
    cases, outputs = cases_of(phantom_root), tmp_path_factory.mktemp("pilot")
    for number in range(4):
        made = MadeUp(f"{number}" * 32, "ab"[number % 2], seed=number // 2, study="before-1")
        make_up(outputs, cases, made, [case.id for case in cases.cases[:5]])
    Asked("before", "before-1", "Why?", ("a", "b"), {}, {}, ("baseline",), 0.005, 4).write(outputs / "sweeps/before-1")
    return outputs


def rows(said: str) -> list[list[str]]:
    """The table's lines, split into cells; that of the study itself begins with an arrow."""
    return [line.split() for line in said.splitlines() if re.match(r"(→| ) +\d+ +\d+ ", line)]


def test_a_line_for_each_number_of_seeds_and_the_studys_own_marked(plan: Plan) -> None:
    said = plan()
    assert "study tiny: 6 trainings (2 arms × 3 seeds)" in said
    assert "scored on 6 patients, 1 comparison" in said, "half of the phantom's twelve"
    assert "6 patients  to be safe  3 patients  12 patients" in said
    assert [line[-6] if line[0] != "→" else line[1] for line in rows(said)][2] == "3"
    assert len(rows(said)) == 10
    assert [line[0] for line in rows(said)].count("→") == 1
    assert rows(said)[0][3:] == ["–"] * 4, "one seed finds nothing"
    assert "Variances: typical values of short trainings on Hippocampus; Dice: SD" in said
    assert "how long is not known" in said
    assert rows(plan("hydra.sweeper.study.seeds=[0]"))[0][0] == "→"
    assert "One seed an arm can conclude nothing" in plan("hydra.sweeper.study.seeds=[0]")
    assert not (Path.cwd() / "outputs/sweeps").exists()


@pytest.mark.slow
def test_folds_are_counted_and_pooled(plan: Plan) -> None:
    said = plan("hydra.sweeper.study.folds=3", "trainer.max_steps=null", "trainer.max_minutes=20")
    assert "18 trainings (2 arms × 3 seeds × 3 folds), about 6.0 h (20 min of training a run, as its budget" in said
    assert "scored on 6 patients" in said, "all but the test part"
    assert "scored on 2 patients" in plan("hydra.sweeper.study.folds=[1]", "data.folds=3")


def test_of_seeds_until_decided_the_most_are_planned(plan: Plan) -> None:
    Path("experiments/tiny.yaml").write_text(FILE.replace("[0, 1, 2]", "{start: 3, most: 12}"))
    said = plan(f"pilot={KEPT}", "patients=60")
    assert "study tiny: at most 24 trainings (2 arms × 3 to 12 seeds), at most" in said
    assert [line[1] for line in rows(said) if line[0] == "→"] == ["12"], "beyond the ten of every table"


@pytest.mark.slow
def test_for_other_numbers_of_patients_the_data_are_not_read(plan: Plan) -> None:
    said = plan("patients=[40,200]", "data.root=nowhere", "hydra.sweeper.n_jobs=2", f"pilot={KEPT}")
    assert "40 patients  to be safe  200 patients" in said
    assert "2 at a time" in said
    assert "pilot attention, 4 arms × 6 seeds × 153 patients" in said
    assert Asked.read(KEPT).base["trainer.max_steps"] == 500
    assert "31 s a run, by the pilot" in said, "which had 500 steps, five times as many"
    assert "patients is 1; it must be a whole number above 1" in plan("patients=1", code=2)


@pytest.mark.slow
def test_a_pilot_is_a_study_by_name_or_a_list_of_runs(plan: Plan, pilot: Path) -> None:
    words = [f"paths.outputs={pilot}", "patients=30"]
    named = plan("pilot=before", *words)
    assert "pilot before, 2 arms × 2 seeds × 5 patients" in named
    listed = plan("pilot=[0000,1111,2222,3333]", *words)
    assert rows(listed) == rows(named)
    assert rows(plan(f"pilot={pilot}/sweeps/before-1", *words)) == rows(named)
    assert rows(plan("hydra.sweeper.study.pilot=before", *words)) == rows(named)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["pilot=befor"], "pilot: No sweep of the study befor is in"),
        (["pilot=[0000,9999]"], "pilot names 9999, and no such run is in"),
        (["pilot=before", "hydra.sweeper.study.classes=[tumour]"], "pilot: no scores of classes tumour"),
        (["hydra.sweeper.study.pilot=[]"], "study.pilot is []; it must be a study that was run before"),
        (["optimizer.lrr=3"], "sets 'optimizer.lrr', which does not exist"),
    ],
)
def test_faults(plan: Plan, pilot: Path, arguments: list[str], words: str) -> None:
    assert words in plan(*arguments, f"paths.outputs={pilot}", "patients=9", code=2)


@pytest.mark.parametrize("nothing", ["data.test_fraction=0", "inference.part=none"])
def test_a_study_that_scores_nobody_is_refused(plan: Plan, nothing: str) -> None:
    assert "would be scored on 0 patients, and two are needed to judge arms by" in plan(nothing, code=2)


def test_what_is_no_study_is_refused(plan: Plan) -> None:
    assert "There is no study to plan. Name one" in plan(study=(), code=2)


@pytest.mark.slow
def test_without_a_pilot_little_is_known_of_another_metric(plan: Plan) -> None:
    metric = ["hydra.sweeper.study.metrics={primary: iou, secondary: []}", "hydra.sweeper.study.margin=0.01"]
    said = plan(*metric)
    assert "What it can find in IoU is not known without a pilot" in said
    assert not rows(said)
    assert rows(plan(*metric, f"pilot={KEPT}"))


def test_the_keys_are_printed(plan: Plan) -> None:
    assert "pilot: null" in plan("--help")


def test_runs_without_scores_are_no_pilot(pilot: Path, tmp_path: Path) -> None:
    asked = Asked("none", "none-1", "Why?", ("a", "b"), {}, {}, ("baseline",), 0.005, 4)
    asked.write(tmp_path / "sweeps/none-1")
    with pytest.raises(DataError, match="pilot none has no scores yet"):
        read_pilot("none", tmp_path, None)
    with pytest.raises(ConfigError, match="names 77"):
        read_pilot(["77"], pilot, None)
    assert json.loads((tmp_path / "sweeps/none-1/study.json").read_text())["planned"] is None


def test_times_are_told_in_words() -> None:
    assert [duration(s) for s in (40, 600, 9000, 270_000)] == ["40 s", "10 min", "2.5 h", "3.1 days"]


def test_plain_runs_that_differ_in_seed_and_fold_alone_are_one_arm(phantom_root: Path, tmp_path: Path) -> None:
    cases = cases_of(phantom_root)
    for number in range(6):
        made = MadeUp(f"{number}" * 32, seed=number // 2, fold=number % 3, study="")
        run = make_up(tmp_path, cases, made, [case.id for case in cases.cases[:2]])
        params = {"optimizer.lr": 0.1 * (number % 2), "seed": made.seed, "data.fold": made.fold, "paths.cache": number}
        Journal(run.run).append({"params": params})
    pilot = read_pilot([str(number) * 4 for number in range(6)], tmp_path, None)
    runs = pilot.scores.drop_duplicates("run_id").sort_values("run_id")
    assert runs["arm"].tolist() == ["unet as 00000000", "unet as 11111111"] * 3
    assert runs["seed"].tolist() == [0, 0, 1, 1, 2, 2]


def test_a_beginning_of_several_runs_is_refused(phantom_root: Path, tmp_path: Path) -> None:
    cases = cases_of(phantom_root)
    for run_id in ("ab" * 16, "ac" * 16):
        make_up(tmp_path, cases, MadeUp(run_id), [cases.cases[0].id])
    with pytest.raises(ConfigError, match=rf"pilot names a, which may be any of {'ab' * 16}, {'ac' * 16}\."):
        read_pilot(["ab", "a"], tmp_path, None)


def test_runs_without_a_seed_are_told_so(phantom_root: Path, tmp_path: Path) -> None:
    cases = cases_of(phantom_root)
    run = make_up(tmp_path, cases, MadeUp("a" * 32), [case.id for case in cases.cases[:2]])
    (run.run / "record.jsonl").unlink()
    scores = read_pilot(["aaaa"], tmp_path, None).scores
    assert scores["seed"].isna().all()
