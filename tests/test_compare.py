"""``python -m seg.compare``: which runs it takes, what it refuses, and where the page goes."""

import html
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import DictConfig, OmegaConf

from benchmarks.compare import MadeUp, make_up
from seg.compare import main
from seg.data.cases import CaseSet, folder
from seg.data.nifti import write_volume
from seg.errors import ConfigError, DataError
from seg.metrics import METRICS, read_scores
from seg.records.folder import RunFolder
from seg.records.journal import Journal
from seg.records.scored import ScoredRun, labels, ui_commands
from seg.records.table import runs, scores_of


def config(outputs: Path, **given: Any) -> DictConfig:
    values = {"runs": None, "study": None, "sweep": None, "folds": "auto", "file": None, "channel": 0}
    values |= {"window": "auto", "max_mb": 30, "data": {"root": None}, "tracking": {"uri": None}}
    return OmegaConf.create(values | {"paths": {"outputs": str(outputs)}} | given)


@pytest.fixture(scope="session")
def cases(tmp_path_factory: pytest.TempPathFactory) -> CaseSet:
    """Five volumes so small that a run is made up at once: a lobe and a tail."""
    root, rng, training = tmp_path_factory.mktemp("tiny"), np.random.default_rng(0), []
    for kind in ("imagesTr", "labelsTr"):
        (root / kind).mkdir()
    for number in range(5):
        label = np.zeros((14 + number, 12, 10), np.uint8)
        label[2:9, 3:9, 2:8], label[9:12, 4:8, 3:7] = 1, 2
        files = {"image": f"imagesTr/tiny_{number}.nii.gz", "label": f"labelsTr/tiny_{number}.nii.gz"}
        write_volume(root / files["image"], rng.normal(100, 9, label.shape).astype(np.float32), np.eye(4))
        write_volume(root / files["label"], label, np.eye(4))
        training.append(files)
    labels = {"0": "background", "1": "lobe", "2": "tail"}
    (root / "dataset.json").write_text(json.dumps({"modality": {"0": "T1"}, "labels": labels, "training": training}))
    return folder(root, name="tiny")


@pytest.fixture
def run(tmp_path: Path, cases: CaseSet) -> Callable[..., RunFolder]:
    """Makes up a run, of the first two cases where nothing else is said."""

    def make(letter: str, part: slice = slice(2), **about: Any) -> RunFolder:
        return make_up(tmp_path, cases, MadeUp(letter * 32, **about), [case.id for case in cases.cases[part]])

    return make


def head(path: Path) -> dict[str, Any]:
    """The data of the page, without the volumes."""
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', path.read_text(), re.DOTALL)
    assert match
    content: dict[str, Any] = json.loads(match[1])
    return content


