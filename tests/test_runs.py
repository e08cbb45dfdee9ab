import math
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from omegaconf import DictConfig, OmegaConf

from seg import runs as verb
from seg.errors import ConfigError, DataError
from seg.records import mlflow as mlflow_store
from seg.records.journal import Journal
from seg.records.mlflow import Mlflow
from seg.records.opening import open_record
from seg.records.record import Record
from seg.records.state import read_state, write_state
from seg.records.table import arranged, runs, scores_of

METRICS = ("dice", "iou", "precision", "recall", "nsd", "hd95_mm", "assd_mm", "volume_difference_ml")


def make_run(
    outputs: Path,
    name: str,
    *,
    kind: str = "mlflow",
    experiment: str = "phantom/attention",
    tags: dict[str, Any] | None = None,
    metrics: dict[str, float] | None = None,
    params: dict[str, Any] | None = None,
    cases: dict[str, float] | None = None,
    status: str = "FINISHED",
    parent: str | None = None,
) -> Record:
    """A run as seg.engine.results leaves it, without the training."""
    tracker = open_record(kind, outputs=outputs, uri=None, experiment=experiment, run_name=name, parent_run_id=parent)
    own = {"run_id": tracker.run_id, "run_id_short": tracker.folders.short, "study": experiment.split("/")[-1]}
    tracker.set_tags(own | {"predictions": tracker.folders.predictions} | (tags or {}))
    tracker.log_params(params or {})
    if metrics:
        tracker.log_metrics(metrics, step=1)
    if cases:
        tracker.log_dataset("Phantom", "d" * 64, source="data")
        classes = [("left", 0.1), ("right", -0.1)]
        rows = [
            {"run_id": tracker.folders.short, "case": case, "class": name} | dict.fromkeys(METRICS, dice + more)
            for case, dice in cases.items()
            for name, more in classes
        ]
        (tracker.folders.run / "data").mkdir()
        pd.DataFrame(rows).to_csv(tracker.folders.run / "data/cases.csv", index=False)
        tracker.log_artifact(tracker.folders.run / "data/cases.csv", "data")
        for case in cases:
            (tracker.folders.predictions / f"{case}_Slice_012.png").write_bytes(b"png")
    tracker.finish(status)
    return tracker


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Path:
    """Six runs: two arms in MLflow, one run without it, a failed one, a sweep with a pruned trial."""
    outputs = tmp_path_factory.mktemp("outputs")
    shutil.copy(empty_database, outputs)
    for seed, dice in ((2, 0.70), (10, 0.80)):
        make_run(
            outputs,
            "unet-se",
            tags={"arm": "se", "seed": seed, "fold": 0},
            metrics={"test_dice": dice, "test_hd95_mm": 10 * (1 - dice)},
            params={"optimizer.lr": 0.1 * seed, "resume": None, "loss": "dice_ce"},
            cases={"017": dice, "case_b": dice / 2},
        )
    make_run(
        outputs,
        "unet [bold]cbam[/bold]",
        kind="none",
        tags={"arm": "cbam", "seed": 0, "fold": "all"},
        metrics={"test_dice": 0.9, "test_hd95_mm": math.nan},
        params={"optimizer.lr": 0.5},
        cases={"017": 0.85},
    )
    make_run(outputs, "broken", tags={"arm": "se"}, status="FAILED")
    parent = make_run(outputs, "tune", tags={"sweep": "tune", "experiment_type": "sweep"}, experiment="phantom/tune")
    trial = {"sweep": "tune", "trial": 0, "status": "pruned"}
    make_run(outputs, "trial", tags=trial, experiment="phantom/tune", parent=parent.run_id)
    return outputs


def config(outputs: Path, **given: Any) -> DictConfig:
    keys = ("run", "study", "sweep", "arm", "status", "dataset", "case", "sort", "top", "columns", "csv", "diff")
    values = dict.fromkeys(keys) | {"reverse": False, "tracking": {"uri": None}} | given
    return OmegaConf.create(values | {"paths": {"outputs": str(outputs)}})


