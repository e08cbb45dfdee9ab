"""``python -m seg.report data=…``: which runs it takes, what it leaves out and says, where it writes."""

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from omegaconf import OmegaConf

from seg.errors import ConfigError
from seg.pages.progress import points_of, scored_runs
from seg.records.opening import open_record
from seg.records.record import Record
from seg.report import main

BEGIN = pd.Timestamp("2026-03-01 08:00", tz="UTC")


def rows(*runs: dict[str, Any]) -> pd.DataFrame:
    """Runs as ``seg.records.table.runs`` gives them, finished one a day, unless something else is said of them."""
    usual = {"status": "FINISHED", "seconds": 3600.0, "parent": None, "study": "s", "arm": "se", "seed": 0.0, "fold": 0}
    usual |= {"test_dice": 0.8, "dataset_version": "v", "params.seed": 0.0, "params.arm": "se", "sweep": "s-1"}
    table = []
    for number, run in enumerate(runs):
        own = {"run_id": f"{number:032x}", "run_id_short": f"{number:08x}", "name": f"unet-se-f{number}-s0-t{number}"}
        table.append(usual | own | {"started": BEGIN + pd.Timedelta(days=number)} | run)
    return pd.DataFrame(table)


def cases(table: pd.DataFrame, *ids: str) -> pd.DataFrame:
    """The tables of cases of all runs; ``ids`` are those of each run, one letter a case."""
    scored = [(run, case, case, "lobe", 0.8) for run, own in zip(table["run_id"], ids, strict=True) for case in own]
    return pd.DataFrame(scored, columns=["run_id", "case", "patient", "class", "dice"])


OUT_OF_FOLD = {"test_dice": None, "oof_dice": 0.8}


def test_only_finished_runs_with_scored_cases_count_and_the_others_are_counted() -> None:
    sweep = {"experiment_type": "sweep", "test_dice": None}
    table = rows(
        {},
        OUT_OF_FOLD,
        {"status": "FAILED"},
        {"status": "RUNNING"},
        {"status": "FAILED"},
        {"status": "PRUNED"},
        {"test_dice": None, "best_val_dice": 0.9},
        {"started": pd.NaT},
        sweep,
        {"parent": f"{8:032x}"},
        sweep | {"status": "FAILED"},
    )
    kept, left_out = scored_runs(table)
    assert dict(zip(kept["run_id_short"].str[-1], kept["part"], strict=True)) == {"0": "test", "1": "oof", "9": "test"}
    assert left_out == {
        "records of whole sweeps": 2, "failed": 2, "running": 1, "pruned": 1, "validated only": 1, "time not known": 1
    }  # fmt: skip


def test_without_any_test_score_nothing_is_kept() -> None:
    table = rows({}, {}).drop(columns=["test_dice", "sweep", "dataset_version"])
    kept, left_out = scored_runs(table)
    assert (len(kept), left_out) == (0, {"validated only": 2})


def found(table: pd.DataFrame, *ids: str) -> list[Any]:
    kept, left_out = scored_runs(table)
    return points_of(kept, cases(table, *ids), left_out)


def test_the_folds_of_an_arm_and_seed_are_one_result() -> None:
    first, second = {"fold": 0, "params.data.fold": 0}, {"fold": 1, "params.data.fold": 1, "params.resolved.patch": "9"}
    (pooled,) = found(rows(OUT_OF_FOLD | second, OUT_OF_FOLD | first), "cd", "ab")
    assert pooled.runs == ("00000001", "00000000")
    assert pooled.folds == ("0", "1")
    assert set(pooled.scores["case"]) == set("abcd")
    assert (pooled.part, pooled.name, pooled.arm, pooled.seed, pooled.data) == ("oof", "unet-se", "se", "0", "v")
    assert pooled.finished == BEGIN + pd.Timedelta(days=1, hours=1), "when the last one ended"


@pytest.mark.parametrize(
    "other", [{"params.arm": "cbam"}, {"seed": 1.0}, {"sweep": "s-2"}, {"study": "t"}, {"params.optimizer.lr": 0.1}]
)
def test_runs_that_differ_in_more_than_their_fold_are_results_of_their_own(other: dict[str, Any]) -> None:
    assert len(found(rows(OUT_OF_FOLD, OUT_OF_FOLD | other), "ab", "cd")) == 2


def test_runs_with_a_case_in_common_are_results_of_their_own() -> None:
    again = found(rows(OUT_OF_FOLD, OUT_OF_FOLD), "ab", "ab")
    assert [result.runs for result in again] == [("00000000",), ("00000001",)]
    tested = found(rows({}, {}), "ab", "cd")
    assert [result.part for result in tested] == ["test", "test"], "a tested run is one by itself"


