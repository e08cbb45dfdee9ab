"""Versions in MLflow's registry: what one holds, which may be champion, and a history that nobody changes unseen."""

import json
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from seg.config.command import read
from seg.config.options import CONF
from seg.deploy import Predictor
from seg.deploy.history import ConflictError, Entry, appended, begun
from seg.deploy.registry import fetched
from seg.deploy.versions import promote, rollback, state
from seg.errors import ConfigError, DataError
from seg.records.folder import find
from seg.records.mlflow import Mlflow
from seg.register import main

CASES = 40


@pytest.fixture
def store(empty_database: Path, tmp_path: Path) -> Mlflow:
    """An MLflow of the test's own."""
    shutil.copy(empty_database, tmp_path)
    return Mlflow(None, tmp_path)


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., None]:
    """``python -m seg.register`` in the test's folder."""

    def given(*arguments: str, local: dict[str, object] | None = None) -> None:
        text = (CONF / "register.yaml").read_text() + "paths:\n  outputs: outputs\n  cache: cache\n"
        main(read(text, [f"paths.outputs={tmp_path}", "card.who=Ada", *arguments], local))

    return given


def a_version(store: Mlflow, name: str, dice: Sequence[float], first: int = 0, files: str = "") -> str:
    """The next version of ``name``, of a run that was tested on cases, each with its Dice; its number."""
    place = Path(store.uri.removeprefix("sqlite:///")).parent / "written"
    place.mkdir(exist_ok=True)
    cases = [f"case_{number:02}" for number in range(first, first + len(dice))]
    table = pd.DataFrame({"run": "x", "case": cases, "patient": cases, "class": "lobe", "dice": dice})
    table.assign(nsd=dice, hd95_mm=1.0, missed=0, false=0).to_csv(place / "cases.csv", index=False)
    prints = {"cases": [{"id": case, "sha256": f"{case}{files}"} for case in cases]}
    (place / "fingerprint.json").write_text(json.dumps(prints))
    client = store.client
    run = client.create_run(store.experiment("organs"))
    for file in ("cases.csv", "fingerprint.json"):
        client.log_artifact(run.info.run_id, str(place / file), "data")
    if name not in [model.name for model in client.search_registered_models()]:
        client.create_registered_model(name, tags=begun(store, name))
    return str(client.create_model_version(name, f"file:///{run.info.run_id}", run.info.run_id).version)


@pytest.fixture
def dice() -> np.ndarray:
    return np.random.default_rng(0).normal(0.8, 0.03, CASES)


def champion(store: Mlflow, reference: str, require: str = "not_worse", who: str = "Ada") -> str:
    return promote(store, reference, "champion", who=who, require=require, margin=0.01, why="")[0]


def actions(store: Mlflow, name: str = "organs") -> list[tuple[str, str, str]]:
    known = state(store, name).history
    assert not known.faults
    return [(entry.action, entry.before, entry.version) for entry in known.entries if entry.alias]


def noise(size: float) -> np.ndarray:
    return np.random.default_rng(1).normal(0, size, CASES)


def test_the_first_champion_needs_no_comparison_and_a_worse_one_is_refused_with_the_table(
    store: Mlflow, dice: np.ndarray
) -> None:
    for shift in (0, -0.05, 0.05):
        a_version(store, "organs", dice + shift + noise(0.01))
    assert champion(store, "organs/1") == "organs/1 is champion"
    with pytest.raises(ConfigError, match=r"(?s)organs/2 is not promoted.*\| organs/2 – organs/1 \|.*"):
        champion(store, "organs/2")
    assert state(store, "organs").aliases == {"champion": "1"}
    assert champion(store, "organs/3", "better") == "organs/3 is champion in place of organs/1"
    assert state(store, "organs").aliases == {"champion": "3"}
    with pytest.raises(ConfigError, match="is champion already"):
        champion(store, "organs/3")
    assert champion(store, "organs/2", "none") == "organs/2 is champion in place of organs/3"
    assert actions(store) == [("promoted", "", "1"), ("promoted", "1", "3"), ("promoted", "3", "2")]


@pytest.mark.slow
def test_a_real_but_small_loss_is_not_worse_and_equal_is_not_better(store: Mlflow, dice: np.ndarray) -> None:
    a_version(store, "organs", dice)
    a_version(store, "organs", dice - 0.004 + noise(0.002))
    champion(store, "organs/1")
    with pytest.raises(ConfigError, match="require=better"):
        champion(store, "organs/2", "better")
    champion(store, "organs/2")
    assert "worse" in state(store, "organs").history.entries[-1].why


@pytest.mark.parametrize(("first", "files", "said"), [(CASES, "", "no case in common"), (0, "!", "different files")])
def test_what_cannot_be_compared_is_not_promoted(
    store: Mlflow, dice: np.ndarray, first: int, files: str, said: str
) -> None:
    a_version(store, "organs", dice)
    a_version(store, "organs", dice, first, files)
    champion(store, "organs/1")
    with pytest.raises(DataError, match=said):
        champion(store, "organs/2")
    champion(store, "organs/2", "none")