@pytest.fixture
def printed(outputs: Path, capsys: Any) -> Callable[..., list[str]]:
    def printed(**given: Any) -> list[str]:
        verb.main(config(outputs, **given))
        return capsys.readouterr().out.splitlines()

    return printed


def test_one_frame_holds_runs_with_and_without_mlflow(outputs: Path) -> None:
    table = runs(outputs, study="attention")
    assert sorted(table["name"]) == ["broken", "unet [bold]cbam[/bold]", "unet-se", "unet-se"]
    local = table[table["arm"] == "cbam"].iloc[0]
    assert (local["status"], local["test_dice"], local["params.optimizer.lr"]) == ("FINISHED", 0.9, 0.5)
    assert (local["experiment"], local["dataset"]) == ("phantom/attention", "Phantom")
    for _, run in table.iterrows():
        assert run["run_id"].startswith(run["run_id_short"])
        assert Path(run["predictions"]) == outputs / "predictions" / f"run_{run['run_id_short']}"
        assert 0 <= run["seconds"] < 600
    assert list(table["started"]) == sorted(table["started"], reverse=True), "newest first"
    assert not [name for name in table if name.startswith(("mlflow.", "seg."))]


def test_numbers_are_numbers_and_ids_are_texts(outputs: Path) -> None:
    table = runs(outputs, arm="se", status="finished")
    assert set(table["seed"]) == {2, 10}
    assert set(table["params.optimizer.lr"]) == {0.2, 1.0}
    assert table["params.resume"].isna().all()
    assert set(table["params.loss"]) == {"dice_ce"}
    assert all(isinstance(value, str) for value in table["run_id_short"])


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({"arm": "se"}, ["broken", "unet-se", "unet-se"]),
        ({"arm": "se", "status": "FAILED"}, ["broken"]),
        ({"sweep": "tune"}, ["trial", "tune"]),
        ({"status": "pruned"}, ["trial"]),
        ({"sweep": "tune", "status": "finished"}, ["tune"]),
        ({"dataset": "Phantom"}, ["unet [bold]cbam[/bold]", "unet-se", "unet-se"]),
        ({"dataset": "phantom", "study": "tune"}, ["trial", "tune"]),
        ({"study": "it's"}, []),
        ({"study": "attention' or '1'='1"}, []),
    ],
)
def test_filters(outputs: Path, given: Any, names: list[str]) -> None:
    assert sorted(runs(outputs, **given)["name"]) == names


def test_a_run_is_found_by_the_beginning_of_its_id(outputs: Path) -> None:
    for run_id in runs(outputs)["run_id"]:
        assert list(runs(outputs, run=run_id[:12])["run_id"]) == [run_id]
    assert runs(outputs, run="%").empty


def test_a_trial_names_its_parent(outputs: Path) -> None:
    table = runs(outputs, sweep="tune").set_index("name")
    assert table.loc["trial", "parent"] == table.loc["tune", "run_id"]
    assert pd.isna(table.loc["tune", "parent"])


def test_a_local_trial_names_its_parent_too(tmp_path: Path) -> None:
    make_run(tmp_path, "trial", kind="none", parent="e" * 32)
    assert list(runs(tmp_path)["parent"]) == ["e" * 32]
    assert not (tmp_path / "mlflow.db").exists()


def test_costs_have_one_name_though_older_runs_filed_them_otherwise(tmp_path: Path) -> None:
    old = make_run(tmp_path, "old", kind="none")
    Journal(old.folders.run).append({"metrics": {"epoch_seconds": 3.0}, "step": 1, "time": 0})
    make_run(tmp_path, "new", kind="none", metrics={"epoch_seconds": 2.0, "val_dice": 0.5})
    table = arranged(runs(tmp_path), "epoch_seconds")
    assert list(zip(table["name"], table["epoch_seconds"], strict=True)) == [("new", 2.0), ("old", 3.0)]


