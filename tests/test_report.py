"""A study from its file to its report: tiny runs, all of it real."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from browser import Reader, headless
from omegaconf import OmegaConf

from benchmarks.compare import MadeUp, make_up
from benchmarks.statistics import study
from seg.data.cases import folder as cases_of
from seg.errors import ConfigError, DataError
from seg.pages.study import costs, factor_effects, report, side_by_side
from seg.records.journal import Journal
from seg.report import find_sweep, main, run
from seg.study.question import Asked, changes

FILE = """# @package hydra.sweeper.study
question: Does <SE> help?
base:
  debug: fast
  tracking: none
  predictions.dpi: 72
  data.test_fraction: 0
  model.channels: [8, 16, 32]
  model.strides: [2, 2]
arms:
  baseline: {}
  se: {attention: se}
seeds: [0, 1]
folds: 2
lock: true
"""


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", *arguments]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False, timeout=500)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, phantom_root: Path) -> tuple[Path, str, str]:
    """The working folder of a study of eight runs, and what its command printed; trained once for all tests here."""
    work = tmp_path_factory.mktemp("study")
    (work / "experiments").mkdir()
    (work / "experiments" / "tiny.yaml").write_text(FILE)
    data = ["data=folder", f"data.root={phantom_root}"]
    alone = command(work, "seg.train", "experiments=tiny", *data)
    assert alone.returncode == 2
    assert "Add -m" in alone.stderr
    done = command(work, "seg.train", "-m", "experiments=tiny", *data)
    assert done.returncode == 0, done.stderr
    return work, done.stdout, done.stderr


def folder_of(work: Path) -> Path:
    (folder,) = (work / "outputs" / "sweeps").iterdir()
    return folder


@pytest.mark.slow
def test_a_study_ends_in_a_table_and_a_page(finished: tuple[Path, str, str]) -> None:
    work, said, logged = finished
    assert "8 of 8 finished" in logged
    assert "se against baseline" in said
    folder = folder_of(work)
    assert "locked before the first run" in logged
    assert "Locked before its first run (" in said, "no run is other than it was locked"
    assert "These cases have been read 1 time, by 1 study" in said
    names = {path.name for path in folder.iterdir()}
    assert {"table.md", "table.tex", "table.csv", "forest.png", "differences.svg", "report.html", "scores.csv"} <= names
    scores = pd.read_csv(folder / "scores.csv", dtype={"case": str})
    assert set(scores["arm"]) == {"baseline", "se"}
    counts = scores.groupby(["arm", "seed", "case", "class"]).size()
    assert (counts == 1).all(), "each case is scored once for each seed, out of fold"
    assert scores["case"].nunique() == 12
    page = (folder / "report.html").read_text()
    assert "Does &lt;SE&gt; help?" in page
    assert "default-src 'none'" in page, "the browser fetches nothing"
    records = [path.read_text() for path in work.glob("outputs/runs/*/record.jsonl")]
    tags = [json.loads(line) for record in records for line in record.splitlines()]
    assert sum(line.get("tags", {}).get("study") == "tiny" for line in tags) == 9, "eight runs and their parent"
    again = command(work, "seg.report", "experiments=tiny")
    assert again.returncode == 0, again.stderr
    assert "se against baseline" in again.stdout
    assert again.stdout.rstrip().endswith("report.html")
    assert "Locked before its first run (" in again.stdout
    (parent,) = [record for record in records if '"study.json' in record or "/study.json" in record]
    now = [path.read_text() for path in work.glob("outputs/runs/*/record.jsonl")]
    (after,) = [record for record in now if record.startswith(parent)]
    assert after.count("report.html") == parent.count("report.html") + 1, "the sweep's record has the new report"
    other = command(work, "seg.report", "experiments=tyni")
    assert other.returncode == 2
    assert "tiny" in other.stderr


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory, hippocampus_root: Path) -> Path:
    """The working folder of the shipped study of attention on real MRI: one seed and fold, 25 steps, ten cases."""
    work = tmp_path_factory.mktemp("shipped")
    small = [
        "hydra.sweeper.study.seeds=[0]",
        "hydra.sweeper.study.folds=null",
        "trainer.max_steps=25",
        "data.batch_size=2",
        "data.test_fraction=0.05",
        "tracking=none",
    ]
    given = [f"data.root={hippocampus_root}", f"paths.outputs={work / 'outputs'}", *small]
    done = command(Path.cwd(), "seg.train", "-m", "experiments=attention", *given)
    assert done.returncode == 0, done.stderr
    return work


def look_at_the_slices(folder: Path, arms: list[str], cases: int) -> None:
    """Someone opens a study's page, goes on to its slices, and uses them."""
    with headless() as browser:
        browser.get((folder / "report.html").as_uri())
        browser.find_element("partial link text", "side by side").click()
        assert browser.current_url.split("#")[0] == (folder / "compare.html").as_uri()
        reader = Reader(browser, folder / "compare.html")
        assert reader.ask("return data.runs.map(({ label }) => label)") == arms
        assert len(reader.column("case")) == cases, "each case once an arm, its folds in one column"
        picture = "return document.querySelector('[data-run=\"0\"] canvas').toDataURL()"
        seen, slices = [], []
        for _ in range(3):
            seen.append(reader.ask(picture))
            slices.append(int(reader.text("#slice-number").split()[0]))
            reader.press("ARROW_RIGHT")
        assert len(set(seen)) == 3, "each slice is another picture"
        assert slices == [slices[0], slices[0] + 1, slices[0] + 2]
        orders = []
        for _ in range(2):
            reader.click("#table th[data-key='1'] button")
            orders.append([float(text) for text in reader.column("1")])
        assert sorted(orders) == [sorted(orders[0]), sorted(orders[0], reverse=True)]
        means = pd.read_csv(folder / "scores.csv", dtype={"case": str}).query("arm == @arms[1] and seed == 0")
        shown = dict(zip(reader.column("case"), reader.column("1"), strict=True))
        assert shown == {case: f"{dice:.3f}" for case, dice in means.groupby("case")["dice"].mean().items()}
        first, *_, last = reader.column("case")
        reader.click("#table tbody tr:last-child button")
        reader.until("return document.getElementById('case-name').textContent === arguments[0]", last)
        reader.ask("document.querySelector('#table tbody tr button').focus()")
        reader.press("ENTER")
        reader.until("return document.getElementById('case-name').textContent === arguments[0]", first)
        assert browser.get_log("browser") == []


