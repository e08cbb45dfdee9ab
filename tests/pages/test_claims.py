"""A locked study that was tampered with in each of its parts: its report finds each, by what really reads it."""

import json
import re
import shutil
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from benchmarks.compare import MadeUp, make_up
from seg.data.cases import folder as cases_of
from seg.files import seal, unseal
from seg.pages.study import look_at, report
from seg.records.folder import claim
from seg.records.journal import Journal
from seg.records.sink import PARENT
from seg.records.state import Process, State, write_state
from seg.study import lock
from seg.study.question import Asked

PARENT_ID = "f" * 32
ASKED = Asked(
    name="tiny",
    sweep="tiny-1",
    question="Why?",
    arms=("a", "b"),
    different={"a": {}, "b": {"k": [None, 1]}},
    factors={},
    against=("baseline",),
    margin=0.005,
    runs=4,
    lock=True,
    part="which cases",
)


@dataclass
class Study:
    """A locked study whose runs are made up."""

    outputs: Path
    records: list[Journal]
    parent: Journal

    @property
    def folder(self) -> Path:
        return self.outputs / "sweeps/tiny-1"

    def tag(self, tag: str, value: str, *runs: int) -> None:
        for number in runs:
            self.records[number].append({"tags": {tag: value}})

    def ask(self, **changes: Any) -> None:
        replace(ASKED, **changes).write(self.folder)

    def rewrite(self, change: Callable[[dict[str, Any]], None]) -> None:
        """The lock with something else in it, and the checksum that belongs to it."""
        content = unseal((self.folder / lock.FILE).read_bytes())
        change(content)
        (self.folder / lock.FILE).write_text(seal(content, indent=1))

    def add_run(self, number: int, arm: str, seed: int) -> Journal:
        made = MadeUp(f"{number}" * 32, arm, seed=seed, study="tiny-1")
        folders = make_up(self.outputs, cases_of(ROOTS[0]), made, [f"phantom_00{n}" for n in range(5)])
        tags = {"config_hash": f"settings of {arm} {seed}", "split_hash": "split", "dataset_version": "data"}
        tags |= {"code_hash": "source", "git_commit": "commit", PARENT: PARENT_ID}
        journal = Journal(folders.run)
        journal.append({"tags": tags}, {"metrics": {"test_dice": 0.8}, "step": 0, "time": number})
        return journal