def test_columns_that_would_share_a_name_do_not(tmp_path: Path) -> None:
    make_run(tmp_path, "a", kind="none", tags={"name": "mine", "score": "x"}, metrics={"score": 1.0, "seconds": 5.0})
    (run,) = runs(tmp_path).to_dict("records")
    assert (run["name"], run["tags.name"]) == ("a", "mine")
    assert (run["score"], run["tags.score"]) == (1.0, "x")
    assert run["metrics.seconds"] == 5.0


def test_more_runs_than_a_page_of_mlflow(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = len(runs(outputs))
    client = Mlflow(None, outputs).client
    experiment = client.create_experiment("phantom/many")
    made = [client.create_run(experiment, tags={"study": "many"}).info.run_id for _ in range(25)]
    pages, complete = [], mlflow_store._pages

    def small(search: Callable[..., Any]) -> Any:
        def ten(**given: Any) -> Any:
            pages.append(given)
            return search(max_results=10, **given)

        return complete(ten)

    monkeypatch.setattr(mlflow_store, "_pages", small)
    assert set(runs(outputs, study="many")["run_id"]) == set(made)
    assert len(runs(outputs)) == before + 25
    assert len([given for given in pages if given]) >= 4
    client.delete_experiment(experiment)
    assert len(runs(outputs)) == before, "deleted runs are not shown"


def test_an_experiment_that_begins_while_runs_are_listed_is_no_error(
    tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(empty_database, tmp_path)
    store, names = Mlflow(None, tmp_path), iter("abc")
    listed = store.client.search_experiments

    def begins_after(**given: Any) -> Any:
        found = listed(**given)
        store.client.create_run(store.client.create_experiment(next(names)))
        return found

    monkeypatch.setattr(store.client, "search_experiments", begins_after)
    assert store.search("", {}) == []
    assert [run.experiment for run in store.search("", {})] == ["a"]


OPEN_AND_DIE = """
import os, sys, time
from pathlib import Path
from seg.records import sink
from seg.records.opening import open_record
sink._PUSH_SECONDS = (0.05, 0.2)
tracker = open_record(sys.argv[2], outputs=Path(sys.argv[1]), uri=None, experiment="phantom/dead", run_name="dies")
tracker.set_tags({"study": "dead"})
journal = tracker.folders.run / "record.jsonl"
while sys.argv[2] == "mlflow" and tracker._sink._pushed.get(tracker.run_id, 0) < journal.stat().st_size:
    time.sleep(0.01)
os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("kind", ["mlflow", "none"])
def test_a_run_whose_process_is_gone_is_not_shown_as_running(
    outputs: Path, tmp_path: Path, forked: Any, kind: str
) -> None:
    place = outputs if kind == "mlflow" else tmp_path
    assert forked(OPEN_AND_DIE, place, kind) == (-signal.SIGKILL, "")
    assert list(runs(place, study="dead")["status"]) == ["KILLED"]
    assert runs(place, study="dead", status="running").empty


def test_a_killed_run_lasted_until_its_last_report(tmp_path: Path) -> None:
    tracker = open_record("none", outputs=tmp_path, uri=None, experiment="a", run_name="b")
    run, (begun,) = tracker.folders.run, Journal(tracker.folders.run).read()
    Journal(run).append({"metrics": {"loss": 1.0}, "step": 1, "time": begun["time"] + 5000})
    state = read_state(run)
    assert state
    write_state(run, replace(state, process=replace(state.process, started=0.0)))
    (row,) = runs(tmp_path).to_dict("records")
    assert (row["status"], row["seconds"]) == ("KILLED", 5.0)
    Journal(run).append({"status": "FINISHED", "error": "", "time": begun["time"] + 7000})
    Journal(run).append({"metrics": {"test_dice": 1.0}, "step": 0, "time": begun["time"] + 9000})
    assert runs(tmp_path)["seconds"].tolist() == [7.0], "scores that were added later are not of its time"


def test_the_table(printed: Callable[..., list[str]]) -> None:
    head, *lines = printed(study="attention", sort="test_dice")
    assert head.split() == ["run", "name", "status", "arm", "seed", "fold", "test_dice", "test_hd95_mm", "seconds"]
    assert len(lines) == 4
    assert re.match(r"[0-9a-f]{8}  unet \[bold\]cbam\[/bold\]  FINISHED  cbam +0  all +0\.9000 +–", lines[0])
    assert [line.split()[6] for line in lines[1:3]] == ["0.8000", "0.7000"]
    assert lines[3].split()[:7] == [lines[3].split()[0], "broken", "FAILED", "se", "–", "–", "–"]


@pytest.mark.parametrize(
    ("given", "dice"),
    [
        ({"sort": "test_dice"}, ["0.9000", "0.8000", "0.7000", "–"]),
        ({"sort": "test_dice", "reverse": True}, ["0.7000", "0.8000", "0.9000", "–"]),
        ({"sort": "test_hd95_mm"}, ["0.8000", "0.7000", "–", "0.9000"]),
        ({"sort": "params.optimizer.lr"}, ["0.7000", "0.9000", "0.8000", "–"]),
        ({"sort": "seed", "status": "finished"}, ["0.9000", "0.7000", "0.8000"]),
        ({"sort": "test_dice", "top": 2}, ["0.9000", "0.8000"]),
        ({}, ["–", "0.9000", "0.8000", "0.7000"]),
    ],
)
def test_the_order(printed: Callable[..., list[str]], given: Any, dice: list[str]) -> None:
    lines = printed(study="attention", columns=["test_dice"], **given)
    assert [line.split() for line in lines[0:1]] == [["run", "test_dice"]]
    assert [line.split()[1] for line in lines[1:]] == dice


def test_the_column_that_sorts_is_shown(printed: Callable[..., list[str]]) -> None:
    assert printed(arm="se", sort="params.optimizer.lr")[0].split()[-1] == "params.optimizer.lr"


@pytest.mark.parametrize("width", [40, 200])
def test_a_terminal_too_narrow_cuts_no_id(
    outputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, width: int
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", str(width))
    table = runs(outputs, study="attention")
    verb.show(table, ["name", "status", "arm", "seed", "test_dice"])
    said = capsys.readouterr().out
    for short in table["run_id_short"]:
        assert short in said
    for dice in ("0.7000", "0.8000", "0.9000"):
        assert dice in said
    assert "…" not in said


def test_csv_has_every_column(outputs: Path, printed: Callable[..., list[str]], tmp_path: Path) -> None:
    said = printed(study="attention", sort="test_dice", csv=str(tmp_path / "new/table.csv"))
    table = pd.read_csv(tmp_path / "new/table.csv", dtype={"run_id": str})
    assert list(table["test_dice"])[:3] == [0.9, 0.8, 0.7]
    assert set(table["run_id"]) == set(runs(outputs, study="attention")["run_id"])
    assert {"params.optimizer.lr", "predictions", "arm"} <= set(table)
    assert said[-1] == f"Wrote 4 runs with {table.shape[1]} columns to {tmp_path / 'new/table.csv'}."
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["table.csv"]
    printed(study="attention", columns=["name", "test_dice"], top=1, csv=str(tmp_path / "few.csv"))
    assert (tmp_path / "few.csv").read_text().splitlines() == ["name,test_dice", "broken,"]


def test_the_runs_ranked_by_one_case(outputs: Path, printed: Callable[..., list[str]]) -> None:
    table = runs(outputs, case="017")
    assert list(table["case_dice"].round(6)) == [0.85, 0.8, 0.7]
    assert list(table["arm"]) == ["cbam", "se", "se"]
    for _, row in table.iterrows():
        assert Path(row["picture"]).read_bytes() == b"png"
        assert Path(row["picture"]).parent == Path(row["predictions"])
    head, *lines = printed(case="017")
    assert head.split() == ["run", "name", "arm", "seed", "fold", "case_dice", "case_hd95_mm"]
    assert len(lines) == 5
    assert lines[-2] == f"best   {table['run_id_short'][0]}  0.8500  {table['picture'][0]}"
    assert lines[-1] == f"worst  {table['run_id_short'][2]}  0.7000  {table['picture'][2]}"


def test_the_scores_of_a_run_of_another_machine_come_from_mlflow(outputs: Path, tmp_path: Path) -> None:
    uri = f"sqlite:///{outputs / 'mlflow.db'}"
    table = runs(tmp_path, uri, case="case_b")
    assert set(scores_of(table, tmp_path, uri)["run_id"]) == {*table["run_id"]}
    assert list(table["case_dice"].round(6)) == [0.4, 0.35]
    assert list(table["arm"]) == ["se", "se"]
    assert Path(table["picture"][0]).is_relative_to(outputs), "the run's tag says where it drew"


def test_best_and_worst_are_by_the_case_whatever_the_order(printed: Callable[..., list[str]]) -> None:
    usual = printed(case="017")[-2:]
    assert printed(case="017", reverse=True)[-2:] == usual == printed(case="017", sort="started")[-2:]


def test_a_picture_that_was_removed_is_none(tmp_path: Path, capsys: Any) -> None:
    kept, removed = (
        make_run(tmp_path, name, kind="none", cases={"x": dice}) for name, dice in (("a", 0.5), ("b", 0.4))
    )
    shutil.rmtree(removed.folders.predictions)
    assert runs(tmp_path, case="x")["picture"].tolist() == [str(kept.folders.predictions / "x_Slice_012.png"), None]
    verb.main(config(tmp_path, case="x"))
    assert capsys.readouterr().out.splitlines()[-1].endswith("0.4000  has no picture here")


def test_a_run_from_before_a_metric_has_its_others(tmp_path: Path) -> None:
    run = make_run(tmp_path, "a", kind="none", cases={"x": 0.5})
    path = run.folders.cases
    pd.read_csv(path).drop(columns="nsd").to_csv(path, index=False)
    assert "case_nsd" not in runs(tmp_path, case="x")
    path.write_bytes(b"case,class\n\xff,y\n")
    with pytest.raises(DataError, match=r"cases\.csv is not a readable CSV"):
        runs(tmp_path, case="x")


@pytest.mark.parametrize("name", ["NA", "007", "nan", "None", "1e5"])
def test_a_case_may_be_called_anything(tmp_path: Path, capsys: Any, name: str) -> None:
    make_run(tmp_path, "a", kind="none", cases={name: 0.5, "other": 0.25})
    assert list(runs(tmp_path, case=name)["case_dice"].round(6)) == [0.5]
    verb.main(config(tmp_path, case=name))
    assert f"{name}_Slice_012.png" in capsys.readouterr().out


def test_the_picture_of_several_slices_is_the_middle_one(tmp_path: Path, capsys: Any) -> None:
    run = make_run(tmp_path, "a", kind="none", cases={"[x]": 0.5})
    for number in (3, 40):
        (run.folders.predictions / f"[x]_Slice_{number:03d}.png").write_bytes(b"png")
    assert runs(tmp_path, case="[x]")["picture"][0].endswith("[x]_Slice_012.png")
    for path in run.folders.predictions.glob("*.png"):
        path.unlink()
    verb.main(config(tmp_path, case="[x]"))
    assert capsys.readouterr().out.splitlines()[-1].endswith("0.5000  has no picture here")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sort": "test_dise"}, "no column 'test_dise'. Did you mean 'test_dice'"),
        ({"columns": ["nme"]}, "no column 'nme'. Did you mean 'name'"),
        ({"sort": "zzz"}, r"no column 'zzz'\. There are run_id, run_id_short"),
        (
            {"study": "atention"},
            r"None of \d+ runs in MLflow at sqlite.* and .*/runs has study=atention\. Did you mean",
        ),
        ({"status": "done"}, "There is status=FAILED, FINISHED"),
        ({"run": "zzz"}, "has run=zzz"),
        ({"arm": "se", "sweep": "tune"}, "has sweep=tune arm=se"),
        ({"case": "case_c"}, r"None of these \d+ runs tested the case case_c\. Did you mean 'case_b'"),
        ({"case": "case_b", "study": "tune"}, "They tested none at all"),
        ({"top": 0}, "top is 0"),
        ({"tracking": {"uri": "sqlite:////nowhere/x.db"}}, "There is no database /nowhere/x.db"),
    ],
)
def test_what_cannot_be_shown_is_explained(outputs: Path, given: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        verb.main(config(outputs, **given))


def test_places_without_runs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"There is no folder .*typo\. Say where the runs are: paths\.outputs="):
        verb.main(config(tmp_path / "typo"))
    with pytest.raises(ConfigError, match=rf"There is no run in {tmp_path}/runs\. .*paths\.outputs="):
        verb.main(config(tmp_path, study="attention"))
    assert not list(tmp_path.iterdir()), "looking makes nothing"


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([0.5, math.nan, 1.0], ["0.5000", "–", "1.0000"]),
        ([3.0, 12.0, math.nan], ["3", "12", "–"]),
        ([59.5037, 2.0], ["59.50", "2.00"]),
        ([210.68, -29.306], ["210.7", "-29.3"]),
        ([1e-5, 0.01, 0.0], ["1e-05", "0.01", "0"]),
        ([math.nan, math.nan], ["–", "–"]),
        (["a", None], ["a", "–"]),
        ([pd.Timestamp("2026-11-21 10:41:30", tz="UTC"), None], ["2026-11-21 10:41", "–"]),
    ],
)
def test_texts(values: list[Any], texts: list[str]) -> None:
    assert verb._texts(pd.Series(values)) == texts


def test_the_command(
    outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [sys.executable, "-m", "seg.runs", f"paths.outputs={outputs}", "study=attention"]
    command += ["sort=test_dice", f"csv={tmp_path / 't.csv'}", "columns=[name,test_dice]"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].split() == ["run", "name", "test_dice"]
    assert os.listdir(tmp_path) == ["t.csv"]
    monkeypatch.setattr(sys, "argv", [*command[2:], "sort=tset_dice"])
    with pytest.raises(SystemExit) as ended:
        verb.run()
    assert ended.value.code == 2
    assert "Did you mean 'test_dice'" in capsys.readouterr().err


def test_a_server_of_another_project_that_is_down_does_not_hide_the_runs_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    make_run(tmp_path, "local", kind="none")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert runs(tmp_path)["name"].tolist() == ["local"]
    assert "127.0.0.1:1" in caplog.text
    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_URI"):
        runs(tmp_path / "elsewhere")


def test_a_sweep_whose_runs_cannot_all_be_read_is_not_taken_for_whole(tmp_path: Path) -> None:
    make_run(tmp_path, "here", tags={"sweep": "one-1"})
    make_run(tmp_path, "other", kind="none", tags={"sweep": "two-1"})
    (tmp_path / "mlflow.db").unlink()
    assert runs(tmp_path, sweep="two-1", complete=True)["name"].tolist() == ["other"]
    with pytest.raises(ConfigError, match="There is no database"):
        runs(tmp_path, sweep="one-1", complete=True)


def test_runs_whose_database_is_gone_are_shown_from_their_folders(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_run(tmp_path, "here", metrics={"val/dice": 0.5})
    (tmp_path / "mlflow.db").unlink()
    (row,) = runs(tmp_path).to_dict("records")
    assert "There is no database" in caplog.text
    assert (row["name"], row["status"], row["val/dice"]) == ("here", "FINISHED", 0.5)


def test_runs_that_a_restored_database_does_not_know_are_shown_from_their_folders(
    tmp_path: Path, empty_database: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_run(tmp_path, "before", tags={"arm": "se"}, cases={"x": 0.5})
    make_run(tmp_path, "other", tags={"arm": "cbam"})
    shutil.copy(empty_database, tmp_path)
    known = make_run(tmp_path, "after", tags={"arm": "se"})
    assert sorted(runs(tmp_path)["name"]) == ["after", "before", "other"]
    assert "does not know 2 of the runs here" in caplog.text
    assert sorted(runs(tmp_path, arm="se")["name"]) == ["after", "before"]
    assert runs(tmp_path, case="x")["name"].tolist() == ["before"]
    Mlflow(None, tmp_path).client.delete_run(known.run_id)
    assert sorted(runs(tmp_path)["name"]) == ["before", "other"], "what was deleted there stays so"