@pytest.mark.slow
def test_its_slices_can_be_looked_at_from_its_page(finished: tuple[Path, str, str]) -> None:
    look_at_the_slices(folder_of(finished[0]), ["baseline", "se"], cases=12)


@pytest.mark.slow
def test_the_shipped_studys_slices_can_be_looked_at_from_its_page(shipped: Path) -> None:
    look_at_the_slices(folder_of(shipped), ["baseline", "se", "cbam", "cbam_warmup"], cases=10)


@pytest.mark.slow
def test_its_results_stand_in_the_progress_of_their_data(finished: tuple[Path, str, str]) -> None:
    done = command(finished[0], "seg.report", "data=phantom")
    assert done.returncode == 0, done.stderr
    assert "Out of fold, folds 0, 1: 12 cases" in done.stdout
    assert "of 4 results" in done.stdout, "two arms of two seeds, each over both folds"
    assert "records of whole sweeps (1)" in done.stdout
    assert "Progress on" in (finished[0] / "outputs/progress/phantom.html").read_text()


@pytest.mark.slow
def test_without_its_masks_a_study_has_no_slices_but_all_the_rest(
    finished: tuple[Path, str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outputs = tmp_path / "outputs"
    shutil.copytree(finished[0] / "outputs", outputs, ignore=shutil.ignore_patterns("*.nii.gz", "*.pt", "cache"))
    folder = folder_of(tmp_path)
    (folder / "report.html").unlink()
    _, files = report(folder, outputs, None)
    assert "compare.html" not in [path.name for path in files]
    page = (folder / "report.html").read_text()
    assert "Comparisons" in page
    assert "compare.html" not in page
    assert "No case of seed 0 has masks of two arms" in caplog.text


def asked(name: str) -> Asked:
    return Asked(name, f"{name}-1", "Why?", ("a", "b"), {"a": {}, "b": {"k": [None, 1]}}, {}, ("baseline",), 0.005, 4)


def test_the_latest_sweep_of_a_study_is_found(tmp_path: Path) -> None:
    for number in range(2):
        folder = tmp_path / "sweeps" / f"attention-{number}"
        folder.mkdir(parents=True)
        asked("attention").write(folder)
    assert Asked.read(folder) == asked("attention")
    assert find_sweep(tmp_path, "attention") == folder
    assert find_sweep(tmp_path, "attention-0").name == "attention-0"
    asked("brain-attention").write(tmp_path / "sweeps/brain-attention-3")
    for given in ("brain/attention", "brain/attention.yaml", "brain-attention"):
        assert find_sweep(tmp_path, given).name == "brain-attention-3"
    with pytest.raises(ConfigError, match="the studies there: attention, brain-attention"):
        find_sweep(tmp_path, "attntion")


def test_costs_are_means_over_an_arms_runs_and_the_largest_memory() -> None:
    table = pd.DataFrame(
        {
            "arm": ["a", "a", "b"],
            "params.parameters": [10, 10, 20],
            "total_training_seconds": [1.0, 3.0, 5.0],
            "peak_memory_mib": [100.0, 300.0, 50.0],
        }
    )
    told = costs(table)
    assert told.loc["a"].to_dict() == {"params": 10, "training_seconds": 2.0, "memory_mib": 300.0}
    assert told.loc["b", "training_seconds"] == 5.0


@pytest.fixture(scope="module")
def seven(tmp_path_factory: pytest.TempPathFactory, phantom_root: Path) -> tuple[Path, pd.DataFrame]:
    """The finished runs of a study of two arms, two seeds and two folds; seed 1 lacks one."""
    cases, outputs = cases_of(phantom_root), tmp_path_factory.mktemp("seven")
    rows = []
    for number in range(7):
        arm, seed, fold = "ba"[number % 2], number // 4, number // 2 % 2
        made = MadeUp(f"{number}" * 32, arm, seed, fold, study="attention")
        make_up(outputs, cases, made, [case.id for case in cases.cases[2 * fold : 2 * fold + 2]])
        rows.append({"run_id": made.run_id, "arm": arm, "seed": float(seed), "fold": fold})
    return outputs, pd.DataFrame(rows[::-1])


@pytest.fixture
def made_up(tmp_path: Path, seven: tuple[Path, pd.DataFrame]) -> pd.DataFrame:
    """A copy of those seven runs, each test's own."""
    shutil.copytree(seven[0], tmp_path, dirs_exist_ok=True)
    return seven[1].copy()


def test_of_all_runs_those_of_one_seed_are_shown_an_arm_a_column(made_up: pd.DataFrame, tmp_path: Path) -> None:
    assert side_by_side(asked("attention"), made_up, tmp_path, tmp_path) == "4 cases, seed 0"
    text = (tmp_path / "compare.html").read_text()
    page = json.loads(text.split('id="data">')[1].split("</script>")[0])
    assert page["title"].startswith("Study attention, seed 0")
    assert [column["label"] for column in page["runs"]] == ["a", "b"], "the baseline first"
    assert text.count("<td>0, 1</td>") == 2, "the folds of each"
    assert [len(case["scores"]) for case in page["cases"]] == [2] * 4
    assert all(None not in case["scores"] for case in page["cases"])


def test_runs_and_masks_that_are_elsewhere_are_counted(made_up: pd.DataFrame, tmp_path: Path) -> None:
    for path in (tmp_path / "predictions/run_00000000").glob("*_000.nii.gz"):
        path.unlink()
    shutil.rmtree(tmp_path / "runs/run_33333333")
    told = side_by_side(asked("attention"), made_up, tmp_path, tmp_path)
    assert told == "4 cases, seed 0, 1 run not found, 1 mask not found"


@pytest.mark.parametrize("gone", ["masks", "runs", "data"])
def test_a_log_line_says_why_there_are_no_slices(
    made_up: pd.DataFrame, tmp_path: Path, caplog: pytest.LogCaptureFixture, gone: str
) -> None:
    if gone == "masks":
        shutil.rmtree(tmp_path / "predictions")
    if gone == "runs":
        shutil.rmtree(tmp_path / "runs")
    for path in tmp_path.glob("runs/*/config/config.yaml") if gone == "data" else ():
        path.write_text(path.read_text().replace("phantom", "gone"))
    assert side_by_side(asked("attention"), made_up, tmp_path, tmp_path) == ""
    assert not (tmp_path / "compare.html").exists()
    why = {
        "masks": "No case of seed 0 has masks of two arms",
        "runs": "has no run of seed 0",
        "data": "gone: no such folder",
    }
    assert why[gone] in caplog.text
    assert "python -m seg.compare study=attention" in caplog.text


@pytest.mark.slow
def test_the_effects_of_factors_stand_wherever_the_tables_do(tmp_path: Path, phantom_root: Path) -> None:
    arms = {"none": ("off", "off"), "<se>": ("on", "off"), "warm": ("off", "on"), "both": ("on", "on")}
    cases = cases_of(phantom_root)
    for number, (arm, error_mm) in enumerate(zip(arms, (2.0, 1.5, 1.5, 0.8), strict=True)):
        made = MadeUp(f"{number}" * 32, arm, error_mm=error_mm, study="cross")
        make_up(tmp_path, cases, made, [case.id for case in cases.cases[:5]])
    factors = {factor: {arm: levels[n] for arm, levels in arms.items()} for n, factor in enumerate(("se", "schedule"))}
    folder = tmp_path / "sweeps/cross"
    Asked("cross", "cross", "Why?", tuple(arms), {}, factors, ("baseline",), 0.005, 4).write(folder)
    said, files = report(folder, tmp_path, None)
    effects = pd.read_csv(folder / "effects.csv")
    assert list(effects["effect"]) == ["se=on", "schedule=on", "se=on × schedule=on"]
    table = (folder / "table.md").read_text()
    for text in (said, table):
        rows = [line for line in text.split("### Effects\n")[1].splitlines() if line.startswith("| se")]
        assert [row.split(" | ")[0] for row in rows] == ["| se=on", "| se=on × schedule=on"]
        assert f"{effects['difference'][2]:+.4f}".replace("-", "−") in rows[1]
    assert "*Interactions of 2 factors*" in table
    assert "Effects" in (folder / "table.tex").read_text()
    page = (folder / "report.html").read_text()
    assert "<th scope=row>se=on × schedule=on</th>" in page
    assert "href=compare.html" in page
    assert {"compare.html", "effects.csv", "report.html"} <= {path.name for path in files}


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory, phantom_root: Path) -> Path:
    """The finished runs of a study of two arms and two seeds."""
    cases, outputs = cases_of(phantom_root), tmp_path_factory.mktemp("four")
    for number in range(4):
        made = MadeUp(f"{number}" * 32, "ab"[number % 2], seed=number // 2, study="attention-1")
        make_up(outputs, cases, made, [case.id for case in cases.cases[:5]])
    asked("attention").write(outputs / "sweeps/attention-1")
    return outputs


@pytest.fixture
def compared(tmp_path: Path, four: Path) -> tuple[Path, list[Journal]]:
    """A copy of that study's folder, each test's own, and the records of its runs."""
    shutil.copytree(four, tmp_path, dirs_exist_ok=True)
    return tmp_path / "sweeps/attention-1", [Journal(tmp_path / f"runs/run_{str(n) * 8}") for n in range(4)]


@pytest.mark.slow
def test_runs_of_other_data_or_splits_are_not_compared(compared: tuple[Path, list[Journal]], tmp_path: Path) -> None:
    folder, records = compared
    for number, record in enumerate(records):
        record.append({"tags": {"dataset_version": "abcdef1234", "split_hash": f"split {number // 2}"}})
    report(folder, tmp_path, None)
    records[3].append({"tags": {"split_hash": "another"}})
    with pytest.raises(DataError, match=r"split_hash differs within seed 1, fold 0: another in 33333333; split 1 in 2"):
        report(folder, tmp_path, None)
    records[0].append({"tags": {"dataset_version": "fedcba4321"}})
    allowed = {"a": {}, "b": {"data.split_file": ["one.json", "other.json"]}}
    replace(asked("attention"), different=allowed).write(folder)
    report(folder, tmp_path, None)  # splits are what it asks about
    asked("attention").write(folder)
    with pytest.raises(DataError, match=r"(?s)2 faults.*dataset_version differs .* fedcba43 in 00000000"):
        report(folder, tmp_path, None)


@pytest.mark.slow
def test_a_report_says_which_cases_and_which_code(compared: tuple[Path, list[Journal]], tmp_path: Path) -> None:
    folder, records = compared
    for number, record in enumerate(records):
        record.append({"metrics": {"test_dice": 0.8}, "step": 0, "time": number})
        record.append({"tags": {"git_commit": "ab12cd34ef" if number else "12ab34cd56"}})
    said, files = report(folder, tmp_path, None)
    assert "5 patients (5 cases of the test part); judged by Dice" in said
    assert "Its runs used 2 versions of the code: 12ab34cd, ab12cd34." in said
    assert r"\label{tab:attention-results}" in (folder / "table.tex").read_text()
    assert "study.json" in {path.name for path in files}
    assert "Preliminary" not in said


@pytest.mark.slow
def test_a_report_of_half_a_study_says_so_in_every_file(compared: tuple[Path, list[Journal]], tmp_path: Path) -> None:
    folder, _ = compared
    replace(asked("attention"), runs=6, arms=("a", "b", "c"), against=("baseline", "previous")).write(folder)
    said, _ = report(folder, tmp_path, None)
    for text in (said, *((folder / name).read_text() for name in ("table.md", "table.tex", "report.html"))):
        assert "Preliminary: 4 of 6 runs are finished." in text
    assert "3 comparisons as one family" in said
    assert "arm c (without scores)" in said


def test_what_an_arm_changes_is_told_by_its_keys() -> None:
    resolved = {
        "attention": [{}, None],
        "attention._partial_": [None, True],
        "attention._target_": [None, "seg.models.attention.SE"],
        "scheduler._target_": ["seg.schedulers.constant", "seg.schedulers.poly"],
        "scheduler.milestones": [[1], None],
        "trainer.clip_norm": [12.0, None],
    }
    assert changes(resolved) == [
        "attention._target_: – → seg.models.attention.SE",
        "scheduler._target_: seg.schedulers.constant → seg.schedulers.poly",
        "trainer.clip_norm: 12.0 → –",
    ]
    assert changes({"optimizer.weight_decay": [0.0, None]}) == ["optimizer.weight_decay: 0.0 → –"]
    assert changes({"attention._target_": ["seg.models.attention.SE", None], "attention.where": ["all", None]}) == [
        "attention._target_: seg.models.attention.SE → –"
    ]
    assert changes({}) == ["the baseline"]


def test_effects_are_there_while_a_run_of_the_study_is_missing() -> None:
    arms = {"none": ("off", "off"), "se": ("on", "off"), "warm": ("off", "on"), "both": ("on", "on")}
    factors = {factor: {arm: levels[n] for arm, levels in arms.items()} for n, factor in enumerate(("se", "schedule"))}
    asked = Asked("cross", "cross", "Why?", tuple(arms), {}, factors, ("baseline",), 0.005, 12)
    scores = study(dict.fromkeys(arms, 0.0), patients=20)
    missing = scores[(scores["arm"] != "both") | (scores["seed"] != 2)]
    told = factor_effects(asked, missing, "common")
    assert told is not None
    assert told["effect"].tolist() == ["se=on", "schedule=on", "se=on × schedule=on"]
    newest_first = factor_effects(asked, missing[::-1], "common")
    pd.testing.assert_frame_equal(newest_first, told)
    assert factor_effects(asked, missing[missing["arm"] != "both"], "common") is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "experiments=attention.*data=hippocampus"),
        ({"experiments": "x", "data": "y"}, "only one of them: experiments=attention.*data=hippocampus"),
        ({"study": "x", "experiments": "y"}, "only one of them"),
    ],
)
def test_a_report_is_of_a_study_or_of_a_data_set(tmp_path: Path, given: dict[str, str], message: str) -> None:
    values = dict.fromkeys(("experiments", "study", "data")) | {"paths": {"outputs": str(tmp_path)}} | given
    with pytest.raises(ConfigError, match=message):
        main(OmegaConf.create(values | {"tracking": {"uri": None}}))


def test_data_means_the_data_set_though_it_is_a_group_of_options_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs").mkdir()
    monkeypatch.setattr(sys, "argv", ["report", "data=007"])
    with pytest.raises(SystemExit) as stopped:
        run()
    assert stopped.value.code == 2
    assert "data set 007" in capsys.readouterr().err


def test_a_damaged_study_hides_no_other(tmp_path: Path) -> None:
    folder = tmp_path / "sweeps/attention-0"
    for name, text in (("attention-0", None), ("damaged", "{"), ("newer", '{"name": "attention", "unknown": 1}')):
        (tmp_path / "sweeps" / name).mkdir(parents=True)
        if text is None:
            asked("attention").write(folder)
        else:
            (tmp_path / "sweeps" / name / "study.json").write_text(text)
    assert find_sweep(tmp_path, "attention") == folder
    with pytest.raises(DataError, match=r"newer/study\.json cannot be read .* another version of seg wrote it"):
        Asked.read(tmp_path / "sweeps/newer")