def test_rollback_goes_back_step_by_step(store: Mlflow, dice: np.ndarray) -> None:
    for _ in range(3):
        champion(store, f"organs/{a_version(store, 'organs', dice)}", "none")
    for version in ("2", "1"):
        rollback(store, "organs", "champion", who="Ada", why="it missed tails")
        assert state(store, "organs").aliases == {"champion": version}
    with pytest.raises(ConfigError, match="had no champion before organs/1"):
        rollback(store, "organs", "champion", who="Ada", why="")
    assert state(store, "organs").history.entries[-1].why == "it missed tails"


def test_rollback_passes_over_a_version_that_was_deleted(store: Mlflow, dice: np.ndarray) -> None:
    for _ in range(3):
        champion(store, f"organs/{a_version(store, 'organs', dice)}", "none")
    store.client.delete_model_version("organs", "2")
    rollback(store, "organs", "champion", who="Ada", why="")
    known = state(store, "organs")
    assert known.aliases == {"champion": "1"}
    assert not known.off, "the history says the same"


def test_a_version_that_has_no_run_is_listed_and_not_compared(
    store: Mlflow, dice: np.ndarray, command: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    a_version(store, "organs", dice)
    for run_id in (None, "0" * 32):  # added by hand; its run was removed
        store.client.create_model_version("organs", "file:///x", run_id)
    command("list=organs")
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["organs/1", "organs/2", "organs/3"]
    champion(store, "organs/1")
    with pytest.raises(DataError, match="organs/3 was tested on no case"):
        champion(store, "organs/3")


def test_an_alias_set_in_mlflow_directly_is_shown_and_put_right(
    store: Mlflow, dice: np.ndarray, command: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(3):
        a_version(store, "organs", dice)
    champion(store, "organs/1")
    store.client.set_registered_model_alias("organs", "champion", "2")
    store.client.set_registered_model_alias("organs", "challenger", "2")
    command("list=all")
    shown = capsys.readouterr().out
    assert "organs/1  champion" in shown
    assert "champion is on 2 in MLflow, and on 1 in the history" in shown
    champion(store, "organs/3", "none")
    assert state(store, "organs").aliases == {"champion": "3"}
    assert ("repaired", "2", "1") in actions(store)


def test_of_two_who_change_a_model_at_once_the_second_is_told_of_the_first(store: Mlflow, dice: np.ndarray) -> None:
    a_version(store, "organs", dice)
    seen = state(store, "organs").history
    appended(store, seen, Entry(0, "", "Ada", "promoted", "1", "champion"))
    with pytest.raises(ConflictError, match=r"at the same time.*Ada  promoted  champion: none → 1"):
        appended(store, seen, Entry(0, "", "Bob", "promoted", "1", "challenger"))
    assert len(state(store, "organs").history.entries) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("update params set value = replace(value, 'Ada', 'Bob') where key = '0002'", "entry 0003 does not continue"),
        ("delete from params where key = '0001'", "entry 0002 is out of place"),
        ("delete from params where key = '0004'", "entry 0004, the last that was noted"),
        ("update params set value = 'x' where key = '0004'", "entry 0004 cannot be read"),
    ],
)
def test_a_history_that_was_altered_says_where(
    store: Mlflow, dice: np.ndarray, command: Callable[..., None], tmp_path: Path, change: str, said: str
) -> None:
    for _ in range(2):
        champion(store, f"organs/{a_version(store, 'organs', dice)}")
    command("history=organs", f"export={tmp_path / 'before.json'}")
    exported = json.loads((tmp_path / "before.json").read_text())
    assert [entry["action"] for entry in exported["entries"]] == ["found", "promoted"] * 2
    assert exported["faults"] == []
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute(change)
    with pytest.raises(DataError, match=said):
        command("history=organs")
    champion(store, "organs/1", "none")  # an emergency waits for nobody, and what was done before stays to be seen
    assert state(store, "organs").aliases == {"champion": "1"}
    with pytest.raises(DataError, match="altered"):
        command("history=organs")