class Runs(HTMLParser):
    """The table of runs of a page: a row of texts each, and the links in it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.text = path.read_text()
        self.rows: list[list[str]] = []
        self.links: list[str] = []
        self._cell = False
        self.feed(self.text[self.text.index("aria-label='Table: Runs'") : self.text.index('id="data"')])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append("")
        self._cell = tag != "p" and (self._cell or tag in ("th", "td"))
        self.links += [value for name, value in attrs if name == "href" and value]

    def handle_data(self, data: str) -> None:
        if self._cell:
            self.rows[-1][-1] += data

    def column(self, name: str) -> list[str]:
        place = self.rows[0].index(name)
        return [row[place] for row in self.rows[1:]]


def test_ids_beginnings_and_folders_are_taken_in_their_order_and_once(
    run: Callable[..., RunFolder], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = run("b", seed=3), run("a", seed=7)
    main(config(tmp_path, runs=["bbb", str(second.predictions), "a" * 32, first.run_id]))
    path = tmp_path / "compare/bbbbbbbb-aaaaaaaa.html"
    assert [column["label"] for column in head(path)["runs"]] == ["seed 3", "seed 7"]
    assert head(path)["title"] == "2 runs on tiny"
    assert re.search(rf"^{re.escape(str(path))}: 2 runs, 2 cases, 0\.[01] MB\.", capsys.readouterr().out)
    assert [file.name for file in path.parent.iterdir()] == [path.name], "whole, and nothing beside it"


def test_a_class_that_is_nowhere_is_not_scored(run: Callable[..., RunFolder], tmp_path: Path) -> None:
    both = [run("a"), run("b", seed=1)]
    usual = scores_shown(tmp_path)
    for one in both:
        table = read_scores(one.cases)
        tail = table["class"] == "tail"
        table.loc[tail, [name for name in METRICS if name in table]] = np.nan
        table.to_csv(one.cases, index=False)
    without = scores_shown(tmp_path)
    for before, after in zip(usual, without, strict=True):
        lobe = before[0][1]
        assert after[0] == [lobe, lobe, None], "the mean of the classes there are"
    made_up = read_scores(both[0].cases)
    tail = (made_up["class"] == "tail") & (made_up["case"] == "tiny_0")
    made_up.loc[tail, ["dice", "nsd", "hd95_mm", "false"]] = [0.0, 0.0, 20.0, 1]
    made_up.to_csv(both[0].cases, index=False)
    for one in both:
        (one.predictions / "tiny_0.nii.gz").unlink()  # they would not be what the tables say
    first, second = scores_shown(tmp_path)
    assert first[0][2] == 0.0
    assert second[0][2] == 1.0, "right to leave it empty"
    assert second[0][0] == pytest.approx((second[0][1] + 1) / 2, abs=1e-5)


def scores_shown(outputs: Path) -> list[Any]:
    """Of the first case: by run, measure, then mean and classes."""
    main(config(outputs, runs=["a", "b"], file=str(outputs / "page.html")))
    scores: list[Any] = head(outputs / "page.html")["cases"][0]["scores"]
    return scores


def test_ct_is_shown_in_the_window_of_the_plan(run: Callable[..., RunFolder], tmp_path: Path) -> None:
    one = run("a")
    norm = {"kind": "ct", "low": 90.0, "high": 110.0, "mean": 100.0, "std": 9.0}
    one.plan.write_text(json.dumps({"slice_axis": 1, "normalization": [norm]}))
    main(config(tmp_path, runs=["a"], file=str(tmp_path / "page.html")))
    page = head(tmp_path / "page.html")
    assert page["axis"] == 1
    assert [case["window"] for case in page["cases"]] == [[90.0, 110.0]] * 2
    main(config(tmp_path, runs=["a"], file=str(tmp_path / "page.html"), window=[0, 50]))
    assert head(tmp_path / "page.html")["cases"][0]["window"] == [0.0, 50.0]


def test_a_file_of_ones_own(run: Callable[..., RunFolder], tmp_path: Path) -> None:
    run("a")
    main(config(tmp_path, runs=["a"], file=str(tmp_path / "new/my page.html")))
    assert head(tmp_path / "new/my page.html")["title"] == "unet-f0-s0 on tiny"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "by one of .*; given: none"),
        ({"runs": []}, "by one of"),
        ({"runs": ["a"], "study": "x"}, "given: runs, study"),
        ({"runs": ["a"], "folds": "all"}, "folds is 'all'"),
        ({"runs": ["a"], "max_mb": 0}, "max_mb is 0"),
        ({"runs": ["a"], "max_mb": float("inf")}, "max_mb is inf"),
        ({"runs": ["a"], "channel": -1}, "channel is -1"),
        ({"runs": ["a"], "channel": "one"}, "channel is 'one'"),
        ({"runs": ["a"], "channel": "1"}, "channel is 1, but"),  # as the command line gives it
        ({"runs": ["a"], "channel": 1}, "channel is 1, but .* has the channels 0 to 0"),
        ({"runs": ["a"], "window": [5, 5]}, "window is .*must be auto or two"),
        ({"runs": ["a"], "window": "ct"}, "window is ct"),
        ({"runs": ["zz"]}, "no run zz"),
        ({"study": "nothing"}, "study=nothing has no finished run"),
    ],
)
def test_what_is_asked_must_be_clear(
    run: Callable[..., RunFolder], tmp_path: Path, given: dict[str, Any], message: str
) -> None:
    run("a")
    with pytest.raises(ConfigError, match=message):
        main(config(tmp_path, **given))
    assert not (tmp_path / "compare").exists()


def test_all_faults_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"(?s)2 faults.*folds is.*max_mb is"):
        main(config(tmp_path, runs=["a"], folds="x", max_mb="y"))


def test_a_run_that_is_not_tested_is_named(run: Callable[..., RunFolder], tmp_path: Path) -> None:
    (run("a").run / "data/cases.csv").unlink()
    empty = run("b")
    (empty.run / "data/cases.csv").write_text("run_id,case,patient,class,dice\n")
    with pytest.raises(DataError, match=r"(?s)aaaaaaaa \(unet-f0-s0, FINISHED\).*cases.csv is missing.*bbbb.*no test"):
        main(config(tmp_path, runs=["a", "b"]))


def test_other_data_are_refused(run: Callable[..., RunFolder], tmp_path: Path) -> None:
    run("a")
    other, third = run("b"), run("c")
    for folders, change in ((other, {"classes": {"background": 0, "liver": 1}}), (third, {})):
        path = folders.run / "data/fingerprint.json"
        content = json.loads(path.read_text()) | change
        if not change:
            content["cases"][1]["sha256"] = "0"
        path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"Run bbbbbbbb has the classes .*liver.* the same data set"):
        main(config(tmp_path, runs=["a", "b"]))
    with pytest.raises(DataError, match=r"Run cccccccc was tested on other files than run aaaaaaaa.*tiny_1"):
        main(config(tmp_path, runs=["a", "c"]))


def test_a_mask_that_is_not_the_one_that_was_scored_is_refused(run: Callable[..., RunFolder], tmp_path: Path) -> None:
    one, other = run("a", error_mm=0.5), run("b", error_mm=3)
    (one.predictions / "tiny_0.nii.gz").write_bytes((other.predictions / "tiny_0.nii.gz").read_bytes())
    with pytest.raises(DataError, match=r"run_aaaaaaaa/tiny_0.nii.gz: lobe has dice 0\.\d+, but .*cases.csv says"):
        main(config(tmp_path, runs=["a"]))


def test_a_mask_on_another_grid_is_refused(run: Callable[..., RunFolder], tmp_path: Path) -> None:
    mask = run("a").predictions / "tiny_0.nii.gz"
    mask.write_bytes(mask.with_name("tiny_1.nii.gz").read_bytes())
    with pytest.raises(DataError, match=r"tiny_0.nii.gz: shape .*, but the image has shape"):
        main(config(tmp_path, runs=["a"]))


def test_data_that_moved_are_found_again(run: Callable[..., RunFolder], tmp_path: Path, cases: CaseSet) -> None:
    root = str(cases.cases[0].images[0].parent.parent)
    path = run("a").run / "config/config.yaml"
    path.write_text(path.read_text().replace(root, "/gone"))
    with pytest.raises(DataError, match=r"/gone: no such folder. .* data.root="):
        main(config(tmp_path, runs=["a"]))
    main(config(tmp_path, runs=["a"], data={"root": root}))
    assert len(head(tmp_path / "compare/aaaaaaaa.html")["cases"]) == 2


def test_a_case_that_is_gone_is_named(run: Callable[..., RunFolder], tmp_path: Path) -> None:
    folders = run("a")
    for name in ("data/cases.csv", "data/fingerprint.json"):
        (folders.run / name).write_text((folders.run / name).read_text().replace("tiny_1", "gone_1"))
    with pytest.raises(DataError, match="cases that tiny does not have now: gone_1"):
        main(config(tmp_path, runs=["a"]))


def test_a_page_that_cannot_fit_is_an_error(
    run: Callable[..., RunFolder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("a")
    monkeypatch.setattr("seg.pages.compare.pack", lambda *_: None)
    with pytest.raises(ConfigError, match=r"do not fit into 30 MB.*max_mb"):
        main(config(tmp_path, runs=["a"]))


def test_the_page_stays_under_its_size(phantom_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    phantom = folder(phantom_root)
    make_up(tmp_path, phantom, MadeUp("a" * 32), [case.id for case in phantom.cases])
    main(config(tmp_path, runs=["a"], max_mb=1))
    path = tmp_path / "compare/aaaaaaaa.html"
    assert path.stat().st_size <= 1e6
    assert {len(case["step"]) for case in head(path)["cases"]} == {3}
    assert "to keep the page under its size" in capsys.readouterr().out


def test_folds_are_pooled_for_a_study_and_apart_for_runs(run: Callable[..., RunFolder], tmp_path: Path) -> None:
    for letter, arm, fold in (("a", "base", 0), ("b", "base", 1), ("c", "se", 0), ("d", "se", 1)):
        run(letter, slice(2 * fold, 2 * fold + 2), arm=arm, fold=fold, study="attention")
    run("e", study="other")
    main(config(tmp_path, study="attention"))
    page = head(tmp_path / "compare/attention.html")
    assert page["title"] == "Study attention on tiny"
    assert sorted(column["label"] for column in page["runs"]) == ["base", "se"]
    assert set(Runs(tmp_path / "compare/attention.html").column("Fold")) <= {"0, 1", "1, 0"}
    assert [len(text) for text in Runs(tmp_path / "compare/attention.html").column("Record")] == [16, 16]
    assert [len(case["scores"]) for case in page["cases"]] == [2] * 4
    assert all(None not in case["scores"] for case in page["cases"])
    main(config(tmp_path, runs=["a", "b"], file=str(tmp_path / "apart.html")))
    apart = head(tmp_path / "apart.html")
    assert [column["label"] for column in apart["runs"]] == ["fold 0", "fold 1"]
    assert [[part is None for part in case["scores"]] for case in apart["cases"]] == [[False, True]] * 2 + [
        [True, False]
    ] * 2
    main(config(tmp_path, sweep="attention", folds="apart", file=str(tmp_path / "sweep.html")))
    assert len(head(tmp_path / "sweep.html")["runs"]) == 4


def test_of_a_study_that_was_run_twice_the_latest_is_shown(
    run: Callable[..., RunFolder], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, letter in enumerate("abcd"):
        made = run(letter, arm="ab"[number % 2], study="attention")
        Journal(made.run).append({"tags": {"sweep": f"attention-{number // 2}"}})
        Journal(made.run).append({"metrics": {"loss": 1.0}, "step": 0, "time": 1000 * number})
    main(config(tmp_path, study="attention"))
    assert "attention was run 2 times: these are the runs of attention-1. Others: sweep=attention-0" in (
        capsys.readouterr().out
    )
    assert Runs(tmp_path / "compare/attention.html").column("Record") == ["cccccccc", "dddddddd"]


def test_folds_with_the_same_test_cases_stay_apart(run: Callable[..., RunFolder], tmp_path: Path) -> None:
    for letter, fold in (("a", 0), ("b", 1)):
        run(letter, fold=fold, study="attention")
    main(config(tmp_path, study="attention"))
    assert len(head(tmp_path / "compare/attention.html")["runs"]) == 2


def test_many_runs_have_a_name_that_tells_them_apart(run: Callable[..., RunFolder], tmp_path: Path) -> None:
    for letter in "abcde":
        run(letter, slice(1))
    for chosen in ("abcd", "abce"):
        main(config(tmp_path, runs=list(chosen)))
    names = sorted(path.name for path in (tmp_path / "compare").iterdir())
    assert len(names) == 2
    assert all(re.fullmatch(r"4-runs-[0-9a-f]{8}\.html", name) for name in names)


def test_labels_are_what_differs(run: Callable[..., RunFolder]) -> None:
    three = [ScoredRun(run(*about[0], **about[1])) for about in (
        (["a", slice(1)], {"arm": "se"}), (["b", slice(1)], {"arm": "cbam"}), (["c", slice(1)], {"arm": "cbam"}),
    )]  # fmt: skip
    assert labels([[one] for one in three]) == ["se", "cbam · bbbbbbbb", "cbam · cccccccc"]
    assert labels([[three[0]]]) == ["se"]


def test_links_hold_no_password(run: Callable[..., RunFolder], tmp_path: Path) -> None:
    server = "https://user:hun/ter2@mlflow.example.org:5000/"
    database = "postgresql://user:hunter2@db/runs"
    made = [
        run("a", slice(1), kind="mlflow", uri=server),
        run("b", slice(1), kind="mlflow", uri=database),
        run("c", slice(1), kind="mlflow"),
        run("d", slice(1), kind="none"),
        run("e", slice(1), kind="mlflow", uri="javascript:alert(1)"),
    ]
    main(config(tmp_path, runs=["a", "b", "c", "d", "e"], file=str(tmp_path / "page.html")))
    local = "http://127.0.0.1:5000/#/runs/"
    own = [local + made[number].run_id for number in (1, 2, 4)]
    assert Runs(tmp_path / "page.html").links == [f"https://mlflow.example.org:5000/#/runs/{made[0].run_id}", *own]
    page = html.unescape((tmp_path / "page.html").read_text())
    assert "python -m mlflow ui --backend-store-uri 'postgresql://user:***@db/runs'" in page
    assert f"sqlite:///{tmp_path.resolve()}/mlflow.db" in page
    assert not re.search("hun/?ter2", (tmp_path / "page.html").read_text())
    assert ui_commands([ScoredRun(made[0])], tmp_path) == []


def test_a_case_may_be_called_na_or_007(run: Callable[..., RunFolder], tmp_path: Path, cases: CaseSet) -> None:
    names = {"tiny_0": "NA", "tiny_1": "007"}
    renamed = [replace(case, id=names[case.id], patient=names[case.id]) for case in cases.cases[:2]]
    made = make_up(tmp_path, replace(cases, cases=tuple(renamed)), MadeUp("12e45678" * 4), list(names.values()))
    table = read_scores(made.run / "data/cases.csv")
    assert set(table["case"]) == set(table["patient"]) == {"NA", "007"}
    assert set(table["run_id"]) == {"12e45678"}, "an id is no number"
    assert ScoredRun(made).scores.keys() == {"NA", "007"}
    known = runs(tmp_path)
    assert set(scores_of(known, tmp_path)["case"]) == {"NA", "007"}
    assert len(runs(tmp_path, case="007")) == len(runs(tmp_path, case="NA")) == 1


def test_nsd_needs_one_tolerance(run: Callable[..., RunFolder], tmp_path: Path) -> None:
    path = run("a").run / "data/cases.csv"
    run("b")
    main(config(tmp_path, runs=["a", "b"]))
    page = tmp_path / "compare/aaaaaaaa-bbbbbbbb.html"
    assert [measure["name"] for measure in head(page)["measures"]] == ["Dice", "NSD at 1 mm", "HD95"]
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], *(line.removesuffix("1.0") + "2.0" for line in lines[1:])]))
    main(config(tmp_path, runs=["a", "b"]))
    assert [measure["name"] for measure in head(page)["measures"]] == ["Dice", "HD95"]


@pytest.mark.slow
def test_the_command(run: Callable[..., RunFolder], tmp_path: Path) -> None:
    run("1", slice(1)), run("2", slice(1))
    command = [sys.executable, "-m", "seg.compare", f"paths.outputs={tmp_path}"]
    done = subprocess.run([*command, "runs=[1111,22222222]"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "11111111-22222222.html: 2 runs, 1 case" in done.stdout
    wrong = subprocess.run([*command, "runs=[12e45678]"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert "There is no run 12e45678" in wrong.stderr
    typo = subprocess.run([*command, "run=1111"], capture_output=True, text=True, check=False)
    assert typo.returncode == 2
    assert "Did you mean 'runs'" in typo.stderr