def test_a_run_whose_cases_are_not_known_is_left_out() -> None:
    table = rows({}, {})
    kept, left_out = scored_runs(table)
    assert len(points_of(kept, cases(table, "ab", ""), left_out)) == 1
    assert left_out == {"table of cases not found": 1}


def test_a_run_with_nothing_to_score_is_left_out() -> None:
    table = rows({}, {})
    kept, left_out = scored_runs(table)
    empty = cases(table, "ab", "ab").assign(missed=0, false=0)
    empty["dice"] = empty["dice"].where(empty["run_id"] == table["run_id"][0])
    assert len(points_of(kept, empty, left_out)) == 1
    assert left_out == {"without any structure to score": 1}


def test_settings_are_what_can_change_a_score_in_few_words() -> None:
    params = {
        "data.root": "/here", "paths.outputs": "x", "resume": "y", "resolved.device": "cpu", "parameters": 5.0,
        "model._target_": "seg.models.unet", "attention": "{}", "loss._partial_": "True", "trainer.max_epochs": 40.0,
        "optimizer.lr": 0.01, "data.fold": 1.0, "data.folds": 5.0, "data.split_file": None,
    }  # fmt: skip
    (result,) = found(rows({f"params.{key}": value for key, value in params.items()}), "ab")
    assert result.settings == {
        "data.folds": "5",
        "model._target_": "unet",
        "optimizer.lr": "0.01",
        "trainer.max_epochs": "40",
    }


def test_a_run_by_itself_has_no_arm_but_its_name() -> None:
    (result,) = found(rows({"name": "unet-f0-s0", "arm": "unet-f0-s0", "seed": float("nan")}), "ab")
    assert (result.name, result.arm, result.seed) == ("unet", "", "")


def make_run(outputs: Path, kind: str, dice: float, experiment: str = "Brain <1>/first", **more: Any) -> Record:
    """A run as seg.engine.results leaves it, without the training."""
    tracker = open_record(kind, outputs=outputs, uri=None, experiment=experiment, run_name="unet-f0-s0")
    short = tracker.folders.short
    tags = {"run_id_short": short, "study": "first", "arm": "unet-f0-s0", "seed": 0, "dataset_version": "v"}
    tracker.set_tags(tags)
    tracker.log_metrics({"test_dice": dice}, step=1)
    table = pd.DataFrame(
        {"run_id": short, "case": ["007", "b"], "patient": ["007", "b"], "class": "lobe", "dice": dice}
    )
    (tracker.folders.run / "data").mkdir()
    table.to_csv(tracker.folders.run / "data/cases.csv", index=False)
    tracker.finish(more.get("status", "FINISHED"))
    return tracker


def config(outputs: Path, name: str) -> Any:
    asked = {"data": name, "study": None, "experiments": None}
    return OmegaConf.create(asked | {"paths": {"outputs": str(outputs)}, "tracking": {"uri": None}})


@pytest.mark.slow
def test_runs_of_every_record_stand_on_one_line(
    tmp_path: Path, empty_database: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(empty_database, tmp_path)
    first = make_run(tmp_path, "mlflow", 0.8)
    second = make_run(tmp_path, "none", 0.85)
    make_run(tmp_path, "none", 0.99, experiment="other/first")
    make_run(tmp_path, "none", 0.99, status="FAILED")
    main(config(tmp_path, "Brain <1>"))
    said = capsys.readouterr().out
    assert f"Best: Dice 0.850 [0.850, 0.850], unet (run {second.folders.short}" in said
    assert "It is the latest of 2 results too." in said
    assert first.folders.short in said
    assert "+0.0500" in said
    assert "Runs left out: failed (1)." in said
    path = tmp_path / "progress/Brain_1_.html"
    assert f"{path}: open it in a browser. Its picture: Brain_1_.png." in said
    assert sorted(file.name for file in path.parent.iterdir()) == ["Brain_1_.html", "Brain_1_.png"]
    page = path.read_text(encoding="utf-8")
    assert "Progress on Brain &lt;1&gt;" in page
    assert f"#run-{second.folders.short}" in page


def test_without_a_result_it_says_what_there_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path, "none", 0.8, status="FAILED")
    main(config(tmp_path, "Brain <1>"))
    assert capsys.readouterr().out == "No result on Brain <1> so far.\nRuns left out: failed (1).\n"
    assert not (tmp_path / "progress").exists()


def test_an_unknown_data_set_is_an_error_that_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data set x\. There is no run in"):
        main(config(tmp_path, "x"))
    make_run(tmp_path, "none", 0.8, experiment="phantom/first")
    with pytest.raises(ConfigError, match=r"phantm\. Did you mean 'phantom'\? There are: phantom\."):
        main(config(tmp_path, "phantm"))