def test_compare_prints_the_statistics_of_versions(
    store: Mlflow, dice: np.ndarray, command: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    for shift in (0, -0.05):
        a_version(store, "organs", dice + shift)
    command("compare=[1,2]", "name=organs")
    assert "organs/2 against organs/1: worse" in capsys.readouterr().out


@pytest.fixture
def trained(tiny: Any, store: Mlflow, tmp_path: Path) -> Any:
    """A finished run in ``store``."""
    return find(tmp_path, tiny("tracking=mlflow").run_id)


def test_a_run_becomes_a_version_with_all_that_it_needs(
    trained: Any, store: Mlflow, command: Callable[..., None], phantom_root: Path, tmp_path: Path, capsys: Any
) -> None:
    command(f"run={trained.short}", "name=organs", "card.use=To measure lobes.", "card.phi=no", "why=first")
    said = capsys.readouterr().out
    assert said.count(f"paths.outputs={tmp_path}") == 2, "what is printed finds it again"
    assert "tracking.uri" not in said
    version = store.client.get_model_version("organs", "1")
    recorded = store.client.get_run(trained.run_id).data.tags
    for tag in ("dataset_version", "split_hash", "git_commit"):
        assert version.tags[tag] == recorded[tag]
    assert (version.tags["who"], version.tags["phi"], version.tags["approval"]) == ("Ada", "no", "pending")
    assert version.run_id == trained.run_id
    for words in ("To measure lobes.", "| lobe |", trained.run_id, "Not a medical device", "2 cases of the test part"):
        assert words in version.description
    scan = phantom_root / "imagesTr" / "phantom_000.nii.gz"
    place = fetched("organs/1", outputs=tmp_path)
    assert (Predictor.load(place)(scan).mask == Predictor.load(trained.run)(scan).mask).all()
    assert version.tags["package"] == Predictor.load(place).package.id
    with pytest.raises(ConfigError, match="is organs/1 already"):
        command(f"run={trained.short}", "name=organs")
    command("review=organs/1", "card.approval=approved", "card.reviewer=Eve")
    assert store.client.get_model_version("organs", "1").tags["reviewer"] == "Eve"
    assert [entry.action for entry in state(store, "organs").history.entries] == ["registered", "reviewed"]


@pytest.mark.slow
def test_a_failure_leaves_no_empty_model_behind(
    trained: Any, store: Mlflow, command: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlflow.MlflowClient.create_model_version", lambda *_, **__: 1 / 0)
    with pytest.raises(ConfigError, match="division by zero"):
        command(f"run={trained.short}", "name=organs")
    assert not store.client.search_registered_models()
    monkeypatch.undo()
    store.client.create_registered_model("theirs")
    with pytest.raises(ConfigError, match="was not registered by seg"):
        command(f"run={trained.short}", "name=theirs")
    command(f"run={trained.short}", "name=organs")
    assert [model.name for model in store.client.search_registered_models()] == ["organs", "theirs"]


def test_models_of_others_are_left_alone(
    store: Mlflow, dice: np.ndarray, command: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("O'Brien's", "theirs"):
        store.client.create_registered_model(name)
        store.client.create_model_version(name, "file:///nowhere")
    a_version(store, "organs", dice)
    command("list=all")
    assert capsys.readouterr().out.startswith("organs/1")
    with pytest.raises(ConfigError, match="was not registered by seg"):
        command("list=O'Brien's")
    with pytest.raises(DataError, match="O'Brien's/1 has no package"):
        fetched("O'Brien's/1", outputs=Path(store.uri.removeprefix("sqlite:///")).parent)


@pytest.mark.slow
def test_another_package_than_the_registered_one_is_refused(
    trained: Any, store: Mlflow, command: Callable[..., None], tmp_path: Path
) -> None:
    command(f"run={trained.short}", "name=organs")
    place = fetched("organs/1", outputs=tmp_path)
    Predictor.load(place)
    (place / "model.json").write_text((place / "model.json").read_text() + " ")
    with pytest.raises(DataError, match="organs/1 is not as it was registered"):
        fetched("organs/1", outputs=tmp_path)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], ["Give one of run="]),
        (["run=a", "list=all"], ["Give one of run="]),
        (["run=a"], ["name is None"]),
        (
            ["run=a", "name=a/b", "alias=champion", "card.phi=maybe", "card.approval=approved", "margin=0"],
            [
                "name is a/b",
                "alias=champion would be ignored",
                "card.phi is maybe",
                "card.reviewer is missing",
                "margin",
            ],
        ),
        (["run=a", "name=b", "card.required=[use,phi]"], ["card.use is missing", "card.phi is missing"]),
        (["promote=b/1"], ["alias is missing"]),
        (["promote=b/1", "alias=boss", "require=best"], ["alias is boss", "require is best"]),
        (["review=b/1"], ["card.approval is pending"]),
        (["history=b", "why=x"], ["why=x would be ignored"]),
    ],
)
def test_what_is_missing_or_wrong_is_said_at_once(
    command: Callable[..., None], arguments: list[str], said: list[str]
) -> None:
    with pytest.raises(ConfigError) as refused:
        command(*arguments)
    for words in said:
        assert words in str(refused.value)


def test_a_laboratory_states_its_facts_once(command: Callable[..., None]) -> None:
    local: dict[str, object] = {"card.phi": False, "card.required": ["use", "phi", "reviewer"], "card.reviewer": "Eve"}
    with pytest.raises(ConfigError, match=r"^card.use is missing"):
        command("run=a", "name=b", local=local)