ROOTS: list[Path] = []  # of the phantom


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, phantom_root: Path) -> Path:
    ROOTS[:] = [phantom_root]
    study = Study(tmp_path_factory.mktemp("locked"), [], Journal(Path()))
    for number in range(4):
        study.add_run(number, "ab"[number % 2], number // 2)
    study.folder.mkdir(parents=True)
    ASKED.write(study.folder)
    runs = [
        {"arm": arm, "seed": seed, "fold": "0", "config_hash": f"settings of {arm} {seed}", "split_hash": "split"}
        for arm in "ab"
        for seed in "01"
    ]
    code = {"git_commit": "commit", "code_hash": "source"}
    content = lock.lock_of(ASKED, runs=runs, data="data", code=code, stop={"seeds": [0, 1], "max_steps": 10})
    digest, _ = lock.keep_lock(study.folder, content)
    parent = claim(study.outputs, PARENT_ID, predictions=False)
    write_state(parent.run, State("none", None, "phantom/tiny", "tiny-1", "FINISHED", Process.this()))
    Journal(parent.run).append(
        {"tags": {"sweep": "tiny-1", "study": "tiny"}, "params": {"lock": f"sha256:{digest}", "command": "train"}}
    )
    return study.outputs


@pytest.fixture
def study(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Study:
    """A copy for each test; pictures and slices, which take longest, are for one of them only."""
    if "kept_to" not in request.node.name:
        monkeypatch.setattr("seg.study.figures.write_figures", lambda analysis, folder: [])
        monkeypatch.setattr("seg.pages.study.side_by_side", lambda *given: "")
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    records = [Journal(tmp_path / f"runs/run_{str(number) * 8}") for number in range(4)]
    return Study(tmp_path, records, Journal(tmp_path / "runs/run_ffffffff"))


def told(study: Study) -> str:
    """What the report says of the lock, which is the same in every file."""
    said, _ = report(study.folder, study.outputs, None)
    line = next(line for line in said.splitlines() if line.startswith(("- Locked", "- CHANGED", "- Exploratory")))
    table = (study.folder / "table.md").read_text()
    assert line in table
    page = (study.folder / "report.html").read_text()
    assert line[2:20] in page
    kept = pd.read_csv(study.folder / "table.csv")
    claims = {one for name in kept if name.endswith("_claim") and "false" not in name for one in kept[name].dropna()}
    known = {"CHANGED"} if line.startswith("- CHANGED") else {"CONFIRMED", "REFUTED", "UNDECIDED"}
    assert len(claims & known) == (not line.startswith("- Exploratory"))
    assert claims <= known | {"exploratory"}
    return line


@pytest.mark.slow
def test_a_study_that_was_kept_to_says_what_became_of_its_claims(study: Study) -> None:
    line = told(study)
    assert line.startswith("- Locked before its first run (")
    assert "b better than a: " in line
    assert line.endswith("Everything else is exploratory.")
    page = (study.folder / "report.html").read_text()
    assert "Locked before the first run</th>" in page
    assert "were fixed beforehand (sha256:" in page
    assert "been read 1 time, by 1 study, since " in page
    assert page.index("Locked before its first run") < page.index("<figure"), "beside the answer"


OTHER: dict[str, Any] = {
    "name": "other",
    "question": "What else?",
    "arms": ("b", "a"),
    "different": {"a": {}, "b": {"k": [None, 2]}},
    "factors": {"k": {"a": "0", "b": "1"}},
    "against": ("previous",),
    "margin": 0.1,
    "runs": 2,
    "primary": "nsd",
    "secondary": ("nsd",),
    "classes": ("large",),
    "leaks": ("none",),
    "base": {"model": "unetpp"},
    "groups": {"patient": {f"phantom_{n:03d}": "ab"[n % 2] for n in range(12)}},
    "until": (2, 3),
    "lock": False,
    "claim": "not_worse",
    "part": "other cases",
}


def test_every_part_of_the_question_has_a_test() -> None:
    assert set(OTHER) == set(asdict(ASKED)) - {"sweep", "planned", "anchors", "jitter"}, (
        "by another sweep's name its runs are not found"
    )


def one_and_the_rest_slow(names: Iterable[str]) -> list[Any]:
    """Each is a whole report: the first of them in the default tier, the others in the slow one."""
    first, *rest = names
    return [first, *(pytest.param(name, marks=pytest.mark.slow) for name in rest)]


@pytest.mark.parametrize("key", one_and_the_rest_slow(["margin", *(key for key in OTHER if key != "margin")]))
def test_another_question_than_locked_is_found(study: Study, key: str) -> None:
    if key == "classes":
        names = sorted(pd.read_csv(study.records[0].run / "data/cases.csv")["class"].unique())
        study.ask(classes=(names[0],))
    else:
        study.ask(**{key: OTHER[key]})
    assert f" {key}: " in told(study)


TAMPERED: dict[str, tuple[Callable[[Study], Any], str]] = {
    "file removed": (lambda study: (study.folder / lock.FILE).unlink(), "lock.json was removed"),
    "file edited": (
        lambda study: (study.folder / lock.FILE).write_text(
            (study.folder / lock.FILE).read_text().replace("0.005", "0.001")
        ),
        "lock.json was edited: its content does not have its checksum",
    ),
    "stop rule rewritten": (
        lambda study: study.rewrite(lambda content: content["stop"].update(max_steps=20)),
        "recorded before the first run was",
    ),
    "margin rewritten everywhere": (
        lambda study: (
            study.ask(margin=0.1),
            study.rewrite(lambda content: content["asked"].update(margin=0.1)),
        ),
        "recorded before the first run was",
    ),
    "record lost": (
        lambda study: study.parent.path.write_text(json.dumps({"tags": {"sweep": "tiny-1"}}) + "\n"),
        "recorded before the first run was nothing",
    ),
    "settings of a run": (lambda study: study.tag("config_hash", "x", 1), "settings: other than locked in 11111111"),
    "version of the data": (
        lambda study: study.tag("dataset_version", "x", 0, 1, 2, 3),
        "version of the data: other than locked in 00000000, 11111111",
    ),
    "split": (lambda study: study.tag("split_hash", "x", 0, 1), "split: other than locked in 00000000, 11111111"),
    "code between runs": (lambda study: study.tag("code_hash", "x", 3), "code: other than locked in 33333333"),
    "commit between runs": (
        lambda study: study.tag("git_commit", "x", 2, 3),
        "commit of the code: other than locked in 22222222, 33333333",
    ),
    "run left out": (
        lambda study: shutil.rmtree(study.records[3].run),
        "runs left out: b, seed 1, fold 0",
    ),
    "seeds beyond the rule": (
        lambda study: [study.add_run(4, "a", 7), study.add_run(5, "b", 7)],
        "runs that were not planned: a, seed 7, fold 0, b, seed 7, fold 0",
    ),
}


@pytest.mark.parametrize("part", one_and_the_rest_slow(TAMPERED))
def test_what_is_not_as_it_was_locked_is_found(study: Study, part: str) -> None:
    tamper, words = TAMPERED[part]
    tamper(study)
    line = told(study)
    assert line.startswith("- CHANGED since it was locked: ")
    assert words in line.replace("\\_", "_")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "value"), [("LEVEL", 0.1), ("TEST", "another")])
