"""A run that is killed before any of its writes: then a resume, or a fresh start, ends as if nothing had happened."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from kills import Killer, killer
from training import TINY, arguments, same, weights

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Killer]:
    with killer(tmp_path_factory.mktemp("log") / "log.txt") as found:
        yield found


@pytest.fixture(scope="module")
def unbroken(
    trained: Killer, phantom_root: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[str]]:
    """The outputs of a run that nobody kills, and its writes in their order."""
    outputs = tmp_path_factory.mktemp("unbroken")
    points = outputs.parent / "points.txt"
    assert trained.train(outputs, *TINY, *arguments(phantom_root, outputs, cache), points=points) == 0
    return outputs, points.read_text().splitlines()


# Every file that appears whole, in this order, and the lines of the journal: a new write of a run is added here.
WRITES = """
runs/run 1 | predictions/run 1 | runs/run/state.json 1
runs/run/config/config.yaml 1 | runs/run/config/computing.json 1
runs/run/data/split.json 1 | runs/run/data/fingerprint.json 1 | runs/run/data/plan.json 1
runs/run/environment/packages.txt 1 | runs/run/environment/git.diff 1
runs/run/checkpoints/best.pt 1 | runs/run/checkpoints/last.pt 1
runs/run/checkpoints/best.pt 2 | runs/run/checkpoints/last.pt 2
predictions/run/.nii.gz 1 | predictions/run/.png 1 | predictions/run/.nii.gz 2 | predictions/run/.png 2
runs/run/data/confidence.json 1 | runs/run/data/calibration.csv 1 | runs/run/data/cases.csv 1
runs/run/history.csv 1 | runs/run/plots/loss_dice.png 1 | runs/run/plots/learning_rate.png 1
predictions/run/contact_sheet.png 1 | predictions/run/manifest.json 1 | runs/run/summary.json 1 | runs/run/state.json 2
"""
APPEAR = [f"os.rename {name.strip()}" for line in WRITES.strip().splitlines() for name in line.split("|")]
LINES = [f"open runs/run/record.jsonl {number}" for number in (1, 2, 10, 14, 15, 18, 25, 26)]


def test_the_list_of_writes_is_complete(unbroken: tuple[Path, list[str]]) -> None:
    assert [point for point in unbroken[1] if point.startswith("os.rename")] == APPEAR
    assert LINES[-1] == [point for point in unbroken[1] if "record.jsonl" in point][-1]


@pytest.mark.parametrize("point", [*APPEAR, *LINES])
def test_a_run_killed_at_any_write_ends_as_if_it_had_not_been(
    point: str, trained: Killer, unbroken: tuple[Path, list[str]], phantom_root: Path, cache: Path, tmp_path: Path
) -> None:
    given = (*TINY, *arguments(phantom_root, tmp_path, cache))
    assert trained.train(tmp_path, *given, kill=point) == -9
    (dead,) = [*tmp_path.glob("runs/run_*")] or [None]
    before = trained.log.stat().st_size
    if dead is None or trained.train(tmp_path, f"resume={dead.name[4:]}", *given[-2:]) != 0:
        said = trained.log.read_bytes()[before:].decode()  # the size is in bytes
        assert dead is None or re.search(r"has no .*config\.yaml", said), said  # it had not begun: a fresh start
        assert trained.train(tmp_path, *given) == 0
    states = {path.parent: json.loads(path.read_text()) for path in tmp_path.glob("runs/run_*/state.json")}
    (run,) = (run for run, state in states.items() if state["status"] == "FINISHED")
    ids = [(folder / "run_id").read_text().strip() for folder in (run, *unbroken[0].glob("runs/run_*"))]
    assert same(weights(tmp_path, ids[0]), weights(unbroken[0], ids[1]))
    assert table(run) == table(*unbroken[0].glob("runs/run_*"))
    assert not [*run.rglob(".*"), *(tmp_path / "predictions" / run.name).rglob(".*")], "half-written files"
    reports = [json.loads(line) for line in (run / "record.jsonl").read_text().splitlines()]
    assert reports[-1]["status"] == "FINISHED"
    steps = {name: [r["step"] for r in reports if name in r.get("metrics", ())] for name in ("test_dice", "val_dice")}
    assert steps == {"test_dice": [8], "val_dice": [4, 8]}, "nothing doubled, nothing lost"


def table(run: Path) -> str:
    return (run / "data/cases.csv").read_text().replace(run.name[4:], "id")


@pytest.mark.parametrize("name", ["summary.json 1", "state.json 2", "pending"])
def test_a_run_killed_while_it_closes_can_be_resumed_or_sent(
    name: str, trained: Killer, phantom_root: Path, cache: Path, tmp_path: Path, empty_database: Path
) -> None:
    from mlflow import MlflowClient

    from seg.records.folder import RunFolder
    from seg.records.pending import push_again

    shutil.copy(empty_database, tmp_path)
    given = (*TINY, *arguments(phantom_root, tmp_path, cache), "tracking=mlflow")
    point = "os.remove runs/run/pending 1" if name == "pending" else f"os.rename runs/run/{name}"
    assert trained.train(tmp_path, *given, kill=point) == -9
    (run,) = tmp_path.glob("runs/run_*")
    if name == "pending":  # all was recorded; MLflow may lack it
        push_again(RunFolder.at(run))
    else:
        assert trained.train(tmp_path, f"resume={run.name[4:]}", *given[-3:-1]) == 0
    client, run_id = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}"), (run / "run_id").read_text().strip()
    found = client.get_run(run_id)
    assert (found.info.status, "error" in found.data.tags) == ("FINISHED", False)
    assert [point.step for point in client.get_metric_history(run_id, "test_dice")] == [8]
    assert not (run / "pending").exists()