def test_another_test_or_level_is_found(study: Study, monkeypatch: pytest.MonkeyPatch, name: str, value: Any) -> None:
    monkeypatch.setattr(lock, name, value)
    assert f" {name.lower()}: " in told(study)


def test_while_runs_are_still_to_come_nothing_is_left_out(study: Study) -> None:
    shutil.rmtree(study.records[3].run)
    write_state(study.parent.run, State("none", None, "phantom/tiny", "tiny-1", "RUNNING", Process.this()))
    assert "b better than a: UNDECIDED" in told(study)


GONE = "The scores of 33333333 (arm b, seed 1, fold 0) are missing"


@pytest.mark.parametrize("ended", [True, False])
def test_a_finished_run_whose_scores_are_gone_is_named_and_nothing_is_confirmed(study: Study, ended: bool) -> None:
    if not ended:
        write_state(study.parent.run, State("none", None, "phantom/tiny", "tiny-1", "RUNNING", Process.this()))
    (study.records[3].run / "data/cases.csv").unlink()
    line = told(study)
    assert ("runs left out: b, seed 1, fold 0" if ended else "b better than a: UNDECIDED") in line
    for name in ("table.md", "report.html"):
        text = (study.folder / name).read_text().replace("\\_", "_")
        assert "Preliminary: 3 of 4 runs are finished and have scores" in text
        assert GONE in text


def test_runs_that_differ_in_what_no_arm_sets_are_named(study: Study) -> None:
    for number, record in enumerate(study.records):
        sizes = {"resolved.batch_size": str(2 - number % 2), "resolved.patch": "[8, 8, 8]"}
        record.append({"params": sizes | {"resolved.precision": "bf16" if number else "fp32"}})
    study.ask(different={"a": {}, "b": {"trainer.precision": ["auto", "bf16"]}})
    told(study)
    text = (study.folder / "table.md").read_text().replace("\\_", "_")
    assert "Its runs differ in batch, which no arm sets: 1 in b; 2 in a." in text
    assert "data.batch_size" in text
    assert "in patch" not in text, "it is the same in all"
    assert "in precision" not in text, "an arm sets it"


def test_before_the_first_look_there_are_draws_enough_for_its_level(study: Study) -> None:
    study.ask(until=(3, 13), runs=26)
    told(study)
    (draws,) = re.findall(r"come from ([\d,]+) bootstrap draws", (study.folder / "report.html").read_text())
    assert int(draws.replace(",", "")) > 20_000


def test_seeds_after_a_gap_are_in_no_look(study: Study) -> None:
    study.add_run(4, "a", 2)
    study.add_run(5, "b", 2)
    study.ask(until=(2, 3), runs=6)
    asked = Asked.read(study.folder)
    assert look_at(asked, study.outputs, None)[0].seeds == (2, 2)
    (study.records[3].run / "data/cases.csv").unlink()
    assert look_at(asked, study.outputs, None) == []


def test_a_study_without_a_lock_is_exploratory(study: Study) -> None:
    study.ask(lock=False)
    (study.folder / lock.FILE).unlink()
    study.parent.path.write_text(json.dumps({"tags": {"sweep": "tiny-1", "study": "tiny"}}) + "\n")
    assert told(study) == "- Exploratory: it was not locked before its first run (lock: true)."
    assert "dice_baseline_claim" not in (study.folder / "table.csv").read_text()


def test_a_report_that_is_made_again_is_no_further_reading(study: Study) -> None:
    for place in range(2):
        told(study)
        (study.outputs / str(place)).hardlink_to(study.folder / "scores.csv")
    assert not (study.outputs / "0").samefile(study.outputs / "1"), "replaced as a whole, not written into"
    assert "been read 1 time, by 1 study" in (study.folder / "table.md").read_text()
    assert len((study.outputs / "readings.jsonl").read_text().splitlines()) == 1
